"""Tenants, keys and event types in memory."""

from __future__ import annotations

from itertools import islice

from msgspec.structs import replace

from hookline.core.errors import Conflict, NotFound
from hookline.core.model import ApiKey, EventType, Millis, Retention, SchemaMode, Tenant
from hookline.storage.memory.state import MemoryState


class MemoryConfig(MemoryState):
    """Fills the part of ``ConfigStore`` that is not about subscriptions."""

    async def version(self) -> int:
        return self._version

    async def create_tenant(
        self, tenant_id: str, name: str, profile: str, key: ApiKey, now: Millis
    ) -> Tenant:
        if await self.find_tenant(tenant_id) is not None:
            raise Conflict("a tenant with this id exists")
        tenant = Tenant(len(self._tenants) + 1, tenant_id, name, profile, now)
        await self.add_key(replace(key, tenant_no=tenant.no))
        self._tenants[tenant.no] = tenant
        return tenant

    async def update_tenant(
        self,
        tenant_no: int,
        name: str,
        profile: str,
        schema_mode: SchemaMode,
        retention: Retention | None,
        webhooks: bool = True,
    ) -> Tenant:
        tenant = await self.get_tenant(tenant_no)
        self._bump()
        self._tenants[tenant_no] = replace(
            tenant,
            name=name,
            profile=profile,
            schema_mode=schema_mode,
            retention=retention,
            webhooks=webhooks,
        )
        return self._tenants[tenant_no]

    async def list_tenants(self, after: str, limit: int) -> list[Tenant]:
        by_id = sorted(self._tenants.values(), key=lambda tenant: tenant.id)
        return list(islice((tenant for tenant in by_id if tenant.id > after), limit))

    async def find_tenant(self, tenant_id: str) -> Tenant | None:
        return next((tenant for tenant in self._tenants.values() if tenant.id == tenant_id), None)

    async def get_tenant(self, tenant_no: int) -> Tenant:
        try:
            return self._tenants[tenant_no]
        except KeyError:
            raise NotFound("there is no such tenant") from None

    async def add_key(self, key: ApiKey) -> None:
        if key.id in self._keys or await self.find_key(key.digest) is not None:
            raise Conflict("this API key exists")
        self._keys[key.id] = key
        self._bump()

    async def add_session(self, session: ApiKey, most: int, now: Millis) -> None:
        if session.id in self._keys or await self.find_key(session.digest) is not None:
            raise Conflict("this API key exists")
        siblings = [key for key in self._keys.values() if key.session_of == session.session_of]
        live = [key for key in siblings if key.expires_at is not None and key.expires_at > now]
        kept = [*live, session][-most:]
        for key in siblings:
            del self._keys[key.id]
        self._keys |= {key.id: key for key in kept}

    async def list_keys(self, tenant_no: int | None) -> list[ApiKey]:
        return [key for key in self._keys.values() if key.tenant_no == tenant_no and key.session_of is None]

    async def find_key(self, digest: bytes) -> ApiKey | None:
        return next((key for key in self._keys.values() if key.digest == digest), None)

    async def revoke_key(self, tenant_no: int | None, key_id: str, now: Millis) -> ApiKey:
        key = self._keys.get(key_id)
        if key is None or key.tenant_no != tenant_no:
            raise NotFound("there is no such API key")
        if key.revoked_at is None:
            key = self._keys[key_id] = replace(key, revoked_at=now)
            self._keys = {no: other for no, other in self._keys.items() if other.session_of != key_id}
            self._bump()
        return key

    async def put_event_type(self, event_type: EventType) -> None:
        self._event_types[event_type.tenant_no, event_type.name] = event_type
        self._bump()

    async def get_event_type(self, tenant_no: int, name: str) -> EventType | None:
        return self._event_types.get((tenant_no, name))

    async def list_event_types(self, tenant_no: int, after: str, limit: int) -> list[EventType]:
        mine = sorted(name for no, name in self._event_types if no == tenant_no and name > after)
        return [self._event_types[tenant_no, name] for name in mine[:limit]]
