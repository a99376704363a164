"""The statements behind the lists of the API and the console."""

from __future__ import annotations

import heapq
from sqlite3 import Connection

from msgspec.structs import replace

from hookline.core.model import Attempt, DeliveryState, Event, LaneState, Millis, Position, Unsettled, Usage
from hookline.ports import Delivery, DeliveryQuery, EventQuery
from hookline.storage.common import (
    delivery_of_settled,
    delivery_of_unsettled,
    effective_cursor,
    final_states,
)
from hookline.storage.sqlite.connection import Row, converted, snapshot
from hookline.storage.sqlite.deliveries import (
    SETTLED,
    UNSETTLED,
    decode_settled,
    one_settled,
    one_unsettled,
    settled_range,
)
from hookline.storage.sqlite.log import BLOCK_BITS, EVENT, decode, head, position_at

Window = tuple[Position, Position]
"""First and last position that a query is about."""


def _window(db: Connection, before: Position, since: Millis, until: Millis) -> Window:
    low = position_at(db, since) if since else 0
    high = position_at(db, until) if until else head(db)
    return low + 1, min(high, before - 1) if before else high


# --- events ------------------------------------------------------------------------------------------


def list_events(db: Connection, query: EventQuery) -> list[Event]:
    window = _window(db, query.before, query.since, query.until)
    if query.object_id or query.correlation_id or not (query.type or query.object_type):
        return _list_by_index(db, query, window, query.limit)
    return _list_by_blocks(db, query, window)


def _list_by_index(db: Connection, query: EventQuery, window: Window, limit: int) -> list[Event]:
    filters = {
        "object_id": query.object_id,
        "correlation_id": query.correlation_id,
        "object_type": query.object_type,
        "type": query.type,
    }
    chosen = {column: value for column, value in filters.items() if value}
    sql = _list_query(_index_for(query), tuple(chosen))
    return decode(db.execute(sql, (query.tenant_no, *window, *chosen.values(), limit)))


def _index_for(query: EventQuery) -> str:
    if query.object_id:
        return "events_object"
    return "events_correlation" if query.correlation_id else "events_tenant"


def _list_query(index: str, columns: tuple[str, ...]) -> str:
    filters = "".join(f"AND {column} = ? " for column in columns)
    return (
        f"SELECT {EVENT} FROM events INDEXED BY {index} WHERE tenant_no = ? "
        f"AND position >= ? AND position <= ? {filters}ORDER BY position DESC LIMIT ?"
    )


_BLOCKS = """
SELECT block FROM event_blocks WHERE tenant_no = ? AND label = ? AND block >= ? AND block <= ? ORDER BY block DESC
"""


def _list_by_blocks(db: Connection, query: EventQuery, window: Window) -> list[Event]:
    """By type or object type alone: only blocks that hold one are read, at most as many as the page has events."""
    first, last = window
    label = f"t:{query.type}" if query.type else f"o:{query.object_type}"
    found: list[Event] = []
    for (block,) in db.execute(_BLOCKS, (query.tenant_no, label, first >> BLOCK_BITS, last >> BLOCK_BITS)):
        low = block << BLOCK_BITS
        inside = max(first, low), min(last, low + (1 << BLOCK_BITS) - 1)
        found += _list_by_index(db, query, inside, query.limit - len(found))
        if len(found) >= query.limit:
            break
    return found


# --- deliveries --------------------------------------------------------------------------------------

_WAITING_STATES = frozenset({DeliveryState.PENDING, DeliveryState.RETRYING})

# One text for both of its states: the hot table is small.
_WAITING = f"""
SELECT {UNSETTLED} FROM unsettled WHERE subscription_no = ? AND position >= ? AND position <= ?
    AND (attempts = 0 AND ? OR attempts > 0 AND ?)
ORDER BY position DESC LIMIT ?
"""
_columns = SETTLED.replace(", ", ", d.").replace("subscription_no", "d.subscription_no", 1)
_EVENT_SETTLED = f"""
SELECT {_columns} FROM subscriptions AS s CROSS JOIN deliveries AS d
    ON d.subscription_no = s.no AND d.position = ? WHERE s.tenant_no = ? ORDER BY s.no
"""
_columns = UNSETTLED.replace(", ", ", d.").replace("subscription_no", "d.subscription_no", 1)
_EVENT_UNSETTLED = f"""
SELECT {_columns} FROM subscriptions AS s CROSS JOIN unsettled AS d
    ON d.subscription_no = s.no AND d.position = ? WHERE s.tenant_no = ? ORDER BY s.no
"""


