"""The routing table is that of the design, and an audience is a value."""

import itertools

import attrs
import pytest

from protocol.mesh.effects import Block, Deliver, Everyone, Only, Others, Snapshot
from protocol.mesh.routing import ANY_OTHER_TYPE, RELAYS_PREFIX, ROUTES, WITHHELD, Route

TABLE = {
    "presence": Route.EVERYONE,
    "heartbeat": Route.RELAY,
    "capabilities": Route.RELAY,
    "direct": Route.TARGET,
    "cancel": Route.TARGET,
    "broadcast": Route.OTHERS,
    "stream": Route.OTHERS,
    "ack": Route.OTHERS,
    "turn_end": Route.OTHERS,
    "error": Route.OTHERS,
    "configure": Route.NOBODY,
    "credentials_updated": Route.NOBODY,
    "list_github": Route.NOBODY,
    "trigger_github": Route.NOBODY,
    "poll_github_logs": Route.NOBODY,
    "capabilities_response": Route.REFUSED,
}


def test_the_table_is_that_of_the_design() -> None:
    assert ROUTES == TABLE


def test_what_is_withheld_has_a_reason_and_nothing_else_has() -> None:
    nobody = {type for type, route in ROUTES.items() if route is Route.NOBODY}
    assert {*WITHHELD} == {f"{RELAYS_PREFIX}*"} | nobody


def test_any_other_type_goes_where_a_broadcast_goes() -> None:
    assert "ring-update" not in ROUTES
    assert ANY_OTHER_TYPE is ROUTES["broadcast"]


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        ROUTES["configure"] = Route.OTHERS  # type: ignore[index]


@pytest.mark.parametrize(
    ("route", "words"),
    [
        (Route.EVERYONE, "all peers, the sender included"),
        (Route.OTHERS, "all peers except the sender"),
        (Route.TARGET, "one peer"),
        (Route.RELAY, "the server only"),
    ],
)
def test_a_route_reads_as_in_the_specification(route: Route, words: str) -> None:
    assert route.value == words


def test_audiences_are_equal_by_what_they_name_and_cannot_be_changed() -> None:
    audiences: list[object] = [Only((1, 2)), Only((1,)), Others((1, 2)), Others(()), Everyone()]
    again: list[object] = [Only((1, 2)), Only((1,)), Others((1, 2)), Others(()), Everyone()]
    for one, other in itertools.product(range(5), repeat=2):
        assert (audiences[one] == again[other]) == (one == other)
    assert Deliver((b"{}",), Only((1,))) == Deliver((b"{}",), Only((1,)))
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Snapshot(1, ()).blocks = (Block((b"{}",)),)  # type: ignore[misc]
    with pytest.raises(AttributeError):
        Deliver((b"{}",), Everyone()).texts = (b"[]",)  # type: ignore[misc]
