"""Order among the deliveries of a subscription: none, by key, strict — also across restarts and resends."""

from __future__ import annotations

import pytest

from tests.engine.endpoints import Reply
from tests.engine.stage import Stage

ORDERED = ("key", "strict")


# --- none ------------------------------------------------------------------------------------------------


async def test_without_order_a_failing_delivery_holds_nobody_up(stage: Stage):
    subscription, endpoint = await stage.subscribe(order="none")
    endpoint.answers_event("e1", 500)
    await stage.publish_many(5, key="k")
    await stage.settled(subscription, 5)
    assert endpoint.ids[:5] == ["e1", "e2", "e3", "e4", "e5"]
    assert endpoint.ids[5:] == ["e1"]


async def test_without_order_requests_run_side_by_side(stage: Stage):
    subscription, endpoint = await stage.subscribe(order="none")
    endpoint.always(Reply(after=1))
    await stage.publish_many(8)
    await stage.settled(subscription, 8)
    assert endpoint.most_in_flight == 8


# --- by key ----------------------------------------------------------------------------------------------


async def test_a_blocked_key_parks_its_own_and_all_others_go_on(stage: Stage):
    subscription, endpoint = await stage.subscribe(order="key", retry={"kind": "list", "delays": [60, 60]})
    endpoint.answers_event("e1", 500, 500)
    await stage.publish(key="a")
    await stage.publish(key="a")
    await stage.publish(key="b")
    await stage.publish()
    await stage.publish(key="a")
    await stage.until(lambda: len(endpoint.arrivals) >= 3)
    await stage.pass_time(10)
    assert sorted(endpoint.ids) == ["e1", "e3", "e4"]
    assert await stage.states(subscription) == ["retrying", "pending", "succeeded", "succeeded", "pending"]
    await stage.settled(subscription, 5)
    assert endpoint.ids[3:] == ["e1", "e1", "e2", "e5"]


async def test_a_blocked_key_does_not_hold_the_cursor(stage: Stage):
    subscription, endpoint = await stage.subscribe(order="key", retry={"kind": "list", "delays": [600]})
    endpoint.answers_event("e1", 500)
    await stage.publish_many(10, key="a")
    await stage.pass_time(5)
    lane = await stage.lane(subscription)
    assert (lane.cursor, lane.sequence) == (10, 10)


async def test_one_request_of_a_key_is_in_flight_and_other_keys_beside_it(stage: Stage):
    subscription, endpoint = await stage.subscribe(order="key")
    endpoint.always(Reply(after=1))
    for key in ("a", "a", "b", "b", "c"):
        await stage.publish(key=key)
    await stage.publish_many(2)
    await stage.pass_time(0.5)
    assert endpoint.ids == ["e1", "e3", "e5", "e6", "e7"]
    await stage.settled(subscription, 7)
    assert sorted(endpoint.ids[5:]) == ["e2", "e4"]  # keys owe each other no order


async def test_a_delivery_that_fails_for_good_frees_its_key(stage: Stage):
    subscription, endpoint = await stage.subscribe(
        order="key", retry={"kind": "list", "delays": [1], "jitter": 0}
    )
    endpoint.answers_event("e1", 500, 500)
    await stage.publish_many(3, key="a")
    await stage.settled(subscription, 3)
    assert endpoint.ids == ["e1", "e1", "e2", "e3"]
    assert await stage.states(subscription) == ["failed", "succeeded", "succeeded"]


# --- strict ----------------------------------------------------------------------------------------------


async def test_strict_order_stops_behind_a_failing_delivery(stage: Stage):
    subscription, endpoint = await stage.subscribe(order="strict", retry={"kind": "list", "delays": [60]})
    endpoint.answers_event("e2", 500)
    await stage.publish_many(4)
    await stage.until(lambda: len(endpoint.arrivals) == 2)
    await stage.pass_time(20)
    assert endpoint.ids == ["e1", "e2"]
    await stage.settled(subscription, 4)
    assert endpoint.ids == ["e1", "e2", "e2", "e3", "e4"]


