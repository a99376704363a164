"""The log's statements."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from sqlite3 import Connection

from msgspec.structs import astuple

from hookline.core.model import Appended, Event, Millis, NewEvent, Position
from hookline.ports import Changes, LogPage
from hookline.storage.common import day_of, event_at, page_of, published
from hookline.storage.sqlite.connection import ManyRows, Row, snapshot
from hookline.storage.sqlite.subscriptions import changes

EVENT = (
    "position, tenant_no, id, type, data, occurred_at, received_at, object_type, object_id, "
    "source_application, source_user, key, correlation_id"
)
"""Columns in the order of ``Event``, its shard left out."""

BLOCK_BITS = 10
"""Positions in a block of ``event_blocks``: 1,024."""

_INSERT = ManyRows("INSERT INTO events", "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
_BLOCKS = "INSERT INTO event_blocks VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
_USAGE = """
INSERT INTO usage (tenant_no, day, events, event_bytes) VALUES (?, ?, ?, ?)
ON CONFLICT DO UPDATE SET events = events + excluded.events, event_bytes = event_bytes + excluded.event_bytes
"""
_MOVE_HEAD = "UPDATE shards SET head = ?, last_received = ? WHERE shard = 0"
_PAGE = f"SELECT {EVENT} FROM events WHERE position > ? ORDER BY position LIMIT ?"
_TENANT_PAGE = f"SELECT {EVENT} FROM events WHERE tenant_no = ? AND position > ? ORDER BY position LIMIT ?"
_FIND = f"SELECT {EVENT} FROM events WHERE tenant_no = ? AND id = ?"
_AT = f"SELECT {EVENT} FROM events WHERE position = ?"


def append(db: Connection, events: Sequence[NewEvent], now: Millis) -> list[Appended]:
    """See ``EventLog.append``. Duplicates are rare: it is tried without looking for them first."""
    if not events:
        return []
    head, last = db.execute("SELECT head, last_received FROM shards WHERE shard = 0").fetchone()
    received = max(now, last)
    try:
        _store(db, events, head, received)
    except sqlite3.IntegrityError:
        db.execute("DELETE FROM events WHERE position > ?", (head,))
        answers, fresh = _sort_out(db, events, head, received)
        _store(db, fresh, head, received)
    else:
        answers, fresh = [Appended(position) for position in range(head + 1, head + len(events) + 1)], events
    if fresh:
        _note(db, fresh, head, received, day_of(now))
    return answers


def _store(db: Connection, events: Sequence[NewEvent], head: Position, received: Millis) -> None:
    _INSERT.insert(db, [_row(position, event, received) for position, event in enumerate(events, head + 1)])


def _row(position: Position, event: NewEvent, received: Millis) -> Row:
    """An event in the order of the ``EVENT`` columns."""
    tenant_no, event_id, name, data, occurred, *rest = astuple(event)
    return (
        position,
        tenant_no,
        event_id,
        name,
        data,
        received if occurred is None else occurred,
        received,
        *rest,
    )


def _sort_out(
    db: Connection, events: Sequence[NewEvent], head: Position, received: Millis
) -> tuple[list[Appended], list[NewEvent]]:
    """The answer to each event, and those that are new."""
    answers: list[Appended] = []
    fresh: list[NewEvent] = []
    seen: dict[tuple[int, str], Event] = {}
    for event in events:
        place = (event.tenant_no, event.id)
        existing = seen.get(place) or find(db, *place)
        if existing is not None:
            answers.append(Appended(existing.position, existing))
            continue
        fresh.append(event)
        seen[place] = event_at(0, head + len(fresh), event, received)
        answers.append(Appended(head + len(fresh)))
    return answers, fresh


def _note(db: Connection, events: Sequence[NewEvent], head: Position, received: Millis, day: str) -> None:
    """What is kept about events beside themselves."""
    db.execute(_MOVE_HEAD, (head + len(events), received))
    blocks = set[tuple[int, str, int]]()
    for position, event in enumerate(events, head + 1):
        blocks.add((event.tenant_no, "t:" + event.type, position >> BLOCK_BITS))
        if event.object_type is not None:
            blocks.add((event.tenant_no, "o:" + event.object_type, position >> BLOCK_BITS))
    db.executemany(_BLOCKS, blocks)
    db.executemany(_USAGE, [(no, day, *used) for no, used in published(events).items()])


def decode(rows: Iterable[Row]) -> list[Event]:
    """Events from rows of the ``EVENT`` columns."""
    return [Event(0, *row) for row in rows]


def find(db: Connection, tenant_no: int, event_id: str) -> Event | None:
    found = decode(db.execute(_FIND, (tenant_no, event_id)))
    return found[0] if found else None


def read_log(
    db: Connection, after: Position, limit: int, changes_after: int, tenant_no: int | None
) -> LogPage:
    """See ``EventLog.read_log``. Asking again when nothing is new costs one statement."""
    head, version = _ends(db)
    if head <= after and version <= changes_after:
        return LogPage((), after, head, Changes(version))
    with snapshot(db):
        head, version = _ends(db)
        if tenant_no is None:
            rows = db.execute(_PAGE, (after, limit))
        else:
            rows = db.execute(_TENANT_PAGE, (tenant_no, after, limit))
        events, last = page_of((Event(0, *row) for row in rows), limit, after, head)
        news = changes(db, changes_after) if version > changes_after else Changes(version)
    return LogPage(events, last, head, news)


def read_tail(db: Connection, after: Position, limit: int, changes_after: int, near: int) -> LogPage | None:
    """See ``read_log``; None if more than ``near`` events lie between ``after`` and the head."""
    head, _ = _ends(db)
    return read_log(db, after, limit, changes_after, None) if head - after <= near else None


def _ends(db: Connection) -> tuple[Position, int]:
    return db.execute("SELECT head, version FROM shards, config WHERE shard = 0 AND only_row = 1").fetchone()


def read_events(db: Connection, positions: Sequence[Position]) -> list[Event]:
    found: list[Event] = []
    for position in sorted(set(positions)):
        found += decode(db.execute(_AT, (position,)))
    return found


def head(db: Connection) -> Position:
    return db.execute("SELECT head FROM shards WHERE shard = 0").fetchone()[0]


_FIRST_FROM = "SELECT position, received_at FROM events WHERE position >= ? ORDER BY position LIMIT 1"


def position_at(db: Connection, time: Millis) -> Position:
    """See ``EventLog.position_at``: a binary search, about 25 look-ups in a log of 30 million."""
    end = head(db)
    low, high, answer = 0, end, end
    while low < high:
        middle = (low + high) // 2 + 1
        row = db.execute(_FIRST_FROM, (middle,)).fetchone()
        if row is not None and row[1] < time:
            low = row[0]
            continue
        high = middle - 1
        if row is not None:
            answer = row[0] - 1
    return answer
