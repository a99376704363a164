"""ShipStream's retries on virtual time, and what its receivers can rely on in each body."""

from __future__ import annotations

import itertools
import json
from base64 import b64encode
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hookline.core.model import Event, Subscription, SubscriptionState, Tenant
from hookline.ports import ErrorClass
from hookline.profiles import PROFILES, read_options
from tests.engine.endpoints import LATENCY, Endpoint, Reply
from tests.engine.stage import DAY, HOUR, MINUTE, Stage

COUNTER = "webhook_increment_id"
STATED = [
    *(count * MINUTE for count in (1, 2, 4, 8, 15, 30)),
    *(count * HOUR for count in (1, 2, 4, 8, 16, 24, 24, 24)),
]
ONE_RETRY = {"delays": [60.0]}


async def webhook(stage: Stage, host: str = "a.example", **spec: Any) -> tuple[Subscription, Endpoint]:
    """A webhook with the platform's own defaults."""
    endpoint = stage.endpoint(host)
    wanted = {"url": endpoint.url, "profile": "shipstream", "signing": {"secret": "2RUJ8NXLnLRrAj3"}, **spec}
    made = await stage.subscriptions.create(stage.shop, wanted)
    stage.notify()
    return made, endpoint


def counters(endpoint: Endpoint) -> list[int]:
    """The numbers in the messages, in the order of arrival."""
    return [arrival.body["message"][COUNTER] for arrival in endpoint.arrivals]


async def rest(stage: Stage, seconds: float) -> None:
    """Let time pass without a worker, as over night in a shop that is shut."""
    await stage.pass_time(1)
    await stage.worker.stop()
    await stage.pass_time(seconds)
    await stage.start_worker()


# --- retries ----------------------------------------------------------------------------------------------


async def test_a_call_is_retried_14_times_as_stated_then_failed_and_the_webhook_stays_on(stage: Stage):
    """Four days of 410, to which other profiles answer by disabling the subscription.

    No worker runs for most of the long waits, which saves the test their idle time; the times are exact all the same.
    """
    subscription, endpoint = await webhook(stage)
    endpoint.always(410)
    await stage.publish()
    for number, delay in enumerate(STATED, 1):
        await stage.until(lambda number=number: len(endpoint.arrivals) == number)
        if delay >= HOUR:
            await rest(stage, delay - MINUTE)
        else:
            await stage.pass_time(delay - 1)
        assert len(endpoint.arrivals) == number
    await stage.settled(subscription, 1)
    times = [arrival.at for arrival in endpoint.arrivals]
    delays = [later - earlier - LATENCY for earlier, later in pairwise(times)]
    assert len(times) == 15
    assert delays == pytest.approx(STATED, abs=0.05)
    assert sum(STATED) == 104 * HOUR
    assert await stage.states(subscription) == ["failed"]
    assert (await stage.now(subscription)).state is SubscriptionState.ACTIVE
    assert counters(endpoint) == [1] * 15
    assert [arrival.attempt for arrival in endpoint.arrivals] == list(range(1, 16))
    assert len({arrival.request.body for arrival in endpoint.arrivals}) == 1
    assert len({arrival.headers["x-plugin-hmac-sha256"] for arrival in endpoint.arrivals}) == 1
    await rest(stage, 2 * DAY)
    await stage.pass_time(MINUTE)
    assert len(times) == len(endpoint.arrivals)


@pytest.mark.parametrize("fraction", [0.0, 0.999])
async def test_chance_does_not_move_the_stated_delays(stage: Stage, fraction: float):
    stage.fraction = fraction
    subscription, endpoint = await webhook(stage)
    endpoint.answers(500, 500)
    await stage.publish()
    await stage.settled(subscription, 1)
    assert endpoint.gaps == pytest.approx([60, 120], abs=0.05)


@pytest.mark.parametrize(
    "reply",
    [Reply(301), Reply(304), Reply(400), Reply(404), Reply(410), Reply(429), Reply(500), Reply(599)]
    + [Reply(error=error) for error in (ErrorClass.CONNECT, ErrorClass.RESET, ErrorClass.TLS)],
    ids=lambda reply: str(reply.status if reply.error is None else reply.error.value),
)
async def test_every_answer_outside_2xx_is_a_failure_and_none_disables_the_webhook(
    stage: Stage, reply: Reply
):
    subscription, endpoint = await webhook(stage)
    endpoint.answers(reply)
    await stage.publish()
    await stage.settled(subscription, 1)
    assert endpoint.gaps == pytest.approx([60], abs=0.05)
    assert (await stage.now(subscription)).state is SubscriptionState.ACTIVE


@pytest.mark.parametrize("status", [200, 201, 202, 204, 206, 299])
async def test_every_answer_of_2xx_is_a_success(stage: Stage, status: int):
    subscription, endpoint = await webhook(stage)
    endpoint.always(status)
    await stage.publish()
    await stage.settled(subscription, 1)
    assert await stage.states(subscription) == ["succeeded"]
    assert len(endpoint.arrivals) == 1


