"""Avvyr's retries on virtual time, and what its receivers can rely on in each request.

Subscriptions are what the compatible API makes of a client's fields.
"""

from __future__ import annotations

import json
import re
from itertools import pairwise
from typing import Any, cast

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import structs

from hookline.api.compat.avvyr.error_mail import ErrorMail
from hookline.api.compat.avvyr.settings import faults_of, patch_of, resolved
from hookline.api.compat.avvyr.wire import read_given
from hookline.api.services import Services
from hookline.core.ids import DeliveryUuids
from hookline.core.model import Event, Subscription, SubscriptionState, Tenant
from hookline.core.times import parse_rfc3339
from hookline.ports import ErrorClass
from hookline.profiles import PROFILES, read_options
from hookline.profiles.avvyr import entity_type
from tests.engine.endpoints import LATENCY, Endpoint, Reply
from tests.engine.stage import DAY, HOUR, MINUTE, Stage

DELAYS = [60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 3600.0, 3600.0]
"""Our choice: a minute, doubled up to an hour."""
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


async def subscribed(stage: Stage, host: str = "a.example", **fields: Any) -> tuple[Subscription, Endpoint]:
    """As a client of the compatible API asks for it."""
    endpoint = stage.endpoint(host)
    body = {"eventType": "orderCreated", "destination": endpoint.url, **fields}
    asked, faults = read_given(body, None)
    wanted = resolved(asked, None, whole=True)
    assert [*faults, *faults_of(wanted, asked, None, faults)] == []
    made = await stage.subscriptions.create(stage.shop, patch_of(wanted, None, None))
    stage.notify()
    return made, endpoint


async def given_up(stage: Stage, subscription: Subscription, endpoint: Endpoint) -> list[float]:
    """One event that the endpoint does not take until the end; the delays between the attempts."""
    await stage.publish("orderCreated")
    await stage.settled(subscription, 1, within=30 * DAY)
    assert await stage.states(subscription) == ["failed"]
    await stage.pass_time(3 * HOUR)
    times = [arrival.at for arrival in endpoint.arrivals]
    return [later - earlier - LATENCY for earlier, later in pairwise(times)]


# --- retries ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 3, 8])
async def test_a_count_of_retries_is_followed_exactly(stage: Stage, count: int):
    subscription, endpoint = await subscribed(stage, retryEnabled=True, retryCount=count)
    endpoint.always(500)
    delays = await given_up(stage, subscription, endpoint)
    assert delays == pytest.approx(DELAYS[:count], abs=0.05)
    assert [arrival.attempt for arrival in endpoint.arrivals] == list(range(1, count + 2))


async def test_unless_asked_otherwise_there_are_three_retries(stage: Stage):
    subscription, endpoint = await subscribed(stage)
    endpoint.always(500)
    assert len(await given_up(stage, subscription, endpoint)) == 3


async def test_without_retries_one_failure_is_the_end(stage: Stage):
    subscription, endpoint = await subscribed(stage, retryEnabled=False, retryCount=3)
    endpoint.always(500)
    assert await given_up(stage, subscription, endpoint) == []
    assert len(endpoint.arrivals) == 1


@pytest.mark.parametrize(("fraction", "delay"), [(0.0, 54.0), (0.999, 65.99)])
async def test_chance_moves_a_delay_by_a_tenth(stage: Stage, fraction: float, delay: float):
    stage.fraction = fraction
    subscription, endpoint = await subscribed(stage, retryCount=1)
    endpoint.always(500)
    assert await given_up(stage, subscription, endpoint) == pytest.approx([delay], abs=0.05)


@pytest.mark.parametrize(
    "reply",
    [Reply(301), Reply(304), Reply(400), Reply(404), Reply(410), Reply(429), Reply(500), Reply(599)]
    + [Reply(error=error) for error in (ErrorClass.CONNECT, ErrorClass.RESET, ErrorClass.TLS)],
    ids=lambda reply: str(reply.status if reply.error is None else reply.error.value),
)
async def test_every_answer_outside_2xx_is_a_plain_failure(stage: Stage, reply: Reply):
    subscription, endpoint = await subscribed(stage)
    endpoint.answers(reply)
    await stage.publish("orderCreated")
    await stage.settled(subscription, 1)
    assert await stage.states(subscription) == ["succeeded"]
    assert endpoint.gaps == pytest.approx([60], abs=0.05)
    assert (await stage.now(subscription)).state is SubscriptionState.ACTIVE


