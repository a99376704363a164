"""Pausing, resuming where it stopped or from now on, and starting in the past."""

from __future__ import annotations

import pytest

from hookline.core.errors import Conflict
from hookline.core.model import SubscriptionState
from hookline.core.times import rfc3339
from tests.engine.endpoints import Reply
from tests.engine.stage import Stage

# --- pause and resume ------------------------------------------------------------------------------------


async def test_a_pause_stops_the_requests_and_a_resume_goes_on_where_it_stopped(stage: Stage):
    subscription, endpoint = await stage.subscribe()
    await stage.publish_many(5)
    await stage.settled(subscription, 5)
    await stage.pause(subscription)
    await stage.publish_many(5)
    await stage.pass_time(60)
    assert len(endpoint.arrivals) == 5
    await stage.resume(subscription)
    await stage.settled(subscription, 10)
    assert endpoint.sequences == list(range(1, 11))


async def test_what_is_in_flight_at_the_pause_comes_to_its_end(stage: Stage):
    subscription, endpoint = await stage.subscribe()
    endpoint.always(Reply(after=2))
    await stage.publish_many(3)
    await stage.until(lambda: endpoint.in_flight == 3)
    await stage.pause(subscription)
    await stage.publish()
    await stage.settled(subscription, 3)
    await stage.pass_time(10)
    assert len(endpoint.arrivals) == 3


async def test_retries_wait_while_it_is_paused(stage: Stage):
    subscription, endpoint = await stage.subscribe()
    endpoint.answers(500)
    await stage.publish()
    await stage.until(lambda: len(endpoint.arrivals) == 1)
    await stage.pause(subscription)
    await stage.pass_time(60)
    assert len(endpoint.arrivals) == 1
    await stage.resume(subscription)
    await stage.settled(subscription, 1)


async def test_pause_and_resume_again_and_again_under_load_lose_and_double_nothing(stage: Stage):
    subscription, endpoint = await stage.subscribe()
    endpoint.always(Reply(after=0.3))
    for number in range(60):
        await stage.publish_many(5)
        await stage.pass_time(0.1)
        await (stage.resume if number % 4 == 3 else stage.pause)(subscription)
    await stage.resume(subscription)
    await stage.settled(subscription, 300)
    assert sorted(endpoint.sequences) == list(range(1, 301))
    assert len(set(endpoint.ids)) == 300


async def test_a_subscription_made_disabled_starts_with_what_came_meanwhile(stage: Stage):
    subscription, endpoint = await stage.subscribe(enabled=False)
    assert subscription.state is SubscriptionState.PAUSED
    await stage.publish_many(3)
    await stage.resume(subscription)
    await stage.settled(subscription, 3)
    assert endpoint.sequences == [1, 2, 3]


# --- skip to now -----------------------------------------------------------------------------------------


async def test_a_resume_from_now_passes_over_what_came_meanwhile_without_a_gap(stage: Stage):
    subscription, endpoint = await stage.subscribe()
    await stage.publish_many(3)
    await stage.settled(subscription, 3)
    await stage.pause(subscription)
    await stage.publish_many(10)
    await stage.resume(subscription, skip=True)
    await stage.publish_many(2)
    await stage.settled(subscription, 5)
    assert endpoint.ids == ["e1", "e2", "e3", "e14", "e15"]
    assert endpoint.sequences == [1, 2, 3, 4, 5]


async def test_a_resume_from_now_ends_what_waited_as_expired(stage: Stage):
    subscription, endpoint = await stage.subscribe(retry={"kind": "list", "delays": [100], "jitter": 0})
    endpoint.answers(500)
    await stage.publish_many(2)
    await stage.settled(subscription, 1)
    await stage.pause(subscription)
    await stage.resume(subscription, skip=True)
    await stage.publish()
    await stage.settled(subscription, 3)
    await stage.pass_time(200)
    assert await stage.states(subscription) == ["expired", "succeeded", "succeeded"]
    assert endpoint.ids == ["e1", "e2", "e3"]


async def test_sequences_stay_gapless_over_skips_and_restarts(stage: Stage):
    subscription, endpoint = await stage.subscribe()
    for _ in range(4):
        await stage.publish_many(3)
        await stage.pass_time(1)
        await stage.pause(subscription)
        await stage.publish_many(5)
        await stage.restart()
        await stage.resume(subscription, skip=True)
        await stage.pass_time(1)
    assert endpoint.sequences == list(range(1, 13))
    assert [each.sequence for each in await stage.deliveries(subscription)] == list(range(1, 13))


@pytest.mark.parametrize("order", ["none", "key", "strict"])
async def test_a_skip_while_requests_are_in_flight_keeps_their_numbers(stage: Stage, order: str):
    subscription, endpoint = await stage.subscribe(order=order)
    endpoint.always(Reply(after=3))
    await stage.publish_many(4, key="k")
    await stage.until(lambda: endpoint.in_flight > 0)
    flying = endpoint.in_flight
    await stage.pause(subscription)
    await stage.publish_many(4, key="k")
    await stage.resume(subscription, skip=True)
    last = await stage.publish(key="k")
    await stage.settled(subscription, flying + 1)
    assert endpoint.ids[-1] == last
    assert endpoint.sequences == list(range(1, flying + 2))


