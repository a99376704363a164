"""When a failed delivery is tried again, when it is given up, and when its subscription is disabled."""

from __future__ import annotations

from email.utils import formatdate
from itertools import pairwise
from typing import Any

import pytest

from hookline.core.model import SubscriptionState
from hookline.ports import ErrorClass
from tests.engine.endpoints import LATENCY, Endpoint, Reply
from tests.engine.stage import DAY, HOUR, Stage

OFF = {"failures": 0}


def delays(endpoint: Endpoint, event_id: str = "e1") -> list[float]:
    """Seconds from each answer to the next request of one event."""
    times = [arrival.at for arrival in endpoint.arrivals_of(event_id)]
    return [later - earlier - LATENCY for earlier, later in pairwise(times)]


async def deliver_one(stage: Stage, **spec: Any) -> Endpoint:
    """One event for an endpoint that only fails, until it is given up."""
    subscription, endpoint = await stage.subscribe(**spec)
    endpoint.always(500)
    await stage.publish()
    await stage.settled(subscription, 1, within=30 * DAY)
    assert await stage.states(subscription) == ["failed"]
    return endpoint


# --- schedules -------------------------------------------------------------------------------------------


async def test_without_retries_one_failure_is_the_end(stage: Stage):
    endpoint = await deliver_one(stage, retry={"kind": "none"})
    assert len(endpoint.arrivals) == 1


async def test_a_list_of_delays_is_followed_to_its_end(stage: Stage):
    endpoint = await deliver_one(stage, retry={"kind": "list", "delays": [2, 10, 60], "jitter": 0})
    assert delays(endpoint) == pytest.approx([2, 10, 60], abs=0.05)
    assert [arrival.attempt for arrival in endpoint.arrivals] == [1, 2, 3, 4]
    assert set(endpoint.sequences) == {1}


async def test_exponential_delays_double_up_to_their_cap(stage: Stage):
    policy = {"kind": "exponential", "base": 1, "factor": 2, "cap": 5, "max_attempts": 6, "jitter": 0}
    endpoint = await deliver_one(stage, retry=policy)
    assert delays(endpoint) == pytest.approx([1, 2, 4, 5, 5], abs=0.05)


@pytest.mark.parametrize(("fraction", "delay"), [(0.0, 8.0), (0.5, 10.0), (0.999, 11.996)])
async def test_jitter_spreads_a_delay_by_its_part_either_way(stage: Stage, fraction: float, delay: float):
    stage.fraction = fraction
    endpoint = await deliver_one(stage, retry={"kind": "list", "delays": [10], "jitter": 0.2})
    assert delays(endpoint) == pytest.approx([delay], abs=0.05)


async def test_a_maximum_count_includes_the_first_attempt(stage: Stage):
    policy = {"kind": "exponential", "base": 1, "factor": 1, "max_attempts": 3}
    assert len((await deliver_one(stage, retry=policy)).arrivals) == 3


async def test_a_maximum_age_counts_from_the_first_attempt(stage: Stage):
    policy = {"kind": "exponential", "base": 10, "factor": 1, "max_age": 35, "jitter": 0}
    endpoint = await deliver_one(stage, retry=policy)
    assert len(endpoint.arrivals) == 4
    assert endpoint.arrivals[-1].at - endpoint.arrivals[0].at <= 35


async def test_a_success_ends_the_retries(stage: Stage):
    subscription, endpoint = await stage.subscribe()
    endpoint.answers(500, 500)
    await stage.publish()
    done = await stage.settled(subscription, 1)
    await stage.pass_time(60)
    assert len(endpoint.arrivals) == 3
    assert (done[0].state, done[0].attempts, done[0].status) == ("succeeded", 3, 200)


# --- what is worth another attempt -----------------------------------------------------------------------

FAILURES = {
    "302": Reply(302),
    "400": Reply(400),
    "429": Reply(429),
    "500": Reply(500),
    "503": Reply(503),
    "connect": Reply(error=ErrorClass.CONNECT),
    "timeout": Reply(after=999),
}


