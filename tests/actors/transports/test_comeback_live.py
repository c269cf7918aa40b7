"""A real relay and real sockets: what was cut goes on, in both directions, byte for byte."""

import json
import socket
import struct
from zlib import crc32

import pytest

from protocol.limits import Limits
from tests.actors.transports.test_uvicorn import RawClient
from tests.worlds.live import LiveRelay


def resume_of(client: RawClient) -> dict[str, object]:
    answer = client.message()
    assert answer["type"] == "capabilities_response"
    resume: dict[str, object] = answer["data"]["resume"]
    return resume


@pytest.mark.parametrize("is_noticed", [True, False])
def test_a_cut_connection_goes_on_with_another_socket(is_noticed: bool) -> None:
    with LiveRelay(limits=Limits()) as live, RawClient(live.port) as other:
        other.say("presence", **{"from": "other"})
        other.message()
        with RawClient(live.port) as first:
            first.say("capabilities", data={"resume": {"seconds": 20}})
            opened = resume_of(first)
            first.say("presence", **{"from": "a"})
            assert [first.message()["from"] for _ in range(2)] == ["a", "other"]
            assert other.message()["from"] == "a"
            other.say("direct", to="a", n=1, data="é\ud83d" * 10)
            _, last = first.read()
            assert json.loads(last)["n"] == 1
            if is_noticed:  # a reset, as when the machine or its network fails
                linger = struct.pack("ii", 1, 0)
                first.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                first.socket.close()
            for n in (2, 3):
                other.say("direct", to="a", n=n)
            other.say("direct", to="other", n=100)
            assert other.message()["n"] == 100  # so the relay has taken all of these
            with RawClient(live.port) as second:
                ask = {"token": opened["token"], "epoch": opened["epoch"]}
                second.say(
                    "capabilities", data={"resume": {**ask, "received": 3, "crc": crc32(last)}}
                )
                answer = resume_of(second)
                assert answer["resumed"] is True
                assert answer["taken"] == 1  # its presence
                assert answer["token"] != opened["token"]
                assert [second.message()["n"] for _ in range(2)] == [2, 3]
                second.say("direct", to="other", n=4)
                assert other.message()["n"] == 4  # and nobody heard of an end
