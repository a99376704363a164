"""The names of all metrics, in one list, and the logger.

Counters are plain objects bound once; endpoint and tenant ids are never labels (their number is not bounded).
"""

from __future__ import annotations

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0)
"""Seconds. An attempt may last as long as its total timeout, 20 s by default."""

log: structlog.stdlib.BoundLogger = structlog.get_logger("hookline")


class Metrics:
    """All metrics of one process, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counter, gauge = self._counter, self._gauge
        self.appended = counter("events_appended", "Events stored in the log")
        self.duplicates = counter("events_duplicate", "Events that were published again and not stored twice")
        self.refused = counter("events_refused", "Events refused because too many were waiting")
        self.schema_violations = counter("schema_violations", "Payloads that did not fit their schema")
        self.matched = counter("deliveries_matched", "Deliveries that became due because an event matched")
        self.succeeded = counter("deliveries_succeeded", "Deliveries that an endpoint accepted")
        self.failed = counter("deliveries_failed", "Deliveries given up after the last retry")
        self.expired = counter("deliveries_expired", "Deliveries whose event was past its retention")
        self.retried = counter("deliveries_retried", "Attempts that failed and will be repeated")
        self.records = counter("records_written", "Batches of outcomes written")
        self.takeovers = counter("leases_taken", "Shards this worker took over")
        self.lost_leases = counter("leases_lost", "Shards this worker lost")
        self.attempts = Counter(
            "hookline_attempts",
            "HTTP requests by the class of their answer",
            ["result"],
            registry=self.registry,
        )
        self.attempt_seconds = Histogram(
            "hookline_attempt_seconds",
            "Length of an HTTP request",
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.in_flight = gauge("requests_in_flight", "HTTP requests under way")
        self.unrecorded = gauge("outcomes_unrecorded", "Outcomes that are not written yet")
        self.lanes_behind = gauge(
            "lanes_behind", "Active subscriptions that read from the log, not from memory"
        )
        self.lanes_stopped = gauge("lanes_stopped", "Subscriptions that are paused or disabled")
        self.breakers_open = gauge("breakers_open", "Subscriptions whose breaker is open")
        self.oldest_due_seconds = gauge(
            "oldest_due_seconds", "Age of the oldest delivery that is due and not sent"
        )
        self.lag = gauge("log_lag_events", "Events in the log that matching has not reached")

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"hookline_{name}", text, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"hookline_{name}", text, registry=self.registry)