async def test_the_connection_may_take_3_seconds_and_the_request_5(stage: Stage):
    subscription, endpoint = await webhook(stage)
    endpoint.answers(Reply(200, after=4.9), Reply(200, after=5.1))
    await stage.publish()
    await stage.settled(subscription, 1)
    await stage.publish()
    await stage.settled(subscription, 2)
    request = endpoint.arrivals[0].request
    assert (request.connect_timeout, request.total_timeout) == (3.0, 5.0)
    assert endpoint.gaps[1] == pytest.approx(65, abs=0.05)
    assert counters(endpoint) == [1, 2, 2]


async def test_a_failed_call_holds_up_no_later_one(stage: Stage):
    subscription, endpoint = await webhook(stage)
    endpoint.answers(500)
    await stage.publish()
    await stage.until(lambda: len(endpoint.arrivals) == 1)
    await stage.publish_many(3)
    await stage.settled(subscription, 4)
    assert counters(endpoint)[0] == counters(endpoint)[-1] == 1
    assert sorted(counters(endpoint)[1:-1]) == [2, 3, 4]


async def test_a_resend_has_the_number_that_the_event_had(stage: Stage):
    subscription, endpoint = await webhook(stage, retry=ONE_RETRY)
    endpoint.always(500)
    await stage.publish()
    await stage.settled(subscription, 1)
    endpoint.always(200)
    await stage.publish()
    await stage.settled(subscription, 2)
    (failed, _) = await stage.deliveries(subscription)
    await stage.resend(subscription, failed.position)
    await stage.until(lambda: len(endpoint.arrivals) == 4)
    assert counters(endpoint)[2:] == [2, 1]


# --- the counter ------------------------------------------------------------------------------------------


async def test_each_webhook_counts_for_itself_over_all_its_topics(stage: Stage):
    orders, at_orders = await webhook(stage, "orders.example", events=["order:*"])
    everything, at_everything = await webhook(stage, "all.example")
    for topic in ("order:created", "product:created", "order:canceled", "import:completed", "order:shipped"):
        await stage.publish(topic)
    await stage.settled(orders, 3)
    await stage.settled(everything, 5)
    numbered = {arrival.body["topic"]: arrival.body["message"][COUNTER] for arrival in at_orders.arrivals}
    assert numbered == {"order:created": 1, "order:canceled": 2, "order:shipped": 3}
    assert sorted(counters(at_everything)) == [1, 2, 3, 4, 5]


async def test_numbers_go_on_without_a_gap_after_a_crash_and_while_it_is_off(stage: Stage):
    subscription, endpoint = await webhook(stage)
    await stage.publish_many(5)
    await stage.settled(subscription, 5)
    await stage.restart()
    await stage.publish_many(5)
    await stage.settled(subscription, 10)
    await stage.pause(subscription)
    await stage.publish_many(5)
    await stage.pass_time(10 * MINUTE)
    assert len(set(counters(endpoint))) == 10
    await stage.resume(subscription)
    await stage.settled(subscription, 15)
    assert sorted(set(counters(endpoint))) == list(range(1, 16))


# --- any payload ------------------------------------------------------------------------------------------

TENANT = Tenant(7, "shop", "Shop", "shipstream", 0)
HOSTILE = [
    COUNTER,
    "webhook_",
    "event_timestamp",
    "topic",
    "message",
    "merchant_id",
    "",
    "data",
    "\\",
    '"',
    "é",
    "\x00",
]
"""Names that are ours, or nearly."""

names = st.sampled_from(HOSTILE) | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    | st.sampled_from([COUNTER, "\\u0077ebhook_increment_id", '"webhook_increment_id":1'])
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)


@st.composite
def texts(draw: st.DrawFn) -> bytes:
    """A value as publishers write JSON: escaped or not, with space in it and around it."""
    value = draw(values | st.dictionaries(names, values, max_size=5))
    written = json.dumps(
        value,
        ensure_ascii=draw(st.booleans()),
        indent=draw(st.sampled_from([None, 0, 2, "\t"])),
        separators=draw(st.sampled_from([None, (",", ":"), (" , ", " : ")])),
    )
    space = st.text(" \t\r\n", max_size=3)
    return f"{draw(space)}{written}{draw(space)}".encode()


def body(data: bytes, number: int = 1, **options: bool) -> bytes:
    event = Event(0, 1, 7, "evt_1", "order:created", data, 1_700_000_000_123, 1_700_000_000_123)
    profile = PROFILES["shipstream"]
    return profile.format(TENANT, read_options(profile, options)).body(event, number)


def pairs_of(text: bytes) -> list[tuple[str, Any]]:
    """The members of an object with all that occur twice."""
    return json.loads(text, object_pairs_hook=list)


