"""The log's statements."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct

from hookline.core.errors import StorageUnavailable
from hookline.core.model import Appended, Event, Millis, NewEvent, Position
from hookline.core.sharding import shard_of
from hookline.ports import PAGE_BYTES, Changes, LogPage
from hookline.storage.common import day_of, event_at, page_of, published
from hookline.storage.postgres.connection import Connection, Row, is_taken, look_up
from hookline.storage.postgres.days import Days
from hookline.storage.postgres.pool import Pool
from hookline.storage.postgres.subscriptions import changes

EVENT = (
    "e.shard, e.position, e.tenant_no, e.id, e.type, e.data, e.occurred_at, e.received_at, e.object_type, "
    "e.object_id, e.source_application, e.source_user, e.key, e.correlation_id"
)
"""Columns in the order of ``Event``."""

BLOCK_BITS = 10
"""Positions in a block of ``event_blocks``: 1,024; ``append_v1`` knows it too."""

_APPEND = f"SELECT * FROM hookline.append_v1({', '.join(f'${number}' for number in range(1, 24))})"
_EXISTING = f"""
SELECT {EVENT} FROM unnest($1::integer[], $2::text[]) AS n (tenant_no, id)
JOIN hookline.event_ids AS i ON i.tenant_no = n.tenant_no AND i.id = n.id
JOIN hookline.events AS e ON e.shard = mod(i.tenant_no, $3::integer) AND e.day = i.day AND e.position = i.position
"""

Place = tuple[int, str]
"""An event's tenant and id."""


# --- append ------------------------------------------------------------------------------------------


class Batch:
    """New events, each id once, in the order of their shards: what one call stores."""

    def __init__(self, events: Iterable[NewEvent], shards: int) -> None:
        by_shard: dict[int, list[NewEvent]] = {}
        for event in events:
            by_shard.setdefault(shard_of(event.tenant_no, shards), []).append(event)
        self.shards = sorted(by_shard)
        self.counts = [len(by_shard[shard]) for shard in self.shards]
        self.events = [event for shard in self.shards for event in by_shard[shard]]
        self._groups = [by_shard[shard] for shard in self.shards]

    def arguments(self, now: Millis) -> list[object]:
        """Those of ``append_v1``."""
        slots = [slot for slot, count in enumerate(self.counts, 1) for _ in range(count)]
        offsets = [sum(self.counts[:index]) for index in range(len(self.counts))]
        return [
            now,
            day_of(now),
            self.shards,
            offsets,
            self.counts,
            slots,
            *_columns(self.events),
            *self._labels(),
            *_usage(self.events),
        ]

    def _labels(self) -> list[list[Any]]:
        labels = {
            (slot, event.tenant_no, label)
            for slot, events in enumerate(self._groups, 1)
            for event in events
            for label in _labels_of(event)
        }
        return [list(column) for column in zip(*sorted(labels), strict=True)]

    def stored(self, bases: Sequence[Position], received: Sequence[Millis]) -> Iterable[Event]:
        """The events as the log holds them."""
        for shard, events, base, at in zip(self.shards, self._groups, bases, received, strict=True):
            for place, event in enumerate(events, 1):
                yield event_at(shard, base + place, event, at)

    def positions(self, bases: Sequence[Position]) -> Iterable[Position]:
        """In the order of ``events``."""
        for count, base in zip(self.counts, bases, strict=True):
            yield from range(base + 1, base + count + 1)


def _labels_of(event: NewEvent) -> tuple[str, ...]:
    if event.object_type is None:
        return ("t:" + event.type,)
    return "t:" + event.type, "o:" + event.object_type


_FIELDS = (
    "tenant_no", "id", "type", "data", "occurred_at", "object_type", "object_id", "source_application", "source_user",
    "key", "correlation_id",
)  # fmt: skip


def _columns(events: Sequence[NewEvent]) -> list[list[Any] | None]:
    """One list for each field; None for a field that no event has."""
    columns = [[getattr(event, name) for event in events] for name in _FIELDS]
    return [column if any(value is not None for value in column) else None for column in columns]


def _usage(events: Sequence[NewEvent]) -> list[list[int]]:
    """Tenants, and events and bytes of each; in one order for all, so that appends do not wait crosswise."""
    used = published(events)
    tenants = sorted(used)
    return [tenants, [used[no][0] for no in tenants], [used[no][1] for no in tenants]]


