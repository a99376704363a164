"""The statements that remove what is past its time: rows of one tenant, and whole days of all."""

from __future__ import annotations

from msgspec import Struct

from hookline.core.model import Millis, Position
from hookline.core.sharding import shard_of
from hookline.storage.postgres import partitions
from hookline.storage.postgres.connection import Connection
from hookline.storage.postgres.days import Days
from hookline.storage.postgres.log import BLOCK_BITS, position_at
from hookline.storage.postgres.pool import Pool
from hookline.storage.postgres.schema import LOCK, RETAINING

# Tenants' old events may be removed side by side, but not beside the dropping of a day: each would wait for what the
# other has removed already.
_BESIDE_OTHERS = "SELECT pg_advisory_xact_lock_shared($1, $2)"
_ALONE = "SELECT pg_advisory_xact_lock($1, $2)"

# --- events ------------------------------------------------------------------------------------------

_OLD_EVENTS = """
SELECT day, position FROM hookline.events
WHERE tenant_no = $1 AND day <= $2 AND position <= $3 AND (day, position) <= ($2, $3) ORDER BY day, position LIMIT $4
"""
_REMOVE_EVENTS = """
DELETE FROM hookline.events WHERE shard = $1 AND day = $2 AND position = ANY ($3::bigint[]) RETURNING id
"""
_REMOVE_IDS = "DELETE FROM hookline.event_ids WHERE tenant_no = $1 AND id = ANY ($2::text[])"
_FLOOR = "SELECT position FROM hookline.events WHERE tenant_no = $1 ORDER BY day, position LIMIT 1"
_REMOVE_BLOCKS = "DELETE FROM hookline.event_blocks WHERE tenant_no = $1 AND block < $2"


async def remove_events(
    db: Connection, days: Days, shards: int, tenant_no: int, before: Millis, until: Position, limit: int
) -> int:
    await db.execute(_BESIDE_OTHERS, LOCK, RETAINING)
    shard = shard_of(tenant_no, shards)
    last = min(until, await position_at(db, shard, before))
    await days.load(db, shard)
    rows = await db.fetch(_OLD_EVENTS, tenant_no, days.until(shard, last), last, limit)
    by_day: dict[int, list[Position]] = {}
    for day, position in rows:
        by_day.setdefault(day, []).append(position)
    removed = 0
    for day, positions in by_day.items():
        gone = await db.fetch(_REMOVE_EVENTS, shard, day, positions)
        await db.execute(_REMOVE_IDS, tenant_no, [row[0] for row in gone])
        removed += len(gone)
    if removed:
        await _remove_blocks(db, tenant_no, rows[0][1], rows[-1][1] + 1)
    return removed


async def _remove_blocks(db: Connection, tenant_no: int, first: Position, end: Position) -> None:
    """Forget the blocks before the one of the tenant's oldest event. ``first`` was removed, and all before ``end``."""
    oldest = await db.fetchval(_FLOOR, tenant_no)
    floor = (end if oldest is None else oldest) >> BLOCK_BITS
    if floor > first >> BLOCK_BITS:
        await db.execute(_REMOVE_BLOCKS, tenant_no, floor)


# --- attempts and settled deliveries, bodies ---------------------------------------------------------

_OLD_ATTEMPTS = """
SELECT day, position, subscription_no, number FROM hookline.{table}
WHERE tenant_no = $1 AND day <= $2 AND started_at < $3 LIMIT $4
"""
_REMOVE_ATTEMPTS = """
DELETE FROM hookline.{table} AS a
USING unnest($3::bigint[], $4::integer[], $5::integer[]) AS n (position, subscription_no, number)
WHERE a.tenant_no = $1 AND a.day = $2 AND a.position = n.position AND a.subscription_no = n.subscription_no
    AND a.number = n.number
"""
_BODIES_GONE = """
UPDATE hookline.attempts AS a SET has_body = false
FROM unnest($3::bigint[], $4::integer[], $5::integer[]) AS n (position, subscription_no, number)
WHERE a.tenant_no = $1 AND a.day = $2 AND a.position = n.position AND a.subscription_no = n.subscription_no
    AND a.number = n.number
"""
_OLD_DELIVERIES = """
SELECT d.day, d.position, d.subscription_no
FROM hookline.subscriptions AS s JOIN hookline.deliveries AS d ON d.subscription_no = s.no
WHERE s.tenant_no = $1 AND d.day <= $2 AND d.settled_at < $3 LIMIT $4
"""
_REMOVE_DELIVERIES = """
DELETE FROM hookline.deliveries AS d USING unnest($2::bigint[], $3::integer[]) AS n (position, subscription_no)
WHERE d.day = $1 AND d.position = n.position AND d.subscription_no = n.subscription_no AND d.settled_at < $4
"""

Keys = dict[int, list[list[int]]]
"""Columns of key parts, by day."""


async def _keys(db: Connection, query: str, *args: object) -> Keys:
    by_day: dict[int, list[list[int]]] = {}
    for day, *parts in await db.fetch(query, *args):
        columns = by_day.setdefault(day, [[] for _ in parts])
        for column, part in zip(columns, parts, strict=True):
            column.append(part)
    return by_day


def _count(tag: str) -> int:
    """How many rows a command says that it changed."""
    return int(tag.rpartition(" ")[2])


async def remove_attempts(db: Connection, tenant_no: int, before: Millis, limit: int) -> int:
    day, removed = partitions.day_of(before), 0
    old = await _keys(db, _OLD_ATTEMPTS.format(table="attempts"), tenant_no, day, before, limit)
    for at, columns in old.items():
        removed += _count(
            await db.execute(_REMOVE_ATTEMPTS.format(table="attempts"), tenant_no, at, *columns)
        )
        await db.execute(_REMOVE_ATTEMPTS.format(table="response_bodies"), tenant_no, at, *columns)
    if removed < limit:
        settled = await _keys(db, _OLD_DELIVERIES, tenant_no, day, before, limit - removed)
        for at, columns in settled.items():
            removed += _count(await db.execute(_REMOVE_DELIVERIES, at, *columns, before))
    return removed


