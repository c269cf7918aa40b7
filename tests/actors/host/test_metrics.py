"""What Prometheus and OpenTelemetry see of the relay: its counters, and no span for a message.

Those of OpenTelemetry are in a process of their own, because its providers are global and can be
set once.
"""

import json
import re
import subprocess
import sys
from typing import Any

import anyio
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from actors.clock import VirtualClock
from actors.host.metrics import EVERY_S, INSTRUMENTS, LAG_EVERY_S, NAME, Metrics
from actors.relay.runtime import Runtime
from actors.relay.traffic import BOUNDS_S, SAMPLED, Durations
from protocol.instant import Instant
from protocol.limits import Limits
from tests import ROOT
from tests.worlds.live import LiveRelay, StillClock

SETUP = """
import json
import anyio
from tests.worlds.live import LiveRelay

async def talk(live):
    async with live:
        ann, bob = await live.connect(), await live.connect()
        await ann.announce("ann")
        await bob.announce("bob")
        for number in range(100):
            await ann.send("broadcast", data=number)
        await ann.send_text("nonsense")
        await bob.everything()
        return reader() if reader else None
"""
METRICS = """
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

memory = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider([memory]))

def reader():
    (resource,) = memory.get_metrics_data().resource_metrics
    (scope,) = resource.scope_metrics
    return {
        metric.name: {
            ",".join(point.attributes.values()): point.value for point in metric.data.data_points
        }
        for metric in scope.metrics
    }

with LiveRelay() as live:
    print(json.dumps(anyio.run(talk, live)))
"""
SPANS = """
from opentelemetry import trace
from opentelemetry.instrumentation.starlette import StarletteInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

memory = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(memory))
trace.set_tracer_provider(provider)
reader = None

live = LiveRelay()
StarletteInstrumentor.instrument_app(live.app)
with live:
    anyio.run(talk, live)
print(json.dumps([span.name for span in memory.get_finished_spans()]))
"""