async def test_strict_order_has_one_request_in_flight(stage: Stage):
    subscription, endpoint = await stage.subscribe(order="strict", max_in_flight=64)
    endpoint.always(Reply(after=0.5))
    await stage.publish_many(20)
    await stage.settled(subscription, 20)
    assert endpoint.most_in_flight == 1
    assert endpoint.sequences == list(range(1, 21))


async def test_strict_order_goes_on_behind_a_delivery_that_failed_for_good(stage: Stage):
    subscription, endpoint = await stage.subscribe(order="strict", retry={"kind": "none"})
    endpoint.answers_event("e1", 500)
    await stage.publish_many(2)
    await stage.settled(subscription, 2)
    assert endpoint.ids == ["e1", "e2"]


# --- what order survives ---------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERED)
async def test_order_is_kept_when_the_worker_is_restarted(stage: Stage, order: str):
    subscription, endpoint = await stage.subscribe(
        order=order, retry={"kind": "list", "delays": [30, 30, 30]}
    )
    endpoint.answers_event("e2", 500, 500, 500)
    await stage.publish_many(3, key="a")
    await stage.until(lambda: endpoint.ids.count("e2") == 1)
    await stage.pass_time(2)
    await stage.restart()
    await stage.publish_many(2, key="a")
    await stage.until(lambda: endpoint.ids.count("e2") == 2)
    await stage.restart()
    await stage.settled(subscription, 5)
    assert endpoint.ids == ["e1", "e2", "e2", "e2", "e2", "e3", "e4", "e5"]
    assert [each.sequence for each in await stage.deliveries(subscription)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("order", ORDERED)
async def test_order_is_kept_when_the_worker_dies_with_a_request_in_flight(stage: Stage, order: str):
    subscription, endpoint = await stage.subscribe(order=order)
    endpoint.always(Reply(after=1))
    await stage.publish_many(4, key="a")
    await stage.until(lambda: endpoint.ids == ["e1", "e2"])
    await stage.pass_time(0.1)
    await stage.restart()
    await stage.settled(subscription, 4)
    assert endpoint.ids == ["e1", "e2", "e2", "e3", "e4"]


@pytest.mark.parametrize("order", ORDERED)
async def test_a_resent_delivery_takes_its_place_before_later_ones_that_wait(stage: Stage, order: str):
    subscription, endpoint = await stage.subscribe(order=order, retry={"kind": "list", "delays": [60]})
    endpoint.answers_event("e2", 500)
    await stage.publish_many(3, key="a")
    await stage.until(lambda: endpoint.ids == ["e1", "e2"])
    await stage.pass_time(1)
    await stage.resend(subscription, 1)
    await stage.settled(subscription, 3)
    assert endpoint.ids == ["e1", "e2", "e1", "e2", "e3"]
    assert endpoint.sequences == [1, 2, 1, 2, 3]


async def test_a_replay_keeps_the_order_of_keys(stage: Stage):
    subscription, endpoint = await stage.subscribe(order="key")
    for number in range(12):
        await stage.publish(key="ab"[number % 2])
    await stage.settled(subscription, 12)
    endpoint.arrivals.clear()
    endpoint.answers_event("e3", 500, 500)
    await stage.replay(subscription)
    await stage.until(lambda: len(endpoint.arrivals) == 14)
    a_s = [event_id for event_id in endpoint.ids if int(event_id[1:]) % 2]
    assert a_s == ["e1", "e3", "e3", "e3", "e5", "e7", "e9", "e11"]


async def test_many_keys_under_random_failures_stay_in_order(stage: Stage):
    subscription, endpoint = await stage.subscribe(order="key", retry={"kind": "list", "delays": [0.5] * 20})
    keys: dict[str, str] = {}
    for number in range(300):
        event_id = f"e{number + 1}"
        keys[event_id] = f"k{number % 7}"
        endpoint.answers_event(event_id, *[500] * (number % 5 == 3) * (number % 4))
        await stage.publish(key=keys[event_id])
        await stage.pass_time(0.01)
    await stage.settled(subscription, 300)
    for key in set(keys.values()):
        mine = [event_id for event_id in endpoint.ids if keys[event_id] == key]
        assert mine == sorted(mine, key=lambda event_id: int(event_id[1:]))
