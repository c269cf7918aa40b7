"""What a relay may get wrong of what a returning connection has missed: takes the place of
`History.missed`. The state machine and the conformance kit must find it."""

from collections.abc import Callable, Sequence

from actors.frames import Batch
from protocol.mesh.history import History, Missing
from protocol.mesh.rounds import Missed

in_parts = History.missed


def missed(history: History, c: int, received: int, crc: int | None) -> list[bytes]:
    """What it has missed, as the history says it. Raises Missing."""
    return [text for part in in_parts(history, c, received, crc) for text in part.texts]


Wrong = Callable[[History, int, int, int | None], list[bytes]]


def as_parts(wrong: Wrong) -> Callable[[History, int, int, int | None], Sequence[Missed]]:
    """The texts that `wrong` returns, as `History.missed` returns them."""

    def parts(history: History, c: int, received: int, crc: int | None) -> Sequence[Missed]:
        return [Batch(wrong(history, c, received, crc))]

    return parts


@as_parts
def everything_again(history: History, c: int, received: int, crc: int | None) -> list[bytes]:
    """What has arrived comes once more."""
    missed(history, c, received, crc)
    return missed(history, c, 0, None)


@as_parts
def what_is_left_of_it(history: History, c: int, received: int, crc: int | None) -> list[bytes]:
    """What is no longer kept is passed over in silence."""
    try:
        return missed(history, c, received, crc)
    except Missing as missing:
        if missing.reason == "history":
            return []
        raise
