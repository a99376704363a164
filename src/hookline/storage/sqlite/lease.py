"""Who may deliver the shard."""

from __future__ import annotations

from sqlite3 import Connection

from hookline.core.errors import Fenced
from hookline.core.model import Millis, Position
from hookline.ports import Lease

Taken = tuple[str, int]
"""Owner and epoch of a lease."""


def fence(db: Connection, shard: int, epoch: int) -> tuple[Position, int]:
    """The shard's watermark, and the number of the last batch that was recorded in this epoch.

    Raises ``Fenced`` unless ``epoch`` is in force: a lease that was given back has none.
    """
    row = db.execute(
        "SELECT epoch, owner, watermark, recorded FROM shards WHERE shard = ?", (shard,)
    ).fetchone()
    if row is None or row[0] != epoch or row[1] is None:
        raise Fenced
    return row[2], row[3]


def take(
    db: Connection, shard: int, owner: str, now: Millis, seconds: float, mine: Taken | None
) -> Lease | None:
    """Take or renew. The caller's process has the delivery lock, so a lease other than ``mine``, the one that this
    storage object took last, is a dead process's."""
    epoch, holder, expires_at = db.execute(
        "SELECT epoch, owner, expires_at FROM shards WHERE shard = ?", (shard,)
    ).fetchone()
    renews = mine == (owner, epoch) and holder == owner
    if not renews and mine == (holder, epoch) and expires_at > now:
        return None
    taken = Lease(shard, owner, epoch if renews else epoch + 1, now + int(seconds * 1000))
    db.execute(
        "UPDATE shards SET owner = ?1, recorded = iif(epoch = ?2, recorded, 0), epoch = ?2, expires_at = ?3"
        " WHERE shard = ?4",
        (owner, taken.epoch, taken.expires_at, shard),
    )
    return taken


def release(db: Connection, lease: Lease) -> bool:
    """Whether the lease was still held."""
    return bool(
        db.execute(
            "UPDATE shards SET owner = NULL, expires_at = 0 WHERE shard = ? AND owner = ? AND epoch = ?",
            (lease.shard, lease.owner, lease.epoch),
        ).rowcount
    )
