"""The profile of Front Systems in the engine: each event is sent once, and nothing but a resend sends it again."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hookline.core.ids import DeliveryUuids, delivery_id
from hookline.core.model import Subscription, SubscriptionState
from hookline.ports import ErrorClass
from tests.engine.endpoints import Arrival, Endpoint, Reply
from tests.engine.stage import HOUR, Stage
from tests.simulation.virtual import VirtualLoop

TYPE = "SaleCreated"


async def webhook(stage: Stage, **spec: Any) -> tuple[Subscription, Endpoint]:
    """A subscription with nothing but what the profile says."""
    endpoint = stage.endpoint("erp.example")
    asked = {"url": endpoint.url, "events": [TYPE], "profile": "frontsystems", **spec}
    made = await stage.subscriptions.create(stage.shop, asked)
    stage.notify()
    return made, endpoint


FAILURES = {
    "404": Reply(404),
    "410": Reply(410),
    "429 with a time": Reply(429, {"Retry-After": "30"}),
    "500": Reply(500),
    "503 with a time": Reply(503, {"Retry-After": "30"}),
    "302": Reply(302, {"Location": "https://other.example/"}),
    "no connection": Reply(error=ErrorClass.CONNECT),
    "no name": Reply(error=ErrorClass.DNS),
    "no answer": Reply(after=999),
}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
async def test_a_failure_is_never_sent_again(stage: Stage, failure: Reply):
    subscription, endpoint = await webhook(stage)
    endpoint.always(failure)
    await stage.publish(TYPE)
    await stage.settled(subscription, 1)
    await stage.pass_time(2 * HOUR)
    assert len(endpoint.arrivals) == 1
    assert await stage.states(subscription) == ["failed"]


async def test_not_after_a_restart_either(stage: Stage):
    subscription, endpoint = await webhook(stage)
    endpoint.always(500)
    await stage.publish_many(20, TYPE)
    await stage.settled(subscription, 20)
    endpoint.always(200)
    await stage.restart()
    await stage.pass_time(HOUR)
    assert len(endpoint.arrivals) == 20
    assert await stage.states(subscription) == ["failed"] * 20


async def test_gone_does_not_disable_the_webhook(stage: Stage):
    subscription, endpoint = await webhook(stage)
    endpoint.answers(410)
    await stage.publish(TYPE)
    await stage.settled(subscription, 1)
    await stage.publish(TYPE)
    await stage.settled(subscription, 2)
    assert await stage.states(subscription) == ["failed", "succeeded"]
    assert (await stage.now(subscription)).state is SubscriptionState.ACTIVE


async def test_many_failures_do_not_hold_up_later_events(stage: Stage):
    """No breaker: each event is sent at once, as long as ever the endpoint fails."""
    subscription, endpoint = await webhook(stage)
    endpoint.always(500)
    await stage.publish_many(500, TYPE)
    await stage.settled(subscription, 500)
    endpoint.always(200)
    began = stage.loop.time()
    await stage.publish(TYPE)
    await stage.settled(subscription, 501)
    assert stage.loop.time() - began < 2
    assert (await stage.states(subscription))[-1] == "succeeded"


async def test_hours_of_failures_do_not_disable_the_webhook(stage: Stage):
    subscription, endpoint = await webhook(stage)
    assert subscription.definition.disable_after == 0, "never (test_retry.py shows what that means)"
    endpoint.always(500)
    for _ in range(4):
        await stage.publish(TYPE)
        await stage.pass_time(HOUR)
    assert len(endpoint.arrivals) == 4
    assert (await stage.now(subscription)).state is SubscriptionState.ACTIVE
    assert await stage.operational("hookline.subscription.failing") == []


async def test_a_resend_is_the_same_event_once_more(stage: Stage):
    subscription, endpoint = await webhook(stage)
    endpoint.always(404)
    await stage.publish(TYPE)
    await stage.settled(subscription, 1)
    for _ in range(2):
        await stage.resend(subscription, 1)
        await stage.settled(subscription, 1)
        await stage.pass_time(HOUR)
    endpoint.always(204)
    await stage.resend(subscription, 1)
    await stage.pass_time(HOUR)
    assert await stage.states(subscription) == ["succeeded"]
    assert [arrival.attempt for arrival in endpoint.arrivals] == [1, 2, 3, 4]
    assert set(endpoint.sequences) == {1}
    assert (
        len({(arrival.headers["x-webhook-event-id"], arrival.request.body) for arrival in endpoint.arrivals})
        == 1
    )


async def test_resending_what_is_on_its_way_sends_it_no_second_time(stage: Stage):
    """The recovery loop lists a resent event until it has arrived, and may resend it again meanwhile."""
    subscription, endpoint = await webhook(stage)
    endpoint.answers(404)
    await stage.publish(TYPE)
    await stage.settled(subscription, 1)
    endpoint.hold()
    await stage.resend(subscription, 1)
    await stage.until(lambda: endpoint.in_flight == 1)
    for _ in range(5):
        await stage.resend(subscription, 1)
        await stage.pass_time(1)
    endpoint.release()
    await stage.settled(subscription, 1)
    await stage.pass_time(HOUR)
    assert len(endpoint.arrivals) == 2
    assert await stage.states(subscription) == ["succeeded"]


async def test_the_request_is_the_bare_entity_with_an_id(stage: Stage):
    subscription, endpoint = await webhook(stage)
    await stage.publish(TYPE, data={"saleId": 1})
    await stage.settled(subscription, 1)
    (arrival,) = endpoint.arrivals
    assert arrival.request.method == "POST"
    assert arrival.request.body == b'{"saleId":1}'
    assert sorted(arrival.headers) == [
        "content-type", "hookline-attempt", "hookline-sequence", "user-agent", "x-webhook-event-id",
    ]  # fmt: skip
    assert arrival.headers["content-type"] == "application/json"
    assert arrival.headers["x-webhook-event-id"] == DeliveryUuids(subscription.id).of(1)


async def test_the_secret_in_the_url_arrives(stage: Stage):
    endpoint = stage.endpoint("erp.example")
    url = f"{endpoint.url}?token=s3cr%C3%A9t&x"
    subscription, _ = await webhook(stage, url=url)
    await stage.publish(TYPE)
    await stage.settled(subscription, 1)
    assert endpoint.arrivals[0].request.url == url


# --- any payload -----------------------------------------------------------------------------------------

SPACE = st.text(" \t\r\n", max_size=2)
NUMBERS = st.from_regex(r"\A-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?\Z")
TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20).map(json.dumps),
    st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='"\\'), max_size=20).map(
        lambda text: f'"{text}"'
    ),
)


def members(names: list[str], values: list[str], space: str) -> str:
    return (
        "{"
        + ",".join(f"{space}{name}:{space}{value}" for name, value in zip(names, values, strict=False))
        + "}"
    )


JSON_TEXTS = st.recursive(
    st.one_of(st.sampled_from(["null", "true", "false", "[]", "{}", "{ }"]), NUMBERS, TEXTS),
    lambda inner: st.one_of(
        st.tuples(st.lists(inner, max_size=5), SPACE).map(lambda given: f"[{f'{given[1]},'.join(given[0])}]"),
        st.builds(
            members, st.lists(TEXTS, max_size=5, unique_by=json.loads), st.lists(inner, max_size=5), SPACE
        ),
    ),
    max_leaves=12,
)
"""JSON as anybody may write it: with spaces, long numbers, and characters with and without escapes."""


async def arrivals_of(payloads: list[str]) -> list[Arrival]:
    async with Stage() as stage:
        subscription, endpoint = await webhook(stage)
        for number, payload in enumerate(payloads):
            body = f'{{"type": "{TYPE}", "id": "e{number}", "data": {payload}}}'
            await stage.publisher.publish(stage.shop, body.encode())
        await stage.settled(subscription, len(payloads))
        return sorted(endpoint.arrivals, key=lambda arrival: arrival.sequence)


@settings(max_examples=40, deadline=None)
@given(payloads=st.lists(JSON_TEXTS, min_size=1, max_size=10))
def test_any_payload_arrives_as_the_bytes_that_were_published(payloads: list[str]):
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        arrivals = runner.run(arrivals_of(payloads))
    assert [arrival.request.body for arrival in arrivals] == [payload.encode() for payload in payloads]


async def test_the_log_shows_the_bytes_that_were_sent(stage: Stage):
    subscription, endpoint = await webhook(stage)
    body = b'{"type":"SaleCreated","data":{ "total" : 1.50e2 }}'
    await stage.publisher.publish(stage.shop, body)
    await stage.settled(subscription, 1)
    item = await stage.reader.delivery(stage.shop, delivery_id(subscription.no, 1))
    assert item.attempts is not None
    assert item.attempts[0].body == endpoint.arrivals[0].request.body == b'{ "total" : 1.50e2 }'
