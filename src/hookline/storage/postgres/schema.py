"""The schema: its migrations, and how the installation's log is cut."""

from __future__ import annotations

from importlib.resources import files

from msgspec import Struct

from hookline.core.model import Millis
from hookline.storage.migrate import Migration, SchemaMismatch, at_start, load, missing
from hookline.storage.postgres.connection import Connection, Link, told, transaction
from hookline.storage.postgres.lease import nodes

OLDEST_SERVER = 150000
"""PostgreSQL 15, as ``server_version_num`` has it."""
ENCODING = "UTF8"
"""Of the database. In others a text may not be storable, or is counted and compared by bytes."""

LOCK = 0x686F6F6B
"""The advisory lock under which the schema is changed; with a second number for each kind of change. A move has 3."""
MIGRATING, PARTITIONING, RETAINING = 1, 2, 4

SHARDS = 64
SLICES = 1

_APPLIED = "SELECT name, checksum FROM hookline.migrations"
_NOTED = "INSERT INTO hookline.migrations (number, name, checksum) VALUES ($1, $2, $3)"
_CREATE = """
CREATE TABLE IF NOT EXISTS hookline.migrations (
    number     integer NOT NULL,
    name       text PRIMARY KEY,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""


class Rollout(Struct, frozen=True):
    """What is asked when nodes may run meanwhile: ``version`` is the one that is rolled out. A node is believed to live
    for ``seconds`` after its last sign of life."""

    version: str
    now: Millis
    seconds: float


class Migrated(Struct, frozen=True):
    """What was applied, and what must wait until no node of another version runs."""

    applied: list[Migration]
    left: list[Migration]


async def migrate_database(
    link: Link,
    *,
    shards: int | None = None,
    slices: int | None = None,
    everything: bool = True,
    rollout: Rollout | None = None,
) -> Migrated:
    """Bring the schema up to date.

    Several nodes may do it at once. ``everything`` includes the steps that must wait until no node of the release
    before runs any more (``post``): a node that starts leaves them out, and so does a ``rollout`` while such nodes
    live. A new database is cut into ``shards`` and ``slices``. Raises ``SchemaMismatch``, at a ``rollout`` also for one
    that is cut otherwise.
    """
    db = await link.connect()
    try:
        await _check_server(db)
        if rollout is not None and await db.fetchval(
            "SELECT to_regclass('hookline.installation') IS NOT NULL"
        ):
            await read_cut(db, shards, slices)
        known = load(files("hookline.storage.postgres") / "migrations")
        found = await _due(db, known, rollout, everything=everything)
        if not found.applied:
            return found
        async with transaction(db, link):
            return await _migrate(
                db, known, (shards or SHARDS, slices or SLICES), rollout, everything=everything
            )
    except Exception as error:  # noqa: BLE001  all of it is told
        raise told(error) from error.__cause__
    finally:
        await db.close(timeout=link.connect_timeout)


async def _migrate(
    db: Connection, known: list[Migration], cut: tuple[int, int], rollout: Rollout | None, *, everything: bool
) -> Migrated:
    await db.execute("SELECT pg_advisory_xact_lock($1, $2)", LOCK, MIGRATING)
    if not await db.fetchval(
        "SELECT to_regnamespace('hookline') IS NOT NULL"
    ):  # one's own needs no right to make it
        await db.execute("CREATE SCHEMA hookline")
    await db.execute(_CREATE)
    found = await _due(db, known, rollout, everything=everything)
    for migration in found.applied:
        await db.execute(migration.sql)
        await db.execute(_NOTED, migration.number, migration.name, migration.checksum)
    await _cut(db, *cut)
    return found


async def _check_server(db: Connection) -> None:
    version = int(await db.fetchval("SELECT current_setting('server_version_num')"))
    if version < OLDEST_SERVER:
        raise SchemaMismatch(f"PostgreSQL {OLDEST_SERVER // 10_000} or newer is needed")
    encoding = await db.fetchval("SELECT current_setting('server_encoding')")
    if encoding != ENCODING:
        raise SchemaMismatch(
            f"the database has the encoding {encoding}, and {ENCODING} is needed: make one with "
            f"CREATE DATABASE … ENCODING '{ENCODING}' TEMPLATE template0"
        )


async def _due(
    db: Connection, known: list[Migration], rollout: Rollout | None, *, everything: bool
) -> Migrated:
    """What is to be applied now, and what later."""
    exists = await db.fetchval("SELECT to_regclass('hookline.migrations') IS NOT NULL")
    applied = {row[0]: row[1] for row in await db.fetch(_APPLIED)} if exists else {}
    lacking = missing(applied, known, rolling=True)
    if not applied or (everything and not await _others_run(db, lacking, rollout)):
        return Migrated(lacking, [])
    due = at_start(lacking)
    return Migrated(due, [each for each in lacking if each not in due])


async def _others_run(db: Connection, lacking: list[Migration], rollout: Rollout | None) -> bool:
    """Whether nodes of another version live. A node applies what it needs when it starts: where any of that lacks, all
    that live are of another."""
    if rollout is None or not lacking:
        return False
    all_are = any(migration.stage != "post" for migration in lacking)
    living = await nodes(db, rollout.now, rollout.seconds)
    return any(all_are or node.version != rollout.version for node in living)


async def _cut(db: Connection, shards: int, slices: int) -> None:
    """Write down how the log is cut, unless it was before."""
    if await db.fetchval("SELECT EXISTS (SELECT FROM hookline.installation)"):
        return
    await db.execute("INSERT INTO hookline.installation (shards, slices) VALUES ($1, $2)", shards, slices)
    for table in ("shard_heads", "shard_changes"):
        await db.execute(
            f"INSERT INTO hookline.{table} (shard) SELECT generate_series(0, $1::integer - 1)", shards
        )
    await db.execute(
        "INSERT INTO hookline.shard_leases (shard, slice) SELECT shard, slice "
        "FROM generate_series(0, $1::integer - 1) AS shard, generate_series(0, $2::integer - 1) AS slice",
        shards,
        slices,
    )


async def read_cut(db: Connection, shards: int | None, slices: int | None) -> tuple[int, int]:
    """Shards and slices of the installation. Raises ``SchemaMismatch`` if others are asked for."""
    row = await db.fetchrow("SELECT shards, slices FROM hookline.installation")
    if row is None:
        raise SchemaMismatch(
            "the database has the schema, but was never cut into shards, or a move into it was not finished: "
            "run hookline migrate, with the same --from and --to if it was a move"
        )
    for name, asked, stored in (("shards", shards, row[0]), ("slices", slices, row[1])):
        if asked is not None and asked != stored:
            raise SchemaMismatch(
                f"the database was made with {stored} {name} and cannot be changed to {asked}: positions and leases "
                f"depend on it; move to a new database with hookline migrate --from … --to …"
            )
    return row[0], row[1]


async def is_durable(db: Connection) -> bool:
    """Whether what is committed survives a power cut, as far as the server's settings tell."""
    return await db.fetchval(
        "SELECT current_setting('fsync') = 'on' AND current_setting('synchronous_commit') <> 'off'"
    )


async def is_read_only(db: Connection) -> bool:
    """Whether a write would be refused: a replica, or a server that was set so."""
    return await db.fetchval(
        "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean"
    )
