"""The log's ends, asked for many shards at once: a worker looks at all its shards at every wake-up, and most have
nothing new."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from hookline.core.model import Position
from hookline.storage.postgres.log import Ends

GATHER = 2
"""Turns of the event loop for others to join a question: those who were woken together all ask within that, and nobody
waits for a timer."""


class Tail:
    """Answers ``ends``; all who ask while one question is under way share the next one."""

    def __init__(self, read: Callable[[Sequence[int]], Awaitable[dict[int, Ends]]]) -> None:
        self._read = read
        self._wanted: dict[int, list[asyncio.Future[Ends]]] = {}
        self._task: asyncio.Task[None] | None = None
        self._known: dict[int, Ends] = {}

    def known(self, shard: int) -> Ends:
        """The ends as they were seen last. They only move forward."""
        return self._known.get(shard, _NOTHING)

    def seen(self, shard: int, ends: Ends) -> None:
        """They were seen in some other way."""
        known = self.known(shard)
        self._known[shard] = Ends(
            max(known.head, ends.head), max(known.version, ends.version), max(known.changed, ends.changed)
        )

    def reached(self, shard: int, head: Position) -> None:
        """An append of this process moved the head."""
        self.seen(shard, Ends(head, 0, 0))

    async def ends(self, shard: int) -> Ends:
        """The ends of a shard as they are now."""
        future: asyncio.Future[Ends] = asyncio.get_running_loop().create_future()
        self._wanted.setdefault(shard, []).append(future)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._answer(), name="log-ends")
        return await future

    async def _answer(self) -> None:
        while self._wanted:
            for _ in range(GATHER):
                await asyncio.sleep(0)
            wanted, self._wanted = self._wanted, {}
            try:
                found = await self._read(list(wanted))
            except Exception as error:  # noqa: BLE001  it belongs to those who asked
                _fail(wanted, error)
                continue
            for shard, futures in wanted.items():
                self.seen(shard, found[shard])
                for future in futures:
                    if not future.done():
                        future.set_result(found[shard])

    async def close(self) -> None:
        """Answer nothing more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        wanted, self._wanted = self._wanted, {}
        _fail(wanted, asyncio.CancelledError())


_NOTHING = Ends(0, 0, 0)


def _fail(wanted: dict[int, list[asyncio.Future[Ends]]], error: BaseException) -> None:
    for futures in wanted.values():
        for future in futures:
            if not future.done():
                future.set_exception(error) if isinstance(error, Exception) else future.cancel()
