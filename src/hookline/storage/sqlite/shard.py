"""What a new owner of the shard starts from."""

from __future__ import annotations

from sqlite3 import Connection

from hookline.core.model import LaneState, Order, Position
from hookline.ports import LanePosition, ShardState
from hookline.storage.common import effective_cursor
from hookline.storage.sqlite import replays
from hookline.storage.sqlite.connection import converted, snapshot
from hookline.storage.sqlite.lease import fence
from hookline.storage.sqlite.subscriptions import changes

# Each starts from the lanes, so its cost goes with the lanes and what waits, never with the log.
_LANES = """
SELECT l.subscription_no, l.cursor, l.sequence, l.live, l.ahead, l.failing_since, l.warned_at
FROM lanes AS l CROSS JOIN subscriptions AS s ON s.no = l.subscription_no WHERE s.shard = ?
ORDER BY l.subscription_no
"""
_ABOVE = """
SELECT position FROM deliveries WHERE subscription_no = ?1 AND position > ?2
UNION ALL
SELECT position FROM unsettled WHERE subscription_no = ?1 AND position > ?2
"""
_WAITING = "SELECT count(*), coalesce(min(due_at), 0) FROM unsettled WHERE subscription_no = ?"
_KEYS = "SELECT DISTINCT key FROM unsettled WHERE subscription_no = ? AND key IS NOT NULL ORDER BY key"
_RUNNING = f"""
SELECT {replays.REPLAY} FROM replays AS r CROSS JOIN subscriptions AS s ON s.no = r.subscription_no
WHERE r.state = 'running' AND s.shard = ? ORDER BY r.no
"""


def load(db: Connection, shard: int, epoch: int) -> ShardState:
    """See ``DeliveryStore.load_shard``."""
    with snapshot(db):
        watermark, _ = fence(db, shard, epoch)
        news = changes(db, 0)
        order = {each.no: each.definition.order for each in news.subscriptions}
        head = db.execute("SELECT head FROM shards WHERE shard = ?", (shard,)).fetchone()[0]
        lanes = [
            _lane(db, LaneState(*converted(row, {3: bool, 4: bool})), watermark, order[row[0]])
            for row in db.execute(_LANES, (shard,))
            if row[0] in order
        ]
        running = [replays.decode(row) for row in db.execute(_RUNNING, (shard,))]
    return ShardState(
        watermark, head, news, lanes, [each for each in running if each.subscription_no in order]
    )


def _lane(db: Connection, lane: LaneState, watermark: Position, order: Order) -> LanePosition:
    no = lane.subscription_no
    above = db.execute(_ABOVE, (no, effective_cursor(lane, watermark)))
    count, next_due = db.execute(_WAITING, (no,)).fetchone()
    blocked = db.execute(_KEYS, (no,)) if order is Order.KEY and count else ()
    return LanePosition(
        lane, frozenset(row[0] for row in above), count, next_due, [key for (key,) in blocked]
    )