def list_deliveries(db: Connection, query: DeliveryQuery) -> list[Delivery]:
    with snapshot(db):  # a delivery that moves from one table to the other meanwhile is seen in one of them
        window = _window(db, query.before, query.since, query.until)
        settled, waits = _settled(db, query, window), _waits(db, query, window)
    merged = heapq.merge(settled, waits, key=lambda delivery: delivery.position, reverse=True)
    return [delivery for _, delivery in zip(range(query.limit), merged, strict=False)]


def _settled(db: Connection, query: DeliveryQuery, window: Window) -> list[Delivery]:
    states = final_states(query.states)
    first, last = window
    rows = settled_range(db, query.subscription_no, first - 1, last, states, query.limit, newest_first=True)
    return [delivery_of_settled(row) for row in rows]


def _waits(db: Connection, query: DeliveryQuery, window: Window) -> list[Delivery]:
    states = query.states or _WAITING_STATES
    wanted = (DeliveryState.PENDING in states, DeliveryState.RETRYING in states)
    if not any(wanted):
        return []
    rows = db.execute(_WAITING, (query.subscription_no, *window, *wanted, query.limit))
    return [delivery_of_unsettled(Unsettled(*row)) for row in rows]


def get_delivery(db: Connection, subscription_no: int, position: Position) -> Delivery | None:
    with snapshot(db):
        settled = one_settled(db, subscription_no, position)
        if settled is not None:
            return delivery_of_settled(settled)
        waits = one_unsettled(db, subscription_no, position)
    return None if waits is None else delivery_of_unsettled(waits)


def event_deliveries(db: Connection, tenant_no: int, position: Position) -> list[Delivery]:
    """One look-up in each table for each subscription of the tenant."""
    with snapshot(db):
        settled = [decode_settled(row) for row in db.execute(_EVENT_SETTLED, (position, tenant_no))]
        waits = [Unsettled(*row) for row in db.execute(_EVENT_UNSETTLED, (position, tenant_no))]
    found = [*map(delivery_of_settled, settled), *map(delivery_of_unsettled, waits)]
    return sorted(found, key=lambda delivery: delivery.subscription_no)


# --- attempts ----------------------------------------------------------------------------------------

_ATTEMPTS = """
SELECT a.subscription_no, a.position, a.number, a.version, a.started_at, a.method, a.url, a.status, a.error,
    a.detail, a.address, a.dns_us, a.connect_us, a.tls_us, a.first_byte_us, a.total_us, a.request_headers,
    a.request_bytes, a.response_headers, coalesce(b.body, x''), a.response_truncated
FROM attempts AS a LEFT JOIN response_bodies AS b ON a.has_body = 1 AND b.attempt_no = a.no
WHERE a.tenant_no = (SELECT tenant_no FROM subscriptions WHERE no = ?1) AND a.position = ?2
    AND a.subscription_no = ?1
"""
_ATTEMPTS_OF = _ATTEMPTS + "ORDER BY a.number"
_ONE_ATTEMPT = _ATTEMPTS + "AND a.number = ?3"


def _attempt(row: Row) -> Attempt:
    return Attempt(*converted(row, {20: bool}))


def list_attempts(db: Connection, subscription_no: int, position: Position) -> list[Attempt]:
    return [_attempt(row) for row in db.execute(_ATTEMPTS_OF, (subscription_no, position))]


def get_attempt(db: Connection, subscription_no: int, position: Position, number: int) -> Attempt | None:
    row = db.execute(_ONE_ATTEMPT, (subscription_no, position, number)).fetchone()
    return None if row is None else _attempt(row)


# --- lanes and usage ---------------------------------------------------------------------------------

_LANE = """
SELECT l.subscription_no, l.cursor, l.sequence, l.live, l.ahead, l.failing_since, l.warned_at, s.watermark
FROM lanes AS l, shards AS s WHERE l.subscription_no = ? AND s.shard = 0
"""
_USAGE = """
SELECT tenant_no, day, events, event_bytes, attempts, attempt_bytes FROM usage
WHERE tenant_no = ? AND day >= ? AND day <= ? ORDER BY day
"""


def lane_state(db: Connection, subscription_no: int) -> LaneState | None:
    row = db.execute(_LANE, (subscription_no,)).fetchone()
    if row is None:
        return None
    lane = LaneState(*converted(row[:7], {3: bool, 4: bool}))
    return replace(lane, cursor=effective_cursor(lane, row[7]))


def usage(db: Connection, tenant_no: int, since_day: str, until_day: str) -> list[Usage]:
    return [Usage(*row) for row in db.execute(_USAGE, (tenant_no, since_day, until_day))]
