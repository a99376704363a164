"""The statements about tenants, keys and event types."""

from __future__ import annotations

import sqlite3
from sqlite3 import Connection

import msgspec

from hookline.core.errors import Conflict, NotFound
from hookline.core.model import ApiKey, EventType, Millis, Retention, SchemaMode, Scope, Tenant
from hookline.storage.sqlite.connection import Row, converted
from hookline.storage.sqlite.subscriptions import bump

_TENANT = "no, id, name, profile, created_at, schema_mode, retention, webhooks"
_TENANT_BY_ID = f"SELECT {_TENANT} FROM tenants WHERE id = ?"
_TENANT_BY_NO = f"SELECT {_TENANT} FROM tenants WHERE no = ?"
_TENANTS = f"SELECT {_TENANT} FROM tenants WHERE id > ? ORDER BY id LIMIT ?"

_KEY = "id, tenant_no, name, digest, hint, scopes, created_at, revoked_at, expires_at, session_of"
_KEY_BY_DIGEST = f"SELECT {_KEY} FROM api_keys WHERE digest = ?"
_KEY_BY_ID = f"SELECT {_KEY} FROM api_keys WHERE id = ? AND tenant_no IS ?"
_KEYS = f"SELECT {_KEY} FROM api_keys WHERE tenant_no IS ? AND session_of IS NULL ORDER BY no"
_ADD_KEY = f"INSERT INTO api_keys ({_KEY}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_EXPIRED = "DELETE FROM api_keys WHERE session_of = ? AND expires_at <= ?"
_SESSIONS_BEYOND = """DELETE FROM api_keys WHERE session_of = ?1 AND no NOT IN
    (SELECT no FROM api_keys WHERE session_of = ?1 ORDER BY no DESC LIMIT ?2)"""

_TYPE = (
    "tenant_no, name, description, version, created_at, updated_at, group_name, usage, schema, example, "
    "deprecated_at"
)
_PUT_TYPE = f"INSERT OR REPLACE INTO event_types ({_TYPE}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_STORED = _TYPE.count(",") + 1
_TYPE_BY_NAME = f"SELECT {_TYPE} FROM event_types WHERE tenant_no = ? AND name = ?"
_TYPES = f"SELECT {_TYPE} FROM event_types WHERE tenant_no = ? AND name > ? ORDER BY name LIMIT ?"

_scopes = msgspec.json.Decoder(tuple[Scope, ...])


# --- tenants -----------------------------------------------------------------------------------------


def _retention(text: str | None) -> Retention | None:
    return None if text is None else msgspec.json.decode(text, type=Retention)


def _tenant(row: Row) -> Tenant:
    return Tenant(*converted(row, {5: SchemaMode, 6: _retention, 7: bool}))


def create_tenant(
    db: Connection, tenant_id: str, name: str, profile: str, key: ApiKey, now: Millis
) -> Tenant:
    if find_tenant(db, tenant_id) is not None:
        raise Conflict("a tenant with this id exists")
    row = db.execute(
        "INSERT INTO tenants (id, name, profile, created_at, schema_mode) VALUES (?, ?, ?, ?, ?) RETURNING no",
        (tenant_id, name, profile, now, SchemaMode.LOG.value),
    ).fetchone()
    add_key(db, msgspec.structs.replace(key, tenant_no=row[0]))
    return get_tenant(db, row[0])


def update_tenant(
    db: Connection,
    no: int,
    name: str,
    profile: str,
    schema_mode: SchemaMode,
    retention: Retention | None,
    webhooks: bool,
) -> Tenant:
    encoded = None if retention is None else msgspec.json.encode(retention).decode()
    db.execute(
        "UPDATE tenants SET name = ?, profile = ?, schema_mode = ?, retention = ?, webhooks = ? WHERE no = ?",
        (name, profile, schema_mode.value, encoded, webhooks, no),
    )
    bump(db)
    return get_tenant(db, no)


def list_tenants(db: Connection, after: str, limit: int) -> list[Tenant]:
    return [_tenant(row) for row in db.execute(_TENANTS, (after, limit))]


def find_tenant(db: Connection, tenant_id: str) -> Tenant | None:
    row = db.execute(_TENANT_BY_ID, (tenant_id,)).fetchone()
    return None if row is None else _tenant(row)


def get_tenant(db: Connection, no: int) -> Tenant:
    row = db.execute(_TENANT_BY_NO, (no,)).fetchone()
    if row is None:
        raise NotFound("there is no such tenant")
    return _tenant(row)


# --- keys --------------------------------------------------------------------------------------------


def _key(row: Row) -> ApiKey:
    return ApiKey(*converted(row, {5: _scopes.decode}))


def add_key(db: Connection, key: ApiKey) -> None:
    _insert_key(db, key)
    bump(db)


def add_session(db: Connection, session: ApiKey, most: int, now: Millis) -> None:
    db.execute(_EXPIRED, (session.session_of, now))
    _insert_key(db, session)
    db.execute(_SESSIONS_BEYOND, (session.session_of, most))


def _insert_key(db: Connection, key: ApiKey) -> None:
    values = list(msgspec.structs.astuple(key))
    values[5] = msgspec.json.encode(key.scopes).decode()
    try:
        db.execute(_ADD_KEY, values)
    except sqlite3.IntegrityError as error:
        raise Conflict("this API key exists") from error


def list_keys(db: Connection, tenant_no: int | None) -> list[ApiKey]:
    return [_key(row) for row in db.execute(_KEYS, (tenant_no,))]


def find_key(db: Connection, digest: bytes) -> ApiKey | None:
    row = db.execute(_KEY_BY_DIGEST, (digest,)).fetchone()
    return None if row is None else _key(row)


def revoke_key(db: Connection, tenant_no: int | None, key_id: str, now: Millis) -> ApiKey:
    row = db.execute(_KEY_BY_ID, (key_id, tenant_no)).fetchone()
    if row is None:
        raise NotFound("there is no such API key")
    key = _key(row)
    if key.revoked_at is not None:
        return key
    db.execute("UPDATE api_keys SET revoked_at = ? WHERE id = ?", (now, key_id))
    db.execute("DELETE FROM api_keys WHERE session_of = ?", (key_id,))
    bump(db)
    return msgspec.structs.replace(key, revoked_at=now)


# --- event types -------------------------------------------------------------------------------------


def put_event_type(db: Connection, event_type: EventType) -> None:
    db.execute(_PUT_TYPE, msgspec.structs.astuple(event_type)[:_STORED])
    bump(db)


def get_event_type(db: Connection, tenant_no: int, name: str) -> EventType | None:
    row = db.execute(_TYPE_BY_NAME, (tenant_no, name)).fetchone()
    return None if row is None else EventType(*row)


def list_event_types(db: Connection, tenant_no: int, after: str, limit: int) -> list[EventType]:
    return [EventType(*row) for row in db.execute(_TYPES, (tenant_no, after, limit))]
