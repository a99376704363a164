"""From an HTTP request to a handler and back: who calls, what they ask, what they get."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from starlette.types import Receive, Scope, Send

from hookline.api.http import (
    Disconnected,
    Patience,
    RequestIds,
    encode,
    header,
    media_type,
    read_body,
    respond,
    respond_crash,
    respond_problem,
)
from hookline.api.ingest import TENANT_HEADER, require, tenant_of
from hookline.api.keyring import Caller
from hookline.api.problems import Headers, MethodNotAllowed, UnsupportedMediaType
from hookline.api.route import AnyRoute, Call, Nothing, Reply
from hookline.api.services import Services
from hookline.core.errors import HooklineError, InvalidInput, NotFound
from hookline.core.model import Scope as KeyScope
from hookline.core.model import Tenant
from hookline.core.reading import parse_json, read_json, read_texts

MAX_QUERY = 8192
_ALWAYS: Headers = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]
"""Answers hold secrets, and payloads that publishers and receivers wrote."""


class Endpoint:
    """The ASGI application of one path: picks the route by method."""

    def __init__(self, services: Services, request_ids: RequestIds, routes: dict[str, AnyRoute]) -> None:
        self._services = services
        self._ids = request_ids
        self._routes = routes
        self._patience = Patience(services.options.body_seconds)
        self._allowed = sorted({*routes, "HEAD"} if "GET" in routes else routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = self._ids.choose(header(scope, b"x-request-id"))
        try:
            route = self._route(scope["method"])
            reply = await self._reply(route, scope, receive, request_id.decode("ascii"))
            if route.changes:
                self._services.changed()
            headers: Headers = [(b"x-request-id", request_id), *_ALWAYS, *reply.headers]
            status = reply.status or route.status
            body = encode(reply.body) if reply.raw is None else reply.raw
            if status != 204:
                headers.append((b"content-type", reply.content_type))
        except HooklineError as error:
            await respond_problem(send, error, request_id)
        except Disconnected:
            return
        except Exception as error:  # noqa: BLE001 - the edge: nothing may leave it but an answer
            await respond_crash(send, error, request_id)
        else:
            await respond(send, status, headers, b"" if status == 204 else body)

    def _route(self, method: str) -> AnyRoute:
        route = self._routes.get("GET" if method == "HEAD" else method)
        if route is None:
            raise MethodNotAllowed(self._allowed)
        return route

    async def _reply(self, route: AnyRoute, scope: Scope, receive: Receive, request_id: str) -> Reply:
        services = self._services
        caller, owner = await _identify(services, route, scope)
        query = read_texts(route.query, _pairs(scope["query_string"]))
        body = await self._body(route, scope, receive)
        call: Call[Any, Any] = Call(
            services=services,
            caller=caller,
            owner=owner,
            path=scope["path_params"],
            query=query,
            body=body,
            headers=dict(scope["headers"]),
            request_id=request_id,
        )
        answer = await route.handler(call)
        return answer if isinstance(answer, Reply) else Reply(answer)

    async def _body(self, route: AnyRoute, scope: Scope, receive: Receive) -> object:
        if route.body is Nothing:
            return Nothing()
        options = self._services.options
        limit = options.batch_bytes if route.large else options.body_bytes
        length = header(scope, b"content-length")
        body = await read_body(receive, length, limit, self._patience)
        if not body and not route.body_required:
            return route.body()
        content_type = media_type(header(scope, b"content-type")).decode("latin-1")
        if content_type and content_type not in route.media_types:
            raise UnsupportedMediaType(f"send the body as Content-Type: {' or '.join(route.media_types)}")
        if route.body is bytes:
            return body
        return parse_json(body) if route.body is object else read_json(route.body, body)


async def _identify(services: Services, route: AnyRoute, scope: Scope) -> tuple[Caller | None, Tenant | None]:
    authorization = header(scope, b"authorization")
    if route.anonymous or (route.scope is None and not authorization):
        return None, None
    caller = services.keyring.peek(authorization) or await services.keyring.find(authorization)
    if route.scope is not None:
        require(caller, route.scope)
    named = header(scope, TENANT_HEADER)
    if route.scope is KeyScope.OPERATOR:
        return caller, None
    if not route.tenant and caller.tenant is None and not named:
        return caller, None
    return caller, await tenant_of(services, caller, named)


def _pairs(query_string: bytes) -> list[tuple[str, str]]:
    if len(query_string) > MAX_QUERY:
        raise InvalidInput(f"the query string is longer than {MAX_QUERY} bytes")
    try:
        return parse_qsl(
            query_string.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=100
        )
    except ValueError:
        raise InvalidInput("the query string is not valid: percent-encoded UTF-8 is expected") from None


class Missing:
    """The ASGI application behind every path that there is not."""

    def __init__(self, request_ids: RequestIds) -> None:
        self._ids = request_ids

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            request_id = self._ids.choose(header(scope, b"x-request-id"))
            await respond_problem(send, NotFound("there is nothing at this path"), request_id)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
