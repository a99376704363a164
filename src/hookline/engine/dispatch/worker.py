"""A delivery worker: take its share of the shards, deliver them, give them back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from msgspec.structs import replace

from hookline import __version__
from hookline.core.errors import Fenced, Overloaded, StorageUnavailable
from hookline.core.model import Millis, Retention, Tenant
from hookline.core.sharding import slice_of
from hookline.engine.dispatch.lane import Job, Lane
from hookline.engine.dispatch.shard import ShardRun, ShardTools
from hookline.engine.dispatch.shares import Shares
from hookline.engine.retain import Retainer
from hookline.observe import log
from hookline.ports import Lease, Node

LEASED = 0.9
"""Share of the lease time for which a lease is given. In the rest the others look, and take over."""
RENEWALS = 3
"""Renewals of a lease within its life."""
AGAIN = 0.02
"""Shortest pause between two looks at the leases, as a share of the lease time."""
MISSED = 1.5
"""Rounds after which a node that was not heard of counts as gone for the sharing out."""
HEARD_OF = 600.0
"""Seconds by which the clocks of nodes may differ without hiding one from another."""
HAND_OVER_SECONDS = 30.0
"""How long what is under way may hold up the handing over of a slice."""
CANCEL_SECONDS = 5.0
"""How long cancelled tasks may take to end."""

Part = tuple[int, int]
"""A slice of a shard: what one lease is about."""


class Worker:
    """Owns slices of shards for as long as it renews their leases. ``run`` works until ``stop`` has ended."""

    def __init__(
        self,
        owner: str,
        tools: ShardTools,
        lease_seconds: float,
        retention: Retention,
        role: str = "delivery",
    ) -> None:
        self._node = Node(owner, role, __version__, tools.clock.now())
        self._tools = tools
        self._life = LEASED * lease_seconds
        """For how many seconds a lease is given."""
        self._interval = self._life / RENEWALS
        """Seconds between two rounds, and so between two signs of life."""
        self._again = AGAIN * lease_seconds
        self._retention = retention
        self._shards: dict[Part, ShardRun] = {}
        self._leases: dict[Part, Lease] = {}
        self._until: dict[Part, float] = {}
        self._runs: dict[Part, asyncio.Task[None]] = {}
        self._leaving: dict[Part, asyncio.Task[None]] = {}
        self._signs: dict[str, tuple[Millis, float]] = {}
        """Of each node the last sign of life, and when we saw it first."""
        self._turn = asyncio.Lock()
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()
        tools.turns.serve(self._may_start, self.start, self._exhausted)

    @property
    def owned(self) -> list[int]:
        """The shards of which this worker delivers something now."""
        return sorted({shard for shard, _ in self._shards})

    def _run_of(self, lane: Lane) -> ShardRun | None:
        run = self._shards.get(self._part_of(lane))
        return run if run is not None and run.owns(lane) else None

    def _part_of(self, lane: Lane) -> Part:
        return lane.subscription.shard, slice_of(lane.no, self._tools.storage.slices)

    def _may_start(self, lane: Lane) -> bool:
        """Whether the slice is still ours by our own clocks: a process that stood still for a while must not send what
        another may have taken over meanwhile. The monotonic one counts from before the lease was asked for."""
        part, run, clock = self._part_of(lane), self._run_of(lane), self._tools.clock
        lease = self._leases.get(part)
        if lease is None or run is None:
            return False
        if clock.now() < lease.expires_at and clock.monotonic() < self._until[part]:
            return True
        run.hold()
        return False

    def start(self, job: Job) -> None:
        """Send a job that has its turn."""
        run = self._run_of(job.lane)
        if run is not None:
            run.start(job)
        else:
            self._tools.turns.finished()

    def _exhausted(self, lane: Lane) -> None:
        run = self._run_of(lane)
        if run is not None:
            run.consider(lane)

    # --- life

    async def run(self) -> None:
        """Take our share of what there is, and keep it. The end of what is under way is up to ``stop``."""
        async with asyncio.TaskGroup() as tasks:
            while not self._ended.is_set():
                async with self._turn:
                    pause = await self._round(tasks)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._ended.wait()

    async def stop(self, grace: float) -> None:
        """Start nothing more, wait up to ``grace`` seconds for what is under way, and give everything back. The leases
        are renewed meanwhile: nobody takes over what we still wait for."""
        self._stopping.set()
        self._tools.turns.closed = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                for run in list(self._shards.values()):
                    await run.drain()
        self._ended.set()
        async with self._turn:
            leases = list(self._leases.values())
            running = [*self._runs.values(), *self._leaving.values()]
            for task in running:
                task.cancel()
            if running:
                await asyncio.wait(running, timeout=CANCEL_SECONDS)
            for lease in leases:
                await self._give_back(lease)
            with contextlib.suppress(StorageUnavailable, Overloaded):
                await self._tools.storage.leave(self._node.id)

    async def _give_back(self, lease: Lease) -> None:
        with contextlib.suppress(StorageUnavailable, Overloaded):
            await self._tools.storage.release(lease)

    # --- leases

    async def _round(self, tasks: asyncio.TaskGroup) -> float:
        """Renew what we have; then take what we lack of our share, or hand over what another one lacks.

        Returns the seconds until the next round.
        """
        await self._renew(tasks)
        if self._stopping.is_set():
            return self._interval
        now = self._tools.clock.now()
        try:
            nodes = self._living(await self._tools.storage.beat(self._node, now, HEARD_OF))
            leases = [await self._unless_dropped(each) for each in await self._tools.storage.leases(now)]
        except (StorageUnavailable, Overloaded) as error:
            log.warning("lease_delayed", reason=error.detail)
            return self._interval
        shares = Shares(self._node.id, nodes, leases)
        for lease in shares.wanted(len(self._leases)):
            await self._tend(_part(lease), tasks)
        staying = [part for part in sorted(self._leases, key=_by_slice) if part not in self._leaving]
        for part in staying[len(staying) - shares.surplus(len(staying)) :]:
            self._leaving[part] = tasks.create_task(self._hand_over(part), name=f"hand-over-{part}")
        return self._pause(leases, now)

    async def _renew(self, tasks: asyncio.TaskGroup) -> None:
        """Renew all at once; what is left out then, because it is lost or being written with, each for itself."""
        clock, held = self._tools.clock, list(self._leases.values())
        until = clock.monotonic() + self._life
        try:
            renewed = await self._tools.storage.renew(held, clock.now(), self._life) if held else []
        except (StorageUnavailable, Overloaded) as error:
            log.warning("lease_delayed", reason=error.detail)
            return
        for lease in renewed:
            if _part(lease) in self._leases:
                self._keep(lease, until)
        done = set(map(_part, renewed))
        for part in sorted(self._leases.keys() - done):
            if not self._ended.is_set():
                await self._tend(part, tasks)

    def _keep(self, lease: Lease, until: float) -> None:
        part = _part(lease)
        self._leases[part] = lease
        self._until[part] = until
        if part in self._shards and part not in self._leaving:
            self._shards[part].go_on()

    async def _unless_dropped(self, lease: Lease) -> Lease:
        """Free a lease that we hold without delivering, since the storage failed us: what we take anew has a new epoch,
        in which nothing that was still on its way can be recorded."""
        part = _part(lease)
        if lease.owner != self._node.id or part in self._leases or part in self._runs:
            return lease
        await self._tools.storage.release(lease)
        return replace(lease, owner="")

    def _pause(self, leases: Sequence[Lease], now: Millis) -> float:
        """How long nothing can be free: until the next lease of another node ends that is not renewed before."""
        if any(not each.owner and _part(each) not in self._leases for each in leases):
            return self._again
        ends = [each.expires_at for each in leases if each.owner != self._node.id and each.expires_at > now]
        first = (min(ends) - now) / 1000 if ends else self._interval
        return min(self._interval, max(self._again, first))

    def _living(self, nodes: Sequence[Node]) -> list[Node]:
        """Those that gave a new sign of life not long ago, by our own clock: theirs may be wrong."""
        now = self._tools.clock.monotonic()
        known = self._signs
        self._signs = {
            node.id: known[node.id]
            if node.id in known and known[node.id][0] == node.seen_at
            else (node.seen_at, now)
            for node in nodes
        }
        return [node for node in nodes if now - self._signs[node.id][1] <= MISSED * self._interval]

    async def _tend(self, part: Part, tasks: asyncio.TaskGroup) -> None:
        """Take or renew the lease of a part; start or end its delivery accordingly."""
        (shard, number), clock = part, self._tools.clock
        until = clock.monotonic() + self._life
        try:
            lease = await self._tools.storage.lease(shard, self._node.id, clock.now(), self._life, number)
        except (StorageUnavailable, Overloaded) as error:
            log.warning("lease_delayed", shard=shard, reason=error.detail)
            return
        known = self._leases.get(part)
        if known is not None and (lease is None or lease.epoch != known.epoch):
            self._lose(part)
        if lease is None:
            return
        self._keep(lease, until)
        if part not in self._runs:
            self._tools.metrics.takeovers.inc()
            log.info("shard_taken", shard=shard, slice=number, epoch=lease.epoch)
            self._runs[part] = tasks.create_task(self._deliver(lease), name=f"shard-{shard}-{number}")

    def _lose(self, part: Part) -> None:
        self._tools.metrics.lost_leases.inc()
        log.warning("shard_lost", shard=part[0], slice=part[1])
        self._leases.pop(part, None)
        self._shards.pop(part, None)
        run = self._runs.pop(part, None)
        if run is not None:
            run.cancel()

    async def _hand_over(self, part: Part) -> None:
        """Give a part to a node that has fewer: once what is under way is recorded, or after a while without it."""
        lease, run, task = self._leases[part], self._shards.get(part), self._runs.get(part)
        try:
            if run is not None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(HAND_OVER_SECONDS):
                        await run.drain()
            if task is not None:
                task.cancel()
                await asyncio.wait([task], timeout=CANCEL_SECONDS)
            async with self._turn:
                if self._leases.get(part) in (None, lease):
                    self._leases.pop(part, None)
                await self._give_back(lease)
            log.info("shard_handed_over", shard=part[0], slice=part[1])
        finally:
            self._leaving.pop(part, None)

    async def _deliver(self, lease: Lease) -> None:
        part = _part(lease)
        run: ShardRun | None = None
        try:
            state = await self._tools.storage.load_shard(lease.shard, lease.epoch, lease.slice)
            run = self._shards[part] = ShardRun(lease, state, self._tools)
            retainer = Retainer(
                self._tools.storage, self._tools.clock, self._retention, run.expire_stopped, lease
            )
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(run.run(), name="shard")
                tasks.create_task(retainer.run(), name="retain")
        except* Fenced:
            log.warning("fenced", shard=lease.shard, slice=lease.slice, epoch=lease.epoch)
        except* (StorageUnavailable, Overloaded) as group:
            log.warning(
                "shard_dropped", shard=lease.shard, slice=lease.slice, reason=str(group.exceptions[0])
            )
        finally:
            if self._shards.get(part) is run:  # else the part was taken again before this one had ended
                self._shards.pop(part, None)
            if self._leases.get(part) is not None and self._leases[part].epoch == lease.epoch:
                self._runs.pop(part, None)
                self._leases.pop(part, None)


def _part(lease: Lease) -> Part:
    return lease.shard, lease.slice


def _by_slice(part: Part) -> tuple[int, int]:
    """The order in which parts are taken, and from its end handed over: see ``Shares``."""
    shard, number = part
    return number, shard


def retention_days(default: Retention, tenant: Tenant) -> int:
    """How many days of events a tenant keeps."""
    return (tenant.retention or default).events
