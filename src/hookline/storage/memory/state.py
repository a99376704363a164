"""What the memory store holds, and the steps that several roles share."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from hookline.core.errors import Fenced, NotFound
from hookline.core.model import (
    ApiKey,
    Appended,
    Attempt,
    DefinitionVersion,
    DeliveryState,
    Event,
    EventType,
    LaneState,
    Millis,
    NewEvent,
    Position,
    Replay,
    Settled,
    Subscription,
    SubscriptionState,
    Tenant,
    Unsettled,
)
from hookline.core.sharding import shard_of, slice_of
from hookline.ports import Changes, Node
from hookline.storage.common import day_of, event_at, final_states, published

Place = tuple[int, Position]
"""A delivery: subscription and position."""


@dataclass
class Slice:
    """Who delivers a part of a shard's subscriptions, and how far that is."""

    watermark: Position = 0
    epoch: int = 0
    owner: str | None = None
    expires_at: Millis = 0
    recorded: int = 0


@dataclass
class Shard:
    """One stretch of the log. ``positions`` is ordered and has holes where retention removed events."""

    no: int
    slices: list[Slice]
    head: Position = 0
    last_received: Millis = 0
    positions: list[Position] = field(default_factory=list[Position])
    events: dict[Position, Event] = field(default_factory=dict[Position, Event])

    def after(self, position: Position) -> int:
        """The index in ``positions`` of the first one > ``position``."""
        return bisect_right(self.positions, position)

    def position_at(self, time: Millis) -> Position:
        index = bisect_left(self.positions, time, key=lambda position: self.events[position].received_at)
        return self.positions[index] - 1 if index < len(self.positions) else self.head


class MemoryState:
    """The data of all roles."""

    def __init__(self, shards: int = 1, slices: int = 1) -> None:
        self.shards = shards
        self.slices = slices
        self._shards = [Shard(no, [Slice() for _ in range(slices)]) for no in range(shards)]
        self._nodes: dict[str, Node] = {}
        self._event_ids: dict[tuple[int, str], Event] = {}
        self._tenants: dict[int, Tenant] = {}
        self._keys: dict[str, ApiKey] = {}
        self._event_types: dict[tuple[int, str], EventType] = {}
        self._subscriptions: dict[int, Subscription] = {}
        self._definitions: dict[int, list[DefinitionVersion]] = {}
        self._version = 0
        self._changed: dict[int, int] = {}
        self._requeued: dict[int, int] = {}
        self._settled: defaultdict[int, dict[Position, Settled]] = defaultdict(dict)
        self._unsettled: defaultdict[int, dict[Position, Unsettled]] = defaultdict(dict)
        self._lanes: dict[int, LaneState] = {}
        self._attempts: defaultdict[Place, dict[int, Attempt]] = defaultdict(dict)
        self._replays: dict[str, Replay] = {}
        self._usage: defaultdict[tuple[int, str], Counter[str]] = defaultdict(Counter)

    # --- configuration -------------------------------------------------------------------------------

    def _bump(self) -> int:
        self._version += 1
        return self._version

    def _change(self, subscription: Subscription) -> Subscription:
        self._subscriptions[subscription.no] = subscription
        self._changed[subscription.no] = self._bump()
        return subscription

    def _requeue(self, subscription_no: int) -> None:
        self._requeued[subscription_no] = self._bump()

    def _subscription(self, subscription_no: int) -> Subscription:
        try:
            return self._subscriptions[subscription_no]
        except KeyError:
            raise NotFound("there is no such subscription") from None

    def _changes(self, shard: int, after: int, slice: int | None = None) -> Changes:
        if after >= self._version:
            return Changes(version=self._version)
        changed = [no for no, version in sorted(self._changed.items()) if version > after]
        subscriptions = [
            subscription
            for subscription in map(self._subscriptions.__getitem__, changed)
            if subscription.shard == shard
            and (slice is None or slice_of(subscription.no, self.slices) == slice)
            and (after or self._matters(subscription))
        ]
        requeued = [no for no, version in sorted(self._requeued.items()) if version > after]
        return Changes(
            version=self._version,
            subscriptions=subscriptions,
            definitions=[version for each in subscriptions for version in self._definitions[each.no]],
            requeued=[no for no in requeued if self._subscriptions[no].shard == shard],
        )

    def _matters(self, subscription: Subscription) -> bool:
        """Whether a reader that starts anew needs it: a deleted one only while its waiting deliveries are not
        dropped."""
        return subscription.state is not SubscriptionState.DELETED or bool(self._unsettled[subscription.no])

    # --- the log -------------------------------------------------------------------------------------

    def _shard_of(self, tenant_no: int) -> Shard:
        return self._shards[shard_of(tenant_no, self.shards)]

    def _slice_of(self, subscription_no: int) -> Slice:
        shard = self._shards[self._subscriptions[subscription_no].shard]
        return shard.slices[slice_of(subscription_no, self.slices)]

    def _append(self, event: NewEvent, now: Millis) -> Appended:
        existing = self._event_ids.get((event.tenant_no, event.id))
        if existing is not None:
            return Appended(existing.position, existing)
        shard = self._shard_of(event.tenant_no)
        shard.head += 1
        shard.last_received = max(shard.last_received, now)
        stored = event_at(shard.no, shard.head, event, shard.last_received)
        shard.positions.append(stored.position)
        shard.events[stored.position] = stored
        self._event_ids[event.tenant_no, event.id] = stored
        for no, (count, size) in published([event]).items():
            self._usage[no, day_of(now)].update(events=count, event_bytes=size)
        return Appended(stored.position)

    # --- deliveries ----------------------------------------------------------------------------------

    def _fenced(self, shard: int, slice: int, epoch: int) -> Slice:
        """The slice, if ``epoch`` is in force: a lease that was given back has none."""
        held = self._shards[shard].slices[slice]
        if held.owner is None or held.epoch != epoch:
            raise Fenced
        return held

    def _settled_range(
        self, subscription_no: int, after: Position, until: Position, states: Sequence[DeliveryState]
    ) -> list[Settled]:
        """Settled deliveries in (after, until] whose events are still there, by position."""
        wanted = final_states(states)
        events = self._shards[self._subscription(subscription_no).shard].events
        settled = self._settled[subscription_no]
        return [
            settled[position]
            for position in sorted(settled)
            if after < position <= until and position in events and settled[position].state in wanted
        ]
