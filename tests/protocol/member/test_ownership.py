"""Whose a peer's id is: which owners there are, and that the relay takes all of them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.claims import read_claim
from protocol.member.ownership import Ownership


@pytest.mark.parametrize(
    "owner", ["", "x" * 15, "x" * 257, "x" * 15 + "\ud800", "x" * 15 + "\ufffe", b"x" * 16, 7]
)
def test_what_is_no_owner_is_refused(owner: str) -> None:
    with pytest.raises(ValueError, match="16 to 256"):
        Ownership("ann", owner)


def test_without_an_owner_nothing_is_claimed_and_nobody_can_take_over() -> None:
    assert not Ownership("ann", None).is_claimed
    with pytest.raises(ValueError, match="owner"):
        Ownership("ann", None, takeover=True)


def test_a_takeover_is_said_until_the_peer_has_joined() -> None:
    ownership = Ownership("ann", "x" * 16, takeover=True)
    said = json.loads(ownership.text("t:1"))
    assert said == {
        **{"type": "capabilities", "from": "ann", "turnId": "t:1"},
        "data": {"claim": "x" * 16, "takeover": True},
    }
    ownership.joined()
    assert json.loads(ownership.text("t:2"))["data"] == {"claim": "x" * 16}


OWNERS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufffe"), min_size=16)


@given(OWNERS.filter(lambda owner: len(owner) <= 256), st.booleans())
def test_the_relay_takes_every_owner(owner: str, takeover: bool) -> None:
    ownership = Ownership("ann", owner, takeover=takeover)
    claim = read_claim(ownership.text("t:1").encode())
    assert claim is not None
    assert claim.takes_over is takeover
