"""The statements about the processes of the installation."""

from __future__ import annotations

from sqlite3 import Connection

from msgspec.structs import astuple, replace

from hookline.core.model import Millis
from hookline.ports import Lease, Node

_SEEN = "INSERT OR REPLACE INTO nodes (id, role, version, started_at, seen_at) VALUES (?, ?, ?, ?, ?)"
_NODES = "SELECT id, role, version, started_at, seen_at FROM nodes ORDER BY id"
_LEASES = "SELECT shard, coalesce(owner, ''), epoch, expires_at FROM shards ORDER BY shard"


def beat(db: Connection, node: Node, now: Millis, seconds: float) -> list[Node]:
    """See ``DeliveryStore.beat``."""
    db.execute("DELETE FROM nodes WHERE seen_at < ?", (now - int(seconds * 1000),))
    db.execute(_SEEN, astuple(replace(node, seen_at=now)))
    return [Node(*row) for row in db.execute(_NODES)]


def leave(db: Connection, node_id: str) -> None:
    db.execute("DELETE FROM nodes WHERE id = ?", (node_id,))


def leases(db: Connection) -> list[Lease]:
    """Owners as they are written down, whether they live or not."""
    return [Lease(*row) for row in db.execute(_LEASES)]
