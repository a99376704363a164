"""The statements about the processes of the installation."""

from __future__ import annotations

from sqlite3 import Connection

from msgspec.structs import astuple, replace

from hookline.core.model import Millis
from hookline.ports import Lease, Node, Progress

_SEEN = "INSERT OR REPLACE INTO nodes (id, role, version, started_at, seen_at) VALUES (?, ?, ?, ?, ?)"
_NODES = "SELECT id, role, version, started_at, seen_at FROM nodes WHERE seen_at >= ? ORDER BY id"
_LONG_GONE = 24 * 3600 * 1000
_PROGRESS = """
SELECT s.head, s.watermark, count(u.position), coalesce(min(u.due_at) FILTER (WHERE n.state = 'active'), 0)
FROM shards AS s LEFT JOIN (unsettled AS u JOIN subscriptions AS n ON n.no = u.subscription_no) ON 1 WHERE s.shard = 0
"""
_LEASES = "SELECT shard, coalesce(owner, ''), epoch, expires_at FROM shards ORDER BY shard"


def beat(db: Connection, node: Node, now: Millis, seconds: float) -> list[Node]:
    """See ``DeliveryStore.beat``."""
    db.execute("DELETE FROM nodes WHERE seen_at < ?", (now - _LONG_GONE,))
    db.execute(_SEEN, astuple(replace(node, seen_at=now)))
    return nodes(db, now, seconds)


def nodes(db: Connection, now: Millis, seconds: float) -> list[Node]:
    return [Node(*row) for row in db.execute(_NODES, (now - int(seconds * 1000),))]


def leave(db: Connection, node_id: str) -> None:
    db.execute("DELETE FROM nodes WHERE id = ?", (node_id,))


def progress(db: Connection, lease: Lease) -> Progress:
    """See ``DeliveryStore.progress``."""
    return Progress(lease.shard, lease.slice, lease.owner, *db.execute(_PROGRESS).fetchone())


def leases(db: Connection) -> list[Lease]:
    """Owners as they are written down, whether they live or not."""
    return [Lease(*row) for row in db.execute(_LEASES)]