@pytest.mark.parametrize(
    ("retry_on", "retried"),
    [
        (["5xx"], {"500", "503"}),
        (["503", "429"], {"503", "429"}),
        (["network"], {"connect", "timeout"}),
        (["3xx", "4xx"], {"302", "400", "429"}),
        ([], set()),
    ],
)
async def test_the_policy_names_the_answers_that_are_tried_again(
    stage: Stage, retry_on: list[str], retried: set[str]
):
    policy = {"kind": "list", "delays": [1], "jitter": 0, "retry_on": retry_on}
    made = {name: await stage.subscribe(f"h{name}.example", retry=policy, breaker=OFF) for name in FAILURES}
    for name, (_, endpoint) in made.items():
        endpoint.always(FAILURES[name])
    await stage.publish()
    for subscription, _ in made.values():
        await stage.settled(subscription, 1)
    assert {name for name, (_, endpoint) in made.items() if len(endpoint.arrivals) == 2} == retried


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_every_2xx_is_a_success(stage: Stage, status: int):
    subscription, endpoint = await stage.subscribe()
    endpoint.always(status)
    await stage.publish()
    await stage.settled(subscription, 1)
    assert await stage.states(subscription) == ["succeeded"]


# --- Retry-After -----------------------------------------------------------------------------------------


async def next_delay(stage: Stage, status: int, wish: str) -> float:
    """How long the endpoint that asked so is left alone."""
    subscription, endpoint = await stage.subscribe()
    endpoint.answers(Reply(status, {"Retry-After": wish}))
    await stage.publish()
    await stage.settled(subscription, 1, within=10 * DAY)
    return delays(endpoint)[0]


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_in_seconds_is_obeyed(stage: Stage, status: int):
    assert await next_delay(stage, status, "120") == pytest.approx(120, abs=0.1)


async def test_retry_after_as_a_date_is_obeyed(stage: Stage):
    date = formatdate(stage.clock.now() / 1000 + 90, usegmt=True)
    assert await next_delay(stage, 503, date) == pytest.approx(90, abs=1)


async def test_an_absurd_retry_after_counts_as_a_day(stage: Stage):
    subscription, endpoint = await stage.subscribe()
    endpoint.answers(Reply(503, {"Retry-After": "999999999"}))
    await stage.publish()
    await stage.until(lambda: len(endpoint.arrivals) == 1)
    await stage.pass_time(1)
    waiting = (await stage.deliveries(subscription))[0]
    assert waiting.due_at - stage.clock.now() == pytest.approx(DAY * 1000, abs=2000)


@pytest.mark.parametrize("wish", ["soon", "-5", "", "0", "1e9", "Thu, 01 Jan 1970 00:00:00 GMT"])
async def test_a_retry_after_that_says_nothing_leaves_the_schedule_as_it_is(stage: Stage, wish: str):
    assert await next_delay(stage, 429, wish) == pytest.approx(1, abs=0.1)


async def test_retry_after_never_brings_an_attempt_forward(stage: Stage):
    subscription, endpoint = await stage.subscribe(retry={"kind": "list", "delays": [60], "jitter": 0})
    endpoint.answers(Reply(503, {"Retry-After": "5"}))
    await stage.publish()
    await stage.settled(subscription, 1)
    assert delays(endpoint) == pytest.approx([60], abs=0.1)


@pytest.mark.parametrize("status", [429, 503])
async def test_an_endpoint_that_asks_for_time_gets_nothing_else_meanwhile(stage: Stage, status: int):
    subscription, endpoint = await stage.subscribe()
    endpoint.answers(Reply(status, {"Retry-After": "100"}))
    await stage.publish()
    await stage.until(lambda: len(endpoint.arrivals) == 1)
    await stage.pass_time(1)
    await stage.publish_many(5)
    await stage.pass_time(90)
    assert endpoint.ids == ["e1"]
    await stage.settled(subscription, 6)
    assert endpoint.arrivals[1].at - endpoint.arrivals[0].at >= 100


async def test_a_changed_url_need_not_wait_for_what_the_old_one_asked(stage: Stage):
    subscription, endpoint = await stage.subscribe()
    endpoint.answers(Reply(429, {"Retry-After": "1800"}))
    await stage.publish()
    await stage.until(lambda: len(endpoint.arrivals) == 1)
    await stage.pass_time(1)
    new = stage.endpoint("new.example")
    await stage.edit(subscription, url=new.url)
    await stage.publish()
    await stage.until(lambda: new.ids == ["e2"], within=5)


