"""Virtual time: an event loop that jumps to the next timer instead of sleeping, and processes that can be frozen.

Everything that runs in a simulated process carries it in its context, so the loop knows whose callback it is
about to run and can hold it back while that process is frozen, as SIGSTOP, a long collection or a paused
virtual machine would.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
from asyncio import events
from collections.abc import Callable, Coroutine
from typing import Any, cast

from hookline.core.model import Millis


class NothingToWaitFor(RuntimeError):
    """The loop would wait for ever: a task waits for something that nobody will do."""


class Process:
    """One operating-system process of the simulated world."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.frozen = False
        self.running_since = asyncio.get_running_loop().time()
        self._held: list[asyncio.Handle] = []
        self.context = contextvars.copy_context()
        self.context.run(_current.set, self)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Start a task that belongs to this process, as do all that it starts in turn."""
        return asyncio.get_running_loop().create_task(work, name=name, context=self.context)

    def hold(self, handle: asyncio.Handle) -> bool:
        """Whether the callback must wait until the process goes on."""
        if self.frozen:
            self._held.append(handle)
        return self.frozen

    def freeze(self) -> None:
        """Run nothing of this process until ``thaw``."""
        self.frozen = True

    def thaw(self) -> None:
        """Go on with all that became due meanwhile."""
        if self.frozen:
            self.frozen = False
            self.running_since = asyncio.get_running_loop().time()
            held, self._held = self._held, []
            cast("VirtualLoop", asyncio.get_running_loop()).run_soon(held)


_current: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


def _is_held(context: contextvars.Context | None, handle: asyncio.Handle) -> bool:
    process = context.get(_current) if context is not None else None
    return process is not None and process.hold(handle)


class _Handle(events.Handle):
    __slots__ = ()

    def _run(self) -> None:
        if not _is_held(self._context, self):
            super()._run()


class _TimerHandle(events.TimerHandle):
    __slots__ = ()

    def _run(self) -> None:
        if not _is_held(self._context, self):
            super()._run()


class _Task(asyncio.Task[Any]):
    """Hashes by its number: task groups keep their tasks in sets, and sets must have the same order in each run."""

    def __init__(self, work: Coroutine[Any, Any, Any], number: int, **options: Any) -> None:
        self._number = number  # first: Task's own constructor puts it into a set
        super().__init__(work, **options)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class _Skip:
    """Stands where a loop has its selector: waiting takes no time, it only moves the clock."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[object]:
        if timeout is None:
            raise NothingToWaitFor
        if timeout > 0:
            self._loop.jump()
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs callbacks in the order of their virtual times; there are no sockets and no threads."""

    _ready: Any
    _scheduled: Any

    def __init__(self) -> None:
        super().__init__()
        self._selector = _Skip(self)
        self._now = 0.0
        # As a nanosecond (the real loop's) it would be lost in rounding after a hundred days.
        self._clock_resolution = 1e-6
        self._tasks_made = 0
        self.set_task_factory(self._make_task)  # pyright: ignore[reportArgumentType] - the factory takes a context

    def _make_task(
        self, _: object, work: Coroutine[Any, Any, Any], context: contextvars.Context | None = None
    ) -> asyncio.Task[Any]:
        self._tasks_made += 1
        return _Task(work, self._tasks_made, loop=self, context=context)

    def time(self) -> float:
        """Virtual seconds since the beginning."""
        return self._now

    def jump(self) -> None:
        """Move the clock to the next timer."""
        self._now = max(self._now, self._scheduled[0].when())

    def run_soon(self, handles: list[asyncio.Handle]) -> None:
        """Run callbacks that were held back."""
        self._ready.extend(handles)

    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        timer: Any = _TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._scheduled, timer)
        timer._scheduled = True
        return timer

    def _call_soon(
        self, callback: Callable[..., object], args: Any, context: contextvars.Context | None
    ) -> asyncio.Handle:
        handle = _Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def _process_events(self, event_list: object) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nothing sleeps, so nothing must be woken."""


EPOCH: Millis = 1_767_225_600_000
"""The wall clock when a simulation begins: 2026-01-01T00:00:00Z."""


class VirtualClock:
    """The ``Clock`` of one process; ``skew`` seconds off the true time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, skew: float = 0.0) -> None:
        self._time = loop.time
        self._start = EPOCH + int(skew * 1000)

    def now(self) -> Millis:
        return self._start + int(self._time() * 1000)

    def monotonic(self) -> float:
        return self._time()
