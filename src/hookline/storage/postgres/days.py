"""From positions to days: which partitions can hold what a query asks for."""

from __future__ import annotations

import time
from bisect import bisect_right

from hookline.core.model import Position
from hookline.storage.postgres.connection import Connection

FRESH = 600.0
"""Seconds after which a shard's days are read again. An old picture is not wrong: it only makes queries look at more
partitions."""

NEVER = 2**31 - 2
"""Above every day."""

_DAYS = "SELECT first_position, day FROM hookline.shard_days WHERE shard = $1 ORDER BY first_position"


class Days:
    """The first position of each day, by shard. It never changes once written, so it is kept."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[float, list[Position], list[int]]] = {}

    async def load(self, db: Connection, shard: int) -> None:
        """Make sure that something not too old is known of the shard."""
        known = self._known.get(shard)
        if known is None or time.monotonic() - known[0] > FRESH:
            rows = await db.fetch(_DAYS, shard)
            self._known[shard] = (time.monotonic(), [row[0] for row in rows], [row[1] for row in rows])

    def seen(self, shard: int, day: int) -> None:
        """An event of this day was read."""
        known = self._known.get(shard)
        if known is not None and (not known[2] or known[2][-1] < day):
            del self._known[shard]

    def since(self, shard: int, position: Position) -> int:
        """A day that is not after the one of ``position``, and as near as is known."""
        _, firsts, days = self._known.get(shard, (0.0, [], []))
        index = bisect_right(firsts, position)
        return days[index - 1] if index else 0

    def until(self, shard: int, position: Position) -> int:
        """A day that is not before the one of ``position``, and as near as is known."""
        _, firsts, days = self._known.get(shard, (0.0, [], []))
        index = bisect_right(firsts, position)
        return days[max(index - 1, 0)] if index < len(days) else NEVER
