"""Watches every request that goes out and every answer that comes back: order, limits, repetitions."""

from __future__ import annotations

from collections import Counter
from typing import cast

from msgspec import Struct

from hookline.core.model import Definition, RateLimit, SubscriptionState
from hookline.core.retry import Verdict, next_due, verdict
from hookline.engine.dispatch.outcomes import LANE_PAUSE_CAP, retry_after
from hookline.ports import Outcome, Request
from tests.simulation.ledger import FINAL, Book, Trail
from tests.simulation.virtual import Process
from tests.simulation.witness import Witness

VERSION_HEADER = "sim-version"
"""``<subscription>.<version>`` in each request: which definition the worker had in hand."""
TOLERANCE = 0.002


class Flight(Struct):
    """One request under way."""

    process: Process
    epoch: int
    book: Book
    trail: Trail
    version: int
    attempt: int
    sent_at: float
    request: Request
    pace: Pace


class Pace:
    """How one worker, in one epoch, treats one subscription; only its breaker, rate and window are known here."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.quiet_until = 0.0
        self.failures = 0
        self.last_start = -1e9
        self.opened_at: float | None = None
        self._rate: RateLimit | None = None
        self._tokens = 0.0
        self._filled_at = 0.0
        self._version = 0
        self.definition: Definition

    def adopt(self, definitions: dict[int, Definition], version: int, now: float) -> None:
        """The worker uses this version now: limits that changed, if only for a version between, begin anew."""
        new = definitions[version]
        between = [definitions[each] for each in range(self._version or version, version)]
        first = not self._version
        self._version, self.definition = version, new
        if first or any(each.rate_limit != new.rate_limit for each in between):
            self._rate = new.rate_limit
            self._tokens = self._burst()
            self._filled_at = now
        if first or any((each.breaker, each.url) != (new.breaker, new.url) for each in between):
            self.failures, self.opened_at = 0, None
        if any(each.url != new.url for each in between):
            self.quiet_until = 0.0

    def failed(self, now: float) -> None:
        """The worker saw a failure; so many in a row open the breaker that it has now."""
        self.failures += 1
        limit = self.definition.breaker.failures
        if self.opened_at is None and 0 < limit <= self.failures:
            self.opened_at = now

    def _burst(self) -> float:
        return float((self._rate.burst or self._rate.count) if self._rate is not None else 0)

    def overdraws(self, now: float) -> bool:
        """Take a token; whether there was none."""
        if self._rate is None:
            return False
        gained = (now - self._filled_at) * self._rate.count / self._rate.seconds
        self._tokens = min(self._burst(), self._tokens + gained) - 1
        self._filled_at = now
        return self._tokens < -TOLERANCE


class Traffic:
    """Checks requests against what the witness knows."""

    def __init__(self, witness: Witness, capacity: int, hearing: float, skew: float) -> None:
        """``hearing``: seconds in which a worker that runs must have heard of a changed configuration; ``skew``:
        seconds by which two clocks may differ."""
        self._witness = witness
        self._capacity = capacity
        self._hearing = hearing
        self._skew = skew
        self._paces: dict[tuple[str, int, int], Pace] = {}
        self._in_flight: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()

    # --- out

    def sending(self, process: Process, request: Request, now: float) -> Flight | None:
        """A worker sends; None if the request makes no sense."""
        headers = dict(cast("tuple[str, str]", line.split(": ", 1)) for line in request.headers)
        number, _, version = headers[VERSION_HEADER].partition(".")
        book = self._witness.books[int(number)]
        event = self._witness.places.get((book.tenant_no, headers["webhook-id"]))
        trail = book.trails.get(event.position) if event is not None else None
        if trail is None:
            self._witness.breaks("only what matched is delivered", book.id, "sent", headers["webhook-id"])
            return None
        epoch = self._witness.epochs[process.name, book.part]
        pace = self._paces.setdefault((process.name, epoch, book.no), Pace())
        flight = Flight(
            process, epoch, book, trail, int(version), int(headers["hookline-attempt"]), now, request, pace
        )
        self._witness.trace.add(
            process.name, "sends", book.no, headers["hookline-sequence"], "attempt", flight.attempt
        )
        self._witness.check_number(book, trail, int(headers["hookline-sequence"]))
        self._check_repetition(flight)
        self._check_order(flight)
        self._check_limits(flight, now)
        self._check_stopped(flight, now)
        self._count(flight)
        return flight

    def _check_repetition(self, flight: Flight) -> None:
        trail, epoch = flight.trail, flight.epoch
        current = epoch == self._witness.newest_epoch[flight.book.part]
        if (flight.process.name, epoch) in trail.seen:
            self._witness.breaks("a success is not repeated", flight.book.id, trail.position)
        if current and trail.state in FINAL and not trail.dropped:
            self._witness.breaks("what is settled is not sent", flight.book.id, trail.position, trail.state)
        if not current:
            self.counts["sent after the lease was lost"] += 1
            if flight.sent_at > self._witness.taken_at[flight.book.part] + self._skew:
                self._witness.breaks("nothing is sent without the lease", flight.process.name, flight.book.id)

    def _check_order(self, flight: Flight) -> None:
        order = flight.book.definitions[flight.version].order
        while (before := flight.book.before(flight.trail, order)) and self._witness.may_expire(before):
            before.doomed = True
        if before is not None and not flight.trail.explicit and not flight.book.overfull:
            self._witness.breaks(
                f"order {order.value}", flight.book.id, flight.trail.position, "sent before", before.position
            )

    def _check_limits(self, flight: Flight, now: float) -> None:
        pace, definition = flight.pace, flight.book.definitions[flight.version]
        pace.adopt(flight.book.definitions, flight.version, now)
        if pace.overdraws(now):
            self._witness.breaks("the rate limit holds", flight.book.id)
        if pace.in_flight >= definition.max_in_flight:
            self._witness.breaks("the window holds", flight.book.id, pace.in_flight)
        if self._in_flight[flight.process.name] >= self._capacity:
            self._witness.breaks("the worker's capacity holds", flight.process.name)
        if now < pace.quiet_until - TOLERANCE:
            self._witness.breaks("Retry-After is obeyed", flight.book.id, "until", pace.quiet_until)
        if pace.opened_at is not None:
            earliest = max(pace.opened_at, pace.last_start) + definition.breaker.cooldown
            if now < earliest - TOLERANCE:
                self._witness.breaks("an open breaker lets only probes out", flight.book.id, earliest)

    def _check_stopped(self, flight: Flight, now: float) -> None:
        """Nothing goes to a stopped subscription once its worker has had the time to hear of it."""
        found = self._witness.storage._subscriptions[flight.book.no]
        stopped_for = (self._witness.now() - found.state_at) / 1000
        knows = min(stopped_for, now - flight.process.running_since) > self._hearing
        if knows and found.state is not SubscriptionState.ACTIVE:
            self._witness.breaks("a stopped subscription is left alone", flight.book.id, found.state.value)

    def _count(self, flight: Flight) -> None:
        trail = flight.trail
        flight.pace.last_start = flight.sent_at
        flight.pace.in_flight += 1
        self._in_flight[flight.process.name] += 1
        self.counts["sent"] += 1
        trail.sends += 1
        if not trail.first_sent:
            trail.first_sent = self._witness.now()

    # --- at the receiver

    def arrived(self, flight: Flight, status: int) -> None:
        """The receiver took the request in and decided how to answer."""
        trail = flight.trail
        self._witness.trace.add("receiver", flight.book.no, trail.sequence, status)
        trail.arrivals += 1
        if 200 <= status <= 299:
            trail.accepted += 1
            self.counts["extra arrivals"] += trail.accepted > 1

    # --- back

    def answered(self, flight: Flight, outcome: Outcome, now: float) -> None:
        """The worker gets the outcome."""
        pace, trail = flight.pace, flight.trail
        pace.in_flight -= 1
        self._in_flight[flight.process.name] -= 1
        self._witness.trace.add(
            flight.process.name, "gets", flight.book.no, trail.sequence, outcome.status, outcome.error or ""
        )
        if 200 <= outcome.status <= 299:
            trail.seen.add((flight.process.name, flight.epoch))
            pace.failures, pace.opened_at = 0, None
            return
        pace.failed(now)
        if outcome.status in (429, 502, 503, 504):
            pause = retry_after(outcome, self._witness.now())
            if pause is not None:
                pace.quiet_until = max(pace.quiet_until, now + min(pause, LANE_PAUSE_CAP) - 1)
        trail.doomed = trail.doomed or self._is_last(flight, outcome)

    def _is_last(self, flight: Flight, outcome: Outcome) -> bool:
        """Whether some version of the definition gives the delivery up after this."""
        return any(
            verdict(definition.retry, outcome.status, outcome.error or "") is not Verdict.RETRY
            or next_due(
                definition.retry,
                runs=flight.attempt,
                first_at=flight.trail.first_sent,
                now=self._witness.now(),
                retry_after=retry_after(outcome, self._witness.now()),
                random=0.9999,
            )
            is None
            for definition in flight.book.definitions.values()
        )
