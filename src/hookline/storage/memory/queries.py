"""Questions to the memory store."""

from __future__ import annotations

from itertools import islice

from msgspec.structs import replace

from hookline.core.model import Attempt, Event, LaneState, Millis, Position, Usage
from hookline.ports import Delivery, DeliveryQuery, EventQuery
from hookline.storage.common import delivery_of_settled, delivery_of_unsettled, effective_cursor
from hookline.storage.memory.state import MemoryState, Shard


def _window(shard: Shard, before: Position, since: Millis, until: Millis) -> range:
    """The positions that a query is about."""
    low = shard.position_at(since) if since else 0
    high = shard.position_at(until) if until else shard.head
    return range(low + 1, min(high, before - 1 if before else high) + 1)


def _fits(event: Event, query: EventQuery) -> bool:
    wanted = (query.type, query.object_type, query.object_id, query.correlation_id)
    found = (event.type, event.object_type, event.object_id, event.correlation_id)
    return event.tenant_no == query.tenant_no and all(
        not want or want == have for want, have in zip(wanted, found, strict=True)
    )


class MemoryQueries(MemoryState):
    """Fills ``QueryStore``."""

    async def find_event(self, tenant_no: int, event_id: str) -> Event | None:
        return self._event_ids.get((tenant_no, event_id))

    async def list_events(self, query: EventQuery) -> list[Event]:
        shard = self._shard_of(query.tenant_no)
        window = _window(shard, query.before, query.since, query.until)
        newest = (shard.events[position] for position in reversed(shard.positions) if position in window)
        return list(islice((event for event in newest if _fits(event, query)), query.limit))

    async def list_deliveries(self, query: DeliveryQuery) -> list[Delivery]:
        shard = self._shards[self._subscription(query.subscription_no).shard]
        window = _window(shard, query.before, query.since, query.until)
        found = [
            delivery
            for delivery in self._deliveries(query.subscription_no)
            if delivery.position in window and (not query.states or delivery.state in query.states)
        ]
        return sorted(found, key=lambda delivery: -delivery.position)[: query.limit]

    def _deliveries(self, subscription_no: int) -> list[Delivery]:
        settled = map(delivery_of_settled, self._settled[subscription_no].values())
        return [*settled, *map(delivery_of_unsettled, self._unsettled[subscription_no].values())]

    async def get_delivery(self, subscription_no: int, position: Position) -> Delivery | None:
        settled = self._settled[subscription_no].get(position)
        if settled is not None:
            return delivery_of_settled(settled)
        waiting = self._unsettled[subscription_no].get(position)
        return None if waiting is None else delivery_of_unsettled(waiting)

    async def event_deliveries(self, tenant_no: int, position: Position) -> list[Delivery]:
        mine = [each.no for each in self._subscriptions.values() if each.tenant_no == tenant_no]
        found = [await self.get_delivery(no, position) for no in mine]
        return [delivery for delivery in found if delivery is not None]

    async def list_attempts(self, subscription_no: int, position: Position) -> list[Attempt]:
        mine = self._attempts.get((subscription_no, position), {})
        return [mine[number] for number in sorted(mine)]

    async def get_attempt(self, subscription_no: int, position: Position, number: int) -> Attempt | None:
        return self._attempts.get((subscription_no, position), {}).get(number)

    async def lane_state(self, subscription_no: int) -> LaneState | None:
        lane = self._lanes.get(subscription_no)
        if lane is None:
            return None
        self._subscription(subscription_no)
        return replace(lane, cursor=effective_cursor(lane, self._slice_of(subscription_no).watermark))

    async def usage(self, tenant_no: int, since_day: str, until_day: str) -> list[Usage]:
        days = sorted(day for no, day in self._usage if no == tenant_no and since_day <= day <= until_day)
        names = ("events", "event_bytes", "attempts", "attempt_bytes")
        return [Usage(tenant_no, day, *(self._usage[tenant_no, day][name] for name in names)) for day in days]
