"""A lane that keeps order: strict, or among events with the same key.

While a delivery of a key is under way, later ones of that key are held in memory. When it must be retried, the key is
*blocked*: later ones are parked in the retry set behind it, so the other keys go on and the cursor too. Strict order is
one key for all, and parks nothing: the lane stops reading instead.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from hookline.core.model import DeliveryState, Event, Millis, Order, Position, Unsettled
from hookline.engine.dispatch.lane import Job, Lane

PARK_LIMIT = 1000
"""Deliveries parked behind blocked keys before the lane stops reading."""
HOLD_LIMIT = 1000
"""Deliveries held in memory behind ones of the same key that are under way."""
WAITING_LIMIT = 10_000
"""Waiting deliveries that the lane keeps in memory, parked or not. While there are more, it only works them off, and
those beyond the limit may be overtaken by ones that are due sooner."""
PARKED_DUE: Millis = 1 << 53
"""The due time of a parked delivery: when the one before it is settled, not at any time."""


class OrderedLane(Lane):
    """See the module. ``park`` is called with each delivery that must be written as parked."""

    park: Callable[[Job, Unsettled], None]

    def start_ordered(self, park: Callable[[Job, Unsettled], None]) -> None:
        """Must be called once, before the first event."""
        self.park = park
        self._strict = self.subscription.definition.order is Order.STRICT
        self._busy: dict[str, deque[Job]] = {}
        self._blocked: dict[str, deque[Unsettled]] = {}
        self._held = 0
        self._parked = 0
        self._reload_below = 0
        """Read the stored retry set again when fewer than this many wait in memory; 0: all of it is in memory."""

    def requeued(self) -> None:
        """See ``Lane.requeued``: what came in may belong before what waits, so all of it is read again, also if it is
        just being read."""
        self.stale = True
        self.generation += 1

    def load_waiting(self, rows: Sequence[Unsettled]) -> None:
        """Take over the stored retry set: all of it, or its first ``WAITING_LIMIT``."""
        self.stale = False
        self._reload_below = WAITING_LIMIT // 2 + 1 if len(rows) >= WAITING_LIMIT else 0
        self._blocked.clear()
        for row in sorted(rows, key=lambda row: row.position):
            self._blocked.setdefault(self._key_of_row(row), deque()).append(row)
        self._parked = sum(len(waiting) - 1 for waiting in self._blocked.values())
        self._set_next_due()

    def next(self) -> Job | None:
        """See ``Lane.next``: the first in the queue whose key is free. None also if all that is queued must wait."""
        if self.retries:
            return self.retries.popleft()
        if self._is_congested:
            return self._next_awaited()
        while self._queue:
            job = self._queue[0]
            key = self._key_of(job.event)
            if key is None:
                return self._queue.popleft()
            if key not in self._busy and not self._is_blocked(key, job):
                self._busy[key] = deque()
                return self._queue.popleft()
            if not self._set_aside(job, key):
                return None
        return None

    def _next_awaited(self) -> Job | None:
        """With too many waiting, the only one to start is one that the waiting ones of its key wait for."""
        job = self._awaited()
        if job is not None:
            self._queue.remove(job)
            self._busy[self._key_of(job.event) or ""] = deque()
        return job

    def _awaited(self) -> Job | None:
        for job in self._queue:
            key = self._key_of(job.event)
            waiting = None if key is None or key in self._busy else self._blocked.get(key)
            if waiting is not None and waiting[0].position > job.event.position:
                return job
        return None

    @property
    def _is_congested(self) -> bool:
        return self._reload_below > 0 or self._parked + len(self._blocked) >= WAITING_LIMIT

    def _is_blocked(self, key: str, job: Job) -> bool:
        """Whether an earlier delivery of the key waits. A later one can wait too: after a crash, or when the
        subscription had another order before; then it is the later one's turn to wait."""
        waiting = self._blocked.get(key)
        return waiting is not None and waiting[0].position < job.event.position

    def _set_aside(self, job: Job, key: str) -> bool:
        if self._strict:
            return False
        if self._is_blocked(key, job):
            return self._park(job, key)
        if self._held >= HOLD_LIMIT:
            return False
        self._busy[key].append(self._queue.popleft())
        self._held += 1
        return True

    def _park(self, job: Job, key: str) -> bool:
        if self._parked >= PARK_LIMIT:
            return False
        self._queue.popleft()
        self.let_go(job)
        row = Unsettled(self.no, job.event.position, job.sequence, 0, PARKED_DUE, key=key)
        self._wait_in_turn(key, row)
        self.generation += 1
        self.unrecorded += 1
        job.started = True
        self.park(job, row)
        return True

    @property
    def has_work(self) -> bool:
        """Whether something could start; a queue whose first key is blocked for good counts as none."""
        if self.retries:
            return True
        if not self._queue:
            return False
        if self._is_congested:
            return self._awaited() is not None
        job = self._queue[0]
        key = self._key_of(job.event)
        if key is None:
            return True
        if self._is_blocked(key, job):
            return not self._strict and self._parked < PARK_LIMIT
        return key not in self._busy or (not self._strict and self._held < HOLD_LIMIT)

    def accept(self, event: Event, now: float) -> Job | None:
        """See ``Lane.accept``: a waiting delivery that was recorded ahead of the cursor may have its turn now."""
        job = super().accept(event, now)
        if job is None:
            self._set_next_due()
        return job

    def recorded(self, job: Job) -> None:
        """See ``Lane.recorded``; due times are known in memory already."""
        job.due_at = 0
        super().recorded(job)
        if job.waiting:
            self._set_next_due()

    def settled(self, job: Job, state: DeliveryState) -> None:
        """Free the key: the next one parked behind it is due now, or those held in memory go on."""
        super().settled(job, state)
        key = self._lock_of(job.event)
        if job.waiting:
            self._unblock(key, job.event.position)
        elif state is not DeliveryState.EXPIRED:  # one that expired was never sent: another may have the key
            self._resume_held(key)
            if key in self._blocked:
                self._set_next_due()

    def unsettled(self, job: Job, row: Unsettled) -> None:
        """Block the key behind this delivery."""
        super().unsettled(job, row)
        key = self._lock_of(job.event)
        if not job.waiting:
            self._resume_held(key)
        self._wait_in_turn(key, row)
        self._set_next_due()

    def known_due(self, now: Millis) -> list[Unsettled]:
        """The heads of the blocked keys that are due and have their turn."""
        self._set_next_due()
        return [row for row in self._heads() if row.due_at <= now]

    def _heads(self) -> list[Unsettled]:
        """The first of each key that waits, where nothing is under way or comes before it."""
        return [waiting[0] for key, waiting in self._blocked.items() if self._has_turn(key, waiting[0])]

    def _has_turn(self, key: str, row: Unsettled) -> bool:
        if row.position in self.retrying or row.position in self._recorded or key in self._busy:
            return False
        for job in self._queue:
            if job.event.position >= row.position:
                break
            if self._lock_of(job.event) == key:
                return False
        return True

    def spill(self, tail: Position) -> None:
        """See ``Lane.spill``: what is held and was forgotten must not come back beside its second reading."""
        super().spill(tail)
        kept = set(self._pending)
        for key, held in self._busy.items():
            self._busy[key] = deque(job for job in held if job in kept)
        self._held = sum(map(len, self._busy.values()))
        self._set_next_due()

    def try_again(self, job: Job) -> None:
        """See ``Lane.try_again``: the next one due is another now."""
        super().try_again(job)
        self._set_next_due()

    def _resume_held(self, key: str) -> None:
        held = self._busy.pop(key, None)
        if held:
            self._held -= len(held)
            self._queue.extendleft(reversed(held))

    def _unblock(self, key: str, position: Position) -> None:
        waiting = self._blocked.get(key, deque())
        remaining = deque(row for row in waiting if row.position != position)
        if remaining:
            self._parked -= len(waiting) - len(remaining)
            self._blocked[key] = remaining
        elif waiting:
            self._parked -= len(waiting) - 1
            del self._blocked[key]
        if self._parked + len(self._blocked) < self._reload_below:
            self.stale = True
        self._set_next_due()

    def _wait_in_turn(self, key: str, row: Unsettled) -> None:
        """Put a row among those that wait for the key, instead of an older one of the same delivery."""
        waiting = self._blocked.setdefault(key, deque())
        index = bisect_left(waiting, row.position, key=lambda other: other.position)
        if index < len(waiting) and waiting[index].position == row.position:
            waiting[index] = row
        else:
            waiting.insert(index, row)
            self._parked += len(waiting) > 1

    def _set_next_due(self) -> None:
        """A parked delivery that came to the head of its key is due at once."""
        for waiting in self._blocked.values():
            if waiting[0].due_at == PARKED_DUE:
                waiting[0] = replace(waiting[0], due_at=1)
        self.next_due = min((row.due_at for row in self._heads()), default=0)

    def _key_of(self, event: Event) -> str | None:
        return "" if self._strict else event.key

    def _lock_of(self, event: Event) -> str:
        key = self._key_of(event)
        return _own_key(event.position) if key is None else key

    def _key_of_row(self, row: Unsettled) -> str:
        if self._strict:
            return ""
        return row.key if row.key is not None else _own_key(row.position)


def _own_key(position: Position) -> str:
    """Keyless deliveries block nobody: each waits under a key that no event can have."""
    return f"\x00{position}"
