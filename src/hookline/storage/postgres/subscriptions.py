"""The statements about subscriptions, and the changes that readers of the log follow.

Whatever decides what matches from the next position on holds the shard's head until its commit: no event comes between.
Locks are taken in the order head, subscriptions by number, configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec

from hookline.core.errors import Conflict, NotFound, Overtaken
from hookline.core.model import (
    Definition,
    DefinitionVersion,
    Millis,
    Position,
    Subscription,
    SubscriptionState,
)
from hookline.core.sharding import shard_of, slice_of
from hookline.ports import Changes
from hookline.storage.common import shown
from hookline.storage.postgres.connection import Connection, Row, look_up

_SUBSCRIPTION = (
    "no, id, tenant_no, shard, version, matches_from, definition, sealed, created_at, updated_at, state, "
    "state_reason, state_at, skip_to, start_after"
)
# Numbers come out of ids and cursors, which anybody can make up, also such that a column could not hold.
_BY_NO = f"SELECT {_SUBSCRIPTION} FROM hookline.subscriptions WHERE no = $1::bigint"
_LOCKED = f"{_BY_NO} FOR UPDATE"
_BY_ID = f"SELECT {_SUBSCRIPTION} FROM hookline.subscriptions WHERE tenant_no = $1 AND id = $2"
_OF_TENANT = f"""
SELECT {_SUBSCRIPTION} FROM hookline.subscriptions
WHERE tenant_no = $1 AND no > $2::bigint AND state <> 'deleted' ORDER BY no LIMIT $3
"""
_CHANGED = (
    f"SELECT {_SUBSCRIPTION} FROM hookline.subscriptions WHERE shard = $1 AND changed_at > $2 ORDER BY no"
)
_MATTERING = f"""
SELECT {_SUBSCRIPTION} FROM hookline.subscriptions AS s WHERE shard = $1 AND
    (state <> 'deleted' OR EXISTS (SELECT FROM hookline.unsettled AS u WHERE u.subscription_no = s.no))
"""
_MATTERING_ALL = f"{_MATTERING} ORDER BY no"
_MATTERING_SLICE = f"{_MATTERING} AND slice = $2 ORDER BY no"
_REQUEUED = (
    "SELECT subscription_no FROM hookline.requeues WHERE shard = $1 AND version > $2 ORDER BY subscription_no"
)
_VERSION = "SELECT subscription_no, version, matches_from, definition FROM hookline.definition_versions"
_VERSIONS = f"{_VERSION} WHERE subscription_no = ANY ($1::integer[]) ORDER BY subscription_no, version"
_CREATE = """
INSERT INTO hookline.subscriptions (no, id, tenant_no, shard, slice, version, matches_from, definition, sealed,
    created_at, updated_at, state, state_reason, state_at, skip_to, start_after, changed_at)
VALUES ($1, $2, $3, $4, $5, 1, $6::bigint + 1, $7, $8, $9, $9, $10, '', $9, 0, $6, $11)
ON CONFLICT (tenant_no, id) DO NOTHING RETURNING no
"""
_UPDATE = """
UPDATE hookline.subscriptions SET version = $2, matches_from = $3, definition = $4, sealed = $5, updated_at = $6,
    changed_at = $7
WHERE no = $1
"""
_SET_STATE = """
UPDATE hookline.subscriptions SET state = $2, state_reason = $3, state_at = $4, updated_at = $4,
    skip_to = coalesce($5, skip_to), changed_at = $6
WHERE no = $1
"""
_ACTIVE = """
SELECT no, shard FROM hookline.subscriptions WHERE no = ANY ($1::integer[]) AND state = 'active' ORDER BY no FOR UPDATE
"""
_HEAD = "SELECT head FROM hookline.shard_heads WHERE shard = $1 FOR NO KEY UPDATE"

_definition = msgspec.json.Decoder(Definition)


# --- versions of the configuration -------------------------------------------------------------------


async def bump(db: Connection, shard: int | None = None) -> int:
    """Raise the configuration's version; the new one. Readers of ``shard`` have to follow this change."""
    version = await db.fetchval("UPDATE hookline.config SET version = version + 1 RETURNING version")
    if shard is not None:
        await db.execute("UPDATE hookline.shard_changes SET version = $2 WHERE shard = $1", shard, version)
    return version


