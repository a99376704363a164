"""The statements about deliveries: record, due, resend.

Whatever writes deliveries holds the lease of their slice (``record_v1`` by its update, the others by ``lease.hold``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from msgspec import Struct
from msgspec.structs import astuple, replace

from hookline.core.errors import Fenced, NotFound
from hookline.core.model import Attempt, DeliveryState, LaneState, Millis, Position, Settled, Unsettled
from hookline.ports import Record
from hookline.storage.common import (
    day_of,
    final_states,
    hurried,
    sent_again,
    settled_as,
)
from hookline.storage.postgres import partitions
from hookline.storage.postgres.connection import Connection, Row
from hookline.storage.postgres.days import Days
from hookline.storage.postgres.lease import fence, hold
from hookline.storage.postgres.subscriptions import requeue

SETTLED = "d.subscription_no, d.position, d.sequence, d.state, d.attempts, d.settled_at, d.status, d.error"
UNSETTLED = (
    "u.subscription_no, u.position, u.sequence, u.attempts, u.due_at, u.first_at, u.runs, u.key, "
    "u.status, u.error"
)
"""Columns in the order of ``Settled`` and ``Unsettled``."""

CODES = {DeliveryState.SUCCEEDED: 1, DeliveryState.FAILED: 2, DeliveryState.EXPIRED: 3}
STATES = {code: state for state, code in CODES.items()}

Columns = list[list[Any] | None]
Place = tuple[int, Position]
"""A delivery: subscription and position."""
T = TypeVar("T")


class Home(Struct, frozen=True):
    """Where a subscription belongs; it never changes."""

    tenant_no: int
    shard: int


_HOME = "SELECT no, tenant_no, shard FROM hookline.subscriptions WHERE no = ANY ($1::integer[])"


class Homes:
    """The homes of subscriptions, kept once known."""

    def __init__(self) -> None:
        self._known: dict[int, Home] = {}

    async def load(self, db: Connection, numbers: Iterable[int]) -> Mapping[int, Home]:
        """At least those of ``numbers`` that exist."""
        unknown = set(numbers) - self._known.keys()
        if unknown:
            rows = await db.fetch(_HOME, sorted(unknown))
            self._known |= {row[0]: Home(row[1], row[2]) for row in rows}
        return self._known

    async def find(self, db: Connection, subscription_no: int) -> Home | None:
        return (await self.load(db, [subscription_no])).get(subscription_no)

    async def get(self, db: Connection, subscription_no: int) -> Home:
        """Raises ``NotFound``."""
        home = await self.find(db, subscription_no)
        if home is None:
            raise NotFound("there is no such subscription")
        return home


# --- record ------------------------------------------------------------------------------------------

_WRITTEN, _REPEATED, _FENCED = 1, 0, -1
_RECORD = f"SELECT hookline.record_v1({', '.join(f'${number}' for number in range(1, 61))})"


async def record(db: Connection, batch: Record, homes: Homes, days: Days, part: int) -> bool:
    """Everything of ``batch`` but its changes of configuration and its events; False if it was written before.

    ``part`` is the row of the usage that this process counts in.
    """
    numbers = {attempt.subscription_no for attempt in batch.attempts}
    known = await homes.load(db, numbers)
    if not known.keys() >= numbers:
        await fence(db, batch.shard, batch.slice, batch.epoch)
        raise NotFound("there is no such subscription")
    if batch.unsettled or batch.settled:
        await days.load(db, batch.shard)
    written = await db.fetchval(_RECORD, *_arguments(batch, known, days, part))
    if written == _FENCED:
        raise Fenced
    return written == _WRITTEN


def _arguments(batch: Record, homes: Mapping[int, Home], days: Days, part: int) -> list[object]:
    """Those of ``record_v1``."""
    settled = _last(batch.settled, _place)
    unsettled = _last(batch.unsettled, _place)
    return [
        batch.shard,
        batch.slice,
        batch.epoch,
        batch.watermark,
        batch.number,
        day_of(batch.now),
        part,
        *_attempt_columns(_last(batch.attempts, _number), homes),
        *_gone(batch.shard, settled, unsettled, days),
        *_columns([_settled_row(each) for each in settled], 8),
        *_columns([astuple(each) for each in unsettled], 10),
        *_columns([astuple(each) for each in _last(batch.lanes, _lane)], 7),
        *_usage(batch.attempts, homes),
    ]


def _last(rows: Sequence[T], key: Callable[[T], object]) -> Sequence[T]:
    """Each key once, the last one of it: one statement cannot write a row twice."""
    kept = {key(row): row for row in rows}
    return rows if len(kept) == len(rows) else list(kept.values())


def _place(row: Settled | Unsettled) -> Place:
    return row.subscription_no, row.position


def _lane(lane: LaneState) -> int:
    return lane.subscription_no


def _number(attempt: Attempt) -> tuple[int, Position, int]:
    return attempt.subscription_no, attempt.position, attempt.number


def _columns(rows: Sequence[Sequence[Any]], width: int) -> Columns:
    """The rows turned into a list for each column; None for all if there are no rows."""
    return [list(column) for column in zip(*rows, strict=True)] if rows else [None] * width


def _attempt_columns(attempts: Sequence[Attempt], homes: Mapping[int, Home]) -> Columns:
    """In the order of the function's arguments, tenants first; a body that is empty is None."""
    columns = _columns([astuple(attempt) for attempt in attempts], 21)
    bodies = columns[19]
    if bodies is None:
        return [None, *columns]
    columns[19] = [body or None for body in bodies] if any(bodies) else None
    return [[homes[attempt.subscription_no].tenant_no for attempt in attempts], *columns]


