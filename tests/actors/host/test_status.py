"""The answer of `/invocations`: made seldom, held once, and bounded for who does not read it."""

from typing import Any

import anyio
import pytest

from actors.clock import VirtualClock
from actors.host.status import CHUNK_BYTES, EVERY_S, REPORTS_MAX, Reports
from protocol.mesh.status import Totals


class World:
    """Counts the looks at the meshes."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.looks = 0
        self.reports = Reports(self.look, self.clock)

    def look(self) -> tuple[list[Any], Totals, int]:
        self.looks += 1
        return [], Totals(), 0


async def read(response: Any, sent: list[Any] | None = None) -> None:
    sent = [] if sent is None else sent

    async def send(event: Any) -> None:
        sent.append(event)

    await response({}, None, send)


@pytest.mark.anyio
async def test_all_that_is_asked_within_a_tenth_of_a_second_is_one_report_held_once() -> None:
    world = World()
    answers = [world.reports.answer(details=True) for _ in range(100)]
    assert world.looks == 1
    assert len({id(answer.body) for answer in answers}) == 1
    await world.clock.advance(EVERY_S)
    world.reports.answer(details=True)
    assert world.looks == 2


def test_a_report_with_details_is_not_the_one_without() -> None:
    world = World()
    assert b"totals" in world.reports.answer(details=True).body
    assert b"totals" not in world.reports.answer(details=False).body


@pytest.mark.anyio
async def test_reports_that_nobody_finishes_to_read_are_few() -> None:
    world = World()
    unread = []
    for _ in range(REPORTS_MAX):
        unread.append(world.reports.answer(details=True))
        await world.clock.advance(1)
    busy = world.reports.answer(details=True)
    assert (busy.status_code, world.looks) == (503, REPORTS_MAX)
    assert busy.headers["retry-after"] == "1"
    await read(unread[0])
    assert world.reports.answer(details=True).status_code == 200


@pytest.mark.anyio
async def test_a_report_whose_reader_is_gone_is_let_go() -> None:
    world = World()

    async def never(event: Any) -> None:
        await anyio.sleep_forever()

    response = world.reports.answer(details=True)
    with anyio.move_on_after(0):
        await response({}, None, never)  # type: ignore[arg-type]
    assert not world.reports._readers


@pytest.mark.anyio
async def test_a_long_report_is_sent_in_parts() -> None:
    world = World()
    response = world.reports.answer(details=False)
    response.body = b"x" * (2 * CHUNK_BYTES + 1)
    sent: list[Any] = []
    await read(response, sent)
    assert [len(event["body"]) for event in sent[1:]] == [CHUNK_BYTES, CHUNK_BYTES, 1]
    assert [event["more_body"] for event in sent[1:]] == [True, True, False]
