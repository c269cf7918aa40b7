"""Answers that cost something: made seldom, held once, and bounded for who does not read them."""

from typing import Any

import anyio
import pytest

from actors.clock import VirtualClock
from actors.host.reports import CHUNK_BYTES, EVERY_S, REPORTS_MAX, Kind, Reports


class World:
    """Counts the looks at the meshes."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.looks = 0
        kinds = {"long": Kind(self.look, "text/long"), "short": Kind(bytes, "text/short")}
        self.reports = Reports(kinds, self.clock)

    def look(self) -> bytes:
        self.looks += 1
        return b"totals"


async def read(response: Any, sent: list[Any] | None = None) -> None:
    sent = [] if sent is None else sent

    async def send(event: Any) -> None:
        sent.append(event)

    await response({}, None, send)


@pytest.mark.anyio
async def test_all_that_is_asked_within_a_tenth_of_a_second_is_one_report_held_once() -> None:
    world = World()
    answers = [world.reports.answer("long") for _ in range(100)]
    assert world.looks == 1
    assert len({id(answer.body) for answer in answers}) == 1
    await world.clock.advance(EVERY_S)
    world.reports.answer("long")
    assert world.looks == 2


def test_a_report_of_one_kind_is_not_that_of_another() -> None:
    world = World()
    assert b"totals" in world.reports.answer("long").body
    assert b"totals" not in world.reports.answer("short").body


@pytest.mark.anyio
async def test_reports_that_nobody_finishes_to_read_are_few() -> None:
    world = World()
    unread = []
    for _ in range(REPORTS_MAX):
        unread.append(world.reports.answer("long"))
        await world.clock.advance(1)
    busy = world.reports.answer("long")
    assert (busy.status_code, world.looks) == (503, REPORTS_MAX)
    assert busy.headers["retry-after"] == "1"
    await read(unread[0])
    assert world.reports.answer("long").status_code == 200


@pytest.mark.anyio
async def test_a_report_whose_reader_is_gone_is_let_go() -> None:
    world = World()

    async def never(event: Any) -> None:
        await anyio.sleep_forever()

    response = world.reports.answer("long")
    with anyio.move_on_after(0):
        await response({}, None, never)  # type: ignore[arg-type]
    assert not world.reports._readers


@pytest.mark.anyio
async def test_a_long_report_is_sent_in_parts() -> None:
    world = World()
    response = world.reports.answer("short")
    response.body = b"x" * (2 * CHUNK_BYTES + 1)
    sent: list[Any] = []
    await read(response, sent)
    assert [len(event["body"]) for event in sent[1:]] == [CHUNK_BYTES, CHUNK_BYTES, 1]
    assert [event["more_body"] for event in sent[1:]] == [True, True, False]
