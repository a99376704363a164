"""A delivery worker: lease shards, deliver them, give them back."""

from __future__ import annotations

import asyncio
import contextlib

from hookline.core.errors import Fenced, Overloaded, StorageUnavailable
from hookline.core.model import Retention, Tenant
from hookline.engine.dispatch.lane import Job, Lane
from hookline.engine.dispatch.shard import ShardRun, ShardTools
from hookline.engine.retain import Retainer
from hookline.observe import log
from hookline.ports import Lease

RENEWALS = 3
"""Renewals of a lease within its life."""
CANCEL_SECONDS = 5.0
"""How long cancelled tasks may take to end."""


class Worker:
    """Owns shards for as long as it renews their leases. ``run`` works until cancelled."""

    def __init__(self, owner: str, tools: ShardTools, lease_seconds: float, retention: Retention) -> None:
        self._owner = owner
        self._tools = tools
        self._lease_seconds = lease_seconds
        self._retention = retention
        self._shards: dict[int, ShardRun] = {}
        self._leases: dict[int, Lease] = {}
        self._runs: dict[int, asyncio.Task[None]] = {}
        self._stopping = asyncio.Event()
        tools.turns.serve(self._may_start, self.start, self._exhausted)

    @property
    def owned(self) -> list[int]:
        """The shards that this worker delivers now."""
        return sorted(self._shards)

    def _may_start(self, lane: Lane) -> bool:
        """Whether the shard is still ours by our own clock: a process that stood still for a while must not send what
        another may have taken over meanwhile."""
        shard = lane.subscription.shard
        lease, run = self._leases.get(shard), self._shards.get(shard)
        if lease is None or run is None or not run.owns(lane):
            return False
        if self._tools.clock.now() < lease.expires_at:
            return True
        run.hold()
        return False

    def start(self, job: Job) -> None:
        """Send a job that has its turn."""
        run = self._shards.get(job.lane.subscription.shard)
        if run is not None and run.owns(job.lane):
            run.start(job)
        else:
            self._tools.turns.finished()

    def _exhausted(self, lane: Lane) -> None:
        run = self._shards.get(lane.subscription.shard)
        if run is not None and run.owns(lane):
            run.consider(lane)

    async def run(self) -> None:
        """Take what shards are free, and keep them. The end of what is under way is up to ``stop``."""
        async with asyncio.TaskGroup() as tasks:
            while not self._stopping.is_set():
                for shard in range(self._tools.storage.shards):
                    await self._tend(shard, tasks)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._lease_seconds / RENEWALS):
                        await self._stopping.wait()

    async def stop(self, grace: float) -> None:
        """Start nothing more, wait up to ``grace`` seconds for what is under way, and give the shards back."""
        self._stopping.set()
        self._tools.turns.closed = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                for run in list(self._shards.values()):
                    await run.drain()
        leases = list(self._leases.values())
        running = list(self._runs.values())
        for run in running:
            run.cancel()
        if running:
            await asyncio.wait(running, timeout=CANCEL_SECONDS)
        for lease in leases:
            with contextlib.suppress(StorageUnavailable, Overloaded):
                await self._tools.storage.release(lease)

    async def _tend(self, shard: int, tasks: asyncio.TaskGroup) -> None:
        """Take or renew the lease of a shard; start or end its delivery accordingly."""
        clock = self._tools.clock
        try:
            lease = await self._tools.storage.lease(shard, self._owner, clock.now(), self._lease_seconds)
        except (StorageUnavailable, Overloaded) as error:
            log.warning("lease_delayed", shard=shard, reason=error.detail)
            return
        known = self._leases.get(shard)
        if known is not None and (lease is None or lease.epoch != known.epoch):
            self._lose(shard)
        if lease is None:
            return
        self._leases[shard] = lease
        if shard in self._shards:
            self._shards[shard].go_on()
        if shard not in self._runs:
            self._tools.metrics.takeovers.inc()
            log.info("shard_taken", shard=shard, epoch=lease.epoch)
            self._runs[shard] = tasks.create_task(self._deliver(lease), name=f"shard-{shard}")

    def _lose(self, shard: int) -> None:
        self._tools.metrics.lost_leases.inc()
        log.warning("shard_lost", shard=shard)
        self._leases.pop(shard, None)
        self._shards.pop(shard, None)
        run = self._runs.pop(shard, None)
        if run is not None:
            run.cancel()

    async def _deliver(self, lease: Lease) -> None:
        shard = lease.shard
        run: ShardRun | None = None
        try:
            state = await self._tools.storage.load_shard(shard, lease.epoch)
            run = self._shards[shard] = ShardRun(lease, state, self._tools)
            retainer = Retainer(self._tools.storage, self._tools.clock, self._retention, run.expire_stopped)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(run.run(), name="shard")
                tasks.create_task(retainer.run(), name="retain")
        except* Fenced:
            log.warning("fenced", shard=shard, epoch=lease.epoch)
        except* (StorageUnavailable, Overloaded) as group:
            log.warning("shard_dropped", shard=shard, reason=str(group.exceptions[0]))
        finally:
            if self._shards.get(shard) is run:  # else the shard was taken again before this one had ended
                self._shards.pop(shard, None)
            if self._leases.get(shard) is not None and self._leases[shard].epoch == lease.epoch:
                self._runs.pop(shard, None)
                self._leases.pop(shard, None)


def retention_days(default: Retention, tenant: Tenant) -> int:
    """How many days of events a tenant keeps."""
    return (tenant.retention or default).events
