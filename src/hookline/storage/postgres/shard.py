"""What a new owner of a slice starts from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hookline.core.model import LaneState, Order, Position
from hookline.ports import LanePosition, ShardState
from hookline.storage.common import effective_cursor
from hookline.storage.postgres import replays
from hookline.storage.postgres.connection import Connection
from hookline.storage.postgres.days import Days
from hookline.storage.postgres.lease import fence
from hookline.storage.postgres.log import head
from hookline.storage.postgres.subscriptions import changes

# Each starts from the slice's subscriptions, so its cost goes with the lanes and what waits, never with the log.
_LANES = """
SELECT l.subscription_no, l.cursor, l.sequence, l.live, l.ahead, l.failing_since, l.warned_at
FROM hookline.lanes AS l WHERE l.subscription_no = ANY ($1::integer[]) ORDER BY l.subscription_no
"""
_SETTLED_ABOVE = """
SELECT d.subscription_no, d.position
FROM unnest($1::integer[], $2::bigint[]) AS l (no, cursor)
CROSS JOIN LATERAL (
    SELECT subscription_no, position FROM hookline.deliveries
    WHERE subscription_no = l.no AND position > l.cursor AND day >= $3
) AS d
"""
_UNSETTLED_ABOVE = """
SELECT u.subscription_no, u.position FROM unnest($1::integer[], $2::bigint[]) AS l (no, cursor)
JOIN hookline.unsettled AS u ON u.subscription_no = l.no AND u.position > l.cursor
"""
_WAITING = """
SELECT subscription_no, count(*), min(due_at) FROM hookline.unsettled WHERE subscription_no = ANY ($1::integer[])
GROUP BY subscription_no
"""
_KEYS = """
SELECT DISTINCT subscription_no, key COLLATE "C" AS key FROM hookline.unsettled
WHERE subscription_no = ANY ($1::integer[]) AND key IS NOT NULL ORDER BY subscription_no, key
"""
_RUNNING = f"""
SELECT {replays.REPLAY} FROM hookline.replays AS r
WHERE r.state = 'running' AND r.subscription_no = ANY ($1::integer[]) ORDER BY r.no
"""


async def load(db: Connection, days: Days, shard: int, slice: int, epoch: int) -> ShardState:
    """See ``DeliveryStore.load_shard``; ``db`` must hold a snapshot."""
    watermark = await fence(db, shard, slice, epoch)
    news = await changes(db, shard, 0, slice)
    order = {each.no: each.definition.order for each in news.subscriptions}
    numbers = sorted(order)
    lanes = [LaneState(*row) for row in await db.fetch(_LANES, numbers)]
    positions = await _positions(db, days, shard, lanes, watermark, order)
    running = [replays.decode(row) for row in await db.fetch(_RUNNING, numbers)]
    return ShardState(watermark, await head(db, shard), news, positions, running)


async def _positions(
    db: Connection,
    days: Days,
    shard: int,
    lanes: Sequence[LaneState],
    watermark: Position,
    order: Mapping[int, Order],
) -> list[LanePosition]:
    numbers = [lane.subscription_no for lane in lanes]
    above = await _above(db, days, shard, lanes, watermark)
    waiting = {row[0]: (row[1], row[2]) for row in await db.fetch(_WAITING, numbers)}
    blocked: dict[int, list[str]] = {}
    for no, key in await db.fetch(_KEYS, [no for no in waiting if order[no] is Order.KEY]):
        blocked.setdefault(no, []).append(key)
    return [
        LanePosition(
            lane,
            frozenset(above.get(lane.subscription_no, ())),
            *waiting.get(lane.subscription_no, (0, 0)),
            blocked.get(lane.subscription_no, ()),
        )
        for lane in lanes
    ]


async def _above(
    db: Connection, days: Days, shard: int, lanes: Sequence[LaneState], watermark: Position
) -> dict[int, list[Position]]:
    """The recorded positions above the lanes' cursors. The lanes are asked for by the day from which theirs can be: one
    that stands far back must not make all others look at many partitions."""
    await days.load(db, shard)
    by_day: dict[int, list[tuple[int, Position]]] = {}
    for lane in lanes:
        cursor = effective_cursor(lane, watermark)
        by_day.setdefault(days.since(shard, cursor + 1), []).append((lane.subscription_no, cursor))
    found: dict[int, list[Position]] = {}
    for day, places in by_day.items():
        columns = [no for no, _ in places], [cursor for _, cursor in places]
        rows = await db.fetch(_SETTLED_ABOVE, *columns, day)
        rows += await db.fetch(_UNSETTLED_ABOVE, *columns)
        for no, position in rows:
            found.setdefault(no, []).append(position)
    return found
