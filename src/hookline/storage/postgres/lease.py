"""Who may deliver which slice, and the processes of the installation."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import astuple, replace

from hookline.core.errors import Fenced
from hookline.core.model import Millis, Position
from hookline.ports import Lease, Node, Progress
from hookline.storage.postgres.connection import Connection

_WATERMARK = """
SELECT watermark FROM hookline.shard_leases WHERE shard = $1 AND slice = $2 AND epoch = $3 AND owner IS NOT NULL
"""
_HOLD = """
SELECT FROM hookline.shard_leases WHERE (shard, slice) = (SELECT shard, slice FROM hookline.subscriptions WHERE no = $1)
FOR NO KEY UPDATE
"""
_TAKE = """
UPDATE hookline.shard_leases SET expires_at = $4, owner = $3,
    epoch = CASE WHEN owner = $3 THEN epoch ELSE epoch + 1 END,
    recorded = CASE WHEN owner = $3 THEN recorded ELSE 0 END
WHERE shard = $1 AND slice = $2 AND (owner IS NULL OR owner = $3 OR expires_at <= $5) RETURNING epoch
"""
_RENEW = """
WITH free AS (
    SELECT l.shard, l.slice FROM hookline.shard_leases AS l
    JOIN unnest($1::int[], $2::int[], $3::text[], $4::bigint[]) AS mine (shard, slice, owner, epoch)
        ON (l.shard, l.slice, l.owner, l.epoch) = (mine.shard, mine.slice, mine.owner, mine.epoch)
    FOR NO KEY UPDATE OF l SKIP LOCKED
)
UPDATE hookline.shard_leases AS l SET expires_at = $5 FROM free WHERE (l.shard, l.slice) = (free.shard, free.slice)
RETURNING l.shard, l.owner, l.epoch, l.expires_at, l.slice
"""
_RELEASE = """
UPDATE hookline.shard_leases SET owner = NULL, expires_at = 0
WHERE shard = $1 AND slice = $2 AND owner = $3 AND epoch = $4
"""
_LEASES = """
SELECT shard, CASE WHEN expires_at > $1 THEN coalesce(owner, '') ELSE '' END, epoch, expires_at, slice
FROM hookline.shard_leases ORDER BY shard, slice
"""
_SEEN = """
INSERT INTO hookline.nodes (id, role, version, started_at, seen_at) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (id) DO UPDATE SET role = excluded.role, version = excluded.version, started_at = excluded.started_at,
    seen_at = excluded.seen_at
"""
_NODES = "SELECT id, role, version, started_at, seen_at FROM hookline.nodes WHERE seen_at >= $1 ORDER BY id"
_LONG_GONE: Millis = 24 * 3600 * 1000
_PROGRESS = """
SELECT l.shard, l.slice, CASE WHEN l.expires_at > $1 THEN coalesce(l.owner, '') ELSE '' END, h.head, l.watermark,
    coalesce(w.waiting, 0), coalesce(w.next_due, 0)
FROM hookline.shard_leases AS l JOIN hookline.shard_heads AS h ON h.shard = l.shard
LEFT JOIN (
    SELECT s.shard, s.slice, count(*) AS waiting, min(u.due_at) FILTER (WHERE s.state = 'active') AS next_due
    FROM hookline.unsettled AS u JOIN hookline.subscriptions AS s ON s.no = u.subscription_no GROUP BY s.shard, s.slice
) AS w ON w.shard = l.shard AND w.slice = l.slice
ORDER BY l.shard, l.slice
"""


async def fence(db: Connection, shard: int, slice: int, epoch: int) -> Position:
    """The slice's watermark. Raises ``Fenced`` unless ``epoch`` is in force: a lease that was given back has none."""
    row = await db.fetchrow(_WATERMARK, shard, slice, epoch)
    if row is None:
        raise Fenced
    return row[0]


async def hold(db: Connection, subscription_no: int) -> None:
    """Let nobody else write deliveries of the subscription's slice until this transaction ends."""
    await db.execute(_HOLD, subscription_no)


async def take(
    db: Connection, shard: int, slice: int, owner: str, now: Millis, seconds: float
) -> Lease | None:
    """Take or renew."""
    expires_at = now + int(seconds * 1000)
    epoch = await db.fetchval(_TAKE, shard, slice, owner, expires_at, now)
    return None if epoch is None else Lease(shard, owner, epoch, expires_at, slice)


async def renew(db: Connection, held: Sequence[Lease], now: Millis, seconds: float) -> list[Lease]:
    """Renew those that no record holds at this moment: it waits for none, so that one that hangs costs no other."""
    columns = zip(*((each.shard, each.slice, each.owner, each.epoch) for each in held), strict=True)
    rows = await db.fetch(_RENEW, *map(list, columns), now + int(seconds * 1000)) if held else []
    return [Lease(*row) for row in rows]


async def release(db: Connection, lease: Lease) -> None:
    await db.execute(_RELEASE, lease.shard, lease.slice, lease.owner, lease.epoch)


async def leases(db: Connection, now: Millis) -> list[Lease]:
    return [Lease(*row) for row in await db.fetch(_LEASES, now)]


async def progress(db: Connection, now: Millis) -> list[Progress]:
    """See ``DeliveryStore.progress``."""
    return [Progress(*row) for row in await db.fetch(_PROGRESS, now)]


async def beat(db: Connection, node: Node, now: Millis, seconds: float) -> list[Node]:
    """See ``DeliveryStore.beat``."""
    await db.execute("DELETE FROM hookline.nodes WHERE seen_at < $1", now - _LONG_GONE)
    await db.execute(_SEEN, *astuple(replace(node, seen_at=now)))
    return await nodes(db, now, seconds)


async def nodes(db: Connection, now: Millis, seconds: float) -> list[Node]:
    return [Node(*row) for row in await db.fetch(_NODES, now - int(seconds * 1000))]


async def leave(db: Connection, node_id: str) -> None:
    await db.execute("DELETE FROM hookline.nodes WHERE id = $1", node_id)
