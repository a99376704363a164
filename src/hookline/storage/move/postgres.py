"""An installation in PostgreSQL, as the source of a move; and how tables are read from one."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

from hookline.core.errors import StorageUnavailable
from hookline.core.model import Millis
from hookline.storage.migrate import load, missing
from hookline.storage.move.plan import Cut, End, Facts, MoveRefused, Secret
from hookline.storage.move.source import Pace, check_quiet, identity_of, state_of
from hookline.storage.move.tables import Row, Table
from hookline.storage.postgres import lease, partitions
from hookline.storage.postgres.connection import (
    COMMITTED,
    SNAPSHOT,
    CommitUnknown,
    Connection,
    Link,
    Session,
    is_lost,
    sqlstate,
)

LONGEST = 7 * 86_400.0
"""Seconds that a statement of a move may take."""
LOCK_SECONDS = 5
"""How long a write that is under way may take."""

# A transaction of a move is long, whatever the server's settings say of others. If its client dies, it must end soon.
_SETTINGS = f"""
SET LOCAL statement_timeout = 0;
SET LOCAL idle_in_transaction_session_timeout = 0;
SET LOCAL client_connection_check_interval = '1s';
SET LOCAL lock_timeout = '{LOCK_SECONDS}s';
SET LOCAL jit = off
"""
_NOT_HAD = "55P03"  # lock_not_available

# Whatever changes an installation writes one of these. Locked by the first statement of the transaction, so that the
# state which all reads see is from after the last write.
_HOLD = """
LOCK TABLE hookline.config, hookline.shard_heads, hookline.shard_leases, hookline.api_keys, hookline.nodes IN SHARE MODE
"""
_IS_OURS = "SELECT to_regclass('hookline.migrations') IS NOT NULL AND to_regclass('hookline.installation') IS NOT NULL"
_CUT = "SELECT shards, slices FROM hookline.installation"
_FIRST_KEY = "SELECT id, digest FROM hookline.api_keys WHERE session_of IS NULL ORDER BY no LIMIT 1"
_STATE = """
SELECT (SELECT version FROM hookline.config), h.shard, h.head, l.slice, l.watermark, l.epoch, l.recorded
FROM hookline.shard_heads AS h JOIN hookline.shard_leases AS l ON l.shard = h.shard ORDER BY h.shard, l.slice
"""
_ENDS = """
SELECT h.shard, h.head, h.last_received, min(l.watermark)
FROM hookline.shard_heads AS h JOIN hookline.shard_leases AS l ON l.shard = h.shard GROUP BY h.shard ORDER BY h.shard
"""
_SUBSCRIPTIONS = "SELECT no, id, tenant_no, sealed FROM hookline.subscriptions ORDER BY no"


class Cursor(Protocol):
    """Rows of a query, in batches."""

    async def fetch(self, n: int) -> list[Sequence[Any]]: ...


class Bulk(Session, Protocol):
    """A connection, with what moves many rows."""

    async def cursor(self, query: str) -> Cursor: ...

    async def copy_records_to_table(
        self,
        table_name: str,
        *,
        records: AsyncIterable[Row],
        columns: Sequence[str],
        schema_name: str,
    ) -> str: ...


@asynccontextmanager
async def connected(dsn: str) -> AsyncGenerator[Bulk]:
    """A connection whose statements may take long. Behind a pooler too: what follows is whole transactions."""
    link = Link(dsn, pooler=True, timeout=LONGEST, name="hookline move")
    db = cast("Bulk", await link.connect())
    try:
        yield db
    finally:
        if not db.is_in_transaction() and not db.is_closed():
            await db.close(timeout=link.connect_timeout)
        db.terminate()


@asynccontextmanager
async def transaction(db: Session, mode: str = COMMITTED) -> AsyncGenerator[None]:
    """All inside happens, or nothing."""
    await db.execute(f"BEGIN ISOLATION LEVEL {mode};{_SETTINGS}")
    try:
        yield
    except BaseException:
        with suppress(Exception):  # what failed before tells more; the connection goes
            await db.execute("ROLLBACK")
        raise
    try:
        await db.execute("COMMIT")
    except Exception as error:
        if is_lost(error):
            raise CommitUnknown(
                "the connection broke in the last moment; run the same move again: it tells whether it was finished"
            ) from error
        raise


@asynccontextmanager
async def waiting(refusal: str) -> AsyncGenerator[None]:
    """Locks are waited for inside. Raises ``MoveRefused`` with this text if one is not to be had."""
    try:
        yield
    except Exception as error:
        if sqlstate(error) != _NOT_HAD:
            raise
        raise MoveRefused(refusal) from error


def shown(dsn: str) -> str:
    """The address without its password; that of an SQLite file has none."""
    if not dsn.startswith("postgres"):
        return dsn
    parts = urlsplit(dsn)
    user, at, place = parts.netloc.rpartition("@")
    kept = f"{user.partition(':')[0]}{at}{place}"
    query = re.sub(r"(password=)[^&]*", r"\1…", parts.query)
    return parts._replace(netloc=kept, query=query).geturl()


async def read_rows(db: Bulk, table: Table, query: str) -> AsyncGenerator[Sequence[Row]]:
    """The rows of a query about a table, in batches; in a transaction."""
    pace = Pace(table)
    cursor = await db.cursor(query)
    while found := await cursor.fetch(pace.rows):
        rows = [tuple(row) for row in found]
        pace.seen(rows)
        yield rows


class PostgresSource:
    """Fills ``Source``. The tables that every change of an installation writes are locked against writing."""

    def __init__(self, dsn: str) -> None:
        self.name = shown(dsn)
        self._dsn = dsn
        self._opened: Bulk | None = None

    @property
    def _db(self) -> Bulk:
        if self._opened is None:
            raise StorageUnavailable("the source is not held")
        return self._opened

    @asynccontextmanager
    async def held(self, now: Millis, seconds: float) -> AsyncGenerator[Facts]:
        """See ``Source``."""
        async with connected(self._dsn) as db:
            if not await db.fetchval(_IS_OURS):
                raise MoveRefused(f"{self.name} holds no installation of Hookline")
            async with transaction(db, SNAPSHOT):
                async with waiting(f"{self.name} is written to: stop all its nodes first"):
                    await db.execute(_HOLD)
                await self._check(db, now, seconds)
                self._opened = db
                yield await self._facts(db)

    async def _check(self, db: Connection, now: Millis, seconds: float) -> None:
        """Raises ``MoveRefused`` if it is in use, and as ``migrate.check`` does."""
        applied = {row[0]: row[1] for row in await db.fetch("SELECT name, checksum FROM hookline.migrations")}
        if missing(applied, load(files("hookline.storage.postgres") / "migrations")):
            raise MoveRefused(
                f"{self.name} was made by an older version: bring it to this one with "
                f"hookline migrate --database-url {self.name}"
            )
        check_quiet(self.name, await lease.nodes(db, now, seconds), now, seconds)
        held = [each for each in await lease.leases(db, now) if each.owner]
        if held:
            seconds = max(each.expires_at - now for each in held) / 1000
            raise MoveRefused(
                f"{self.name} is delivered by {held[0].owner}: stop all its nodes first; the leases of one that was "
                f"killed end in {seconds:.0f} s"
            )

    async def _facts(self, db: Connection) -> Facts:
        cut, first = await db.fetchrow(_CUT), await db.fetchrow(_FIRST_KEY)
        if cut is None or first is None:
            raise MoveRefused(f"{self.name} is empty: there is nothing to move")
        days = {day for name in partitions.TABLES for day in await partitions.days(db, name)}
        return Facts(
            identity=identity_of(*first),
            state=state_of(*[tuple(row) for row in await db.fetch(_STATE)]),
            cut=Cut(*cut),
            ends=[End(*row) for row in await db.fetch(_ENDS)],
            tenants=[row[0] for row in await db.fetch("SELECT no FROM hookline.tenants ORDER BY no")],
            subscriptions=[Secret(*row) for row in await db.fetch(_SUBSCRIPTIONS)],
            days=sorted(days),
        )

    async def count(self, table: Table) -> int:
        """See ``Source``."""
        return await self._db.fetchval(f"SELECT count(*) FROM {table.postgres}")

    def read(self, table: Table) -> AsyncGenerator[Sequence[Row]]:
        """See ``Source``."""
        return read_rows(self._db, table, table.select_postgres())
