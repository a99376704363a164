"""Partitions by day: made ahead of time, and on demand; dropped when everything in them is past its time."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta

from hookline.core.model import Millis
from hookline.storage.postgres.connection import Connection
from hookline.storage.postgres.schema import LOCK, PARTITIONING

DAY: Millis = 86_400_000
EPOCH = date(1970, 1, 1)
AHEAD = 3
"""Days made ahead: as long as no node may have run."""

TABLES = ("events", "deliveries", "attempts", "response_bodies")

LOCK_WAIT = "SET LOCAL lock_timeout = '2s'"
"""Dropping a partition waits for those who read its table, and makes others wait behind it: not for long."""


def day_of(time: Millis) -> int:
    """The day in UTC, counted from 1970-01-01, as partitions have it."""
    return time // DAY


def _name(table: str, day: int) -> str:
    return f"{table}_{EPOCH + timedelta(days=day):%Y%m%d}"


async def make(db: Connection, days: Iterable[int]) -> None:
    """Make the partitions of these days that are not there; in a transaction."""
    await db.execute("SELECT pg_advisory_xact_lock($1, $2)", LOCK, PARTITIONING)
    there = set(await _names(db))
    for day in days:
        for table in TABLES:
            if _name(table, day) not in there:
                await db.execute(_creation(table, day))


def _creation(table: str, day: int) -> str:
    """Made apart and then attached: unlike ``PARTITION OF``, that stops neither readers nor writers."""
    name = _name(table, day)
    return (
        f"CREATE TABLE hookline.{name} (LIKE hookline.{table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS "
        f"INCLUDING INDEXES INCLUDING STORAGE); "
        f"ALTER TABLE hookline.{table} ATTACH PARTITION hookline.{name} FOR VALUES FROM ({day}) TO ({day + 1})"
    )


_NAMES = """
SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent = ANY (ARRAY[{parents}]::regclass[])
"""


async def _names(db: Connection) -> list[str]:
    parents = ", ".join(f"'hookline.{table}'" for table in TABLES)
    return [row[0] for row in await db.fetch(_NAMES.format(parents=parents))]


async def days(db: Connection, table: str) -> list[int]:
    """The days that ``table`` has partitions of, oldest first."""
    parts = [name.rpartition("_") for name in await _names(db)]
    return sorted((date.fromisoformat(text) - EPOCH).days for parent, _, text in parts if parent == table)


async def drop(db: Connection, table: str, day: int) -> None:
    """Drop a partition; in a transaction. Fails with lock_not_available if somebody reads the table for long."""
    await db.execute("SELECT pg_advisory_xact_lock($1, $2)", LOCK, PARTITIONING)
    await db.execute(LOCK_WAIT)
    await db.execute(f"DROP TABLE IF EXISTS hookline.{_name(table, day)}")
