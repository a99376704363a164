"""Bring events to the lanes: from the tail of the log to those that are caught up, in pages to those behind, and
due deliveries out of the retry set."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice

from hookline.core.errors import Overloaded, StorageUnavailable
from hookline.core.lane import BreakerState
from hookline.core.matching import Payload
from hookline.core.model import DeliveryState, Event, Millis, Position, SubscriptionState, Tenant, Unsettled
from hookline.engine.dispatch.delivery import Deliverer
from hookline.engine.dispatch.lane import Job, Lane
from hookline.engine.dispatch.ordered import PARKED_DUE, WAITING_LIMIT, OrderedLane
from hookline.engine.dispatch.roster import Roster, is_expired
from hookline.engine.dispatch.turns import Turns
from hookline.engine.dispatch.watermark import Watermark
from hookline.observe import Metrics, log
from hookline.ports import Bells, Changes, Clock, LogPage, Storage

TAIL_PAGE = 500
"""Events read at once behind the publishers."""
LANE_PAGE = 250
"""Events read at once for a lane that is behind."""
READERS = 4
"""Lanes that are read for at the same time."""
RETRY_PAGE = 64
"""Due deliveries fetched at once for a lane."""
RECENT = 4096
"""Events behind the tail that are kept, so that a lane that fell a little behind need not read them again."""
RECENT_BYTES = 16 << 20
RECENT_AGE: Millis = 60_000
"""Milliseconds for which they are kept: retention must find no event here that it removed from the log."""
POLL = 1.0
"""Seconds after which the log is looked at even without a wake-up."""
GATHER = 0.002
"""Seconds to let events gather at the tail when several came at once: a read costs as much as many of its events."""
CROWD = 4
STORAGE_PAUSE = 0.5
"""Seconds between tries while the storage does not answer."""
EXPIRE_PAUSE = 0.05
"""Seconds for a page of what was settled as expired to be written, before the next one is read."""
LONGEST_TIMER = 3600.0
DAY: Millis = 86_400_000


class Feeder:
    """Reads for all lanes of a shard. ``consider`` is called whenever a lane may have something to do."""

    def __init__(
        self,
        shard: int,
        storage: Storage,
        bells: Bells,
        clock: Clock,
        turns: Turns,
        metrics: Metrics,
        watermark: Watermark,
        retention_days: Callable[[Tenant], int],
    ) -> None:
        self._shard = shard
        self._storage = storage
        self._bell = bells.listen(shard)
        self._clock = clock
        self._turns = turns
        self._metrics = metrics
        self._watermark = watermark
        self._retention_days = retention_days
        self._to_read: deque[Lane] = deque()
        self._reads = asyncio.Semaphore(0)
        self._timers: dict[int, tuple[float, asyncio.TimerHandle]] = {}
        self._roster: Roster
        self._deliverer: Deliverer
        self._closed = False
        self._held = False
        self._recent = _Recent()
        self.head: Position = 0

    def connect(self, roster: Roster, deliverer: Deliverer) -> None:
        """Must be called once, before anything else."""
        self._roster = roster
        self._deliverer = deliverer

    # --- what a lane can do now

    def consider(self, lane: Lane) -> None:
        """Look what the lane can do now, and see to it: read, wait for a time, or take its turn."""
        if self._closed or self._held:
            return
        if lane.stopped or lane.stale:
            if self._has_to_settle(lane):
                self._read_soon(lane)
            return
        wait = lane.wait(self._clock.monotonic())
        if wait > 0:
            if lane.fed and lane.breaker.state is not BreakerState.CLOSED:
                self._roster.spill(lane)
            self._consider_later(lane, wait)
            return
        if lane.wants_page() or self._is_due(lane):
            self._read_soon(lane)
        elif lane.next_due and not lane.retries:
            self._consider_later(lane, (lane.next_due - self._clock.now()) / 1000)
        if lane.has_work and lane.in_flight < lane.window.size:
            self._turns.ready(lane)

    def _has_to_settle(self, lane: Lane) -> bool:
        return not lane.unrecorded and (lane.stale or (lane.idle and self._roster.is_leaving(lane)))

    def _is_due(self, lane: Lane) -> bool:
        return bool(lane.next_due) and not lane.retries and lane.next_due <= self._clock.now()

    def _read_soon(self, lane: Lane) -> None:
        if not lane.is_reading:
            lane.is_reading = True
            self._to_read.append(lane)
            self._reads.release()

    def _consider_later(self, lane: Lane, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        when = loop.time() + min(max(seconds, 0.001), LONGEST_TIMER)
        known = self._timers.get(lane.no)
        if known is not None:
            due, timer = known  # uvloop's handles do not always know their time
            if due <= when:
                return
            timer.cancel()
        self._timers[lane.no] = when, loop.call_at(when, self._timer_fired, lane.no)

    def _timer_fired(self, subscription_no: int) -> None:
        """By number: the lane that asked may have been replaced, and its successor relies on the same timer."""
        self._timers.pop(subscription_no, None)
        lane = self._roster.lanes.get(subscription_no)
        if lane is not None:
            self.consider(lane)

    def hold(self) -> None:
        """Let no lane start anything until ``go_on``."""
        self._held = True

    def go_on(self) -> None:
        """The lease is renewed: look at all lanes, if they were held."""
        if self._held:
            self._held = False
            for lane in list(self._roster.lanes.values()):
                self.consider(lane)

    def close(self) -> None:
        """Start nothing more."""
        self._closed = True
        self._bell.close()
        for _, timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    # --- the tail

    async def follow(self) -> None:
        """Hand each event of the log, as it is appended, to the lanes that are caught up."""
        roster = self._roster
        while True:
            try:
                page = await self._storage.read_log(self._shard, roster.tail, TAIL_PAGE, roster.seen)
                await roster.apply(page.changes)
            except (StorageUnavailable, Overloaded) as error:
                log.warning("read_delayed", shard=self._shard, reason=error.detail)
                await asyncio.sleep(STORAGE_PAUSE)
                continue
            self._hand_out(page)
            if page.last >= page.head:
                if len(page.events) > CROWD:
                    await asyncio.sleep(GATHER)
                await self._bell.wait(POLL)

    def _hand_out(self, page: LogPage) -> None:
        now = self._clock.monotonic()
        find = self._roster.index.find
        for event in page.events:
            lanes = find(event.tenant_no, event.type)
            if lanes:
                self._offer(event, lanes, now)
        self._roster.tail = max(self._roster.tail, page.last)
        self.head = page.head
        self._recent.add(page)

    def _offer(self, event: Event, lanes: Sequence[Lane], now: float) -> None:
        payload = Payload(event.data)
        self._roster.tail = event.position - 1
        for lane in lanes:
            if lane.fed and lane.matches(event, payload):
                if lane.is_full:
                    self._roster.feed_no_more(lane, event.position)
                else:
                    self._feed(lane, event, now)

    def _feed(self, lane: Lane, event: Event, now: float) -> None:
        job = lane.accept(event, now)
        if job is None:  # recorded already: its number must be written before the watermark passes it
            self._roster.touch(lane)
            return
        self._metrics.matched.inc()
        if lane.live:
            job.held = True
            self._watermark.hold(event.position)
        if not lane.is_ready:
            self.consider(lane)

    # --- lanes that need to be read for

    async def read_for_lanes(self) -> None:
        """Serve lanes that asked for a page or for their due deliveries, for ever; several of these run at once."""
        while True:
            await self._reads.acquire()
            lane = self._to_read.popleft()
            try:
                await self._read(lane)
            except (StorageUnavailable, Overloaded) as error:
                log.warning("read_delayed", shard=self._shard, reason=error.detail)
                lane.requeued()
                await asyncio.sleep(STORAGE_PAUSE)
            finally:
                lane.is_reading = False
            if self._roster.lanes.get(lane.no) is lane:
                self.consider(lane)

    async def _read(self, lane: Lane) -> None:
        if isinstance(lane, OrderedLane) and lane.stale and not lane.unrecorded:
            await self._refresh(lane)
        if self._roster.settle_down(lane):
            await self._bury(lane)
        elif not lane.stopped and not lane.stale:
            if self._is_due(lane):
                await self._fetch_due(lane)
            if lane.wants_page():
                await self._read_page(lane)

    async def _bury(self, lane: Lane) -> None:
        if lane.subscription.state is SubscriptionState.DELETED:
            await self._storage.drop_unsettled(lane.no, self._clock.now(), DeliveryState.EXPIRED)
            self._roster.remove(lane)

    async def _refresh(self, lane: OrderedLane) -> None:
        """Read what waits in the retry set, unless it changes under the reading; then it is tried again."""
        generation = lane.generation
        rows = await self._storage.due(lane.no, PARKED_DUE, WAITING_LIMIT)
        if lane.generation == generation and not lane.unrecorded:
            lane.load_waiting(rows)

    async def _fetch_due(self, lane: Lane) -> None:
        now = self._clock.now()
        rows = lane.known_due(now)
        if rows is None:
            rows = await self._due_rows(lane, now)
        rows = [row for row in rows if row.position not in lane.retrying]
        if not rows or lane.stopped:
            return
        events = await self._storage.read_events(self._shard, sorted(row.position for row in rows))
        if lane.stopped:
            return
        found = {event.position: event for event in events}
        for row in rows:
            self._try_again(lane, row, found.get(row.position))

    async def _due_rows(self, lane: Lane, now: Millis) -> list[Unsettled]:
        """The due rows that are not under way; sets when the next one is due."""
        busy = frozenset(lane.retrying)
        limit = len(busy) + RETRY_PAGE
        lane.next_due = 0
        rows = await self._storage.due(lane.no, PARKED_DUE, limit)
        free = [row for row in rows if row.position not in busy]
        due = [row for row in free if row.due_at <= now or row.due_at == PARKED_DUE]
        later = [row.due_at for row in free if row.due_at > now and row.due_at != PARKED_DUE]
        if later:
            lane.note_due(later[0])
        elif len(rows) == limit:
            lane.note_due(now)
        return due

    def _try_again(self, lane: Lane, row: Unsettled, event: Event | None) -> None:
        lane.retrying.add(row.position)
        if event is None:
            self._deliverer.lost(lane, row)
        else:
            lane.try_again(Job.again(lane, event, row, self._clock.monotonic()))

    async def _read_page(self, lane: Lane) -> None:
        start = lane.read_to
        tenant = await self._roster.tenant(lane.subscription.tenant_no)
        page = self._recent.page(start, tenant.no, self._clock.now())
        if page is None:
            page = await self._storage.read_log(self._shard, start, LANE_PAGE, self._roster.seen, tenant.no)
            await self._roster.apply(page.changes)
        if lane.fed or lane.stopped or lane.read_to != start:
            return
        self._take_page(lane, page, self._horizon(tenant))
        self._roster.touch(lane)

    def _take_page(self, lane: Lane, page: LogPage, horizon: Millis) -> None:
        now = self._clock.monotonic()
        tail = self._roster.tail
        for event in page.events:
            if event.position > tail:
                break
            if lane.matches(event, Payload(event.data)):
                job = lane.accept(event, now)
                if job is not None and is_expired(event, horizon):
                    lane.withdraw(job)
                    self._deliverer.expire(job)
                elif job is not None:
                    self._metrics.matched.inc()
        lane.was_read(min(page.last, tail))
        if lane.read_to >= tail:
            lane.fed = True

    def _horizon(self, tenant: Tenant) -> Millis:
        return self._clock.now() - self._retention_days(tenant) * DAY

    # --- retention of stopped lanes

    async def expire_stopped(self, tenant: Tenant) -> None:
        """Settle what stopped lanes of a tenant have not matched, or not delivered, and is past its retention, as
        expired. Else it would keep all later events of the tenant."""
        horizon = self._horizon(tenant)
        for lane in list(self._roster.lanes.values()):
            if lane.is_halted and lane.subscription.tenant_no == tenant.no:
                while await self._expire_page(lane, tenant, horizon):
                    pass
                while await self._expire_waiting(lane, horizon):
                    pass

    async def _expire_page(self, lane: Lane, tenant: Tenant, horizon: Millis) -> bool:
        start = lane.read_to
        page = await self._storage.read_log(self._shard, start, LANE_PAGE, self._roster.seen, tenant.no)
        if not lane.is_halted or lane.read_to != start:
            return False
        expired = [event for event in page.events if is_expired(event, horizon)]
        whole = len(expired) == len(page.events) and bool(expired)
        last = page.last if whole else (expired[-1].position if expired else start)
        self._take_page(lane, LogPage(expired, last, page.head, page.changes), horizon)
        lane.fed = False
        self._roster.touch(lane)
        return whole

    async def _expire_waiting(self, lane: Lane, horizon: Millis) -> bool:
        """Do so with a page of the retry set, the earliest due first; whether there may be more."""
        if lane.unrecorded:  # what is settled but not written would be read once more
            await asyncio.sleep(EXPIRE_PAUSE)
            return True
        rows = await self._storage.due(lane.no, PARKED_DUE, LANE_PAGE)
        events = await self._storage.read_events(self._shard, sorted(row.position for row in rows))
        if not (lane.is_halted and lane.idle and self._roster.lanes.get(lane.no) is lane):
            return False
        kept = {event.position for event in events if not is_expired(event, horizon)}
        old = [row for row in rows if row.position not in kept]
        for row in old:
            lane.retrying.add(row.position)
            self._deliverer.lost(lane, row)
        return len(rows) == LANE_PAGE and bool(old)


class _Recent:
    """The last events that the tail passed, in order and without holes."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._bytes = 0
        self._last: Position = 0

    def add(self, page: LogPage) -> None:
        """Take over what follows; start anew if something lies between."""
        events = self._events
        for event in page.events:
            if events and event.position != self._last + 1:
                events.clear()
                self._bytes = 0
            events.append(event)
            self._last = event.position
            self._bytes += len(event.data)
        while len(events) > RECENT or self._bytes > RECENT_BYTES:
            self._bytes -= len(events.popleft().data)

    def page(self, after: Position, tenant_no: int, now: Millis) -> LogPage | None:
        """What follows ``after``, for one tenant; None if that is not all in memory."""
        while self._events and self._events[0].received_at < now - RECENT_AGE:
            self._bytes -= len(self._events.popleft().data)
        if not self._events or not self._events[0].position <= after + 1 <= self._last:
            return None
        start = after + 1 - self._events[0].position
        events = list(islice(self._events, start, start + LANE_PAGE))
        own = [event for event in events if event.tenant_no == tenant_no]
        return LogPage(own, events[-1].position, self._last, Changes(0))
