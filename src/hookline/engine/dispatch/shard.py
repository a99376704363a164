"""One shard under delivery: its parts put together, and its life."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec import Struct

from hookline.core.lane import BreakerState
from hookline.core.model import Subscription, Tenant, Unsettled
from hookline.engine.compose import Composer
from hookline.engine.dispatch.delivery import Chance, Deliverer
from hookline.engine.dispatch.feeder import READERS, Feeder
from hookline.engine.dispatch.lane import Job, Lane
from hookline.engine.dispatch.roster import Roster, RosterEvents
from hookline.engine.dispatch.turns import Turns
from hookline.engine.dispatch.watermark import Watermark
from hookline.engine.record import Recorder
from hookline.engine.replay import ReplayRunner
from hookline.engine.tokens import TokenCache
from hookline.observe import Metrics
from hookline.ports import Bells, Clock, Lease, Sender, ShardState, Storage

DETACH_AFTER = 2.0
"""Seconds for which one lane may hold the watermark back before it gets a cursor of its own."""
SWEEP = 1.0
"""Seconds between looks at all lanes."""


class ShardTools(Struct, frozen=True):
    """What a shard under delivery works with; shared by all shards of a worker."""

    storage: Storage
    sender: Sender
    tokens: TokenCache
    turns: Turns
    wake: Bells
    clock: Clock
    chance: Chance
    metrics: Metrics
    compose: Callable[[Subscription, Tenant], Composer]
    retention_days: Callable[[Tenant], int]


class ShardRun:
    """The delivery of one leased shard. ``run`` ends by cancellation, or raises ``Fenced``."""

    def __init__(self, lease: Lease, state: ShardState, tools: ShardTools) -> None:
        self._tools = tools
        self._state = state
        self._part = (lease.shard, lease.slice)
        self._draining = False
        self._ended = False
        self._unrecorded = 0
        self._quiet = asyncio.Event()
        watermark = Watermark(state.watermark)
        clock, metrics = tools.clock, tools.metrics
        self._feeder = Feeder(
            lease.shard,
            tools.storage,
            tools.wake,
            clock,
            tools.turns,
            metrics,
            watermark,
            tools.retention_days,
        )
        self._recorder = Recorder(
            tools.storage,
            lease,
            watermark,
            lambda: self._roster.tail,
            self._on_gathered,
            self._on_recorded,
            clock,
            metrics,
        )
        self._deliverer = Deliverer(
            tools.sender, tools.tokens, self._recorder, self._on_finished, clock, tools.chance, metrics
        )
        self._replays = ReplayRunner(tools.storage, clock, self._requeued)
        self._roster = Roster(
            tools.storage,
            clock,
            watermark,
            self._recorder,
            tools.compose,
            tools.turns.memory,
            RosterEvents(self._feeder.consider, self._on_parked, self._replays.look),
            lease.slice,
        )
        self._feeder.connect(self._roster, self._deliverer)

    # --- life

    async def run(self) -> None:
        """Deliver until cancelled. Raises ``Fenced`` (in a group) when the lease is lost."""
        try:
            await self._roster.load(self._state)
            self._replays.load(self._state.replays)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._feeder.follow(), name="follow")
                tasks.create_task(self._recorder.run(), name="record")
                tasks.create_task(self._replays.run(), name="replay")
                tasks.create_task(self._sweep(), name="sweep")
                for number in range(READERS):
                    tasks.create_task(self._feeder.read_for_lanes(), name=f"read-{number}")
        finally:
            self._feeder.close()
            self._give_up_unrecorded()

    def _give_up_unrecorded(self) -> None:
        """Outcomes that nobody will record any more must not count against the worker's other shards."""
        self._ended = True
        self._tools.turns.recorded(self._unrecorded)
        for lane in self._roster.lanes.values():
            lane.disown()
        for gauge in self._tools.metrics.by_part:
            gauge.forget(self._part)

    async def drain(self) -> None:
        """Start nothing more; return once all that is under way has been recorded."""
        self._feeder.close()
        self._draining = True
        self._check_quiet()
        await self._quiet.wait()
        await self._recorder.drain()

    def _check_quiet(self) -> None:
        if not any(lane.in_flight for lane in self._roster.lanes.values()):
            self._quiet.set()

    async def expire_stopped(self, tenant: Tenant) -> None:
        """See ``Feeder.expire_stopped``."""
        await self._feeder.expire_stopped(tenant)

    # --- from the parts

    def start(self, job: Job) -> None:
        """The job has its turn."""
        self._deliverer.start(job)

    def hold(self) -> None:
        """See ``Feeder.hold``."""
        self._feeder.hold()

    def go_on(self) -> None:
        """See ``Feeder.go_on``."""
        self._feeder.go_on()

    def owns(self, lane: Lane) -> bool:
        """Whether the lane is one of this shard's."""
        return self._roster.lanes.get(lane.no) is lane

    def consider(self, lane: Lane) -> None:
        """See ``Feeder.consider``."""
        self._feeder.consider(lane)

    def _on_finished(self, job: Job) -> None:
        self._tools.turns.finished()
        self._feeder.consider(job.lane)
        if self._draining:
            self._check_quiet()

    def _on_parked(self, job: Job, row: Unsettled) -> None:
        self._recorder.retry(job, None, row)

    def _on_gathered(self) -> None:
        if not self._ended:
            self._unrecorded += 1
            self._tools.turns.gathered()

    def _on_recorded(self, jobs: list[Job]) -> None:
        self._unrecorded -= len(jobs)
        for job in jobs:
            job.lane.recorded(job)
        for lane in {job.lane.no: job.lane for job in jobs}.values():
            self._feeder.consider(lane)
        self._tools.turns.recorded(len(jobs))

    def _requeued(self, subscription_no: int) -> None:
        """A replay step put deliveries back."""
        lane = self._roster.lanes.get(subscription_no)
        if lane is not None:
            lane.requeued()
            self._feeder.consider(lane)

    # --- looking after the lanes

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP)
            overdue = self._tools.clock.monotonic() - DETACH_AFTER
            for lane in self._roster.lanes.values():
                oldest = lane.oldest_accepted
                if lane.live and oldest is not None and oldest < overdue:
                    self._roster.detach(lane)
            self._measure()

    def _measure(self) -> None:
        metrics, now = self._tools.metrics, self._tools.clock.now()
        lanes = self._roster.lanes.values()
        oldest = min((lane.next_due for lane in lanes if lane.next_due and not lane.stopped), default=now)
        for gauge, value in (
            (metrics.lanes_stopped, sum(lane.stopped for lane in lanes)),
            (metrics.lanes_behind, sum(not lane.fed and not lane.stopped for lane in lanes)),
            (metrics.breakers_open, sum(lane.breaker.state is not BreakerState.CLOSED for lane in lanes)),
            (metrics.oldest_due_seconds, max(0.0, (now - oldest) / 1000)),
            (metrics.lag, max(0, self._feeder.head - self._roster.tail)),
        ):
            gauge.set(value, self._part)
        metrics.unrecorded.set(self._tools.turns.unrecorded)