async def test_weeks_of_failures_do_not_disable_it(stage: Stage):
    subscription, endpoint = await subscribed(stage, retryEnabled=False)
    endpoint.always(410)
    for day in range(1, 15):
        await stage.publish("orderCreated")
        await stage.settled(subscription, day)
        await stage.worker.stop()
        await stage.pass_time(DAY)
        await stage.start_worker()
    assert len(endpoint.arrivals) == 14
    assert (await stage.now(subscription)).state is SubscriptionState.ACTIVE
    endpoint.always(200)
    await stage.publish("orderCreated")
    await stage.settled(subscription, 15)
    assert (await stage.states(subscription))[-1] == "succeeded"


# --- what a receiver tells deliveries by --------------------------------------------------------------------


async def test_delivery_and_message_ids_stay_over_retries_crashes_and_resends(stage: Stage):
    subscription, endpoint = await subscribed(stage, retryCount=2, authType="hmac", hmacSecret="s")
    endpoint.answers(500, 500)
    await stage.publish("orderCreated", id="first")
    await stage.until(lambda: len(endpoint.arrivals) == 1)
    await stage.pass_time(1)
    await stage.restart()
    await stage.until(lambda: len(endpoint.arrivals) == 3)
    (delivery,) = await stage.settled(subscription, 1)
    await stage.resend(subscription, delivery.position)
    await stage.until(lambda: len(endpoint.arrivals) == 4)
    headers = [arrival.headers for arrival in endpoint.arrivals]
    (found,) = {each["x-webhook-delivery"] for each in headers}
    assert UUID.fullmatch(found)
    assert len({each["x-webhook-signature"] for each in headers}) == 1
    assert len({arrival.request.body for arrival in endpoint.arrivals}) == 1
    assert {arrival.body["_meta"]["messageId"] for arrival in endpoint.arrivals} == {"first"}


async def test_each_event_and_each_subscription_has_a_delivery_id_of_its_own(stage: Stage):
    one, at_one = await subscribed(stage, "one.example")
    two, at_two = await subscribed(stage, "two.example")
    for _ in range(5):
        await stage.publish("orderCreated")
    await stage.settled(one, 5)
    await stage.settled(two, 5)
    ids = [arrival.headers["x-webhook-delivery"] for arrival in at_one.arrivals + at_two.arrivals]
    assert len(set(ids)) == 10
    assert {DeliveryUuids(one.id).position(each) for each in ids[:5]} == set(range(1, 6))


async def test_only_its_own_type_is_delivered(stage: Stage):
    subscription, endpoint = await subscribed(stage, eventType="cartDeleted")
    for name in ("orderCreated", "cartDeleted", "cartUpdated", "cartDeletedToo"):
        await stage.publish(name)
    await stage.settled(subscription, 1)
    await stage.pass_time(MINUTE)
    (arrival,) = endpoint.arrivals
    assert arrival.headers["x-webhook-event"] == "cartDeleted"
    assert arrival.body["_meta"]["entityType"] == "cart"


# --- errorEmail ---------------------------------------------------------------------------------------------


