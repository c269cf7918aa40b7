"""What the relay counts of itself: for Prometheus at `/metrics`, and for OpenTelemetry.

`INSTRUMENTS` is the table of both. Counts are read when somebody asks, so a message costs nothing
more. There are no spans: a span costs more than the message that it describes.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import accumulate
from threading import Lock
from typing import Final

import attrs
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from actors.clock import Clock
from actors.relay.runtime import Runtime
from actors.relay.snapshot import Gauges
from actors.relay.traffic import BOUNDS_S, Durations
from protocol.envelope import ErrorCode
from protocol.mesh.federation.node import Node
from protocol.mesh.federation.standing import Standing
from protocol.mesh.lifecycle import Cause, PeerState
from protocol.mesh.routing import OTHER_TYPES, ROUTES
from protocol.mesh.status import Totals

NAME: Final = "relay"
"""Every name of a metric begins so."""

EVERY_S: Final = 0.1
"""What is read counts for so long: one collection reads many instruments."""

LAG_EVERY_S: Final = 0.5
"""How often the event loop is measured."""

Values = Mapping[str, float]
"""Values by label. An instrument without labels has one, by the empty text."""


@attrs.frozen
class Reading:
    """Everything that is counted, at one moment."""

    totals: Totals
    gauges: Gauges
    runtime: Runtime
    lag_s: Durations

    @property
    def node(self) -> Node | None:
        """This relay as a node of a federation, if it is one."""
        federation = self.runtime.federation
        return None if federation is None else federation.node


@attrs.frozen
class Instrument:
    """One metric. `name` is without `NAME`, with dots. `unit` as in OpenTelemetry; `s` and `By` are
    part of the name in Prometheus. `label`: what its values are told apart by. `keys`: the labels
    that are always there, so that a rate can be taken of the first one, too."""

    name: str
    what: str
    read: Callable[[Reading], Values]
    unit: str = ""
    is_counter: bool = True
    label: str = ""
    keys: tuple[str, ...] = ()


def _one(read: Callable[[Reading], float]) -> Callable[[Reading], Values]:
    return lambda reading: {"": read(reading)}


_CODES: Final = tuple(code.code for code in ErrorCode)
_CAUSES: Final = tuple(cause.value for cause in Cause)
_STATES: Final = (PeerState.PRESENT.value, PeerState.STALE.value)

INSTRUMENTS: Final = (
    Instrument("received", "messages that came in", _one(lambda r: r.totals.received)),
    Instrument(
        "messages",
        "messages whose header was read",
        lambda r: r.totals.types,
        label="type",
        keys=(*ROUTES, OTHER_TYPES),
    ),
    Instrument("relayed", "messages that were passed on", _one(lambda r: r.totals.relayed)),
    Instrument(
        "refused",
        "messages that were refused, by the code of the error",
        lambda r: r.totals.codes,
        label="code",
        keys=_CODES,
    ),
    Instrument("echoed", "echoes of existing pages, refused", _one(lambda r: r.totals.echoed)),
    Instrument("withheld", "messages that go to nobody", _one(lambda r: r.totals.withheld)),
    Instrument(
        "spared",
        "answers to others that lagging peers did not get",
        _one(lambda r: r.totals.spared),
    ),
    Instrument("joined", "peers that came", _one(lambda r: r.totals.joined)),
    Instrument(
        "left",
        "peers that left, by cause",
        lambda r: r.totals.causes,
        label="cause",
        keys=_CAUSES,
    ),
    Instrument(
        "closed",
        "connections that ended, by cause",
        lambda r: r.totals.closed,
        label="cause",
        keys=_CAUSES,
    ),
    Instrument(
        "returns",
        "connections that wanted to go on with a lost one: resumed, or why not",
        lambda r: r.totals.returns,
        label="outcome",
        keys=("resumed",),
    ),
    Instrument(
        "deliveries",
        "messages to one connection each",
        _one(lambda r: r.runtime.traffic.deliveries),
    ),
    Instrument(
        "delivered",
        "bytes of deliveries, as WebSocket frames",
        _one(lambda r: r.runtime.traffic.delivered_bytes),
        unit="By",
    ),
    Instrument(
        "taken",
        "bytes of messages that were decided",
        _one(lambda r: r.runtime.traffic.taken_bytes),
        unit="By",
    ),
    Instrument("rounds", "rounds of all meshes", _one(lambda r: r.runtime.traffic.rounds)),
    Instrument(
        "connections",
        "connections that are open, or away",
        _one(lambda r: r.gauges.connections),
        is_counter=False,
    ),
    Instrument(
        "away",
        "connections whose sockets are lost, and that may come back",
        _one(lambda r: r.gauges.away),
        is_counter=False,
    ),
    Instrument(
        "meshes",
        "meshes with connections",
        _one(lambda r: len(r.runtime.sizes())),
        is_counter=False,
    ),
    Instrument(
        "peers",
        "peers, by state",
        lambda r: r.gauges.states,
        is_counter=False,
        label="state",
        keys=_STATES,
    ),
    Instrument(
        "held",
        "bytes that are held for all connections",
        _one(lambda r: r.runtime.held_bytes),
        unit="By",
        is_counter=False,
    ),
    Instrument(
        "held.limit",
        "bytes that may be held; beyond half of that newcomers are refused",
        _one(lambda r: r.runtime.ledger.bytes_max),
        unit="By",
        is_counter=False,
    ),
    Instrument(
        "queued",
        "bytes that wait in the mailboxes of peers",
        _one(lambda r: r.gauges.queued_bytes),
        unit="By",
        is_counter=False,
    ),
    Instrument(
        "federation.standing",
        "1 for where this relay stands in its federation; all 0: it is in none",
        lambda r: {} if r.node is None else {r.node.standing.value: 1},
        is_counter=False,
        label="standing",
        keys=tuple(standing.value for standing in Standing),
    ),
    Instrument(
        "federation.nodes",
        "relays that take part in the federation, as this one sees it",
        _one(lambda r: 0 if r.node is None else r.node.nodes),
        is_counter=False,
    ),
    Instrument(
        "federation.lag",
        "how long the last record was on its way from the log",
        _one(lambda r: 0 if r.node is None else r.node.lag_ms / 1000),
        unit="s",
        is_counter=False,
    ),
    Instrument(
        "federation.behind",
        "records that the log had beyond the last one that was read",
        _one(lambda r: 0 if r.node is None else r.node.lag_records),
        is_counter=False,
    ),
    Instrument(
        "federation.records",
        "records of the log that were read",
        _one(lambda r: 0 if r.node is None else r.node.records),
    ),
    Instrument(
        "federation.waiting",
        "bytes that were said here and have not come back from the log",
        _one(lambda r: 0 if r.node is None else r.node.waiting_bytes),
        unit="By",
        is_counter=False,
    ),
    Instrument(
        "draining",
        "1 while the relay ends, else 0",
        _one(lambda r: r.runtime.is_draining),
        is_counter=False,
    ),
)
"""Every metric but the histograms."""

HISTOGRAMS: Final[Mapping[str, tuple[str, Callable[[Reading], Durations]]]] = {
    "round.duration": ("how long rounds took (one of 16)", lambda r: r.runtime.traffic.rounds_s),
    "loop.lag": ("how late the event loop was", lambda r: r.lag_s),
}
"""By name: what is measured, and where it is. All are in seconds."""


class Metrics(Collector):
    """The metrics of one runtime. It may be read from any thread.

    `lag_s`: how late the event loop was when it was last measured, in seconds.
    """

    def __init__(self, runtime: Runtime, clock: Clock) -> None:
        self._runtime = runtime
        self._clock = clock
        self.lag_s = 0.0
        self._lag_s = Durations()
        self._lock = Lock()
        self._read: tuple[float, Reading] | None = None
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    async def measure_lag(self) -> None:
        """Measure the event loop, as long as this runs."""
        while True:
            before = self._clock.now().at
            await self._clock.sleep(LAG_EVERY_S)
            self.lag_s = max(0.0, self._clock.now().at - before - LAG_EVERY_S)
            self._lag_s.note(self.lag_s)

    def reading(self) -> Reading:
        """What is counted now, or was less than `EVERY_S` ago."""
        with self._lock:
            now = self._clock.now().at
            if self._read is None or now - self._read[0] >= EVERY_S:
                runtime = self._runtime
                self._read = (
                    now,
                    Reading(runtime.totals(), runtime.gauges(), runtime, self._lag_s),
                )
            return self._read[1]

    def values(self, instrument: Instrument) -> Values:
        """What one instrument reads now."""
        found = instrument.read(self.reading())
        return {**dict.fromkeys(instrument.keys, 0), **found}

    # Prometheus -----------------------------------------------------------------------------------

    def text(self) -> bytes:
        """All metrics in Prometheus' text format, version 0.0.4."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """All metrics, as `prometheus_client` has them."""
        for instrument in INSTRUMENTS:
            family = CounterMetricFamily if instrument.is_counter else GaugeMetricFamily
            labels = (instrument.label,) if instrument.label else ()
            metric = family(
                prometheus_name(instrument.name, instrument.unit), instrument.what, labels=labels
            )
            for label, value in sorted(self.values(instrument).items()):
                metric.add_metric((label,) if label else (), value)
            yield metric
        for name, (what, durations) in HISTOGRAMS.items():
            histogram = HistogramMetricFamily(prometheus_name(name, "s"), what)
            found = durations(self.reading())
            bounds = (*map(str, BOUNDS_S), "+Inf")
            buckets = list(zip(bounds, accumulate(found.counts), strict=True))
            histogram.add_metric((), buckets, found.sum_s)
            yield histogram

    # OpenTelemetry --------------------------------------------------------------------------------

    def publish(self) -> None:
        """Let OpenTelemetry read the same, where it is installed; on AgentCore it is.

        OpenTelemetry has no histogram that is only read. So there are counters for the buckets of
        each, with the label `le`, for their sum and for how many there were.
        """
        try:
            from opentelemetry import metrics  # noqa: PLC0415 (only in the deployed package)
        except ImportError:
            return
        meter = metrics.get_meter("agi-diy-relay")

        def observed(
            read: Callable[[], Values], label: str
        ) -> Callable[[metrics.CallbackOptions], Iterable[metrics.Observation]]:
            return lambda _: [
                metrics.Observation(value, {label: key} if key else {})
                for key, value in read().items()
            ]

        for instrument in INSTRUMENTS:
            create = (
                meter.create_observable_counter
                if instrument.is_counter
                else meter.create_observable_gauge
            )
            read = partial(self.values, instrument)
            create(
                f"{NAME}.{instrument.name}",
                [observed(read, instrument.label)],
                instrument.unit or "1",
                instrument.what,
            )
        for name, (what, durations) in HISTOGRAMS.items():
            for part, unit, values in (
                ("bucket", "1", _buckets),
                ("sum", "s", _sum),
            ):
                read = partial(self._part, durations, values)
                meter.create_observable_counter(
                    f"{NAME}.{name}.{part}", [observed(read, "le")], unit, what
                )

    def _part(
        self, find: Callable[[Reading], Durations], get: Callable[[Durations], Values]
    ) -> Values:
        return get(find(self.reading()))


def prometheus_name(name: str, unit: str) -> str:
    """The name of a metric in Prometheus, without what it adds for counters and histograms.

    >>> prometheus_name("held", "By")
    'relay_held_bytes'
    """
    words = {"By": "_bytes", "s": "_seconds", "": ""}
    return f"{NAME}_{name.replace('.', '_')}{words[unit]}"


def _buckets(found: Durations) -> Values:
    return dict(zip((*map(str, BOUNDS_S), "+Inf"), accumulate(found.counts), strict=True))


def _sum(found: Durations) -> Values:
    return {"": found.sum_s}
