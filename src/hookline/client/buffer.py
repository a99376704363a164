"""The buffer: events wait in memory, bounded, while one thread sends them in batches, in their order.

What the server has not confirmed is in memory only: a program that is killed loses it. What must not be lost belongs
into the transaction that made it (``hookline.outbox``), or into ``publish`` without a buffer.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

from hookline.client.answers import Again, Result, pause_before
from hookline.client.errors import BufferFull, Closed, NotSent, Refused, SomeRefused
from hookline.client.events import Event
from hookline.client.forks import watch
from hookline.client.sender import BATCH_BYTES, BATCH_EVENTS, cut

REMEMBERED = 100
"""Refusals that are kept for ``flush`` to raise."""
TELL_SECONDS = 60.0
"""The most often that the same trouble is logged."""

log = logging.getLogger("hookline.client")

OnRefused = Callable[[Refused], None]
TryBatch = Callable[[Sequence[Event]], list[Result]]


@dataclass(frozen=True)
class Buffering:
    """Bounds of the buffer. ``linger`` is how long a first event waits for company; ``full_timeout`` how long
    ``publish`` waits for room before it raises ``BufferFull`` (0: not at all). Seconds."""

    events: int = 10_000
    bytes: int = 64 << 20
    linger: float = 0.02
    full_timeout: float = 5.0


class Buffer:
    """Takes events from any thread. Its own thread starts with the first event."""

    def __init__(self, try_batch: TryBatch, bounds: Buffering, on_refused: OnRefused | None) -> None:
        self._try_batch = try_batch
        self._bounds = bounds
        self._on_refused = on_refused
        self._told_at = -TELL_SECONDS
        self._reset()
        watch(self)

    def _reset(self) -> None:
        """Empty, and without a thread: at the start, and in the child after a fork."""
        self._changed = threading.Condition()
        self._waiting: deque[Event] = deque()
        self._sending: list[Event] = []
        self._bytes = 0
        self._taken = 0
        self._settled = 0
        self._hurried = 0
        self._refused: list[Refused] = []
        self._refused_count = 0
        self._trouble = ""
        self._closing = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    # --- for the publisher

    def __len__(self) -> int:
        """Events that the server has not confirmed."""
        return self._taken - self._settled

    def put(self, event: Event, timeout: float) -> None:
        """Raises ``BufferFull`` if there is no room for ``timeout`` seconds, ``Closed``."""
        size = len(event.body)
        with self._changed:
            if not self._changed.wait_for(lambda: self._closing or self._has_room(size), timeout):
                raise BufferFull(f"{len(self)} events wait; the last trouble was: {self._trouble or 'none'}")
            if self._closing:
                raise Closed("the client was closed")
            self._waiting.append(event)
            self._bytes += size
            self._taken += 1
            if self._thread is None:
                self._start()
            if len(self._waiting) == 1 or self._is_due():
                self._changed.notify_all()

    def flush(self, timeout: float) -> None:
        """Return once the server has answered for everything that was put in before.

        Raises ``NotSent`` after ``timeout`` seconds (the buffer goes on trying), ``SomeRefused`` if there is no
        ``on_refused`` and events were refused.
        """
        with self._changed:
            target = self._hurried = self._taken
            self._changed.notify_all()
            if not self._changed.wait_for(lambda: self._settled >= target or self._stop.is_set(), timeout):
                raise self._not_sent()
            if self._settled < target:
                raise self._not_sent()
            refused, count = self._refused, self._refused_count
            self._refused, self._refused_count = [], 0
        if refused:
            raise SomeRefused(refused, count)

    def close(self, timeout: float) -> None:
        """Take nothing more, flush, and end the thread. Raises as ``flush`` does; ``NotSent`` means given up."""
        with self._changed:
            self._closing = True
        try:
            self.flush(timeout)
        finally:
            self._stop.set()
            with self._changed:
                self._changed.notify_all()

    def _has_room(self, size: int) -> bool:
        """An event that is larger than the bound alone may pass when nothing else waits."""
        count = len(self._waiting) + len(self._sending)
        return count < self._bounds.events and (not count or self._bytes + size <= self._bounds.bytes)

    def _not_sent(self) -> NotSent:
        events = [*self._sending, *self._waiting]
        return NotSent(
            f"{len(events)} events are not confirmed: {self._trouble or 'there was not the time'}", events
        )

    def _start(self) -> None:
        """A daemon: at its exit the program waits for ``close``, which has a timeout, not for the thread."""
        self._thread = threading.Thread(target=self._run, name="hookline-client", daemon=True)
        self._thread.start()

    # --- the thread

    def _run(self) -> None:
        while batch := self._next():
            self._send(batch)

    def _next(self) -> list[Event]:
        """The next batch, once it is full, or old enough, or wanted; nothing when all is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing or self._stop.is_set())
            self._changed.wait_for(self._is_due, self._bounds.linger)
            if self._stop.is_set():
                return []
            part = cut(list(islice(self._waiting, BATCH_EVENTS)))
            self._sending = [self._waiting.popleft() for _ in part]
            return list(self._sending)

    def _is_due(self) -> bool:
        full = len(self._waiting) >= BATCH_EVENTS or self._bytes >= BATCH_BYTES
        return full or self._settled < self._hurried or self._closing or self._stop.is_set()

    def _send(self, batch: list[Event]) -> None:
        """Until each event is stored or refused, or nobody waits any more."""
        tries = 0
        while batch and not self._stop.is_set():
            results = self._attempt(batch)
            again = [result for result in results if isinstance(result, Again)]
            left = [event for event, result in zip(batch, results, strict=True) if isinstance(result, Again)]
            for result in results:
                if isinstance(result, Refused):
                    self._refuse(result)
            self._settle(batch, left)
            batch = left
            if again:
                tries = tries + 1 if len(again) == len(results) else 1
                self._tell(str(again[0]))
                self._stop.wait(pause_before(tries, max(one.pause for one in again)))

    def _attempt(self, batch: list[Event]) -> list[Result]:
        """One try. Trouble that is not the events' fault (the key, the URL, a bug) is no reason to drop them."""
        try:
            return self._try_batch(batch)
        except Refused as error:
            return [Again(str(error))] * len(batch)
        except Exception as error:
            log.exception("sending failed in an unforeseen way")
            return [Again(f"{type(error).__name__}: {error}")] * len(batch)

    def _settle(self, batch: list[Event], left: list[Event]) -> None:
        with self._changed:
            self._sending = left
            self._settled += len(batch) - len(left)
            self._bytes -= sum(len(event.body) for event in batch) - sum(len(event.body) for event in left)
            if not left:
                self._trouble = ""
            self._changed.notify_all()

    def _refuse(self, refused: Refused) -> None:
        event = "" if refused.event is None else refused.event.id
        if self._on_refused is None:
            log.error("event %s was refused: %s", event, refused)
            with self._changed:
                self._refused_count += 1
                if len(self._refused) < REMEMBERED:
                    self._refused.append(refused)
            return
        try:
            self._on_refused(refused)
        except Exception:
            log.exception("on_refused failed for event %s", event)

    def _tell(self, trouble: str) -> None:
        self._trouble = trouble
        now = time.monotonic()
        if now - self._told_at >= TELL_SECONDS:
            self._told_at = now
            log.warning("events wait to be sent: %s", trouble)

    # --- forks

    def after_fork(self) -> None:
        """In the child: what waited is the parent's to send."""
        closed = self._closing
        self._reset()
        self._closing = closed
