"""Lists: what they show, and that paging neither skips nor repeats."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from hookline.core.model import DeliveryState, SubscriptionState
from hookline.ports import DeliveryQuery, EventQuery, Storage
from tests.contract.make import NOW, World, new_event, settled, unsettled

PENDING, RETRYING = DeliveryState.PENDING, DeliveryState.RETRYING
SUCCEEDED, FAILED, EXPIRED = DeliveryState.SUCCEEDED, DeliveryState.FAILED, DeliveryState.EXPIRED


@pytest.fixture
def world(storage: Storage) -> World:
    return World(storage)


async def _mixed_log(storage: Storage) -> None:
    """4,000 events in batches of 100, 10 ms apart, of three tenants, types and objects; over several blocks."""
    for batch in range(40):
        events = [
            new_event(
                number % 3 + 1,
                f"e{number}",
                "rare" if number % 1500 == 7 else f"type:{number % 4}",
                object_type=("order", "item", None)[number % 5 % 3],
                object_id=str(number % 50) if number % 5 % 3 != 2 else None,
                correlation_id=f"c{number % 40}" if number % 2 else None,
            )
            for number in range(batch * 100, batch * 100 + 100)
        ]
        await storage.append(events, NOW + batch * 10)


async def _pages(storage: Storage, query: EventQuery) -> list[int]:
    seen: list[int] = []
    before = query.before
    while True:
        page = await storage.list_events(replace(query, before=before))
        seen += [event.position for event in page]
        if len(page) < query.limit:
            return seen
        before = page[-1].position


@pytest.mark.parametrize(
    "query",
    [
        EventQuery(2, limit=333),
        EventQuery(2, type="type:1", limit=100),
        EventQuery(2, type="rare", limit=1),
        EventQuery(2, type="nothing"),
        EventQuery(2, type="type:1\0"),
        EventQuery(2, object_type="order", object_id="\0"),
        EventQuery(2, correlation_id="\0"),
        EventQuery(2, object_type="item", limit=70),
        EventQuery(2, object_type="item", type="type:1", limit=30),
        EventQuery(2, object_id="13", limit=4),
        EventQuery(2, object_id="13", object_type="order", limit=4),
        EventQuery(2, correlation_id="c7", limit=9),
        EventQuery(2, correlation_id="c7", type="type:3", object_type="order", limit=2),
        EventQuery(2, correlation_id="c7", object_id="7", limit=2),
        EventQuery(2, before=1500, since=NOW + 50, until=NOW + 200, limit=60),
        EventQuery(2, type="type:0", since=NOW + 100, limit=60),
        EventQuery(2, object_type="order", until=NOW + 120, limit=60),
        EventQuery(2, since=NOW + 900),
        EventQuery(2, until=NOW),
        EventQuery(9),
    ],
    ids=repr,
)
async def test_events_are_paged_newest_first(storage: Storage, query: EventQuery) -> None:
    await _mixed_log(storage)
    expected = [
        event.position
        for event in reversed((await storage.read_log(0, 0, 10_000, 0)).events)
        if event.tenant_no == query.tenant_no
        and event.position < (query.before or 10**9)
        and query.type in ("", event.type)
        and query.object_type in ("", event.object_type)
        and query.object_id in ("", event.object_id)
        and query.correlation_id in ("", event.correlation_id)
        and query.since <= event.received_at < (query.until or 10**15)
    ]
    assert await _pages(storage, query) == expected


# --- deliveries --------------------------------------------------------------------------------------

STATES = (SUCCEEDED, FAILED, RETRYING, SUCCEEDED, EXPIRED, PENDING, SUCCEEDED)


async def _mixed_deliveries(world: World, count: int = 60) -> int:
    """Events a millisecond apart; the delivery of each has one of ``STATES`` in turn."""
    tenant = await world.tenant()
    sub = (await world.subscription(tenant)).no
    other = (await world.subscription(tenant, "other")).no
    events = [new_event(tenant.no, f"e{number}") for number in range(count)]
    for number, event in enumerate(events):
        await world.storage.append([event], NOW + number)
    places = {position: STATES[position % len(STATES)] for position in range(1, count + 1)}
    ends = [(at, state) for at, state in places.items() if state not in (PENDING, RETRYING)]
    waits = [(at, state) for at, state in places.items() if state in (PENDING, RETRYING)]
    for each in (sub, other):
        await world.record(
            settled=[settled(each, at, state) for at, state in ends],
            unsettled=[unsettled(each, at, attempts=int(state is RETRYING)) for at, state in waits],
        )
    return sub


@pytest.mark.parametrize(
    "states",
    [
        (),
        (SUCCEEDED,),
        (FAILED,),
        (EXPIRED, FAILED),
        (PENDING,),
        (RETRYING, FAILED),
        (SUCCEEDED, FAILED),
        (PENDING, RETRYING),
        tuple(DeliveryState),
    ],
    ids=lambda states: "-".join(states) or "all",
)
@pytest.mark.parametrize("limit", [1, 7, 100])
async def test_deliveries_are_paged_newest_first(
    world: World, states: Sequence[DeliveryState], limit: int
) -> None:
    sub = await _mixed_deliveries(world)
    expected = [at for at in range(60, 0, -1) if STATES[at % len(STATES)] in (states or DeliveryState)]
    seen: list[int] = []
    while True:
        before = seen[-1] if seen else 0
        page = await world.storage.list_deliveries(DeliveryQuery(sub, before, limit, states))
        assert all(each.state is STATES[each.position % len(STATES)] for each in page)
        seen += [each.position for each in page]
        if len(page) < limit:
            break
    assert seen == expected


async def test_deliveries_of_a_time(world: World) -> None:
    sub = await _mixed_deliveries(world)
    query = DeliveryQuery(sub, since=NOW + 10, until=NOW + 20)
    found = await world.storage.list_deliveries(query)
    assert [each.position for each in found] == list(range(20, 10, -1))
    query = DeliveryQuery(sub, before=15, since=NOW + 10, states=(FAILED,))
    found = await world.storage.list_deliveries(query)
    assert [each.position for each in found] == [at for at in range(14, 10, -1) if STATES[at % 7] is FAILED]


async def test_the_deliveries_of_one_event(world: World) -> None:
    storage = world.storage
    tenant, other = await world.tenant(), await world.tenant("other")
    subs = [(await world.subscription(tenant, f"s{number}")).no for number in range(4)]
    foreign = (await world.subscription(other)).no
    await world.publish(tenant, 2)
    await world.record(
        settled=[settled(subs[0], 1), settled(subs[3], 1, FAILED), settled(subs[0], 2), settled(foreign, 1)],
        unsettled=[unsettled(subs[1], 1)],
    )
    await storage.set_subscription_state(subs[3], SubscriptionState.DELETED, "", NOW)
    found = await storage.event_deliveries(tenant.no, 1)
    assert [(each.subscription_no, each.state) for each in found] == [
        (subs[0], SUCCEEDED),
        (subs[1], RETRYING),
        (subs[3], FAILED),
    ]
    assert await storage.event_deliveries(tenant.no, 9) == []
