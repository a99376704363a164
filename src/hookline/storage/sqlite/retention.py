"""The statements that remove what is past its time.

What is to go is looked for on a reader where that takes a walk, so that only the removal itself holds
up the writers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from sqlite3 import Connection

from msgspec import Struct

from hookline.core.model import LaneState, Millis, Position
from hookline.storage.common import effective_cursor
from hookline.storage.sqlite.log import BLOCK_BITS, head, position_at

_REMOVE_EVENTS = """
DELETE FROM events WHERE position IN
    (SELECT position FROM events WHERE tenant_no = ? AND position <= ? ORDER BY position LIMIT ?)
"""
_FLOOR = "SELECT min(position) FROM events WHERE tenant_no = ?"
_NEXT_LABEL = "SELECT label FROM event_blocks WHERE tenant_no = ? AND label > ? ORDER BY label LIMIT 1"
_REMOVE_BLOCKS = "DELETE FROM event_blocks WHERE tenant_no = ? AND label = ? AND block < ?"


def remove_events(db: Connection, tenant_no: int, before: Millis, until: Position, limit: int) -> int:
    last = min(until, position_at(db, before))
    block = _first_block(db, tenant_no)
    removed = db.execute(_REMOVE_EVENTS, (tenant_no, last, limit)).rowcount
    if removed and (floor := _first_block(db, tenant_no)) != block:
        db.executemany(_REMOVE_BLOCKS, [(tenant_no, label, floor) for label in _labels(db, tenant_no)])
    return removed


def _first_block(db: Connection, tenant_no: int) -> int:
    """The block of the tenant's oldest event; past the log's end if it has none."""
    position = db.execute(_FLOOR, (tenant_no,)).fetchone()[0]
    return (head(db) >> BLOCK_BITS) + 1 if position is None else position >> BLOCK_BITS


def _labels(db: Connection, tenant_no: int) -> Iterator[str]:
    label = ""
    while (row := db.execute(_NEXT_LABEL, (tenant_no, label)).fetchone()) is not None:
        label = row[0]
        yield label


# --- attempts and settled deliveries -----------------------------------------------------------------
# Nothing is attempted before its event is received, so what started before a time is at or below the last
# position of that time; the walk ends there.

_OLD_ATTEMPTS = """
SELECT no FROM attempts INDEXED BY attempts_place
WHERE tenant_no = ? AND position <= ? AND started_at < ? ORDER BY position LIMIT ?
"""
_OLD_DELIVERIES = """
SELECT d.subscription_no, d.position FROM subscriptions AS s CROSS JOIN deliveries AS d
    ON d.subscription_no = s.no AND d.position <= ?2
WHERE s.tenant_no = ?1 AND d.settled_at < ?3 LIMIT ?4
"""


class Expired(Struct, frozen=True):
    """Attempts by number of their row, deliveries by subscription and position."""

    before: Millis
    attempts: Sequence[tuple[int]]
    deliveries: Sequence[tuple[int, Position]]


def find_expired(db: Connection, tenant_no: int, before: Millis, limit: int) -> Expired:
    last = position_at(db, before)
    attempts = db.execute(_OLD_ATTEMPTS, (tenant_no, last, before, limit)).fetchall()
    left = limit - len(attempts)
    deliveries = db.execute(_OLD_DELIVERIES, (tenant_no, last, before, left)).fetchall() if left else []
    return Expired(before, attempts, deliveries)


def remove_expired(db: Connection, expired: Expired) -> int:
    """Remove them; a delivery that was settled again meanwhile stays."""
    db.executemany("DELETE FROM response_bodies WHERE attempt_no = ?", expired.attempts)
    gone = db.executemany("DELETE FROM attempts WHERE no = ?", expired.attempts).rowcount
    rows = [(*place, expired.before) for place in expired.deliveries]
    sql = "DELETE FROM deliveries WHERE subscription_no = ? AND position = ? AND settled_at < ?"
    return max(gone, 0) + max(db.executemany(sql, rows).rowcount, 0)


# --- bodies ------------------------------------------------------------------------------------------

_OLD_BODIES = """
SELECT no FROM attempts WHERE tenant_no = ? AND started_at < ? AND has_body = 1 ORDER BY started_at LIMIT ?
"""


def remove_bodies(db: Connection, tenant_no: int, before: Millis, limit: int) -> int:
    old = db.execute(_OLD_BODIES, (tenant_no, before, limit)).fetchall()
    db.executemany("DELETE FROM response_bodies WHERE attempt_no = ?", old)
    db.executemany("UPDATE attempts SET has_body = 0 WHERE no = ?", old)
    return len(old)


# --- what is still needed ----------------------------------------------------------------------------

_NEEDS = """
SELECT s.no, s.state, s.start_after, l.cursor, l.live,
    (SELECT min(position) FROM unsettled WHERE subscription_no = s.no)
FROM subscriptions AS s LEFT JOIN lanes AS l ON l.subscription_no = s.no WHERE s.tenant_no = ?
"""


def oldest_needed(db: Connection, tenant_no: int) -> Position:
    end, watermark = db.execute("SELECT head, watermark FROM shards WHERE shard = 0").fetchone()
    needed = [end + 1]
    for no, state, start_after, cursor, live, waiting in db.execute(_NEEDS, (tenant_no,)):
        if waiting is not None:
            needed.append(waiting)
        if state != "deleted":
            lane = LaneState(no, start_after if cursor is None else cursor, 0, bool(live))
            needed.append(effective_cursor(lane, watermark) + 1)
    return min(needed)
