"""What askers hear when their commands end otherwise than by the word of a handler.

Each is the `data` of an `error`. One of them has no code, so here are only its words.
"""

from typing import Any, Final

End = dict[str, Any]
"""A sentence in `error`, and a `code` by which the asker's client knows it."""

STOPPED: Final = "cancelled: it is not served any more"
CANCELLED: Final[End] = {
    "error": "cancelled: nobody waits for it any more",
    "code": "cancelled",
}
LEFT: Final[End] = {
    "error": "left: the program or page that worked on it has gone",
    "code": "left",
}
MISSED: Final[End] = {"error": "the answer came while its asker was away", "code": "missed"}
BUSY: Final[End] = {"error": "busy: too many commands at a time; try again later", "code": "busy"}