def same(one: object, other: object) -> bool:
    """Equal, and numbers of the same kind."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


@given(texts(), st.integers(1, 2**63 - 1), st.booleans(), st.booleans())
@example(b"{}", 1, False, False)
@example(b" { } ", 1, True, True)
@example(b'{"webhook_increment_id":99}', 1, False, False)
@example(b'{"\\u0077ebhook_increment_id":99,"a":1}', 1, False, False)
@example(b'{"webhook\\u005fincrement\\u005fid":99,"a":"\\ud83d\\ude00"}', 1, False, False)
@example(b'{"webhook_increment_id":1,"webhook_increment_id":2,"x":3}', 5, False, False)
@example(b'{"event_timestamp":"mine"}', 1, True, False)
@example(b'[{"webhook_increment_id":99}]', 1, False, False)
@example(b'"webhook_increment_id"', 1, False, False)
@example(b"-0.0", 1, False, False)
def test_any_payload_survives_unchanged_with_one_counter(
    data: bytes, number: int, timestamp: bool, merchant: bool
):
    sent = body(data, number, event_timestamp=timestamp, merchant=merchant)
    envelope = json.loads(sent)
    keys = ["merchant_id", "merchant_code"] * merchant + ["topic", "message"]
    assert list(envelope) == keys
    assert envelope["topic"] == "order:created"
    told = [name for name, _ in pairs_of(sent.partition(b'"message":')[2][:-1])]
    assert told.count(COUNTER) == 1
    message = envelope["message"]
    assert message[COUNTER] == number
    ours = {COUNTER} | ({"event_timestamp"} if timestamp else set())
    value = json.loads(data)
    wanted = value if isinstance(value, dict) else {"data": value}
    theirs = {name: value for name, value in cast("dict[str, Any]", wanted).items() if name not in ours}
    assert same({name: value for name, value in message.items() if name not in ours}, theirs)


def test_numbers_keep_every_digit_that_the_publisher_wrote():
    sent = body(b'{"webhook_note":1.10,"price":100000000000000000000000.000000000000000001,"e":1E+2}')
    for digits in (b"1.10", b"100000000000000000000000.000000000000000001", b"1E+2"):
        assert digits in sent


@pytest.mark.parametrize("name", ["webhook_deep", "deep"])
def test_a_payload_nested_too_deeply_to_be_read_is_sent_whole(name: str):
    """It is stored if the publisher's own frames left it room; what follows it may have less."""
    deep = b"[" * 50_000 + b"]" * 50_000
    sent = body(b'{"%b":%b}' % (name.encode(), deep), 3)
    assert deep in sent
    assert sent.count(b'"webhook_increment_id":3') == 1


def test_the_time_of_the_event_has_an_offset():
    assert b'"event_timestamp":"2023-11-14T22:13:20.123+00:00"' in body(b"{}", event_timestamp=True)


# --- gaps -------------------------------------------------------------------------------------------------


def missing(numbers: list[int]) -> list[int]:
    """What a receiver knows from the numbers alone, whatever order they came in and however often."""
    return sorted(set(range(1, max(numbers, default=0) + 1)) - set(numbers))


@given(st.data())
def test_a_receiver_sees_a_gap_exactly_where_an_event_is_missing(data: st.DataObject):
    """Up to the newest that it has; that nothing came after it, nobody can see."""
    count = data.draw(st.integers(1, 30))
    payloads = itertools.cycle(data.draw(st.lists(texts(), min_size=1, max_size=3)))
    bodies = {number: body(next(payloads), number) for number in range(1, count + 1)}
    lost = data.draw(st.sets(st.integers(1, count)))
    kept = [number for number in bodies if number not in lost]
    again = data.draw(st.lists(st.sampled_from(kept), max_size=5)) if kept else []
    arrived = data.draw(st.permutations([*kept, *again]))
    numbers = [json.loads(bodies[number])["message"][COUNTER] for number in arrived]
    assert missing(numbers) == sorted(number for number in lost if number < max(kept, default=0))


@pytest.mark.parametrize(
    "failing", [set(), {"e3"}, {"e1", "e2", "e7"}, {f"e{number}" for number in range(1, 10)}]
)
async def test_gaps_in_what_was_accepted_are_the_events_that_failed(stage: Stage, failing: set[str]):
    """Through the engine: ten events, of which some are refused until they are given up."""
    subscription, endpoint = await webhook(stage, retry=ONE_RETRY)
    accepted: list[int] = []
    choose = endpoint._choose

    def by_number(arrival: Any) -> Reply:
        number = arrival.body["message"][COUNTER]
        if f"e{number}" in failing:
            return Reply(500)
        accepted.append(number)
        return choose(arrival)

    endpoint._choose = by_number
    await stage.publish_many(10)
    await stage.settled(subscription, 10)
    assert [f"e{number}" for number in missing(accepted)] == sorted(failing)


# --- the signature ----------------------------------------------------------------------------------------


async def test_the_signature_is_base64_of_the_hmac_of_the_whole_body(stage: Stage):
    import hashlib
    import hmac

    subscription, endpoint = await webhook(stage)
    await stage.publish(data={"unique_id": "100000015", "note": "Zoë"})
    await stage.settled(subscription, 1)
    (arrival,) = endpoint.arrivals
    raw = hmac.new(b"2RUJ8NXLnLRrAj3", arrival.request.body or b"", hashlib.sha256).digest()
    assert arrival.headers["x-plugin-hmac-sha256"] == b64encode(raw).decode()
    assert arrival.headers["content-type"] == "application/json"
    assert not {"webhook-id", "webhook-signature", "webhook-timestamp"} & set(arrival.headers)
