"""The records of delivery in memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from hookline.core.errors import Conflict, NotFound
from hookline.core.model import (
    DeliveryState,
    LaneState,
    Millis,
    Order,
    Position,
    Replay,
    ReplayState,
    SubscriptionState,
    Unsettled,
)
from hookline.ports import LanePosition, Lease, Node, Progress, Record, ShardState
from hookline.storage.common import (
    attempt_bytes,
    cancelled,
    day_of,
    effective_cursor,
    hurried,
    sent_again,
    settled_as,
    staggered,
    stepped,
)
from hookline.storage.memory.state import MemoryState, Slice


class MemoryDeliveries(MemoryState):
    """Fills ``DeliveryStore``."""

    async def beat(self, node: Node, now: Millis, seconds: float) -> list[Node]:
        self._nodes[node.id] = replace(node, seen_at=now)
        return await self.nodes(now, seconds)

    async def nodes(self, now: Millis, seconds: float) -> list[Node]:
        oldest = now - int(seconds * 1000)
        return [each for _, each in sorted(self._nodes.items()) if each.seen_at >= oldest]

    async def leave(self, node_id: str) -> None:
        self._nodes.pop(node_id, None)

    async def leases(self, now: Millis) -> list[Lease]:
        return [
            Lease(
                shard.no,
                (each.expires_at > now and each.owner) or "",
                each.epoch,
                each.expires_at,
                number,
            )
            for shard in self._shards
            for number, each in enumerate(shard.slices)
        ]

    async def progress(self, now: Millis) -> list[Progress]:
        found: list[Progress] = []
        for lease in await self.leases(now):
            shard = self._shards[lease.shard]
            waiting = {
                no: each
                for no, each in self._unsettled.items()
                if self._slice_of(no) is shard.slices[lease.slice]
            }
            due = [
                each.due_at
                for no, positions in waiting.items()
                if self._subscriptions[no].state is SubscriptionState.ACTIVE
                for each in positions.values()
            ]
            watermark = shard.slices[lease.slice].watermark
            count, first = sum(map(len, waiting.values())), min(due, default=0)
            found.append(Progress(lease.shard, lease.slice, lease.owner, shard.head, watermark, count, first))
        return found

    async def lease(
        self, shard: int, owner: str, now: Millis, seconds: float, slice: int = 0
    ) -> Lease | None:
        held = self._shards[shard].slices[slice]
        if held.owner != owner:
            if held.owner is not None and held.expires_at > now:
                return None
            held.epoch += 1
            held.owner = owner
            held.recorded = 0
        held.expires_at = now + int(seconds * 1000)
        return Lease(shard, owner, held.epoch, held.expires_at, slice)

    async def renew(self, held: Sequence[Lease], now: Millis, seconds: float) -> list[Lease]:
        renewed: list[Lease] = []
        for lease in held:
            mine = self._shards[lease.shard].slices[lease.slice]
            if (mine.owner, mine.epoch) == (lease.owner, lease.epoch):
                mine.expires_at = now + int(seconds * 1000)
                renewed.append(replace(lease, expires_at=mine.expires_at))
        return renewed

    async def release(self, lease: Lease) -> None:
        held = self._shards[lease.shard].slices[lease.slice]
        if (held.owner, held.epoch) == (lease.owner, lease.epoch):
            held.owner = None
            held.expires_at = 0

    async def load_shard(self, shard: int, epoch: int, slice: int = 0) -> ShardState:
        held = self._fenced(shard, slice, epoch)
        changes = self._changes(shard, 0, slice)
        numbers = {subscription.no for subscription in changes.subscriptions}
        lanes = [self._lanes[no] for no in sorted(numbers & self._lanes.keys())]
        running = [
            replay
            for replay in self._replays.values()
            if replay.state is ReplayState.RUNNING and replay.subscription_no in numbers
        ]
        return ShardState(
            watermark=held.watermark,
            head=self._shards[shard].head,
            changes=changes,
            lanes=[self._lane_position(lane, held) for lane in lanes],
            replays=running,
        )

    def _lane_position(self, lane: LaneState, held: Slice) -> LanePosition:
        no = lane.subscription_no
        cursor = effective_cursor(lane, held.watermark)
        waiting = self._unsettled[no].values()
        by_key = self._subscriptions[no].definition.order is Order.KEY
        keys = {each.key for each in waiting if each.key is not None} if by_key else set[str]()
        return LanePosition(
            state=lane,
            recorded=frozenset(
                position
                for recorded in (self._settled[no], self._unsettled[no])
                for position in recorded
                if position > cursor
            ),
            waiting=len(waiting),
            next_due=min((each.due_at for each in waiting), default=0),
            blocked_keys=sorted(keys),
        )

    async def record(self, batch: Record) -> None:
        held = self._fenced(batch.shard, batch.slice, batch.epoch)
        if batch.number and batch.number <= held.recorded:
            return
        self._check_known(batch)
        held.recorded = batch.number or held.recorded
        self._count_attempts(batch)
        for attempt in batch.attempts:
            self._attempts[attempt.subscription_no, attempt.position][attempt.number] = attempt
        for waiting in batch.unsettled:
            self._put_back(waiting)
        for settled in batch.settled:
            self._unsettled[settled.subscription_no].pop(settled.position, None)
            self._settled[settled.subscription_no][settled.position] = settled
        self._lanes.update((lane.subscription_no, lane) for lane in batch.lanes)
        held.watermark = batch.watermark
        for no, reason in batch.disabled:
            self._disable(no, reason, batch.now)
        for event in batch.operational:
            self._append(event, batch.now)

    def _check_known(self, batch: Record) -> None:
        for attempt in batch.attempts:
            self._subscription(attempt.subscription_no)

    def _count_attempts(self, batch: Record) -> None:
        day = day_of(batch.now)
        for attempt in batch.attempts:
            tenant_no = self._subscriptions[attempt.subscription_no].tenant_no
            self._usage[tenant_no, day].update(attempts=1, attempt_bytes=attempt_bytes([attempt]))

    def _put_back(self, waiting: Unsettled) -> None:
        self._settled[waiting.subscription_no].pop(waiting.position, None)
        self._unsettled[waiting.subscription_no][waiting.position] = waiting

    def _disable(self, no: int, reason: str, now: Millis) -> None:
        subscription = self._subscriptions.get(no)
        if subscription is not None and subscription.state is SubscriptionState.ACTIVE:
            state = SubscriptionState.DISABLED
            self._change(
                replace(subscription, state=state, state_reason=reason, state_at=now, updated_at=now)
            )

    async def due(self, subscription_no: int, now: Millis, limit: int) -> list[Unsettled]:
        ready = (each for each in self._unsettled[subscription_no].values() if each.due_at <= now)
        return sorted(ready, key=lambda each: (each.due_at, each.position))[:limit]

    async def waiting(self, subscription_no: int) -> tuple[int, Millis]:
        waiting = self._unsettled[subscription_no].values()
        return len(waiting), min((each.due_at for each in waiting), default=0)

    async def resend(self, subscription_no: int, positions: Sequence[Position], now: Millis) -> int:
        self._subscription(subscription_no)
        count = sum([self._resend(subscription_no, position, now) for position in set(positions)])
        if count:
            self._requeue(subscription_no)
        return count

    def _resend(self, subscription_no: int, position: Position, now: Millis) -> bool:
        events = self._shards[self._subscription(subscription_no).shard].events
        waiting = self._unsettled[subscription_no].get(position)
        settled = self._settled[subscription_no].get(position)
        if waiting is not None:
            self._put_back(hurried(waiting, now))
        elif settled is not None and position in events:
            self._put_back(sent_again(settled, events[position].key, now))
        else:
            return False
        return True

    async def drop_unsettled(self, subscription_no: int, now: Millis, state: DeliveryState) -> int:
        waiting = self._unsettled.pop(subscription_no, {})
        dropped = {position: settled_as(each, state, now) for position, each in waiting.items()}
        self._settled[subscription_no].update(dropped)
        return len(dropped)

    # --- replays -------------------------------------------------------------------------------------

    async def create_replay(self, replay: Replay) -> None:
        self._subscription(replay.subscription_no)
        if replay.id in self._replays:
            raise Conflict("a replay job with this id exists")
        self._replays[replay.id] = replay
        self._requeue(replay.subscription_no)

    async def step_replay(
        self, replay_id: str, limit: int, due_at: Millis, interval: float, now: Millis
    ) -> Replay:
        replay = await self.get_replay(replay_id)
        if replay.state is not ReplayState.RUNNING:
            return replay
        after = max(replay.after, replay.progress)
        found = self._settled_range(replay.subscription_no, after, replay.until, replay.states)
        moved = found[:limit]
        events = self._shards[self._subscription(replay.subscription_no).shard].events
        for settled, due in zip(moved, staggered(due_at, interval, len(moved)), strict=True):
            self._put_back(sent_again(settled, events[settled.position].key, due))
        positions = [settled.position for settled in moved]
        return self._keep(stepped(replay, positions, len(found) > limit, now))

    async def cancel_replay(self, replay_id: str, now: Millis) -> Replay:
        replay = await self.get_replay(replay_id)
        stopped = cancelled(replay, now)
        if stopped is not replay:
            self._requeue(replay.subscription_no)
        return self._keep(stopped)

    def _keep(self, replay: Replay) -> Replay:
        self._replays[replay.id] = replay
        return replay

    async def get_replay(self, replay_id: str) -> Replay:
        try:
            return self._replays[replay_id]
        except KeyError:
            raise NotFound("there is no such replay job") from None

    async def list_replays(self, subscription_no: int, limit: int) -> list[Replay]:
        newest = reversed(self._replays.values())
        mine: Iterable[Replay] = (each for each in newest if each.subscription_no == subscription_no)
        return [replay for _, replay in zip(range(limit), mine, strict=False)]

    async def count_settled(
        self, subscription_no: int, after: Position, until: Position, states: Sequence[DeliveryState]
    ) -> int:
        return len(self._settled_range(subscription_no, after, until, states))
