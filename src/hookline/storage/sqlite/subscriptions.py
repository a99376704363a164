"""The statements about subscriptions, and the changes that readers of the log follow."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from sqlite3 import Connection

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
from hookline.ports import Changes
from hookline.storage.common import shown
from hookline.storage.sqlite.connection import Row, converted

_SUBSCRIPTION = (
    "no, id, tenant_no, shard, version, matches_from, definition, sealed, created_at, updated_at, state, "
    "state_reason, state_at, skip_to, start_after"
)
_BY_NO = f"SELECT {_SUBSCRIPTION} FROM subscriptions WHERE no = ?"
_BY_ID = f"SELECT {_SUBSCRIPTION} FROM subscriptions WHERE tenant_no = ? AND id = ?"
_OF_TENANT = f"""
SELECT {_SUBSCRIPTION} FROM subscriptions WHERE tenant_no = ? AND no > ? AND state <> 'deleted' ORDER BY no
"""
_CHANGED = f"SELECT {_SUBSCRIPTION} FROM subscriptions WHERE shard = 0 AND changed_at > ? ORDER BY no"
_MATTERING = f"""
SELECT {_SUBSCRIPTION} FROM subscriptions AS s WHERE shard = 0 AND changed_at > 0 AND
    (state <> 'deleted' OR EXISTS (SELECT 1 FROM unsettled WHERE subscription_no = s.no))
ORDER BY no
"""
_VERSIONS = """
SELECT subscription_no, version, matches_from, definition FROM definition_versions
WHERE subscription_no = ? ORDER BY version
"""
_CREATE = """
INSERT INTO subscriptions (id, tenant_no, shard, version, matches_from, definition, sealed, created_at,
    updated_at, state, state_reason, state_at, skip_to, start_after, changed_at)
VALUES (?1, ?2, 0, 1, ?3 + 1, ?4, ?5, ?6, ?6, ?7, '', ?6, 0, ?3, ?8) RETURNING no
"""
_UPDATE = """
UPDATE subscriptions SET version = ?2, matches_from = ?3, definition = ?4, sealed = ?5, updated_at = ?6,
    changed_at = ?7
WHERE no = ?1
"""
_SET_STATE = """
UPDATE subscriptions SET state = ?2, state_reason = ?3, state_at = ?4, updated_at = ?4,
    skip_to = iif(?5, (SELECT head FROM shards WHERE shard = 0), skip_to), changed_at = ?6
WHERE no = ?1
"""
_DISABLE = """
UPDATE subscriptions SET state = 'disabled', state_reason = ?2, state_at = ?3, updated_at = ?3, changed_at = ?4
WHERE no = ?1 AND state = 'active'
"""

_definition = msgspec.json.Decoder(Definition)


def bump(db: Connection) -> int:
    """Raise the configuration's version; the new one."""
    return db.execute(
        "UPDATE config SET version = version + 1 WHERE only_row = 1 RETURNING version"
    ).fetchone()[0]


def version(db: Connection) -> int:
    return db.execute("SELECT version FROM config WHERE only_row = 1").fetchone()[0]


def _head(db: Connection) -> Position:
    return db.execute("SELECT head FROM shards WHERE shard = 0").fetchone()[0]


def _decode(row: Row) -> Subscription:
    return Subscription(*converted(row, {6: _definition.decode, 10: SubscriptionState}))


def _decode_versions(rows: Iterable[Row]) -> list[DefinitionVersion]:
    return [DefinitionVersion(*converted(row, {3: _definition.decode})) for row in rows]


def changes(db: Connection, after: int) -> Changes:
    """What changed since version ``after``. To a reader that starts anew (0), a deleted subscription matters only
    while its waiting deliveries are not dropped."""
    rows = db.execute(_CHANGED, (after,)) if after else db.execute(_MATTERING)
    subscriptions = [_decode(row) for row in rows.fetchall()]
    definitions = [each for subscription in subscriptions for each in versions(db, subscription.no)]
    requeued = db.execute(
        "SELECT subscription_no FROM requeues WHERE version > ? ORDER BY subscription_no", (after,)
    )
    return Changes(version(db), subscriptions, definitions, [no for (no,) in requeued.fetchall()])


