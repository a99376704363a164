"""EvolutionX: what goes out, when, and what of any payload survives."""

from __future__ import annotations

import hashlib
import hmac
import json
import string
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookline.core.model import (
    Definition,
    DeliveryState,
    Event,
    Secrets,
    SigningKey,
    Subscription,
    SubscriptionState,
    Tenant,
)
from hookline.engine.compose import Composer
from hookline.engine.manage import NewTenant, Tenants
from hookline.engine.manage.spec import drafted
from hookline.ports import Delivery, EventQuery, Request
from hookline.profiles import PROFILES
from tests.engine.endpoints import Arrival, Endpoint, Reply
from tests.engine.stage import DAY, HOUR, Stage

KEY = "a key of the shop"
ENDS = (DeliveryState.SUCCEEDED, DeliveryState.FAILED, DeliveryState.EXPIRED)
WARM_UP = 15.0
"""Seconds in which a worker has surely taken over: a lease is 10."""
DELAYS = [60.0, 300.0, 900.0, 3600.0, 10800.0, 21600.0, 36000.0]
OBJECT = {"type": "order", "id": "1000"}
SOURCE = {"application": "storefront", "user_id": "1000"}


async def webhook(stage: Stage, host: str = "erp.example", **spec: Any) -> tuple[Subscription, Endpoint]:
    """A subscription with nothing but the profile's own defaults."""
    endpoint = stage.endpoint(host)
    made = await stage.subscriptions.create(
        stage.shop, {"url": endpoint.url, "profile": "evolutionx", "signing": {"secret": KEY}, **spec}
    )
    stage.notify()
    return made, endpoint


def is_genuine(arrival: Arrival, key: str = KEY) -> bool:
    """As the vendor's page checks it."""
    signed = f"{arrival.headers['evox-time']}.".encode() + (arrival.request.body or b"")
    return arrival.headers["evox-signature"] == hmac.new(key.encode(), signed, hashlib.sha256).hexdigest()


async def leap(stage: Stage, seconds: float) -> None:
    """Let time pass while no worker runs, which costs nothing. The next one has the shard before the time is over."""
    stage.worker.kill()
    await stage.pass_time(seconds - WARM_UP)
    await stage.start_worker()
    await stage.pass_time(WARM_UP)


async def settled(stage: Stage, subscription: Subscription, count: int) -> list[Delivery]:
    """Wait until so many deliveries are at their end, leaping from one due time to the next."""
    while len(done := await stage.deliveries(subscription, *ENDS)) < count:
        _, due = await stage.storage.waiting(subscription.no)
        wait = (due - stage.clock.now()) / 1000
        if due and wait > 2 * WARM_UP:
            await leap(stage, wait - WARM_UP)
        await stage.pass_time(1)
    return done


# --- attempts -----------------------------------------------------------------------------------------------


async def test_each_attempt_has_the_same_event_id_and_its_own_time_and_signature(stage: Stage) -> None:
    subscription, endpoint = await webhook(stage)
    endpoint.always(500)
    await stage.publish("order.created", id="evt_1", object=OBJECT, source=SOURCE)
    (delivery,) = await settled(stage, subscription, 1)
    assert (delivery.state, delivery.attempts) == ("failed", len(DELAYS) + 1)
    arrivals = endpoint.arrivals
    assert endpoint.gaps == pytest.approx(DELAYS, abs=2)
    assert {arrival.body["event_id"] for arrival in arrivals} == {"evt_1"}
    assert len({arrival.request.body for arrival in arrivals}) == 1
    assert [int(arrival.headers["evox-time"]) for arrival in arrivals] == [
        arrival.millis // 1000 for arrival in arrivals
    ]
    assert all(map(is_genuine, arrivals))
    assert len({arrival.headers["evox-signature"] for arrival in arrivals}) == len(arrivals)


@pytest.mark.parametrize("chance", [0.0, 0.999999])
async def test_all_retries_come_within_the_day_for_which_ids_are_remembered(
    stage: Stage, chance: float
) -> None:
    stage.fraction = chance
    subscription, endpoint = await webhook(stage)
    endpoint.always(Reply(after=30.0))  # times out after 20 seconds
    await stage.publish("order.created")
    await settled(stage, subscription, 1)
    assert len(endpoint.arrivals) == len(DELAYS) + 1
    assert endpoint.arrivals[-1].at - endpoint.arrivals[0].at < DAY - HOUR


