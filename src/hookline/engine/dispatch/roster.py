"""The lanes of a shard: made, changed, stopped and removed as the configuration says."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct

from hookline.core.model import (
    DefinitionVersion,
    Event,
    LaneState,
    Millis,
    Order,
    Position,
    Subscription,
    SubscriptionState,
    Tenant,
    Unsettled,
)
from hookline.core.sharding import slice_of
from hookline.engine.compose import Composer
from hookline.engine.dispatch.index import LaneIndex
from hookline.engine.dispatch.lane import Job, Lane, Memory
from hookline.engine.dispatch.ordered import OrderedLane
from hookline.engine.dispatch.watermark import Watermark
from hookline.engine.record import Recorder
from hookline.observe import log
from hookline.ports import Changes, Clock, LanePosition, ShardState, Storage

TENANT_AGE: Millis = 60_000
"""Milliseconds for which a tenant is taken as it was read."""


class RosterEvents(Struct, frozen=True):
    """Who is told: of a lane that has something to do, of a parked delivery, of new replay jobs."""

    changed: Callable[[Lane], None]
    park: Callable[[Job, Unsettled], None]
    requeued: Callable[[int], None]


class Roster:
    """Keeps ``lanes`` and ``index`` in step with the subscriptions."""

    def __init__(
        self,
        storage: Storage,
        clock: Clock,
        watermark: Watermark,
        recorder: Recorder,
        compose: Callable[[Subscription, Tenant], Composer],
        memory: Memory,
        events: RosterEvents,
        slice: int,
    ) -> None:
        self._storage = storage
        self._slice = slice
        self._clock = clock
        self._watermark = watermark
        self._recorder = recorder
        self._compose = compose
        self._memory = memory
        self._events = events
        self._tenants: dict[int, tuple[Millis, Tenant]] = {}
        self._replaced: dict[int, tuple[Subscription, Sequence[DefinitionVersion]]] = {}
        self.index = LaneIndex()
        self.lanes: dict[int, Lane] = {}
        self.tail: Position = 0
        self.seen = 0

    # --- tenants

    async def tenant(self, tenant_no: int) -> Tenant:
        """The tenant, at most a minute old."""
        known = self._tenants.get(tenant_no)
        now = self._clock.now()
        if known is None or now - known[0] > TENANT_AGE:
            known = (now, await self._storage.get_tenant(tenant_no))
            self._tenants[tenant_no] = known
        return known[1]

    def _composer(self, subscription: Subscription) -> Composer:
        return self._compose(subscription, self._tenants[subscription.tenant_no][1])

    # --- loading and changing

    async def load(self, state: ShardState) -> None:
        """Rebuild all lanes as the last owner recorded them."""
        self.tail = state.watermark
        places = {place.state.subscription_no: place for place in state.lanes}
        await self._apply(state.changes, places)

    async def apply(self, changes: Changes) -> None:
        """Take over what changed; changes that were seen already do nothing."""
        if changes.version > self.seen:
            await self._apply(changes, {})

    async def _apply(self, changes: Changes, places: dict[int, LanePosition]) -> None:
        subscriptions = [each for each in changes.subscriptions if self._is_mine(each.no)]
        for tenant_no in {subscription.tenant_no for subscription in subscriptions}:
            await self.tenant(tenant_no)
        if changes.version < self.seen:
            return
        self.seen = changes.version
        versions: dict[int, list[DefinitionVersion]] = {}
        for version in changes.definitions:
            versions.setdefault(version.subscription_no, []).append(version)
        for subscription in subscriptions:
            self._put(subscription, versions.get(subscription.no, []), places.get(subscription.no))
        for subscription_no in filter(self._is_mine, changes.requeued):
            self._requeued(subscription_no)

    def _is_mine(self, subscription_no: int) -> bool:
        return slice_of(subscription_no, self._storage.slices) == self._slice

    def _requeued(self, subscription_no: int) -> None:
        lane = self.lanes.get(subscription_no)
        if lane is not None:
            lane.requeued()
            self._events.changed(lane)
        self._events.requeued(subscription_no)

    def _put(
        self, subscription: Subscription, versions: Sequence[DefinitionVersion], place: LanePosition | None
    ) -> None:
        lane = self.lanes.get(subscription.no)
        if lane is None:
            if subscription.state is SubscriptionState.DELETED and place is None:
                return  # with a place, its end was cut short: what it left waiting is still to be settled
            lane = self._make(subscription, versions, place)
        elif _needs_rest(lane.subscription, subscription):
            self.halt(lane)
            lane.stopped = True
            self._replaced[lane.no] = (subscription, versions)
        else:
            self._change(lane, subscription, versions)
        self._events.changed(lane)

    def _make(
        self, subscription: Subscription, versions: Sequence[DefinitionVersion], place: LanePosition | None
    ) -> Lane:
        fresh = place is None
        place = place or self._first_place(subscription)
        kind = Lane if subscription.definition.order is Order.NONE else OrderedLane
        lane = kind(subscription, versions, place, self.tail, self._composer, self._memory)
        if isinstance(lane, OrderedLane):
            lane.start_ordered(self._events.park)
            lane.stale = place.waiting > 0
        self.lanes[lane.no] = lane
        if fresh:  # without a state, retention keeps and the next owner reads everything from its start on
            self._recorder.touch(lane)
        if lane.stopped:
            self.halt(lane)
        else:
            self._enter(lane)
        return lane

    def _first_place(self, subscription: Subscription) -> LanePosition:
        """A subscription that is new: live from the next event on, or behind if it starts in the past."""
        live = subscription.start_after >= self.tail
        return LanePosition(LaneState(subscription.no, subscription.start_after, 0, live))

    def _enter(self, lane: Lane) -> None:
        """Let the lane work: feed it from memory if it is caught up."""
        lane.pass_over(lane.subscription.skip_to)
        lane.fed = lane.read_to >= self.tail
        if not lane.fed:
            self.detach(lane)
        self.index.put(lane, lane.subscription.tenant_no, lane.patterns(self.tail))

    def _change(self, lane: Lane, subscription: Subscription, versions: Sequence[DefinitionVersion]) -> None:
        self._replaced.pop(lane.no, None)
        was_stopped = lane.stopped
        lane.configure(subscription, versions)
        if lane.stopped:
            self.halt(lane)
        elif was_stopped:
            lane.requeued()
            self._enter(lane)
        else:
            self.index.put(lane, subscription.tenant_no, lane.patterns(self.tail))

    # --- lanes that leave the common way

    def detach(self, lane: Lane) -> None:
        """Give the lane a cursor of its own, so that it holds the watermark no longer."""
        for job in lane.holds():
            job.held = False
            self._watermark.release(job.event.position)
        lane.live = False
        self._recorder.touch(lane)

    def touch(self, lane: Lane) -> None:
        """Have the lane's state written."""
        self._recorder.touch(lane)

    def spill(self, lane: Lane) -> None:
        """Let the lane read the log at its own pace."""
        self.detach(lane)
        lane.spill(self.tail)

    def feed_no_more(self, lane: Lane, position: Position) -> None:
        """Let a lane that is full work off what it has, and read from ``position`` on when it has room."""
        self.detach(lane)
        lane.feed_no_more(position)

    def halt(self, lane: Lane) -> None:
        """Stop the lane: only what is under way comes to its end."""
        self.index.remove(lane.no)
        lane.drop_retries()
        self.spill(lane)

    def is_leaving(self, lane: Lane) -> bool:
        """Whether something is to be done once the lane has come to rest."""
        return lane.no in self._replaced or lane.subscription.state is SubscriptionState.DELETED

    def settle_down(self, lane: Lane) -> bool:
        """Replace the lane, or say that it is to be removed, if it has come to rest."""
        if not (lane.stopped and lane.idle and self.is_leaving(lane)):
            return False
        lane.spill(self.tail)
        replaced = self._replaced.pop(lane.no, None)
        if replaced is not None:
            del self.lanes[lane.no]
            state = lane.state()
            place = LanePosition(state, lane.recorded_ahead, 1, 1)
            successor = self._make(*replaced, place)
            successor.inherit(lane)
            self._events.changed(successor)
            return True
        return lane.subscription.state is SubscriptionState.DELETED

    def remove(self, lane: Lane) -> None:
        """Forget a deleted subscription's lane."""
        self.lanes.pop(lane.no, None)
        log.info("lane_removed", subscription=lane.subscription.id)


def _needs_rest(old: Subscription, new: Subscription) -> bool:
    """Whether the change waits until what is under way is recorded. A skip does: if events behind it were numbered
    while some before it are not recorded, a new owner would skip those too and number the later ones anew."""
    return old.definition.order is not new.definition.order or old.skip_to < new.skip_to


def is_expired(event: Event, horizon: Millis) -> bool:
    """Whether the event is past its retention: it is settled as expired instead of being sent."""
    return event.received_at < horizon
