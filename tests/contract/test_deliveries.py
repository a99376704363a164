"""Recording, waiting, sending again, replaying."""

from __future__ import annotations

import pytest

from hookline.core.errors import Conflict, NotFound
from hookline.core.model import DeliveryState, ReplayState, Subscription, SubscriptionState, Tenant
from hookline.ports import Delivery, DeliveryQuery, Storage
from tests.contract.conftest import Backend
from tests.contract.make import NOW, World, attempt, lane, new_event, replay, settled, unsettled

FAILED, EXPIRED, SUCCEEDED = DeliveryState.FAILED, DeliveryState.EXPIRED, DeliveryState.SUCCEEDED


@pytest.fixture
def world(storage: Storage) -> World:
    return World(storage)


@pytest.fixture
async def tenant(world: World) -> Tenant:
    return await world.tenant()


@pytest.fixture
async def subscription(world: World, tenant: Tenant) -> Subscription:
    """A subscription, and ten events after it."""
    subscription = await world.subscription(tenant)
    await world.publish(tenant, 10, key="k")
    return subscription


# --- record ------------------------------------------------------------------------------------------


async def test_a_settled_delivery(world: World, subscription: Subscription) -> None:
    sub = subscription.no
    await world.record(settled=[settled(sub, 3, FAILED, sequence=2, attempts=4, status=503, error="x")])
    assert await world.storage.get_delivery(sub, 3) == Delivery(sub, 3, 2, FAILED, 4, NOW, 0, 503, "x")
    assert await world.storage.get_delivery(sub, 4) is None


@pytest.mark.parametrize(("attempts", "state"), [(0, DeliveryState.PENDING), (2, DeliveryState.RETRYING)])
async def test_a_waiting_delivery(
    world: World, subscription: Subscription, attempts: int, state: DeliveryState
) -> None:
    sub = subscription.no
    waits = unsettled(sub, 3, NOW + 7, sequence=1, attempts=attempts, key="k", error="timeout", status=0)
    await world.record(unsettled=[waits])
    assert await world.storage.due(sub, NOW + 7, 10) == [waits]
    found = await world.storage.get_delivery(sub, 3)
    assert found == Delivery(sub, 3, 1, state, attempts, 0, NOW + 7, 0, "timeout")


async def test_each_record_replaces_what_was_there(world: World, subscription: Subscription) -> None:
    sub, storage = subscription.no, world.storage
    await world.record(unsettled=[unsettled(sub, 1)])
    await world.record(unsettled=[unsettled(sub, 1, NOW + 5, attempts=2)])
    assert await storage.waiting(sub) == (1, NOW + 5)
    await world.record(settled=[settled(sub, 1, FAILED, attempts=3)])
    assert await storage.waiting(sub) == (0, 0)
    await world.record(settled=[settled(sub, 1, attempts=4)])
    found = await storage.list_deliveries(DeliveryQuery(sub))
    assert [(each.state, each.attempts) for each in found] == [(SUCCEEDED, 4)]
    await world.record(unsettled=[unsettled(sub, 1, attempts=5)])
    found = await storage.list_deliveries(DeliveryQuery(sub))
    assert [(each.state, each.attempts) for each in found] == [(DeliveryState.RETRYING, 5)]


async def test_an_end_wins_over_a_wait_in_one_batch(world: World, subscription: Subscription) -> None:
    sub = subscription.no
    await world.record(unsettled=[unsettled(sub, 1)], settled=[settled(sub, 1)])
    found = await world.storage.get_delivery(sub, 1)
    assert found is not None
    assert found.state is SUCCEEDED
    assert await world.storage.waiting(sub) == (0, 0)


async def test_attempts_come_back_as_they_were(world: World, subscription: Subscription) -> None:
    sub = subscription.no
    attempts = [
        attempt(sub, 2, 1, status=0, error="timeout", detail="slow", response_headers=b""),
        attempt(sub, 2, 2, response_body=b"\x00body", response_truncated=True),
        attempt(sub, 3, 1),
    ]
    await world.record(attempts=attempts)
    assert await world.storage.list_attempts(sub, 2) == attempts[:2]
    assert await world.storage.get_attempt(sub, 2, 2) == attempts[1]
    assert await world.storage.get_attempt(sub, 2, 3) is None
    assert await world.storage.get_attempt(sub, 2, 1 << 60) is None
    assert await world.storage.list_attempts(sub, 9) == []


async def test_an_attempt_recorded_again_replaces_the_first(world: World, subscription: Subscription) -> None:
    sub = subscription.no
    for body in (b"first", b"", b"third"):
        again = attempt(sub, 2, 1, response_body=body, status=len(body))
        await world.record(attempts=[again])
        assert await world.storage.list_attempts(sub, 2) == [again]


