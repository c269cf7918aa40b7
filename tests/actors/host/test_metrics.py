"""What OpenTelemetry sees of the relay: its counters, and no span for a message.

Each in a process of its own, because OpenTelemetry's providers are global and can be set once.
"""

import json
import subprocess
import sys
from typing import Any

import pytest

from tests import ROOT

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
    return {metric.name: metric.data.data_points[0].value for metric in scope.metrics}

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
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_counters_are_metrics() -> None:
    pytest.importorskip("opentelemetry.sdk", reason="needs opentelemetry-sdk")
    seen = run(METRICS)
    assert seen["relay.connections"] == 2
    assert seen["relay.held_bytes"] > 2 * 10_000
    assert seen["relay.joined"] == 2
    assert seen["relay.left"] == 0
    assert seen["relay.refused"] == 1
    assert seen["relay.relayed"] == 102  # two presences
    assert seen["relay.received"] >= 103
    assert seen["relay.withheld"] == 0


def test_a_message_makes_no_span() -> None:
    name = "opentelemetry.instrumentation.starlette"
    pytest.importorskip(name, reason="needs opentelemetry-instrumentation-starlette")
    spans = run(SPANS)
    assert 0 < len(spans) < 20  # those of the two openings
