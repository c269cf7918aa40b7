"""What a program wants of what others say to everyone (rule 22 in docs/protocol.md).

The relay's side is protocol/mesh/wishes.py. The program says it as `subscribe`:

    None, True      everything
    False           nothing: only what is for this peer
    {"others": False, "topics": [...], "types": [...]}     as in rule 22, any of them

What the peer itself needs is never wished away. Directs and presences always arrive, and no answer
to this peer is for somebody else. So only `types` can leave out too much, and the presence has more
of them than the program has said (`subscription`):

    ack, stream, turn_end, error    from the first command on that the program asks. Whoever does
                                    not know `answers: "direct"` answers to everyone
    broadcast                       while the peer has agents, and from the first `serve` on:
                                    commands to everyone

The program does not see these: each message is looked at again when it arrives (`is_wanted`). So it
gets the same, whether the relay knows the rule or not.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Set
from typing import Any, Final

from protocol.envelope import Refusal
from protocol.limits import Limits
from protocol.member.messages import ANSWERS, NOT_FOR_ALL, Message
from protocol.member.roster import Roster
from protocol.subscribe import read_wish
from protocol.wish import EVERYTHING, Wish

FOR_ALL: Final = frozenset({"broadcast"})
"""The type of commands to everyone."""
NEEDED_MAX: Final = ANSWERS | FOR_ALL
"""All types that may be added."""
NOTHING: Final = Wish(others=False, types=frozenset())

_NAMES: Final = ("others", "topics", "types")


def wish_of(subscribe: Any) -> Wish:
    """The wish that a program says so. Raises TypeError, ValueError.

    >>> wish_of({"topics": ["orders", "robots/*"]}) == wish_of({"topics": ("robots/*", "orders")})
    True
    """
    if subscribe is None or isinstance(subscribe, bool):
        return NOTHING if subscribe is False else EVERYTHING
    if not isinstance(subscribe, Mapping):
        raise TypeError(f"subscribe is True, False or a dict, not {type(subscribe).__name__}")
    said = dict(subscribe)
    for name in said:
        if name not in _NAMES:
            raise ValueError(f"subscribe has {', '.join(_NAMES)}, and no {name!r}")
    if not isinstance(said.get("others"), bool | None):
        raise TypeError(f"others in subscribe is True or False, not {said['others']!r}")
    for name in ("topics", "types"):
        if said.get(name) is not None:
            said[name] = _texts(name, said[name])
    try:
        wish = read_wish(said, Limits())
    except Refusal as refusal:
        raise ValueError(refusal.sentence.replace("data.subscribe", "subscribe")) from None
    return EVERYTHING if wish == EVERYTHING else wish


def _texts(name: str, said: Any) -> list[str]:
    if isinstance(said, (str, Mapping)) or not isinstance(said, Iterable):
        raise TypeError(f"{name} in subscribe is a list of texts, not {said!r}")
    texts = list(said)
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"{name} in subscribe is a list of texts, not of {text!r}")
        if not text or not _is_unicode(text):
            raise ValueError(f"{name} in subscribe has {text!r}, which nothing is called")
    return texts


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def subscription(wish: Wish, needed: Set[str]) -> dict[str, Any] | None:
    """What the presence says in `data.subscribe`; None: nothing. If there are too many types with
    those that are `needed`, all types come.

    >>> subscription(wish_of({"types": ["price"]}), {"broadcast"})
    {'types': ['broadcast', 'price']}
    """
    said: dict[str, Any] = {}
    if not wish.others:
        said["others"] = False
    if wish.topics is not None:
        said["topics"] = sorted(wish.topics)
    if wish.types is not None:
        types = wish.types | needed
        if len(types) <= Limits().wish_names_max:
            said["types"] = sorted(types)
    return said or None


def is_wanted(
    wish: Wish, message: Message, id: str, agents: Callable[[], Collection[str]], roster: Roster
) -> bool:
    """The program of the peer `id`, which has these agents, wants this message, as it came."""
    if wish is EVERYTHING or message.type in NOT_FOR_ALL or message.is_relays:
        return True
    topic = message.fields.get("topic")
    is_for_others = not wish.others and _is_for_others(message, id, agents, roster)
    topic = topic if isinstance(topic, str) else None
    return wish.has(message.type, topic, is_for_others=is_for_others)


def _is_for_others(
    message: Message, id: str, agents: Callable[[], Collection[str]], roster: Roster
) -> bool:
    """It names peers that are here, and this one is not among them."""
    target, to = message.fields.get("targetInstanceId"), message.to
    if isinstance(target, str):
        return target in roster.peers
    if to is None or to == id:
        return False
    if to in roster.peers:
        return True
    if to in roster.shared_agent_ids or to in agents():
        return False
    return bool(roster.hosts(to))
