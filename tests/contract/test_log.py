"""The log: dense positions, one place for each id, pages without gaps, changes in the same snapshot."""

from __future__ import annotations

import asyncio

import pytest

from hookline.core.model import Definition, Order
from hookline.ports import PAGE_BYTES, Storage
from tests.contract.conftest import Backend
from tests.contract.make import NOW, World, new_event


async def test_positions_are_dense_from_one(storage: Storage) -> None:
    first = await storage.append([new_event(1, "a"), new_event(2, "b")], NOW)
    second = await storage.append([new_event(1, "c")], NOW)
    assert [each.position for each in first + second] == [1, 2, 3]
    assert all(each.existing is None for each in first + second)
    assert await storage.head(0) == 3


async def test_an_empty_append_changes_nothing(storage: Storage) -> None:
    assert await storage.append([], NOW) == []
    assert await storage.head(0) == 0


async def test_every_field_comes_back_as_it_was(storage: Storage) -> None:
    data = '{"text":"\\u0000 é \U0001f600", "n": 1.10000000000000000001}'.encode()
    event = new_event(
        7,
        "evt_1",
        "a:b",
        data=data,
        occurred_at=NOW - 5,
        object_type="order",
        object_id="o-1",
        source_application="shop",
        source_user="u",
        key="k",
        correlation_id="c",
    )
    await storage.append([event], NOW)
    (stored,) = (await storage.read_log(0, 0, 10, 0)).events
    assert (stored.shard, stored.position, stored.received_at) == (0, 1, NOW)
    for field in event.__struct_fields__:
        assert getattr(stored, field) == getattr(event, field)
    assert await storage.find_event(7, "evt_1") == stored
    assert await storage.read_events(0, [1]) == [stored]


async def test_an_event_without_its_own_time_happened_when_it_came(storage: Storage) -> None:
    await storage.append([new_event(1, "a")], NOW)
    assert (await storage.read_events(0, [1]))[0].occurred_at == NOW


async def test_an_id_is_stored_once_in_its_tenant(storage: Storage) -> None:
    await storage.append([new_event(1, "a")], NOW)
    answers = await storage.append(
        [new_event(1, "b"), new_event(1, "a", data=b"other"), new_event(1, "b"), new_event(1, "c")], NOW + 1
    )
    assert [each.position for each in answers] == [2, 1, 2, 3]
    assert answers[0].existing is None
    assert answers[1].existing is not None
    assert answers[1].existing.data == b'{"n":1}'
    assert answers[2].existing == (await storage.read_events(0, [2]))[0]
    assert [event.id for event in (await storage.read_log(0, 0, 10, 0)).events] == ["a", "b", "c"]


async def test_ids_of_two_tenants_never_meet(storage: Storage) -> None:
    answers = await storage.append([new_event(1, "a"), new_event(2, "a"), new_event(2, "a")], NOW)
    assert [each.position for each in answers] == [1, 2, 2]
    assert answers[1].existing is None
    found = await storage.find_event(2, "a")
    assert found is not None
    assert found.position == 2
    assert await storage.find_event(3, "a") is None


async def test_received_at_never_falls(storage: Storage) -> None:
    for now in (NOW, NOW - 500, NOW + 1):
        await storage.append([new_event(1, f"e{now}")], now)
    events = (await storage.read_log(0, 0, 10, 0)).events
    assert [event.received_at for event in events] == [NOW, NOW, NOW + 1]


async def test_many_publishers_get_dense_positions(storage: Storage) -> None:
    async def publish(number: int) -> list[int]:
        events = [new_event(1, f"e-{number}-{index}") for index in range(number % 4 + 1)]
        return [each.position for each in await storage.append(events, NOW + number)]

    answers = await asyncio.gather(*(publish(number) for number in range(80)))
    positions = [position for answer in answers for position in answer]
    assert sorted(positions) == list(range(1, len(positions) + 1))
    assert all(answer == list(range(answer[0], answer[0] + len(answer))) for answer in answers)
    page = await storage.read_log(0, 0, 1000, 0)
    assert [event.position for event in page.events] == sorted(positions)


async def test_many_publishers_of_one_id_store_it_once(storage: Storage) -> None:
    answers = await asyncio.gather(*(storage.append([new_event(1, "same")], NOW) for _ in range(20)))
    assert sum(answer[0].existing is None for answer in answers) == 1
    assert {answer[0].position for answer in answers} == {1}
    assert await storage.head(0) == 1


async def test_pages_follow_each_other_without_gaps(storage: Storage) -> None:
    await storage.append([new_event(1, f"e{number}") for number in range(25)], NOW)
    seen: list[int] = []
    after = 0
    while after < 25:
        page = await storage.read_log(0, after, 10, 0)
        seen += [event.position for event in page.events]
        assert page.head == 25
        after = page.last
    assert seen == list(range(1, 26))
    assert not (await storage.read_log(0, 25, 10, 0)).events


