"""The runtime's counters as OpenTelemetry metrics."""

from collections.abc import Callable

import attrs

from actors.relay.runtime import Runtime
from protocol.mesh.status import Totals


def publish_metrics(runtime: Runtime) -> None:
    """Publish the runtime's counters as OpenTelemetry metrics. Does nothing where OpenTelemetry is
    not installed; on AgentCore it is.

    The counters are read when metrics are exported, so a message costs nothing more. There are no
    spans: a span costs more than the message that it describes.
    """
    try:
        from opentelemetry import metrics  # noqa: PLC0415 (only in the deployed package)
    except ImportError:
        return
    meter = metrics.get_meter("agi-diy-relay")

    def reading(name: str) -> Callable[[metrics.CallbackOptions], list[metrics.Observation]]:
        return lambda _: [metrics.Observation(getattr(runtime.totals(), name))]

    for field in attrs.fields(Totals):
        meter.create_observable_counter(f"relay.{field.name}", [reading(field.name)], "1")
    meter.create_observable_gauge(
        "relay.connections", [lambda _: [metrics.Observation(runtime.connections)]], "1"
    )
    meter.create_observable_gauge(
        "relay.held_bytes", [lambda _: [metrics.Observation(runtime.held_bytes)]], "By"
    )
