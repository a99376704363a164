"""The route table: everything the native API offers, in the order of the reference."""

from __future__ import annotations

from typing import Any

from hookline.api import asyncapi, openapi
from hookline.api.messages import MOST_TYPES, describe
from hookline.api.route import AnyRoute, Call, NoQuery, Nothing, Reply, Route
from hookline.api.routes import deliveries, event_types, events, subscriptions, system, tenants
from hookline.core.model import EventType, Scope, Tenant


async def get_openapi(call: Call[NoQuery, Nothing]) -> Reply:
    return Reply(openapi.document(ROUTES, describe(*await _shown(call), prefix=openapi.EVENT)))


async def get_asyncapi(call: Call[NoQuery, Nothing]) -> Reply:
    return Reply(asyncapi.document(describe(*await _shown(call), draft7=True)))


async def _shown(call: Call[NoQuery, Nothing]) -> tuple[Tenant | None, list[EventType]]:
    """The tenant whose catalogue the caller may read, with its types; else no tenant and none."""
    if call.owner is None or call.caller is None or Scope.READ not in call.caller.may:
        return None, []
    return call.owner, await call.services.types.list(call.owner, "", MOST_TYPES)


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
