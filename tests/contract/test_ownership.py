"""Leases, fencing, and what a new owner starts from."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from hookline.core.errors import Fenced
from hookline.core.model import Definition, DeliveryState, Order, SubscriptionState
from hookline.core.sharding import slice_of
from hookline.ports import Lease, Node, Progress, Record, Storage
from tests.contract.make import NOW, World, attempt, lane, new_event, replay, settled, unsettled


@pytest.fixture
def world(storage: Storage) -> World:
    return World(storage)


# --- leases ------------------------------------------------------------------------------------------


async def test_the_first_owner_gets_the_first_epoch(storage: Storage) -> None:
    assert await storage.lease(0, "a", NOW, 10) == Lease(0, "a", 1, NOW + 10_000)


async def test_renewing_keeps_the_epoch(storage: Storage) -> None:
    await storage.lease(0, "a", NOW, 10)
    assert await storage.lease(0, "a", NOW + 5_000, 10) == Lease(0, "a", 1, NOW + 15_000)


async def test_an_owner_that_overslept_renews_if_nobody_took_over(storage: Storage) -> None:
    await storage.lease(0, "a", NOW, 10)
    assert await storage.lease(0, "a", NOW + 60_000, 10) == Lease(0, "a", 1, NOW + 70_000)


async def test_nobody_else_gets_a_lease_in_force(storage: Storage) -> None:
    await storage.lease(0, "a", NOW, 10)
    assert await storage.lease(0, "b", NOW + 9_999, 10) is None


async def test_an_expired_lease_goes_to_the_next_owner(storage: Storage) -> None:
    await storage.lease(0, "a", NOW, 10)
    assert await storage.lease(0, "b", NOW + 10_000, 10) == Lease(0, "b", 2, NOW + 20_000)
    assert await storage.lease(0, "a", NOW + 10_001, 10) is None


async def test_a_released_lease_is_free_at_once(storage: Storage) -> None:
    lease = await storage.lease(0, "a", NOW, 10)
    assert lease is not None
    await storage.release(lease)
    assert await storage.lease(0, "b", NOW, 10) == Lease(0, "b", 2, NOW + 10_000)


async def test_taking_a_released_lease_again_raises_the_epoch(storage: Storage) -> None:
    lease = await storage.lease(0, "a", NOW, 10)
    assert lease is not None
    await storage.release(lease)
    assert await storage.lease(0, "a", NOW, 10) == Lease(0, "a", 2, NOW + 10_000)


async def test_releasing_a_lost_lease_does_nothing(storage: Storage) -> None:
    lost = await storage.lease(0, "a", NOW, 10)
    assert lost is not None
    await storage.lease(0, "b", NOW + 10_000, 10)
    await storage.release(lost)
    assert await storage.lease(0, "c", NOW + 10_001, 10) is None


async def test_renewing_all_at_once_moves_their_ends(storage: Storage) -> None:
    held = [
        lease
        for part in range(storage.slices)
        if (lease := await storage.lease(0, "a", NOW, 10, part)) is not None
    ]
    renewed = await storage.renew(held, NOW + 5_000, 10)
    assert renewed == [
        replace(lease, expires_at=NOW + 15_000) for lease in held if lease.slice in slices(renewed)
    ]
    for lease in held:
        if lease.slice not in slices(renewed):  # it may be left out
            await storage.lease(0, "a", NOW + 5_000, 10, lease.slice)
        assert await storage.lease(0, "b", NOW + 14_999, 10, lease.slice) is None
        assert await storage.lease(0, "b", NOW + 15_000, 10, lease.slice) is not None
    assert await storage.renew([], NOW, 10) == []


def slices(leases: list[Lease]) -> set[int]:
    return {lease.slice for lease in leases}


async def test_what_was_lost_or_given_back_is_not_renewed(storage: Storage) -> None:
    lost = await storage.lease(0, "a", NOW, 10)
    assert lost is not None
    taken = await storage.lease(0, "b", NOW + 10_000, 10)
    assert taken is not None
    assert await storage.renew([lost], NOW + 10_001, 10) == []
    assert await storage.renew([replace(lost, owner="b")], NOW + 10_001, 10) == []
    assert await storage.lease(0, "c", NOW + 20_000, 10) is not None
    await storage.release(taken)
    assert await storage.renew([taken], NOW + 20_001, 10) == []


# --- fencing -----------------------------------------------------------------------------------------


async def _everything(storage: Storage, sub: int) -> list[object]:
    state = await storage.get_delivery(sub, 1), await storage.get_delivery(sub, 2)
    subscription = await storage.subscription_by_no(sub)
    return [*state, await storage.list_attempts(sub, 1), await storage.lane_state(sub), subscription,
            await storage.head(0), await storage.usage(1, "0", "9")]  # fmt: skip


@pytest.mark.parametrize("epoch", [0, 1, 3])
async def test_another_epoch_writes_nothing(world: World, epoch: int) -> None:
    storage = world.storage
    tenant = await world.tenant()
    sub = (await world.subscription(tenant)).no
    await world.publish(tenant, 2)
    await storage.lease(0, "a", NOW, 10)
    await storage.lease(0, "b", NOW + 10_000, 10)
    before = await _everything(storage, sub)
    batch = Record(
        0,
        epoch,
        NOW,
        2,
        attempts=[attempt(sub, 1)],
        settled=[settled(sub, 1)],
        unsettled=[unsettled(sub, 2)],
        lanes=[lane(sub, 2)],
        disabled=[(sub, "gone")],
        operational=[new_event(tenant.no, "op")],
    )
    with pytest.raises(Fenced):
        await storage.record(batch)
    with pytest.raises(Fenced):
        await storage.load_shard(0, epoch)
    assert await _everything(storage, sub) == before
    assert (await storage.load_shard(0, 2)).watermark == 0


async def test_a_released_lease_writes_nothing(world: World) -> None:
    lease = await world.storage.lease(0, "a", NOW, 10)
    assert lease is not None
    await world.storage.record(Record(0, 1, NOW, 0))
    await world.storage.release(lease)
    with pytest.raises(Fenced):
        await world.storage.record(Record(0, 1, NOW, 0))
    with pytest.raises(Fenced):
        await world.storage.load_shard(0, 1)


# --- what a new owner starts from --------------------------------------------------------------------


async def test_an_empty_shard(world: World) -> None:
    state = await world.storage.load_shard(0, await world.own())
    assert (state.watermark, state.head, list(state.lanes), list(state.replays)) == (0, 0, [], [])


async def test_lanes_come_back_as_recorded(world: World) -> None:
    tenant = await world.tenant()
    await world.publish(tenant, 9)
    subs = [(await world.subscription(tenant, f"s{number}", start_after=0)).no for number in range(3)]
    lanes = [
        lane(subs[0], 4, sequence=2, live=True, failing_since=NOW, warned_at=NOW + 1),
        lane(subs[1], 3, sequence=3, ahead=True),
    ]
    await world.record(watermark=6, lanes=lanes)
    state = await world.storage.load_shard(0, world.epoch)
    assert [each.state for each in state.lanes] == lanes
    assert (state.watermark, state.head) == (6, 9)
    assert {each.no for each in state.changes.subscriptions} == set(subs)
    assert len(state.changes.definitions) == 3


async def test_recorded_is_what_is_above_the_effective_cursor(world: World) -> None:
    tenant = await world.tenant()
    await world.publish(tenant, 9)
    live = (await world.subscription(tenant, "live", start_after=0)).no
    behind = (await world.subscription(tenant, "behind", start_after=0)).no
    await world.record(
        watermark=5,
        settled=[settled(sub, position) for sub in (live, behind) for position in (1, 4, 5, 7)],
        unsettled=[unsettled(sub, position) for sub in (live, behind) for position in (2, 8)],
        lanes=[lane(live, 3, live=True, ahead=True), lane(behind, 3, ahead=True)],
    )
    lanes = {
        each.state.subscription_no: each for each in (await world.storage.load_shard(0, world.epoch)).lanes
    }
    assert lanes[live].recorded == {7, 8}
    assert lanes[behind].recorded == {4, 5, 7, 8}
    effective = await world.storage.lane_state(live)
    assert effective is not None
    assert effective.cursor == 5


async def test_waiting_deliveries_are_counted_with_their_keys(world: World) -> None:
    tenant = await world.tenant()
    await world.publish(tenant, 9)
    by_key = Definition(url="https://example.test/k", order=Order.KEY)
    keyed = (await world.subscription(tenant, "keyed", by_key, start_after=0)).no
    free = (await world.subscription(tenant, "free", start_after=0)).no
    waits = [(1, "b", 30), (2, "a", 20), (3, "b", 10), (4, None, 40)]
    await world.record(
        unsettled=[unsettled(sub, at, NOW + due, key=key) for sub in (keyed, free) for at, key, due in waits],
        lanes=[lane(keyed, 9), lane(free, 9)],
    )
    lanes = {
        each.state.subscription_no: each for each in (await world.storage.load_shard(0, world.epoch)).lanes
    }
    assert (lanes[keyed].waiting, lanes[keyed].next_due) == (4, NOW + 10)
    assert list(lanes[keyed].blocked_keys) == ["a", "b"]
    assert (lanes[free].waiting, list(lanes[free].blocked_keys)) == (4, [])


async def test_a_deleted_subscription_is_seen_until_its_waiting_deliveries_are_dropped(world: World) -> None:
    storage = world.storage
    tenant = await world.tenant()
    sub = (await world.subscription(tenant)).no
    await world.publish(tenant)
    await world.record(unsettled=[unsettled(sub, 1)], lanes=[lane(sub, 1)])
    await storage.set_subscription_state(sub, SubscriptionState.DELETED, "", NOW)
    state = await storage.load_shard(0, world.epoch)
    assert [each.state for each in state.changes.subscriptions] == [SubscriptionState.DELETED]
    assert [each.waiting for each in state.lanes] == [1]
    await storage.drop_unsettled(sub, NOW, DeliveryState.EXPIRED)
    state = await storage.load_shard(0, world.epoch)
    assert (list(state.changes.subscriptions), list(state.lanes)) == ([], [])


async def test_running_replays_go_on(world: World) -> None:
    tenant = await world.tenant()
    sub = (await world.subscription(tenant)).no
    job = replay(sub)
    await world.storage.create_replay(job)
    await world.storage.create_replay(replay(sub, "rpl_2"))
    await world.storage.cancel_replay("rpl_2", NOW)
    assert list((await world.storage.load_shard(0, await world.own())).replays) == [job]


# --- nodes and slices ----------------------------------------------------------------------------------------


def node(name: str, role: str = "delivery") -> Node:
    return Node(name, role, "1.0", NOW - 5)


async def test_nodes_see_each_other_while_they_live(storage: Storage) -> None:
    assert await storage.beat(node("b"), NOW, 10) == [replace(node("b"), seen_at=NOW)]
    both = [replace(node("a", "api"), seen_at=NOW + 9_000), replace(node("b"), seen_at=NOW)]
    assert await storage.beat(node("a", "api"), NOW + 9_000, 10) == both
    assert [each.id for each in await storage.beat(node("a", "api"), NOW + 10_001, 10)] == ["a"]
    await storage.beat(node("b"), NOW + 10_002, 10)
    await storage.leave("a")
    await storage.leave("nobody")
    assert [each.id for each in await storage.beat(node("b"), NOW + 10_003, 10)] == ["b"]


async def test_leases_tell_who_delivers_what(storage: Storage) -> None:
    parts = [(shard, number) for shard in range(storage.shards) for number in range(storage.slices)]
    free = await storage.leases(NOW)
    assert [(lease.shard, lease.slice, lease.owner) for lease in free] == [(*part, "") for part in parts]
    taken = await storage.lease(0, "a", NOW, 10)
    assert taken is not None
    first, *others = await storage.leases(NOW + 9_999)
    assert first == taken
    assert not any(lease.owner for lease in others)
    await storage.release(taken)
    assert [lease.owner for lease in await storage.leases(NOW)] == [""] * len(parts)


async def test_a_batch_that_was_written_is_not_written_again(world: World) -> None:
    """Its answer was lost, and a resend came in between."""
    storage = world.storage
    subscription = await world.subscription(await world.tenant())
    await storage.append([new_event(subscription.tenant_no, "e1")], NOW)
    lease = await storage.lease(0, "a", NOW, 10)
    assert lease is not None
    batch = Record(0, lease.epoch, NOW, 1, settled=[settled(subscription.no, 1)], number=1)
    await storage.record(batch)
    assert await storage.resend(subscription.no, [1], NOW) == 1
    await storage.record(batch)
    (waits,) = await storage.due(subscription.no, NOW, 10)
    assert waits.position == 1
    await storage.record(replace(batch, number=2))
    assert await storage.due(subscription.no, NOW, 10) == []


async def test_each_epoch_counts_its_batches_anew(world: World) -> None:
    storage = world.storage
    subscription = await world.subscription(await world.tenant())
    await storage.append([new_event(subscription.tenant_no, "e1")], NOW)
    for expected in (1, 2):
        lease = await storage.lease(0, "a", NOW, 10)
        assert lease is not None
        assert lease.epoch == expected
        done = attempt(subscription.no, 1, expected)
        await storage.record(Record(0, lease.epoch, NOW, 1, attempts=[done], number=1))
        renewed = await storage.lease(0, "a", NOW + 1, 10)
        assert renewed is not None
        await storage.record(
            Record(0, lease.epoch, NOW, 1, attempts=[attempt(subscription.no, 1, 9)], number=1)
        )
        await storage.release(renewed)
    assert [each.number for each in await storage.list_attempts(subscription.no, 1)] == [1, 2]


async def test_progress_tells_how_far_each_slice_is(world: World) -> None:
    storage = world.storage
    subscription = await world.subscription(await world.tenant())
    shard = subscription.shard
    part = (shard, slice_of(subscription.no, storage.slices))
    await storage.append([new_event(subscription.tenant_no, f"e{n}") for n in range(3)], NOW)
    lease = await storage.lease(shard, "a", NOW, 10, part[1])
    assert lease is not None
    waits = [unsettled(subscription.no, position, NOW + position) for position in (2, 3)]
    await storage.record(Record(shard, lease.epoch, NOW, 2, unsettled=waits, slice=part[1]))
    found = {(each.shard, each.slice): each for each in await storage.progress(NOW)}
    assert len(found) == storage.shards * storage.slices
    assert found.pop(part) == Progress(*part, "a", 3, 2, 2, NOW + 2)
    assert not any(each.owner or each.waiting for each in found.values())


async def test_what_a_stopped_subscription_does_not_send_is_not_late(world: World) -> None:
    storage = world.storage
    tenant = await world.tenant()
    active, paused = await world.subscription(tenant, "active"), await world.subscription(tenant, "paused")
    await storage.append([new_event(tenant.no, "one")], NOW)
    for number, each in enumerate((active, paused)):
        part = slice_of(each.no, storage.slices)
        lease = await storage.lease(each.shard, "a", NOW, 10, part)
        assert lease is not None
        waits = unsettled(each.no, 1, NOW + 5 - number)
        await storage.record(Record(each.shard, lease.epoch, NOW, 1, unsettled=[waits], slice=part))
    await storage.set_subscription_state(paused.no, SubscriptionState.PAUSED, "", NOW)
    progress = await storage.progress(NOW)
    assert sum(each.waiting for each in progress) == 2
    assert {each.next_due for each in progress} <= {0, NOW + 5}
    await storage.set_subscription_state(paused.no, SubscriptionState.ACTIVE, "", NOW)
    assert NOW + 4 in {each.next_due for each in await storage.progress(NOW)}
