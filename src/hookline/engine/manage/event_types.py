"""The catalogue of a tenant: names, schemas, examples."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from msgspec import Raw, Struct, structs

from hookline.core.errors import Conflict, Fault, IncompatibleSchema, NotFound
from hookline.core.event_type import event_type_faults
from hookline.core.model import EventType, Tenant, TypeSource
from hookline.core.reading import refuse
from hookline.core.schema import breaking_changes
from hookline.engine.types import EventTypeCatalogue
from hookline.ports import Clock, Storage

P = ParamSpec("P")
T = TypeVar("T")


class EventTypeSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """A type as its owner writes it. ``schema`` is JSON Schema, ``example`` a payload that fits it."""

    name: str
    description: str = ""
    group: str = ""
    usage: str = ""
    schema: Raw | None = None
    example: Raw | None = None


class EventTypes:
    """Makes and changes event types. A change of one from a file becomes the tenant's own."""

    def __init__(self, storage: Storage, types: EventTypeCatalogue, clock: Clock) -> None:
        self._storage = storage
        self._types = types
        self._clock = clock
        self._checking = asyncio.Lock()

    async def _checked(self, check: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What ``check`` says. Schemas may take it a second: it is done beside the loop, one at a time."""
        async with self._checking:
            return await asyncio.to_thread(check, *args, **kwargs)

    async def get(self, tenant: Tenant, name: str) -> EventType:
        """Raises ``NotFound``."""
        found = await self._types.get(tenant, name)
        if found is None:
            raise NotFound("there is no such event type in the catalogue")
        return found

    async def create(self, tenant: Tenant, spec: EventTypeSpec) -> EventType:
        """Raises ``InvalidInput`` and, for a name that is taken, ``Conflict``."""
        refuse(await self._checked(_faults, spec))
        existing = await self._types.get(tenant, spec.name)
        if existing is not None:
            more = "" if existing.source is TypeSource.API else "; change it, and it becomes your own"
            raise Conflict(f"the event type {spec.name!r} exists already{more}")
        now = self._clock.now()
        made = EventType(
            tenant_no=tenant.no,
            name=spec.name,
            description=spec.description,
            version=1,
            created_at=now,
            updated_at=now,
            group=spec.group,
            usage=spec.usage,
            schema=_bytes(spec.schema),
            example=_bytes(spec.example),
        )
        await self._storage.put_event_type(made)
        return made

    async def update(self, tenant: Tenant, spec: EventTypeSpec, *, force: bool) -> EventType:
        """Replace everything but the name. A schema that would break receivers raises ``IncompatibleSchema``,
        which names each break, unless ``force``. Raises ``NotFound``."""
        found = await self.get(tenant, spec.name)
        refuse(await self._checked(_faults, spec))
        schema = _bytes(spec.schema)
        if not force:
            await self._checked(_refuse_breaks, found.schema, schema)
        changed = structs.replace(
            found,
            description=spec.description,
            group=spec.group,
            usage=spec.usage,
            schema=schema,
            example=_bytes(spec.example),
            version=found.version + (schema != found.schema),
        )
        return await self._put(tenant, changed)

    async def deprecate(self, tenant: Tenant, name: str, *, deprecated: bool = True) -> EventType:
        """Mark a type as one that publishers should leave; events of it are still accepted. Can be undone."""
        found = await self.get(tenant, name)
        if (found.deprecated_at is not None) is deprecated:
            return found
        marked = structs.replace(found, deprecated_at=self._clock.now() if deprecated else None)
        return await self._put(tenant, marked)

    async def _put(self, tenant: Tenant, changed: EventType) -> EventType:
        """Store a changed type as the tenant's own."""
        now = self._clock.now()
        was_own = changed.source is TypeSource.API
        own = structs.replace(
            changed,
            tenant_no=tenant.no,
            source=TypeSource.API,
            created_at=changed.created_at if was_own else now,
            updated_at=now,
            object_type="",
            origin="",
            deprecation="",
            order=0,
        )
        await self._storage.put_event_type(own)
        return await self.get(tenant, own.name)


def spec_of(event_type: EventType) -> EventTypeSpec:
    """The stored type as its owner would write it."""
    return EventTypeSpec(
        name=event_type.name,
        description=event_type.description,
        group=event_type.group,
        usage=event_type.usage,
        schema=None if event_type.schema is None else Raw(event_type.schema),
        example=None if event_type.example is None else Raw(event_type.example),
    )


def _bytes(raw: Raw | None) -> bytes | None:
    return None if raw is None else bytes(raw)


def _faults(spec: EventTypeSpec) -> list[Fault]:
    texts = {"description": spec.description, "group": spec.group, "usage": spec.usage}
    return list(event_type_faults(spec.name, texts, _bytes(spec.schema), _bytes(spec.example)))


def _refuse_breaks(old: bytes | None, new: bytes | None) -> None:
    if old == new:
        return
    breaks = [Fault("schema", "would be removed")] if new is None else breaking_changes(old, new)
    if breaks:
        raise IncompatibleSchema(
            "the new schema could break receivers; repeat with force=true to do it", breaks
        )