async def test_a_page_ends_when_its_payloads_are_large(storage: Storage) -> None:
    large = b'"' + b"x" * (PAGE_BYTES // 3) + b'"'
    await storage.append([new_event(1, f"e{n}", data=large) for n in range(7)], NOW)
    positions: list[int] = []
    after = 0
    while after < 7:
        page = await storage.read_log(0, after, 100, 0)
        assert 0 < len(page.events) < 7
        positions += [event.position for event in page.events]
        after = page.last
    assert positions == list(range(1, 8))


async def test_a_page_of_one_tenant_reaches_the_head(storage: Storage) -> None:
    await storage.append([new_event(number % 3, f"e{number}") for number in range(30)], NOW)
    page = await storage.read_log(0, 0, 4, 0, tenant_no=1)
    assert [event.position for event in page.events] == [2, 5, 8, 11]
    assert page.last == 11
    rest = await storage.read_log(0, page.last, 100, 0, tenant_no=1)
    assert [event.position for event in rest.events] == [14, 17, 20, 23, 26, 29]
    assert (rest.last, rest.head) == (30, 30)


async def test_reading_positions_leaves_out_what_is_not_there(storage: Storage) -> None:
    await storage.append([new_event(1, f"e{number}") for number in range(5)], NOW)
    assert [event.position for event in await storage.read_events(0, [4, 2, 9, 2])] == [2, 4]
    assert await storage.read_events(0, []) == []


async def test_position_at(storage: Storage) -> None:
    assert await storage.position_at(0, NOW) == 0
    for number, now in enumerate((NOW, NOW, NOW + 10, NOW + 10, NOW + 20)):
        await storage.append([new_event(1, f"e{number}")], now)
    times = (NOW, NOW + 1, NOW + 10, NOW + 11, NOW + 20, NOW + 21)
    assert [await storage.position_at(0, time) for time in times] == [0, 2, 2, 4, 4, 5]


async def test_position_at_in_a_log_with_holes(storage: Storage) -> None:
    for number in range(40):
        await storage.append([new_event(number % 4, f"e{number}")], NOW + number * 10)
    await storage.remove_events(1, NOW + 10_000, 1000, 1000)
    await storage.remove_events(0, NOW + 200, 1000, 1000)
    for time in range(NOW - 5, NOW + 420, 5):
        position = await storage.position_at(0, time)
        events = (await storage.read_log(0, 0, 100, 0)).events
        assert all((event.position <= position) == (event.received_at < time) for event in events)
        later = [event.position for event in events if event.received_at >= time]
        assert position == (later[0] - 1 if later else 40), "what was removed goes with the event before it"


async def test_a_page_carries_the_changes_of_its_snapshot(storage: Storage) -> None:
    world = World(storage)
    tenant = await world.tenant()
    start = await storage.version()
    await world.publish(tenant, 2)
    subscription = await world.subscription(tenant)
    page = await storage.read_log(0, 0, 10, start)
    assert page.changes.version == await storage.version() > start
    assert list(page.changes.subscriptions) == [subscription]
    assert [(each.version, each.matches_from) for each in page.changes.definitions] == [(1, 3)]
    again = await storage.read_log(0, page.last, 10, page.changes.version)
    assert again.changes.version == page.changes.version
    assert not again.changes.subscriptions
    assert not again.changes.definitions


async def test_changes_name_all_versions_of_what_changed_and_nothing_else(storage: Storage) -> None:
    world = World(storage)
    tenant = await world.tenant()
    one, two = await world.subscription(tenant, "one"), await world.subscription(tenant, "two")
    before = await storage.version()
    await world.publish(tenant)
    changed = Definition(url="https://example.test/new", order=Order.KEY)
    updated = await storage.update_subscription(one.no, 1, changed, b"sealed", NOW + 1)
    changes = (await storage.read_log(0, 0, 10, before)).changes
    assert list(changes.subscriptions) == [updated]
    assert [(each.version, each.matches_from, each.definition) for each in changes.definitions] == [
        (1, 1, one.definition),
        (2, 2, changed),
    ]
    everything = (await storage.read_log(0, 0, 10, 0)).changes
    assert {each.no for each in everything.subscriptions} == {one.no, two.no}


async def test_a_definition_in_force_is_known_with_the_page(storage: Storage) -> None:
    """While events and new versions race, a reader that follows never sees an event whose version it lacks."""
    world = World(storage)
    tenant = await world.tenant()
    subscription = await world.subscription(tenant)

    async def edit() -> None:
        for number in range(1, 20):
            definition = Definition(url=f"https://example.test/{number}")
            await storage.update_subscription(subscription.no, number, definition, b"", NOW)

    async def publish() -> None:
        for number in range(60):
            await storage.append([new_event(tenant.no, f"e{number}")], NOW)

    async def follow() -> dict[int, int]:
        """The version in force that the reader knew, by position."""
        known: dict[int, int] = {}
        in_force: dict[int, int] = {}
        after = changes_after = 0
        while after < 60:
            page = await storage.read_log(0, after, 7, changes_after)
            known |= {each.version: each.matches_from for each in page.changes.definitions}
            for event in page.events:
                in_force[event.position] = max(
                    version for version, first in known.items() if first <= event.position
                )
            after, changes_after = page.last, page.changes.version
            await asyncio.sleep(0)
        return in_force

    seen, *_ = await asyncio.gather(follow(), edit(), publish())
    versions = await storage.definition_versions(subscription.no)
    for position, version in seen.items():
        assert version == max(each.version for each in versions if each.matches_from <= position)


@pytest.mark.parametrize("limit", [1, 3])
async def test_two_handles_see_one_log(storage_factory: Backend, limit: int) -> None:
    one, two = await storage_factory.connect(), await storage_factory.connect()
    await asyncio.gather(
        *(
            each.append([new_event(1, f"{side}{number}")], NOW)
            for number in range(15)
            for side, each in (("a", one), ("b", two))
        )
    )
    after = 0
    ids: list[str] = []
    while (page := await two.read_log(0, after, limit, 0)).last > after:
        ids += [event.id for event in page.events]
        after = page.last
    assert len(ids) == len(set(ids)) == 30
    assert await one.head(0) == await two.head(0) == 30
    assert (await one.append([new_event(1, "b3")], NOW))[0].existing is not None
