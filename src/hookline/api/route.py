"""The route table's vocabulary: each row of it is the source of the routing and of the OpenAPI document."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from msgspec import Struct

from hookline.api.keyring import Caller
from hookline.api.problems import Headers
from hookline.api.services import Services
from hookline.core.errors import HooklineError
from hookline.core.model import Scope, Tenant

Q = TypeVar("Q", bound=Struct)
B = TypeVar("B")

JSON = "application/json"
NDJSON = "application/x-ndjson"


class NoQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """A route without query parameters."""


class Nothing(Struct, frozen=True):
    """A route without a request body."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that is not simply the route's status and a Struct as JSON."""

    body: object = None
    status: int = 0
    headers: Headers = field(default_factory=list["tuple[bytes, bytes]"])
    raw: bytes | None = None
    content_type: bytes = b"application/json"


@dataclass(frozen=True, slots=True)
class Call(Generic[Q, B]):
    """One request on its way to a handler: checked, read, and of a known caller.

    ``owner`` is the tenant it is about, or None where the route allows an operator on its own.
    """

    services: Services
    caller: Caller | None
    owner: Tenant | None
    path: Mapping[str, str]
    query: Q
    body: B
    headers: Mapping[bytes, bytes]
    request_id: str

    @property
    def tenant(self) -> Tenant:
        """The tenant, on routes that are always about one."""
        if self.owner is None:
            raise HooklineError
        return self.owner


Handler = Callable[[Call[Q, B]], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Route(Generic[Q, B]):
    """One row. ``scope`` of None is open to all; ``tenant`` says whether it is about one tenant.

    ``body`` is what the handler gets: a Struct type (read and checked), ``object`` (any JSON), or ``bytes``.
    ``document`` is what OpenAPI shows for it, where that is not the same. ``changes`` marks routes after which
    caches of the configuration must be dropped.
    """

    method: str
    path: str
    handler: Handler[Q, B]
    summary: str
    tag: str
    answer: Any
    query: type[Q]
    body: type[B]
    scope: Scope | None = Scope.READ
    tenant: bool = True
    status: int = 200
    document: Any = None
    media_types: tuple[str, ...] = (JSON,)
    answer_type: str = JSON
    body_required: bool = True
    errors: tuple[type[HooklineError], ...] = ()
    changes: bool = False
    large: bool = False
    anonymous: bool = False
    """Nobody is asked who they are: it must answer while keys cannot be looked up."""
    description: str = ""

    @property
    def name(self) -> str:
        """The operation id."""
        return getattr(self.handler, "__name__", "")


AnyRoute = Route[Any, Any]
