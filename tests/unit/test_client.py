"""The publisher's client against a server that fails in every way: nothing lost, nothing twice, clear errors."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from email.utils import format_datetime
from typing import Any

import pytest

from hookline.client import (
    AsyncHookline,
    BufferFull,
    Buffering,
    Closed,
    Event,
    Fault,
    Hookline,
    NotAllowed,
    NotSent,
    Published,
    Refused,
    SomeRefused,
    Unavailable,
    answers,
)
from hookline.client.servers import split_login
from tests.support.scripted import (
    Handler,
    Script,
    accept,
    answer,
    hang_up,
    refuse,
    scripted,
    slow,
    store_and_hang_up,
)
from tests.support.waiting import until

KEY = "hk_test"


@pytest.fixture
def server() -> Iterator[Script]:
    with scripted() as script:
        yield script


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "FIRST_PAUSE", 0.01)


# --- events ---------------------------------------------------------------------------------------------------


def test_an_event_has_its_id_before_it_is_sent():
    one, other = Event.of("order:created", {}), Event.of("order:created", {})
    assert re.fullmatch(r"evt_[0-9a-f]{32}", one.id)
    assert one.id != other.id
    assert json.loads(one.body)["id"] == one.id


def test_an_event_is_json_on_one_line():
    event = Event.of("a", {"text": "two\nlines", "name": "Müller"}, {"id": "e1", "key": "k", "object": None})
    assert b"\n" not in event.body
    assert json.loads(event.body) == {
        "id": "e1", "type": "a", "key": "k", "data": {"text": "two\nlines", "name": "Müller"},
    }  # fmt: skip


def test_times_are_written_with_their_zone():
    moment = datetime(2026, 3, 1, 9, 30, tzinfo=timezone(timedelta(hours=1)))
    assert b'"occurred_at":"2026-03-01T09:30:00+01:00"' in Event.of("a", 1, {"occurred_at": moment}).body
    with pytest.raises(ValueError, match="time zone"):
        Event.of("a", 1, {"occurred_at": moment.replace(tzinfo=None)})


@pytest.mark.parametrize(
    ("type", "event_id"), [("a b", "e1"), ("", "e1"), ("a", "e.1"), ("a", "x" * 129), ("a", "")]
)
def test_what_no_server_accepts_is_refused_at_once(type: str, event_id: str):
    with pytest.raises(ValueError, match="takes 1 to 128"):
        Event.of(type, {}, {"id": event_id})


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"occurred_at": "yesterday"}, "occurred_at"),
    ({"occurred_at": "1969-12-31T23:59:59Z"}, "before 1970"),
    ({"occurred_at": "9999-12-31T23:59:59-05:00"}, "after the year 9999"),
    ({"occurred_at": 1_700_000_000}, "occurred_at: is a int"),
    ({"key": 4471}, "key: is a int"),
    ({"key": ""}, "key: takes 1 to 256"),
    ({"correlation_id": "a\nb"}, "correlation_id: takes"),
    ({"object": {"type": "order"}}, "object: takes a dict of id and type"),
    ({"object": {"type": "order", "id": 4471}}, "object.id: is a int"),
    ({"object": "order"}, "object: is a str"),
    ({"source": {"user": "u"}}, "source: takes"),
    ({"colour": "red"}, "colour: an event has no such field"),
]


@pytest.mark.parametrize(("fields", "words"), WRONG)
def test_fields_that_no_server_accepts_are_refused_at_once(fields: Any, words: str):
    with pytest.raises((ValueError, TypeError), match=words):
        Event.of("a", {}, fields)


def test_an_id_is_text_in_the_body_too():
    given: Any = 4471
    assert json.loads(Event.of("a", 1, {"id": given}).body)["id"] == "4471"
    assert Event.of("a", 1, {"source": {}, "occurred_at": "2026-03-01T09:30:00"}).body


def test_types_of_hooklines_own_are_refused_at_once():
    with pytest.raises(ValueError, match="hookline"):
        Event.of("hookline.delivery.failed", {})


def test_what_is_no_json_is_refused_at_once_or_made_so():
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(ValueError, match="nested"):
        Event.of("a", nested)
    with pytest.raises(TypeError):
        Event.of("a", Decimal("1.50"))
    with pytest.raises(ValueError, match="JSON"):
        Event.of("a", float("nan"))
    assert b'"data":"1.50"' in Event.of("a", Decimal("1.50"), default=str).body


@pytest.mark.parametrize("key", ["", "two words", "line\nbreak", "ö"])
def test_a_key_that_would_break_a_header_is_refused(key: str):
    with pytest.raises(ValueError, match="printable"):
        Hookline("http://127.0.0.1:1", key)


@pytest.mark.parametrize("url", ["", "hookline.example", "ftp://x", "http://"])
def test_what_is_no_url_is_refused(url: str):
    with pytest.raises(ValueError, match="url"):
        Hookline(url, KEY)


# --- one by one ---------------------------------------------------------------------------------------------------


def test_publish_returns_when_it_is_stored(server: Script):
    with Hookline(server.url + "/prefix/", KEY, tenant="shop") as hookline:
        first = hookline.publish("order:created", {"n": 1}, id="e1")
        again = hookline.publish("order:created", {"n": 1}, id="e1")
    assert (first.id, first.duplicate, again.duplicate) == ("e1", False, True)
    assert server.stored["e1"]["data"] == {"n": 1}
    assert [path for _, path, _ in server.requests] == ["/prefix/v1/events"] * 2
    sent = server.headers[0]
    assert (sent["Authorization"], sent["Hookline-Tenant"]) == (f"Bearer {KEY}", "shop")


@pytest.mark.parametrize(
    "trouble",
    [
        hang_up, store_and_hang_up, answer(503), answer(429, b"{}", Retry_After="0"), answer(500, b"<html>"),
        answer(502), answer(202, b"not json"), answer(200, {"id": "another"}), answer(408),
    ],
)  # fmt: skip
def test_trouble_that_passes_is_waited_for(server: Script, trouble: answers.Any):
    server.steps = [trouble, trouble, trouble]
    with Hookline(server.url, KEY) as hookline:
        assert hookline.publish("order:created", {"n": 1}, id="e1").id == "e1"
    assert set(server.arrivals) == {"e1"}
    assert list(server.stored) == ["e1"]


def test_what_is_refused_raises_with_all_faults(server: Script):
    server.always = refuse(
        "schema_violation", 422, ("data.total", "is required"), ("data.currency", "is no text")
    )
    with Hookline(server.url, KEY) as hookline, pytest.raises(Refused) as caught:
        hookline.publish("order:created", {}, id="e1")
    error = caught.value
    assert (error.status, error.code, error.event and error.event.id) == (422, "schema_violation", "e1")
    assert error.faults == (Fault("data.total", "is required"), Fault("data.currency", "is no text"))
    assert "data.total: is required" in str(error)
    assert len(server.requests) == 1


def test_a_refusal_by_a_proxy_shows_what_it_said(server: Script):
    server.always = answer(413, b"<html>Request  Entity\nToo Large</html>")
    with Hookline(server.url, KEY) as hookline, pytest.raises(Refused, match="Request Entity Too Large"):
        hookline.publish("a", {})


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_may_not_publish_is_told_apart(server: Script, status: int):
    server.always = refuse("unauthorized", status)
    with Hookline(server.url, KEY) as hookline, pytest.raises(NotAllowed):
        hookline.publish("a", {})


def test_patience_ends_with_the_event_in_hand(server: Script):
    server.always = answer(503, {"detail": "the disk is full"})
    with Hookline(server.url, KEY, patience=0.2) as hookline, pytest.raises(Unavailable) as caught:
        hookline.publish("a", {"n": 1}, id="e1")
    assert [event.id for event in caught.value.events] == ["e1"]
    assert "the disk is full" in str(caught.value)
    assert len(server.requests) > 2


def test_a_server_that_is_not_there_is_unavailable():
    with (
        Hookline("http://127.0.0.1:1", KEY, patience=0.05) as hookline,
        pytest.raises(Unavailable, match=r"no answer from 127\.0\.0\.1:1"),
    ):
        hookline.publish("a", {})


def test_a_server_that_says_nothing_is_given_up(server: Script):
    never = threading.Event()
    server.always = slow(never)
    with (
        Hookline(server.url, KEY, patience=0.1, timeout=0.1) as hookline,
        pytest.raises(Unavailable, match="timed out"),
    ):
        hookline.publish("a", {})
    never.set()


def test_retry_after_is_kept_to(server: Script):
    server.steps = [answer(429, b"", Retry_After="1")]
    with Hookline(server.url, KEY) as hookline:
        hookline.publish("a", {})
    (first, _, _), (second, _, _) = server.requests
    assert second - first >= 1


def test_retry_after_as_a_date_or_nonsense():
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 25 < answers.retry_after(soon) <= 30
    assert answers.retry_after("soon") == answers.retry_after("") == answers.retry_after("-5") == 0
    assert answers.retry_after("86400") == answers.LONGEST_RETRY_AFTER


def test_pauses_grow_to_a_bound_and_are_not_all_the_same():
    pauses = [answers.pause_before(tries) for tries in range(1, 2000)]
    assert max(pauses) <= answers.LONGEST_PAUSE
    assert len(set(pauses[100:])) > 1000
    assert answers.pause_before(1, 60) == 60


def test_connections_are_kept_and_a_dropped_one_is_no_failure(server: Script):
    with Hookline(server.url, KEY, patience=0) as hookline:
        hookline.publish("a", 1)
        server.steps = [store_and_hang_up]
        assert hookline.publish("a", 2, id="e2").duplicate is True


def test_threads_share_a_client(server: Script):
    with Hookline(server.url, KEY, connections=3) as hookline:
        threads = [
            threading.Thread(target=lambda: [hookline.publish("a", n) for n in range(20)]) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert len(server.stored) == 160


def test_close_ends_the_patience_of_others(server: Script):
    server.always = answer(503)
    hookline = Hookline(server.url, KEY, patience=30)
    failures: list[Exception] = []

    def publish() -> None:
        try:
            hookline.publish("a", 1)
        except Unavailable as error:
            failures.append(error)

    thread = threading.Thread(target=publish)
    thread.start()
    while not server.requests:
        time.sleep(0.001)
    hookline.close()
    thread.join(10)
    assert not thread.is_alive()
    assert failures
    with pytest.raises(Closed):
        hookline.publish("a", 1)


def test_many_events_are_sent_in_batches_and_each_has_its_result(server: Script):
    with Hookline(server.url, KEY) as hookline:
        events = [hookline.event("a", n, id=f"e{n}") for n in range(1200)]
        server.steps = [hang_up, accept, store_and_hang_up]
        results = hookline.publish_many(events)
    assert [result.id for result in results if not isinstance(result, Refused)] == [
        event.id for event in events
    ]
    assert max(count for _, _, count in server.requests) == 500


def test_patience_counts_from_the_last_answer_not_from_the_first_batch(server: Script):
    def takes_its_time(handler: Handler) -> None:
        time.sleep(0.6)
        accept(handler)

    server.always = takes_its_time
    server.steps = [takes_its_time, takes_its_time, takes_its_time, answer(503)]
    with Hookline(server.url, KEY, patience=1.5) as hookline:
        results = hookline.publish_many([hookline.event("a", n) for n in range(2000)])
    assert len(results) == len(server.stored) == 2000


# --- buffered --------------------------------------------------------------------------------------------------


def test_the_buffer_sends_in_order_and_in_batches(server: Script):
    with Hookline(server.url, KEY, buffered=True) as hookline:
        ids = [hookline.publish("a", n, id=f"e{n}").id for n in range(3000)]
        hookline.flush()
        assert hookline.pending == 0
        assert list(server.stored) == ids
    assert server.arrivals == ids
    assert len(server.requests) < 100


@pytest.mark.parametrize(
    "trouble",
    [hang_up, store_and_hang_up, answer(503), answer(429, b"", Retry_After="0"), answer(200, {"data": []})],
)
def test_trouble_loses_nothing_of_the_buffer(server: Script, trouble: answers.Any):
    server.steps = [trouble, trouble, accept, trouble, accept]
    with Hookline(server.url, KEY, buffered=Buffering(linger=0)) as hookline:
        ids = [hookline.publish("a", n, id=f"e{n}").id for n in range(2000)]
    assert list(server.stored) == ids


def test_single_events_of_a_batch_may_have_to_wait(server: Script):
    def every_other(handler: answers.Any) -> None:
        results = handler.store()
        for number, event in enumerate(handler.events):
            if number % 2:
                del handler.script.stored[event["id"]]
                results[number] = {"status": 503, "error": {"status": 503, "code": "overloaded"}}
        handler.answer(200, {"data": results})

    server.steps = [every_other, every_other, every_other]
    with Hookline(server.url, KEY, buffered=True) as hookline:
        ids = {hookline.publish("a", n, id=f"e{n}").id for n in range(100)}
    assert set(server.stored) == ids


def test_refused_events_are_told_to_the_callback(server: Script):
    told: list[Refused] = []
    server.always = refuse("schema_violation", 422, ("data", "is wrong"))
    with Hookline(server.url, KEY, buffered=True, on_refused=told.append) as hookline:
        hookline.publish("a", 1, id="e1")
        hookline.publish("a", 2, id="e2")
    assert [one.event and one.event.id for one in told] == ["e1", "e2"]
    assert told[0].faults == (Fault("data", "is wrong"),)


def test_without_a_callback_flush_and_close_raise_what_was_refused(server: Script):
    server.always = refuse("schema_violation")
    hookline = Hookline(server.url, KEY, buffered=True)
    for number in range(200):
        hookline.publish("a", number)
    with pytest.raises(SomeRefused) as caught:
        hookline.flush()
    assert caught.value.count == 200
    assert len(caught.value.refused) == 100
    hookline.flush()
    hookline.publish("a", 1)
    with pytest.raises(SomeRefused):
        hookline.close()


def test_a_callback_that_fails_stops_nothing(server: Script):
    def broken(_: Refused) -> None:
        raise ZeroDivisionError

    server.steps = [refuse("schema_violation")]
    with Hookline(server.url, KEY, buffered=Buffering(linger=0), on_refused=broken) as hookline:
        hookline.publish("a", 1)
        hookline.flush()
        hookline.publish("a", 2, id="e2")
    assert list(server.stored) == ["e2"]


def test_a_batch_that_is_too_large_for_something_on_the_way_is_halved(server: Script):
    def narrow(handler: answers.Any) -> None:
        (accept if len(handler.events) <= 10 and "big" not in str(handler.events) else answer(413))(handler)

    told: list[Refused] = []
    server.always = narrow
    with Hookline(server.url, KEY, buffered=True, on_refused=told.append) as hookline:
        ids = [hookline.publish("a", n, id=f"e{n}").id for n in range(100)]
        hookline.publish("a", "big", id="big")
    assert sorted(server.stored) == sorted(ids)
    assert [one.event and one.event.id for one in told] == ["big"]


@pytest.mark.parametrize("status", [401, 403, 404, 405])
def test_a_wrong_key_or_url_drops_nothing(server: Script, status: int):
    server.steps = [answer(status), answer(status)]
    with Hookline(server.url, KEY, buffered=True) as hookline:
        hookline.publish("a", 1, id="e1")
    assert list(server.stored) == ["e1"]


def test_a_full_buffer_says_so_and_takes_again_when_there_is_room(server: Script):
    gate = threading.Event()
    server.always = slow(gate)
    bounds = Buffering(events=10, full_timeout=0.05)
    with Hookline(server.url, KEY, buffered=bounds) as hookline:
        for number in range(10):
            hookline.publish("a", number)
        with pytest.raises(BufferFull, match="10 events wait"):
            hookline.publish("a", 10)
        gate.set()
        hookline.flush()
        hookline.publish("a", 11)
    assert len(server.stored) == 11


def test_the_buffer_is_bounded_in_bytes_too(server: Script):
    gate = threading.Event()
    server.always = slow(gate)
    with Hookline(server.url, KEY, buffered=Buffering(bytes=5000, full_timeout=0)) as hookline:
        hookline.publish("a", "x" * 10_000)  # larger than the bound, but alone
        with pytest.raises(BufferFull):
            hookline.publish("a", "y")
        gate.set()
    assert len(server.stored) == 1


def test_publish_waits_for_room(server: Script):
    gate = threading.Event()
    server.always = slow(gate)
    with Hookline(server.url, KEY, buffered=Buffering(events=1, full_timeout=20)) as hookline:
        hookline.publish("a", 1)
        later = threading.Timer(0.05, gate.set)
        later.start()
        hookline.publish("a", 2)
        assert gate.is_set()
    later.join()
    assert len(server.stored) == 2


def test_flush_has_an_end_and_the_buffer_goes_on(server: Script):
    gate = threading.Event()
    server.always = slow(gate)
    with Hookline(server.url, KEY, buffered=True) as hookline:
        hookline.publish("a", 1, id="e1")
        with pytest.raises(NotSent) as caught:
            hookline.flush(0.05)
        assert [event.id for event in caught.value.events] == ["e1"]
        gate.set()
        hookline.flush()
    assert list(server.stored) == ["e1"]


def test_close_gives_up_after_its_time_and_hands_back_what_is_left(server: Script):
    server.always = answer(503, {"detail": "away"})
    hookline = Hookline(server.url, KEY, buffered=True)
    ids = [hookline.publish("a", n, id=f"e{n}").id for n in range(700)]
    while len(server.requests) < 2:  # so the first one was answered
        time.sleep(0.001)
    with pytest.raises(NotSent, match=r"700 events are not confirmed.*away") as caught:
        hookline.close(0.1)
    assert [event.id for event in caught.value.events] == ids
    with pytest.raises(Closed):
        hookline.publish("a", 1)
    hookline.close()


def test_an_error_of_the_program_is_not_hidden_by_closing(server: Script, caplog: pytest.LogCaptureFixture):
    server.always = refuse("schema_violation")

    def program() -> None:
        with Hookline(server.url, KEY, buffered=True) as hookline:
            hookline.publish("a", 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        program()
    assert "closing failed" in caplog.text


def test_trouble_is_logged_once_not_for_every_try(server: Script, caplog: pytest.LogCaptureFixture):
    server.steps = [answer(503)] * 5
    with Hookline(server.url, KEY, buffered=True) as hookline:
        hookline.publish("a", 1)
    assert caplog.text.count("events wait to be sent") == 1


# --- asyncio ---------------------------------------------------------------------------------------------------


async def test_async_publish_returns_when_it_is_stored(server: Script):
    server.steps = [store_and_hang_up]
    async with AsyncHookline(server.url, KEY) as hookline:
        await asyncio.gather(*(hookline.publish("a", n, id=f"e{n}") for n in range(50)))
        results = await hookline.publish_many([hookline.event("a", 1, id="e1")])
    assert results == [Published("e1", duplicate=True)]
    assert len(server.stored) == 50


async def test_async_buffered(server: Script):
    gate = threading.Event()
    server.always = slow(gate)
    async with AsyncHookline(server.url, KEY, buffered=Buffering(events=10, full_timeout=0.02)) as hookline:
        for number in range(10):
            assert (await hookline.publish("a", number)).duplicate is None
        with pytest.raises(BufferFull):
            await hookline.publish("a", 10)
        assert hookline.pending == 10
        gate.set()
        await hookline.flush()
        assert hookline.pending == 0
    assert len(server.stored) == 10


async def test_async_errors_are_the_same(server: Script):
    server.always = refuse("schema_violation")
    async with AsyncHookline(server.url, KEY) as hookline:
        with pytest.raises(Refused):
            await hookline.publish("a", 1)
    with pytest.raises(SomeRefused):
        async with AsyncHookline(server.url, KEY, buffered=True) as hookline:
            await hookline.publish("a", 1)


async def test_async_patience_is_the_same_for_many():
    started = time.monotonic()
    async with AsyncHookline("http://127.0.0.1:9", KEY, patience=0.5, connections=1) as hookline:
        results = await asyncio.gather(*(hookline.publish("a", n) for n in range(20)), return_exceptions=True)
    assert {type(result) for result in results} == {Unavailable}
    assert time.monotonic() - started < 5


async def test_async_ending_does_not_wait_for_threads_that_wait_for_the_server(server: Script):
    server.always = answer(503)
    hookline = AsyncHookline(server.url, KEY, buffered=True, connections=1)
    event = hookline.event("a", 1)
    publishing = [asyncio.create_task(hookline.publish_many([event])) for _ in range(3)]
    await hookline.publish("a", 2)
    await until(lambda: server.requests, "the only thread is busy")
    started = time.monotonic()
    with pytest.raises(NotSent):
        await hookline.flush(0.1)
    with pytest.raises(NotSent):
        await hookline.close(0.1)
    assert time.monotonic() - started < 5
    results = await asyncio.gather(*publishing, return_exceptions=True)
    assert {type(result) for result in results} <= {Unavailable, Closed}


@pytest.mark.parametrize("buffered", [False, True])
async def test_async_after_the_end_it_says_so(server: Script, buffered: bool):
    async with AsyncHookline(server.url, KEY, buffered=buffered) as hookline:
        await hookline.publish("a", 1)
    await hookline.close()
    with pytest.raises(Closed):
        await hookline.publish("a", 2)
    with pytest.raises(Closed):
        await hookline.publish_many([hookline.event("a", 3)])


async def test_waiting_does_not_hold_up_the_loop(server: Script):
    gate = threading.Event()
    server.always = slow(gate)
    async with AsyncHookline(server.url, KEY) as hookline:
        publishing = asyncio.create_task(hookline.publish("a", 1))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not publishing.done()
        gate.set()
        await publishing


# --- addresses of NATS --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "servers", "login"),
    [
        ("nats://a:4222", ["nats://a:4222"], {}),
        ("a:4222, tls://b", ["nats://a:4222", "tls://b"], {}),
        ("nats://me:p%40ss@a,nats://b", ["nats://a", "nats://b"], {"user": "me", "password": "p@ss"}),
        ("nats://t%2Fken@[::1]:4222", ["nats://[::1]:4222"], {"token": "t/ken"}),
    ],
)
def test_a_login_in_an_address_is_decoded(url: str, servers: list[str], login: dict[str, str]):
    assert split_login(url) == (servers, login)
