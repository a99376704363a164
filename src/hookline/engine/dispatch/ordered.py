"""A lane that keeps order: strict, or among events with the same key.

While a delivery of a key is under way, later ones of that key are held in memory. When it must be retried, the key is
*blocked*: later ones are parked in the retry set behind it, so the other keys go on and the cursor too. Strict order is
one key for all, and parks nothing: the lane stops reading instead.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from hookline.core.model import DeliveryState, Event, Millis, Order, Position, Unsettled
from hookline.engine.dispatch.lane import Job, Lane

PARK_LIMIT = 1000
"""Deliveries parked behind blocked keys before the lane stops reading."""
HOLD_LIMIT = 1000
"""Deliveries held in memory behind ones of the same key that are under way."""
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

    def requeued(self) -> None:
        """See ``Lane.requeued``: what came in may belong before what waits, so all of it is read again."""
        self.stale = True

    def load_waiting(self, rows: Sequence[Unsettled]) -> None:
        """Take over the stored retry set, all of it."""
        self.stale = False
        self._blocked.clear()
        for row in sorted(rows, key=lambda row: row.position):
            self._blocked.setdefault(self._key_of_row(row), deque()).append(row)
        self._parked = sum(len(waiting) - 1 for waiting in self._blocked.values())
        self._set_next_due()

    def next(self) -> Job | None:
        """See ``Lane.next``: the first in the queue whose key is free. None also if all that is queued must wait."""
        if self.retries:
            return self.retries.popleft()
        while self._queue:
            job = self._queue[0]
            key = self._key_of(job.event)
            if key is None:
                return self._queue.popleft()
            if key not in self._busy and key not in self._blocked:
                self._busy[key] = deque()
                return self._queue.popleft()
            if not self._set_aside(job, key):
                return None
        return None

    def _set_aside(self, job: Job, key: str) -> bool:
        if self._strict:
            return False
        if key in self._blocked:
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
        row = Unsettled(self.no, job.event.position, job.sequence, 0, PARKED_DUE, key=key)
        self._blocked[key].append(row)
        self._parked += 1
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
        key = self._key_of(self._queue[0].event)
        if key is None or (key not in self._busy and key not in self._blocked):
            return True
        return not self._strict and (
            self._parked < PARK_LIMIT if key in self._blocked else self._held < HOLD_LIMIT
        )

    def recorded(self, job: Job) -> None:
        """See ``Lane.recorded``; due times are known in memory already."""
        job.due_at = 0
        super().recorded(job)
        self._set_next_due()

    def settled(self, job: Job, state: DeliveryState) -> None:
        """Free the key: the next one parked behind it is due now, or those held in memory go on."""
        super().settled(job, state)
        key = self._lock_of(job.event)
        if job.waiting:
            self._unblock(key, job.event.position)
        else:
            self._resume_held(key)

    def unsettled(self, job: Job, row: Unsettled) -> None:
        """Block the key behind this delivery."""
        super().unsettled(job, row)
        key = self._lock_of(job.event)
        if job.waiting:
            self._replace_head(key, row)
        else:
            self._resume_held(key)
            self._blocked[key] = deque([row])
        self._set_next_due()

    def known_due(self, now: Millis) -> list[Unsettled]:
        """The heads of the blocked keys that are due."""
        heads = (waiting[0] for waiting in self._blocked.values())
        return [row for row in heads if row.due_at <= now and row.position not in self.retrying]

    def spill(self, tail: Position) -> None:
        """See ``Lane.spill``: what is held and was forgotten must not come back beside its second reading."""
        super().spill(tail)
        kept = set(self._pending)
        for key, held in self._busy.items():
            self._busy[key] = deque(job for job in held if job in kept)
        self._held = sum(map(len, self._busy.values()))

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
        waiting = self._blocked.get(key)
        if waiting is None:
            return
        before = len(waiting)
        remaining = deque(row for row in waiting if row.position != position)
        if not remaining:
            del self._blocked[key]
            if before > 1:
                self._parked -= before - 1
        else:
            self._parked -= before - len(remaining)
            self._blocked[key] = remaining
        self._set_next_due()

    def _replace_head(self, key: str, row: Unsettled) -> None:
        waiting = self._blocked.setdefault(key, deque([row]))
        for index, old in enumerate(waiting):
            if old.position == row.position:
                waiting[index] = row
                return
        waiting.appendleft(row)
        self._parked += 1

    def _set_next_due(self) -> None:
        """A parked delivery that came to the head of its key is due at once."""
        for waiting in self._blocked.values():
            if waiting[0].due_at == PARKED_DUE:
                head = waiting[0]
                waiting[0] = Unsettled(
                    head.subscription_no,
                    head.position,
                    head.sequence,
                    head.attempts,
                    1,
                    head.first_at,
                    head.runs,
                    head.key,
                )
        heads = (waiting[0] for waiting in self._blocked.values() if waiting[0].position not in self.retrying)
        self.next_due = min((row.due_at for row in heads), default=0)

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