def requeue(db: Connection, subscription_no: int) -> None:
    """Let readers of the log see that a subscription has deliveries to look at."""
    db.execute(
        "INSERT INTO requeues VALUES (?, ?) ON CONFLICT DO UPDATE SET version = excluded.version",
        (subscription_no, bump(db)),
    )


def versions(db: Connection, subscription_no: int) -> list[DefinitionVersion]:
    return _decode_versions(db.execute(_VERSIONS, (subscription_no,)))


def by_no(db: Connection, subscription_no: int) -> Subscription:
    row = db.execute(_BY_NO, (subscription_no,)).fetchone()
    if row is None:
        raise NotFound("there is no such subscription")
    return _decode(row)


def by_id(db: Connection, tenant_no: int, subscription_id: str) -> Subscription:
    row = db.execute(_BY_ID, (tenant_no, subscription_id)).fetchone()
    if row is None:
        raise NotFound("there is no such subscription")
    return _kept(_decode(row))


def _kept(subscription: Subscription) -> Subscription:
    if subscription.state is SubscriptionState.DELETED:
        raise NotFound("this subscription is deleted")
    return subscription


def create(
    db: Connection,
    subscription_id: str,
    tenant_no: int,
    definition: Definition,
    sealed: bytes,
    now: Millis,
    state: SubscriptionState,
    start_after: Position | None,
) -> Subscription:
    if db.execute("SELECT 1 FROM tenants WHERE no = ?", (tenant_no,)).fetchone() is None:
        raise NotFound("there is no such tenant")
    head = _head(db)
    start = head if start_after is None else min(start_after, head)
    encoded = msgspec.json.encode(definition)
    values = (subscription_id, tenant_no, start, encoded, sealed, now, state.value, bump(db))
    try:
        (no,) = db.execute(_CREATE, values).fetchone()
    except sqlite3.IntegrityError as error:
        raise Conflict("a subscription with this id exists") from error
    _store_version(db, no, 1, start + 1, encoded)
    return by_no(db, no)


def _store_version(db: Connection, no: int, number: int, matches_from: Position, encoded: bytes) -> None:
    db.execute("INSERT INTO definition_versions VALUES (?, ?, ?, ?)", (no, number, matches_from, encoded))


def update(
    db: Connection, no: int, expected_version: int, definition: Definition, sealed: bytes, now: Millis
) -> Subscription:
    if _kept(by_no(db, no)).version != expected_version:
        raise Overtaken("the subscription was changed by someone else meanwhile")
    matches_from = _head(db) + 1
    encoded = msgspec.json.encode(definition)
    db.execute(_UPDATE, (no, expected_version + 1, matches_from, encoded, sealed, now, bump(db)))
    _store_version(db, no, expected_version + 1, matches_from, encoded)
    return by_no(db, no)


def set_state(
    db: Connection, no: int, state: SubscriptionState, reason: str, now: Millis, skip: bool
) -> Subscription:
    _kept(by_no(db, no))
    db.execute(_SET_STATE, (no, state.value, reason, now, skip, bump(db)))
    return by_no(db, no)


def disable(db: Connection, no: int, reason: str, now: Millis) -> None:
    """Disable it if it is active."""
    if db.execute(_DISABLE, (no, reason, now, version(db) + 1)).rowcount:
        bump(db)


def search(
    db: Connection, tenant_no: int, after: int, limit: int, text: str, event: str, url: str
) -> list[Subscription]:
    """A walk over the tenant's subscriptions; their number bounds it."""
    found: list[Subscription] = []
    for row in db.execute(_OF_TENANT, (tenant_no, after)):
        if len(found) >= limit:
            break
        subscription = _decode(row)
        if shown(subscription.definition, text, event, url):
            found.append(subscription)
    return found


def reseal(db: Connection, again: Callable[[bytes, str], bytes]) -> int:
    sealed = db.execute("SELECT no, id, sealed FROM subscriptions").fetchall()
    changed = [(new, no) for no, context, old in sealed if (new := again(old, context)) != old]
    if changed:
        at = bump(db)
        db.executemany(
            "UPDATE subscriptions SET sealed = ?, changed_at = ? WHERE no = ?",
            [(new, at, no) for new, no in changed],
        )
    return len(changed)
