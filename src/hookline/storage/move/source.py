"""What a move asks of the installation that it empties into another one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from hashlib import sha256
from typing import Protocol

from hookline.core.model import Millis
from hookline.ports import Node
from hookline.storage.move.plan import Facts, MoveRefused
from hookline.storage.move.tables import Row, Table

BATCH_BYTES = 4 << 20
"""Bytes of a batch of rows, about."""
BATCH_ROWS = 2000
FIRST_ROWS = 50


class Pace:
    """How many rows to read at once, from how large the last ones were: rows with bodies must not fill the memory."""

    def __init__(self, table: Table) -> None:
        self._bulky = table.places("bytes")
        self.rows = FIRST_ROWS if self._bulky else BATCH_ROWS

    def seen(self, rows: Sequence[Row]) -> None:
        """These were read last."""
        if self._bulky and rows:
            size = sum(len(row[place] or b"") for row in rows for place in self._bulky)
            fitting = BATCH_BYTES * len(rows) // max(size, 1)
            self.rows = max(1, min(fitting, 4 * self.rows, BATCH_ROWS))


class Source(Protocol):
    """An installation that is held still while it is read: all reads see one state, and nobody else writes."""

    name: str
    """What people call it, without a password."""

    def held(self, now: Millis, seconds: float) -> AbstractAsyncContextManager[Facts]:
        """Hold it. Raises ``MoveRefused`` if it is not there, not of this version, or in use: a node that was heard of
        within ``seconds`` uses it."""
        ...

    async def count(self, table: Table) -> int:
        """The rows of a table."""
        ...

    def read(self, table: Table) -> AsyncGenerator[Sequence[Row]]:
        """All rows of a table, in batches."""
        ...


def identity_of(key_id: str, digest: bytes) -> str:
    """Names an installation by its first API key, which is never removed."""
    return sha256(key_id.encode() + b"\0" + digest).hexdigest()[:32]


def state_of(*facts: object) -> str:
    """Tells two states of an installation apart."""
    return sha256(repr(facts).encode()).hexdigest()[:32]


def check_quiet(name: str, nodes: Sequence[Node], now: Millis, seconds: float) -> None:
    """Raises ``MoveRefused`` if nodes live."""
    if nodes:
        shown = ", ".join(
            f"{node.id} ({node.role}, seen {max(now - node.seen_at, 0) / 1000:.0f} s ago)"
            for node in nodes[:5]
        )
        raise MoveRefused(
            f"{name} is in use by {shown}: stop all its nodes first; one that was killed counts as alive for "
            f"{seconds:g} s"
        )
