"""An outbox in PostgreSQL, by asyncpg.

Rows become visible in the order of their ``seq``, but for transactions that commit at the same moment: of those, a
smaller number may show after a larger one was read. As rows are removed one by one, and not up to a mark, it is read
then. What follows from an event that is visible has a larger number and shows later: it cannot overtake.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import asyncpg

from hookline.sources.outbox.options import OutboxOptions
from hookline.sources.outbox.results import (
    COUNTED,
    LARGEST,
    MISSING,
    DeadLetter,
    OutboxDown,
    OutboxReport,
    Row,
)

CONNECT_SECONDS = 10.0
STATEMENT_SECONDS = 30.0
CLOSE_SECONDS = 2.0
SWEEP_SECONDS = 30.0
"""How often the table is read from its beginning although nothing can be left there: someone may have set the numbers
back."""

_SESSION = """
SET default_transaction_isolation = 'read committed';
SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3
"""
"""Serializable, as a database may have it for its programs, could make ours and theirs conflict. With the keepalives
the server frees our lock half a minute after our machine has gone away, not two hours."""


_TABLE = "SELECT to_regclass($1)::oid"
_ORDERED = "SELECT count(*) FROM pg_trigger WHERE tgrelid = $1 AND tgname = $2 AND tgenabled IN ('O', 'A')"
_LEAD = "SELECT pg_try_advisory_lock(hashtextextended('hookline.relay', $1))"

# The length of a value that lies outside its row is known without reading it.
_READ = """
SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint, taken.*
FROM (VALUES (1)) AS one LEFT JOIN (
    SELECT seq, id, tenant, CASE WHEN size > $5 THEN '' ELSE body END, size FROM (
        SELECT *, sum(size) OVER (ORDER BY seq) - size AS before FROM (
            SELECT seq, id, tenant, body, octet_length(body) AS size FROM @events
            WHERE seq > $1 AND tenant <> ALL ($4::text[]) ORDER BY seq LIMIT $2
        ) AS first
    ) AS measured WHERE before < $3
) AS taken ON true ORDER BY seq
"""

_REMOVE = """
WITH given AS (
    SELECT * FROM unnest($1::bigint[], $2::text[]) AS given (seq, id)
), gone AS (
    DELETE FROM @events AS e USING given WHERE e.seq = given.seq AND e.id = given.id
)
SELECT pg_current_xact_id()::text::bigint
"""

_BURY = """
WITH given AS (
    SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[]) AS given (seq, id, code, reason)
), gone AS (
    DELETE FROM @events AS e USING given WHERE e.seq = given.seq AND e.id = given.id
    RETURNING e.seq, e.id, e.tenant, e.body, e.created_at, given.code, given.reason
)
INSERT INTO @dead (id, tenant, body, created_at, code, reason)
SELECT id, tenant, body, created_at, code, reason FROM gone ORDER BY seq
"""

_REPORT = """
SELECT
    (SELECT count(*) FROM (SELECT FROM @events WHERE seq > $1 LIMIT $2) AS counted),
    coalesce(extract(epoch FROM clock_timestamp() - (
        SELECT created_at FROM @events WHERE seq > $1 ORDER BY seq LIMIT 1
    )), 0)::float8,
    (SELECT count(*) FROM (SELECT FROM @dead LIMIT $2) AS counted)
