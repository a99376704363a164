"""Record: write what became of the attempts, in batches, each with the state of the shard after it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hookline.core.errors import Overloaded, StorageUnavailable
from hookline.core.model import Attempt, NewEvent, Position, Settled, Unsettled
from hookline.engine.dispatch.lane import Job, Lane
from hookline.engine.dispatch.watermark import Watermark
from hookline.observe import Metrics, log
from hookline.ports import Clock, DeliveryStore, Lease, Record

LINGER = 0.02
"""Seconds to gather outcomes before they are written. Nobody waits for the record: it costs at most this much
more to repeat after a crash, and saves most of the cost of a transaction."""
GATHERED = 400
"""Outcomes that are enough to write without waiting."""
RETRY_PAUSE = 0.5
"""Seconds between tries while the storage does not answer."""
IDLE_INTERVAL = 1.0
"""Seconds after which a watermark that moved is written even if nothing was sent."""


class Recorder:
    """Gathers outcomes of one shard and writes them; ``run`` ends only by cancellation or ``Fenced``."""

    def __init__(
        self,
        store: DeliveryStore,
        lease: Lease,
        watermark: Watermark,
        tail: Callable[[], Position],
        gathered: Callable[[], None],
        recorded: Callable[[list[Job]], None],
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._store = store
        self._lease = lease
        self._number = 0
        self._watermark = watermark
        self._tail = tail
        self._gathered = gathered
        self._recorded = recorded
        self._clock = clock
        self._metrics = metrics
        self._jobs: list[Job] = []
        self._attempts: list[Attempt] = []
        self._settled: list[Settled] = []
        self._unsettled: dict[tuple[int, Position], Unsettled] = {}
        """By delivery: while the storage is slow, one may be tried again before its last outcome is written."""
        self._operational: list[NewEvent] = []
        self._disabled: list[tuple[int, str]] = []
        self._dirty: dict[Lane, None] = {}
        self._written: Position = -1
        self._work = asyncio.Event()
        self._enough = asyncio.Event()
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    # --- gathering

    def settle(self, job: Job, attempt: Attempt | None, settled: Settled) -> None:
        """The delivery is at its end."""
        self._unsettled.pop((settled.subscription_no, settled.position), None)
        self._settled.append(settled)
        self._add(job, attempt)

    def retry(self, job: Job, attempt: Attempt | None, row: Unsettled) -> None:
        """The delivery goes (back) to the retry set."""
        self._unsettled[row.subscription_no, row.position] = row
        self._add(job, attempt)

    def touch(self, lane: Lane) -> None:
        """The lane's own state changed and must be written."""
        self._dirty[lane] = None
        self._wake()

    def announce(self, event: NewEvent) -> None:
        """Publish an operational event with the batch."""
        self._operational.append(event)
        self._wake()

    def disable(self, lane: Lane, reason: str) -> None:
        """Disable the lane's subscription with the batch."""
        self._disabled.append((lane.no, reason))
        self.touch(lane)

    def _add(self, job: Job, attempt: Attempt | None) -> None:
        if attempt is not None:
            self._attempts.append(attempt)
        self._jobs.append(job)
        self._dirty[job.lane] = None
        self._gathered()
        self._wake()

    def _wake(self) -> None:
        self._work.set()
        self._idle.clear()
        if len(self._jobs) >= GATHERED:
            self._enough.set()

    # --- writing

    async def run(self) -> None:
        """Write batches for ever. Raises ``Fenced`` when the shard has another owner."""
        while True:
            if not self._work.is_set():
                await self._wait_for_work()
            if not self._draining:
                await _wait(self._enough, LINGER)
            await self._write()

    async def drain(self) -> None:
        """Return once all that was gathered is written, without lingering from now on."""
        self._draining = True
        self._enough.set()
        await self._idle.wait()

    async def _wait_for_work(self) -> None:
        self._idle.set()
        while not await _wait(self._work, IDLE_INTERVAL):
            if self._watermark.advance(self._tail()) > self._written:
                return

    async def _write(self) -> None:
        jobs = self._jobs
        batch = self._build()
        while True:
            try:
                await self._store.record(batch)
                break
            except (StorageUnavailable, Overloaded) as error:
                log.warning(
                    "record_delayed", shard=self._lease.shard, outcomes=len(jobs), reason=error.detail
                )
                await asyncio.sleep(RETRY_PAUSE)
        self._written = batch.watermark
        self._metrics.records.inc()
        self._recorded(jobs)

    def _build(self) -> Record:
        """The batch, as one consistent picture: lanes and watermark count its outcomes as written."""
        for job in self._jobs:
            if not job.waiting:
                job.lane.mark_recorded(job)
                if job.held:
                    job.held = False
                    self._watermark.release(job.event.position)
        for lane in self._dirty:
            if lane.fed and not lane.live and lane.cursor == lane.read_to:
                lane.live = True
        self._number += 1
        batch = Record(
            self._lease.shard,
            self._lease.epoch,
            self._clock.now(),
            self._watermark.advance(self._tail()),
            self._attempts,
            self._settled,
            list(self._unsettled.values()),
            [lane.state() for lane in self._dirty],
            self._disabled,
            self._operational,
            self._lease.slice,
            self._number,
        )
        self._clear()
        return batch

    def _clear(self) -> None:
        self._jobs, self._attempts, self._settled, self._unsettled = [], [], [], {}
        self._operational, self._disabled, self._dirty = [], [], {}
        self._work.clear()
        self._enough.clear()


async def _wait(event: asyncio.Event, seconds: float) -> bool:
    """Whether the event was set within ``seconds``."""
    if event.is_set():
        return True
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