async def test_one_retry_after_stops_the_whole_subscription_for_an_hour_at_most(stage: Stage):
    subscription, endpoint = await stage.subscribe()
    endpoint.answers(Reply(429, {"Retry-After": str(10 * int(HOUR))}))
    await stage.publish()
    await stage.until(lambda: len(endpoint.arrivals) == 1)
    await stage.publish()
    await stage.settled(subscription, 1, within=2 * HOUR)
    assert endpoint.ids == ["e1", "e2"]
    assert endpoint.gaps == pytest.approx([HOUR], abs=1)


@pytest.mark.parametrize("status", [429, 503])
async def test_throttling_halves_the_requests_in_flight(stage: Stage, status: int):
    subscription, endpoint = await stage.subscribe()
    await stage.publish_many(8)
    await stage.settled(subscription, 8)
    lane = stage.worker.lanes[subscription.no]
    before = lane.window.size
    endpoint.answers(status)
    await stage.publish()
    await stage.until(lambda: len(endpoint.arrivals) == 9)
    await stage.pass_time(0.1)
    assert lane.window.size == before // 2


# --- the end of a delivery -------------------------------------------------------------------------------


async def test_a_delivery_that_is_given_up_is_told_as_an_event(stage: Stage):
    subscription, _ = await stage.subscribe(events=["order:*"], retry={"kind": "none"})
    _, watcher = await stage.subscribe("watcher.example", events=["hookline.delivery.failed"])
    stage.endpoint("a.example").always(500)
    await stage.publish("order:paid")
    await stage.until(lambda: len(watcher.arrivals) == 1)
    body = watcher.arrivals[0].body
    assert body["type"] == "hookline.delivery.failed"
    assert body["data"] == {
        "delivery_id": "dlv_1-1",
        "subscription_id": subscription.id,
        "event_id": "e1",
        "event_type": "order:paid",
        "sequence": 1,
        "attempts": 1,
        "reason": "answered 500",
    }


async def test_it_is_told_after_the_last_attempt_only(stage: Stage):
    _, endpoint = await stage.subscribe(retry={"kind": "list", "delays": [5, 5], "jitter": 0})
    endpoint.always(500)
    await stage.publish()
    await stage.until(lambda: len(endpoint.arrivals) == 2)
    await stage.pass_time(2)
    assert await stage.operational("hookline.delivery.failed") == []
    await stage.until(lambda: len(endpoint.arrivals) == 3)
    await stage.pass_time(2)
    assert [data["attempts"] for data in await stage.operational("hookline.delivery.failed")] == [3]


async def test_a_watcher_that_fails_itself_starts_no_endless_chain(stage: Stage):
    _, watcher = await stage.subscribe("watcher.example", events=["hookline.*", "*"], retry={"kind": "none"})
    watcher.always(500)
    await stage.publish()
    await stage.pass_time(60)
    assert watcher.types == ["order:created", "hookline.delivery.failed"]


# --- the end of a subscription ---------------------------------------------------------------------------


async def test_410_disables_the_subscription_and_keeps_its_backlog(stage: Stage):
    subscription, endpoint = await stage.subscribe(events=["order:*"])
    _, watcher = await stage.subscribe("watcher.example", events=["hookline.subscription.disabled"])
    endpoint.answers(410)
    await stage.publish()
    await stage.until(lambda: len(watcher.arrivals) == 1)
    stopped = await stage.now(subscription)
    assert stopped.state is SubscriptionState.DISABLED
    assert "410" in stopped.state_reason
    assert watcher.arrivals[0].body["data"]["subscription_id"] == subscription.id
    await stage.publish_many(3)
    await stage.pass_time(30)
    assert endpoint.ids == ["e1"]
    await stage.resume(subscription)
    await stage.settled(subscription, 4)
    assert endpoint.sequences == [1, 2, 3, 4]


async def test_410_disables_even_where_nothing_is_tried_again(stage: Stage):
    subscription, endpoint = await stage.subscribe(retry={"kind": "none"})
    endpoint.always(410)
    await stage.publish()
    await stage.settled(subscription, 1)
    assert (await stage.now(subscription)).state is SubscriptionState.DISABLED


