"""The catalogue as tenants see it, in layers: their own types over those of the folder over those of their profile."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Final, final

from msgspec.structs import replace

from hookline.core.matching import name_fault
from hookline.core.model import EventType, Tenant
from hookline.ports import ConfigStore
from hookline.profiles import PROFILES
from hookline.profiles.catalogue import TypeFile, Types, shipped
from hookline.profiles.folder import CatalogueFolder

POLL_SECONDS: Final = 1.0
PAGE: Final = 200
"""Stored types that are read in one go."""


@final
class Shelf:
    """Types by name, in order."""

    def __init__(self, types: Types) -> None:
        self._types = types
        self._names = sorted(types)

    def get(self, name: str) -> EventType | None:
        """The type of this name."""
        return self._types.get(name)

    def between(self, after: str, last: str | None) -> dict[str, EventType]:
        """The types behind ``after``, up to ``last`` or all of them."""
        end = len(self._names) if last is None else bisect_right(self._names, last)
        return {name: self._types[name] for name in self._names[bisect_right(self._names, after) : end]}


class Shelves:
    """The types that come from files: for each profile, the shipped ones and above them those of the folder.

    Of two files that have a type of the same name, the later one counts.
    """

    def __init__(self, ship: Callable[[str], Types] = shipped) -> None:
        self._ship = ship
        self._files: Sequence[TypeFile] = ()
        self._shelves: dict[str, Shelf] = {}

    def warm(self) -> None:
        """Read what is shipped, which takes a moment. May be called in another thread."""
        for profile in PROFILES:
            self._ship(profile)

    def put(self, files: Sequence[TypeFile]) -> None:
        """Take these as the folder's files from now on."""
        self._files = files
        self._shelves = {}

    def of(self, profile: str) -> Shelf:
        """What tenants of this profile have before they make types of their own."""
        shelf = self._shelves.get(profile)
        if shelf is None:
            types = dict(self._ship(profile))
            for file in self._files:
                if file.profile in ("", profile):
                    types |= file.types
            shelf = self._shelves[profile] = Shelf(types)
        return shelf


class EventTypeCatalogue:
    """All types of a tenant. Whatever needs one reads it here."""

    def __init__(self, store: ConfigStore, shelves: Shelves | None = None) -> None:
        self._store = store
        self._shelves = shelves or Shelves()

    async def get(self, tenant: Tenant, name: str) -> EventType | None:
        """The type that counts for this tenant."""
        if name_fault(name):
            return None
        own = await self._store.get_event_type(tenant.no, name)
        below = self._shelves.of(tenant.profile).get(name)
        return below if own is None else _over(own, below)

    async def find(self, tenant_no: int, name: str) -> EventType | None:
        """As ``get``, for who knows only the tenant's number."""
        own = await self._store.get_event_type(tenant_no, name)
        if own is not None:
            return own
        return self._shelves.of((await self._store.get_tenant(tenant_no)).profile).get(name)

    async def list(self, tenant: Tenant, after: str, limit: int, group: str = "") -> list[EventType]:
        """Up to ``limit`` types behind the name ``after``, by name; with ``group``, only those of that group."""
        found: list[EventType] = []
        while len(found) < limit:
            own = await self._store.list_event_types(tenant.no, after, PAGE)
            last = own[-1].name if len(own) == PAGE else None
            page = merged(own, self._shelves.of(tenant.profile).between(after, last))
            found += [one for one in page if group in ("", one.group)]
            if last is None:
                break
            after = last
        return found[:limit]

    async def groups(self, tenant: Tenant) -> dict[str, int]:
        """How many types each group has, by the name of the group."""
        counts: dict[str, int] = {}
        after, page = "", await self.list(tenant, "", PAGE)
        while page:
            for one in page:
                counts[one.group] = counts.get(one.group, 0) + 1
            after = page[-1].name
            page = await self.list(tenant, after, PAGE)
        return dict(sorted(counts.items()))


def merged(own: Sequence[EventType], below: Mapping[str, EventType]) -> list[EventType]:
    """A tenant's own types and those below, by name."""
    types = {**below, **{one.name: _over(one, below.get(one.name)) for one in own}}
    return [types[name] for name in sorted(types)]


def _over(own: EventType, below: EventType | None) -> EventType:
    """A tenant's own type; what it cannot say comes from the type that it covers."""
    if below is None:
        return own
    advice = "" if own.deprecated_at is None else below.deprecation
    return replace(own, object_type=below.object_type, deprecation=advice, order=below.order)


async def follow_folder(folder: CatalogueFolder, shelves: Shelves, changed: Callable[[], None]) -> None:
    """Put the folder's files on the shelves and call ``changed``, now and whenever they change, until cancelled.

    Before that, read what is shipped: its first reader would keep the loop waiting.
    """
    await asyncio.to_thread(shelves.warm)
    while True:
        files = await asyncio.to_thread(folder.read)
        if files is not None:
            shelves.put(files)
            changed()
        await asyncio.sleep(POLL_SECONDS)
