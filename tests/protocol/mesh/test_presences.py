"""The blocks that newcomers get have everyone, in order, and change only where somebody changed."""

import attrs
from hypothesis import given
from hypothesis import strategies as st

from protocol.envelope import Text
from protocol.mesh.effects import Block, Snapshot
from protocol.mesh.presences import LEAF_PEERS, Leaf, Presences
from protocol.mesh.presences import Present as Peer


@attrs.define(eq=False)
class Somebody:
    id: str
    presence: Text = b""
    leaf: Leaf | None = None


def crowd(size: int) -> tuple[Presences, list[Somebody]]:
    presences, peers = Presences(), [Somebody(str(n), b"%d" % n) for n in range(size)]
    for peer in peers:
        presences.add(peer)
    return presences, peers


def texts_without(presences: Presences, newcomer: Peer) -> list[Text]:
    return Snapshot(1, presences.without(newcomer)).presences


Step = tuple[str, int]


@given(
    st.lists(
        st.tuples(st.sampled_from(["come", "come", "change", "stay", "go"]), st.integers(0, 400)),
        max_size=400,
    ),
    st.integers(0, 2 * LEAF_PEERS),
)
def test_they_are_everyone_else_in_the_order_of_joining(steps: list[Step], first: int) -> None:
    presences, here = crowd(first)
    for number, (what, which) in enumerate(steps):
        if what == "come" or not here:
            newcomer = Somebody(f"new {number}")
            here.append(newcomer)
            presences.add(newcomer)
            presences.change(newcomer, b"new %d" % number)
        else:
            newcomer = here[which % len(here)]
            if what == "go":
                here.remove(newcomer)
                presences.remove(newcomer)
            else:
                presences.change(newcomer, newcomer.presence if what == "stay" else b"%d" % number)
        expected = [peer.presence for peer in here if peer is not newcomer]
        assert texts_without(presences, newcomer) == expected
        assert presences.bytes == sum(len(peer.presence) for peer in here)
        assert all(block.texts for block in presences.without(newcomer))


def test_a_newcomer_gets_the_same_blocks_as_the_one_before() -> None:
    presences, peers = crowd(10 * LEAF_PEERS)
    first, second = Somebody("first"), Somebody("second")
    presences.add(first)
    blocks = presences.without(first)
    presences.add(second)
    assert [*map(id, presences.without(second))][:10] == [*map(id, blocks)]
    presences.change(peers[5 * LEAF_PEERS], b"other")
    presences.change(peers[0], bytes(bytearray(peers[0].presence)))  # said again, word for word
    presences.remove(peers[-1])
    again = presences.without(first)
    assert [n for n in range(10) if again[n] is not blocks[n]] == [5, 9]


def test_nobody_is_kept_when_all_have_gone() -> None:
    presences, peers = crowd(3 * LEAF_PEERS)
    for peer in reversed(peers):
        presences.remove(peer)
    assert presences.bytes == 0
    alone = Somebody("alone")
    presences.add(alone)
    assert presences.without(alone) == ()
    assert Block((b"{}",)) == Block(
        (b"{}",)
    )  # effects are compared, to find out who decides otherwise
