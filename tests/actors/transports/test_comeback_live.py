"""A real relay and real sockets: what was cut goes on, in both directions, byte for byte."""

import json
import socket
import struct
from contextlib import ExitStack
from zlib import crc32

import pytest

from protocol.limits import Limits
from tests.actors.transports.test_uvicorn import RawClient
from tests.worlds.frames import TEXT
from tests.worlds.live import LiveRelay


def resume_of(client: RawClient) -> dict[str, object]:
    answer = client.message()
    assert answer["type"] == "capabilities_response"
    resume: dict[str, object] = answer["data"]["resume"]
    return resume


def reset(client: RawClient) -> None:
    """Cut its socket, as when the machine or its network fails."""
    linger = struct.pack("ii", 1, 0)
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    client.socket.close()


def text_of(client: RawClient) -> bytes:
    """The next message, as it was written."""
    while True:
        opcode, payload = client.read()
        if opcode == TEXT:
            return payload


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
            if is_noticed:
                reset(first)
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


def test_many_that_are_cut_at_once_get_all_of_it_in_the_order_in_which_they_read() -> None:
    """More than a socket takes at once; and who reads does not wait for those who do not."""
    peers, messages = 12, 150
    with LiveRelay(limits=Limits()) as live, ExitStack() as stack:
        talker = stack.enter_context(RawClient(live.port))
        talker.say("presence", **{"from": "talker"})
        assert talker.message()["from"] == "talker"
        opened = []
        for number in range(peers):
            client = stack.enter_context(RawClient(live.port))
            client.say("capabilities", data={"resume": {"seconds": 20}})
            opened.append((client, resume_of(client)))
            client.say("presence", **{"from": f"peer {number}"})
            assert talker.message()["from"] == f"peer {number}"  # so the relay has it
        talker.say("stream", n=-1)
        questions = []
        for client, resume in opened:
            received, last = 1, text_of(client)
            while b'"n": -1' not in last:
                received, last = received + 1, text_of(client)
            ask = {"token": resume["token"], "epoch": resume["epoch"]}
            questions.append({**ask, "received": received, "crc": crc32(last)})
        for client, _ in opened:
            reset(client)
        for n in range(messages):
            talker.say("stream", n=n, data="x" * 4000)
        talker.say("direct", to="talker")
        assert talker.message()["type"] == "direct"  # so the relay has all of these
        returned = [stack.enter_context(RawClient(live.port)) for _ in questions]
        for client, question in zip(returned, questions, strict=True):
            client.say("capabilities", data={"resume": question})
        for client in reversed(returned):
            assert resume_of(client)["resumed"] is True
            assert [client.message()["n"] for _ in range(messages)] == [*range(messages)]
        talker.say("stream", n=messages)
        assert [client.message()["n"] for client in returned] == [messages] * peers
