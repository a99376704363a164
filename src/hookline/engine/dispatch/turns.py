"""Fair turns: all lanes of a worker share its requests in flight."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from hookline.engine.dispatch.lane import Job, Lane, Memory
from hookline.observe import Metrics
from hookline.ports import Clock

QUANTUM = 8
"""Requests a lane may start before the next lane has its turn."""
QUANTUM_YIELDING = 6
"""The same for a lane that works off a backlog while others are up to date; then it rests for ``REST``. So a backlog
takes about a third of what a process can send, and the others hardly notice it."""
REST = 0.002
"""Seconds."""
NEIGHBOUR_SECONDS = 1.0
"""For so long after a request of a lane that is up to date, lanes that are behind yield."""
SHARE = 4
"""A lane may hold one request plus a quarter of what is free, so that lanes whose endpoints never answer leave
room for the others (dynamic thresholds, Choudhury and Hahne 1998)."""
UNRECORDED_FACTOR = 2
"""Outcomes that wait to be written, per request in flight allowed, before nothing new starts."""


class Turns:
    """Hands out the right to start a request: round robin, a bounded number in all."""

    def __init__(self, capacity: int, clock: Clock, metrics: Metrics) -> None:
        self._capacity = capacity
        self._clock = clock
        self._metrics = metrics
        self._ready: deque[Lane] = deque()
        self._scheduled = False
        self._may_start: Callable[[Lane], bool]
        self._start: Callable[[Job], None]
        self._exhausted: Callable[[Lane], None]
        self._resting: list[Lane] = []
        self._fed: Lane | None = None
        self._fed_at = float("-inf")
        self.in_flight = 0
        self.unrecorded = 0
        self.memory = Memory()
        self.closed = False

    def serve(
        self,
        may_start: Callable[[Lane], bool],
        start: Callable[[Job], None],
        exhausted: Callable[[Lane], None],
    ) -> None:
        """Must be called once, first. ``start`` sends a job; ``exhausted`` looks after a lane whose turn ended because
        it has to wait or needs more to send."""
        self._may_start = may_start
        self._start = start
        self._exhausted = exhausted

    def ready(self, lane: Lane) -> None:
        """The lane has work and may start it."""
        if not lane.is_ready:
            lane.is_ready = True
            self._ready.append(lane)
        self.poke()

    def poke(self) -> None:
        """Start what can be started, once the present callback is over."""
        if not self._scheduled and self._ready:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._pump)

    def finished(self) -> None:
        """A request came back."""
        self.in_flight -= 1
        self._metrics.in_flight.set(self.in_flight)
        self.poke()

    def gathered(self) -> None:
        """An outcome waits to be recorded."""
        self.unrecorded += 1

    def recorded(self, count: int) -> None:
        """So many outcomes were written."""
        self.unrecorded -= count
        self.poke()

    @property
    def is_full(self) -> bool:
        """Whether nothing new may start now."""
        return (
            self.closed
            or self.in_flight >= self._capacity
            or self.unrecorded >= self._capacity * UNRECORDED_FACTOR
        )

    def _pump(self) -> None:
        self._scheduled = False
        now = self._clock.monotonic()
        progress = True
        while progress and self._ready and not self.is_full:
            before = self.in_flight
            for _ in range(len(self._ready)):
                self._give_turn(self._ready.popleft(), now)
                if self.is_full:
                    break
            progress = self.in_flight > before
        self._metrics.in_flight.set(self.in_flight)

    def _give_turn(self, lane: Lane, now: float) -> None:
        """One turn. A lane that yields rests before its next one."""
        yields = not lane.fed and lane is not self._fed and now < self._fed_at + NEIGHBOUR_SECONDS
        if self._turn(lane, now, QUANTUM_YIELDING if yields else QUANTUM):
            self._rest(lane) if yields else self._ready.append(lane)
        else:
            lane.is_ready = False
            self._exhausted(lane)

    def _rest(self, lane: Lane) -> None:
        if not self._resting:
            asyncio.get_running_loop().call_later(REST, self._rested)
        self._resting.append(lane)

    def _rested(self) -> None:
        self._ready.extend(self._resting)
        self._resting.clear()
        self.poke()

    def _turn(self, lane: Lane, now: float, quantum: int) -> bool:
        """Start a few requests of a lane; whether it could start more at its next turn."""
        if not self._may_start(lane):
            return False
        for _ in range(quantum):
            if lane.stopped or lane.stale or lane.in_flight >= lane.window.size or lane.wait(now) > 0:
                return False
            if not self._has_room(lane):
                return True
            job = lane.next()
            if job is None:
                return False
            lane.started(job, now)
            self.in_flight += 1
            self._start(job)
            if lane.fed:
                self._fed, self._fed_at = lane, now
        return lane.has_work

    def _has_room(self, lane: Lane) -> bool:
        free = self._capacity - self.in_flight
        return free > 0 and lane.in_flight < 1 + free // SHARE