async def test_a_good_answer_ends_it(stage: Stage) -> None:
    subscription, endpoint = await webhook(stage)
    endpoint.answers(500, 401, 302, Reply(204))
    await stage.publish("order.created")
    (delivery,) = await settled(stage, subscription, 1)
    assert (delivery.state, delivery.attempts) == ("succeeded", 4)
    await leap(stage, 2 * DAY)
    assert len(endpoint.arrivals) == 4


async def test_410_is_a_failure_like_others(stage: Stage) -> None:
    subscription, endpoint = await webhook(stage)
    endpoint.answers(410, 410)
    await stage.publish("order.created")
    (delivery,) = await settled(stage, subscription, 1)
    assert (delivery.state, delivery.attempts) == ("succeeded", 3)
    assert (await stage.now(subscription)).state is SubscriptionState.ACTIVE


async def test_no_run_of_failures_disables_it_or_holds_attempts_back(stage: Stage) -> None:
    subscription, endpoint = await webhook(stage)
    endpoint.always(500)
    for day in range(7):
        await stage.publish("order.created")
        await settled(stage, subscription, day + 1)
    assert endpoint.arrivals[-1].at - endpoint.arrivals[0].at > 5 * DAY
    assert len(endpoint.arrivals) == 7 * (len(DELAYS) + 1)
    assert (await stage.now(subscription)).state is SubscriptionState.ACTIVE


async def test_a_new_key_signs_from_the_next_attempt_on(stage: Stage) -> None:
    subscription, endpoint = await webhook(stage)
    endpoint.answers(500)
    await stage.publish("order.created")
    await stage.until(lambda: len(endpoint.arrivals) == 1)
    await stage.subscriptions.rotate(stage.shop, subscription.id, 0, "the new key")
    stage.notify()
    await stage.settled(subscription, 1)
    first, second = endpoint.arrivals
    assert (is_genuine(first), is_genuine(second), is_genuine(second, "the new key")) == (True, False, True)


# --- the body ---------------------------------------------------------------------------------------------


async def test_the_thin_body_names_who_did_what_to_which_record(stage: Stage) -> None:
    subscription, endpoint = await webhook(stage)
    data = {"event_data": {"customer_id": 7}, "object": {"id": 1000, "total": 54.7}}
    occurred = "2026-01-01T10:00:00.900Z"
    event_id = await stage.publish(
        "order.created", data=data, object=OBJECT, source=SOURCE, occurred_at=occurred
    )
    await stage.settled(subscription, 1)
    (arrival,) = endpoint.arrivals
    assert arrival.request.method == "POST"
    assert arrival.headers["content-type"] == "application/json"
    assert list(arrival.body.items()) == [
        ("event_id", event_id),
        ("event_type", "order.created"),
        ("event_time", 1_767_261_600),
        ("object_type", "order"),
        ("object_id", "1000"),
        ("source_user_type", "storefront"),
        ("source_user_id", "1000"),
        ("event_data", {"customer_id": 7}),
        ("data", OBJECT),
    ]


async def test_the_whole_record_comes_if_asked_for(stage: Stage) -> None:
    subscription, endpoint = await webhook(stage, profile_options={"include_object_record": True})
    data = {"event_data": {"customer_id": 7}, "object": {"id": 1000, "total": 54.7}}
    await stage.publish("order.created", data=data, object=OBJECT)
    await stage.publish("order.created", data={"id": 1001}, object=OBJECT)
    await stage.publish("user.subscribed", data={"event_data": {"user_id": 8}}, object=OBJECT)
    await stage.settled(subscription, 3)
    bodies = {arrival.body["event_id"]: arrival.body for arrival in endpoint.arrivals}
    parts = [(body["event_data"], body["data"]) for _, body in sorted(bodies.items())]
    assert parts == [
        ({"customer_id": 7}, {"id": 1000, "total": 54.7}),
        ({}, {"id": 1001}),
        ({"user_id": 8}, OBJECT),
    ], "not every event has an object"


async def test_an_action_that_raises_two_events_sends_both(stage: Stage) -> None:
    subscription, endpoint = await webhook(stage, events=["user.updated", "user.subscribed"])
    await stage.publish("user.updated", correlation_id="act-1", object={"type": "user", "id": "8"})
    await stage.publish("user.subscribed", correlation_id="act-1", object={"type": "newsletter", "id": "8"})
    await stage.publish("order.created")
    await stage.settled(subscription, 2)
    assert {arrival.body["event_type"] for arrival in endpoint.arrivals} == {
        "user.updated",
        "user.subscribed",
    }
    (first, second) = await stage.storage.list_events(EventQuery(stage.shop.no, correlation_id="act-1"))
    page = await stage.reader.related(stage.shop, first, 0, 10)
    assert list(page.events) == [second]


