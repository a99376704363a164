"""``POST /v1/events``: the path that every event takes, without a router in between."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.types import Receive, Scope, Send

from hookline.api.http import (
    Disconnected,
    Patience,
    RequestIds,
    read_body,
    require_json,
    respond_crash,
    respond_problem,
)
from hookline.api.keyring import Caller
from hookline.api.services import Services
from hookline.core.errors import Fault, Forbidden, HooklineError, InvalidInput
from hookline.core.model import Scope as KeyScope
from hookline.core.model import Tenant

TENANT_HEADER = b"hookline-tenant"

_JSON_HEADER = (b"content-type", b"application/json")
_DONE_END = b'","duplicate":false}'
_DUPLICATE_END = b'","duplicate":true}'


async def tenant_of(services: Services, caller: Caller, named: bytes) -> Tenant:
    """The tenant a request is about: the key's own, or the one an operator names in ``Hookline-Tenant``.

    Raises ``InvalidInput`` if an operator names none that exists, ``Forbidden`` if a tenant's key names another.
    """
    if caller.tenant is not None:
        if named and named != caller.tenant.id.encode():
            raise Forbidden("this key belongs to another tenant than Hookline-Tenant names")
        return caller.tenant
    if not named:
        raise InvalidInput(
            "an operator key acts for a tenant: name it in the header Hookline-Tenant",
            [Fault("Hookline-Tenant", "is required with an operator key")],
        )
    tenant = await services.keyring.tenant(named.decode("latin-1"))
    if tenant is None:
        raise InvalidInput("there is no such tenant", [Fault("Hookline-Tenant", "names no tenant")])
    return tenant


def require(caller: Caller, scope: KeyScope) -> None:
    """Raises ``Forbidden`` if the key does not cover the scope."""
    if scope not in caller.may:
        raise Forbidden(f"this needs a key with the scope {scope.value}")


def _head(headers: Iterable[tuple[bytes, bytes]]) -> tuple[bytes, bytes, bytes, bytes, bytes]:
    """Authorization, Content-Length, Content-Type, Hookline-Tenant and X-Request-Id in one pass."""
    authorization = length = content_type = named = offered = b""
    for name, value in headers:
        if name == b"authorization":
            authorization = value
        elif name == b"content-length":
            length = value
        elif name == b"content-type":
            content_type = value
        elif name == b"x-request-id":
            offered = value
        elif name == TENANT_HEADER:
            named = value
    return authorization, length, content_type, named, offered


class Ingest:
    """The ASGI application behind ``POST /v1/events``."""

    def __init__(self, services: Services, request_ids: RequestIds) -> None:
        self._services = services
        self._ids = request_ids
        self._patience = Patience(services.options.body_seconds)
        self._limit = services.options.event_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        authorization, length, content_type, named, offered = _head(scope["headers"])
        request_id = self._ids.choose(offered)
        try:
            tenant = await self._authorize(authorization, named)
            if content_type != b"application/json":
                require_json(content_type)
            if scope["query_string"]:
                raise InvalidInput(
                    "this path takes no query parameters", [Fault("", "has no query parameters")]
                )
            body = await read_body(receive, length, self._limit, self._patience)
            published = await self._services.publisher.publish(tenant, body)
        except HooklineError as error:
            await respond_problem(send, error, request_id)
        except Disconnected:
            return
        except Exception as error:  # noqa: BLE001 - the edge: nothing may leave it but an answer
            await respond_crash(send, error, request_id)
        else:
            end = _DUPLICATE_END if published.duplicate else _DONE_END
            answer = b'{"id":"' + published.id.encode() + end
            headers = [_JSON_HEADER, (b"content-length", b"%d" % len(answer)), (b"x-request-id", request_id)]
            await send({"type": "http.response.start", "status": 202, "headers": headers})
            await send({"type": "http.response.body", "body": answer})

    async def _authorize(self, authorization: bytes, named: bytes) -> Tenant:
        keyring = self._services.keyring
        caller = keyring.peek(authorization) or await keyring.find(authorization)
        require(caller, KeyScope.PUBLISH)
        if caller.tenant is not None and not named:
            return caller.tenant
        return await tenant_of(self._services, caller, named)
