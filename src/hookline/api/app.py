"""The ASGI application of the native API."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.routing import BaseRoute, Router
from starlette.routing import Route as PathRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from hookline.api.compat import compatible_routes
from hookline.api.http import RequestIds
from hookline.api.ingest import Ingest
from hookline.api.rest import Endpoint, Missing
from hookline.api.route import AnyRoute
from hookline.api.routes import system
from hookline.api.services import Services
from hookline.api.table import ROUTES

PUBLISH_PATH = "/v1/events"


class Gateway:
    """Takes publishing out before the router, which costs more than the publishing itself."""

    def __init__(self, ingest: ASGIApp, rest: ASGIApp) -> None:
        self._ingest = ingest
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"] == PUBLISH_PATH:
            await self._ingest(scope, receive, send)
        else:
            await self._rest(scope, receive, send)


def create_app(services: Services, more: Sequence[BaseRoute] = ()) -> ASGIApp:
    """The application: publishing, the route table, the compatible APIs, and the routes in ``more`` (the console)."""
    request_ids = RequestIds(services.entropy(5))
    others = [*compatible_routes(services, request_ids), *more]
    return Gateway(Ingest(services, request_ids), _router(services, request_ids, ROUTES, others))


def create_watch_app(services: Services) -> ASGIApp:
    """Health and metrics alone, for a process that only delivers."""
    return _router(services, RequestIds(services.entropy(5)), system.ROUTES)


def _router(
    services: Services, request_ids: RequestIds, routes: Sequence[AnyRoute], more: Sequence[BaseRoute] = ()
) -> Router:
    by_path: dict[str, dict[str, AnyRoute]] = {}
    for route in routes:
        by_path.setdefault(route.path, {})[route.method] = route
    paths: list[BaseRoute] = [
        PathRoute(path, Endpoint(services, request_ids, methods)) for path, methods in by_path.items()
    ]
    return Router([*paths, *more], redirect_slashes=False, default=Missing(request_ids))
