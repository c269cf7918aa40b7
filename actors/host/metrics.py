"""The runtime's counters as OpenTelemetry metrics."""

from collections.abc import Callable

import attrs

from actors.relay.runtime import Runtime
from protocol.mesh.status import Totals


def publish_metrics(runtime: Runtime) -> None:
    """The runtime's counters as OpenTelemetry metrics, where that is installed: on AgentCore.

    Read when they are exported, so that a message costs nothing more. There are no spans: one for
    every message would cost more than the message.
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