async def test_the_attempt_of_an_unknown_subscription_is_refused(world: World) -> None:
    with pytest.raises(NotFound):
        await world.record(watermark=5, attempts=[attempt(77, 1)], settled=[settled(77, 1)])
    assert await world.storage.get_delivery(77, 1) is None
    assert (await world.storage.load_shard(0, world.epoch)).watermark == 0


async def test_recording_disables_active_subscriptions_only(
    world: World, tenant: Tenant, subscription: Subscription
) -> None:
    paused = await world.subscription(tenant, "paused", state=SubscriptionState.PAUSED)
    before = await world.storage.version()
    await world.record(disabled=[(subscription.no, "410"), (paused.no, "410"), (99, "410")], now=NOW + 5)
    changes = (await world.storage.read_log(0, 0, 1, before)).changes
    (disabled,) = changes.subscriptions
    assert (disabled.no, disabled.state, disabled.state_reason, disabled.state_at) == (
        subscription.no,
        SubscriptionState.DISABLED,
        "410",
        NOW + 5,
    )
    assert disabled.version == subscription.version
    assert (await world.storage.subscription_by_no(paused.no)).state is SubscriptionState.PAUSED


async def test_operational_events_join_the_log(
    world: World, tenant: Tenant, subscription: Subscription
) -> None:
    event = new_event(tenant.no, "op-1", "hookline.subscription.disabled")
    await world.record(operational=[event, event])
    found = await world.storage.find_event(tenant.no, "op-1")
    assert found is not None
    assert (found.position, await world.storage.head(0)) == (11, 11)


async def test_usage_is_counted_by_tenant_and_day(
    world: World, tenant: Tenant, subscription: Subscription
) -> None:
    other = await world.tenant("other")
    storage = world.storage
    await storage.append([new_event(other.no, "a", data=b"12345"), new_event(other.no, "a")], NOW)
    own = new_event(other.no, "b", "hookline.delivery.failed", data=b"123")
    await world.record(
        operational=[own], attempts=[attempt(subscription.no, 1, request_bytes=7)], now=NOW + 86_400_000
    )
    await world.record(attempts=[attempt(subscription.no, 2, request_bytes=5)], now=NOW + 86_400_000)
    mine = await storage.usage(tenant.no, "2025-06-15", "2025-06-16")
    assert [
        (each.day, each.events, each.event_bytes, each.attempts, each.attempt_bytes) for each in mine
    ] == [
        ("2025-06-15", 10, 70, 0, 0),
        ("2025-06-16", 0, 0, 2, 12),
    ]
    (theirs,) = await storage.usage(other.no, "2025-06-15", "2025-06-15")
    assert (theirs.tenant_no, theirs.events, theirs.event_bytes) == (other.no, 1, 5)
    assert await storage.usage(other.no, "2025-06-16", "2025-06-17") == []


# --- due ---------------------------------------------------------------------------------------------


async def test_due_goes_by_time_then_position(
    world: World, tenant: Tenant, subscription: Subscription
) -> None:
    sub = subscription.no
    other = (await world.subscription(tenant, "other")).no
    plan = {1: 30, 2: 10, 3: 20, 4: 10, 5: 99}
    await world.record(unsettled=[unsettled(sub, at, NOW + due) for at, due in plan.items()])
    await world.record(unsettled=[unsettled(other, 6, NOW)])
    storage = world.storage
    assert [each.position for each in await storage.due(sub, NOW + 30, 10)] == [2, 4, 3, 1]
    assert [each.position for each in await storage.due(sub, NOW + 30, 2)] == [2, 4]
    assert await storage.due(sub, NOW + 9, 10) == []
    assert await storage.waiting(sub) == (5, NOW + 10)
    assert await storage.waiting(99) == (0, 0)


# --- resend ------------------------------------------------------------------------------------------


async def test_resending_starts_the_schedule_anew(world: World, subscription: Subscription) -> None:
    sub, storage = subscription.no, world.storage
    await world.record(
        settled=[settled(sub, 1, FAILED, sequence=1, attempts=9), settled(sub, 2)],
        unsettled=[unsettled(sub, 3, NOW + 900, attempts=4, runs=4, key="k")],
    )
    before = await storage.version()
    assert await storage.resend(sub, [1, 3, 3, 8], NOW + 50) == 2
    due = await storage.due(sub, NOW + 50, 10)
    assert [
        (each.position, each.sequence, each.attempts, each.runs, each.first_at, each.key) for each in due
    ] == [
        (1, 1, 9, 0, 0, "k"),
        (3, 3, 4, 0, 0, "k"),
    ]
    page = await storage.read_log(0, 0, 1, before)
    assert list(page.changes.requeued) == [sub]
    assert not page.changes.subscriptions
    assert not (await storage.read_log(0, 0, 1, page.changes.version)).changes.requeued


