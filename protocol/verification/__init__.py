"""Checks of the protocol, for this relay and for any other that speaks it.

A tool built on the protocol, with dependencies of its own (hypothesis, websockets); nothing else in
this project imports it.

    model/          who receives what: a second, slow, plain description of all rules
    subjects/       what is checked: the protocol core, a live relay; and the judge that compares
    strategies.py   messages as real clients send them, and as nobody should
    machine.py      a hypothesis state machine over a subject
    simulation/     a long random life of a mesh in virtual time, from a seed
    conformance/    the claims of the protocol one by one, against a live relay

Two modules open sockets, subjects/live.py and conformance/sockets.py; a test forbids it elsewhere.
`python -m protocol.verification simulate --help` and `... check --help` say how to run them.
"""
