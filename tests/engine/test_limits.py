"""How fast a subscription may go, and that nobody goes at the cost of the others."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hookline.core.lane import BreakerState
from hookline.core.model import Subscription
from hookline.engine.dispatch.lane import QUEUE_LIMIT
from tests.engine.endpoints import Endpoint, Reply
from tests.engine.stage import Stage

ONE_RETRY = {"kind": "list", "delays": [1000.0], "jitter": 0.0}


def most_within(endpoint: Endpoint, seconds: float) -> int:
    """The most requests that arrived in any stretch of so many seconds."""
    times = [arrival.at for arrival in endpoint.arrivals]
    return max(sum(start <= time < start + seconds for time in times) for start in times)


def window(stage: Stage, subscription: Subscription) -> int:
    return stage.worker.lanes[subscription.no].window.size


# --- rate limit ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("burst", "at_once"), [(1, 1), (0, 10), (25, 25)])
async def test_a_rate_limit_holds_over_every_stretch_of_time(stage: Stage, burst: int, at_once: int):
    limit = {"count": 10, "seconds": 1, "burst": burst}
    subscription, endpoint = await stage.subscribe(rate_limit=limit)
    await stage.publish_many(100)
    await stage.settled(subscription, 100)
    assert most_within(endpoint, 0.05) <= at_once
    for seconds in (1.0, 3.0, 5.0):
        assert most_within(endpoint, seconds) <= at_once + 10 * seconds
    length = endpoint.arrivals[-1].at - endpoint.arrivals[0].at
    assert length == pytest.approx((100 - at_once) / 10, rel=0.1)


async def test_retries_count_against_the_rate_limit_too(stage: Stage):
    limit = {"count": 2, "seconds": 1, "burst": 1}
    subscription, endpoint = await stage.subscribe(
        rate_limit=limit, retry={"kind": "list", "delays": [0, 0, 0], "jitter": 0}
    )
    endpoint.always(500)
    await stage.publish_many(3)
    await stage.settled(subscription, 3)
    assert len(endpoint.arrivals) == 12
    assert min(endpoint.gaps) >= 0.499


async def test_a_rate_limit_less_than_one_a_minute_is_kept(stage: Stage):
    subscription, endpoint = await stage.subscribe(rate_limit={"count": 1, "seconds": 90})
    await stage.publish_many(3)
    await stage.settled(subscription, 3)
    assert endpoint.gaps == pytest.approx([90, 90], abs=0.1)


# --- the window ------------------------------------------------------------------------------------------


async def test_a_healthy_endpoint_gets_more_and_more_at_once_up_to_its_limit(stage: Stage):
    subscription, endpoint = await stage.subscribe(max_in_flight=40)
    endpoint.always(Reply(after=0.2))
    await stage.publish_many(500)
    await stage.settled(subscription, 100)
    assert endpoint.most_in_flight > 8
    await stage.settled(subscription, 500)
    assert endpoint.most_in_flight == 40


async def test_failures_halve_the_window_and_successes_widen_it_slowly_again(stage: Stage):
    subscription, endpoint = await stage.subscribe(max_in_flight=32, retry=ONE_RETRY)
    await stage.publish_many(200)
    await stage.settled(subscription, 200)
    assert window(stage, subscription) == 32
    endpoint.answers(500)
    await stage.publish()
    await stage.pass_time(1)
    assert window(stage, subscription) == 16
    await stage.publish_many(40)
    await stage.settled(subscription, 240)
    assert 17 <= window(stage, subscription) <= 19


async def test_max_in_flight_is_never_passed(stage: Stage):
    subscription, endpoint = await stage.subscribe(max_in_flight=3)
    endpoint.always(Reply(after=0.1))
    await stage.publish_many(60)
    await stage.settled(subscription, 60)
    assert endpoint.most_in_flight == 3


# --- the worker ------------------------------------------------------------------------------------------


async def test_the_worker_has_a_bound_for_all_lanes_together():
    async with Stage(capacity=10) as stage:
        made = [await stage.subscribe(f"h{number}.example") for number in range(5)]
        for _, endpoint in made:
            endpoint.always(Reply(after=1))
        await stage.publish_many(20)
        most = 0
        while not all([await done(stage, subscription, 20) for subscription, _ in made]):
            most = max(most, sum(endpoint.in_flight for _, endpoint in made))
            await asyncio.sleep(0.1)
        assert 8 <= most <= 10


async def done(stage: Stage, subscription: Subscription, count: int) -> bool:
    return len(await stage.deliveries(subscription)) >= count


async def test_a_flooding_lane_does_not_starve_another():
    async with Stage(capacity=16) as stage:
        flooded, flood = await stage.subscribe("flood.example", events=["stock:*"], max_in_flight=1000)
        flood.always(Reply(after=0.5))
        _, quiet = await stage.subscribe("quiet.example", events=["order:*"])
        await stage.publish_many(500, "stock:changed")
        await stage.pass_time(2)
        for _ in range(20):
            published = stage.loop.time()
            await stage.publish("order:created")
            await stage.until(lambda: not quiet.in_flight and bool(quiet.arrivals), within=1)
            assert quiet.arrivals[-1].at - published < 0.1
            quiet.arrivals.clear()
        assert not await done(stage, flooded, 500)


async def test_endpoints_that_never_answer_leave_room_for_the_others():
    async with Stage(capacity=32) as stage:
        for number in range(3):
            _, hung = await stage.subscribe(f"hung{number}.example", timeout=60)
            hung.hold()
        _, healthy = await stage.subscribe("healthy.example")
        for _ in range(100):
            published = stage.loop.time()
            await stage.publish()
            await stage.until(lambda: bool(healthy.arrivals), within=1)
            assert healthy.arrivals[-1].at - published < 0.1
            healthy.arrivals.clear()


async def test_two_busy_lanes_share_the_worker_evenly():
    async with Stage(capacity=8) as stage:
        made = [await stage.subscribe(f"h{number}.example") for number in range(2)]
        for _, endpoint in made:
            endpoint.always(Reply(after=0.1))
        await stage.publish_many(300)
        await stage.pass_time(2)
        first, second = (len(endpoint.arrivals) for _, endpoint in made)
        assert min(first, second) >= 30
        assert abs(first - second) <= 8


async def test_a_lane_that_falls_behind_keeps_a_bounded_number_of_events_in_memory(stage: Stage):
    subscription, endpoint = await stage.subscribe(max_in_flight=4)
    endpoint.always(Reply(after=0.02))
    for _ in range(15):
        await stage.publish_many(200)
        await stage.pass_time(0.1)
        assert stage.worker.lanes[subscription.no].queued <= QUEUE_LIMIT
    await stage.settled(subscription, 3000)
    assert sorted(endpoint.sequences) == list(range(1, 3001))


# --- the breaker -----------------------------------------------------------------------------------------

BREAKER: dict[str, Any] = {"failures": 5, "cooldown": 10, "max_cooldown": 40}


async def broken(stage: Stage, events: int = 20) -> tuple[Subscription, Endpoint]:
    """A subscription whose breaker has just opened."""
    subscription, endpoint = await stage.subscribe(
        breaker=BREAKER, retry={"kind": "list", "delays": [1] * 100}
    )
    endpoint.always(500)
    await stage.publish_many(events)
    await stage.until(lambda: breaker(stage, subscription) is BreakerState.OPEN)
    await stage.pass_time(1)
    return subscription, endpoint


def breaker(stage: Stage, subscription: Subscription) -> BreakerState:
    return stage.worker.lanes[subscription.no].breaker.state


async def test_failures_in_a_row_open_the_breaker_and_nothing_is_sent(stage: Stage):
    _, endpoint = await broken(stage)
    count = len(endpoint.arrivals)
    assert 5 <= count <= 12  # those in flight when it opened come on top
    await stage.publish_many(50)
    await stage.pass_time(8)
    assert len(endpoint.arrivals) == count


async def test_after_the_cooldown_one_request_probes_and_the_cooldown_doubles(stage: Stage):
    _, endpoint = await broken(stage)
    endpoint.arrivals.clear()
    await stage.pass_time(140)
    assert endpoint.gaps == pytest.approx([20, 40, 40], abs=0.2)


async def test_one_probe_is_out_at_a_time(stage: Stage):
    _, endpoint = await broken(stage)
    endpoint.hold()
    endpoint.arrivals.clear()
    await stage.pass_time(19)
    assert len(endpoint.arrivals) == 1


async def test_a_probe_that_succeeds_closes_the_breaker(stage: Stage):
    subscription, endpoint = await broken(stage)
    endpoint.always(200)
    await stage.settled(subscription, 20, within=60)
    assert breaker(stage, subscription) is BreakerState.CLOSED
    assert {each.sequence for each in await stage.deliveries(subscription)} == set(range(1, 21))


async def test_a_changed_url_is_tried_at_once_although_the_breaker_was_open(stage: Stage):
    subscription, _ = await broken(stage)
    new = stage.endpoint("new.example")
    await stage.edit(subscription, url=new.url)
    await stage.settled(subscription, 20, within=5)


async def test_zero_failures_switch_the_breaker_off(stage: Stage):
    _, endpoint = await stage.subscribe(breaker={"failures": 0})
    endpoint.always(500)
    await stage.publish_many(30)
    await stage.pass_time(20)
    assert len(endpoint.arrivals) == 30 * 6


async def test_a_dead_endpoint_costs_no_reads_per_event_and_keeps_none_in_memory(stage: Stage):
    subscription, _ = await broken(stage)
    reads = []
    for events in (1, 50):
        before = stage.worker.storage.calls.copy()
        for _ in range(events):
            await stage.publish()
        await stage.pass_time(80)
        calls = stage.worker.storage.calls - before
        reads.append(calls["read_page"] + calls["due"] + calls["read_events"])
        assert stage.worker.lanes[subscription.no].queued == 0
    assert max(reads) <= 12  # two or three probes, each with what it needs


async def test_a_dead_endpoint_writes_nothing_per_event(stage: Stage):
    await broken(stage)
    for batch in stage.worker.storage.records:
        assert not batch.unsettled or len(batch.unsettled) <= 12
    stage.worker.storage.records.clear()
    await stage.publish_many(200)
    await stage.pass_time(5)
    assert sum(len(batch.lanes) for batch in stage.worker.storage.records) <= 2
