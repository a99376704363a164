"""A small load, and a count of what became of it: does this installation deliver, and about how fast?"""

from __future__ import annotations

import secrets
import signal
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Annotated, Any, TypedDict

from cyclopts import App, Parameter, validators

from hookline.cli import EXIT_FAILED, bench_receiver
from hookline.cli.bench_receiver import Book
from hookline.cli.client import Api, path
from hookline.cli.failures import ApiRefused, Failure, Usage
from hookline.cli.progress import Progress
from hookline.cli.target import Target, is_local

LOOK_SECONDS = 0.05
END_SECONDS = 5.0
"""How long a publisher may take to notice that the time is over."""


ABOUT = """The receiver verifies every signature, looks for gaps in the sequence, and listens at 127.0.0.1: the
server has to run on this machine with `HOOKLINE_ALLOW_NETWORKS=127.0.0.0/8`. The subscription is deleted at the
end. The events stay, and other subscriptions to everything (`*`) get them too: take a tenant of its own.

Publishers and receiver share one process, so the figures are not the limit of the server. Exit code 1 if not
everything arrived as it should.
"""
"""Below the options in the help, and on the command's page."""

bench = App(name="bench", help_epilogue=ABOUT, help_format="markdown")


class Outcome(TypedDict):
    """What ``hookline bench`` tells. Times are milliseconds; None where nothing was measured."""

    events: int
    accepted: int
    refused: int
    delivered: int
    verified: int
    duplicates: int
    gaps: int
    seconds: float
    events_per_second: float
    publish_p50_ms: float | None
    publish_p99_ms: float | None
    delivery_p50_ms: float | None
    delivery_p99_ms: float | None


@bench.default
def run_bench(
    *,
    events: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=1_000_000))] = 1000,
    concurrency: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=256))] = 16,
    timeout: Annotated[float, Parameter(validator=validators.Number(gte=1, lte=3600))] = 60.0,
    to: Target = Target(),
) -> int:
    """Publish to a running server, receive here, and count what arrives and how fast.

    Parameters
    ----------
    events
        How many.
    concurrency
        How many are published at a time.
    timeout
        Seconds after which it ends, whatever has arrived.
    """
    if not is_local(to.api.url):
        raise Usage(
            f"{to.api.url} is not on this machine, and its deliveries would not come here: run it there"
        )
    run, book = secrets.token_hex(4), Book()
    with _interruptible(), bench_receiver.listening(book) as url, _subscribed(to.api, run, url, book):
        load = Load(to, run, events, book)
        load.run(concurrency, timeout)
    outcome = load.outcome()
    _tell(outcome, load, to)
    whole = outcome["accepted"] == outcome["delivered"] == outcome["verified"] == events
    return 0 if whole and not outcome["gaps"] else EXIT_FAILED


@contextmanager
def _interruptible() -> Generator[None]:
    """SIGTERM ends it as Ctrl-C does: with the subscription deleted."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _subscribed(api: Api, run: str, url: str, book: Book) -> Generator[None]:
    """A subscription to this run's events alone, which goes however the run ends."""
    spec = {"name": f"hookline bench {run}", "url": url, "events": [_type(run)], "profile": "standard"}
    try:
        made = api.send("POST", path("subscriptions"), spec)
    except ApiRefused as error:
        if not str(error).startswith("url:"):
            raise
        raise Failure(
            f"the server may not call this machine, where the receiver is ({error}). "
            "For the trial, start it with HOOKLINE_ALLOW_NETWORKS=127.0.0.0/8"
        ) from error
    book.secret = made["signing"]["secret"]
    try:
        yield
    finally:
        api.send("DELETE", path("subscriptions", made["id"]))


def _type(run: str) -> str:
    return f"bench:{run}"


class Load:
    """The publishers of a run, and what they measured."""

    def __init__(self, to: Target, run: str, events: int, book: Book) -> None:
        self._to = to
        self._run = run
        self._events = events
        self._book = book
        self._numbers = count()
        self._stop = threading.Event()
        self._seconds = 0.0
        self._took: list[float] = []
        self.refusals: list[Failure] = []

    def run(self, concurrency: int, timeout: float) -> None:
        """Publish and wait until everything has arrived, or the time is over."""
        publishers = [threading.Thread(target=self._publish, daemon=True) for _ in range(concurrency)]
        started = time.monotonic()
        try:
            with Progress("delivering", self._events, quiet=self._to.json) as progress:
                for publisher in publishers:
                    publisher.start()
                while not self._is_over(publishers) and time.monotonic() < started + timeout:
                    time.sleep(LOOK_SECONDS)
                    progress.reach(self._book.delivered, self._events)
        finally:
            self._stop.set()
            self._seconds = (self._book.last or time.monotonic()) - started
            for publisher in publishers:
                if publisher.is_alive():
                    publisher.join(END_SECONDS)

    def _is_over(self, publishers: Sequence[threading.Thread]) -> bool:
        return not any(each.is_alive() for each in publishers) and self._book.delivered >= len(self._took)

    def _publish(self) -> None:
        """One publisher, with a connection of its own. Ends at the first refusal: the others would be like it."""
        api = self._to.another()
        try:
            while not self._stop.is_set() and (number := next(self._numbers)) < self._events:
                self._publish_one(api, number)
        except Failure as refusal:
            self.refusals.append(refusal)

    def _publish_one(self, api: Api, number: int) -> None:
        name = f"bench-{self._run}-{number}"
        event = {"id": name, "type": _type(self._run), "data": {"number": number}}
        begun = time.monotonic()
        self._book.begun[name] = begun  # before the answer: the delivery may be faster than that
        api.send("POST", path("events"), event)
        self._took.append(time.monotonic() - begun)

    def outcome(self) -> Outcome:
        """The account of the run."""
        book, accepted = self._book, len(self._took)
        return {
            "events": self._events,
            "accepted": accepted,
            "refused": len(self.refusals),
            "delivered": book.delivered,
            "verified": book.verified,
            "duplicates": book.duplicates,
            "gaps": book.gaps,
            "seconds": round(self._seconds, 3),
            "events_per_second": round(book.delivered / self._seconds, 1) if self._seconds else 0.0,
            "publish_p50_ms": _percentile(self._took, 0.5),
            "publish_p99_ms": _percentile(self._took, 0.99),
            "delivery_p50_ms": _percentile(book.took, 0.5),
            "delivery_p99_ms": _percentile(book.took, 0.99),
        }


def _percentile(seconds: Sequence[float], share: float) -> float | None:
    """Of all values, in milliseconds; None of none."""
    if not seconds:
        return None
    return round(sorted(seconds)[min(int(len(seconds) * share), len(seconds) - 1)] * 1000, 1)


def _tell(outcome: Outcome, load: Load, to: Target) -> None:
    shown: dict[str, Any] = dict(outcome)
    to.show(shown if to.json else {name.replace("_", " "): value for name, value in shown.items()})
    if load.refusals:
        raise load.refusals[0]
