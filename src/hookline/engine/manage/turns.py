"""Changes of one thing by many at once: in turn within this process, again and again against other processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar
from weakref import WeakValueDictionary

from hookline.core.errors import Conflict, Overtaken

T = TypeVar("T")

WAIT_SECONDS = 10.0
"""For a turn: far more than a crowd of clients needs, less than they wait for an answer."""
TRIES = 12
_PAUSE, _MAX_PAUSE = 0.01, 0.5
"""Seconds before the second try, at most, and doubled from then on; half of it on average."""


class Turns:
    """Locks by id, kept as long as somebody holds or waits for them. They save work and do not protect: other processes
    know nothing of them, so what is written must name the version that was read."""

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        self._entropy = entropy
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def take(self, name: str, change: Callable[[], Awaitable[T]]) -> T:
        """What ``change`` returns: it reads, and writes upon what it read. Whenever it raises ``Overtaken``, it is
        called again. It must not take a turn for ``name`` itself. Raises ``Conflict`` if others never let it through.
        """
        async with self._turn(name):
            for number in range(TRIES):
                try:
                    return await change()
                except Overtaken:
                    await asyncio.sleep(self._pause(number))
        raise _crowded()

    @asynccontextmanager
    async def _turn(self, name: str) -> AsyncGenerator[None]:
        lock = self._locks.setdefault(name, asyncio.Lock())
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await lock.acquire()
        except TimeoutError:
            raise _crowded() from None
        try:
            yield
        finally:
            lock.release()

    def _pause(self, number: int) -> float:
        """Anything up to the bound, so that processes which met do not meet again."""
        share = int.from_bytes(self._entropy(2), "big") / 65536
        return share * min(_MAX_PAUSE, _PAUSE * 2**number)


def _crowded() -> Conflict:
    return Conflict("the subscription is being changed by others; try again")
