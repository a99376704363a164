"""What the compatible APIs share: from an HTTP request to a handler, and back in the platform's own form."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import parse_qsl

from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from hookline.api.http import Disconnected, Patience, RequestIds, encode, header, read_body, respond
from hookline.api.ingest import require
from hookline.api.keyring import Caller
from hookline.api.problems import Headers, MethodNotAllowed, problem_headers
from hookline.api.services import Services
from hookline.core.errors import HooklineError, InvalidInput, NotFound, Unauthorized
from hookline.core.model import Scope as KeyScope
from hookline.core.model import Tenant
from hookline.observe import log

MAX_QUERY = 8192
MAX_PARAMETERS = 100
_ALWAYS: Headers = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]
_JSON = b"application/json"


@dataclass(frozen=True, slots=True)
class Ask:
    """One request of a known caller. ``query`` holds the parameters in order, ``body`` the bytes as they came."""

    services: Services
    caller: Caller
    tenant: Tenant
    path: Mapping[str, str]
    query: Sequence[tuple[str, str]]
    headers: Mapping[bytes, bytes]
    body: bytes
    request_id: str


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and JSON body (none for 204). ``raw`` takes the place of ``body`` for JSON that is written already."""

    body: object = None
    status: int = 200
    headers: Headers = field(default_factory=list["tuple[bytes, bytes]"])
    raw: bytes | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """One row of a platform's API. ``scope`` of None is left to the handler; ``changes`` marks operations after which
    caches of the configuration must be dropped."""

    method: str
    path: str
    handler: Callable[[Ask], Awaitable[Answer]]
    scope: KeyScope | None = KeyScope.READ
    changes: bool = False


class Platform(Protocol):
    """One platform's manner."""

    @property
    def prefix(self) -> str:
        """Where its paths begin, without a slash at the end."""
        ...

    @property
    def operations(self) -> Sequence[Operation]:
        """Paths are in full; an earlier one wins over a later one."""
        ...

    @property
    def challenge(self) -> bytes:
        """The ``WWW-Authenticate`` header of the answer to unknown callers; empty for none."""
        ...

    @property
    def any_case(self) -> bool:
        """Whether the paths are the same in upper and lower case."""
        ...

    async def identify(self, services: Services, scope: Scope) -> tuple[Caller, Tenant]:
        """Who calls, and for which tenant. Raises ``Unauthorized``, ``Forbidden`` or ``NotFound``."""
        ...

    def failure(self, error: HooklineError, request_id: str) -> Answer:
        """An error as the platform tells it."""
        ...


class _Endpoint:
    """The ASGI application of one path. Without operations, it answers that there is nothing."""

    def __init__(
        self, platform: Platform, services: Services, ids: RequestIds, operations: Iterable[Operation] = ()
    ) -> None:
        self._platform = platform
        self._services = services
        self._ids = ids
        self._operations = {operation.method: operation for operation in operations}
        self._patience = Patience(services.options.body_seconds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = self._ids.choose(header(scope, b"x-request-id"))
        try:
            answer = await self._answer(scope, receive, request_id.decode("ascii"))
        except Disconnected:
            return
        content = b"" if answer.status == 204 else encode(answer.body) if answer.raw is None else answer.raw
        headers: Headers = [(b"x-request-id", request_id), *_ALWAYS, *answer.headers]
        if answer.status != 204:
            headers.append((b"content-type", _JSON))
        await respond(send, answer.status, headers, content)

    async def _answer(self, scope: Scope, receive: Receive, request_id: str) -> Answer:
        try:
            operation = self._operation(scope["method"])
            answer = await operation.handler(await self._ask(operation, scope, receive, request_id))
            if operation.changes:
                self._services.changed()
        except HooklineError as error:
            return self._failed(error, request_id)
        except Disconnected:
            raise
        except Exception as error:  # noqa: BLE001 - the edge: nothing may leave it but an answer
            log.error("request_failed", request_id=request_id, exc_info=error)
            return self._failed(HooklineError(), request_id)
        return answer

    def _failed(self, error: HooklineError, request_id: str) -> Answer:
        answer = self._platform.failure(error, request_id)
        if isinstance(error, Unauthorized):
            challenge = self._platform.challenge
            answer.headers.extend([(b"www-authenticate", challenge)] if challenge else [])
        else:
            answer.headers.extend(problem_headers(error))
        return answer

    def _operation(self, method: str) -> Operation:
        if not self._operations:
            raise NotFound("there is nothing at this path")
        found = self._operations.get("GET" if method == "HEAD" else method)
        if found is None:
            raise MethodNotAllowed(sorted(self._operations))
        return found

    async def _ask(self, operation: Operation, scope: Scope, receive: Receive, request_id: str) -> Ask:
        caller, tenant = await self._platform.identify(self._services, scope)
        if operation.scope is not None:
            require(caller, operation.scope)
        length = header(scope, b"content-length")
        body = await read_body(receive, length, self._services.options.body_bytes, self._patience)
        return Ask(
            services=self._services,
            caller=caller,
            tenant=tenant,
            path=scope["path_params"],
            query=_parameters(scope["query_string"]),
            headers=dict(scope["headers"]),
            body=body,
            request_id=request_id,
        )


def _parameters(query_string: bytes) -> list[tuple[str, str]]:
    if len(query_string) > MAX_QUERY:
        raise InvalidInput(f"the query string is longer than {MAX_QUERY} bytes")
    try:
        return parse_qsl(
            query_string.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=MAX_PARAMETERS,
        )
    except ValueError:
        raise InvalidInput("the query string is not valid: percent-encoded UTF-8 is expected") from None


def routes_of(platform: Platform, services: Services, ids: RequestIds) -> list[BaseRoute]:
    """The routes of a platform, and one that catches every other path under its prefix. A path is the same with one
    slash at its end, since clients differ there and a redirect would cost them their body."""
    by_path: dict[str, list[Operation]] = {}
    for operation in platform.operations:
        by_path.setdefault(operation.path, []).append(operation)
    routes = [Route(path, _Endpoint(platform, services, ids, found)) for path, found in by_path.items()]
    for route in routes:
        route.path_regex = re.compile(route.path_regex.pattern.removesuffix("$") + r"/?\Z")
    nothing = _Endpoint(platform, services, ids)
    routes += [Route(platform.prefix, nothing), Route(f"{platform.prefix}/{{rest:path}}", nothing)]
    if platform.any_case:
        for route in routes:
            route.path_regex = re.compile(route.path_regex.pattern, re.IGNORECASE)
    return list(routes)


async def bearer(services: Services, scope: Scope) -> Caller:
    """The caller of ``Authorization: Bearer <key>``. Raises ``Unauthorized``."""
    authorization = header(scope, b"authorization")
    return services.keyring.peek(authorization) or await services.keyring.find(authorization)


def of_tenant(caller: Caller, tenant: Tenant | None) -> Tenant:
    """The tenant that a request names, if the caller may act for it: its own, or any for an operator.

    Raises ``Unauthorized`` otherwise, so that nobody learns which tenants there are.
    """
    if tenant is None or caller.tenant not in (None, tenant):
        raise Unauthorized("this key is not one of this account")
    return tenant
