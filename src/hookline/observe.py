"""The names of all metrics, in one list, and the logger.

Counting happens several times for each event, so it is an addition to a plain number; Prometheus' forms are made when
it asks. Endpoint and tenant ids are never labels: their number is not bounded.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0)
"""Upper bounds for the length of an attempt, which may last as long as its total timeout (20 s by default)."""
RESULTS = ("error", "1xx", "2xx", "3xx", "4xx", "5xx")
"""What an attempt came to: no answer, or the class of its status."""
_PREFIX = "hookline_"

log: structlog.stdlib.BoundLogger = structlog.get_logger("hookline")


class _Named:
    __slots__ = ("help", "name")

    def __init__(self, name: str, text: str) -> None:
        self.name = _PREFIX + name
        self.help = text


class Counter(_Named):
    """A number that only grows."""

    __slots__ = ("value",)

    def __init__(self, name: str, text: str) -> None:
        super().__init__(name, text)
        self.value = 0

    def inc(self, count: int = 1) -> None:
        self.value += count

    def family(self) -> Metric:
        return CounterMetricFamily(self.name, self.help, self.value)


class Gauge(_Named):
    """A number as it is now: of the process, or put together from its parts."""

    __slots__ = ("_combine", "_parts")

    def __init__(self, name: str, text: str, combine: Callable[[Iterable[float]], float] = sum) -> None:
        super().__init__(name, text)
        self._combine = combine
        self._parts: dict[object, float] = {}

    @property
    def value(self) -> float:
        return self._combine(self._parts.values()) if self._parts else 0.0

    def set(self, value: float, part: object = None) -> None:
        """What ``part`` contributes."""
        self._parts[part] = value

    def forget(self, part: object) -> None:
        """The part contributes nothing any more."""
        self._parts.pop(part, None)

    def family(self) -> Metric:
        return GaugeMetricFamily(self.name, self.help, self.value)


class Results(_Named):
    """Attempts by what they came to, one of ``RESULTS`` by number."""

    __slots__ = ("counts",)

    def __init__(self, name: str, text: str) -> None:
        super().__init__(name, text)
        self.counts = [0] * len(RESULTS)

    def inc(self, status: int) -> None:
        """Count an HTTP status; 0 for a request without an answer."""
        self.counts[min(status // 100, 5)] += 1

    def family(self) -> Metric:
        family = CounterMetricFamily(self.name, self.help, labels=["result"])
        for result, count in zip(RESULTS, self.counts, strict=True):
            family.add_metric([result], count)
        return family


class Histogram(_Named):
    """How many values there were up to each of some bounds."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, name: str, text: str, bounds: Sequence[float]) -> None:
        super().__init__(name, text)
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def family(self) -> Metric:
        buckets: list[tuple[str, float]] = []
        reached = 0
        for bound, count in zip([*map(str, self.bounds), "+Inf"], self.counts, strict=True):
            reached += count
            buckets.append((bound, reached))
        return HistogramMetricFamily(self.name, self.help, buckets=buckets, sum_value=self.total)


class Metrics(Collector):
    """All metrics of one process, in a registry of its own."""

    def __init__(self) -> None:
        self.appended = Counter("events_appended", "Events stored in the log")
        self.duplicates = Counter("events_duplicate", "Events that were published again and not stored twice")
        self.refused = Counter("events_refused", "Events refused because too many were waiting")
        self.schema_violations = Counter("schema_violations", "Payloads that did not fit their schema")
        self.matched = Counter("deliveries_matched", "Deliveries that became due because an event matched")
        self.succeeded = Counter("deliveries_succeeded", "Deliveries that an endpoint accepted")
        self.failed = Counter("deliveries_failed", "Deliveries given up after the last retry")
        self.expired = Counter("deliveries_expired", "Deliveries whose event was past its retention")
        self.retried = Counter("deliveries_retried", "Attempts that failed and will be repeated")
        self.records = Counter("records_written", "Batches of outcomes written")
        self.takeovers = Counter("leases_taken", "Shards this worker took over")
        self.lost_leases = Counter("leases_lost", "Shards this worker lost")
        self.attempts = Results("attempts", "HTTP requests by what they came to")
        self.attempt_seconds = Histogram("attempt_seconds", "Length of an HTTP request", SECONDS)
        self.in_flight = Gauge("requests_in_flight", "HTTP requests under way")
        self.unrecorded = Gauge("outcomes_unrecorded", "Outcomes that are not written yet")
        self.lanes_behind = Gauge(
            "lanes_behind", "Active subscriptions that read from the log, not from memory"
        )
        self.lanes_stopped = Gauge("lanes_stopped", "Subscriptions that are paused or disabled")
        self.breakers_open = Gauge("breakers_open", "Subscriptions whose breaker is open")
        self.oldest_due_seconds = Gauge(
            "oldest_due_seconds", "Age of the oldest delivery that is due, not sent", max
        )
        self.lag = Gauge("log_lag_events", "Events in the log that matching has not reached")
        self.bus_received = Counter("bus_received", "Messages taken from the bus")
        self.bus_redelivered = Counter("bus_redelivered", "Messages of the bus that came again")
        self.bus_dead_letters = Counter("bus_dead_letters", "Messages of the bus that could not be accepted")
        self.bus_returned = Counter("bus_returned", "Messages given back to the bus, to come again later")
        self.bus_lag = Gauge("bus_lag", "Messages on the bus that were not taken yet")
        self.bus_unacknowledged = Gauge(
            "bus_unacknowledged", "Messages that were taken and not acknowledged yet"
        )
        self.bus_connected = Gauge("bus_connected", "Whether there is a connection to the bus")
        self.outbox_relayed = Counter("outbox_relayed", "Events taken from an outbox into the log")
        self.outbox_dead_letters = Counter("outbox_dead_letters", "Events of an outbox that the log refused")
        self.outbox_rows = Gauge("outbox_rows", "Events that wait in an outbox")
        self.outbox_oldest_seconds = Gauge(
            "outbox_oldest_seconds", "Age of the oldest event in an outbox", max
        )
        self.outbox_leading = Gauge("outbox_leading", "Whether this process empties the outbox, or stands by")
        self.by_part = (
            self.lanes_behind,
            self.lanes_stopped,
            self.breakers_open,
            self.oldest_due_seconds,
            self.lag,
        )
        """Gauges that each slice of a shard contributes to."""
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """All metrics in Prometheus' forms."""
        for metric in vars(self).values():
            if isinstance(metric, Counter | Gauge | Results | Histogram):
                yield metric.family()
