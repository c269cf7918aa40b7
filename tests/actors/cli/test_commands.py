"""`agi-mesh` as its users call it: real programs, a real relay, real peers."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import jwt
import pytest

from actors.cli.place import _own_id
from actors.cli.serve import answer
from actors.client.command import Command
from actors.client.peer import Peer, join
from actors.host.tokens import Auth
from protocol import verification
from protocol.member.errors import TurnFailed
from tests import ROOT
from tests.actors.cli.conftest import Call
from tests.actors.cli.program import line_with, running
from tests.worlds.live import PATIENCE_S, HeldPort, LiveRelay
from tests.worlds.peers import Serving, Thinking, message_of, until

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """It is about the programs."""
    return "asyncio"


SECRET = "a secret of at least 32 bytes, yes"


def issued_to(peer: str) -> str:
    return str(jwt.encode({"sub": peer, "exp": int(time.time()) + 600}, SECRET, "HS256"))


@asynccontextmanager
async def coder(relay: LiveRelay, handler: Any, id: str = "bob") -> AsyncIterator[Peer]:
    """A peer with the agent `coder`."""
    joined = join(relay.url, id, agents=["coder"], metadata={"hostname": "host"})
    async with joined as peer, Serving(peer, handler):
        yield peer


async def shout(command: Command) -> str:
    for word in str(command.text).split():
        await command.stream(f"{word.upper()} ")
    return str(command.text).upper()


# who ----------------------------------------------------------------------------------------------


async def test_who_shows_peers_agents_and_hosts_as_text(live: LiveRelay, call: Call) -> None:
    async with coder(live, shout), join(live.url, "ann\x1b[31m", agents=["a", "b"]):
        shown = await call("who", "--url", live.url)
        assert shown.code == 0
        assert [line.split("  ")[0].strip() for line in shown.lines] == [
            *("PEER", "ann\\x1b[31m", "bob"),
        ]
        assert shown.lines[2].split() == ["bob", "coder", "host"]
        told = await call("who", "--url", live.url, "--json", "coder")
        (bob,) = map(json.loads, told.lines)
        assert (bob["peer"], bob["agents"], bob["data"]["hostname"]) == ("bob", ["coder"], "host")
        nobody = await call("who", "--url", live.url, "painter")
        assert (nobody.code, nobody.out) == (1, "")
        assert "nobody who is painter" in nobody.err


async def test_nobody_there_is_said_at_once_and_again_at_the_end(call: Call) -> None:
    with HeldPort() as port:
        shown = await call("who", "--url", f"ws://127.0.0.1:{port}/ws")
    assert shown.code == 1
    assert shown.out == ""
    assert "is the relay running?" in shown.err.splitlines()[-1]
    assert "Traceback" not in shown.err


# tail ---------------------------------------------------------------------------------------------


async def test_tail_shows_what_is_wanted_in_a_line_each(live: LiveRelay) -> None:
    wanted = ("--type", "broadcast", "--type", "note", "--peer", "bob", "--count", "2")
    with running("tail", "--url", live.url, *wanted) as tail:
        await anyio.to_thread.run_sync(line_with, tail.stderr, "listening")
        async with join(live.url, "bob") as bob, join(live.url, "ann") as ann:
            await ann.broadcast("of ann")
            await bob.send("other", 1)
            await bob.broadcast("two\nlines \x1b]0;title\x07")
            await bob.send("note", {"n": 1}, turn_id="turn-of-bob")
        out, _ = await anyio.to_thread.run_sync(tail.communicate)
    assert out.splitlines() == [
        "broadcast   bob: two\\nlines \\x1b]0;title\\x07",
        'note        bob [turn-of-]: {"n":1}',
    ]
    assert tail.returncode == 0


async def test_tail_ends_with_one_line_when_it_is_interrupted(live: LiveRelay) -> None:
    with running("tail", "--url", live.url, "--json") as tail:
        await anyio.to_thread.run_sync(line_with, tail.stderr, "listening")
        async with join(live.url, "bob") as bob:
            await bob.broadcast("é")
            line = await anyio.to_thread.run_sync(line_with, tail.stdout, "broadcast")
            assert json.loads(line)["data"] == "é"
            tail.send_signal(signal.SIGINT)
            _, err = await anyio.to_thread.run_sync(tail.communicate)
            await until(lambda: not bob.roster)  # it has left, and was not lost
    assert tail.returncode == 130
    assert err.splitlines() == ["agi-mesh: interrupted"]


async def test_tail_shows_what_was_said_before(live: LiveRelay, call: Call) -> None:
    async with join(live.url, "bob", agents=["coder", "painter"]) as bob:
        for number in range(5):
            await bob.send("note", number)
        await bob.broadcast({"command": "go"}, turn_id="t", agent="coder")
        shown = await call("tail", "--history", "3", "--count", "4", "--url", live.url)
        assert shown.lines == [
            "presence    bob: is here with coder, painter",
            "note        bob: 3",
            "note        bob: 4",
            "broadcast   coder of bob [t]: go",
        ]
        told = await call("tail", "--turn", "t", "--seconds", "1", "--url", live.url)
        assert (told.code, told.out) == (0, "")


async def test_who_reads_no_more_ends_it_quietly(live: LiveRelay) -> None:
    with running("tail", "--url", live.url) as tail:
        await anyio.to_thread.run_sync(line_with, tail.stderr, "listening")
        assert tail.stdout is not None
        tail.stdout.close()
        async with join(live.url, "bob") as bob:
            await bob.broadcast("hello")
            await anyio.to_thread.run_sync(tail.wait)
        assert tail.stderr is not None
        assert tail.stderr.read() == ""
    assert tail.returncode == 141


# send ---------------------------------------------------------------------------------------------


async def test_send_says_one_thing(live: LiveRelay, call: Call) -> None:
    async with join(live.url, "bob", agents=["coder"]) as bob:
        assert (await call("send", "hello", "--url", live.url)).code == 0
        assert (await message_of(bob, "broadcast")).data == "hello"
        sent = await call("send", "-", "--to", "coder", "--url", live.url, stdin="from\nstdin\n")
        assert (sent.code, sent.out, sent.err) == (0, "", "")
        assert (await message_of(bob, "direct")).data == "from\nstdin"
        note = ("--type", "note", "--data", '{"n":1}', "--topic", "t", "--from", "clock")
        assert (await call("send", *note, "--id", "me", "--url", live.url)).code == 0
        said = await message_of(bob, "note")
        assert (said.data, said.origin, said.sender) == ({"n": 1}, "me", "clock")
        assert said.fields["topic"] == "t"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("send", "x", "--type", "presence"), 1, "peer itself"),
        (("send", "--data", "{"), 2, "no JSON"),
        (("ask", "coder", "x", "--peer", "a", "--any"), 2, "both"),
        (("ask", "coder", "x", "--timeout", "-1"), 2, "--timeout"),
        (("tail", "--history", "-1"), 2, "--history"),
        (("who", "--id", "\udcff"), 1, ""),
        (("who", "--arn", "x"), 2, "--arn"),
    ],
)
async def test_what_cannot_be_gets_one_sentence(
    arguments: tuple[str, ...], code: int, words: str, live: LiveRelay, call: Call
) -> None:
    shown = await call(*arguments, "--url", live.url)
    assert shown.code == code
    assert words in shown.err
    assert shown.out == ""
    assert "Traceback" not in shown.err
    assert shown.err.splitlines()[-1]


async def test_send_says_what_the_relay_refuses(live: LiveRelay, call: Call) -> None:
    sent = await call("send", "hello", "--to", "nobody", "--url", live.url)
    assert sent.code == 1
    assert sent.err.startswith("agi-mesh: ")
    assert "nobody" in sent.err
    usage = await call("send", "--url", live.url)
    assert usage.code == 2
    assert "TEXT" in usage.err


# ask ----------------------------------------------------------------------------------------------


async def test_ask_shows_the_answer_as_it_comes(live: LiveRelay, call: Call) -> None:
    async with coder(live, shout):
        shown = await call("ask", "coder", "to be or not", "--url", live.url)
        assert (shown.code, shown.out, shown.err) == (0, "TO BE OR NOT \n", "")
        told = await call("ask", "coder", "--json", "--url", live.url, stdin="a b\n")
        assert [json.loads(line) for line in told.lines] == [
            *({"chunk": "A "}, {"chunk": "B "}, {"result": "A B"}),
        ]


async def test_a_result_that_was_no_chunk_is_shown_behind_them(live: LiveRelay, call: Call) -> None:
    async def think(command: Command) -> Any:
        await command.stream("thinking")
        return {"answer": 42}

    async with coder(live, think):
        shown = await call("ask", "coder", "x", "--url", live.url)
    assert shown.out == 'thinking\n{"answer":42}\n'


async def test_a_command_that_fails_is_exit_code_1(live: LiveRelay, call: Call) -> None:
    async def fail(command: Command) -> None:
        await command.stream("begun")
        raise ValueError("no \x1b[31mcolours")

    async with coder(live, fail):
        shown = await call("ask", "coder", "x", "--url", live.url)
        assert (shown.code, shown.out) == (1, "begun\n")
        assert shown.err == "agi-mesh: no \\x1b[31mcolours\n"
    nobody = await call("ask", "nobody", "x", "--url", live.url)
    assert nobody.code == 1
    assert "nobody" in nobody.err


async def test_ctrl_c_tells_the_agent_to_stop(live: LiveRelay) -> None:
    think = Thinking()
    async with coder(live, think):
        with running("ask", "coder", "think", "--url", live.url) as ask:
            with anyio.fail_after(PATIENCE_S):
                await think.begun.wait()
                ask.send_signal(signal.SIGINT)
                await think.stopped.wait()
            _, err = await anyio.to_thread.run_sync(ask.communicate)
    assert (ask.returncode, err) == (130, "agi-mesh: interrupted\n")


# serve --------------------------------------------------------------------------------------------


@asynccontextmanager
async def served(relay: LiveRelay, program: str, *more: str) -> AsyncIterator[tuple[Peer, Any]]:
    """A peer that can ask the agent `tool`, which is this program."""
    with running("serve", "tool", "--exec", program, "--url", relay.url, *more) as serve:
        await anyio.to_thread.run_sync(line_with, serve.stderr, "serves at")
        async with join(relay.url, "ann") as ann:
            yield ann, serve


async def test_any_program_is_an_agent(live: LiveRelay) -> None:
    async with served(live, "tr a-z A-Z; echo asked by $AGI_MESH_ASKER") as (ann, _):
        turn = ann.ask("tool", "one\ntwo\n")
        assert [chunk async for chunk in turn] == ["ONE\n", "TWO\n", "asked by ann\n"]
        assert await turn == "ONE\nTWO\nasked by ann"
        assert await ann.ask("tool", {"N": 1}) == '{"N": 1}asked by ann'


async def test_a_program_that_fails_says_why(live: LiveRelay) -> None:
    async with (
        coder(live, partial(answer, "echo begun; echo no such file >&2; exit 3")),
        join(live.url, "ann") as ann,
    ):
        with pytest.raises(TurnFailed, match="ended with code 3: no such file"):
            await ann.ask("coder", "x")
    async with coder(live, partial(answer, "kill -9 $$")), join(live.url, "ann") as ann:
        with pytest.raises(TurnFailed, match=r"was ended by signal 9$"):
            await ann.ask("coder", {"n": 1})


async def test_a_program_that_reads_nothing_and_writes_much(live: LiveRelay) -> None:
    program = "head -c 300000 /dev/zero | tr '\\0' x; printf '\\303'; head -c 9000 /dev/zero >&2"
    async with coder(live, partial(answer, program)), join(live.url, "ann") as ann:
        turn = ann.ask("coder", "y" * 500_000)
        chunks = [chunk async for chunk in turn]
        assert "".join(chunks) == "x" * 300_000 + "\ufffd"
        assert len(await turn) == 2**17


async def test_a_cancelled_command_ends_the_program_and_its_children(
    live: LiveRelay, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    program = f"sleep 1000 & echo $! > {pids}; echo $$ >> {pids}; echo go; wait"
    async with served(live, program) as (ann, serve):
        async with ann.ask("tool", "x") as turn:
            assert await anext(turn) == "go\n"
        ended = [int(pid) for pid in pids.read_text().split()]
        await until(lambda: not any(map(_runs, ended)))
        turn = ann.ask("tool", "x")
        assert await anext(turn) == "go\n"
        ended = [int(pid) for pid in pids.read_text().split()]
        serve.send_signal(signal.SIGTERM)
        await anyio.to_thread.run_sync(serve.wait)
        assert serve.returncode == 143
        await until(lambda: not any(map(_runs, ended)))


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


# record and replay --------------------------------------------------------------------------------


async def test_what_was_recorded_is_said_again(live: LiveRelay, tmp_path: Path, call: Call) -> None:
    file = tmp_path / "recording"
    with running("record", str(file), "--url", f"{live.url}?mesh=one") as record:
        await anyio.to_thread.run_sync(line_with, record.stderr, "records at")
        async with join(f"{live.url}?mesh=one", "bob", agents=["coder"]) as bob:
            await bob.broadcast("hello", topic="t")
            await bob.send("note", [1, 2], agent="coder")
            await until(lambda: file.exists() and file.read_text().count("\n") >= 3)
        await until(lambda: "offline" in file.read_text())
        record.send_signal(signal.SIGINT)
        await anyio.to_thread.run_sync(record.wait)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["at"] for line in lines] == sorted(line["at"] for line in lines)
    async with join(f"{live.url}?mesh=two", "ann") as ann:
        again = await call("replay", str(file), "--speed", "100", "--url", f"{live.url}?mesh=two")
        assert again.code == 0, again.err
        shown: list[Any] = []
        with anyio.fail_after(PATIENCE_S):
            while not (shown and shown[-1][0] == "presence" and "status" in shown[-1][3]):
                one = await anext(ann)
                if one.origin != "ann":
                    shown.append((one.type, one.origin, one.sender, one.data))
    assert ("broadcast", "bob", "bob", "hello") in shown
    assert ("note", "bob", "coder", [1, 2]) in shown
    played = [sys.executable, "-m", verification.__name__, "simulate", "--replay", str(file)]
    done = await anyio.run_process(played, cwd=ROOT)
    assert b"right all along" in done.stdout
    presences = [one for one in shown if one[0] == "presence"]
    assert presences[0][3]["agents"] == ["coder"]
    assert presences[-1][3]["status"] == "offline"


async def test_a_recording_may_go_to_a_pipe(live: LiveRelay, call: Call) -> None:
    recorded: list[Any] = []

    async def record() -> None:
        recorded.append(await call("record", "--count", "2", "--id", "recorder", "--url", live.url))

    async with join(live.url, "bob") as bob:
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(record)
                await until(lambda: "recorder" in bob.roster)
                await bob.broadcast("hello")
    (ended,) = recorded
    presence, hello = map(json.loads, ended.lines)
    assert presence["message"]["type"] == "presence"
    assert hello["message"]["data"] == "hello"
    assert hello["at"] >= presence["at"] >= 0


async def test_what_is_no_recording_is_said_with_its_line(
    live: LiveRelay, tmp_path: Path, call: Call
) -> None:
    file = tmp_path / "recording"
    file.write_text('{"at":0,"message":{"type":"a"}}\n{"at":"x"}\n')
    again = await call("replay", str(file), "--url", live.url)
    assert again.code == 1
    assert "line 2" in again.err


# load ---------------------------------------------------------------------------------------------


async def test_load_counts_every_message_once(live: LiveRelay, call: Call) -> None:
    load = ("load", "--peers", "4", "--rate", "20", "--seconds", "1", "--json")
    told = await call(*load, "--url", live.url)
    assert told.code == 0, told.err
    facts = json.loads(told.out)
    assert facts["said"] == 80
    assert facts["received"] == 240
    assert (facts["missing"], facts["doubled"], facts["disordered"]) == (0, 0, 0)
    assert facts["late_ms_p50"] <= facts["late_ms_p99"] <= facts["late_ms_max"]


# Where the mesh is --------------------------------------------------------------------------------


async def test_an_option_comes_before_the_environment_and_that_before_the_file(
    live: LiveRelay, tmp_path: Path, call: Call
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'url = "{live.url}"\nmesh = "file"\nid = "me"\n')
    async with join(f"{live.url}?mesh=file", "ann"), join(f"{live.url}?mesh=there", "bob"):
        file = ("--config", str(config), "--json")
        assert json.loads((await call("who", *file)).out)["peer"] == "ann"
        there = await call("who", *file, AGI_MESH_MESH="there")
        assert json.loads(there.out)["peer"] == "bob"
        again = await call("who", *file, "--mesh", "file", AGI_MESH_MESH="there")
        assert json.loads(again.out)["peer"] == "ann"


@pytest.mark.parametrize(
    ("token", "begins"),
    [
        (None, "cli-"),
        ("", "cli-"),
        ("no token", "cli-"),
        ("a.b.c", "cli-"),
        ("a.e30.c", "cli-"),
        ("a.W10.c", "cli-"),
        ("a.NQ.c", "cli-"),
        ("a.eyJzdWIiOjV9.c", "cli-"),
        ("a.eyJzdWIiOiJhbm4ifQ.c", "ann/cli-"),
    ],
)
async def test_an_id_of_its_own_is_one_that_the_token_grants(
    token: str | None, begins: str
) -> None:
    assert _own_id(token).startswith(begins)


async def test_with_a_token_no_id_has_to_be_said(call: Call) -> None:
    with LiveRelay(auth=Auth(secret=SECRET.encode())) as live:
        token = issued_to("ann")
        ended = await call("send", "hello", "--url", live.url, AGI_MESH_TOKEN=token)
        assert ended.code == 0, ended.err


async def test_an_option_for_the_token_comes_first_too(call: Call, tmp_path: Path) -> None:
    good, bad = issued_to("ann"), "no.such.token"
    (tmp_path / "good").write_text(f"{good}\n")
    config = tmp_path / "config.toml"
    with LiveRelay(auth=Auth(secret=SECRET.encode())) as live:
        config.write_text(f'url = "{live.url}"\nid = "ann"\ntoken = "{bad}"\n')
        file = ("--config", str(config))
        assert (await call("who", *file)).code == 1
        assert (await call("who", *file, AGI_MESH_TOKEN=good)).code == 0
        here = ("--token-file", str(tmp_path / "good"))
        assert (await call("who", *file, *here, AGI_MESH_TOKEN=bad)).code == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("colour = 'red'", "colour"),
        ("mesh = 5", "must be a text"),
        ("mesh = ", "cannot be read"),
        ("url = 'ws://a'\narn = 'b'", "one of them"),
        ("token-file = '/nonexistent/token'", "token"),
    ],
)
async def test_a_file_that_cannot_be_right_gets_one_sentence(
    text: str, words: str, tmp_path: Path, call: Call
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(text)
    shown = await call("who", "--config", str(config))
    assert shown.code == 1
    assert words in shown.err
    assert len(shown.err.splitlines()) == 1


def test_a_missing_extra_is_one_sentence() -> None:
    code = "import sys; sys.modules['click'] = None; from agi_diy_relay.command import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "pip install 'agi-diy-relay[cli]'" in ended.stderr
    assert "Traceback" not in ended.stderr


async def test_without_the_extra_for_mcp_nobody_is_looked_for(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mcp.server", None)
    monkeypatch.setitem(sys.modules, "mcp", None)
    with HeldPort() as port:
        shown = await call("mcp", "--url", f"ws://127.0.0.1:{port}/ws")
    assert shown.code == 1
    assert shown.err.endswith("pip install 'agi-diy-relay[mcp]'\n")
    assert len(shown.err.splitlines()) == 1
