"""Tenants and their API keys."""

from __future__ import annotations

import hashlib
import re
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct, structs

from hookline.core import ids
from hookline.core.definition import text_faults
from hookline.core.errors import Conflict, Fault, NotFound
from hookline.core.model import ApiKey, Retention, SchemaMode, Scope, SubscriptionState, Tenant
from hookline.core.reading import refuse
from hookline.engine.manage.subscriptions import SWITCHED_OFF
from hookline.ports import Clock, Storage

KEY_PREFIX = "hk_"
TENANT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)
"""No colon: a tenant id is the user name of HTTP Basic in a compatible API."""
TENANT_SCOPES = (Scope.PUBLISH, Scope.MANAGE, Scope.READ)
GRANTABLE = tuple(scope for scope in Scope if scope is not Scope.OPERATOR)
MAX_DAYS = 3650
MAX_KEYS = 100
MAX_SESSIONS = 1000
_PAGE = 200


class NewTenant(Struct, frozen=True, forbid_unknown_fields=True):
    """What makes a tenant. ``retention`` of null means the installation's own."""

    id: str
    name: str
    profile: str = "standard"
    schema_mode: SchemaMode = SchemaMode.LOG
    retention: Retention | None = None
    webhooks: bool = True


class NewKey(Struct, frozen=True, forbid_unknown_fields=True):
    """What makes an API key."""

    name: str = ""
    scopes: tuple[Scope, ...] = TENANT_SCOPES


class IssuedKey(Struct, frozen=True):
    """A new key and its secret, which nobody can read again later."""

    key: ApiKey
    secret: str


def digest(secret: str) -> bytes:
    """What is stored of a key. Keys have 256 random bits, so a plain hash is as good as a slow one."""
    return hashlib.sha256(secret.encode()).digest()


