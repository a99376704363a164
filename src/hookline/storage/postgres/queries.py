"""The statements behind the lists of the API and the console."""

from __future__ import annotations

from heapq import merge
from itertools import islice

from msgspec.structs import replace

from hookline.core.model import Attempt, DeliveryState, Event, LaneState, Millis, Position, Unsettled, Usage
from hookline.core.sharding import shard_of
from hookline.ports import Delivery, DeliveryQuery, EventQuery
from hookline.storage.common import (
    delivery_of_settled,
    delivery_of_unsettled,
    effective_cursor,
    final_states,
)
from hookline.storage.postgres.connection import Connection, Row, is_storable
from hookline.storage.postgres.days import Days
from hookline.storage.postgres.deliveries import (
    SETTLED,
    UNSETTLED,
    Homes,
    decode_settled,
    settled_at,
    settled_range,
    unsettled_at,
)
from hookline.storage.postgres.log import BLOCK_BITS, EVENT, decode, head, position_at

Window = tuple[Position, Position]
"""First and last position that a query is about."""


async def _window(db: Connection, shard: int, before: Position, since: Millis, until: Millis) -> Window:
    low = await position_at(db, shard, since) if since else 0
    high = await position_at(db, shard, until) if until else await head(db, shard)
    return low + 1, min(high, before - 1) if before else high


# --- events ------------------------------------------------------------------------------------------


async def list_events(db: Connection, days: Days, query: EventQuery, shards: int) -> list[Event]:
    if not is_storable(query.type, query.object_type, query.object_id, query.correlation_id):
        return []
    shard = shard_of(query.tenant_no, shards)
    window = await _window(db, shard, query.before, query.since, query.until)
    await days.load(db, shard)
    if query.object_id or query.correlation_id or not (query.type or query.object_type):
        return await _list_by_index(db, days, shard, query, window, query.limit)
    return await _list_by_blocks(db, days, shard, query, window)


async def _list_by_index(
    db: Connection, days: Days, shard: int, query: EventQuery, window: Window, limit: int
) -> list[Event]:
    first, last = window
    filters = {
        "object_id": query.object_id,
        "correlation_id": query.correlation_id,
        "object_type": query.object_type,
        "type": query.type,
    }
    chosen = {column: value for column, value in filters.items() if value}
    bounds = (first, last, days.since(shard, first), days.until(shard, last), limit)
    rows = await db.fetch(_list_query(tuple(chosen)), query.tenant_no, *bounds, *chosen.values())
    return decode(rows)


# The bounds on (day, position) are what an index can start and end at; those on the position hold where the days are
# known only roughly.
def _list_query(columns: tuple[str, ...]) -> str:
    filters = "".join(f" AND e.{column} = ${number}" for number, column in enumerate(columns, 7))
    return (
        f"SELECT {EVENT} FROM hookline.events AS e WHERE e.tenant_no = $1 "
        "AND e.position >= $2 AND e.position <= $3 AND e.day >= $4 AND e.day <= $5 "
        f"AND (e.day, e.position) >= ($4, $2) AND (e.day, e.position) <= ($5, $3){filters} "
        "ORDER BY e.day DESC, e.position DESC LIMIT $6"
    )


_BLOCKS = """
SELECT block FROM hookline.event_blocks WHERE tenant_no = $1 AND label = $2 AND block >= $3 AND block <= $4
ORDER BY block DESC LIMIT $5
"""
BLOCKS_AT_ONCE = 64


async def _list_by_blocks(
    db: Connection, days: Days, shard: int, query: EventQuery, window: Window
) -> list[Event]:
    """By type or object type alone: only blocks that hold one are read, about as many as the page has events."""
    first, last = window
    label = f"t:{query.type}" if query.type else f"o:{query.object_type}"
    found: list[Event] = []
    top = last >> BLOCK_BITS
    while len(found) < query.limit:
        rows = await db.fetch(_BLOCKS, query.tenant_no, label, first >> BLOCK_BITS, top, BLOCKS_AT_ONCE)
        for (block,) in rows:
            low = block << BLOCK_BITS
            inside = max(first, low), min(last, low + (1 << BLOCK_BITS) - 1)
            found += await _list_by_index(db, days, shard, query, inside, query.limit - len(found))
            if len(found) >= query.limit:
                break
        if len(rows) < BLOCKS_AT_ONCE:
            break
        top = rows[-1][0] - 1
    return found


# --- deliveries --------------------------------------------------------------------------------------

_WAITING_STATES = frozenset({DeliveryState.PENDING, DeliveryState.RETRYING})

# One text for both of its states: the hot table is small.
_WAITING = f"""
SELECT {UNSETTLED} FROM hookline.unsettled AS u WHERE u.subscription_no = $1 AND u.position >= $2 AND u.position <= $3
    AND (u.attempts = 0 AND $4 OR u.attempts > 0 AND $5)
ORDER BY u.position DESC LIMIT $6
"""
_EVENT_SETTLED = f"""
SELECT {SETTLED} FROM hookline.subscriptions AS s JOIN hookline.deliveries AS d
    ON d.subscription_no = s.no AND d.position = $2 WHERE s.tenant_no = $1 AND d.day >= $3
"""
_EVENT_UNSETTLED = f"""
SELECT {UNSETTLED} FROM hookline.subscriptions AS s JOIN hookline.unsettled AS u
    ON u.subscription_no = s.no AND u.position = $2 WHERE s.tenant_no = $1
"""


