"""Removing what is past its time: exactly that, a little at a step."""

from __future__ import annotations

import pytest

from hookline.core.model import DeliveryState, SubscriptionState, Tenant
from hookline.ports import DeliveryQuery, EventQuery, Storage
from tests.contract.make import NOW, World, attempt, lane, new_event, settled, unsettled


@pytest.fixture
def world(storage: Storage) -> World:
    return World(storage)


@pytest.fixture
async def tenant(world: World) -> Tenant:
    return await world.tenant()


async def _positions(world: World) -> list[int]:
    return [event.position for event in await world.events()]


# --- events ------------------------------------------------------------------------------------------


async def test_events_go_oldest_first_in_steps(world: World, tenant: Tenant) -> None:
    await world.publish(tenant, 10)
    assert await world.storage.remove_events(tenant.no, NOW + 7, 100, 3) == 3
    assert await _positions(world) == [4, 5, 6, 7, 8, 9, 10]
    assert await world.storage.remove_events(tenant.no, NOW + 7, 100, 100) == 4
    assert await world.storage.remove_events(tenant.no, NOW + 7, 100, 100) == 0
    assert await _positions(world) == [8, 9, 10]


async def test_events_that_are_needed_stay(world: World, tenant: Tenant) -> None:
    await world.publish(tenant, 10)
    assert await world.storage.remove_events(tenant.no, NOW + 100, 4, 100) == 4
    assert await _positions(world) == [5, 6, 7, 8, 9, 10]


async def test_events_of_other_tenants_stay(world: World, tenant: Tenant) -> None:
    other = await world.tenant("other")
    for _ in range(3):
        await world.publish(tenant)
        await world.publish(other)
    assert await world.storage.remove_events(tenant.no, NOW + 100, 100, 100) == 3
    assert await _positions(world) == [2, 4, 6]


async def test_an_empty_log_keeps_its_place(world: World, tenant: Tenant) -> None:
    await world.publish(tenant, 5)
    await world.storage.remove_events(tenant.no, NOW + 100, 100, 100)
    storage = world.storage
    assert await storage.head(0) == 5
    page = await storage.read_log(0, 0, 10, 10**9)
    assert (list(page.events), page.last, page.head) == ([], 5, 5)
    assert await storage.position_at(0, NOW + 1000) == 5
    assert (await storage.append([new_event(tenant.no, "next")], NOW - 50))[0].position == 6
    assert (await storage.read_events(0, [6]))[0].received_at == NOW + 4


async def test_a_removed_id_can_come_again(world: World, tenant: Tenant) -> None:
    await world.storage.append([new_event(tenant.no, "same")], NOW)
    await world.storage.remove_events(tenant.no, NOW + 1, 1, 1)
    assert await world.storage.find_event(tenant.no, "same") is None
    (again,) = await world.storage.append([new_event(tenant.no, "same")], NOW + 1)
    assert (again.position, again.existing) == (2, None)


async def test_lists_by_type_forget_what_is_removed(world: World, tenant: Tenant) -> None:
    storage = world.storage
    for block in range(4):
        events = [new_event(tenant.no, f"e{block}-{number}", f"t{block}") for number in range(1000)]
        await storage.append(events, NOW + block)
    await storage.remove_events(tenant.no, NOW + 2, 10_000, 1500)
    assert len(await storage.list_events(EventQuery(tenant.no, type="t0", limit=5))) == 0
    assert len(await storage.list_events(EventQuery(tenant.no, type="t1", limit=5000))) == 500
    await storage.remove_events(tenant.no, NOW + 10, 10_000, 10_000)
    await storage.append([new_event(tenant.no, "new", "t3")], NOW + 10)
    assert [each.id for each in await storage.list_events(EventQuery(tenant.no, type="t3"))] == ["new"]


# --- attempts, deliveries, bodies --------------------------------------------------------------------


async def _delivered(world: World, tenant: Tenant, count: int = 6) -> int:
    """One attempt with a body and one settled delivery a millisecond, from NOW on."""
    sub = (await world.subscription(tenant, f"s{tenant.no}")).no
    positions = await world.publish(tenant, count, now=NOW)
    attempts = [
        attempt(sub, at, started_at=NOW + index, response_body=b"b") for index, at in enumerate(positions)
    ]
    await world.record(
        attempts=attempts,
        settled=[settled(sub, at, settled_at=NOW + index) for index, at in enumerate(positions)],
    )
    return sub


