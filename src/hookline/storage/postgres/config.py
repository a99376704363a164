"""The statements about tenants, keys and event types."""

from __future__ import annotations

import msgspec

from hookline.core.errors import Conflict, NotFound
from hookline.core.model import ApiKey, EventType, Millis, Retention, SchemaMode, Scope, Tenant
from hookline.storage.postgres.connection import Connection, Row, look_up
from hookline.storage.postgres.subscriptions import bump

_TENANT = "no, id, name, profile, created_at, schema_mode, retention, webhooks"
_TENANT_BY_ID = f"SELECT {_TENANT} FROM hookline.tenants WHERE id = $1"
_TENANT_BY_NO = f"SELECT {_TENANT} FROM hookline.tenants WHERE no = $1"
_TENANTS = f"SELECT {_TENANT} FROM hookline.tenants WHERE id > $1 ORDER BY id LIMIT $2"
_CREATE_TENANT = """
INSERT INTO hookline.tenants (no, id, name, profile, created_at, schema_mode) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (id) DO NOTHING RETURNING no
"""

OPERATORS = 0
"""The tenant number of operators' keys in the table."""

_KEY = "id, tenant_no, name, digest, hint, scopes, created_at, revoked_at, expires_at, session_of"
_KEY_BY_DIGEST = f"SELECT {_KEY} FROM hookline.api_keys WHERE digest = $1"
_KEY_BY_ID = f"SELECT {_KEY} FROM hookline.api_keys WHERE id = $1 AND tenant_no = $2 FOR UPDATE"
_KEYS = f"SELECT {_KEY} FROM hookline.api_keys WHERE tenant_no = $1 AND session_of IS NULL ORDER BY no"
_ADD_KEY = f"""
INSERT INTO hookline.api_keys ({_KEY}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
ON CONFLICT DO NOTHING RETURNING no
"""
_EXPIRED = "DELETE FROM hookline.api_keys WHERE session_of = $1 AND expires_at <= $2"
_SESSIONS_BEYOND = """
DELETE FROM hookline.api_keys WHERE session_of = $1 AND no NOT IN
    (SELECT no FROM hookline.api_keys WHERE session_of = $1 ORDER BY no DESC LIMIT $2)
"""

_TYPE = (
    "tenant_no, name, description, version, created_at, updated_at, group_name, usage, schema, example, "
    "deprecated_at"
)
_STORED = _TYPE.count(",") + 1
_PUT_TYPE = f"""
INSERT INTO hookline.event_types ({_TYPE}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
ON CONFLICT (tenant_no, name) DO UPDATE SET description = excluded.description, version = excluded.version,
    created_at = excluded.created_at, updated_at = excluded.updated_at, group_name = excluded.group_name,
    usage = excluded.usage, schema = excluded.schema, example = excluded.example,
    deprecated_at = excluded.deprecated_at
"""
_TYPE_BY_NAME = f"SELECT {_TYPE} FROM hookline.event_types WHERE tenant_no = $1 AND name = $2"
_TYPES = f"SELECT {_TYPE} FROM hookline.event_types WHERE tenant_no = $1 AND name > $2 ORDER BY name LIMIT $3"

_scopes = msgspec.json.Decoder(tuple[Scope, ...])


# --- tenants -----------------------------------------------------------------------------------------


def _retention(text: str | None) -> Retention | None:
    return None if text is None else msgspec.json.decode(text, type=Retention)


def _tenant(row: Row) -> Tenant:
    no, name, title, profile, created_at, mode, retention, webhooks = row
    return Tenant(no, name, title, profile, created_at, SchemaMode(mode), _retention(retention), webhooks)


async def create_tenant(
    db: Connection, tenant_id: str, name: str, profile: str, key: ApiKey, now: Millis
) -> Tenant:
    no = await db.fetchval("UPDATE hookline.config SET tenants = tenants + 1 RETURNING tenants")
    if await db.fetchval(_CREATE_TENANT, no, tenant_id, name, profile, now, SchemaMode.LOG.value) is None:
        raise Conflict("a tenant with this id exists")
    await add_key(db, msgspec.structs.replace(key, tenant_no=no))
    return await get_tenant(db, no)


