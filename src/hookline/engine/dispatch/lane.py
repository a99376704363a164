"""The running side of a subscription: what it has matched, what is under way, what waits.

A lane is *fed* from memory while it is caught up; when its queue is full it *spills*, and reads pages of the log at its
own pace until it has caught up again. A lane is *live* while it shares its shard's watermark; a lane that is not has a
cursor of its own in storage. Nothing in here waits or does I/O.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from hookline.core.lane import Breaker, TokenBucket, Window
from hookline.core.matching import Matcher, Payload
from hookline.core.model import (
    DefinitionVersion,
    DeliveryState,
    Event,
    LaneState,
    Millis,
    Position,
    Subscription,
    SubscriptionState,
    Unsettled,
)
from hookline.engine.compose import Composer
from hookline.ports import LanePosition

QUEUE_LIMIT = 1000
"""Matched events that a lane keeps in memory before it is fed no more."""
QUEUE_BYTES = 8 << 20
"""Bytes of their payloads, likewise."""
JOB_BYTES = 400
"""What a delivery in memory takes beside the payload, which several lanes may share."""
LOW_WATER = 100
"""A lane that reads the log asks for the next page when fewer than this many are queued."""


class Memory:
    """The bytes of events that all lanes of a worker have in memory: matched, under way, or to be tried again."""

    __slots__ = ("limit", "used")

    def __init__(self, limit: int = 64 << 20) -> None:
        self.limit = limit
        self.used = 0

    @property
    def is_full(self) -> bool:
        """Whether only a lane that has nothing to do may take more."""
        return self.used >= self.limit


class Job:
    """One delivery on its way through a lane.

    ``waiting`` tells a delivery from the retry set, below the cursor, from a new one. ``held`` says that it holds the
    watermark back. ``recorded`` is set when the batch that writes its outcome is built.
    """

    __slots__ = (
        "accepted_at", "attempts", "bytes", "due_at", "event", "first_at", "held", "lane", "recorded", "runs",
        "sequence", "started", "waiting",
    )  # fmt: skip

    def __init__(self, lane: Lane, event: Event, sequence: int, now: float) -> None:
        self.lane = lane
        self.event = event
        self.sequence = sequence
        self.accepted_at = now
        self.bytes = 0
        self.attempts = 0
        self.runs = 0
        self.first_at: Millis = 0
        self.due_at: Millis = 0
        self.waiting = False
        self.held = False
        self.recorded = False
        self.started = False

    @classmethod
    def again(cls, lane: Lane, event: Event, row: Unsettled, now: float) -> Job:
        """The next attempt of a delivery that waits in the retry set."""
        job = cls(lane, event, row.sequence, now)
        job.attempts, job.runs, job.first_at, job.waiting = row.attempts, row.runs, row.first_at, True
        return job


class Lane:
    """A subscription at work, without order among its deliveries. ``OrderedLane`` adds order."""

    def __init__(
        self,
        subscription: Subscription,
        versions: Sequence[DefinitionVersion],
        place: LanePosition,
        watermark: Position,
        make_composer: Callable[[Subscription], Composer],
        memory: Memory,
    ) -> None:
        state = place.state
        self.no = subscription.no
        self.subscription = subscription
        self.in_flight = 0
        self.fed = False
        self.live = state.live
        self.read_to = max(state.cursor, watermark) if state.live else state.cursor
        self.sequence = state.sequence
        self.failing_since = state.failing_since
        self.warned_at = state.warned_at
        self.next_due = place.next_due
        self.retries: deque[Job] = deque()
        self.retrying: set[Position] = set()
        self.throttled_until = 0.0
        self.is_ready = False
        self.is_reading = False
        self.stale = False
        """Whether the retry set must be read before the lane goes on."""
        self.unrecorded = 0
        self.generation = 0
        """Rises with each change of the retry set, so that a slow read of it can be told from a current one."""
        self.bytes = 0
        """Of the events that it has in memory."""
        self._memory = memory
        self._queue: deque[Job] = deque()
        self._pending: deque[Job] = deque()
        self._recorded = set(place.recorded)
        self._passed: tuple[Position, Position] = (0, 0)
        self._make_composer = make_composer
        self._composer: Composer | None = None
        self.configure(subscription, versions)

    # --- configuration

    def configure(self, subscription: Subscription, versions: Sequence[DefinitionVersion]) -> None:
        """Take over a changed subscription: retries use the new target at once, matching follows the versions."""
        definition = subscription.definition
        previous = self.subscription.definition
        fresh = not hasattr(self, "window")
        if fresh or previous.max_in_flight != definition.max_in_flight:
            self.window = Window(definition.max_in_flight)
        if fresh or previous.rate_limit != definition.rate_limit:
            limit = definition.rate_limit
            self.bucket = TokenBucket(limit) if limit is not None else None
        if fresh or previous.breaker != definition.breaker or previous.url != definition.url:
            self.breaker = Breaker(definition.breaker)
        if previous.url != definition.url:
            self.throttled_until = 0.0
        self.subscription = subscription
        self.stopped = subscription.state is not SubscriptionState.ACTIVE
        self._composer = None
        self._versions = list(versions)
        self._matchers = [(version.matches_from, Matcher(version.definition)) for version in versions]
        self._newest_from, self._newest = self._matchers[-1]

    def inherit(self, old: Lane) -> None:
        """Go on under the limits of the lane that this one replaces, as if it were the same."""
        before, now = old.subscription.definition, self.subscription.definition
        if before.url == now.url:
            self.throttled_until = old.throttled_until
        if before.max_in_flight == now.max_in_flight:
            self.window = old.window
        if before.rate_limit == now.rate_limit:
            self.bucket = old.bucket
        if before.breaker == now.breaker and before.url == now.url:
            self.breaker = old.breaker

    def patterns(self, tail: Position) -> Iterable[str]:
        """Event patterns of all versions that are in force somewhere above ``tail``."""
        ends = [version.matches_from for version in self._versions[1:]]
        for index, version in enumerate(self._versions):
            if index >= len(ends) or ends[index] > tail + 1:
                yield from version.definition.events

    @property
    def composer(self) -> Composer:
        """Made when first needed: most lanes of a large installation are idle."""
        if self._composer is None:
            self._composer = self._make_composer(self.subscription)
        return self._composer

    # --- matching

    def matches(self, event: Event, payload: Payload) -> bool:
        """Whether the definition in force at the event's position wants it. Positions up to ``read_to`` are done."""
        position = event.position
        if position <= self.read_to or self._passed[0] < position <= self._passed[1]:
            return False
        if position >= self._newest_from:
            return self._newest.matches(event, payload)
        matcher = self._matcher_at(position)
        return matcher is not None and matcher.matches(event, payload)

    def _matcher_at(self, position: Position) -> Matcher | None:
        found = None
        for start, matcher in self._matchers:
            if start > position:
                break
            found = matcher
        return found

    def accept(self, event: Event, now: float) -> Job | None:
        """Give a matched event its sequence number and queue it. None if its outcome is recorded already."""
        self.sequence += 1
        self.read_to = event.position
        job = Job(self, event, self.sequence, now)
        if self._recorded and event.position in self._recorded:
            self._recorded.discard(event.position)
            job.recorded = True
            if self._pending:
                self._pending.append(job)
            return None
        self._pending.append(job)
        self._queue.append(job)
        self._keep(job)
        return job

    def _keep(self, job: Job) -> None:
        job.bytes = size = len(job.event.data) + JOB_BYTES
        self.bytes += size
        self._memory.used += size

    def let_go(self, job: Job) -> None:
        """The event of this job is no longer kept for it."""
        self.bytes -= job.bytes
        self._memory.used -= job.bytes
        job.bytes = 0

    def disown(self) -> None:
        """Its shard was lost: what it holds, and lets go as late answers come in, counts no longer."""
        self._memory.used -= self.bytes
        self._memory = Memory()

    @property
    def queued(self) -> int:
        """Matched events in memory that were not started."""
        return len(self._queue)

    @property
    def is_full(self) -> bool:
        """Whether it can take no more events into memory for now."""
        return len(self._queue) >= QUEUE_LIMIT or self.bytes >= QUEUE_BYTES or self._is_crowded

    @property
    def _is_crowded(self) -> bool:
        return self._memory.used >= self._memory.limit and bool(self._queue or self.in_flight)

    def feed_no_more(self, position: Position) -> None:
        """Go on with what is queued, and read the log from ``position`` on later."""
        self.read_to = max(self.read_to, position - 1)
        self.fed = False

    def spill(self, tail: Position) -> None:
        """Forget what is queued and not started, to read it from the log again. ``tail`` is how far it was fed."""
        if self.fed:
            self.read_to = max(self.read_to, tail)
        pending = self._pending
        while pending and (pending[-1].recorded or not pending[-1].started):
            job = pending.pop()
            self.let_go(job)
            self.read_to, self.sequence = job.event.position - 1, job.sequence - 1
            if job.recorded:
                self._recorded.add(job.event.position)
        kept = set(pending)  # those before one that was started, as the order of keys can have it
        self._queue = deque(job for job in self._queue if job in kept)
        self.fed = False

    def withdraw(self, job: Job) -> None:
        """Take back the job that was accepted last: it is settled without being sent."""
        self._queue.pop()
        self.let_go(job)
        job.started = True

    def was_read(self, position: Position) -> None:
        """Everything up to ``position`` was looked at."""
        self.read_to = max(self.read_to, position)

    def pass_over(self, skip_to: Position) -> None:
        """Match nothing up to ``skip_to``, except that what is recorded already keeps its number, and what lies
        before it too: up to there the log is still read. Only for a lane at rest."""
        numbered = max((each for each in self._recorded if each <= skip_to), default=0)
        if numbered > self.read_to:
            self._passed = (numbered, skip_to)
        else:
            self.read_to = max(self.read_to, skip_to)

    # --- choosing what to send

    def wait(self, now: float) -> float:
        """Seconds until breaker, rate limit and the endpoint's own ``Retry-After`` allow a request (0: now)."""
        wait = self.breaker.wait(now)
        if self.bucket is not None:
            wait = max(wait, self.bucket.wait(now))
        if self.throttled_until > now:
            wait = max(wait, self.throttled_until - now)
        return wait

    @property
    def is_halted(self) -> bool:
        """Whether it is stopped and reads nothing. A lane just disabled is fed until the roster has heard of it."""
        return self.stopped and not self.fed

    @property
    def has_work(self) -> bool:
        """Whether something could start if limits allow."""
        return bool(self.retries or self._queue)

    def next(self) -> Job | None:
        """The job to start now; retries come first. Limits are the caller's business."""
        if self.retries:
            return self.retries.popleft()
        return self._queue.popleft() if self._queue else None

    def started(self, job: Job, now: float) -> None:
        """Count a request that goes out."""
        job.started = True
        self.in_flight += 1
        self.breaker.started()
        if self.bucket is not None:
            self.bucket.take(now)

    def wants_page(self) -> bool:
        """Whether it should read on in the log."""
        return not self.fed and not self.stopped and len(self._queue) < LOW_WATER and not self.is_full

    def known_due(self, now: Millis) -> list[Unsettled] | None:
        """Waiting deliveries to try now, where the lane knows them itself; None: ask the storage."""
        return None

    def try_again(self, job: Job) -> None:
        """A waiting delivery, marked as ``retrying``, was fetched to be sent."""
        self.retries.append(job)
        self._keep(job)

    # --- outcomes

    def settled(self, job: Job, state: DeliveryState) -> None:
        """The delivery came to its end; to be recorded."""
        self.let_go(job)
        self.generation += 1
        self.unrecorded += 1

    def unsettled(self, job: Job, row: Unsettled) -> None:
        """The delivery will be tried again; to be recorded."""
        self.let_go(job)
        self.generation += 1
        self.unrecorded += 1
        job.due_at = row.due_at

    def recorded(self, job: Job) -> None:
        """The outcome is written."""
        self.unrecorded -= 1
        if job.waiting:
            self.retrying.discard(job.event.position)
        if job.due_at:
            self.note_due(job.due_at)

    def drop_retries(self) -> None:
        """Forget what was fetched to be tried again; it still waits in the storage."""
        for job in self.retries:
            self.let_go(job)
            self.retrying.discard(job.event.position)
        self.retries.clear()

    def note_due(self, due_at: Millis) -> None:
        """A waiting delivery is due then."""
        self.next_due = min(self.next_due, due_at) if self.next_due else due_at

    def requeued(self) -> None:
        """Deliveries were put back to the retry set from outside: look there now."""
        self.note_due(1)

    def mark_recorded(self, job: Job) -> None:
        """The outcome is in the batch that is about to be written."""
        job.recorded = True
        pending = self._pending
        while pending and pending[0].recorded:
            pending.popleft()

    # --- what a new owner needs

    @property
    def cursor(self) -> Position:
        """Everything matched up to here is recorded."""
        return self._pending[0].event.position - 1 if self._pending else self.read_to

    @property
    def oldest_accepted(self) -> float | None:
        """When the oldest event that is not recorded came in (monotonic seconds)."""
        return self._pending[0].accepted_at if self._pending else None

    @property
    def idle(self) -> bool:
        """Whether nothing is under way or unrecorded. Events that were not started may be queued."""
        return not self.in_flight and not self.retrying and not self.unrecorded

    @property
    def recorded_ahead(self) -> frozenset[Position]:
        """Positions above ``read_to`` whose outcomes are recorded already."""
        return frozenset(self._recorded)

    def holds(self) -> list[Job]:
        """The unrecorded jobs that hold the watermark."""
        return [job for job in self._pending if job.held and not job.recorded]

    def state(self) -> LaneState:
        """To be written with the batch that is being built."""
        pending = self._pending
        return LaneState(
            self.no,
            self.cursor,
            pending[0].sequence - 1 if pending else self.sequence,
            self.live,
            any(job.recorded for job in pending) or bool(self._recorded),
            self.failing_since,
            self.warned_at,
        )
