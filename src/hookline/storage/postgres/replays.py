"""The statements about replay jobs."""

from __future__ import annotations

from hookline.core.errors import Conflict, NotFound
from hookline.core.model import DeliveryState, Millis, Replay, ReplayState
from hookline.storage.common import cancelled, sent_again, staggered, stepped
from hookline.storage.postgres.connection import Connection, Row, look_up
from hookline.storage.postgres.days import Days
from hookline.storage.postgres.deliveries import Homes, event_keys, put_back, replayable
from hookline.storage.postgres.lease import hold
from hookline.storage.postgres.subscriptions import requeue

REPLAY = (
    "r.id, r.subscription_no, r.after_position, r.until_position, r.states, r.rate, r.total, r.done, r.progress, "
    "r.state, r.created_at, r.updated_at"
)
_BY_ID = f"SELECT {REPLAY} FROM hookline.replays AS r WHERE r.id = $1"
_LOCKED = f"{_BY_ID} FOR UPDATE"
_NEWEST = (
    f"SELECT {REPLAY} FROM hookline.replays AS r WHERE r.subscription_no = $1 ORDER BY r.no DESC LIMIT $2"
)
_CREATE = """
INSERT INTO hookline.replays (id, subscription_no, after_position, until_position, states, rate, total, done, progress,
    state, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT (id) DO NOTHING RETURNING no
"""


def decode(row: Row) -> Replay:
    values = list(row)
    values[4] = tuple(map(DeliveryState, values[4].split()))
    values[9] = ReplayState(values[9])
    return Replay(*values)


async def create(db: Connection, homes: Homes, replay: Replay) -> None:
    home = await homes.get(db, replay.subscription_no)
    made = await db.fetchval(
        _CREATE,
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
    if made is None:
        raise Conflict("a replay job with this id exists")
    await requeue(db, replay.subscription_no, home.shard)


async def get(db: Connection, replay_id: str) -> Replay:
    return _found(await look_up(db, _BY_ID, replay_id))


def _found(row: Row | None) -> Replay:
    if row is None:
        raise NotFound("there is no such replay job")
    return decode(row)


async def newest(db: Connection, subscription_no: int, limit: int) -> list[Replay]:
    return [decode(row) for row in await db.fetch(_NEWEST, subscription_no, limit)]


async def step(
    db: Connection,
    homes: Homes,
    days: Days,
    replay_id: str,
    limit: int,
    due_at: Millis,
    interval: float,
    now: Millis,
) -> Replay:
    no = (await get(db, replay_id)).subscription_no
    await hold(db, no)
    replay = _found(await db.fetchrow(_LOCKED, replay_id))
    if replay.state is not ReplayState.RUNNING:
        return replay
    home = await homes.get(db, no)
    window = (max(replay.after, replay.progress), replay.until)
    found = await replayable(db, days, home, no, window, replay.states, limit + 1)
    moved = found[:limit]
    keys = await event_keys(db, days, home.shard, [each.position for each in moved])
    back = [
        sent_again(settled, keys[settled.position], due)
        for settled, due in zip(moved, staggered(due_at, interval, len(moved)), strict=True)
    ]
    await put_back(db, no, back, moved)
    return await _keep(db, stepped(replay, [each.position for each in moved], len(found) > limit, now))


async def cancel(db: Connection, homes: Homes, replay_id: str, now: Millis) -> Replay:
    replay = _found(await look_up(db, _LOCKED, replay_id))
    stopped = cancelled(replay, now)
    if stopped is replay:
        return replay
    await requeue(db, replay.subscription_no, (await homes.get(db, replay.subscription_no)).shard)
    return await _keep(db, stopped)


async def _keep(db: Connection, replay: Replay) -> Replay:
    await db.execute(
        "UPDATE hookline.replays SET done = $2, progress = $3, state = $4, updated_at = $5 WHERE id = $1",
        replay.id,
        replay.done,
        replay.progress,
        replay.state.value,
        replay.updated_at,
    )
    return replay