async def update_tenant(
    db: Connection,
    no: int,
    name: str,
    profile: str,
    schema_mode: SchemaMode,
    retention: Retention | None,
    webhooks: bool,
) -> Tenant:
    await bump(db)
    await db.execute(
        "UPDATE hookline.tenants SET name = $2, profile = $3, schema_mode = $4, retention = $5, webhooks = $6 "
        "WHERE no = $1",
        no,
        name,
        profile,
        schema_mode.value,
        None if retention is None else msgspec.json.encode(retention).decode(),
        webhooks,
    )
    return await get_tenant(db, no)


async def list_tenants(db: Connection, after: str, limit: int) -> list[Tenant]:
    return [_tenant(row) for row in await db.fetch(_TENANTS, after, limit)]


async def find_tenant(db: Connection, tenant_id: str) -> Tenant | None:
    row = await look_up(db, _TENANT_BY_ID, tenant_id)
    return None if row is None else _tenant(row)


async def get_tenant(db: Connection, no: int) -> Tenant:
    row = await db.fetchrow(_TENANT_BY_NO, no)
    if row is None:
        raise NotFound("there is no such tenant")
    return _tenant(row)


# --- keys --------------------------------------------------------------------------------------------


def _key(row: Row) -> ApiKey:
    values = list(row)
    values[1] = None if values[1] == OPERATORS else values[1]
    values[5] = _scopes.decode(values[5])
    return ApiKey(*values)


async def add_key(db: Connection, key: ApiKey) -> None:
    await bump(db)
    await _insert_key(db, key)


async def add_session(db: Connection, session: ApiKey, most: int, now: Millis) -> None:
    await db.execute(_EXPIRED, session.session_of, now)
    await _insert_key(db, session)
    await db.execute(_SESSIONS_BEYOND, session.session_of, most)


async def _insert_key(db: Connection, key: ApiKey) -> None:
    values = list(msgspec.structs.astuple(key))
    values[1] = OPERATORS if key.tenant_no is None else key.tenant_no
    values[5] = msgspec.json.encode(key.scopes).decode()
    if await db.fetchval(_ADD_KEY, *values) is None:
        raise Conflict("this API key exists")


async def list_keys(db: Connection, tenant_no: int | None) -> list[ApiKey]:
    return [_key(row) for row in await db.fetch(_KEYS, OPERATORS if tenant_no is None else tenant_no)]


async def find_key(db: Connection, digest: bytes) -> ApiKey | None:
    row = await db.fetchrow(_KEY_BY_DIGEST, digest)
    return None if row is None else _key(row)


async def revoke_key(db: Connection, tenant_no: int | None, key_id: str, now: Millis) -> ApiKey:
    row = await look_up(db, _KEY_BY_ID, key_id, OPERATORS if tenant_no is None else tenant_no)
    if row is None:
        raise NotFound("there is no such API key")
    key = _key(row)
    if key.revoked_at is not None:
        return key
    await bump(db)
    await db.execute("UPDATE hookline.api_keys SET revoked_at = $2 WHERE id = $1", key_id, now)
    await db.execute("DELETE FROM hookline.api_keys WHERE session_of = $1", key_id)
    return msgspec.structs.replace(key, revoked_at=now)


# --- event types -------------------------------------------------------------------------------------


async def put_event_type(db: Connection, event_type: EventType) -> None:
    await bump(db)
    await db.execute(_PUT_TYPE, *msgspec.structs.astuple(event_type)[:_STORED])


async def get_event_type(db: Connection, tenant_no: int, name: str) -> EventType | None:
    row = await look_up(db, _TYPE_BY_NAME, tenant_no, name)
    return None if row is None else EventType(*row)


async def list_event_types(db: Connection, tenant_no: int, after: str, limit: int) -> list[EventType]:
    return [EventType(*row) for row in await db.fetch(_TYPES, tenant_no, after, limit)]
