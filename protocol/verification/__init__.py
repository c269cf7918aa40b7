"""Checks of the protocol, for this relay and for any other that speaks it.

A tool built on the protocol, with dependencies of its own (hypothesis, websockets); nothing else in
this project imports it.

    model.py        who receives what: a second, slow, plain description of all rules
    strategies.py   messages as real clients send them, and as nobody should
    subjects.py     what is checked: the protocol core, a live relay; and the judge that compares
    machine.py      a hypothesis state machine over a subject
    simulate.py     a long random life of a mesh in virtual time, from a seed
    check.py        the claims of the protocol one by one, against a live relay

`python -m protocol.verification simulate --help` and `... check --help` say how to run them.
"""
