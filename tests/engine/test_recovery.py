"""What a worker leaves behind, and what the next one makes of it: nothing lost, little twice, numbers unchanged."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from hookline.core.errors import StorageUnavailable
from hookline.core.model import Subscription
from hookline.ports import Lease
from tests.engine.endpoints import Endpoint, Reply
from tests.engine.stage import LEASE, Stage


async def complete(stage: Stage, subscription: Subscription, count: int) -> None:
    """Everything is delivered and recorded, with the numbers 1, 2, 3 …"""
    done = await stage.settled(subscription, count)
    assert [each.sequence for each in done] == list(range(1, count + 1))
    assert [each.state for each in done] == ["succeeded"] * count


def twice(endpoint: Endpoint) -> set[str]:
    """The events that arrived more than once."""
    return {event_id for event_id, count in Counter(endpoint.ids).items() if count > 1}


# --- where it can die ------------------------------------------------------------------------------------


async def test_killed_before_the_record_the_attempt_is_made_again_with_the_same_number(stage: Stage):
    subscription, endpoint = await stage.subscribe()
    stage.worker.kill_at("before")
    await stage.publish()
    await stage.until(lambda: not stage.worker.storage.alive)
    await stage.start_worker()
    await complete(stage, subscription, 1)
    assert endpoint.ids == ["e1", "e1"]
    assert endpoint.sequences == [1, 1]


async def test_killed_after_the_record_nothing_is_sent_again(stage: Stage):
    subscription, endpoint = await stage.subscribe()
    stage.worker.kill_at("after")
    await stage.publish_many(3)
    await stage.until(lambda: not stage.worker.storage.alive)
    await stage.start_worker()
    await complete(stage, subscription, 3)
    await stage.pass_time(5)
    assert endpoint.sequences == [1, 2, 3]


async def test_killed_before_anything_was_sent_all_is_sent_once(stage: Stage):
    subscription, endpoint = await stage.subscribe()
    stage.worker.kill()
    await stage.publish_many(5)
    await stage.start_worker()
    await complete(stage, subscription, 5)
    assert endpoint.sequences == [1, 2, 3, 4, 5]


async def test_killed_in_flight_only_those_can_come_twice(stage: Stage):
    subscription, endpoint = await stage.subscribe(max_in_flight=4)
    endpoint.always(Reply(after=0.5))
    await stage.publish_many(40)
    await stage.until(lambda: len(endpoint.arrivals) == 20)
    await stage.pass_time(0.2)  # four are under way, what came before is recorded
    await stage.restart()
    await complete(stage, subscription, 40)
    assert twice(endpoint) == set(endpoint.ids[16:20])


async def test_outcomes_above_the_cursor_are_not_repeated(stage: Stage):
    subscription, endpoint = await stage.subscribe()
    endpoint.answers_event("e1", Reply(after=15))
    await stage.publish_many(8)
    await stage.until(lambda: len(endpoint.arrivals) == 8)
    await stage.pass_time(5)
    lane = await stage.lane(subscription)
    assert (lane.cursor, lane.ahead, lane.live) == (0, True, False)
    await stage.restart()
    await complete(stage, subscription, 8)
    assert twice(endpoint) == {"e1"}
    assert {arrival.event_id: arrival.sequence for arrival in endpoint.arrivals}["e8"] == 8


async def test_retries_are_due_when_they_were_due_before(stage: Stage):
    subscription, endpoint = await stage.subscribe(retry={"kind": "list", "delays": [100], "jitter": 0})
    endpoint.answers(500)
    await stage.publish()
    await stage.until(lambda: len(endpoint.arrivals) == 1)
    await stage.pass_time(1)
    await stage.restart()
    await complete(stage, subscription, 1)
    assert endpoint.gaps == pytest.approx([100], abs=0.2)
    assert [arrival.attempt for arrival in endpoint.arrivals] == [1, 2]


async def test_parked_keys_are_parked_again(stage: Stage):
    subscription, endpoint = await stage.subscribe(
        order="key", retry={"kind": "list", "delays": [60], "jitter": 0}
    )
    endpoint.answers_event("e1", 500)
    for key in ("a", "a", "b", "a"):
        await stage.publish(key=key)
    await stage.pass_time(2)
    await stage.restart()
    await stage.publish(key="a")
    await stage.pass_time(5)
    assert endpoint.ids == ["e1", "e3"]
    await complete(stage, subscription, 5)
    assert endpoint.ids == ["e1", "e3", "e1", "e2", "e4", "e5"]


async def test_a_delivery_that_was_parked_but_not_recorded_is_parked_by_the_next_worker(stage: Stage):
    subscription, endpoint = await stage.subscribe(
        order="key", retry={"kind": "list", "delays": [60], "jitter": 0}
    )
    endpoint.answers_event("e1", 500)
    await stage.publish(key="a")
    await stage.until(lambda: len(endpoint.arrivals) == 1)
    await stage.pass_time(1)
    stage.worker.kill_at("before", when=lambda batch: any(not row.attempts for row in batch.unsettled))
    await stage.publish(key="a")
    await stage.until(lambda: not stage.worker.storage.alive)
    await stage.start_worker()
    await complete(stage, subscription, 2)
    assert endpoint.ids == ["e1", "e1", "e2"]


async def test_operational_events_come_once_although_the_worker_died_after_recording_them(stage: Stage):
    _, endpoint = await stage.subscribe(events=["order:*"], retry={"kind": "none"})
    endpoint.always(500)
    stage.worker.kill_at("after", when=lambda batch: bool(batch.operational))
    await stage.publish()
    await stage.until(lambda: not stage.worker.storage.alive)
    await stage.start_worker()
    await stage.pass_time(5)
    assert len(await stage.operational("hookline.delivery.failed")) == 1


@pytest.mark.parametrize("order", ["none", "key", "strict"])
async def test_killed_again_and_again_under_load_nothing_is_lost_or_renumbered(stage: Stage, order: str):
    subscription, endpoint = await stage.subscribe(order=order)
    endpoint.always(Reply(after=0.05))
    for number in range(1, 200, 7):
        endpoint.answers_event(f"e{number}", 500)
    for round_number in range(8):
        for number in range(25):
            await stage.publish(key=f"k{number % 5}")
            await stage.pass_time(0.013)
        stage.worker.kill_at(
            "before" if round_number % 2 else "after", when=lambda batch: bool(batch.settled)
        )
        await stage.until(lambda: not stage.worker.storage.alive)
        await stage.start_worker()
    await complete(stage, subscription, 200)
    numbers = {(arrival.event_id, arrival.sequence) for arrival in endpoint.arrivals}
    assert numbers == {(f"e{number}", number) for number in range(1, 201)}


# --- what a restart costs --------------------------------------------------------------------------------


async def test_idle_lanes_write_nothing_and_a_restart_does_not_read_the_log_for_them(stage: Stage):
    for number in range(30):
        await stage.subscribe(f"idle{number}.example", events=["never:*"])
    busy, _ = await stage.subscribe("busy.example")
    await stage.pass_time(1)
    stage.worker.storage.records.clear()  # each lane is written once, when it is new
    for _ in range(20):
        await stage.publish_many(30)
        await stage.pass_time(0.5)
    await stage.settled(busy, 600)
    await stage.pass_time(3)
    written = {lane.subscription_no for batch in stage.worker.storage.records for lane in batch.lanes}
    assert written == {busy.no}
    successor = await stage.restart()
    await stage.pass_time(5)
    assert successor.storage.calls["read_page"] == 0
    assert successor.worker._shards[0, 0]._feeder.head == 600


async def test_a_watermark_that_moved_is_written_even_if_nothing_was_sent(stage: Stage):
    await stage.publish_many(100)
    await stage.pass_time(3)
    successor = await stage.restart()
    state = await stage.storage.load_shard(0, successor.worker._leases[0, 0].epoch)
    assert state.watermark == 100


async def test_one_slow_lane_does_not_hold_the_watermark_of_the_others(stage: Stage):
    _, slow = await stage.subscribe("slow.example", timeout=100)
    quick, _ = await stage.subscribe("quick.example")
    slow.hold()
    await stage.publish_many(50)
    await stage.settled(quick, 50)
    await stage.pass_time(6)
    assert stage.worker.storage.records[-1].watermark == 50
    slow.release()


# --- leases ----------------------------------------------------------------------------------------------


async def test_a_dead_workers_shard_is_taken_over_within_the_lease_time(stage: Stage):
    standby = await stage.start_worker()
    await stage.pass_time(30)
    assert standby.worker.owned == []
    stage.workers[0].kill()
    await stage.until(lambda: standby.worker.owned == [0], within=LEASE)


async def test_a_worker_that_stops_in_good_order_hands_over_at_once_and_sends_nothing_twice(stage: Stage):
    subscription, endpoint = await stage.subscribe()
    endpoint.always(Reply(after=0.5))
    await stage.publish_many(30)
    await stage.pass_time(0.7)
    first, second = stage.worker, await stage.start_worker()
    await first.stop()
    await stage.until(lambda: second.worker.owned == [0], within=LEASE / 3 + 0.1)
    await complete(stage, subscription, 30)
    assert twice(endpoint) == set()


async def test_a_worker_that_lost_its_lease_writes_nothing(stage: Stage):
    subscription, endpoint = await stage.subscribe()
    frozen = stage.worker
    renewals = stop_renewing(stage)
    endpoint.always(Reply(after=2))
    await stage.publish_many(3)
    await stage.pass_time(1)
    successor = await stage.start_worker()
    await stage.until(lambda: successor.worker.owned == [0], within=2 * LEASE)
    endpoint.always(Reply())
    written = len(frozen.storage.records)
    await stage.publish_many(3)
    await complete(stage, subscription, 6)
    renewals.set()
    await stage.pass_time(30)
    assert len(frozen.storage.records) == written
    assert frozen.worker.owned == []
    assert successor.worker.owned == [0]
    assert not frozen.task.done()


def stop_renewing(stage: Stage) -> asyncio.Event:
    """The worker's renewals hang until the event is set."""
    go_on = asyncio.Event()

    async def hang() -> None:
        await go_on.wait()

    for call in ("renew", "lease"):
        stage.worker.storage.before[call] = lambda *_: hang()
    return go_on


