"""The bus source against a real NATS server: every event once in the log, or as a dead letter with its reason."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from nats.aio.msg import Msg
from nats.errors import Error
from nats.js.api import AckPolicy, ConsumerConfig, DiscardPolicy, RetentionPolicy
from nats.js.errors import APIError, NoStreamResponseError

from hookline.client import NatsHookline
from hookline.client.subjects import message_id_of, tail_of, type_of
from hookline.core.errors import SettingsInvalid
from hookline.core.model import EventType, SchemaMode
from hookline.engine.publish import PublishLimits
from hookline.sources.nats import NatsOptions, inspect_bus
from hookline.sources.nats.intake import Intake
from tests.support.bus import Bus, bus
from tests.support.nats import Names, NatsServer, client, publish_raw, shared, single
from tests.support.waiting import eventually, until


@pytest.fixture(scope="module")
def nats_url() -> Iterator[str]:
    with shared() as url:
        yield url


@pytest.fixture
async def line(nats_url: str, tmp_path: Path) -> AsyncGenerator[Bus]:
    async with bus(nats_url, tmp_path) as made:
        yield made


def event(event_id: str | None = None, type: str = "order:created", **fields: Any) -> bytes:
    given = {} if event_id is None else {"id": event_id}
    return json.dumps({"type": type, "data": {"n": 1}, **given, **fields}).encode()


async def arrives(line: Bus, *ids: str) -> None:
    """Return once exactly these are in the log and nothing is left on the bus."""
    await eventually(line.ids, lambda found: sorted(found) == sorted(ids), "the events are in the log")
    await eventually(line.left, lambda left: left == 0, "the stream is empty")


# --- the way in --------------------------------------------------------------------------------------------


async def test_an_event_goes_from_a_plain_client_into_the_log(line: Bus):
    body = b'{"id":"e1", "type":"order:created","data": {"total" : 12.50},"key":"4471"}'
    async with line.feeding():
        await line.send("order:created", body, {"Nats-Msg-Id": "e1"})
        await arrives(line, "e1")
    (stored,) = await line.stored()
    assert (stored.type, stored.data, stored.key) == ("order:created", b'{"total" : 12.50}', "4471")


@pytest.mark.parametrize(
    "type", ["order:created", "order.created", "a/b-c_d", ".hidden", "twice..dotted", "ends.", "...", "%"]
)
def test_a_type_and_its_subject_name_each_other(type: str):
    assert type_of(tail_of(type)) == type or type == "%"
    assert all(tail_of(type).split("."))


@pytest.mark.parametrize("type", ["order.created", "a/b-c_d:e", ".hidden", "twice..dotted", "ends."])
async def test_every_name_of_a_type_has_a_subject(line: Bus, type: str):
    async with line.feeding():
        await line.send(tail_of(type), event("e1", type))
        await arrives(line, "e1")


async def test_many_events_share_few_commits(line: Bus):
    ids = [f"e{number}" for number in range(2000)]
    for event_id in ids:
        await line.nc.publish(f"{line.names.subject}.shop.order:created", event(event_id))
    await eventually(line.left, lambda left: left == len(ids), "all are on the bus")
    async with line.feeding():
        await arrives(line, *ids)
    assert await line.ids() == ids
    assert line.log.commits <= 12
    assert line.metrics.bus_received.value == len(ids)
    assert line.metrics.bus_redelivered.value == 0


async def test_events_of_several_tenants_share_commits(line: Bus):
    tenants = [f"shop-{number}" for number in range(10)]
    for tenant in tenants:
        await line.new_tenant(tenant)
    for number in range(100):
        await line.send("order:created", event(f"e{number}"), tenant=tenants[number % 10])
    async with line.feeding():
        await arrives(line, *(f"e{number}" for number in range(100)))
    assert line.log.commits <= 5
    assert len({one.tenant_no for one in await line.stored()}) == 10


async def test_a_message_of_the_greatest_size_goes_through(line: Bus):
    text = "x" * (line.nc.max_payload - 200)
    async with line.feeding():
        await line.send("order:created", event("big", data={"text": text}))
        await line.send("order:created", event("small"))
        await arrives(line, "big", "small")


async def test_a_request_is_bounded_in_bytes(nats_url: str, tmp_path: Path):
    """Seven messages of half a megabyte do not fit into one request of a bit more than one."""
    async with bus(nats_url, tmp_path, batch_bytes=1) as line:
        for number in range(7):
            await line.send("order:created", event(f"e{number}", data={"text": "x" * 500_000}))
        async with line.feeding():
            await arrives(line, *(f"e{number}" for number in range(7)))
        assert line.log.commits >= 3


# --- ids -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("message_id", ["e1", "shop/e1"])
async def test_the_message_id_is_the_id_of_an_event_without_one(line: Bus, message_id: str):
    async with line.feeding():
        await line.send("order:created", event(None), {"Nats-Msg-Id": message_id})
        await line.send("order:created", event(None, id=None), {"Nats-Msg-Id": "shop/e2"})
        await arrives(line, "e1", "e2")


async def test_an_event_without_any_id_keeps_the_one_it_is_given(line: Bus):
    """The acknowledgement is lost, the message comes again: the log has to know it."""
    async with line.feeding():
        await line.send("order:created", event(None))
        await eventually(line.left, lambda left: left == 0, "it is stored")
    (first,) = await line.ids()
    assert first.startswith("evt_")
    line.log.down = True
    async with line.feeding():
        await line.send("order:created", event(None))
        await until(lambda: line.metrics.bus_returned.value >= 1, "it was given back")
        line.log.down = False
        await eventually(line.left, lambda left: left == 0, "it is stored")
    assert len(await line.ids()) == 2


async def test_the_same_event_twice_is_stored_once(line: Bus):
    async with line.feeding():
        await line.send("order:created", event("e1"))
        await line.send("order:created", event("e1"))
        await line.send("order:created", event("e2"))
        await arrives(line, "e1", "e2")
    assert line.metrics.bus_dead_letters.value == 0


async def test_two_tenants_may_use_the_same_id(line: Bus):
    await line.new_tenant("mart")
    async with line.feeding():
        for tenant in ("shop", "mart"):
            await line.send(
                "order:created", event("e1"), {"Nats-Msg-Id": message_id_of(tenant, "e1")}, tenant
            )
        await arrives(line, "e1", "e1")


# --- dead letters ----------------------------------------------------------------------------------------------


DEAD: dict[str, tuple[str, bytes, dict[str, str], str, str]] = {
    "not JSON": ("order:created", b"{", {}, "invalid_json", "body"),
    "not an object": ("order:created", b"[1]", {}, "invalid_input", "body"),
    "not even text": ("order:created", b"\xff\xfe", {}, "invalid_json", "body"),
    "no type": ("order:created", b'{"data":{}}', {}, "invalid_input", "body"),
    "a field nobody knows": ("order:created", event("e1", colour="red"), {}, "invalid_input", "body"),
    "a wrong field": ("order:created", event("e1", key=""), {}, "invalid_input", "key"),
    "an id with a full stop": ("order:created", event("a.b"), {}, "invalid_input", "id"),
    "a name of our own": ("hookline.x", event("e1", "hookline.x"), {}, "invalid_input", "type"),
    "another subject": ("order:paid", event("e1"), {}, "invalid_input", "subject"),
    "another message id": (
        "order:created", event("e1"), {"Nats-Msg-Id": "e2"}, "invalid_input", "Nats-Msg-Id",
    ),
    "another tenant's message id": (
        "order:created", event("e1"), {"Nats-Msg-Id": "mart/e1"}, "invalid_input", "Nats-Msg-Id",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DEAD)
async def test_a_dead_letter_tells_why(line: Bus, case: str):
    tail, payload, headers, code, place = DEAD[case]
    async with line.feeding():
        await line.send(tail, payload, headers)
        (letter,) = await eventually(line.dead, lambda dead: len(dead) == 1, "there is a dead letter")
        await eventually(line.left, lambda left: left == 0, "the message has ended")
    assert letter.subject == f"{line.names.dead_subject}.shop"
    assert letter.data == payload
    assert letter.headers["Hookline-Code"] == code
    assert letter.headers["Hookline-Subject"] == f"{line.names.subject}.shop.{tail}"
    assert letter.headers["Hookline-Stream"] == line.names.stream
    assert letter.headers["Hookline-Sequence"] == "1"
    assert letter.headers["Hookline-Detail"].isascii()
    if headers:
        assert letter.headers["Hookline-Message-Id"] == headers["Nats-Msg-Id"]
    if code != "invalid_json":
        assert place in [fault["field"] for fault in json.loads(letter.headers["Hookline-Faults"])]
    assert await line.ids() == []
    assert line.metrics.bus_dead_letters.value == 1


async def test_an_unknown_tenant_ends_as_a_dead_letter(line: Bus):
    async with line.feeding():
        await line.send("order:created", event("e1"), tenant="nobody")
        (letter,) = await eventually(line.dead, lambda dead: len(dead) == 1, "there is a dead letter")
    assert letter.subject == f"{line.names.dead_subject}.nobody"
    assert letter.headers["Hookline-Code"] == "not_found"


async def test_a_violated_schema_ends_as_a_dead_letter_with_all_faults(line: Bus):
    tenant = await line.new_tenant("strict", SchemaMode.STRICT)
    schema = b'{"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"string"}}}'
    await line.storage.put_event_type(EventType(tenant.no, "order:created", "", 1, 0, 0, schema=schema))
    async with line.feeding():
        await line.send("order:created", event("e1", data={"a": "ä", "b": 2}), tenant="strict")
        (letter,) = await eventually(line.dead, lambda dead: len(dead) == 1, "there is a dead letter")
    assert letter.headers["Hookline-Code"] == "schema_violation"
    assert {"data.a", "data.b"} <= {one["field"] for one in json.loads(letter.headers["Hookline-Faults"])}


async def test_other_content_under_a_known_id_ends_as_a_dead_letter(line: Bus):
    async with line.feeding():
        await line.send("order:created", event("e1"))
        await arrives(line, "e1")
        await line.send("order:created", event("e1", data={"n": 2}))
        (letter,) = await eventually(line.dead, lambda dead: len(dead) == 1, "there is a dead letter")
    assert letter.headers["Hookline-Code"] == "event_id_conflict"
    assert [one.data for one in await line.stored()] == [b'{"n": 1}']


async def test_an_event_over_the_limit_ends_as_a_dead_letter(nats_url: str, tmp_path: Path):
    async with bus(nats_url, tmp_path, PublishLimits(event_bytes=1000)) as line, line.feeding():
        await line.send("order:created", event("e1", data={"text": "x" * 2000}))
        (letter,) = await eventually(line.dead, lambda dead: len(dead) == 1, "there is a dead letter")
        assert letter.headers["Hookline-Code"] == "too_large"


async def test_a_dead_letter_without_room_for_its_headers_is_cut_and_says_so(line: Bus):
    payload = b"[" + b" " * (line.nc.max_payload - 2) + b"]"
    async with line.feeding():
        await line.send("order:created", payload)
        (letter,) = await eventually(line.dead, lambda dead: len(dead) == 1, "there is a dead letter")
        await eventually(line.left, lambda left: left == 0, "the message has ended")
    assert letter.headers["Hookline-Truncated"] == str(len(payload))
    assert payload.startswith(letter.data)
    assert len(letter.data) > len(payload) - 2000


async def test_a_dead_letter_that_fits_without_its_faults_is_whole(line: Bus):
    tenant = await line.new_tenant("mart", SchemaMode.STRICT)
    schema = json.dumps(
        {"type": "object", "required": [f"field{number:03}" for number in range(50)]}
    ).encode()
    await line.storage.put_event_type(
        EventType(tenant.no, "order:created", "An order", 1, 0, 0, schema=schema)
    )
    start = b'{"id":"e1","type":"order:created","data":{"x":"'
    payload = start + b"x" * (line.nc.max_payload - len(start) - 1000) + b'"}}'
    async with line.feeding():
        await line.send("order:created", payload, tenant="mart")
        (letter,) = await eventually(line.dead, lambda dead: len(dead) == 1, "there is a dead letter")
    assert letter.headers["Hookline-Code"] == "schema_violation"
    assert letter.data == payload
    assert "Hookline-Truncated" not in letter.headers


async def test_bad_messages_do_not_hold_up_the_good_ones(line: Bus):
    for number in range(50):
        await line.send("order:created", event(f"e{number}") if number % 2 else b"{")
    async with line.feeding():
        await arrives(line, *(f"e{number}" for number in range(1, 50, 2)))
    assert len(await line.dead()) == 25


@pytest.mark.parametrize("subject", [b"%b.shop.order\xff", b"%b.sh\xffop.order:created", b"%b.shop.ord\xe9r"])
async def test_a_subject_that_is_no_text_ends_as_a_dead_letter(line: Bus, subject: bytes):
    name = subject % line.names.subject.encode()
    async with line.feeding():
        await asyncio.to_thread(publish_raw, line.options.url, name, event("bad"))
        await line.send("order:created", event("e1"))
        await arrives(line, "e1")
    (letter,) = await line.dead()
    assert letter.headers["Hookline-Subject"] == name.decode(errors="backslashreplace")
    assert letter.data == event("bad")


@pytest.mark.parametrize("headers", [b"rubbish", b"NATS/1.0", b"NATS/1.0 503 \xff\r\n\r\n", b"NATS/1.0 \xff"])
async def test_headers_that_are_none_do_not_matter(line: Bus, headers: bytes):
    subject = f"{line.names.subject}.shop.order:created".encode()
    async with line.feeding():
        await asyncio.to_thread(publish_raw, line.options.url, subject, event("e1"), headers)
        await line.send("order:created", event("e2"))
        await arrives(line, "e1", "e2")


async def test_a_message_that_crashes_the_publisher_does_not_stop_the_others(
    line: Bus, monkeypatch: pytest.MonkeyPatch
):
    check = line.publisher.check

    async def crashing(tenant: Any, body: bytes) -> Any:
        if b"crash" in body:
            raise ZeroDivisionError
        return await check(tenant, body)

    monkeypatch.setattr(line.publisher, "check", crashing)
    for event_id in ("e1", "crash", "e2"):
        await line.send("order:created", event(event_id))
    async with line.feeding():
        await arrives(line, "e1", "e2")
        (letter,) = await eventually(line.dead, lambda dead: len(dead) == 1, "there is a dead letter")
    assert letter.headers["Hookline-Code"] == "internal_error"


async def test_a_stream_of_dead_letters_that_was_removed_is_made_again(line: Bus):
    async with line.feeding():
        await line.send("order:created", event("e1"))
        await arrives(line, "e1")
        await line.js.delete_stream(line.names.dead_stream)
        await line.send("order:created", b"{")
        await line.send("order:created", event("e2"))
        await arrives(line, "e1", "e2")
    assert len(await line.dead()) == 1


async def test_without_a_place_for_dead_letters_their_messages_stay_and_the_others_go_on(
    nats_url: str, tmp_path: Path
):
    async with bus(nats_url, tmp_path, batch=10) as line:
        full = {"max_msgs": 1, "discard": DiscardPolicy.NEW, "subjects": [f"{line.names.dead_subject}.*"]}
        await line.js.delete_stream(line.names.dead_stream)
        await line.js.add_stream(name=line.names.dead_stream, **full)
        ids = [f"e{number}" for number in range(300)]
        for number, event_id in enumerate(ids):
            await line.send("order:created", event(event_id))
            if number % 100 == 0:
                await line.send("order:created", b"{")
        async with line.feeding():
            await eventually(line.ids, lambda found: found == ids, "the events are in the log")
            await eventually(line.left, lambda left: left == 2, "two bad ones stay")
            await line.js.purge_stream(line.names.dead_stream)
            await eventually(line.left, lambda left: left == 1, "one more has found a place")


# --- failures ---------------------------------------------------------------------------------------------------


async def test_nothing_is_lost_or_swapped_while_the_storage_is_away(line: Bus):
    ids = [f"e{number}" for number in range(300)]
    async with line.feeding():
        for event_id in ids[:100]:
            await line.send("order:created", event(event_id))
        await arrives(line, *ids[:100])
        line.log.down = True
        for event_id in ids[100:200]:
            await line.send("order:created", event(event_id))
        await until(lambda: line.log.pings >= 2, "it waits for the storage")
        for event_id in ids[200:]:
            await line.send("order:created", event(event_id))
        line.log.down = False
        await arrives(line, *ids)
    assert await line.ids() == ids
    assert await line.dead() == []


async def test_while_the_storage_is_away_it_asks_for_nothing(line: Bus):
    line.log.down = True
    for number in range(500):
        await line.nc.publish(f"{line.names.subject}.shop.order:created", event(f"e{number}"))
    async with line.feeding():
        await until(lambda: line.log.pings >= 2, "it has looked twice")
        assert line.metrics.bus_received.value <= 2 * line.options.batch
        line.log.down = False
        await arrives(line, *(f"e{number}" for number in range(500)))


async def test_more_than_the_publisher_takes_is_given_back_and_comes_again(nats_url: str, tmp_path: Path):
    async with bus(nats_url, tmp_path, PublishLimits(waiting=40)) as line:
        for number in range(200):
            await line.send("order:created", event(f"e{number}"))
        async with line.feeding():
            await arrives(line, *(f"e{number}" for number in range(200)))
        assert line.metrics.bus_returned.value > 0


async def test_stopping_finishes_what_was_handed_out(line: Bus):
    line.log.held = asyncio.Event()
    async with line.feeding() as source:
        for number in range(20):
            await line.send("order:created", event(f"e{number}"))
        await until(lambda: line.metrics.bus_received.value > 0, "a batch is under way")
        for number in range(20, 40):
            await line.send("order:created", event(f"e{number}"))
        stopping = asyncio.create_task(source.stop(20))
        line.log.held.set()
        await stopping
        await eventually(
            lambda: inspect_bus(line.options), lambda found: found.unacknowledged == 0, "nothing is open"
        )
    stored = await line.ids()
    assert len(stored) + await line.left() == 40
    assert stored == [f"e{number}" for number in range(len(stored))]
    assert len(stored) > 0
    assert line.metrics.bus_redelivered.value == 0


async def test_what_a_dead_node_had_in_hand_is_handed_out_again(nats_url: str, tmp_path: Path):
    async with bus(nats_url, tmp_path, ack_wait=1.0) as line:
        line.log.held = asyncio.Event()
        dying = asyncio.create_task(line.source().run())
        for number in range(20):
            await line.send("order:created", event(f"e{number}"))
        await until(lambda: line.metrics.bus_received.value > 0, "a batch is under way")
        dying.cancel()
        await asyncio.wait([dying])
        line.log.held.set()
        async with line.feeding():
            await arrives(line, *(f"e{number}" for number in range(20)))
        assert line.metrics.bus_redelivered.value > 0


async def test_two_nodes_share_the_work(line: Bus):
    async with line.feeding(), line.feeding():
        for number in range(300):
            await line.send("order:created", event(f"e{number}"))
        await arrives(line, *(f"e{number}" for number in range(300)))
    assert line.metrics.bus_received.value == 300


async def test_it_comes_back_when_the_bus_was_restarted(tmp_path: Path):
    async with (
        single(tmp_path / "nats") as server,
        bus(server.url, tmp_path, ack_wait=2.0) as line,
        line.feeding() as source,
    ):
        await line.send("order:created", event("e1"))
        await arrives(line, "e1")
        server.kill()
        await eventually(source.check, lambda told: told.startswith("not connected"), "it knows")
        await server.start()
        await until(lambda: line.nc.is_connected, "the publisher is back")
        await line.send("order:created", event("e2"))
        await arrives(line, "e1", "e2")
        await eventually(source.check, lambda told: told.startswith("connected"), "it is back")


async def test_a_bus_that_is_not_there_yet_is_waited_for(tmp_path: Path):
    server = NatsServer(tmp_path / "nats")
    async with single(tmp_path / "other") as other, bus(other.url, tmp_path) as line:
        line.options = NatsOptions(
            url=server.url, max_bytes=64 << 20, dead_max_bytes=1 << 20, **line.names.options()
        )
        try:
            await line.source().prepare()
            async with line.feeding() as source:
                assert "not connected" in await source.check()
                await server.start()
                async with client(server.url) as nc:
                    js = nc.jetstream()

                    async def published() -> bool:
                        try:
                            await js.publish(f"{line.names.subject}.shop.order:created", event("e1"))
                        except NoStreamResponseError:
                            return False
                        return True

                    await eventually(published, bool, "the stream is made")
                    await eventually(line.ids, lambda ids: ids == ["e1"], "the event is in the log")
        finally:
            server.kill()


async def test_a_stream_that_was_removed_is_made_again(line: Bus):
    async with line.feeding():
        await line.send("order:created", event("e1"))
        await arrives(line, "e1")
        await line.js.delete_stream(line.names.stream)

        async def published() -> bool:
            try:
                await line.send("order:created", event("e2"))
            except NoStreamResponseError:
                return False
            return True

        await eventually(published, bool, "the stream is there again")
        await arrives(line, "e1", "e2")


# --- streams and consumer ------------------------------------------------------------------------------------------


async def test_streams_and_consumer_are_made_as_stated(line: Bus):
    config = (await line.js.stream_info(line.names.stream)).config
    assert (config.retention, config.discard, config.storage) == ("workqueue", "new", "file")
    assert (config.max_bytes, config.max_age, config.num_replicas) == (256 << 20, 0, 1)
    assert config.duplicate_window == pytest.approx(0.1)
    assert config.subjects == [f"{line.names.subject}.*.>"]
    dead = (await line.js.stream_info(line.names.dead_stream)).config
    assert (dead.retention, dead.discard, dead.max_age) == ("limits", "old", 30 * 86400)
    consumer = (await line.js.consumer_info(line.names.stream, "hookline")).config
    assert (consumer.ack_policy, consumer.max_deliver, consumer.ack_wait) == ("explicit", -1, 60)
    assert consumer.max_ack_pending == 10_000


async def test_settings_that_changed_are_taken_up(line: Bus):
    line.options = NatsOptions(
        url=line.options.url, max_bytes=8 << 20, dead_max_bytes=16 << 20, ack_wait=30, **line.names.options()
    )
    await line.source().prepare()
    assert (await line.js.stream_info(line.names.stream)).config.max_bytes == 8 << 20
    assert (await line.js.consumer_info(line.names.stream, "hookline")).config.ack_wait == 30


async def test_what_others_changed_in_ours_is_undone(line: Bus):
    names = line.names
    stream = (await line.js.stream_info(names.stream)).config
    consumer = (await line.js.consumer_info(names.stream, "hookline")).config
    await line.js.update_stream(stream.evolve(discard=DiscardPolicy.OLD, max_msgs=5, max_msg_size=100))
    await line.js.add_consumer(names.stream, consumer.evolve(max_deliver=3))
    await line.source().prepare()
    stream = (await line.js.stream_info(names.stream)).config
    assert (stream.discard, stream.max_msgs, stream.max_msg_size) == (DiscardPolicy.NEW, -1, -1)
    assert (await line.js.consumer_info(names.stream, "hookline")).config.max_deliver == -1


async def test_a_second_start_changes_nothing(line: Bus):
    changes: list[str] = []

    async def note(msg: Msg) -> None:
        changes.append(msg.subject)

    for verb in ("STREAM.UPDATE", "CONSUMER.CREATE", "CONSUMER.DURABLE.CREATE"):
        await line.nc.subscribe(f"$JS.API.{verb}.{line.names.stream}.>", cb=note)
        await line.nc.subscribe(f"$JS.API.{verb}.{line.names.dead_stream}", cb=note)
        await line.nc.subscribe(f"$JS.API.{verb}.{line.names.stream}", cb=note)
    await line.source().prepare()
    await line.nc.flush()
    assert changes == []


async def test_a_full_bus_refuses_new_events_and_keeps_the_old(nats_url: str, tmp_path: Path):
    async with bus(nats_url, tmp_path) as line:
        line.options = NatsOptions(
            url=nats_url, max_bytes=10_000, dead_max_bytes=1 << 20, **line.names.options()
        )
        await line.source().prepare()
        sent: list[str] = []

        async def fill() -> None:
            for number in range(1000):
                await line.send("order:created", event(f"e{number}"))
                sent.append(f"e{number}")

        with pytest.raises(APIError, match="maximum bytes"):
            await fill()
        async with line.feeding():
            await arrives(line, *sent)


@pytest.mark.parametrize("retention", [RetentionPolicy.WORK_QUEUE, RetentionPolicy.LIMITS])
async def test_a_stream_of_others_is_used_as_it_is(nats_url: str, tmp_path: Path, retention: RetentionPolicy):
    async with client(nats_url) as nc:
        names = Names()
        js = nc.jetstream()
        await js.add_stream(
            name=names.stream, subjects=[f"{names.subject}.shop.>"], retention=retention, max_msgs=77
        )
        async with bus(nats_url, tmp_path) as line:
            line.names = names
            line.options = NatsOptions(url=nats_url, dead_max_bytes=1 << 20, **names.options())
            await line.source().prepare()
            async with line.feeding():
                await line.send("order:created", event("e1"))
                await eventually(line.ids, lambda ids: ids == ["e1"], "the event is in the log")
            assert (await js.stream_info(names.stream)).config.max_msgs == 77
        await names.remove(js)


UNFIT: dict[str, dict[str, Any]] = {
    "subjects": {"subjects": ["other.>"]},
    "interest": {"retention": RetentionPolicy.INTEREST},
    "no_ack": {"no_ack": True},
}


@pytest.mark.parametrize("case", UNFIT)
async def test_a_stream_that_could_lose_events_is_refused(nats_url: str, tmp_path: Path, case: str):
    names = Names()
    async with client(nats_url) as nc:
        js = nc.jetstream()
        config: dict[str, Any] = {"subjects": [f"{names.subject}.>"], **UNFIT[case]}
        if case == "subjects":
            config["subjects"] = [f"t{names.tag}.other.>"]
        await js.add_stream(name=names.stream, **config)
        options = NatsOptions(url=nats_url, **names.options())
        async with bus(nats_url, tmp_path) as line:
            line.options = options
            source = line.source()
        with pytest.raises(SettingsInvalid) as caught:
            await source.prepare()
        assert caught.value.faults[0].field == "HOOKLINE_BUS_STREAM"
        assert case.partition("_")[0] in caught.value.faults[0].message
        await names.remove(js)


async def test_a_consumer_that_gives_up_is_refused(line: Bus):
    await line.js.delete_consumer(line.names.stream, "hookline")
    await line.js.add_consumer(
        line.names.stream,
        ConsumerConfig(durable_name="hookline", ack_policy=AckPolicy.EXPLICIT, max_deliver=5),
    )
    with pytest.raises(SettingsInvalid) as caught:
        await line.source().prepare()
    assert "max_deliver" in caught.value.faults[0].message


async def test_more_replicas_than_servers_are_refused_with_the_reason(line: Bus):
    line.options = NatsOptions(url=line.options.url, replicas=3, max_bytes=1 << 20, **Names().options())
    with pytest.raises(SettingsInvalid) as caught:
        await line.source().prepare()
    assert "replicas" in caught.value.faults[0].message


async def test_a_server_without_the_room_is_told_with_a_way_out(line: Bus):
    line.options = NatsOptions(url=line.options.url, max_bytes=1 << 50, **Names().options())
    with pytest.raises(SettingsInvalid) as caught:
        await line.source().prepare()
    assert "HOOKLINE_BUS_MAX_BYTES" in caught.value.faults[0].message


async def test_the_report_tells_lag_and_dead_letters(line: Bus):
    for number in range(5):
        await line.send("order:created", event(f"e{number}"))
    found = await inspect_bus(line.options)
    assert (found.messages, found.lag, found.dead_letters, found.replicas_current) == (5, 5, 0, 1)
    async with line.feeding() as source:
        await line.send("order:created", b"{")
        await eventually(line.left, lambda left: left == 0, "the stream is empty")
        assert (await inspect_bus(line.options)).dead_letters == 1
        await until(lambda: source.last_report is not None, "it has looked")
        assert line.metrics.bus_connected.value == 1
    assert line.metrics.bus_connected.value == 0


async def test_over_tls_with_a_certificate_of_our_own(tmp_path: Path):
    authority = trustme.CA()
    for name, certificate in (
        ("server", authority.issue_cert("127.0.0.1")),
        ("us", authority.issue_cert("us")),
    ):
        certificate.private_key_pem.write_to_path(str(tmp_path / f"{name}.key"))
        certificate.cert_chain_pems[0].write_to_path(str(tmp_path / f"{name}.pem"))
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    files = {
        "cert_file": tmp_path / "server.pem",
        "key_file": tmp_path / "server.key",
        "ca_file": tmp_path / "ca.pem",
    }
    quoted = ", ".join(f'{name}: "{path}"' for name, path in files.items())
    server = NatsServer(tmp_path / "tls", more=f"tls {{ {quoted}, verify: true }}")
    async with single(tmp_path / "plain") as plain, bus(plain.url, tmp_path) as line:
        try:
            await server.start()
            line.options = NatsOptions(
                url=server.url.replace("nats:", "tls:"),
                ca_file=tmp_path / "ca.pem", cert_file=tmp_path / "us.pem", key_file=tmp_path / "us.key",
                max_bytes=1 << 20, dead_max_bytes=1 << 20, **line.names.options(),
            )  # fmt: skip
            async with line.feeding():
                await eventually(lambda: made(line.options), bool, "the stream is made")
                context = line.options.tls()
                async with NatsHookline(
                    line.options.url, "shop", prefix=line.names.subject, tls=context
                ) as hookline:
                    await hookline.publish("order:created", {}, id="e1")
                await eventually(line.ids, lambda ids: ids == ["e1"], "the event is in the log")
        finally:
            server.kill()


async def made(options: NatsOptions) -> bool:
    try:
        await inspect_bus(options)
    except Error:
        return False
    return True


async def test_a_crash_of_the_source_itself_is_survived(line: Bus, monkeypatch: pytest.MonkeyPatch):
    crashes = iter([ZeroDivisionError("once"), AssertionError("twice")])
    take = Intake.take

    async def crashing(intake: Intake) -> Any:
        for error in crashes:
            raise error
        return await take(intake)

    monkeypatch.setattr(Intake, "take", crashing)
    async with line.feeding():
        await line.send("order:created", event("e1"))
        await arrives(line, "e1")
