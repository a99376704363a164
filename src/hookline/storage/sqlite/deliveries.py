"""The statements about deliveries: record, due, resend, replay."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, MutableMapping, Sequence
from sqlite3 import Connection

from msgspec.structs import astuple

from hookline.core.errors import NotFound
from hookline.core.model import Attempt, DeliveryState, Millis, Position, Settled, Unsettled
from hookline.ports import Record
from hookline.storage.common import (
    attempt_bytes,
    day_of,
    final_states,
    hurried,
    sent_again,
    settled_as,
)
from hookline.storage.sqlite.connection import ManyRows, Row, converted
from hookline.storage.sqlite.lease import fence
from hookline.storage.sqlite.log import append
from hookline.storage.sqlite.subscriptions import disable, requeue

SETTLED = "subscription_no, position, sequence, state, attempts, settled_at, status, error"
UNSETTLED = "subscription_no, position, sequence, attempts, due_at, first_at, runs, key, status, error"
"""Columns in the order of ``Settled`` and ``Unsettled``."""

CODES = {DeliveryState.SUCCEEDED: 1, DeliveryState.FAILED: 2, DeliveryState.EXPIRED: 3}
STATES = {code: state for state, code in CODES.items()}

_ATTEMPT = ManyRows(
    """INSERT INTO attempts (tenant_no, subscription_no, position, number, version, started_at, method, url, status,
    error, detail, address, dns_us, connect_us, tls_us, first_byte_us, total_us, request_headers, request_bytes,
    response_headers, response_truncated, has_body)""",
    f"({', '.join('?' * 22)})",
    """ON CONFLICT (tenant_no, position, subscription_no, number) DO UPDATE SET
    version = excluded.version, started_at = excluded.started_at, method = excluded.method, url = excluded.url,
    status = excluded.status, error = excluded.error, detail = excluded.detail, address = excluded.address,
    dns_us = excluded.dns_us, connect_us = excluded.connect_us, tls_us = excluded.tls_us,
    first_byte_us = excluded.first_byte_us, total_us = excluded.total_us,
    request_headers = excluded.request_headers, request_bytes = excluded.request_bytes,
    response_headers = excluded.response_headers, response_truncated = excluded.response_truncated,
    has_body = excluded.has_body
""",
)
_BODY = """
INSERT OR REPLACE INTO response_bodies SELECT no, ?5 FROM attempts
WHERE tenant_no = ?1 AND position = ?2 AND subscription_no = ?3 AND number = ?4
"""
_USAGE = """
INSERT INTO usage (tenant_no, day, attempts, attempt_bytes) VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET
    attempts = attempts + excluded.attempts, attempt_bytes = attempt_bytes + excluded.attempt_bytes