async def version(db: Connection) -> int:
    return await db.fetchval("SELECT version FROM hookline.config")


async def hold_head(db: Connection, shard: int) -> Position:
    """The shard's head; nothing is appended until this transaction ends."""
    return await db.fetchval(_HEAD, shard)


async def changes(db: Connection, shard: int, after: int, slice: int | None = None) -> Changes:
    """What changed for a shard since version ``after``; for one of its slices, or for all. To a reader that starts anew
    (0), a deleted subscription matters only while its waiting deliveries are not dropped."""
    now = await version(db)
    if after >= now:
        return Changes(now)
    if after:
        rows = await db.fetch(_CHANGED, shard, after)
    elif slice is None:
        rows = await db.fetch(_MATTERING_ALL, shard)
    else:
        rows = await db.fetch(_MATTERING_SLICE, shard, slice)
    subscriptions = [_decode(row) for row in rows]
    definitions = await _versions_of(db, [each.no for each in subscriptions])
    requeued = await db.fetch(_REQUEUED, shard, after)
    return Changes(now, subscriptions, definitions, [row[0] for row in requeued])


async def requeue(db: Connection, subscription_no: int, shard: int) -> None:
    """Let readers of the log see that a subscription has deliveries to look at."""
    await db.execute(
        "INSERT INTO hookline.requeues (subscription_no, shard, version) VALUES ($1, $2, $3) "
        "ON CONFLICT (subscription_no) DO UPDATE SET version = excluded.version",
        subscription_no,
        shard,
        await bump(db, shard),
    )


# --- reading -----------------------------------------------------------------------------------------


def _decode(row: Row) -> Subscription:
    values = list(row)
    values[6] = _definition.decode(values[6])
    values[10] = SubscriptionState(values[10])
    return Subscription(*values)


def _decode_versions(rows: Iterable[Row]) -> list[DefinitionVersion]:
    return [DefinitionVersion(row[0], row[1], row[2], _definition.decode(row[3])) for row in rows]


async def versions(db: Connection, subscription_no: int) -> list[DefinitionVersion]:
    return await _versions_of(db, [subscription_no])


async def _versions_of(db: Connection, numbers: list[int]) -> list[DefinitionVersion]:
    return _decode_versions(await db.fetch(_VERSIONS, numbers)) if numbers else []


async def by_no(db: Connection, subscription_no: int) -> Subscription:
    return _found(await db.fetchrow(_BY_NO, subscription_no))


async def by_id(db: Connection, tenant_no: int, subscription_id: str) -> Subscription:
    return _kept(_found(await look_up(db, _BY_ID, tenant_no, subscription_id)))


def _found(row: Row | None) -> Subscription:
    if row is None:
        raise NotFound("there is no such subscription")
    return _decode(row)


def _kept(subscription: Subscription) -> Subscription:
    if subscription.state is SubscriptionState.DELETED:
        raise NotFound("this subscription is deleted")
    return subscription


SCAN = 500
"""Subscriptions that a search looks at in one step."""


async def search(
    db: Connection, tenant_no: int, after: int, limit: int, text: str, event: str, url: str
) -> list[Subscription]:
    """A walk over the tenant's subscriptions; their number bounds it."""
    found: list[Subscription] = []
    step = SCAN if text or event or url else limit
    while len(found) < limit:
        seen = [_decode(row) for row in await db.fetch(_OF_TENANT, tenant_no, after, step)]
        found += [each for each in seen if shown(each.definition, text, event, url)]
        if len(seen) < step:
            break
        after = seen[-1].no
    return found[:limit]


# --- changing ----------------------------------------------------------------------------------------


