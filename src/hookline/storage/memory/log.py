"""The log in memory."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from hookline.core.model import Appended, Event, Millis, NewEvent, Position
from hookline.ports import LogPage
from hookline.storage.common import page_of
from hookline.storage.memory.state import MemoryState


class MemoryLog(MemoryState):
    """Fills ``EventLog``."""

    async def append(self, events: Sequence[NewEvent], now: Millis) -> list[Appended]:
        return [self._append(event, now) for event in events]

    async def read_log(
        self, shard: int, after: Position, limit: int, changes_after: int, tenant_no: int | None = None
    ) -> LogPage:
        log = self._shards[shard]
        found = (
            event
            for event in map(log.events.__getitem__, islice(log.positions, log.after(after), None))
            if tenant_no is None or event.tenant_no == tenant_no
        )
        events, last = page_of(found, limit, after, log.head)
        return LogPage(events, last, log.head, self._changes(shard, changes_after))

    async def read_events(self, shard: int, positions: Sequence[Position]) -> list[Event]:
        events = self._shards[shard].events
        return [events[position] for position in sorted(set(positions)) if position in events]

    async def position_at(self, shard: int, time: Millis) -> Position:
        return self._shards[shard].position_at(time)

    async def head(self, shard: int) -> Position:
        return self._shards[shard].head