"""


class _Floor:
    """The number up to which nothing is left, and nothing can appear any more.

    Deleted rows stay in the index for as long as any transaction of the database is older than their deletion: without
    a floor, each read would walk over all of them.

    A transaction that shows a smaller number than one we removed had begun to write before that removal. So once
    everything is over that was older than the removal's transaction, and a read finds no such row, there is none.
    """

    def __init__(self, *, usable: bool) -> None:
        self._usable = usable
        self._value = 0
        self._mark: tuple[int, int] | None = None
        self._swept_at = time.monotonic()

    def value(self) -> int:
        if time.monotonic() - self._swept_at > SWEEP_SECONDS:
            self._swept_at = time.monotonic()
            return 0
        return self._value

    def removed(self, seq: int, transaction: int) -> None:
        """A row with this number was removed in this transaction."""
        if self._usable and self._mark is None and seq > self._value:
            self._mark = (seq, transaction)

    def saw(self, first: int | None, oldest_running: int) -> None:
        """A read of all tenants began with ``first``, when no transaction older than ``oldest_running`` ran."""
        if self._mark is None or oldest_running < self._mark[1]:
            return
        if first is None or first > self._mark[0]:
            self._value = self._mark[0]
            self._mark = None


class PostgresOutbox:
    """One connection. The lock that makes it the only relay belongs to the session, and goes with it."""

    def __init__(self, options: OutboxOptions) -> None:
        self._address = options.address
        self._names = options.names
        self._connection: asyncpg.Connection[Any] | None = None
        self._table = 0
        self._ordered = False
        self._floor = _Floor(usable=False)

    async def open(self) -> None:
        """See ``Outbox``."""
        with _trouble():
            self._connection = db = await asyncpg.connect(
                self._address,
                timeout=CONNECT_SECONDS,
                command_timeout=STATEMENT_SECONDS,
                server_settings={"application_name": "hookline-relay"},
            )
            await db.execute(_SESSION)
            for name in (self._names.dead, self._names.events):
                table = await db.fetchval(_TABLE, name)
                if table is None:
                    raise OutboxDown(f"there is no table {name}; {MISSING} sql postgresql` prints it")
                self._table = int(table)
            self._ordered = bool(await db.fetchval(_ORDERED, self._table, self._names.trigger))
            self._floor = _Floor(usable=self._ordered)

    async def close(self) -> None:
        """See ``Outbox``."""
        db, self._connection = self._connection, None
        if db is not None:
            with suppress(OutboxDown), _trouble():
                await db.close(timeout=CLOSE_SECONDS)
            db.terminate()

    async def lead(self) -> bool:
        """See ``Outbox``."""
        with _trouble():
            return bool(await self._db.fetchval(_LEAD, self._table))

    async def read(self, rows: int, size: int, without: Sequence[str]) -> list[Row]:
        """See ``Outbox``."""
        with _trouble():
            found = await self._db.fetch(
                self._names.fill(_READ), self._floor.value(), rows, size, list(without), LARGEST
            )
        taken = [
            Row(seq, event, tenant, body.encode(), length)
            for _, seq, event, tenant, body, length in found
            if seq is not None
        ]
        if not without:
            self._floor.saw(taken[0].seq if taken else None, found[0][0])
        return taken

    async def remove(self, rows: Sequence[Row]) -> None:
        """See ``Outbox``."""
        with _trouble():
            transaction = await self._db.fetchval(
                self._names.fill(_REMOVE), [row.seq for row in rows], [row.id for row in rows]
            )
        self._floor.removed(max(row.seq for row in rows), int(transaction))

    async def bury(self, letters: Sequence[DeadLetter]) -> None:
        """See ``Outbox``."""
        with _trouble():
            await self._db.execute(
                self._names.fill(_BURY),
                [letter.row.seq for letter in letters],
                [letter.row.id for letter in letters],
                [letter.code for letter in letters],
                [_storable(letter.reason) for letter in letters],
            )

    async def report(self) -> OutboxReport:
        """See ``Outbox``."""
        with _trouble():
            found = await self._db.fetchrow(self._names.fill(_REPORT), self._floor.value(), COUNTED)
        rows, oldest, dead = found or (0, 0.0, 0)
        return OutboxReport(rows=rows, oldest_seconds=max(0.0, oldest), dead=dead, ordered=self._ordered)

    @property
    def _db(self) -> asyncpg.Connection[Any]:
        if self._connection is None or self._connection.is_closed():
            raise OutboxDown("the connection is lost")
        return self._connection


def _storable(text: str) -> str:
    """PostgreSQL's texts have no NUL, and no halves of letters."""
    return text.replace("\0", "␀").encode(errors="replace").decode()


_TROUBLE = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a connection that breaks just as it is used can end so
    OSError,
    ValueError,
)


@contextmanager
def _trouble() -> Generator[None]:
    """Whatever the server or the network says, for the relay it is one thing: not now."""
    try:
        yield
    except TimeoutError as error:
        raise OutboxDown("the database did not answer in time") from error
    except _TROUBLE as error:
        raise OutboxDown(str(error) or type(error).__name__) from error
