"""The position up to which all live lanes of a shard are settled."""

from __future__ import annotations

from collections import deque

from hookline.core.model import Position


class Watermark:
    """Counts, for each position that live lanes still work on, how many do.

    Positions are held in rising order, since events reach live lanes in order; they are released in any order.
    """

    __slots__ = ("_counts", "_order", "_reached")

    def __init__(self, start: Position) -> None:
        self._reached = start
        self._order: deque[Position] = deque()
        self._counts: dict[Position, int] = {}

    def hold(self, position: Position) -> None:
        """One more lane works on the event at ``position``, which is the newest one held or later."""
        count = self._counts.get(position)
        if count is None:
            self._order.append(position)
            self._counts[position] = 1
        else:
            self._counts[position] = count + 1

    def release(self, position: Position) -> None:
        """One lane is settled with it, or has a cursor of its own now."""
        self._counts[position] -= 1

    def advance(self, tail: Position) -> Position:
        """The watermark, now that all events up to ``tail`` were handed out. It never falls."""
        order, counts = self._order, self._counts
        while order and not counts[order[0]]:
            del counts[order.popleft()]
        self._reached = max(self._reached, order[0] - 1 if order else tail)
        return self._reached