async def remove_bodies(db: Connection, tenant_no: int, before: Millis, limit: int) -> int:
    day, removed = partitions.day_of(before), 0
    old = await _keys(db, _OLD_ATTEMPTS.format(table="response_bodies"), tenant_no, day, before, limit)
    for at, columns in old.items():
        removed += _count(
            await db.execute(_REMOVE_ATTEMPTS.format(table="response_bodies"), tenant_no, at, *columns)
        )
        await db.execute(_BODIES_GONE, tenant_no, at, *columns)
    return removed


# --- what is still needed ----------------------------------------------------------------------------

_NEEDED = """
SELECT min(least(
    CASE WHEN s.state <> 'deleted' THEN
        1 + CASE WHEN l.live THEN greatest(l.cursor, h.watermark) ELSE coalesce(l.cursor, s.start_after) END
    END,
    (SELECT min(u.position) FROM hookline.unsettled AS u WHERE u.subscription_no = s.no)
))
FROM hookline.subscriptions AS s JOIN hookline.shard_leases AS h ON h.shard = s.shard AND h.slice = s.slice
LEFT JOIN hookline.lanes AS l ON l.subscription_no = s.no
"""
_NEEDED_BY_TENANT = f"{_NEEDED} WHERE s.tenant_no = $1"
_NEEDED_BY_SHARD = f"{_NEEDED} WHERE s.shard = $1"
_HEAD = "SELECT head FROM hookline.shard_heads WHERE shard = $1"


async def oldest_needed(db: Connection, tenant_no: int, shards: int) -> Position:
    head = await db.fetchval(_HEAD, shard_of(tenant_no, shards))
    needed = await db.fetchval(_NEEDED_BY_TENANT, tenant_no)
    return head + 1 if needed is None else min(head + 1, needed)


# --- whole days --------------------------------------------------------------------------------------


class Expired(Struct, frozen=True):
    """The times before which nothing is kept for any tenant."""

    events: Millis
    attempts: Millis
    bodies: Millis


STEP = 2000
"""Ids removed in one transaction."""

# Each shard with the last position of a day and the position from which on events are needed.
_DAY_ENDS = """
SELECT d.shard, d.first_position, coalesce(
    (SELECT min(n.first_position) - 1 FROM hookline.shard_days AS n WHERE n.shard = d.shard AND n.day > d.day),
    (SELECT h.head FROM hookline.shard_heads AS h WHERE h.shard = d.shard))
FROM hookline.shard_days AS d WHERE d.day = $1
"""
_REMOVE_DAY_IDS = """
DELETE FROM hookline.event_ids AS i USING hookline.events AS e
WHERE e.shard = $1 AND e.day = $2 AND e.position > $3 AND e.position <= $4 AND i.tenant_no = e.tenant_no AND i.id = e.id
"""
_FORGET_DAY = "DELETE FROM hookline.shard_days WHERE day = $1"
_FORGET_BLOCKS = """
DELETE FROM hookline.event_blocks AS b USING unnest($1::integer[], $2::bigint[]) AS n (shard, floor)
WHERE mod(b.tenant_no, $3::integer) = n.shard AND b.block < n.floor
"""


async def drop_days(pool: Pool, expired: Expired, shards: int) -> int:
    """Drop the partitions of all days that are past their time, and tell how many. A day of events stays while a lane
    or a waiting delivery needs one of them."""
    dropped = 0
    for table, before in (
        ("response_bodies", expired.bodies),
        ("attempts", expired.attempts),
        ("deliveries", expired.attempts),
    ):
        for day in await _past(pool, table, before):
            await pool.write(lambda db, table=table, day=day: partitions.drop(db, table, day))
            dropped += 1
    for day in await _past(pool, "events", expired.events):
        if not await _drop_events(pool, day, shards):
            break
        dropped += 1
    return dropped


async def _past(pool: Pool, table: str, before: Millis) -> list[int]:
    days = await pool.read(lambda db: partitions.days(db, table))
    return [day for day in days if (day + 1) * partitions.DAY <= before]


async def _remove_ids(db: Connection, bounds: tuple[int, int, Position, Position]) -> None:
    await db.execute(_ALONE, LOCK, RETAINING)
    await db.execute(_REMOVE_DAY_IDS, *bounds)


async def _drop_events(pool: Pool, day: int, shards: int) -> bool:
    """Drop a day of events, their ids first; False if some are needed."""
    ends = await pool.read(lambda db: db.fetch(_DAY_ENDS, day))
    for shard, _, last in ends:
        needed = await pool.read(lambda db, shard=shard: db.fetchval(_NEEDED_BY_SHARD, shard))
        if needed is not None and needed <= last:
            return False
    for shard, first, last in ends:
        for after in range(first - 1, last, STEP):
            bounds = (shard, day, after, min(after + STEP, last))
            await pool.write(lambda db, bounds=bounds: _remove_ids(db, bounds))

    async def drop(db: Connection) -> None:
        await db.execute(_ALONE, LOCK, RETAINING)
        await db.execute(_FORGET_DAY, day)
        floors = [(last + 1) >> BLOCK_BITS for _, _, last in ends]
        await db.execute(_FORGET_BLOCKS, [end[0] for end in ends], floors, shards)
        await partitions.drop(db, "events", day)  # last: everyone waits from here to the commit

    await pool.write(drop)
    return True