"""
_SETTLE = ManyRows(
    "INSERT INTO deliveries",
    "(?, ?, ?, ?, ?, ?, ?, ?)",
    """ON CONFLICT (subscription_no, position) DO UPDATE SET
    sequence = excluded.sequence, state = excluded.state, attempts = excluded.attempts,
    settled_at = excluded.settled_at, status = excluded.status, error = excluded.error""",
)
_UNSETTLE = "INSERT OR REPLACE INTO unsettled VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_NOT_SETTLED = "DELETE FROM deliveries WHERE subscription_no = ? AND position = ?"
_ANY_UNSETTLED = "SELECT 1 FROM unsettled LIMIT 1"
_NOT_UNSETTLED = "DELETE FROM unsettled WHERE subscription_no = ? AND position = ?"
_LANE = "INSERT OR REPLACE INTO lanes VALUES (?, ?, ?, ?, ?, ?, ?)"


# --- record ------------------------------------------------------------------------------------------


def record(db: Connection, batch: Record, tenants: MutableMapping[int, int]) -> None:
    """See ``DeliveryStore.record``. ``tenants`` remembers which tenant a subscription belongs to."""
    watermark, recorded = fence(db, batch.shard, batch.epoch)
    if batch.number and batch.number <= recorded:
        return
    if batch.attempts:
        _record_attempts(db, batch.attempts, day_of(batch.now), tenants)
    if batch.unsettled:
        put_back(db, batch.unsettled)
    if batch.settled:
        settle(db, batch.settled)
    if batch.lanes:
        db.executemany(_LANE, map(astuple, batch.lanes))
    if batch.watermark != watermark or batch.number:
        place = (batch.watermark, batch.number or recorded, batch.shard)
        db.execute("UPDATE shards SET watermark = ?, recorded = ? WHERE shard = ?", place)
    for no, reason in batch.disabled:
        disable(db, no, reason, batch.now)
    append(db, batch.operational, batch.now)


def _record_attempts(
    db: Connection, attempts: Sequence[Attempt], day: str, tenants: MutableMapping[int, int]
) -> None:
    for no in {attempt.subscription_no for attempt in attempts} - tenants.keys():
        tenants[no] = tenant_of(db, no)
    owners = [tenants[attempt.subscription_no] for attempt in attempts]
    pairs = list(zip(owners, attempts, strict=True))
    _ATTEMPT.insert(db, [_attempt_row(owner, attempt) for owner, attempt in pairs])
    bodies = [
        (owner, each.position, each.subscription_no, each.number, each.response_body)
        for owner, each in pairs
        if each.response_body
    ]
    db.executemany(_BODY, bodies)
    for owner, count in Counter(owners).items():
        size = attempt_bytes(attempt for no, attempt in pairs if no == owner)
        db.execute(_USAGE, (owner, day, count, size))


def _attempt_row(tenant_no: int, attempt: Attempt) -> Row:
    """In the order of the statement's columns; of the body only whether there is one."""
    *fields, body, truncated = astuple(attempt)
    return (tenant_no, *fields, truncated, bool(body))


def tenant_of(db: Connection, subscription_no: int) -> int:
    row = db.execute("SELECT tenant_no FROM subscriptions WHERE no = ?", (subscription_no,)).fetchone()
    if row is None:
        raise NotFound("there is no such subscription")
    return row[0]


def settle(db: Connection, settled: Sequence[Settled]) -> None:
    rows = [
        (
            s.subscription_no,
            s.position,
            s.sequence,
            CODES[s.state],
            s.attempts,
            s.settled_at,
            s.status,
            s.error,
        )
        for s in settled
    ]
    if db.execute(_ANY_UNSETTLED).fetchone():
        db.executemany(_NOT_UNSETTLED, [row[:2] for row in rows])
    _SETTLE.insert(db, rows)


def put_back(db: Connection, unsettled: Sequence[Unsettled]) -> None:
    """Let these wait, whatever was known of them."""
    db.executemany(_NOT_SETTLED, [(each.subscription_no, each.position) for each in unsettled])
    db.executemany(_UNSETTLE, map(astuple, unsettled))


# --- waiting -----------------------------------------------------------------------------------------

_DUE = f"""
SELECT {UNSETTLED} FROM unsettled WHERE subscription_no = ? AND due_at <= ? ORDER BY due_at, position LIMIT ?
"""
_WAITING = "SELECT count(*), coalesce(min(due_at), 0) FROM unsettled WHERE subscription_no = ?"
_ALL_UNSETTLED = f"SELECT {UNSETTLED} FROM unsettled WHERE subscription_no = ? ORDER BY position"
_ONE_UNSETTLED = f"SELECT {UNSETTLED} FROM unsettled WHERE subscription_no = ? AND position = ?"
_ONE_SETTLED = f"SELECT {SETTLED} FROM deliveries WHERE subscription_no = ? AND position = ?"


def due(db: Connection, subscription_no: int, now: Millis, limit: int) -> list[Unsettled]:
    return [Unsettled(*row) for row in db.execute(_DUE, (subscription_no, now, limit))]


def waiting(db: Connection, subscription_no: int) -> tuple[int, Millis]:
    return db.execute(_WAITING, (subscription_no,)).fetchone()


def one_unsettled(db: Connection, subscription_no: int, position: Position) -> Unsettled | None:
    row = db.execute(_ONE_UNSETTLED, (subscription_no, position)).fetchone()
    return None if row is None else Unsettled(*row)


def one_settled(db: Connection, subscription_no: int, position: Position) -> Settled | None:
    row = db.execute(_ONE_SETTLED, (subscription_no, position)).fetchone()
    return None if row is None else decode_settled(row)