class Parted(Struct):
    """New events parted from those whose ids are stored, or came earlier in the same batch."""

    first: dict[Place, NewEvent]
    existing: dict[Place, Event]

    def fresh(self) -> list[NewEvent]:
        return [event for place, event in self.first.items() if place not in self.existing]


def sort_out(events: Sequence[NewEvent]) -> Parted:
    """Each id once, the first one of it; nothing is known yet of those that are stored."""
    first: dict[Place, NewEvent] = {}
    for event in events:
        first.setdefault((event.tenant_no, event.id), event)
    return Parted(first, {})


async def find_existing(db: Connection, parted: Parted, shards: int) -> None:
    """Look up which ids are stored."""
    places = list(parted.first)
    rows = await db.fetch(_EXISTING, [no for no, _ in places], [name for _, name in places], shards)
    for event in decode(rows):
        parted.existing[event.tenant_no, event.id] = event


class Stored(Struct):
    """What one call appended: the batch, with the base and time of each of its shards."""

    batch: Batch
    bases: Sequence[Position]
    received: Sequence[Millis]


async def store(db: Connection, events: Sequence[NewEvent], now: Millis, shards: int) -> Stored:
    """Append events whose ids are new. Fails with a unique violation on ``event_ids`` if one is not."""
    batch = Batch(events, shards)
    if not batch.events:
        return Stored(batch, (), ())
    (row,) = await db.fetch(_APPEND, *batch.arguments(now))
    return Stored(batch, row[0], row[1])


TRIES = 6
"""How often an append is tried while others store ids of it at the same time."""


async def append(
    pool: Pool, events: Sequence[NewEvent], now: Millis, shards: int
) -> tuple[list[Appended], Stored]:
    """See ``EventLog.append``. Duplicates are rare: it is tried without looking for them first."""
    parted = sort_out(events)
    for _ in range(TRIES):
        fresh = parted.fresh()
        if not fresh:
            stored = Stored(Batch((), shards), (), ())
            return answers(events, parted, stored), stored
        try:
            stored = await pool.call(lambda db, fresh=fresh: store(db, fresh, now, shards))
        except Exception as error:
            if not is_taken(error, "event_ids"):
                raise
            await pool.read(lambda db: find_existing(db, parted, shards))
        else:
            return answers(events, parted, stored), stored
    raise StorageUnavailable("others stored the same events at the same time; nothing was stored")


async def append_within(db: Connection, events: Sequence[NewEvent], now: Millis, shards: int) -> Stored:
    """Append those that are new, as a part of a transaction."""
    parted = sort_out(events)
    if parted.first:
        await find_existing(db, parted, shards)
    return await store(db, parted.fresh(), now, shards)


def answers(events: Sequence[NewEvent], parted: Parted, stored: Stored) -> list[Appended]:
    """The answer to each event in turn."""
    existing, batch = parted.existing, stored.batch
    if len(batch.events) == len(events) and len(batch.shards) == 1:
        return [Appended(position) for position in batch.positions(stored.bases)]
    positions = dict(
        zip(
            ((event.tenant_no, event.id) for event in batch.events),
            batch.positions(stored.bases),
            strict=True,
        )
    )
    if len(batch.events) < len(events):
        events_stored = batch.stored(stored.bases, stored.received)
        existing = existing | {(event.tenant_no, event.id): event for event in events_stored}
    found: list[Appended] = []
    for event in events:
        place = (event.tenant_no, event.id)
        position = positions.pop(place, None)
        found.append(
            Appended(existing[place].position, existing[place]) if position is None else Appended(position)
        )
    return found


# --- read --------------------------------------------------------------------------------------------


def decode(rows: Iterable[Row]) -> list[Event]:
    """Events from rows of the ``EVENT`` columns."""
    return [Event(*row) for row in rows]