async def test_a_get_says_it_in_its_query(stage: Stage) -> None:
    subscription, endpoint = await webhook(stage, method="GET", query={"shop": "1"})
    event_id = await stage.publish("order.created", object=OBJECT, source=SOURCE)
    await stage.settled(subscription, 1)
    (arrival,) = endpoint.arrivals
    assert arrival.request.method == "GET"
    assert arrival.request.body is None
    event = await stage.reader.event(stage.shop, event_id)
    assert parse_qsl(urlsplit(arrival.request.url).query) == [
        ("shop", "1"),
        ("event_id", event_id),
        ("event_type", "order.created"),
        ("event_time", str(event.occurred_at // 1000)),
        ("object_type", "order"),
        ("object_id", "1000"),
        ("source_user_type", "storefront"),
        ("source_user_id", "1000"),
    ]
    assert is_genuine(arrival)
    assert "content-type" not in arrival.headers


# --- the feature switch, and retention --------------------------------------------------------------------


async def switch(stage: Stage, *, webhooks: bool) -> None:
    """As ``PATCH /v1/tenants/shop`` does."""
    tenants = Tenants(stage.storage, stage.clock, stage.entropy, frozenset(PROFILES))
    shop = await tenants.get("shop")
    changed = NewTenant(shop.id, shop.name, shop.profile, shop.schema_mode, shop.retention, webhooks)
    stage.shop = await tenants.update(shop, changed)
    stage.notify()


async def test_switched_off_nothing_is_sent_and_on_again_it_goes_on_where_it_stopped(stage: Stage) -> None:
    subscription, endpoint = await webhook(stage)
    endpoint.answers(500)
    waiting = await stage.publish("order.created")
    await stage.until(lambda: len(endpoint.arrivals) == 1)
    await switch(stage, webhooks=False)
    await stage.pass_time(1)
    published = [await stage.publish("order.created") for _ in range(20)]
    await stage.pass_time(HOUR)
    await leap(stage, 3 * DAY)
    assert len(endpoint.arrivals) == 1
    await switch(stage, webhooks=True)
    await stage.settled(subscription, 21)
    sent = [arrival.body["event_id"] for arrival in endpoint.arrivals]
    assert sorted(sent) == sorted([waiting, waiting, *published])
    assert await stage.states(subscription) == ["succeeded"] * 21


async def test_what_was_published_while_it_was_off_survives_a_restart(stage: Stage) -> None:
    subscription, endpoint = await webhook(stage)
    await switch(stage, webhooks=False)
    event_id = await stage.publish("order.created")
    await leap(stage, DAY)
    assert endpoint.arrivals == []
    await switch(stage, webhooks=True)
    await stage.settled(subscription, 1)
    assert [arrival.body["event_id"] for arrival in endpoint.arrivals] == [event_id]


async def test_events_and_requests_are_kept_60_days_and_payloads_15(stage: Stage) -> None:
    subscription, endpoint = await webhook(stage)
    endpoint.always(Reply(body=b'{"ok":true}'))
    await stage.publish("order.created")
    await stage.settled(subscription, 1)

    async def on_day(day: float) -> tuple[int, list[bytes]]:
        """A worker begins with a round of retention."""
        await leap(stage, day * DAY - stage.loop.time())
        await stage.pass_time(30)
        events = await stage.storage.list_events(EventQuery(stage.shop.no))
        return len(events), [each.response_body for each in await stage.attempts(subscription, 1)]

    assert await on_day(14.9) == (1, [b'{"ok":true}'])
    assert await on_day(15.1) == (1, [b""])
    assert await on_day(59.9) == (1, [b""])
    assert await on_day(60.1) == (0, [])


# --- any payload, any name ------------------------------------------------------------------------------

_numbers = st.sampled_from(
    ["0", "-0", "1.50", "1E+2", "1e-7", "12345678901234567890123", "0.1000000000000000055"]
)
_plain = "".join(sorted(set(string.printable) - set('"\\\t\n\r\x0b\x0c')))
_escapes = st.sampled_from(
    [r"\"", r"\\", r"\/", r"\n", r"\u0000", r"\u00FC", r"\ud83d\ude00", "ü", "😀", "\u2028", "</script>"]
)
_strings = st.lists(st.one_of(st.text(_plain, max_size=4), _escapes), max_size=4).map(
    lambda parts: f'"{"".join(parts)}"'
)
_space = st.sampled_from(["", " ", "\n\t", "\r\n  "])
_scalars = st.one_of(_numbers, _strings, st.sampled_from(["null", "true", "false"]))
_names = st.one_of(_strings, st.sampled_from(['"object"', '"data"', '"event_id"', '"Event_data"']))


@st.composite
def _spaced(draw: st.DrawFn, value: str) -> str:
    return draw(_space) + value + draw(_space)


def _nested(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    item = inner.flatmap(_spaced)
    member = st.tuples(_names.flatmap(_spaced), item).map(":".join)
    lists = st.lists(item, max_size=4).map(lambda items: f"[{','.join(items)}]")
    objects = st.lists(member, max_size=4).map(lambda members: f"{{{','.join(members)}}}")
    return st.one_of(lists, objects)


json_texts = st.recursive(_scalars, _nested, max_leaves=12)
"""JSON in all its spellings; no name is ``event_data``."""
texts = st.text(min_size=1, max_size=40).filter(str.isprintable) | st.sampled_from(
    ['"', "\\", '","event_id":"evil', "</script>", "%00&event_id=evil#", "a+b c", "é😀", "'; --"]
)
"""What the publisher takes as object type, object id, application or user."""


def event_of(data: str, **fields: str | None) -> Event:
    return Event(0, 1, 1, "evt_1", "order.created", data.encode(), 1_767_261_600_999, 0, **fields)


def sent(event: Event, **spec: Any) -> Request:
    """The request that it becomes."""
    given = {"url": "https://erp.example/in?token=abc", "profile": "evolutionx", **spec}
    definition: Definition = drafted(given).spec.definition()
    subscription = Subscription(1, "sub_1", 1, 0, 1, 1, definition, b"", 0, 0)
    composer = Composer(
        subscription, Secrets(keys=(SigningKey(KEY, 0),)), Tenant(1, "shop", "Shop", "evolutionx", 0)
    )
    return composer.compose(event, 1, 1, 1_767_261_601_000).request


def body_of(event: Event, *, whole: bool = True) -> bytes:
    body = sent(event, profile_options={"include_object_record": whole}).body
    assert body is not None
    assert json.loads(body)["event_id"] == "evt_1"
    return body


@given(json_texts)
def test_any_payload_survives_byte_for_byte(data: str) -> None:
    body = body_of(event_of(data))
    assert body.endswith(b',"event_data":{},"data":' + data.encode() + b"}")
    assert json.loads(body)["data"] == json.loads(data)


@given(json_texts, json_texts, _space)
def test_event_data_and_object_survive_byte_for_byte(about: str, record: str, space: str) -> None:
    data = f'{space}{{{space}"event_data"{space}:{about},{space}"object":{record}{space}, "more": [1]}}'
    expected = b',"event_data":' + about.encode() + b',"data":' + record.encode() + b"}"
    assert body_of(event_of(data)).endswith(expected)


@given(json_texts, json_texts)
def test_without_the_record_nothing_of_it_is_sent(about: str, record: str) -> None:
    data = f'{{"object":{record},"event_data":{about}}}'
    body = body_of(event_of(data, object_type="order", object_id="5"), whole=False)
    assert body.endswith(b',"event_data":' + about.encode() + b',"data":{"type":"order","id":"5"}}')
    thin = body_of(event_of(record), whole=False)
    assert thin.endswith(b',"event_data":{},"data":{"type":null,"id":null}}')


@given(texts | st.none(), texts | st.none(), texts | st.none(), texts | st.none())
def test_hostile_names_stay_in_their_places(
    object_type: str | None, object_id: str | None, application: str | None, user: str | None
) -> None:
    fields = {"object_type": object_type, "object_id": object_id}
    event = event_of("{}", **fields, source_application=application, source_user=user)
    expected = {**fields, "source_user_type": application, "source_user_id": user}
    for whole in (False, True):
        body: dict[str, Any] = msgspec.json.decode(body_of(event, whole=whole))
        assert {name: body[name] for name in expected} == expected
        assert len(body) == 9
    thin = json.loads(body_of(event, whole=False))
    assert thin["data"] == {"type": object_type, "id": object_id}
    url = sent(event, method="GET", query={"a&b": "c=d"}).url
    assert url.isascii()
    assert parse_qsl(urlsplit(url).query, keep_blank_values=True) == [
        ("token", "abc"),
        ("a&b", "c=d"),
        ("event_id", "evt_1"),
        ("event_type", "order.created"),
        ("event_time", "1767261600"),
        *((name, value) for name, value in expected.items() if value is not None),
    ]