def _settled_row(s: Settled) -> tuple[Any, ...]:
    return (
        s.subscription_no,
        s.position,
        s.sequence,
        CODES[s.state],
        s.attempts,
        s.settled_at,
        s.status,
        s.error,
    )


def _gone(shard: int, settled: Sequence[Settled], unsettled: Sequence[Unsettled], days: Days) -> list[object]:
    """Places that may be settled already in a partition that writing them does not look at, and since when."""
    places = [(days.since(shard, each.position), each.subscription_no, each.position) for each in unsettled]
    for each in settled:
        since = days.since(shard, each.position)
        if since < partitions.day_of(each.settled_at):
            places.append((since, each.subscription_no, each.position))
    if not places:
        return [None, None, None]
    return [[place[1] for place in places], [place[2] for place in places], min(places)[0]]


def _usage(attempts: Sequence[Attempt], homes: Mapping[int, Home]) -> Columns:
    """Tenants, and attempts and bytes of each."""
    used: dict[int, list[int]] = {}
    for attempt in attempts:
        counts = used.setdefault(homes[attempt.subscription_no].tenant_no, [0, 0])
        counts[0] += 1
        counts[1] += attempt.request_bytes
    return _columns([(no, *used[no]) for no in sorted(used)], 3)


_ATTEMPT_TEXTS = ("method", "url", "error", "detail", "address", "request_headers")


def cleaned(batch: Record) -> Record:
    """The batch with texts that PostgreSQL can store. They come from endpoints' answers and what libraries say of
    them, and only people read them."""
    return replace(
        batch,
        attempts=[_clean(each, *_ATTEMPT_TEXTS) for each in batch.attempts],
        settled=[_clean(each, "error") for each in batch.settled],
        unsettled=[_clean(each, "error") for each in batch.unsettled],
        disabled=[(no, _clean_text(reason)) for no, reason in batch.disabled],
    )  # fmt: skip


S = TypeVar("S", bound=Struct)


def _clean(row: S, *names: str) -> S:
    return replace(row, **{name: _clean_text(getattr(row, name)) for name in names})


def _clean_text(text: str) -> str:
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


# --- waiting -----------------------------------------------------------------------------------------

_DUE = f"""
SELECT {UNSETTLED} FROM hookline.unsettled AS u WHERE u.subscription_no = $1 AND u.due_at <= $2
ORDER BY u.due_at, u.position LIMIT $3
"""
_WAITING = """
SELECT count(*), coalesce(min(due_at), 0) FROM hookline.unsettled WHERE subscription_no = $1
"""
_ALL_UNSETTLED = (
    f"SELECT {UNSETTLED} FROM hookline.unsettled AS u WHERE u.subscription_no = $1 ORDER BY u.position"
)
_UNSETTLED_AT = f"""
SELECT {UNSETTLED} FROM hookline.unsettled AS u WHERE u.subscription_no = $1 AND u.position = ANY ($2::bigint[])
"""
_SETTLED_AT = f"""
SELECT {SETTLED} FROM hookline.deliveries AS d
WHERE d.subscription_no = $1 AND d.position = ANY ($2::bigint[]) AND d.day >= $3
"""


