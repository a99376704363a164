"""Who is calling: API keys in memory, so that a request costs no look-up in the storage."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from msgspec import Struct

from hookline.core.errors import HooklineError, Unauthorized
from hookline.core.model import ApiKey, Scope, Tenant
from hookline.engine.manage import TENANT_ID, digest
from hookline.observe import log
from hookline.ports import Clock, ConfigStore

K = TypeVar("K")
V = TypeVar("V")

CACHED = 10_000
POLL_SECONDS = 1.0
_COVERS: dict[Scope, set[Scope]] = {scope: {scope} for scope in Scope} | {
    Scope.READ: {Scope.READ, Scope.READ_SUBSCRIPTIONS},
    Scope.MANAGE: set(Scope) - {Scope.PUBLISH, Scope.OPERATOR},
    Scope.OPERATOR: set(Scope),
}


class Caller(Struct, frozen=True):
    """A live key, its tenant (None: an operator's), and everything its scopes allow."""

    key: ApiKey
    tenant: Tenant | None
    may: frozenset[Scope]


class KeyRing:
    """A bounded cache of keys and tenants by what was presented. ``forget`` must be called when the
    configuration changed; then revoked keys stop working."""

    def __init__(self, store: ConfigStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._headers: dict[bytes, Caller] = {}
        self._callers: dict[bytes, Caller] = {}
        self._tenants: dict[str, Tenant] = {}
        self._generation = 0

    def forget(self) -> None:
        """Drop everything: keys or tenants may have changed."""
        self._generation += 1
        self._headers.clear()
        self._callers.clear()
        self._tenants.clear()

    def peek(self, authorization: bytes) -> Caller | None:
        """The caller of an ``Authorization`` header if it is in memory. Python's hash of bytes is keyed for each
        process, so the time of a look-up tells nothing about the keys in it."""
        return self._headers.get(authorization)

    async def find(self, authorization: bytes) -> Caller:
        """The caller of an ``Authorization`` header. Raises ``Unauthorized``."""
        scheme, _, token = authorization.decode("latin-1").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise Unauthorized("send the API key as Authorization: Bearer hk_…")
        generation = self._generation
        caller = await self.find_secret(token)
        if generation == self._generation and caller.key.expires_at is None:
            _put(self._headers, authorization, caller)
        return caller

    async def find_secret(self, secret: str) -> Caller:
        """The caller who knows this secret, however it was presented. Raises ``Unauthorized``."""
        hashed = digest(secret)
        caller = self._callers.get(hashed) or await self._load(hashed)
        if caller.key.expires_at is not None and caller.key.expires_at <= self._clock.now():
            raise Unauthorized("the session has expired; log in again")
        return caller

    async def _load(self, hashed: bytes) -> Caller:
        generation = self._generation
        key = await self._store.find_key(hashed)
        if key is None or key.revoked_at is not None:
            raise Unauthorized("the API key is unknown or revoked")
        tenant = None if key.tenant_no is None else await self._store.get_tenant(key.tenant_no)
        caller = Caller(key, tenant, frozenset(covered for scope in key.scopes for covered in _COVERS[scope]))
        if generation == self._generation:
            _put(self._callers, hashed, caller)
        return caller

    async def tenant(self, tenant_id: str) -> Tenant | None:
        """The tenant of this id. Others name it, so it can be any text at all, even one no storage could look for."""
        found = self._tenants.get(tenant_id)
        if found is not None or not TENANT_ID.fullmatch(tenant_id):
            return found
        generation = self._generation
        found = await self._store.find_tenant(tenant_id)
        if found is not None and generation == self._generation:
            _put(self._tenants, tenant_id, found)
        return found


def _put(cache: dict[K, V], name: K, value: V) -> None:
    if len(cache) >= CACHED:
        cache.clear()
    cache[name] = value


async def follow_changes(store: ConfigStore, changed: Callable[[], None]) -> None:
    """Call ``changed`` when the configuration's version moves, until cancelled: other processes change it too.

    While the storage does not answer, nothing is forgotten; publishing would fail anyway.
    """
    seen = -1
    while True:
        try:
            version = await store.version()
        except HooklineError as error:
            log.warning("configuration_poll_failed", error=error.detail)
        else:
            if seen not in (-1, version):
                changed()
            seen = version
        await asyncio.sleep(POLL_SECONDS)
