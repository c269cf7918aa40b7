"""What is checked: relays as the machine and the simulation see them, and the judge.

    subject.py      what a `Subject` is told, and what it says it decided
    judge.py        `Judge`: compares a subject with the model
    core.py         `CoreSubject`: the protocol alone, without I/O
    live.py         `LiveSubject`: any relay at a WebSocket URL; opens sockets, so import it by name

A third subject, the supervisor and the peer actors under a scheduler with virtual time, is in
tests/worlds/actor_subject.py, because the protocol may not import the actors.
"""

import warnings
from typing import Any

from protocol.verification.subjects.core import (
    WALL_MS,
    CoreSubject,
    Expiry,
    as_grant,
    as_inbound,
    as_told,
)
from protocol.verification.subjects.judge import Judge
from protocol.verification.subjects.subject import Decision, Expectations, Happened, Kind, Subject

__all__ = [
    "WALL_MS",
    "CoreSubject",
    "Decision",
    "Expectations",
    "Expiry",
    "Happened",
    "Judge",
    "Kind",
    "Subject",
    "as_grant",
    "as_inbound",
    "as_told",
]


def __getattr__(name: str) -> Any:
    """The old place of `LiveSubject`, for one release."""
    if name != "LiveSubject":
        raise AttributeError(name)
    from protocol.verification.subjects.live import LiveSubject  # noqa: PLC0415 (opens sockets)

    warnings.warn(f"import LiveSubject from {__name__}.live", DeprecationWarning, stacklevel=2)
    return LiveSubject