def decode_settled(row: Row) -> Settled:
    return Settled(*converted(row, {3: STATES.__getitem__}))


def drop_unsettled(db: Connection, subscription_no: int, now: Millis, state: DeliveryState) -> int:
    dropped = [Unsettled(*row) for row in db.execute(_ALL_UNSETTLED, (subscription_no,))]
    settle(db, [settled_as(each, state, now) for each in dropped])
    return len(dropped)


# --- sending again -----------------------------------------------------------------------------------


def resend(db: Connection, subscription_no: int, positions: Sequence[Position], now: Millis) -> int:
    tenant_of(db, subscription_no)
    found = [_resent(db, subscription_no, position, now) for position in sorted(set(positions))]
    back = [each for each in found if each is not None]
    put_back(db, back)
    if back:
        requeue(db, subscription_no)
    return len(back)


def _resent(db: Connection, subscription_no: int, position: Position, now: Millis) -> Unsettled | None:
    waits = one_unsettled(db, subscription_no, position)
    if waits is not None:
        return hurried(waits, now)
    settled = one_settled(db, subscription_no, position)
    event = db.execute("SELECT key FROM events WHERE position = ?", (position,)).fetchone()
    return None if settled is None or event is None else sent_again(settled, event[0], now)


def settled_range(
    db: Connection,
    subscription_no: int,
    after: Position,
    until: Position,
    states: Iterable[DeliveryState],
    limit: int,
    newest_first: bool = False,
) -> list[Settled]:
    """Up to ``limit`` settled deliveries in (after, until]. Failed and expired ones have an index of their own, so they
    are found among millions that succeeded."""
    codes = sorted(CODES[state] for state in states)
    direction = "DESC" if newest_first else "ASC"
    parts = [codes] if 1 in codes else [[code] for code in codes]
    runs = [
        db.execute(_range_query(part, direction), (subscription_no, after, until, limit)).fetchall()
        for part in parts
    ]
    merged = heapq.merge(*runs, key=lambda row: row[1], reverse=newest_first)
    return [decode_settled(row) for _, row in zip(range(limit), merged, strict=False)]


def _range_query(codes: Sequence[int], direction: str) -> str:
    kept = f"state IN ({', '.join(map(str, codes))})" if 1 in codes else f"state = {codes[0]} AND state <> 1"
    return (
        f"SELECT {SETTLED} FROM deliveries WHERE subscription_no = ? AND {kept} "
        f"AND position > ? AND position <= ? ORDER BY position {direction} LIMIT ?"
    )


_FLOOR = """
SELECT min(position) FROM events WHERE tenant_no = (SELECT tenant_no FROM subscriptions WHERE no = ?)
"""


def first_kept(db: Connection, subscription_no: int) -> Position | None:
    """The position of the oldest event that the subscription's tenant still has. Retention removes a tenant's events
    oldest first, so all from here on are there."""
    return db.execute(_FLOOR, (subscription_no,)).fetchone()[0]


def replayable(
    db: Connection,
    subscription_no: int,
    after: Position,
    until: Position,
    states: Sequence[DeliveryState],
    limit: int,
) -> list[Settled]:
    """Settled deliveries whose events are still there, by position."""
    floor = first_kept(db, subscription_no)
    if floor is None:
        return []
    return settled_range(db, subscription_no, max(after, floor - 1), until, final_states(states), limit)


def count_settled(
    db: Connection, subscription_no: int, after: Position, until: Position, states: Sequence[DeliveryState]
) -> int:
    tenant_of(db, subscription_no)
    floor = first_kept(db, subscription_no)
    if floor is None:
        return 0
    window = (subscription_no, max(after, floor - 1), until)
    return sum(db.execute(_COUNTS[CODES[state]], window).fetchone()[0] for state in final_states(states))


_COUNT = "SELECT count(*) FROM deliveries WHERE subscription_no = ? AND position > ? AND position <= ? AND state = "
_COUNTS = {1: _COUNT + "1", 2: _COUNT + "2 AND state <> 1", 3: _COUNT + "3 AND state <> 1"}
