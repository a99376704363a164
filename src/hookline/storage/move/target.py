"""A PostgreSQL database that an installation is moved into.

Everything but the schema is one transaction: until its commit there is nothing to be seen, and whatever ends it early
leaves nothing behind. A mark, written before it, keeps servers out (they find no installation) and lets the same move
begin again.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from msgspec import Struct

from hookline.core.model import Millis
from hookline.core.sharding import shard_of, slice_of
from hookline.storage.move.digest import Digest, digest_of
from hookline.storage.move.plan import Cut, End, MoveRefused
from hookline.storage.move.postgres import Bulk, connected, read_rows, shown, transaction, waiting
from hookline.storage.move.source import check_quiet
from hookline.storage.move.tables import EVENT_IDS, TABLES, Row, Table
from hookline.storage.postgres import lease, partitions
from hookline.storage.postgres.connection import Connection, Link
from hookline.storage.postgres.partitions import DAY
from hookline.storage.postgres.schema import LOCK, SHARDS, SLICES, migrate_database

MOVING = 3
"""The second number of the advisory lock that a move holds; ``schema`` has the others."""

LOCKS_FOR_A_DAY = 24
"""Locks that a day's partitions take, with their indexes and TOAST tables."""
OTHER_LOCKS = 400

Batches = AsyncIterator[Sequence[Row]]
Extra = Callable[[Row], Row]

# --- what rows get at their places -----------------------------------------------------------------------