async def test_a_skip_keeps_the_numbers_of_what_is_recorded_above_a_slow_request(stage: Stage):
    subscription, endpoint = await stage.subscribe()
    endpoint.answers_event("e1", Reply(after=15))
    await stage.publish_many(4)
    await stage.settled(subscription, 3)
    await stage.pause(subscription)
    stage.worker.kill()
    await stage.publish_many(3)
    await stage.resume(subscription, skip=True)
    await stage.publish()
    await stage.start_worker()
    done = await stage.settled(subscription, 5)
    assert [(each.position, each.sequence) for each in done] == [(1, 1), (2, 2), (3, 3), (4, 4), (8, 5)]
    assert set(endpoint.ids) == {"e1", "e2", "e3", "e4", "e8"}


async def test_a_crash_right_after_a_skip_renumbers_nothing(stage: Stage):
    subscription, endpoint = await stage.subscribe()
    endpoint.answers_event("e1", Reply(after=15))
    await stage.publish()
    await stage.until(lambda: endpoint.in_flight == 1)
    await stage.pause(subscription)
    await stage.publish()
    await stage.resume(subscription, skip=True)
    await stage.publish_many(2)
    await stage.pass_time(3)
    await stage.restart()
    await stage.pass_time(60)
    numbers = {(arrival.event_id, arrival.sequence) for arrival in endpoint.arrivals}
    assert len(numbers) == len(set(endpoint.ids))
    done = await stage.deliveries(subscription)
    assert [each.sequence for each in done] == list(range(1, len(done) + 1))
    assert {"e3", "e4"} <= set(endpoint.ids)


async def test_the_story_of_a_skipped_event_says_so(stage: Stage):
    subscription, _ = await stage.subscribe()
    await stage.pause(subscription)
    event_id = await stage.publish()
    await stage.resume(subscription, skip=True)
    event = await stage.reader.event(stage.shop, event_id)
    stories, _ = await stage.reader.stories(stage.shop, event, 0, 10)
    assert stories[0].outcome == "skipped"


async def test_a_running_subscription_cannot_skip(stage: Stage):
    subscription, _ = await stage.subscribe()
    with pytest.raises(Conflict):
        await stage.resume(subscription, skip=True)


# --- backfill --------------------------------------------------------------------------------------------


async def test_a_backfill_from_the_beginning_gets_all_that_is_in_the_log(stage: Stage):
    await stage.publish_many(700)
    subscription, endpoint = await stage.subscribe(start="beginning")
    await stage.publish_many(3)
    await stage.settled(subscription, 703)
    assert sorted(endpoint.sequences) == list(range(1, 704))
    assert {arrival.event_id: arrival.sequence for arrival in endpoint.arrivals} == {
        f"e{number}": number for number in range(1, 704)
    }


async def test_a_backfill_from_a_time_gets_what_was_received_from_then_on(stage: Stage):
    await stage.publish_many(3)
    await stage.pass_time(100)
    moment = rfc3339(stage.clock.now())
    await stage.publish_many(3)
    await stage.pass_time(100)
    subscription, endpoint = await stage.subscribe(start=moment)
    await stage.publish()
    await stage.settled(subscription, 4)
    assert endpoint.ids == ["e4", "e5", "e6", "e7"]
    assert endpoint.sequences == [1, 2, 3, 4]


async def test_a_backfill_matches_types_and_filter(stage: Stage):
    for number in range(10):
        await stage.publish(("order:created", "stock:changed")[number % 2], data={"n": number})
    _, endpoint = await stage.subscribe(start="beginning", events=["order:*"], filter="data.n >= 4")
    await stage.until(lambda: len(endpoint.arrivals) == 3)
    assert [arrival.body["data"]["n"] for arrival in endpoint.arrivals] == [4, 6, 8]
    assert endpoint.sequences == [1, 2, 3]


async def test_a_backfill_does_not_delay_the_others(stage: Stage):
    _, live = await stage.subscribe("live.example")
    await stage.publish_many(1000)
    await stage.until(lambda: len(live.arrivals) == 1000)
    _, slow = await stage.subscribe("slow.example", start="beginning")
    slow.always(Reply(after=1))
    await stage.pass_time(1)
    published = stage.loop.time()
    await stage.publish()
    await stage.until(lambda: len(live.arrivals) == 1001)
    assert live.arrivals[-1].at - published < 0.1


async def test_a_backfill_in_strict_order_is_in_order(stage: Stage):
    await stage.publish_many(50)
    subscription, endpoint = await stage.subscribe(start="beginning", order="strict")
    await stage.publish_many(5)
    await stage.settled(subscription, 55)
    assert endpoint.sequences == list(range(1, 56))


async def test_a_backfill_goes_on_after_a_restart(stage: Stage):
    await stage.publish_many(400)
    subscription, endpoint = await stage.subscribe(start="beginning", max_in_flight=8)
    endpoint.always(Reply(after=0.2))
    await stage.settled(subscription, 100)
    await stage.restart()
    await stage.settled(subscription, 400)
    assert set(endpoint.sequences) == set(range(1, 401))
    assert len(endpoint.arrivals) <= 400 + 16
