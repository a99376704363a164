"""From the outbox into the log: read a batch, publish it, then remove it.

No transaction is open while events are published, and no row is locked. A crash in between publishes again what was not
removed; the log knows each event by tenant and id and answers that it has it.

Several relays may be pointed at one outbox: one works, the others stand by. That saves work and is not what order
rests on: each relay publishes what is there from the beginning, so even two at work could only repeat each other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from hookline.core.errors import TooLarge
from hookline.observe import Counter, Gauge, log
from hookline.sources.outbox.options import OutboxOptions
from hookline.sources.outbox.results import (
    LARGEST,
    DeadLetter,
    Held,
    Later,
    Outbox,
    OutboxDown,
    OutboxReport,
    Rejected,
    Result,
    Row,
    Stored,
)
from hookline.sources.outbox.targets import Target

FIRST_IDLE = 0.02
"""Seconds until the next look into an outbox that has just become empty; doubled up to ``OutboxOptions.poll``."""
STANDBY = 1.0
"""Seconds between tries to become the relay that works."""
PAUSE = 0.2
LONGEST_PAUSE = 15.0
"""Seconds between tries while the database or the log is away: doubled from the first to the second."""
HOLD_SECONDS = 30.0
MOST_HELD = 100
"""Tenants that are held back at the same time; beyond that, all wait."""
LOOK_SECONDS = 5.0
TELL_SECONDS = 60.0
"""The most often that the same kind of trouble with single events gets a line in the log."""


class OutboxMetrics(Protocol):
    """What is counted of the relay."""

    outbox_relayed: Counter
    outbox_dead_letters: Counter
    outbox_rows: Gauge
    outbox_oldest_seconds: Gauge
    outbox_leading: Gauge


class OutboxRelay:
    """Empties one outbox into one target."""

    def __init__(
        self, options: OutboxOptions, outbox: Outbox, target: Target, metrics: OutboxMetrics
    ) -> None:
        self._options = options
        self._outbox = outbox
        self._target = target
        self._metrics = metrics
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()
        self._state = "not connected yet"
        self._report: OutboxReport | None = None
        self._held: dict[str, float] = {}
        self._pause_down = 0.0
        self._pause_log = 0.0
        self._idle = 0.0
        self._look_at = 0.0
        self._told: dict[str, float] = {}

    # --- life

    async def run(self) -> None:
        """Relay until ``stop``, however often either side goes away."""
        try:
            while not self._stopping.is_set():
                try:
                    await self._serve()
                except OutboxDown as error:
                    self._state = str(error)
                    self._pause_down = min(2 * self._pause_down or PAUSE, LONGEST_PAUSE)
                    log.warning("outbox_unavailable", error=self._state, pause=self._pause_down)
                    await self._wait(self._pause_down)
        finally:
            await self._target.close()
            self._ended.set()

    async def stop(self, grace: float) -> None:
        """Finish the batch under way and end ``run``; return then, or after ``grace`` seconds at the latest."""
        self._stopping.set()
        try:
            async with asyncio.timeout(grace):
                await self._ended.wait()
        except TimeoutError:
            log.warning("outbox_stop_cut_short", grace=grace)

    async def check(self) -> str:
        """A word for ``/readyz``. Never raises: while the outbox is away, publishing by HTTP goes on."""
        last = self._report
        return self._state + ("" if last is None else f", {last.rows} events wait")

    @property
    def last_report(self) -> OutboxReport | None:
        """The newest look at the tables, a few seconds old; None before the first."""
        return self._report

    # --- one connection

    async def _serve(self) -> None:
        """Work, or stand by, on one connection. Raises ``OutboxDown``."""
        try:
            await self._outbox.open()
            while not self._stopping.is_set() and not await self._outbox.lead():
                self._state, self._pause_down = "stands by: another relay works", 0.0
                await self._look()
                await self._rest(STANDBY)
            if not self._stopping.is_set():
                self._look_at = 0.0
                self._begin(await self._look())
            while not self._stopping.is_set():
                await self._rest(await self._turn())
        finally:
            self._metrics.outbox_leading.set(0)
            await asyncio.shield(self._outbox.close())

    def _begin(self, report: OutboxReport) -> None:
        self._state, self._pause_down = "relays", 0.0
        self._metrics.outbox_leading.set(1)
        log.info("outbox_relaying", rows=report.rows, dead=report.dead)
        if not report.ordered:
            log.warning(
                "outbox_unordered", help="the trigger is missing: events come in the order of their inserts"
            )

    # --- one batch

    async def _turn(self) -> float:
        """Relay one batch; the seconds to rest after it."""
        await self._look()
        rows = await self._outbox.read(self._options.batch, self._options.batch_bytes, self._holding())
        if not rows:
            self._idle = min(2 * self._idle or FIRST_IDLE, self._options.poll)
            return self._idle
        self._idle = 0.0
        results = await self._publish(rows)
        await self._settle(rows, results)
        self._hold(rows, results)
        return self._delay(results)

    async def _publish(self, rows: Sequence[Row]) -> list[Result]:
        """The result for each row; those that are too large were not even read."""
        fitting = [row for row in rows if row.size <= LARGEST]
        results = iter(await self._target.publish(fitting) if fitting else [])
        return [next(results) if row.size <= LARGEST else _too_large(row) for row in rows]

    async def _settle(self, rows: Sequence[Row], results: Sequence[Result]) -> None:
        """Remove what is stored, and what never will be."""
        pairs = list(zip(rows, results, strict=True))
        stored = [row for row, result in pairs if isinstance(result, Stored)]
        dead = [
            DeadLetter(row, result.code, result.reason)
            for row, result in pairs
            if isinstance(result, Rejected)
        ]
        if stored:
            await self._outbox.remove(stored)
            self._metrics.outbox_relayed.inc(len(stored))
        if dead:
            await self._outbox.bury(dead)
            self._metrics.outbox_dead_letters.inc(len(dead))
            first = dead[0]
            self._tell(
                "outbox_dead_letter", id=first.row.id, code=first.code, reason=first.reason, count=len(dead)
            )

    def _holding(self) -> list[str]:
        """The tenants whose rows stay where they are for now."""
        now = asyncio.get_running_loop().time()
        self._held = {tenant: until for tenant, until in self._held.items() if until > now}
        return list(self._held)

    def _hold(self, rows: Sequence[Row], results: Sequence[Result]) -> None:
        until = asyncio.get_running_loop().time() + HOLD_SECONDS
        for row, result in zip(rows, results, strict=True):
            if isinstance(result, Held) and row.tenant not in self._held and len(self._held) < MOST_HELD:
                self._held[row.tenant] = until
                self._tell("outbox_tenant_held", tenant=row.tenant, reason=result.reason)

    def _delay(self, results: Sequence[Result]) -> float:
        """Nothing, unless some have to be tried again."""
        reasons = [one.reason for one in results if isinstance(one, Later)]
        if len(self._held) >= MOST_HELD:
            reasons += [one.reason for one in results if isinstance(one, Held)]
        if not reasons:
            if self._pause_log:
                log.info("outbox_relaying_again")
            self._pause_log = 0.0
            return 0.0
        self._pause_log = min(2 * self._pause_log or PAUSE, LONGEST_PAUSE)
        log.warning("outbox_delayed", events=len(reasons), error=reasons[0], pause=self._pause_log)
        return self._pause_log

    # --- time

    async def _rest(self, seconds: float) -> None:
        """Wait, and go on looking meanwhile. Raises ``OutboxDown``."""
        while seconds > 0 and not self._stopping.is_set():
            step = min(seconds, LOOK_SECONDS)
            await self._wait(step)
            seconds -= step
            await self._look()

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    async def _look(self) -> OutboxReport:
        """Count what waits, every now and then."""
        now = asyncio.get_running_loop().time()
        if self._report is not None and now < self._look_at:
            return self._report
        self._look_at = now + LOOK_SECONDS
        self._report = found = await self._outbox.report()
        self._metrics.outbox_rows.set(found.rows)
        self._metrics.outbox_oldest_seconds.set(found.oldest_seconds)
        if found.rows and self._may_tell("outbox_report"):
            log.info(
                "outbox_report", rows=found.rows, oldest_seconds=round(found.oldest_seconds), dead=found.dead
            )
        return found

    def _tell(self, what: str, **fields: object) -> None:
        if self._may_tell(what):
            log.warning(what, **fields)

    def _may_tell(self, what: str) -> bool:
        now = asyncio.get_running_loop().time()
        if now < self._told.get(what, 0.0):
            return False
        self._told[what] = now + TELL_SECONDS
        return True


def _too_large(row: Row) -> Rejected:
    return Rejected(TooLarge.code, f"the event has {row.size} bytes; no server takes more than {LARGEST}")
