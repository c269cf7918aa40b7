"""The chunks of one answer: which one is which, and whether one is missing.

A worker numbers its chunks (`data.chunkNum`), and its `turn_end` may say how many there were
(`data.chunks`). Peers of this project begin with 0, and existing pages with 1. So an answer may
begin with either, unless only a peer of this project can have given it. An answer in which a chunk
has no number is not judged, because not every worker counts.
"""

from typing import Any, Final

WHOLE_MAX: Final = 2**53
"""Above that the two languages do not read the same numbers."""


class Chunks:
    """The chunks of one answer, as they come."""

    def __init__(self) -> None:
        self.count = 0
        """How many have come."""
        self._next: int | None = None  # the number of the next one, None before the first
        self._has_numbers = True

    def note(self, number: Any, *, begins: tuple[int, ...] = (0, 1)) -> str | None:
        """A chunk with this number came, whatever that is. `begins`: what the first may have.

        Returns what is wrong with the answer, in words, or None.

        >>> chunks = Chunks()
        >>> chunks.note(0), chunks.note(1), chunks.note(4)
        (None, None, 'chunks 2 to 3 of the answer were lost')
        """
        whole = _whole(number)
        if whole is None:
            self._has_numbers = False
        wrong = None
        if self._has_numbers and whole is not None:
            wrong = self._wrong(whole, begins)
            self._next = whole + 1
        self.count += 1
        return wrong

    def _wrong(self, number: int, begins: tuple[int, ...]) -> str | None:
        if self._next is None:
            if number in begins:
                return None
            return f"the answer began with chunk {number}: the ones before it were lost"
        if number < self._next:
            return (
                f"chunk {number} of the answer came after chunk {self._next - 1}: does more than "
                "one program answer under this id?"
            )
        if number == self._next:
            return None
        if number == self._next + 1:
            return f"chunk {self._next} of the answer was lost"
        return f"chunks {self._next} to {number - 1} of the answer were lost"

    def end(self, total: Any) -> str | None:
        """The answer is over, and its worker says that it had so many chunks, if that is a number.
        Returns what is wrong, in words, or None."""
        whole = _whole(total)
        if whole is None or not self._has_numbers or whole == self.count:
            return None
        return f"the answer had {whole} chunks, and {self.count} came"


def _whole(value: Any) -> int | None:
    """The value if it is a whole number that both languages read alike.

    >>> _whole(3), _whole(3.0), _whole(True), _whole("3")
    (3, 3, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if not -WHOLE_MAX <= value <= WHOLE_MAX or value != int(value):
        return None
    return int(value)
