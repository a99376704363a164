"""Retention: remove what is past its time, a little at a step, so that publishing never waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from msgspec import structs

from hookline.core.errors import Overloaded, StorageUnavailable
from hookline.core.model import Millis, Retention, Tenant
from hookline.core.sharding import shard_of
from hookline.observe import log
from hookline.ports import Clock, Lease, Storage

STEP = 500
"""Rows removed in one transaction."""
PAUSE = 0.02
"""Seconds between steps, for the others."""
INTERVAL = 3600.0
"""Seconds between rounds."""
DAY: Millis = 86_400_000
_TENANTS = 200


class Retainer:
    """Goes through the tenants of a shard, again and again. Only the owners of its slices run it.

    ``expire`` settles what stopped subscriptions of the slice have not seen or not delivered and is past its time, so
    that nothing disappears unseen. The first slice's owner removes what is past its time.
    """

    def __init__(
        self,
        storage: Storage,
        clock: Clock,
        default: Retention,
        expire: Callable[[Tenant], Awaitable[None]],
        lease: Lease,
    ) -> None:
        self._lease = lease
        self._storage = storage
        self._clock = clock
        self._default = default
        self._expire = expire

    async def run(self) -> None:
        """A round each hour, for ever."""
        while True:
            try:
                await self.round()
            except (StorageUnavailable, Overloaded) as error:
                log.warning("retention_delayed", reason=error.detail)
            await asyncio.sleep(INTERVAL)

    async def round(self) -> int:
        """Remove all that is past its time now; returns how many rows."""
        if (self._lease.shard, self._lease.slice) == (0, 0):
            await self._drop()
        removed = 0
        async for tenant in self._tenants():
            if shard_of(tenant.no, self._storage.shards) == self._lease.shard:
                removed += await self._tenant(tenant)
        return removed

    async def _drop(self) -> None:
        """Drop at once what no tenant keeps any more: one node does it for all shards."""
        longest, now = self._default, self._clock.now()
        async for tenant in self._tenants():
            keep = tenant.retention or self._default
            longest = Retention(*map(max, zip(structs.astuple(longest), structs.astuple(keep), strict=True)))
        events, attempts, bodies = (now - days * DAY for days in structs.astuple(longest))
        if dropped := await self._storage.drop_partitions(events, attempts, bodies):
            log.info("partitions_dropped", count=dropped)

    async def _tenants(self) -> AsyncIterator[Tenant]:
        after = ""
        while page := await self._storage.list_tenants(after, _TENANTS):
            for tenant in page:
                yield tenant
            after = page[-1].id

    async def _tenant(self, tenant: Tenant) -> int:
        keep, now = tenant.retention or self._default, self._clock.now()
        await self._expire(tenant)
        if self._lease.slice:
            return 0
        storage = self._storage
        bodies, attempts, events = (now - days * DAY for days in (keep.bodies, keep.attempts, keep.events))
        removed = await _steps(lambda: storage.remove_bodies(tenant.no, bodies, STEP))
        removed += await _steps(lambda: storage.remove_attempts(tenant.no, attempts, STEP))
        needed = await storage.oldest_needed(tenant.no)
        removed += await _steps(lambda: storage.remove_events(tenant.no, events, needed - 1, STEP))
        if removed:
            log.info("retention", tenant=tenant.id, removed=removed)
        return removed


async def _steps(step: Callable[[], Awaitable[int]]) -> int:
    total = 0
    while removed := await step():
        total += removed
        await asyncio.sleep(PAUSE)
    return total