async def due(db: Connection, subscription_no: int, now: Millis, limit: int) -> list[Unsettled]:
    return [Unsettled(*row) for row in await db.fetch(_DUE, subscription_no, now, limit)]


async def waiting(db: Connection, subscription_no: int) -> tuple[int, Millis]:
    row = await db.fetchrow(_WAITING, subscription_no)
    return (row[0], row[1]) if row is not None else (0, 0)


async def unsettled_at(
    db: Connection, subscription_no: int, positions: Sequence[Position]
) -> list[Unsettled]:
    return [Unsettled(*row) for row in await db.fetch(_UNSETTLED_AT, subscription_no, positions)]


async def settled_at(
    db: Connection, days: Days, home: Home, subscription_no: int, positions: Sequence[Position]
) -> list[Settled]:
    """What is settled of these positions. Nothing is settled before its event is received."""
    if not positions:
        return []
    await days.load(db, home.shard)
    since = days.since(home.shard, min(positions))
    return [decode_settled(row) for row in await db.fetch(_SETTLED_AT, subscription_no, positions, since)]


def decode_settled(row: Row) -> Settled:
    return Settled(row[0], row[1], row[2], STATES[row[3]], *row[4:])


# --- writing apart from a worker's batches -----------------------------------------------------------

_UNSETTLE = """
INSERT INTO hookline.unsettled (subscription_no, position, sequence, attempts, due_at, first_at, runs, key, status,
    error)
SELECT * FROM unnest($1::integer[], $2::bigint[], $3::bigint[], $4::integer[], $5::bigint[], $6::bigint[],
    $7::integer[], $8::text[], $9::integer[], $10::text[])
ON CONFLICT (subscription_no, position) DO UPDATE SET attempts = excluded.attempts, due_at = excluded.due_at,
    first_at = excluded.first_at, runs = excluded.runs, status = excluded.status, error = excluded.error
"""
_NOT_SETTLED = """
DELETE FROM hookline.deliveries AS d WHERE d.subscription_no = $1 AND d.position = ANY ($2::bigint[]) AND d.day = $3
"""
_DROP_ALL = "DELETE FROM hookline.unsettled WHERE subscription_no = $1"
_SETTLE = """
INSERT INTO hookline.deliveries (subscription_no, position, sequence, state, attempts, settled_at, status, error, day)
SELECT s.*, s.settled_at / 86400000
FROM unnest($1::integer[], $2::bigint[], $3::bigint[], $4::smallint[], $5::integer[], $6::bigint[], $7::integer[],
    $8::text[]) AS s (subscription_no, position, sequence, state, attempts, settled_at, status, error)
"""


async def put_back(
    db: Connection, subscription_no: int, unsettled: Sequence[Unsettled], were: Iterable[Settled]
) -> None:
    """Let these wait; ``were`` are those of them that are settled."""
    by_day: dict[int, list[Position]] = {}
    for settled in were:
        by_day.setdefault(partitions.day_of(settled.settled_at), []).append(settled.position)
    for day, positions in sorted(by_day.items()):
        await db.execute(_NOT_SETTLED, subscription_no, positions, day)
    if unsettled:
        await db.execute(_UNSETTLE, *_columns([astuple(each) for each in unsettled], 10))


async def drop_unsettled(db: Connection, subscription_no: int, now: Millis, state: DeliveryState) -> int:
    await hold(db, subscription_no)
    rows = await db.fetch(_ALL_UNSETTLED, subscription_no)
    dropped = [settled_as(Unsettled(*row), state, now) for row in rows]
    if dropped:
        await db.execute(_DROP_ALL, subscription_no)
        await db.execute(_SETTLE, *_columns([_settled_row(each) for each in dropped], 8))
    return len(dropped)