async def create(
    db: Connection,
    cut: tuple[int, int],
    subscription_id: str,
    tenant_no: int,
    definition: Definition,
    sealed: bytes,
    now: Millis,
    *,
    state: SubscriptionState,
    start_after: Position | None,
) -> Subscription:
    """``cut`` are the installation's shards and slices."""
    if not await db.fetchval("SELECT EXISTS (SELECT FROM hookline.tenants WHERE no = $1)", tenant_no):
        raise NotFound("there is no such tenant")
    shard = shard_of(tenant_no, cut[0])
    head = await hold_head(db, shard)
    start = head if start_after is None else min(start_after, head)
    number = await db.fetchval(
        "UPDATE hookline.config SET subscriptions = subscriptions + 1 RETURNING subscriptions"
    )
    encoded = msgspec.json.encode(definition)
    values = (start, encoded, sealed, now, state.value, await bump(db, shard))
    place = (number, subscription_id, tenant_no, shard, slice_of(number, cut[1]))
    if await db.fetchval(_CREATE, *place, *values) is None:
        raise Conflict("a subscription with this id exists")
    await _store_version(db, number, 1, start + 1, encoded)
    return await by_no(db, number)


async def _store_version(
    db: Connection, no: int, number: int, matches_from: Position, encoded: bytes
) -> None:
    await db.execute(
        "INSERT INTO hookline.definition_versions VALUES ($1, $2, $3, $4)", no, number, matches_from, encoded
    )


async def _hold(db: Connection, no: int) -> tuple[Subscription, Position]:
    """A subscription to be changed, and the head of its shard; both stay as they are until then."""
    shard = (await by_no(db, no)).shard
    head = await hold_head(db, shard)
    return _kept(_found(await db.fetchrow(_LOCKED, no))), head


async def update(
    db: Connection, no: int, expected_version: int, definition: Definition, sealed: bytes, now: Millis
) -> Subscription:
    held, head = await _hold(db, no)
    if held.version != expected_version:
        raise Overtaken("the subscription was changed by someone else meanwhile")
    encoded = msgspec.json.encode(definition)
    at = await bump(db, held.shard)
    await db.execute(_UPDATE, no, expected_version + 1, head + 1, encoded, sealed, now, at)
    await _store_version(db, no, expected_version + 1, head + 1, encoded)
    return await by_no(db, no)


async def set_state(
    db: Connection, no: int, state: SubscriptionState, reason: str, now: Millis, skip: bool
) -> Subscription:
    held, head = await _hold(db, no)
    at = await bump(db, held.shard)
    await db.execute(_SET_STATE, no, state.value, reason, now, head if skip else None, at)
    return await by_no(db, no)


async def disable(db: Connection, reasons: Mapping[int, str], now: Millis) -> None:
    """Disable those that are active, each for its reason."""
    for no, shard in await db.fetch(_ACTIVE, list(reasons)):
        at = await bump(db, shard)
        await db.execute(_SET_STATE, no, SubscriptionState.DISABLED.value, reasons[no], now, None, at)


async def reseal(db: Connection, again: Callable[[bytes, str], bytes]) -> int:
    rows = await db.fetch("SELECT no, id, sealed, shard FROM hookline.subscriptions ORDER BY no FOR UPDATE")
    changed = [(row[0], new, row[3]) for row in rows if (new := again(row[2], row[1])) != row[2]]
    if changed:
        shards = sorted({shard for _, _, shard in changed})
        at = await bump(db)
        await db.execute(
            "UPDATE hookline.shard_changes SET version = $2 WHERE shard = ANY ($1::integer[])", shards, at
        )
        await db.execute(
            "UPDATE hookline.subscriptions AS s SET sealed = n.sealed, changed_at = $3 "
            "FROM unnest($1::integer[], $2::bytea[]) AS n (no, sealed) WHERE s.no = n.no",
            [no for no, _, _ in changed],
            [sealed for _, sealed, _ in changed],
            at,
        )
    return len(changed)