async def test_a_waiting_delivery_that_is_due_keeps_its_turn(
    world: World, subscription: Subscription
) -> None:
    sub = subscription.no
    await world.record(unsettled=[unsettled(sub, 1, NOW)])
    await world.storage.resend(sub, [1], NOW + 50)
    assert [each.due_at for each in await world.storage.due(sub, NOW + 50, 10)] == [NOW]


async def test_resending_nothing_changes_nothing(world: World, subscription: Subscription) -> None:
    before = await world.storage.version()
    assert await world.storage.resend(subscription.no, [1, 2], NOW) == 0
    assert await world.storage.version() == before
    with pytest.raises(NotFound):
        await world.storage.resend(99, [1], NOW)


async def test_a_delivery_whose_event_is_gone_cannot_be_resent(
    world: World, tenant: Tenant, subscription: Subscription
) -> None:
    sub = subscription.no
    await world.record(settled=[settled(sub, at, FAILED) for at in (1, 2, 3)])
    await world.storage.remove_events(tenant.no, NOW + 1000, 2, 10)
    assert await world.storage.count_settled(sub, 0, 10, (FAILED,)) == 1
    assert await world.storage.resend(sub, [1, 2, 3], NOW) == 1
    assert [each.position for each in await world.storage.due(sub, NOW, 10)] == [3]


async def test_dropping_settles_all_that_waits(
    world: World, tenant: Tenant, subscription: Subscription
) -> None:
    sub, storage = subscription.no, world.storage
    other = (await world.subscription(tenant, "other")).no
    await world.record(unsettled=[unsettled(sub, 1, attempts=3), unsettled(sub, 2), unsettled(other, 1)])
    assert await storage.drop_unsettled(sub, NOW + 9, EXPIRED) == 2
    assert await storage.drop_unsettled(sub, NOW + 9, EXPIRED) == 0
    assert await storage.waiting(sub) == (0, 0)
    assert await storage.get_delivery(sub, 1) == Delivery(sub, 1, 1, EXPIRED, 3, NOW + 9, 0, 500, "")
    assert (await storage.waiting(other))[0] == 1


# --- replay ------------------------------------------------------------------------------------------


async def _settle_all(world: World, sub: int) -> None:
    """1 … 10: failed where odd, expired at 4, else succeeded."""
    states = {4: EXPIRED} | dict.fromkeys(range(1, 11, 2), FAILED)
    await world.record(settled=[settled(sub, at, states.get(at, SUCCEEDED)) for at in range(1, 11)])


async def test_counting_what_a_replay_would_send(world: World, subscription: Subscription) -> None:
    sub, count = subscription.no, world.storage.count_settled
    await _settle_all(world, sub)
    assert await count(sub, 0, 10, (FAILED,)) == 5
    assert await count(sub, 1, 9, (FAILED,)) == 4
    assert await count(sub, 1, 5, (FAILED, EXPIRED)) == 3
    assert await count(sub, 0, 10, (SUCCEEDED,)) == 4
    assert await count(sub, 0, 100, ()) == await count(sub, 0, 100, (SUCCEEDED, EXPIRED, FAILED)) == 10
    assert await count(sub, 0, 10, (DeliveryState.PENDING,)) == 0


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ((FAILED,), [3, 5, 7, 9]),
        ((EXPIRED, FAILED), [3, 4, 5, 7, 9]),
        ((SUCCEEDED,), [2, 6, 8]),
        ((), [2, 3, 4, 5, 6, 7, 8, 9]),
    ],
)
async def test_a_replay_moves_its_range_step_by_step(
    world: World, subscription: Subscription, states: tuple[DeliveryState, ...], expected: list[int]
) -> None:
    sub, storage = subscription.no, world.storage
    await _settle_all(world, sub)
    await storage.create_replay(replay(sub, after=1, until=9, states=states))
    job = await storage.step_replay("rpl_1", 2, NOW, 0.5, NOW + 1)
    assert (job.state, job.done, job.progress, job.updated_at) == (
        ReplayState.RUNNING,
        2,
        expected[1],
        NOW + 1,
    )
    assert [(each.position, each.due_at) for each in await storage.due(sub, NOW + 500, 10)] == [
        (expected[0], NOW),
        (expected[1], NOW + 500),
    ]
    while job.state is ReplayState.RUNNING:
        job = await storage.step_replay("rpl_1", 2, NOW + 1000, 0, NOW + 2)
    assert (job.state, job.done, job.progress) == (ReplayState.DONE, len(expected), 9)
    due = await storage.due(sub, NOW + 1000, 100)
    assert sorted(each.position for each in due) == expected
    assert all((each.runs, each.key) == (0, "k") for each in due)
    assert await storage.step_replay("rpl_1", 2, NOW, 0, NOW + 9) == job == await storage.get_replay("rpl_1")