FAILING: dict[str, Any] = {
    "retry": {"kind": "list", "delays": [10.0] * 100, "jitter": 0},
    "disable_after": 200.0,
}


async def test_nothing_but_failures_warns_at_half_the_time_and_then_disables(stage: Stage):
    subscription, endpoint = await stage.subscribe(**FAILING)
    _, watcher = await stage.subscribe("watcher.example", events=["hookline.subscription.*"])
    endpoint.always(500)
    await stage.publish()
    await stage.until(lambda: len(watcher.arrivals) == 1)
    began = endpoint.arrivals[0].at
    assert watcher.types == ["hookline.subscription.failing"]
    assert 100 <= watcher.arrivals[0].at - began <= 112
    await stage.until(lambda: len(watcher.arrivals) == 2)
    assert watcher.types[1] == "hookline.subscription.disabled"
    assert 200 <= watcher.arrivals[1].at - began <= 212
    assert (await stage.now(subscription)).state is SubscriptionState.DISABLED
    count = len(endpoint.arrivals)
    await stage.pass_time(60)
    assert len(endpoint.arrivals) == count


async def test_one_success_in_between_starts_the_count_anew(stage: Stage):
    subscription, endpoint = await stage.subscribe(**FAILING)
    endpoint.always(500)
    await stage.publish()
    await stage.pass_time(150)
    endpoint.answers(200)
    await stage.settled(subscription, 1)
    await stage.publish()
    await stage.pass_time(150)
    assert (await stage.now(subscription)).state is SubscriptionState.ACTIVE
    assert len(await stage.operational("hookline.subscription.failing")) == 2
    await stage.pass_time(100)
    assert (await stage.now(subscription)).state is SubscriptionState.DISABLED


async def test_how_long_it_has_been_failing_survives_a_restart(stage: Stage):
    subscription, endpoint = await stage.subscribe(**FAILING)
    endpoint.always(500)
    await stage.publish()
    await stage.until(lambda: len(endpoint.arrivals) == 1)
    await stage.pass_time(130)
    began = (await stage.lane(subscription)).failing_since
    await stage.restart()
    await stage.pass_time(100)
    assert (await stage.lane(subscription)).failing_since == began
    assert (await stage.now(subscription)).state is SubscriptionState.DISABLED
    assert len(await stage.operational("hookline.subscription.failing")) == 1


async def test_a_resume_starts_the_count_anew(stage: Stage):
    subscription, endpoint = await stage.subscribe(**FAILING)
    endpoint.always(500)
    await stage.publish()
    await stage.pass_time(220)
    assert (await stage.now(subscription)).state is SubscriptionState.DISABLED
    await stage.resume(subscription)
    await stage.restart()
    await stage.pass_time(90)
    assert (await stage.now(subscription)).state is SubscriptionState.ACTIVE
    await stage.pass_time(120)
    assert (await stage.now(subscription)).state is SubscriptionState.DISABLED
    assert len(await stage.operational("hookline.subscription.failing")) == 2


async def test_a_quiet_subscription_is_not_disabled_before_its_owner_could_act_on_the_warning(stage: Stage):
    subscription, endpoint = await stage.subscribe(retry={"kind": "none"}, disable_after=200)
    endpoint.always(500)
    for pause in (
        1000,
        10,
        10,
    ):  # the second failure comes long after the first: too late for a warning in between
        await stage.publish()
        await stage.pass_time(pause)
    assert len(await stage.operational("hookline.subscription.failing")) == 1
    assert (await stage.now(subscription)).state is SubscriptionState.ACTIVE
    await stage.pass_time(50)
    await stage.publish()
    await stage.pass_time(1)
    assert (await stage.now(subscription)).state is SubscriptionState.DISABLED


async def test_zero_means_that_it_is_never_disabled(stage: Stage):
    subscription, endpoint = await stage.subscribe(**{**FAILING, "disable_after": 0})
    endpoint.always(500)
    await stage.publish()
    await stage.pass_time(900)
    assert (await stage.now(subscription)).state is SubscriptionState.ACTIVE
