"""The statements about replay jobs."""

from __future__ import annotations

import sqlite3
from sqlite3 import Connection

from hookline.core.errors import Conflict, NotFound
from hookline.core.model import DeliveryState, Millis, Replay, ReplayState
from hookline.storage.common import cancelled, sent_again, staggered, stepped
from hookline.storage.sqlite.connection import Row, converted
from hookline.storage.sqlite.deliveries import put_back, replayable, tenant_of
from hookline.storage.sqlite.subscriptions import requeue

REPLAY = (
    "r.id, r.subscription_no, r.after_position, r.until_position, r.states, r.rate, r.total, r.done, r.progress, "
    "r.state, r.created_at, r.updated_at"
)
_BY_ID = f"SELECT {REPLAY} FROM replays AS r WHERE id = ?"
_NEWEST = f"SELECT {REPLAY} FROM replays AS r WHERE subscription_no = ? ORDER BY no DESC LIMIT ?"
_CREATE = """
INSERT INTO replays (id, subscription_no, after_position, until_position, states, rate, total, done, progress,
    state, created_at, updated_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""


def decode(row: Row) -> Replay:
    return Replay(*converted(row, {4: _states, 9: ReplayState}))


def _states(text: str) -> tuple[DeliveryState, ...]:
    return tuple(map(DeliveryState, text.split()))


def create(db: Connection, replay: Replay) -> None:
    tenant_of(db, replay.subscription_no)
    values = (
        replay.id,
        replay.subscription_no,
        replay.after,
        replay.until,
        " ".join(replay.states),
        replay.rate,
        replay.total,
        replay.done,
        replay.progress,
        replay.state.value,
        replay.created_at,
        replay.updated_at,
    )
    try:
        db.execute(_CREATE, values)
    except sqlite3.IntegrityError as error:
        raise Conflict("a replay job with this id exists") from error
    requeue(db, replay.subscription_no)


def get(db: Connection, replay_id: str) -> Replay:
    row = db.execute(_BY_ID, (replay_id,)).fetchone()
    if row is None:
        raise NotFound("there is no such replay job")
    return decode(row)


def newest(db: Connection, subscription_no: int, limit: int) -> list[Replay]:
    return [decode(row) for row in db.execute(_NEWEST, (subscription_no, limit))]


def step(db: Connection, replay_id: str, limit: int, due_at: Millis, interval: float, now: Millis) -> Replay:
    replay = get(db, replay_id)
    if replay.state is not ReplayState.RUNNING:
        return replay
    after = max(replay.after, replay.progress)
    found = replayable(db, replay.subscription_no, after, replay.until, replay.states, limit + 1)
    moved = found[:limit]
    back = [
        sent_again(settled, _key(db, settled.position), due)
        for settled, due in zip(moved, staggered(due_at, interval, len(moved)), strict=True)
    ]
    put_back(db, back)
    return _keep(db, stepped(replay, [each.position for each in moved], len(found) > limit, now))


def _key(db: Connection, position: int) -> str | None:
    return db.execute("SELECT key FROM events WHERE position = ?", (position,)).fetchone()[0]


def cancel(db: Connection, replay_id: str, now: Millis) -> Replay:
    replay = get(db, replay_id)
    stopped = cancelled(replay, now)
    if stopped is not replay:
        requeue(db, replay.subscription_no)
    return _keep(db, stopped)


def _keep(db: Connection, replay: Replay) -> Replay:
    db.execute(
        "UPDATE replays SET done = ?, progress = ?, state = ?, updated_at = ? WHERE id = ?",
        (replay.done, replay.progress, replay.state.value, replay.updated_at, replay.id),
    )
    return replay