async def test_a_replay_ends_with_its_last_delivery(world: World, subscription: Subscription) -> None:
    await _settle_all(world, subscription.no)
    await world.storage.create_replay(replay(subscription.no, until=3))
    job = await world.storage.step_replay("rpl_1", 2, NOW, 0, NOW)
    assert (job.state, job.done) == (ReplayState.DONE, 2)


async def test_a_replay_of_nothing_is_done_at_once(world: World, subscription: Subscription) -> None:
    await world.storage.create_replay(replay(subscription.no))
    job = await world.storage.step_replay("rpl_1", 2, NOW, 0, NOW)
    assert (job.state, job.done) == (ReplayState.DONE, 0)


async def test_a_replay_goes_on_where_a_dead_process_left_it(storage_factory: Backend) -> None:
    first = World(await storage_factory.connect())
    tenant = await first.tenant()
    sub = (await first.subscription(tenant)).no
    await first.publish(tenant, 10)
    await _settle_all(first, sub)
    await first.storage.create_replay(replay(sub, until=10))
    await first.storage.step_replay("rpl_1", 2, NOW, 0, NOW)
    # what was moved is settled again before the next process takes over: it is not sent twice
    await first.record(settled=[settled(sub, 1, FAILED), settled(sub, 3, FAILED)])
    second = await storage_factory.connect()
    job = await second.step_replay("rpl_1", 10, NOW, 0, NOW)
    assert (job.state, job.done) == (ReplayState.DONE, 5)
    assert [each.position for each in await second.due(sub, NOW, 10)] == [5, 7, 9]


async def test_a_cancelled_replay_stops(world: World, subscription: Subscription) -> None:
    storage = world.storage
    await _settle_all(world, subscription.no)
    before = await storage.version()
    await storage.create_replay(replay(subscription.no))
    started = (await storage.read_log(0, 0, 1, before)).changes
    assert list(started.requeued) == [subscription.no]
    await storage.step_replay("rpl_1", 1, NOW, 0, NOW)
    job = await storage.cancel_replay("rpl_1", NOW + 5)
    assert (job.state, job.done, job.updated_at) == (ReplayState.CANCELLED, 1, NOW + 5)
    stopped = (await storage.read_log(0, 0, 1, started.version)).changes
    assert list(stopped.requeued) == [subscription.no]
    assert await storage.step_replay("rpl_1", 5, NOW, 0, NOW + 6) == job
    assert await storage.cancel_replay("rpl_1", NOW + 7) == job
    assert (await storage.waiting(subscription.no))[0] == 1


async def test_replays_are_listed_newest_first(
    world: World, tenant: Tenant, subscription: Subscription
) -> None:
    storage = world.storage
    other = await world.subscription(tenant, "other")
    jobs = [replay(subscription.no, f"rpl_{number}", rate=2.5) for number in range(4)]
    for job in jobs:
        await storage.create_replay(job)
    await storage.create_replay(replay(other.no, "rpl_other"))
    assert await storage.list_replays(subscription.no, 3) == [jobs[3], jobs[2], jobs[1]]
    assert await storage.get_replay("rpl_0") == jobs[0]


async def test_replays_that_are_not_there(world: World, subscription: Subscription) -> None:
    storage = world.storage
    await storage.create_replay(replay(subscription.no))
    with pytest.raises(Conflict):
        await storage.create_replay(replay(subscription.no))
    with pytest.raises(NotFound):
        await storage.create_replay(replay(99, "rpl_2"))
    for wrong in (
        storage.get_replay("x"),
        storage.cancel_replay("x", NOW),
        storage.step_replay("x", 1, 0, 0, 0),
    ):
        with pytest.raises(NotFound):
            await wrong


async def test_lanes_keep_what_was_recorded_last(world: World, subscription: Subscription) -> None:
    sub = subscription.no
    assert await world.storage.lane_state(sub) is None
    await world.record(lanes=[lane(sub, 3, ahead=True)])
    await world.record(watermark=9, lanes=[lane(sub, 5, sequence=4)])
    assert await world.storage.lane_state(sub) == lane(sub, 5, sequence=4)
    await world.record(watermark=9, lanes=[lane(sub, 5, sequence=4, live=True)])
    assert await world.storage.lane_state(sub) == lane(sub, 9, sequence=4, live=True)
