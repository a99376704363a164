"""The catalogue of a tenant: names, schemas, examples."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from msgspec import Raw, Struct, structs

from hookline.core.definition import text_faults
from hookline.core.errors import Conflict, Fault, HooklineError, IncompatibleSchema, NotFound
from hookline.core.matching import name_fault
from hookline.core.model import OPERATIONAL_PREFIX, EventType, Tenant
from hookline.core.reading import refuse
from hookline.core.schema import breaking_changes, compile_schema
from hookline.ports import Clock, Storage

MAX_EXAMPLE = 256 * 1024
"""Bytes of an example; as much as a schema may have."""


class EventTypeSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """A type as its owner writes it. ``schema`` is JSON Schema, ``example`` a payload that fits it."""

    name: str
    description: str = ""
    group: str = ""
    usage: str = ""
    schema: Raw | None = None
    example: Raw | None = None


class EventTypes:
    """Makes and changes event types."""

    def __init__(self, storage: Storage, clock: Clock) -> None:
        self._storage = storage
        self._clock = clock

    async def get(self, tenant: Tenant, name: str) -> EventType:
        """Raises ``NotFound``."""
        found = None if name_fault(name) else await self._storage.get_event_type(tenant.no, name)
        if found is None:
            raise NotFound("there is no such event type in the catalogue")
        return found

    async def create(self, tenant: Tenant, spec: EventTypeSpec) -> EventType:
        """Raises ``InvalidInput`` and, for a name that is taken, ``Conflict``."""
        refuse(_faults(spec))
        if await self._storage.get_event_type(tenant.no, spec.name) is not None:
            raise Conflict(f"the event type {spec.name!r} exists already")
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
        refuse(_faults(spec))
        schema = _bytes(spec.schema)
        if not force:
            _refuse_breaks(found.schema, schema)
        changed = structs.replace(
            found,
            description=spec.description,
            group=spec.group,
            usage=spec.usage,
            schema=schema,
            example=_bytes(spec.example),
            version=found.version + (schema != found.schema),
            updated_at=self._clock.now(),
        )
        await self._storage.put_event_type(changed)
        return changed

    async def deprecate(self, tenant: Tenant, name: str, *, deprecated: bool = True) -> EventType:
        """Mark a type as one that publishers should leave; events of it are still accepted. Can be undone."""
        found = await self.get(tenant, name)
        if (found.deprecated_at is not None) is deprecated:
            return found
        now = self._clock.now()
        changed = structs.replace(found, deprecated_at=now if deprecated else None, updated_at=now)
        await self._storage.put_event_type(changed)
        return changed


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


def _faults(spec: EventTypeSpec) -> Iterator[Fault]:
    if message := name_fault(spec.name):
        yield Fault("name", message)
    if spec.name.startswith(OPERATIONAL_PREFIX):
        yield Fault("name", f"names that begin with {OPERATIONAL_PREFIX!r} are Hookline's own")
    for field, longest in (("description", 4000), ("group", 200), ("usage", 4000)):
        text: str = getattr(spec, field)
        yield from text_faults(field, text.replace("\n", " ").replace("\t", " "), longest)
    yield from _document_faults(spec)


def _document_faults(spec: EventTypeSpec) -> Iterator[Fault]:
    if spec.example is not None and len(bytes(spec.example)) > MAX_EXAMPLE:
        yield Fault("example", f"must have at most {MAX_EXAMPLE} bytes")
        return
    if spec.schema is None:
        return
    try:
        schema = compile_schema(bytes(spec.schema))
    except HooklineError as error:
        yield from error.faults or (Fault("schema", error.detail),)
        return
    if spec.example is not None:
        for fault in schema.faults(msgspec.json.decode(spec.example)):
            yield Fault(f"example{fault.field.removeprefix('data')}", fault.message)


def _refuse_breaks(old: bytes | None, new: bytes | None) -> None:
    if old == new:
        return
    breaks = [Fault("schema", "would be removed")] if new is None else breaking_changes(old, new)
    if breaks:
        raise IncompatibleSchema(
            "the new schema could break receivers; repeat with force=true to do it", breaks
        )
