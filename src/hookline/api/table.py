"""The route table: everything the native API offers, in the order of the reference."""

from __future__ import annotations

from typing import Any

from hookline.api.openapi import document
from hookline.api.route import AnyRoute, Call, NoQuery, Nothing, Reply, Route
from hookline.api.routes import deliveries, event_types, events, subscriptions, system, tenants
from hookline.core.model import EventType, Scope

MOST_WEBHOOKS = 1000


async def get_openapi(call: Call[NoQuery, Nothing]) -> Reply:
    types: list[EventType] = []
    if call.owner is not None and call.caller is not None and Scope.READ in call.caller.may:
        types = await call.services.storage.list_event_types(call.owner.no, "", MOST_WEBHOOKS)
    return Reply(document(ROUTES, types))


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
        description="Asked with a tenant's key, its webhooks are those of the tenant's catalogue.",
    ),
]  # fmt: skip