async def test_attempts_and_settled_deliveries_go_by_their_time(world: World, tenant: Tenant) -> None:
    sub, storage = await _delivered(world, tenant), world.storage
    await world.record(unsettled=[unsettled(sub, 1)])
    removed = 0
    while step := await storage.remove_attempts(tenant.no, NOW + 3, 2):
        assert step <= 2
        removed += step
    assert removed == 3 + 2  # the delivery at 1 waits again
    assert [len(await storage.list_attempts(sub, at)) for at in range(1, 7)] == [0, 0, 0, 1, 1, 1]
    left = await storage.list_deliveries(DeliveryQuery(sub))
    assert [each.position for each in left] == [6, 5, 4, 1]


async def test_a_late_attempt_at_an_old_event_stays(world: World, tenant: Tenant) -> None:
    sub, storage = await _delivered(world, tenant), world.storage
    late = attempt(sub, 1, 2, started_at=NOW + 50)
    await world.record(attempts=[late], settled=[settled(sub, 1, DeliveryState.FAILED, settled_at=NOW + 50)])
    assert await storage.remove_attempts(tenant.no, NOW + 50, 100) == 6 + 5
    assert await storage.list_attempts(sub, 1) == [late]
    assert [each.position for each in await storage.list_deliveries(DeliveryQuery(sub))] == [1]


async def test_bodies_go_before_their_attempts(world: World, tenant: Tenant) -> None:
    sub, storage = await _delivered(world, tenant), world.storage
    assert await storage.remove_bodies(tenant.no, NOW + 4, 3) == 3
    assert await storage.remove_bodies(tenant.no, NOW + 4, 3) == 1
    assert await storage.remove_bodies(tenant.no, NOW + 4, 3) == 0
    bodies = [(await storage.list_attempts(sub, at))[0].response_body for at in range(1, 7)]
    assert bodies == [b"", b"", b"", b"", b"b", b"b"]
    await storage.remove_attempts(tenant.no, NOW + 100, 100)
    assert await storage.remove_bodies(tenant.no, NOW + 100, 100) == 0


async def test_each_tenant_has_its_own_retention(world: World, tenant: Tenant) -> None:
    other = await world.tenant("other")
    mine, theirs = await _delivered(world, tenant, 3), await _delivered(world, other, 3)
    storage = world.storage
    assert await storage.remove_bodies(other.no, NOW + 100, 100) == 3
    assert await storage.remove_attempts(other.no, NOW + 100, 100) == 6
    assert await storage.list_deliveries(DeliveryQuery(theirs)) == []
    assert len(await storage.list_deliveries(DeliveryQuery(mine))) == 3
    assert (await storage.list_attempts(mine, 1))[0].response_body == b"b"


# --- what is still needed ----------------------------------------------------------------------------


async def test_without_subscriptions_nothing_is_needed(world: World, tenant: Tenant) -> None:
    await world.publish(tenant, 5)
    assert await world.storage.oldest_needed(tenant.no) == 6


async def test_the_slowest_lane_decides(world: World, tenant: Tenant) -> None:
    await world.publish(tenant, 9)
    one, two = [(await world.subscription(tenant, name, start_after=0)).no for name in ("a", "b")]
    assert await world.storage.oldest_needed(tenant.no) == 1
    await world.record(watermark=8, lanes=[lane(one, 3), lane(two, 2, live=True)])
    assert await world.storage.oldest_needed(tenant.no) == 4
    await world.record(watermark=8, lanes=[lane(one, 3, live=True)])
    assert await world.storage.oldest_needed(tenant.no) == 9
    await world.record(watermark=8, unsettled=[unsettled(two, 2), unsettled(one, 5)])
    assert await world.storage.oldest_needed(tenant.no) == 2


async def test_a_deleted_subscription_needs_what_waits_only(world: World, tenant: Tenant) -> None:
    await world.publish(tenant, 9)
    sub = (await world.subscription(tenant, start_after=0)).no
    await world.record(lanes=[lane(sub, 3)], unsettled=[unsettled(sub, 3)])
    await world.storage.set_subscription_state(sub, SubscriptionState.DELETED, "", NOW)
    assert await world.storage.oldest_needed(tenant.no) == 3
    await world.storage.drop_unsettled(sub, NOW, DeliveryState.EXPIRED)
    assert await world.storage.oldest_needed(tenant.no) == 10


async def test_other_tenants_do_not_count(world: World, tenant: Tenant) -> None:
    other = await world.tenant("other")
    await world.publish(tenant, 4)
    await world.subscription(other, start_after=0)
    assert await world.storage.oldest_needed(tenant.no) == 5
    assert await world.storage.oldest_needed(other.no) == 1