def run(script: str) -> Any:
    command = [sys.executable, "-c", SETUP + script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_opentelemetry_reads_every_instrument_of_the_table() -> None:
    pytest.importorskip("opentelemetry.sdk", reason="needs opentelemetry-sdk")
    seen = run(METRICS)
    assert seen["relay.connections"] == {"": 2}
    assert seen["relay.held"][""] > 2 * 10_000
    assert seen["relay.joined"] == {"": 2}
    assert sum(seen["relay.left"].values()) == 0
    assert seen["relay.refused"]["malformed"] == 1
    assert sum(seen["relay.refused"].values()) == 1
    assert seen["relay.relayed"] == {"": 102}  # two presences
    assert seen["relay.received"][""] >= 103
    assert seen["relay.messages"]["broadcast"] == 100
    assert seen["relay.peers"] == {"present": 2, "stale": 0}
    assert seen["relay.deliveries"][""] >= 100
    assert seen["relay.loop.lag.bucket"]["+Inf"] >= 0
    names = {f"{NAME}.{instrument.name}" for instrument in INSTRUMENTS}
    assert names <= set(seen)


def test_a_message_makes_no_span() -> None:
    name = "opentelemetry.instrumentation.starlette"
    pytest.importorskip(name, reason="needs opentelemetry-instrumentation-starlette")
    spans = run(SPANS)
    assert 0 < len(spans) < 20  # those of the two openings


# Prometheus ---------------------------------------------------------------------------------------


def read(text: str) -> dict[str, dict[tuple[str, ...], float]]:
    """Values by label values, by the name of the sample."""
    seen: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for sample in family.samples:
            seen.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return seen


@pytest.mark.anyio
async def test_prometheus_reads_what_the_mesh_has_done(visited: LiveRelay) -> None:
    ann, bob = await visited.connect(), await visited.connect()
    await ann.announce("ann")
    await bob.announce("bob")
    for _ in range(5):
        await ann.send("broadcast", data="x" * 10_000)
    await ann.send("an invented type")
    await ann.send("direct", to="nobody")
    await bob.everything()
    await bob.close()
    await ann.until("presence", **{"from": "bob"})
    async with httpx.AsyncClient(base_url=visited.http, trust_env=False) as http:
        answer = await http.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    seen = read(answer.text)
    assert seen["relay_messages_total"]["broadcast",] == 5
    assert seen["relay_messages_total"]["other",] == 1
    assert seen["relay_refused_total"]["unknown_target",] == 1
    assert seen["relay_refused_total"]["spoofed",] == 0
    assert seen["relay_joined_total"][()] == 2
    assert seen["relay_peers"] == {("present",): 1, ("stale",): 0}
    assert seen["relay_deliveries_total"][()] >= 5 + 1 + 1
    assert 50_000 < seen["relay_delivered_bytes_total"][()] < 60_000
    assert 50_000 < seen["relay_taken_bytes_total"][()] < 60_000
    assert seen["relay_connections"][()] in (1, 2)
    assert seen["relay_held_bytes"][()] <= seen["relay_held_limit_bytes"][()]
    rounds = seen["relay_rounds_total"][()]
    assert seen["relay_round_duration_seconds_count"][()] == rounds // SAMPLED
    assert seen["process_resident_memory_bytes"][()] > 0


@pytest.mark.anyio
async def test_why_peers_and_connections_end_and_who_comes_back_is_counted() -> None:
    clock = VirtualClock()
    async with Runtime(Limits(), clock) as runtime:
        metrics = Metrics(runtime, clock)
        link = await runtime.connect("m")
        await link.send('{"type":"presence","from":"ann"}')
        lobby = await runtime.connect("m")
        await clock.advance(60)  # longer than anybody may be silent
        seen = read(metrics.text().decode())
        assert seen["relay_left_total"]["silent",] == 1
        assert seen["relay_closed_total"]["silent",] == 1
        assert seen["relay_closed_total"]["unannounced",] == 1
        back = await runtime.connect("m")
        data = {"resume": {"token": "none", "epoch": "none", "received": 0}}
        await back.send(json.dumps({"type": "capabilities", "data": data}))
        await clock.advance(1)
        seen = read(metrics.text().decode())
        assert seen["relay_returns_total"] == {("resumed",): 0, ("epoch",): 1}
        for one in (link, lobby, back):
            await one.aclose()


@pytest.mark.anyio
async def test_the_lag_of_the_event_loop_is_measured() -> None:
    clock = VirtualClock()
    async with Runtime(Limits(), clock) as runtime, anyio.create_task_group() as tasks:
        metrics = Metrics(runtime, clock)
        tasks.start_soon(metrics.measure_lag)
        await clock.advance(LAG_EVERY_S)
        assert metrics.lag_s == 0
        await clock.jump(LAG_EVERY_S + 0.2)
        assert metrics.lag_s == pytest.approx(0.2)
        await clock.advance(EVERY_S)
        seen = read(metrics.text().decode())
        assert seen["relay_loop_lag_seconds_count"][()] == 2
        assert seen["relay_loop_lag_seconds_sum"][()] == pytest.approx(0.2)
        assert seen["relay_loop_lag_seconds_bucket"]["0.1",] == 1
        assert seen["relay_loop_lag_seconds_bucket"]["0.25",] == 2
        tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_one_round_in_sixteen_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = VirtualClock()
    async with Runtime(Limits(), clock) as runtime:
        link = await runtime.connect("m")
        looks = 0
        now = clock.now

        def counted() -> Instant:
            nonlocal looks
            looks += 1
            return now()

        monkeypatch.setattr(clock, "now", counted)
        for _ in range(4 * SAMPLED):
            await link.send('{"type":"heartbeat"}')
            await anyio.wait_all_tasks_blocked()
        rounds = runtime.traffic.rounds
        assert rounds >= 4 * SAMPLED
        assert sum(runtime.traffic.rounds_s.counts) == rounds // SAMPLED
        assert looks <= rounds + rounds // SAMPLED + 2
        await link.aclose()


@pytest.mark.parametrize("seconds", [0.0, BOUNDS_S[0], BOUNDS_S[-1], 100.0])
def test_a_duration_is_counted_below_its_bound(seconds: float) -> None:
    durations = Durations()
    durations.note(seconds)
    [place] = [n for n, count in enumerate(durations.counts) if count]
    assert place == (len(BOUNDS_S) if seconds > BOUNDS_S[-1] else place)
    assert seconds <= (*BOUNDS_S, float("inf"))[place]
    assert place == 0 or seconds > BOUNDS_S[place - 1]


@pytest.mark.anyio
async def test_it_is_not_ready_while_it_drains_but_alive() -> None:
    with LiveRelay(clock=StillClock()) as live:
        async with live, httpx.AsyncClient(base_url=live.http, trust_env=False) as http:
            assert (await http.get("/ready")).status_code == 200
            live.runtime._is_draining = True
            answer = await http.get("/ready")
            assert (answer.status_code, answer.text) == (503, "draining\n")
            assert (await http.get("/ping")).status_code == 200


def test_the_dashboard_shows_metrics_that_there_are() -> None:
    text = (ROOT / "docs" / "grafana" / "agi-diy-relay.json").read_text()
    dashboard = json.loads(text)
    shown = {
        name
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
        for name in re.findall(r"(?:relay|process)_\w+", target["expr"])
    }
    metrics = Metrics(Runtime(), VirtualClock())
    there = set(read(metrics.text().decode()))
    assert shown <= there, shown - there
    unseen = {
        n for n in there if n.startswith("relay_") and not re.search("_(sum|count|created)$", n)
    }
    assert unseen <= shown, unseen - shown