class Tenants:
    """Makes and changes tenants and keys."""

    def __init__(
        self, storage: Storage, clock: Clock, entropy: Callable[[int], bytes], profiles: frozenset[str]
    ) -> None:
        self._storage = storage
        self._clock = clock
        self._entropy = entropy
        self._profiles = profiles

    async def create(self, new: NewTenant) -> tuple[Tenant, IssuedKey]:
        """The tenant with its first key, which has every scope of a tenant. Raises ``Conflict`` for a taken id."""
        refuse(self._faults(new))
        issued = self._issue(None, "first key", TENANT_SCOPES)
        tenant = await self._storage.create_tenant(
            new.id, new.name, new.profile, issued.key, self._clock.now()
        )
        if new != NewTenant(new.id, new.name, new.profile):
            tenant = await self._store(tenant, new)
        return tenant, issued

    async def get(self, tenant_id: str) -> Tenant:
        """Raises ``NotFound``."""
        tenant = await self._storage.find_tenant(tenant_id) if TENANT_ID.fullmatch(tenant_id) else None
        if tenant is None:
            raise NotFound("there is no such tenant")
        return tenant

    async def update(self, tenant: Tenant, changed: NewTenant) -> Tenant:
        """Everything but the id can change. Switching webhooks off pauses the running subscriptions, switching them on
        again resumes those where they stopped."""
        faults = list(self._faults(changed))
        if changed.id != tenant.id:
            faults.append(Fault("id", "cannot be changed"))
        refuse(faults)
        stored = await self._store(tenant, changed)
        await self._switch(stored)
        return stored

    async def _store(self, tenant: Tenant, new: NewTenant) -> Tenant:
        return await self._storage.update_tenant(
            tenant.no, new.name, new.profile, new.schema_mode, new.retention, new.webhooks
        )

    async def _switch(self, tenant: Tenant) -> None:
        """Repeated with every update, so that one that broke off half-way can be made good by the next."""
        after: int | None = 0
        while after is not None:
            page = await self._storage.list_subscriptions(tenant.no, after, _PAGE)
            for found in page:
                off = found.state is SubscriptionState.PAUSED and found.state_reason == SWITCHED_OFF
                if tenant.webhooks and off:
                    await self._storage.set_subscription_state(
                        found.no, SubscriptionState.ACTIVE, "", self._clock.now()
                    )
                elif not tenant.webhooks and found.state is SubscriptionState.ACTIVE:
                    await self._storage.set_subscription_state(
                        found.no, SubscriptionState.PAUSED, SWITCHED_OFF, self._clock.now()
                    )
            after = page[-1].no if len(page) == _PAGE else None

    def _faults(self, new: NewTenant) -> Iterator[Fault]:
        if not TENANT_ID.fullmatch(new.id):
            yield Fault("id", "must be 1 to 64 letters, digits, _ and -, beginning with a letter or digit")
        if not new.name:
            yield Fault("name", "must not be empty")
        yield from text_faults("name", new.name)
        if new.profile not in self._profiles:
            yield Fault("profile", f"must be one of {', '.join(sorted(self._profiles))}")
        if new.retention is not None:
            for field in new.retention.__struct_fields__:
                if not 1 <= getattr(new.retention, field) <= MAX_DAYS:
                    yield Fault(f"retention.{field}", f"must be between 1 and {MAX_DAYS} days")

    # --- sessions ---

    async def log_in(self, key: ApiKey, seconds: int) -> str:
        """Open a session with the rights of a key; returns its secret, 32 hexadecimal digits (ShipStream, ``login``).

        The oldest session of the key ends when there are more than ``MAX_SESSIONS``.
        """
        now, secret = self._clock.now(), self._entropy(16).hex()
        session = structs.replace(
            self._key(secret, key.tenant_no, f"session of {key.id}", key.scopes),
            expires_at=now + seconds * 1000,
            session_of=key.id,
        )
        await self._storage.add_session(session, MAX_SESSIONS, now)
        return secret

    # --- keys ---

    async def create_key(self, tenant: Tenant | None, new: NewKey) -> IssuedKey:
        """A further key of a tenant, or an operator key if ``tenant`` is None."""
        allowed = (Scope.OPERATOR,) if tenant is None else GRANTABLE
        refuse(_key_faults(new, allowed))
        no = None if tenant is None else tenant.no
        live = [key for key in await self._storage.list_keys(no) if key.revoked_at is None]
        if len(live) >= MAX_KEYS:
            raise Conflict(f"there are {MAX_KEYS} live keys already; revoke some first")
        issued = self._issue(no, new.name, new.scopes)
        await self._storage.add_key(issued.key)
        return issued

    async def revoke_key(self, tenant: Tenant | None, key_id: str) -> ApiKey:
        """Raises ``NotFound``, and ``Conflict`` for the last operator key, which nobody could replace."""
        if tenant is None:
            live = [key for key in await self._storage.list_keys(None) if key.revoked_at is None]
            if [key.id for key in live] == [key_id]:
                raise Conflict("this is the last operator key; create another one first")
        no = None if tenant is None else tenant.no
        return await self._storage.revoke_key(no, key_id, self._clock.now())

    async def adopt_operator_key(self, secret: str) -> None:
        """Make ``secret`` an operator key if it is not one yet (the one from the settings or the data folder)."""
        found = await self._storage.find_key(digest(secret))
        if found is None:
            key = self._key(secret, None, "operator key of the settings", (Scope.OPERATOR,))
            try:
                await self._storage.add_key(key)
            except Conflict:  # another node that starts now was faster
                found = await self._storage.find_key(key.digest)
        if found is not None and (found.tenant_no is not None or found.revoked_at is not None):
            raise Conflict("the operator key of the settings belongs to a tenant or was revoked")

    def new_secret(self) -> str:
        """``hk_`` and 256 random bits."""
        return KEY_PREFIX + urlsafe_b64encode(self._entropy(32)).rstrip(b"=").decode()

    def _issue(self, tenant_no: int | None, name: str, scopes: Sequence[Scope]) -> IssuedKey:
        secret = self.new_secret()
        return IssuedKey(self._key(secret, tenant_no, name, scopes), secret)

    def _key(self, secret: str, tenant_no: int | None, name: str, scopes: Sequence[Scope]) -> ApiKey:
        now = self._clock.now()
        return ApiKey(
            id=ids.time_ordered("key", now, self._entropy(10)),
            tenant_no=tenant_no,
            name=name,
            digest=digest(secret),
            hint=secret[: len(KEY_PREFIX) + 4],
            scopes=tuple(scopes),
            created_at=now,
        )


def _key_faults(new: NewKey, allowed: Sequence[Scope]) -> Iterator[Fault]:
    yield from text_faults("name", new.name)
    if not new.scopes:
        yield Fault("scopes", "must not be empty")
    if len(set(new.scopes)) < len(new.scopes):
        yield Fault("scopes", "must not repeat a scope")
    for number, scope in enumerate(new.scopes[:10]):
        if scope not in allowed:
            yield Fault(f"scopes[{number}]", f"must be one of {', '.join(allowed)}")