async def test_a_fenced_worker_stands_by_and_takes_the_shard_back_later(stage: Stage):
    subscription, _ = await stage.subscribe()
    renewals = stop_renewing(stage)
    first, second = stage.worker, await stage.start_worker()
    await stage.until(lambda: second.worker.owned == [0], within=2 * LEASE)
    renewals.set()
    await stage.pass_time(20)
    assert first.worker.owned == []
    second.kill()
    await stage.until(lambda: first.worker.owned == [0], within=2 * LEASE)
    await stage.publish_many(3)
    await complete(stage, subscription, 3)


# --- a storage that fails --------------------------------------------------------------------------------


async def test_a_storage_that_is_down_for_a_while_loses_and_repeats_nothing(stage: Stage):
    subscription, endpoint = await stage.subscribe()
    endpoint.always(Reply(after=0.2))
    await stage.publish_many(20)
    await stage.pass_time(0.3)
    stage.worker.storage.down = True
    await stage.pass_time(5)
    await stage.publish_many(20)
    stage.worker.storage.down = False
    await complete(stage, subscription, 40)
    assert twice(endpoint) == set()


async def test_while_nothing_can_be_recorded_the_requests_stop_at_a_bound():
    async with Stage(capacity=10) as stage:
        subscription, endpoint = await stage.subscribe()
        await stage.publish()
        await stage.settled(subscription, 1)
        stage.worker.storage.before["record"] = fail
        await stage.publish_many(500)
        await stage.pass_time(8)
        assert len(endpoint.arrivals) <= 1 + 2 * 10 + 10
        del stage.worker.storage.before["record"]
        await complete(stage, subscription, 501)
        assert twice(endpoint) == set()


def fail(*_: object) -> None:
    raise StorageUnavailable


async def test_a_lease_that_cannot_be_renewed_for_a_moment_is_not_lost(stage: Stage):
    lease = stage.worker.worker._leases[0, 0]
    stage.worker.storage.down = True
    await stage.pass_time(LEASE / 2)
    stage.worker.storage.down = False
    await stage.pass_time(LEASE)
    renewed: Lease = stage.worker.worker._leases[0, 0]
    assert renewed.epoch == lease.epoch
    assert renewed.expires_at > lease.expires_at
