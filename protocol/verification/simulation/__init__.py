"""A long random life of a mesh in virtual time, from a seed.

    python -m protocol.verification simulate --seed 1 --peers 10 --hours 24
    python -m protocol.verification simulate --subject tests.worlds.actor_subject:ActorSubject

    events.py       what can happen: frozen values that print and parse themselves
    plan.py         `plan`: the history of a seed, event by event
    peers.py        what one peer says, and what it is going to do
    troubles.py     the trouble that befalls a peer
    life.py         `play`: a subject lives a history, judged by the model after every event
    shrink.py       `shrink`: the smallest part of a failing history that still fails
    report.py       `simulate`: all of that, and how an outcome is shown
    command.py      the command

A history does not depend on the subject. So a failing one is made small by leaving out events for
as long as it still fails, and the same seed gives the same history and the same answers to the last
byte: `Life.digest` is over both.
"""

from protocol.verification.simulation.events import Event, parse_history
from protocol.verification.simulation.life import LIMITS, Life, SubjectFactory, play
from protocol.verification.simulation.plan import plan
from protocol.verification.simulation.report import Outcome, simulate
from protocol.verification.simulation.shrink import shrink

__all__ = [
    "LIMITS",
    "Event",
    "Life",
    "Outcome",
    "SubjectFactory",
    "parse_history",
    "plan",
    "play",
    "shrink",
    "simulate",
]
