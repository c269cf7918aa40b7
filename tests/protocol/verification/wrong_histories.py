"""What a relay may get wrong of what a returning connection has missed: takes the place of
`History.missed`. The state machine and the conformance kit must find it."""

from protocol.mesh.history import History, Missing

missed = History.missed


def everything_again(history: History, c: int, received: int, crc: int | None) -> list[bytes]:
    """What has arrived comes once more."""
    missed(history, c, received, crc)
    return missed(history, c, 0, None)


def what_is_left_of_it(history: History, c: int, received: int, crc: int | None) -> list[bytes]:
    """What is no longer kept is passed over in silence."""
    try:
        return missed(history, c, received, crc)
    except Missing as missing:
        if missing.reason == "history":
            return []
        raise
