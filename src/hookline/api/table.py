"""The route table: everything the native API offers, in the order of the reference."""

from __future__ import annotations

import asyncio
from typing import Any

from msgspec.structs import replace

from hookline.api import asyncapi, openapi
from hookline.api.http import encode
from hookline.api.messages import MOST_BYTES, MOST_TYPES, describe
from hookline.api.route import AnyRoute, Call, NoQuery, Nothing, Reply, Route
from hookline.api.routes import deliveries, event_types, events, subscriptions, system, tenants
from hookline.core.model import EventType, Scope, Tenant
from hookline.engine.types import PAGE, EventTypeCatalogue


async def get_openapi(call: Call[NoQuery, Nothing]) -> Reply:
    shown = await _shown(call)
    return await asyncio.to_thread(
        lambda: _written(openapi.document(ROUTES, describe(*shown, prefix=openapi.EVENT)))
    )


async def get_asyncapi(call: Call[NoQuery, Nothing]) -> Reply:
    shown = await _shown(call)
    return await asyncio.to_thread(lambda: _written(asyncapi.document(describe(*shown, draft7=True))))


def _written(document: object) -> Reply:
    return Reply(raw=encode(document))


async def _shown(call: Call[NoQuery, Nothing]) -> tuple[Tenant | None, list[EventType]]:
    """The tenant whose catalogue the caller may read, with its types; else no tenant and none."""
    if call.owner is None or call.caller is None or Scope.READ not in call.caller.may:
        return None, []
    return call.owner, await _bounded(call.services.types, call.owner)


async def _bounded(catalogue: EventTypeCatalogue, tenant: Tenant) -> list[EventType]:
    """The types of a tenant; those behind the first ``MOST_BYTES`` without schema and example."""
    shown: list[EventType] = []
    room = MOST_BYTES
    while len(shown) < MOST_TYPES:
        page = await catalogue.list(tenant, shown[-1].name if shown else "", PAGE)
        for found in page:
            room -= len(found.schema or b"") + len(found.example or b"")
            shown.append(found if room >= 0 else replace(found, schema=None, example=None))
        if len(page) < PAGE:
            break
    return shown


ROUTES: list[AnyRoute] = [
    *events.ROUTES,
    *subscriptions.ROUTES,
    *deliveries.ROUTES,
    *event_types.ROUTES,
    *tenants.ROUTES,
    *system.ROUTES,
    Route(
        "GET", "/openapi.json", get_openapi, "This document", system.TAG, Any,
        NoQuery, Nothing, scope=None, tenant=False,
        description="Asked with a tenant's key, its webhooks are those of the tenant's catalogue, up to 1,000 types, "
        "in the form of the tenant's profile.",
    ),
    Route(
        "GET", "/asyncapi.json", get_asyncapi, "The tenant's webhooks as AsyncAPI 3.0", system.TAG, Any,
        NoQuery, Nothing, scope=None, tenant=False,
        description="Asked with a tenant's key; without one, it has Hookline's own events alone.",
    ),
]  # fmt: skip