class Places(Struct, frozen=True):
    """Where rows belong in this database. ``homes`` are the tenants of the subscriptions."""

    cut: Cut
    homes: Mapping[int, int]

    def extras(self, table: Table) -> tuple[tuple[str, ...], Extra]:
        """The columns that a row gets beside its own, and their values."""
        at = {name: place for place, name in enumerate(table.names)}
        shards, slices = self.cut.shards, self.cut.slices
        match table.name:
            case "subscriptions":
                no, tenant = at["no"], at["tenant_no"]
                return ("shard", "slice"), lambda row: (
                    shard_of(row[tenant], shards),
                    slice_of(row[no], slices),
                )
            case "requeues":
                of = at["subscription_no"]
                return ("shard",), lambda row: (shard_of(self.homes[row[of]], shards),)
            case "usage":
                return ("part",), lambda row: (0,)
            case "events":
                tenant, time = at["tenant_no"], at["received_at"]
                return ("shard", "day"), lambda row: (shard_of(row[tenant], shards), row[time] // DAY)
            case "deliveries" | "attempts" | "response_bodies":
                time = at["settled_at" if table.name == "deliveries" else "started_at"]
                return ("day",), lambda row: (row[time] // DAY,)
            case _:
                return (), lambda row: ()


# What must hold for a row to be found by those who look for it: rows at wrong places are not read back.
_SHARD = "t.shard = mod(t.tenant_no, (SELECT shards FROM hookline.installation))"
_IN_PLACE = {
    "subscriptions": f"{_SHARD} AND t.slice = mod(t.no, (SELECT slices FROM hookline.installation))",
    "requeues": "EXISTS (SELECT FROM hookline.subscriptions AS s JOIN hookline.shard_changes AS c ON c.shard = s.shard "
    "WHERE s.no = t.subscription_no AND s.shard = t.shard AND c.version >= t.version)",
    "events": f"{_SHARD} AND t.day = t.received_at / {DAY}",
    "deliveries": f"t.day = t.settled_at / {DAY}",
    "attempts": f"t.day = t.started_at / {DAY}",
    "response_bodies": f"t.day = t.started_at / {DAY}",
}

# --- the mark --------------------------------------------------------------------------------------------

_MAKE_MARK = """
CREATE TABLE IF NOT EXISTS hookline.move (
    only_row    boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    identity    text NOT NULL,
    source      text NOT NULL,
    state       text NOT NULL,
    shards      integer NOT NULL,
    slices      integer NOT NULL,
    started_at  bigint NOT NULL,
    finished_at bigint
)
"""
_MARK = "SELECT identity, source, state, shards, slices, started_at, finished_at FROM hookline.move"
_SET_MARK = """
INSERT INTO hookline.move (identity, source, state, shards, slices, started_at, finished_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)
"""


class Mark(Struct, frozen=True):
    """Which installation is moved into the database, as of which state; ``finished_at`` of None: not to its end."""

    identity: str
    source: str
    state: str
    cut: Cut
    started_at: Millis
    finished_at: Millis | None = None


async def _read_mark(db: Connection) -> Mark | None:
    if not await db.fetchval("SELECT to_regclass('hookline.move') IS NOT NULL"):
        return None
    row = await db.fetchrow(_MARK)
    return None if row is None else Mark(row[0], row[1], row[2], Cut(row[3], row[4]), row[5], row[6])


async def _write_mark(db: Connection, mark: Mark) -> None:
    await db.execute(_MAKE_MARK)
    await db.execute("DELETE FROM hookline.move")
    place = (mark.cut.shards, mark.cut.slices, mark.started_at, mark.finished_at)
    await db.execute(_SET_MARK, mark.identity, mark.source, mark.state, *place)


# --- the database ----------------------------------------------------------------------------------------

_SETTINGS_ROOM = """
SELECT current_setting('max_locks_per_transaction')::bigint, current_setting('max_connections')::bigint
    + current_setting('max_prepared_transactions')::bigint
"""
_OWN_TABLES = (*(table.name for table in TABLES if table.name != "config"), "event_ids", "shard_days")
_CUT_TABLES = ("shard_heads", "shard_changes", "shard_leases")
_EVENT_IDS = """
INSERT INTO hookline.event_ids (tenant_no, id, day, position) SELECT tenant_no, id, day, position FROM hookline.events
"""
_DAYS = """
INSERT INTO hookline.shard_days (shard, day, first_position)
SELECT shard, day, min(position) FROM hookline.events GROUP BY shard, day
"""
# The day in which a shard stands may have no event of its own tenants: what comes next is then its first.
_PRESENT_DAYS = f"""
INSERT INTO hookline.shard_days (shard, day, first_position)
SELECT shard, last_received / {DAY}, head + 1 FROM hookline.shard_heads WHERE head > 0 ON CONFLICT DO NOTHING
"""
_CHANGES = """
INSERT INTO hookline.shard_changes (shard, version)
SELECT h.shard, c.version FROM hookline.shard_heads AS h CROSS JOIN hookline.config AS c
"""
_LEASES = """
INSERT INTO hookline.shard_leases (shard, slice, watermark)
SELECT s.shard, n.slice, s.watermark FROM unnest($1::integer[], $2::bigint[]) AS s (shard, watermark)
CROSS JOIN generate_series(0, $3::integer - 1) AS n (slice)
"""
_HEADS = """
INSERT INTO hookline.shard_heads (shard, head, last_received)
SELECT * FROM unnest($1::integer[], $2::bigint[], $3::bigint[])
"""
_NEXT_NO = """
SELECT setval(pg_get_serial_sequence('hookline.{table}', 'no'), coalesce(max(no), 0) + 1, false) FROM hookline.{table}
"""
# Without joining the events themselves: they are read on their own, and are large.
_IDS = f"""
SELECT i.tenant_no, i.id, i.position, i.day FROM hookline.event_ids AS i
JOIN hookline.shard_heads AS h
    ON h.shard = mod(i.tenant_no, (SELECT shards FROM hookline.installation)) AND h.head >= i.position
    AND h.last_received / {DAY} >= i.day
JOIN hookline.shard_days AS d ON d.shard = h.shard AND d.day = i.day AND d.first_position <= i.position
"""
_SHARDS = """
SELECT l.shard, l.slice, h.head, h.last_received, l.watermark
FROM hookline.shard_leases AS l JOIN hookline.shard_heads AS h ON h.shard = l.shard
JOIN hookline.shard_changes AS c ON c.shard = l.shard WHERE l.owner IS NULL AND l.epoch = 0
"""


class PostgresTarget:
    """A database for an installation."""

    def __init__(self, dsn: str) -> None:
        self.name = shown(dsn)
        self._dsn = dsn

    async def prepare(self, mark: Mark, shards: int | None, slices: int | None, seconds: float) -> Mark:
        """Bring the schema, and write the mark with how the log is cut: as asked for, else as it is already. Returns
        the mark; it is finished if this very move was.

        Raises ``MoveRefused`` if the database holds anything but the beginning of this very move.
        """
        async with connected(self._dsn) as db:
            earlier = await self._check(db, mark, seconds)
            if earlier is not None and earlier.finished_at is not None:
                return earlier
            await migrate_database(Link(self._dsn, pooler=True), shards=shards, slices=slices)
            async with transaction(db):
                await self._take_turn(db)
                earlier = await self._check(db, mark, seconds)  # again: others may have been quicker
                if earlier is not None and earlier.finished_at is not None:
                    return earlier
                known = await self._cut(db, earlier)
                cut = Cut(shards or known.shards, slices or known.slices)
                prepared = Mark(mark.identity, mark.source, mark.state, cut, mark.started_at)
                await _write_mark(db, prepared)
                for name in ("installation", *_CUT_TABLES):
                    await db.execute(f"DELETE FROM hookline.{name}")
        return prepared

    async def _cut(self, db: Connection, earlier: Mark | None) -> Cut:
        """How the log is cut by now."""
        found = await db.fetchrow("SELECT shards, slices FROM hookline.installation")
        if found is not None:
            return Cut(*found)
        return Cut(SHARDS, SLICES) if earlier is None else earlier.cut

    async def _check(self, db: Connection, mark: Mark, seconds: float) -> Mark | None:
        """The mark of an earlier run of the same move. Raises ``MoveRefused`` if the database is not free for it."""
        if not await db.fetchval("SELECT to_regclass('hookline.migrations') IS NOT NULL"):
            return None
        earlier = await _read_mark(db)
        if earlier is not None:
            self._compare(earlier, mark)
            if earlier.finished_at is not None:
                return earlier
        check_quiet(self.name, await lease.nodes(db, mark.started_at, seconds), mark.started_at, seconds)
        await self._check_empty(db)
        return earlier

    def _compare(self, earlier: Mark, mark: Mark) -> None:
        if earlier.identity != mark.identity:
            what = "holds" if earlier.finished_at is not None else "was being filled with"
            raise MoveRefused(
                f"{self.name} {what} another installation, from {earlier.source}: a move needs a database of its own"
            )
        if earlier.finished_at is not None and earlier.state != mark.state:
            raise MoveRefused(
                f"{mark.source} was moved to {self.name} before, and was used again since: what it did after that is "
                "not there. To move it as it is now, give a database of its own"
            )

    async def _check_empty(self, db: Connection) -> None:
        """Raises ``MoveRefused`` if there are rows."""
        used = [
            name
            for name in _OWN_TABLES
            if await db.fetchval(f"SELECT to_regclass('hookline.{name}') IS NOT NULL")
            and await db.fetchval(f"SELECT EXISTS (SELECT FROM hookline.{name})")
        ]
        if used:
            raise MoveRefused(
                f"{self.name} is not empty ({', '.join(used)}): a move needs a database of its own, that was not "
                "served before"
            )

    async def _take_turn(self, db: Connection) -> None:
        """Let no other move into this database begin until the transaction ends."""
        async with waiting(f"another move to {self.name} is under way"):
            await db.execute("SELECT pg_advisory_xact_lock($1, $2)", LOCK, MOVING)

    @asynccontextmanager
    async def filling(self, mark: Mark, places: Places) -> AsyncGenerator[Filling]:
        """The transaction in which the database is filled. It is committed at the end, or leaves nothing."""
        async with connected(self._dsn) as db, transaction(db):
            await self._take_turn(db)
            async with waiting(f"{self.name} is in use: a move needs a database of its own"):
                await db.execute(f"LOCK TABLE {_named(_OWN_TABLES)} IN EXCLUSIVE MODE")
            await self._check_empty(db)
            yield Filling(self.name, db, mark, places)


class Filling:
    """The steps that fill the database, in their order."""

    def __init__(self, name: str, db: Bulk, mark: Mark, places: Places) -> None:
        self._name = name
        self._db = db
        self._mark = mark
        self._places = places

    async def begin(self, days: Sequence[int]) -> None:
        """Make the partitions of these days. Raises ``MoveRefused`` if the server could not hold that many."""
        locks, sessions = await self._db.fetchrow(_SETTINGS_ROOM) or (0, 0)
        needed = LOCKS_FOR_A_DAY * len(days) + OTHER_LOCKS
        if needed > locks * sessions:
            raise MoveRefused(
                f"there are records of {len(days)} days, and one transaction must make the partitions of all: set "
                f"max_locks_per_transaction of {self._name} to at least {needed // sessions + 1} for the move "
                f"(now {locks})"
            )
        await partitions.make(self._db, days)
        await self._db.execute("DELETE FROM hookline.config")

    async def fill(self, table: Table, batches: Batches) -> None:
        """Store the rows, each with what it gets at its place."""
        columns, extra = self._places.extras(table)
        await self._db.copy_records_to_table(
            table.name,
            schema_name="hookline",
            columns=(*table.names, *columns),
            records=_placed(batches, extra if columns else None),
        )

    async def complete(self, ends: Sequence[End]) -> None:
        """Derive what the rows do not say themselves, let there be an installation, and tell the planner of it."""
        db, cut = self._db, self._mark.cut
        shards = [end.shard for end in ends]
        await db.execute(_HEADS, shards, [end.head for end in ends], [end.last_received for end in ends])
        await db.execute(_LEASES, shards, [end.watermark for end in ends], cut.slices)
        for statement in (_CHANGES, _EVENT_IDS, _DAYS, _PRESENT_DAYS):
            await db.execute(statement)
        for name in ("api_keys", "replays"):
            await db.execute(_NEXT_NO.format(table=name))
        await db.execute(
            "INSERT INTO hookline.installation (shards, slices) VALUES ($1, $2)", cut.shards, cut.slices
        )
        await db.execute(f"ANALYZE {_named(_OWN_TABLES)}")  # the checks that follow read everything

    def read_back(self, table: Table) -> AsyncGenerator[Sequence[Row]]:
        """The rows that are at their places."""
        query = table.select_postgres(_IN_PLACE.get(table.name, ""))
        return read_rows(self._db, table, query)

    def ids(self) -> AsyncGenerator[Sequence[Row]]:
        """The ids of events, as ``id_of`` has them, with which an event can be found."""
        return read_rows(self._db, EVENT_IDS, _IDS)

    async def shards(self) -> Digest:
        """The digest of the slices of all shards as they are there; see ``expected_shards``."""
        return digest_of(tuple(row) for row in await self._db.fetch(_SHARDS))

    async def finish(self, now: Millis) -> None:
        """The last step: mark the move as finished."""
        mark = self._mark
        await _write_mark(
            self._db, Mark(mark.identity, mark.source, mark.state, mark.cut, mark.started_at, now)
        )


def id_of(event: Row) -> Row:
    """What the table of event ids must know of an event."""
    position, tenant_no, event_id, received_at = event[0], event[1], event[2], event[6]
    return tenant_no, event_id, position, received_at // DAY


def expected_shards(ends: Sequence[End], cut: Cut) -> Digest:
    """The digest of the slices of all shards as they must be."""
    return digest_of(
        (end.shard, number, end.head, end.last_received, end.watermark)
        for end in ends
        for number in range(cut.slices)
    )


def _named(tables: Sequence[str]) -> str:
    return ", ".join(f"hookline.{name}" for name in tables)


async def _placed(batches: Batches, extra: Extra | None) -> AsyncIterator[Row]:
    async for rows in batches:
        for row in rows:
            yield row if extra is None else (*row, *extra(row))