async def resend(
    db: Connection, homes: Homes, days: Days, subscription_no: int, positions: Sequence[Position], now: Millis
) -> int:
    home = await homes.get(db, subscription_no)
    await hold(db, subscription_no)
    wanted = sorted(set(positions))
    waits = await unsettled_at(db, subscription_no, wanted)
    settled = await settled_at(db, days, home, subscription_no, wanted)
    keys = await event_keys(db, days, home.shard, [each.position for each in settled])
    again = [each for each in settled if each.position in keys]
    back = [
        *(hurried(each, now) for each in waits),
        *(sent_again(each, keys[each.position], now) for each in again),
    ]
    await put_back(db, subscription_no, back, again)
    if back:
        await requeue(db, subscription_no, home.shard)
    return len(back)


_KEYS = """
SELECT position, key FROM hookline.events
WHERE shard = $1 AND day >= $2 AND day <= $3 AND position = ANY ($4::bigint[])
"""


async def event_keys(
    db: Connection, days: Days, shard: int, positions: Sequence[Position]
) -> dict[Position, str | None]:
    """The keys of the events at these positions that are still there."""
    if not positions:
        return {}
    await days.load(db, shard)
    between = (days.since(shard, min(positions)), days.until(shard, max(positions)))
    return {row[0]: row[1] for row in await db.fetch(_KEYS, shard, *between, positions)}


# --- ranges of settled deliveries --------------------------------------------------------------------


async def settled_range(
    db: Connection,
    subscription_no: int,
    since: int,
    after: Position,
    until: Position,
    states: Iterable[DeliveryState],
    limit: int,
    newest_first: bool = False,
) -> list[Settled]:
    """Up to ``limit`` settled deliveries in (after, until], settled on the day ``since`` or later. Failed and expired
    ones have an index of their own, so they are found among millions that succeeded."""
    codes = sorted(CODES[state] for state in states)
    parts = [codes] if 1 in codes else [[code] for code in codes]
    found: list[Settled] = []
    for part in parts:
        query = _range_query(part, "DESC" if newest_first else "ASC")
        rows = await db.fetch(query, subscription_no, after, until, since, limit)
        found += [decode_settled(row) for row in rows]
    found.sort(key=lambda each: each.position, reverse=newest_first)
    return found[:limit]


def _range_query(codes: Sequence[int], direction: str) -> str:
    kept = (
        f"d.state IN ({', '.join(map(str, codes))})"
        if 1 in codes
        else f"d.state = {codes[0]} AND d.state <> 1"
    )
    return (
        f"SELECT {SETTLED} FROM hookline.deliveries AS d WHERE d.subscription_no = $1 AND {kept} "
        f"AND d.position > $2 AND d.position <= $3 AND d.day >= $4 ORDER BY d.position {direction} LIMIT $5"
    )


_FLOOR = """
SELECT position FROM hookline.events WHERE tenant_no = $1 ORDER BY day, position LIMIT 1
"""


async def replayable(
    db: Connection,
    days: Days,
    home: Home,
    subscription_no: int,
    window: tuple[Position, Position],
    states: Sequence[DeliveryState],
    limit: int,
) -> list[Settled]:
    """Settled deliveries after and until the positions of ``window``, whose events are still there, by position.

    Retention removes a tenant's events oldest first, so all from the oldest one on are there.
    """
    floor = await db.fetchval(_FLOOR, home.tenant_no)
    if floor is None:
        return []
    after, until = max(window[0], floor - 1), window[1]
    await days.load(db, home.shard)
    since = days.since(home.shard, after + 1)
    return await settled_range(db, subscription_no, since, after, until, final_states(states), limit)


_COUNT = """
SELECT count(*) FROM hookline.deliveries
WHERE subscription_no = $1 AND position > $2 AND position <= $3 AND day >= $4 AND state = """
_COUNTS = {1: _COUNT + "1", 2: _COUNT + "2 AND state <> 1", 3: _COUNT + "3 AND state <> 1"}


async def count_settled(
    db: Connection,
    homes: Homes,
    days: Days,
    subscription_no: int,
    window: tuple[Position, Position],
    states: Sequence[DeliveryState],
) -> int:
    home = await homes.get(db, subscription_no)
    floor = await db.fetchval(_FLOOR, home.tenant_no)
    if floor is None:
        return 0
    after, until = max(window[0], floor - 1), window[1]
    await days.load(db, home.shard)
    bounds = (subscription_no, after, until, days.since(home.shard, after + 1))
    return sum([await db.fetchval(_COUNTS[CODES[state]], *bounds) for state in final_states(states)])