async def list_deliveries(db: Connection, homes: Homes, days: Days, query: DeliveryQuery) -> list[Delivery]:
    home = await homes.find(db, query.subscription_no)
    if home is None:
        return []
    shard = home.shard
    window = await _window(db, shard, query.before, query.since, query.until)
    await days.load(db, shard)
    settled = await _settled(db, days.since(shard, window[0]), query, window)
    waits = await _waits(db, query, window)
    merged = merge(settled, waits, key=lambda delivery: delivery.position, reverse=True)
    return list(islice(merged, query.limit))


async def _settled(db: Connection, since: int, query: DeliveryQuery, window: Window) -> list[Delivery]:
    states = final_states(query.states)
    first, last = window
    rows = await settled_range(
        db, query.subscription_no, since, first - 1, last, states, query.limit, newest_first=True
    )
    return [delivery_of_settled(row) for row in rows]


async def _waits(db: Connection, query: DeliveryQuery, window: Window) -> list[Delivery]:
    states = query.states or _WAITING_STATES
    wanted = (DeliveryState.PENDING in states, DeliveryState.RETRYING in states)
    if not any(wanted):
        return []
    rows = await db.fetch(_WAITING, query.subscription_no, *window, *wanted, query.limit)
    return [delivery_of_unsettled(Unsettled(*row)) for row in rows]


async def get_delivery(
    db: Connection, homes: Homes, days: Days, subscription_no: int, position: Position
) -> Delivery | None:
    for waits in await unsettled_at(db, subscription_no, [position]):
        return delivery_of_unsettled(waits)
    home = await homes.find(db, subscription_no)
    if home is not None:
        for settled in await settled_at(db, days, home, subscription_no, [position]):
            return delivery_of_settled(settled)
    return None


async def event_deliveries(
    db: Connection, days: Days, tenant_no: int, position: Position, shards: int
) -> list[Delivery]:
    """One look-up in each table for each subscription of the tenant."""
    shard = shard_of(tenant_no, shards)
    await days.load(db, shard)
    settled = await db.fetch(_EVENT_SETTLED, tenant_no, position, days.since(shard, position))
    waits = await db.fetch(_EVENT_UNSETTLED, tenant_no, position)
    found = [
        *(delivery_of_settled(decode_settled(row)) for row in settled),
        *(delivery_of_unsettled(Unsettled(*row)) for row in waits),
    ]
    return sorted(found, key=lambda delivery: delivery.subscription_no)


# --- attempts ----------------------------------------------------------------------------------------

# A later record of an attempt replaces an earlier one, also of another day.
_ATTEMPTS = """
SELECT DISTINCT ON (a.number) a.subscription_no, a.position, a.number, a.version, a.started_at, a.method, a.url,
    a.status, a.error, a.detail, a.address, a.dns_us, a.connect_us, a.tls_us, a.first_byte_us, a.total_us,
    a.request_headers, a.request_bytes, a.response_headers, coalesce(b.body, ''), a.response_truncated
FROM hookline.attempts AS a LEFT JOIN hookline.response_bodies AS b ON a.has_body AND b.tenant_no = a.tenant_no
    AND b.position = a.position AND b.subscription_no = a.subscription_no AND b.number = a.number AND b.day = a.day
WHERE a.tenant_no = $1 AND a.position = $2 AND a.subscription_no = $3 AND a.day >= $4
"""
_ATTEMPTS_OF = _ATTEMPTS + "ORDER BY a.number, a.day DESC"
_ONE_ATTEMPT = _ATTEMPTS + "AND a.number = $5::bigint ORDER BY a.number, a.day DESC"


async def _attempts(
    db: Connection, homes: Homes, days: Days, subscription_no: int, position: Position, *number: int
) -> list[Row]:
    home = await homes.find(db, subscription_no)
    if home is None:
        return []
    await days.load(db, home.shard)
    place = (home.tenant_no, position, subscription_no, days.since(home.shard, position))
    return await db.fetch(_ONE_ATTEMPT if number else _ATTEMPTS_OF, *place, *number)


async def list_attempts(
    db: Connection, homes: Homes, days: Days, subscription_no: int, position: Position
) -> list[Attempt]:
    return [Attempt(*row) for row in await _attempts(db, homes, days, subscription_no, position)]


async def get_attempt(
    db: Connection, homes: Homes, days: Days, subscription_no: int, position: Position, number: int
) -> Attempt | None:
    rows = await _attempts(db, homes, days, subscription_no, position, number)
    return Attempt(*rows[0]) if rows else None


# --- lanes and usage ---------------------------------------------------------------------------------

_LANE = """
SELECT l.subscription_no, l.cursor, l.sequence, l.live, l.ahead, l.failing_since, l.warned_at, h.watermark
FROM hookline.lanes AS l JOIN hookline.subscriptions AS s ON s.no = l.subscription_no
JOIN hookline.shard_leases AS h ON h.shard = s.shard AND h.slice = s.slice WHERE l.subscription_no = $1
"""
_USAGE = """
SELECT tenant_no, day, sum(events)::bigint, sum(event_bytes)::bigint, sum(attempts)::bigint, sum(attempt_bytes)::bigint
FROM hookline.usage WHERE tenant_no = $1 AND day >= $2 AND day <= $3 GROUP BY tenant_no, day ORDER BY day
"""


async def lane_state(db: Connection, subscription_no: int) -> LaneState | None:
    row = await db.fetchrow(_LANE, subscription_no)
    if row is None:
        return None
    lane = LaneState(*row[:7])
    return replace(lane, cursor=effective_cursor(lane, row[7]))


async def usage(db: Connection, tenant_no: int, since_day: str, until_day: str) -> list[Usage]:
    return [Usage(*row) for row in await db.fetch(_USAGE, tenant_no, since_day, until_day)]
