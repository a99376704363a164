"""Tenants, and the API keys of tenants and operators."""

from __future__ import annotations

from msgspec import structs

from hookline.api.paging import cut, encode_cursor, place_after
from hookline.api.route import AnyRoute, Call, NoQuery, Nothing, Reply, Route
from hookline.api.routes.common import PageQuery
from hookline.api.views import key_created, key_view, tenant_created, tenant_view
from hookline.api.wire import (
    KeyCreated,
    KeyView,
    PageView,
    TenantChange,
    TenantCreated,
    TenantView,
    WhoAmI,
)
from hookline.core.errors import Conflict, NotFound, Unauthorized
from hookline.core.model import Scope
from hookline.core.reading import given
from hookline.engine.manage import NewKey, NewTenant

TAG = "Tenants and keys"


async def create_tenant(call: Call[NoQuery, NewTenant]) -> TenantCreated:
    return tenant_created(*await call.services.tenants.create(call.body))


async def list_tenants(call: Call[PageQuery, Nothing]) -> PageView[TenantView]:
    after = place_after("tenants", call.query.cursor, str, "")
    found = await call.services.storage.list_tenants(after, call.query.limit + 1)
    page, last = cut(found, call.query.limit)
    following = None if last is None else encode_cursor("tenants", last.id)
    return PageView([tenant_view(tenant) for tenant in page], following)


async def get_tenant(call: Call[NoQuery, Nothing]) -> TenantView:
    return tenant_view(await call.services.tenants.get(call.path["id"]))


async def update_tenant(call: Call[NoQuery, TenantChange]) -> TenantView:
    tenants, change = call.services.tenants, call.body
    tenant = await tenants.get(call.path["id"])
    changed = NewTenant(
        id=tenant.id,
        name=given(change.name, tenant.name),
        profile=given(change.profile, tenant.profile),
        schema_mode=given(change.schema_mode, tenant.schema_mode),
        retention=given(change.retention, tenant.retention),
        webhooks=given(change.webhooks, tenant.webhooks),
    )
    return tenant_view(await tenants.update(tenant, changed))


async def who_am_i(call: Call[NoQuery, Nothing]) -> WhoAmI:
    if call.caller is None:
        raise Unauthorized("send the API key as Authorization: Bearer hk_…")
    return WhoAmI(key_view(call.caller.key), None if call.owner is None else tenant_view(call.owner))


async def create_key(call: Call[NoQuery, NewKey]) -> KeyCreated:
    new = call.body
    if call.owner is None and new == NewKey(name=new.name):
        new = structs.replace(new, scopes=(Scope.OPERATOR,))
    return key_created(await call.services.tenants.create_key(call.owner, new))


async def list_keys(call: Call[NoQuery, Nothing]) -> PageView[KeyView]:
    found = await call.services.storage.list_keys(None if call.owner is None else call.owner.no)
    return PageView([key_view(key) for key in found])


async def get_key(call: Call[NoQuery, Nothing]) -> KeyView:
    for key in await call.services.storage.list_keys(None if call.owner is None else call.owner.no):
        if key.id == call.path["id"]:
            return key_view(key)
    raise NotFound("there is no such API key")


async def revoke_key(call: Call[NoQuery, Nothing]) -> Reply:
    await call.services.tenants.revoke_key(call.owner, call.path["id"])
    return Reply()


KEY_TEXT = (
    "About the keys of the tenant; with an operator key and no `Hookline-Tenant` header, of the operators."
)

ROUTES: list[AnyRoute] = [
    Route(
        "POST", "/v1/tenants", create_tenant, "Create a tenant and its first API key", TAG, TenantCreated,
        NoQuery, NewTenant, scope=Scope.OPERATOR, status=201, errors=(Conflict,), changes=True,
    ),
    Route(
        "GET", "/v1/tenants", list_tenants, "List tenants", TAG, PageView[TenantView],
        PageQuery, Nothing, scope=Scope.OPERATOR,
    ),
    Route(
        "GET", "/v1/tenants/{id}", get_tenant, "Get a tenant", TAG, TenantView,
        NoQuery, Nothing, scope=Scope.OPERATOR, errors=(NotFound,),
    ),
    Route(
        "PATCH", "/v1/tenants/{id}", update_tenant, "Change a tenant", TAG, TenantView,
        NoQuery, TenantChange, scope=Scope.OPERATOR, errors=(NotFound,), changes=True,
    ),
    Route(
        "GET", "/v1/whoami", who_am_i, "Which key and tenant a request is made with", TAG, WhoAmI,
        NoQuery, Nothing, scope=None, tenant=False, errors=(Unauthorized,),
    ),
    Route(
        "POST", "/v1/keys", create_key, "Create an API key", TAG, KeyCreated,
        NoQuery, NewKey, scope=Scope.MANAGE, tenant=False, status=201, errors=(Conflict,), changes=True,
        description=KEY_TEXT,
    ),
    Route(
        "GET", "/v1/keys", list_keys, "List API keys", TAG, PageView[KeyView],
        NoQuery, Nothing, scope=Scope.MANAGE, tenant=False, description=KEY_TEXT,
    ),
    Route(
        "GET", "/v1/keys/{id}", get_key, "Get an API key", TAG, KeyView,
        NoQuery, Nothing, scope=Scope.MANAGE, tenant=False, errors=(NotFound,), description=KEY_TEXT,
    ),
    Route(
        "DELETE", "/v1/keys/{id}", revoke_key, "Revoke an API key", TAG, None,
        NoQuery, Nothing, scope=Scope.MANAGE, tenant=False, status=204, errors=(NotFound, Conflict),
        changes=True, description=KEY_TEXT,
    ),
]  # fmt: skip
