"""Attackers: the real relay in a process of its own, honest peers, and connections that want to hurt them.

It mirrors no folder of the code, for what it proves belongs to all of them: whatever some connections send, the
honest ones notice nothing, and the process holds little. The oracles are counts and bounds, never times; times are
measured by `python -m benchmarks.attack`, which uses the same attackers.
"""  # noqa: E501
