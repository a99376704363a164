"""The event types in memory, as publishing needs them: one compiled schema for each type in use."""

from __future__ import annotations

from functools import lru_cache

from msgspec import Struct

from hookline.core.errors import Fault
from hookline.core.payload import Payload
from hookline.core.schema import Schema, compile_schema
from hookline.engine.types import EventTypeCatalogue

_CACHED = 10_000
_COMPILED = 1_000
"""Compiled schemas that are kept. Tenants of one profile share theirs."""


class TypeEntry(Struct, frozen=True):
    """What is known of a type: whether it is in the catalogue, and its schema, if it has one."""

    known: bool
    schema: Schema | None = None

    def faults(self, name: str, data: bytes) -> list[Fault]:
        """All that is wrong with a payload of this type; places begin with ``data``."""
        if not self.known:
            return [
                Fault(
                    "type",
                    f"{name!r} is not in the catalogue; create it first, or set the tenant's schema mode to log",
                )
            ]
        if self.schema is None:
            return []
        payload = Payload(data)
        if payload.fault:
            return [Fault("data", payload.fault)]
        return self.schema.faults(payload.value, data)


class Catalogue:
    """A bounded cache over the event types. ``forget`` must be called when the configuration or a file changed."""

    def __init__(self, types: EventTypeCatalogue) -> None:
        self._types = types
        self._entries: dict[tuple[int, str], TypeEntry] = {}

    def peek(self, tenant_no: int, name: str) -> TypeEntry | None:
        """The entry if it is in memory."""
        return self._entries.get((tenant_no, name))

    async def find(self, tenant_no: int, name: str) -> TypeEntry:
        """The entry, read from the store if need be."""
        entries = self._entries
        event_type = await self._types.find(tenant_no, name)
        if event_type is None:
            entry = TypeEntry(known=False)
        else:
            entry = TypeEntry(True, None if event_type.schema is None else _compiled(event_type.schema))
        if len(entries) >= _CACHED:
            entries.clear()
        entries[tenant_no, name] = entry
        return entry

    def forget(self) -> None:
        """Drop all entries: the types may have changed. What is being read now will not be kept either."""
        self._entries = {}


_compiled = lru_cache(maxsize=_COMPILED)(compile_schema)
