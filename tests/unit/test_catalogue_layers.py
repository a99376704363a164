"""A tenant's own types over those of files over those of its profile, read page by page."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st

from hookline.core.model import ApiKey, EventType, Tenant, TypeSource
from hookline.engine import types as module
from hookline.engine.catalogue import Catalogue
from hookline.engine.types import EventTypeCatalogue, Shelves
from hookline.profiles.catalogue import TypeFile
from hookline.storage.memory import MemoryStorage

KEY = ApiKey("key", None, "", b"digest", "", (), 0)
Layer = Mapping[str, str]  # name -> group

names = st.sampled_from(
    ["a", "a.b", "a:b", "aa", "b", "B", "order:created", "order:paid", "z/1", "z/2", "z_"]
)
layers = st.dictionaries(names, st.sampled_from(["", "Orders", "Stock"]))


def made(source: TypeSource, layer: Layer, tenant_no: int = 0) -> dict[str, EventType]:
    return {
        name: EventType(
            tenant_no, name, source.value, 1, 0, 0, group, source=source, schema=b'{"type":"string"}'
        )
        for name, group in layer.items()
    }


async def catalogue(
    shipped: Layer, files: list[tuple[str, Layer]], own: Layer
) -> tuple[EventTypeCatalogue, Shelves, Tenant]:
    storage = MemoryStorage()
    tenant = await storage.create_tenant("shop", "Shop", "avvyr", KEY, 0)
    for one in made(TypeSource.API, own, tenant.no).values():
        await storage.put_event_type(one)
    shelves = Shelves(lambda profile: made(TypeSource.SHIPPED, shipped) if profile == "avvyr" else {})
    shelves.put([TypeFile(profile, made(TypeSource.FILE, layer)) for profile, layer in files])
    return EventTypeCatalogue(storage, shelves), shelves, tenant


async def pages(types: EventTypeCatalogue, tenant: Tenant, limit: int, group: str) -> list[EventType]:
    found: list[EventType] = []
    after = ""
    while page := await types.list(tenant, after, limit, group):
        assert len(page) <= limit
        found += page
        after = page[-1].name
    return found


@given(
    shipped=layers,
    general=layers,
    ours=layers,
    theirs=layers,
    own=layers,
    limit=st.integers(1, 5),
    stored=st.integers(1, 4),
    group=st.sampled_from(["", "Orders", "Stock", "None"]),
)
def test_pages_are_those_of_a_sorted_dictionary(
    shipped: Layer,
    general: Layer,
    ours: Layer,
    theirs: Layer,
    own: Layer,
    limit: int,
    stored: int,
    group: str,
) -> None:
    async def check() -> None:
        files = [("", general), ("avvyr", ours), ("shipstream", theirs)]
        types, _, tenant = await catalogue(shipped, files, own)
        model = {
            **dict.fromkeys(shipped, TypeSource.SHIPPED),
            **dict.fromkeys((*general, *ours), TypeSource.FILE),
            **dict.fromkeys(own, TypeSource.API),
        }
        groups = {**shipped, **general, **ours, **own}
        wanted = [(name, model[name]) for name in sorted(model) if group in ("", groups[name])]
        found = await pages(types, tenant, limit, group)
        assert [(one.name, one.source) for one in found] == wanted
        for one in found:
            assert await types.get(tenant, one.name) == one
        assert sum((await types.groups(tenant)).values()) == len(model)
        assert await types.groups(tenant) == {
            name: list(groups.values()).count(name) for name in sorted(set(groups.values()))
        }

    with mock.patch.object(module, "PAGE", stored):
        asyncio.run(check())


async def test_of_two_files_the_later_counts() -> None:
    types, _, tenant = await catalogue({}, [("", {"a": "first"}), ("", {"a": "second"})], {})
    assert [one.group for one in await types.list(tenant, "", 9)] == ["second"]


async def test_what_a_tenants_own_type_cannot_say_comes_from_below() -> None:
    storage, shelves = MemoryStorage(), Shelves(lambda _: {})
    tenant = await storage.create_tenant("shop", "Shop", "standard", KEY, 0)
    below = EventType(
        0,
        "a",
        "",
        1,
        0,
        0,
        source=TypeSource.FILE,
        object_type="order",
        deprecation="use b",
        order=3,
        origin="stated",
    )
    shelves.put([TypeFile("", {"a": below})])
    types = EventTypeCatalogue(storage, shelves)
    own = EventType(tenant.no, "a", "", 2, 0, 0)
    await storage.put_event_type(own)
    found = await types.get(tenant, "a")
    assert found is not None
    assert (found.object_type, found.deprecation, found.order, found.origin) == ("order", "", 3, "")
    await storage.put_event_type(EventType(tenant.no, "a", "", 2, 0, 0, deprecated_at=1))
    found = await types.get(tenant, "a")
    assert found is not None
    assert found.deprecation == "use b"


async def test_names_that_cannot_be_are_not_looked_up() -> None:
    types, _, tenant = await catalogue({}, [], {})
    assert await types.get(tenant, "a b") is None


async def test_publishing_sees_all_layers_and_their_changes() -> None:
    types, shelves, tenant = await catalogue({"shipped": ""}, [("", {"file": ""})], {"own": ""})
    cache = Catalogue(types)
    for name in ("shipped", "file", "own"):
        entry = await cache.find(tenant.no, name)
        assert entry.known
        assert [fault.field for fault in entry.faults(name, b"1")] == ["data"]
    assert not (await cache.find(tenant.no, "new")).known
    shelves.put([TypeFile("", made(TypeSource.FILE, {"new": ""}))])
    cache.forget()
    assert cache.peek(tenant.no, "file") is None
    assert (await cache.find(tenant.no, "new")).known
    assert not (await cache.find(tenant.no, "file")).known


async def test_what_was_read_before_a_change_is_not_kept() -> None:
    types, _, tenant = await catalogue({}, [], {"own": ""})
    cache = Catalogue(types)
    reading, go_on = asyncio.Event(), asyncio.Event()
    find = types.find

    async def slow(tenant_no: int, name: str) -> EventType | None:
        found = await find(tenant_no, name)
        reading.set()
        await go_on.wait()
        return found

    with mock.patch.object(types, "find", slow):
        old = asyncio.create_task(cache.find(tenant.no, "own"))
        async with asyncio.timeout(60):
            await reading.wait()
            cache.forget()
            go_on.set()
            assert (await old).known
    assert cache.peek(tenant.no, "own") is None