# The window counts the bytes before each event: the page ends on the server, so that large events do not fill the
# memory.
def _page(condition: str) -> str:
    return f"""
SELECT h.head, c.version, s.version, p.*
FROM hookline.shard_heads AS h
CROSS JOIN hookline.config AS c
JOIN hookline.shard_changes AS s ON s.shard = h.shard
LEFT JOIN (
    SELECT * FROM (
        SELECT {EVENT}, sum(octet_length(e.data)) OVER (
            ORDER BY e.day, e.position ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS before
        FROM hookline.events AS e
        WHERE {condition} AND e.day >= $2 AND (e.day, e.position) > ($2, $3) AND e.position > $3
        ORDER BY e.day, e.position LIMIT $4
    ) AS w WHERE coalesce(w.before, 0) < {PAGE_BYTES}
) AS p ON true
WHERE h.shard = $1
"""


_PAGE = _page("e.shard = $1")
_TENANT_PAGE = _page("e.tenant_no = $5")
_ENDS = """
SELECT h.shard, h.head, c.version, s.version
FROM hookline.shard_heads AS h CROSS JOIN hookline.config AS c JOIN hookline.shard_changes AS s ON s.shard = h.shard
WHERE h.shard = ANY ($1)
"""


class Ends(Struct, frozen=True):
    """A shard's head, the configuration's version, and the one that last changed something for the shard."""

    head: Position
    version: int
    changed: int


async def ends(db: Connection, shards: Sequence[int]) -> dict[int, Ends]:
    """The ends of several shards at once."""
    return {row[0]: Ends(*row[1:]) for row in await db.fetch(_ENDS, shards)}


async def read_page(
    db: Connection, days: Days, shard: int, after: Position, limit: int, tenant_no: int | None
) -> tuple[LogPage, Ends]:
    """A page without changes, and the ends seen in the same statement."""
    await days.load(db, shard)
    bounds = (shard, days.since(shard, after + 1), after, limit)
    if tenant_no is None:
        rows = await db.fetch(_PAGE, *bounds)
    else:
        rows = await db.fetch(_TENANT_PAGE, *bounds, tenant_no)
    head, version, changed = rows[0][:3]
    found = [Event(*row[3:-1]) for row in rows if row[4] is not None]
    found.sort(key=_position)
    events, last = page_of(found, limit, after, head)
    if found:
        days.seen(shard, found[-1].received_at // 86_400_000)
    return LogPage(events, last, head, Changes(version)), Ends(head, version, changed)


def _position(event: Event) -> Position:
    return event.position


async def read_with_changes(
    db: Connection,
    days: Days,
    shard: int,
    after: Position,
    limit: int,
    changes_after: int,
    tenant_no: int | None,
) -> LogPage:
    """A page with the changes of the same snapshot; ``db`` must hold one."""
    page, _ = await read_page(db, days, shard, after, limit, tenant_no)
    return LogPage(page.events, page.last, page.head, await changes(db, shard, changes_after))


_AT = f"""
SELECT {EVENT} FROM hookline.events AS e
WHERE e.shard = $1 AND e.day >= $2 AND e.day <= $3 AND e.position = ANY ($4::bigint[]) ORDER BY e.position
"""


async def read_events(db: Connection, days: Days, shard: int, positions: Sequence[Position]) -> list[Event]:
    await days.load(db, shard)
    by_days: dict[tuple[int, int], list[Position]] = {}
    for position in sorted(set(positions)):
        between = (days.since(shard, position), days.until(shard, position))
        by_days.setdefault(between, []).append(position)
    found: list[Event] = []
    for (first, last), wanted in by_days.items():
        found += decode(await db.fetch(_AT, shard, first, last, wanted))
    return found


_FIND = f"""
SELECT {EVENT} FROM hookline.event_ids AS i
JOIN hookline.events AS e ON e.shard = $3 AND e.day = i.day AND e.position = i.position
WHERE i.tenant_no = $1 AND i.id = $2
"""


async def find(db: Connection, tenant_no: int, event_id: str, shards: int) -> Event | None:
    row = await look_up(db, _FIND, tenant_no, event_id, shard_of(tenant_no, shards))
    return None if row is None else Event(*row)


async def head(db: Connection, shard: int) -> Position:
    return await db.fetchval("SELECT head FROM hookline.shard_heads WHERE shard = $1", shard)


async def position_at(db: Connection, shard: int, time: Millis) -> Position:
    """See ``EventLog.position_at``: a binary search within a day, on the server."""
    return await db.fetchval("SELECT hookline.position_at_v1($1, $2)", shard, time)