async def test_a_mail_goes_out_when_a_delivery_has_failed_for_good_and_not_before(stage: Stage):
    subscriptions = stage.subscriptions
    subscriptions._rules = structs.replace(subscriptions._rules, mail=True)
    mails = stage.endpoints.setdefault("", Endpoint(""))
    subscription, endpoint = await subscribed(stage)
    _, elsewhere = await subscribed(stage, "b.example", retryEnabled=False)
    services = cast("Services", stage)
    await ErrorMail(services, stage.shop, subscription.id).follow("ops@example.com")
    stage.notify()
    endpoint.always(503)
    elsewhere.always(500)
    await stage.publish("orderCreated", id="lost")
    await stage.until(lambda: len(endpoint.arrivals) == 3)
    await stage.pass_time(MINUTE)
    assert mails.arrivals == [], "neither while it is retried, nor for the other subscription"
    mails.answers(450)
    await stage.until(lambda: len(mails.arrivals) == 2)
    assert len(endpoint.arrivals) == 4
    for arrival in mails.arrivals:
        assert arrival.request.url == "mailto:ops@example.com"
        text = (arrival.request.body or b"").decode()
        assert subscription.id in text
        assert "lost (orderCreated)" in text
    await stage.pass_time(HOUR)
    assert len(mails.arrivals) == 2


# --- any payload, any name ------------------------------------------------------------------------------------

HOSTILE = st.sampled_from(
    ['"', "\\", '","tenantId":"other', "}", "\x00", "\n", "\u2028", "é", "😀", "</script>"]
)
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=20) | st.lists(HOSTILE).map("".join)
NAMES = st.from_regex(r"[A-Za-z0-9_.:\-/]{1,128}", fullmatch=True)
IDS = st.from_regex(r"[A-Za-z0-9_:\-]{1,128}", fullmatch=True)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT | st.just("_meta"), inner, max_size=4),
    max_leaves=20,
)
WRITTEN = st.builds(
    lambda value, indent, ascii_only: json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode(),
    ANY_JSON,
    st.sampled_from([None, 0, 2, "\t"]),
    st.booleans(),
)
LATEST = 253_402_300_799_999
"""The last millisecond of the year 9999."""


def event_of(data: bytes, name: str, event_id: str, object_type: str | None, at: int) -> Event:
    return Event(0, 1, 7, event_id, name, data, at, at, object_type=object_type)


def body_of(tenant_id: str, event: Event) -> bytes:
    profile = PROFILES["avvyr"]
    tenant = Tenant(7, tenant_id, "Shop", "avvyr", 0)
    return profile.format(tenant, read_options(profile, {})).body(event, 1)


@given(
    WRITTEN,
    NAMES,
    IDS,
    st.none() | TEXT,
    st.text(st.characters(exclude_categories=("Cs",)), max_size=40) | TEXT,
    st.integers(0, LATEST),
)
@example(b'{ "total": 1.50e2,\t"big":1e400 }', "orderCreated", "e1", 'or"der', '"},"data":{}', 1)
@example(b'"text"', "order:created", "e1", None, "24-hex", 0)
@example(b"-0.0", "A", "e", "", "\\", LATEST)
def test_any_payload_survives_and_meta_is_right_whatever_is_in_it(
    data: bytes, name: str, event_id: str, object_type: str | None, tenant_id: str, at: int
):
    event = event_of(data, name, event_id, object_type, at)
    body = body_of(tenant_id, event)
    parts = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    assert list(parts) == ["_meta", "data"]
    assert bytes(parts["data"]) == data.strip()
    assert body.endswith(b',"data":' + data + b"}")
    meta = json.loads(bytes(parts["_meta"]))
    assert list(meta) == ["eventType", "entityType", "tenantId", "messageId", "timestamp"]
    assert (meta["eventType"], meta["tenantId"], meta["messageId"]) == (name, tenant_id, event_id)
    assert meta["entityType"] == entity_type(event)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", meta["timestamp"])
    assert parse_rfc3339(meta["timestamp"]) == at


@pytest.mark.parametrize(
    ("name", "object_type", "noun"),
    [
        ("orderReadyForPickup", None, "order"),
        ("fulfillmentUpdated", None, "fulfillment"),
        ("cartFullyPaid", "Cart", "cart"),
        ("giftCardIssued", "GiftCard", "giftcard"),
        ("order:created", None, "order"),
        ("SaleCreated", None, "salecreated"),
    ],
)
def test_the_entity_type_is_the_noun_in_lower_case(name: str, object_type: str | None, noun: str):
    assert entity_type(event_of(b"{}", name, "e", object_type, 0)) == noun
