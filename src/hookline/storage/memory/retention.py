"""Removing what is past its time, in memory."""

from __future__ import annotations

from itertools import islice

from msgspec.structs import replace

from hookline.core.model import Attempt, LaneState, Millis, Position, SubscriptionState
from hookline.storage.common import effective_cursor
from hookline.storage.memory.state import MemoryState


class MemoryRetention(MemoryState):
    """Fills ``RetentionStore``."""

    async def remove_events(self, tenant_no: int, before: Millis, until: Position, limit: int) -> int:
        shard = self._shard_of(tenant_no)
        old = (
            event
            for event in map(shard.events.__getitem__, shard.positions)
            if event.tenant_no == tenant_no and event.received_at < before and event.position <= until
        )
        removed = list(islice(old, limit))
        for event in removed:
            del shard.events[event.position]
            del self._event_ids[tenant_no, event.id]
        shard.positions = list(shard.events)
        return len(removed)

    async def remove_attempts(self, tenant_no: int, before: Millis, limit: int) -> int:
        mine = [no for no, each in self._subscriptions.items() if each.tenant_no == tenant_no]
        attempts = self._old_attempts(mine, before)[:limit]
        settled = [
            (no, position)
            for no in mine
            for position, each in self._settled[no].items()
            if each.settled_at < before
        ][: limit - len(attempts)]
        for each in attempts:
            del self._attempts[each.subscription_no, each.position][each.number]
        for no, position in settled:
            del self._settled[no][position]
        return len(attempts) + len(settled)

    def _old_attempts(self, subscriptions: list[int], before: Millis) -> list[Attempt]:
        return [
            attempt
            for (no, _), attempts in self._attempts.items()
            for attempt in attempts.values()
            if no in subscriptions and attempt.started_at < before
        ]

    async def remove_bodies(self, tenant_no: int, before: Millis, limit: int) -> int:
        mine = [no for no, each in self._subscriptions.items() if each.tenant_no == tenant_no]
        old = [each for each in self._old_attempts(mine, before) if each.response_body][:limit]
        for each in old:
            kept = self._attempts[each.subscription_no, each.position]
            kept[each.number] = replace(each, response_body=b"")
        return len(old)

    async def drop_partitions(self, events: Millis, attempts: Millis, bodies: Millis) -> int:
        return 0

    async def oldest_needed(self, tenant_no: int) -> Position:
        shard = self._shard_of(tenant_no)
        mine = [each for each in self._subscriptions.values() if each.tenant_no == tenant_no]
        waiting = [position for each in mine for position in self._unsettled[each.no]]
        lanes = [
            effective_cursor(
                self._lanes.get(each.no) or LaneState(each.no, each.start_after, 0, live=False),
                self._slice_of(each.no).watermark,
            )
            for each in mine
            if each.state is not SubscriptionState.DELETED
        ]
        return min([shard.head + 1, *waiting, *(cursor + 1 for cursor in lanes)])
