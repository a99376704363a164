"""Publishing: group commit, the answer after the commit, idempotent ids, bounds, and failures."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from hookline.core.errors import (
    HooklineError,
    IdConflict,
    InvalidInput,
    InvalidJson,
    Overloaded,
    SchemaViolation,
    StorageUnavailable,
    TooLarge,
)
from hookline.core.model import EventType, SchemaMode
from hookline.engine.publish import Published, PublishLimits
from hookline.ports import EventQuery
from tests.engine.stage import Stage


def slow_commit(stage: Stage, seconds: float = 0.005) -> None:
    """A commit takes as long as syncing to a disk does."""
    stage.log.before["append"] = lambda *_: asyncio.sleep(seconds)


class Gate:
    """Holds each commit back until it is opened."""

    def __init__(self, stage: Stage) -> None:
        self._open = asyncio.Event()
        stage.log.before["append"] = self._wait

    def _wait(self, *_: Any) -> Awaitable[None]:
        return self._wait_for_it()

    async def _wait_for_it(self) -> None:
        await self._open.wait()

    def open(self) -> None:
        self._open.set()


async def stored(stage: Stage) -> list[str]:
    """The ids in the log, in order."""
    return [event.id for event in (await stage.storage.read_log(0, 0, 100_000, 0)).events]


async def test_others_have_their_turn_while_a_large_batch_is_checked(stage: Stage):
    turns, seen = 0, list[int]()
    stage.log.before["append"] = lambda *_: seen.append(turns)

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    item = b'{"type":"order:created","data":"' + b"x" * 50_000 + b'"}'
    results = await stage.publisher.publish_batch(stage.shop, [item] * 20)
    task.cancel()
    assert len([result for result in results if isinstance(result, Published)]) == 20
    assert seen[0] > 15


# --- group commit ----------------------------------------------------------------------------------------


async def test_publishers_at_the_same_time_share_few_commits(stage: Stage):
    slow_commit(stage)
    ids = await asyncio.gather(*(stage.publish() for _ in range(200)))
    assert sorted(await stored(stage)) == sorted(ids)
    assert stage.log.calls["append"] <= 3


async def test_under_a_steady_load_commits_wait_a_moment_for_company(stage: Stage):
    slow_commit(stage, 0.001)
    publishing: list[asyncio.Task[str]] = []
    for _ in range(1000):
        publishing.append(asyncio.create_task(stage.publish()))
        await stage.pass_time(0.0002)
    await asyncio.gather(*publishing)
    assert stage.log.calls["append"] <= 100


async def test_a_publisher_on_its_own_does_not_wait_for_others(stage: Stage):
    slow_commit(stage)
    began = stage.loop.time()
    await stage.publish()
    assert stage.loop.time() - began == pytest.approx(0.005)


async def test_a_commit_takes_no_more_than_its_bound():
    async with Stage(limits=PublishLimits(batch=10)) as stage:
        slow_commit(stage)
        await asyncio.gather(*(stage.publish() for _ in range(95)))
        assert len(await stored(stage)) == 95
        assert stage.log.calls["append"] >= 10


async def test_the_answer_follows_the_commit(stage: Stage):
    gate = Gate(stage)
    publishing = asyncio.create_task(stage.publish())
    await stage.pass_time(1)
    assert not publishing.done()
    assert await stored(stage) == []
    gate.open()
    event_id = await publishing
    assert await stored(stage) == [event_id]


async def test_a_publisher_that_hangs_up_does_not_spoil_the_commit_of_the_others(stage: Stage):
    gate = Gate(stage)
    leaver, stayer = asyncio.create_task(stage.publish()), asyncio.create_task(stage.publish())
    await stage.pass_time(0.1)
    leaver.cancel()
    gate.open()
    assert await stayer in await stored(stage)
    assert leaver.cancelled()


# --- idempotent ids --------------------------------------------------------------------------------------


async def test_the_same_event_again_is_a_duplicate_and_is_stored_once(stage: Stage):
    first = await stage.offer(id="order-1", data={"total": 5})
    again = await stage.offer(id="order-1", data={"total": 5})
    assert first == Published("order-1")
    assert again == Published("order-1", duplicate=True)
    assert await stored(stage) == ["order-1"]


async def test_a_duplicate_is_delivered_once(stage: Stage):
    subscription, endpoint = await stage.subscribe()
    await stage.offer(id="order-1", data=1)
    await stage.offer(id="order-1", data=1)
    await stage.settled(subscription, 1)
    await stage.pass_time(5)
    assert endpoint.ids == ["order-1"]


async def test_the_same_json_spelled_otherwise_is_a_duplicate(stage: Stage):
    body = b'{"type":"order:created","id":"order-1","data":%b}'
    await stage.publisher.publish(stage.shop, body % b'{"a":1,"b":"\\u00e9"}')
    again = await stage.publisher.publish(stage.shop, body % '{ "b": "é", "a": 1 }'.encode())
    assert again.duplicate


@pytest.mark.parametrize(
    "changed", [{"data": {"total": 6}}, {"type": "order:paid"}, {"key": "k"}, {"correlation_id": "c"}]
)
async def test_the_same_id_with_other_content_is_refused(stage: Stage, changed: dict[str, Any]):
    await stage.offer(id="order-1", data={"total": 5})
    with pytest.raises(IdConflict) as refused:
        await stage.offer(**({"id": "order-1", "data": {"total": 5}} | changed))
    assert refused.value.status == 409
    assert [fault.field for fault in refused.value.faults] == ["id"]
    assert await stored(stage) == ["order-1"]


async def test_ids_of_two_tenants_never_meet(stage: Stage):
    other = await stage.add_tenant("other")
    await stage.offer(id="order-1", data=1)
    answer = await stage.offer(id="order-1", data=2, tenant=other)
    assert answer == Published("order-1")
    assert await stored(stage) == ["order-1", "order-1"]


async def test_two_publishers_of_one_event_at_the_same_time_store_it_once(stage: Stage):
    slow_commit(stage)
    answers = await asyncio.gather(*(stage.offer(id="order-1", data=1) for _ in range(20)))
    assert [answer.duplicate for answer in answers].count(False) == 1
    assert await stored(stage) == ["order-1"]


async def test_an_event_without_an_id_gets_one(stage: Stage):
    answer = await stage.publisher.publish(stage.shop, b'{"type":"order:created","data":1}')
    assert answer.id.startswith("evt_")
    assert await stored(stage) == [answer.id]


# --- batches ---------------------------------------------------------------------------------------------


async def test_a_batch_gets_a_result_for_each_item_in_its_order(stage: Stage):
    await stage.offer(id="known", data=1)
    items = [
        b'{"type":"order:created","id":"new","data":1}',
        b'{"type":"order:created","id":"known","data":1}',
        b'{"type":"order:created","id":"known","data":2}',
        b'{"type":"two words","data":1}',
        b'{"type":',
        b'{"type":"order:created","id":"new","data":1}',
    ]
    results = await stage.publisher.publish_batch(stage.shop, items)
    assert results[0] == Published("new")
    assert results[1] == Published("known", duplicate=True)
    assert isinstance(results[2], IdConflict)
    assert isinstance(results[3], InvalidInput)
    assert isinstance(results[4], InvalidJson)
    assert results[5] == Published("new", duplicate=True)
    assert await stored(stage) == ["known", "new"]


async def test_a_batch_is_stored_in_one_commit_and_in_order(stage: Stage):
    ids = await stage.publish_many(100)
    assert await stored(stage) == ids
    assert stage.log.calls["append"] == 1


# --- bounds and refusals ---------------------------------------------------------------------------------


async def test_a_full_queue_refuses_and_stores_nothing():
    async with Stage(limits=PublishLimits(waiting=3, batch=1)) as stage:
        gate = Gate(stage)
        publishing = [asyncio.create_task(stage.publish())]
        await stage.pass_time(0.1)  # the first is being committed, the next ones wait
        publishing += [asyncio.create_task(stage.publish()) for _ in range(3)]
        await stage.pass_time(0.1)
        with pytest.raises(Overloaded) as refused:
            await stage.publish()
        assert (refused.value.status, refused.value.retry_after) == (503, 1)
        gate.open()
        assert await asyncio.gather(*publishing) == await stored(stage)


async def test_a_batch_that_meets_a_full_queue_is_refused_item_by_item():
    async with Stage(limits=PublishLimits(waiting=2)) as stage:
        items = [b'{"type":"order:created","id":"i%d","data":1}' % number for number in range(4)]
        results = await stage.publisher.publish_batch(stage.shop, items)
        assert results[:2] == [Published("i0"), Published("i1")]
        assert all(isinstance(result, Overloaded) for result in results[2:])


async def test_a_storage_that_is_down_means_503_and_nothing_stored(stage: Stage):
    stage.log.down = True
    with pytest.raises(StorageUnavailable) as refused:
        await stage.publish()
    assert refused.value.status == 503
    stage.log.down = False
    event_id = await stage.publish()
    assert await stored(stage) == [event_id]


async def test_nothing_is_stored_before_what_a_failed_commit_held_up():
    """A batch that needs two commits: the second must not be stored when the first was not."""
    async with Stage(limits=PublishLimits(batch=2)) as stage:
        failures = iter([StorageUnavailable()])

        def fail_once(*_: object) -> None:
            for error in failures:
                raise error

        stage.log.before["append"] = fail_once
        items = [b'{"type":"order:created","id":"i%d","data":1}' % number for number in range(6)]
        results = await stage.publisher.publish_batch(stage.shop, items)
        assert [type(result) for result in results] == [StorageUnavailable] * 6
        assert await stored(stage) == []
        await stage.publisher.publish_batch(stage.shop, items)
        assert await stored(stage) == [f"i{number}" for number in range(6)]


async def test_at_shutdown_what_waits_is_refused_and_not_stored(stage: Stage):
    Gate(stage)
    publishing = [asyncio.create_task(stage.publish()) for _ in range(3)]
    await stage.pass_time(0.1)
    stage.publishing.cancel()
    answers = await asyncio.gather(*publishing, return_exceptions=True)
    assert [type(answer) for answer in answers] == [StorageUnavailable] * 3
    assert await stored(stage) == []


async def test_drain_returns_when_all_that_waited_is_stored(stage: Stage):
    slow_commit(stage, 0.5)
    publishing = [asyncio.create_task(stage.publish()) for _ in range(3)]
    await stage.pass_time(0.01)
    await stage.publisher.drain()
    assert len(await stored(stage)) == 3
    await asyncio.gather(*publishing)


@pytest.mark.parametrize(
    ("body", "error", "place"),
    [
        (b'{"data":1}', InvalidInput, "type"),
        (b'{"type":"t"}', InvalidInput, "data"),
        (b'{"type":"t","data":1,"extra":1}', InvalidInput, "extra"),
        (b'{"type":"t","data":1,"id":"a.b"}', InvalidInput, "id"),
        (b'{"type":"t","data":1,"occurred_at":"yesterday"}', InvalidInput, "occurred_at"),
        (
            b'{"type":"t","data":1,"occurred_at":"9999-12-31T23:59:59-05:00"}',
            InvalidInput,
            "occurred_at",
        ),
        (b'{"type":"hookline.test","data":1}', InvalidInput, "type"),
        (b'{"type":"t","data":1,"key":""}', InvalidInput, "key"),
        (b'{"type":"t","data":nope}', InvalidJson, ""),
        (rb'{"type":"t","data":{"name":"\ud800"}}', InvalidJson, "half of a surrogate pair"),
        (b'{"type":"t","data":1', InvalidJson, "truncated"),
        (b'{"type":"t","data":"\xff"}', InvalidJson, ""),
        (b'{"type":"t","data":' + b"[" * 100_000 + b"]" * 100_000 + b"}", InvalidJson, ""),
        (b'{"type":"t","data":"' + b"x" * (1 << 20) + b'"}', TooLarge, ""),
    ],
)
async def test_what_is_no_event_is_refused(stage: Stage, body: bytes, error: type[HooklineError], place: str):
    with pytest.raises(error) as refused:
        await stage.publisher.publish(stage.shop, body)
    assert place in str([*refused.value.faults, refused.value.detail])
    assert all(refused.value.detail.startswith(fault.field) for fault in refused.value.faults[:1])
    assert await stored(stage) == []


async def test_all_faults_are_named_at_once(stage: Stage):
    with pytest.raises(InvalidInput) as refused:
        await stage.offer("two words", id="a.b", key="", occurred_at="never")
    assert {fault.field for fault in refused.value.faults} == {"type", "id", "key", "occurred_at"}


# --- schemas ---------------------------------------------------------------------------------------------

SCHEMA = b'{"type":"object","required":["total"],"properties":{"total":{"type":"number"}}}'


@pytest.fixture
async def with_schema(stage: Stage) -> Callable[[SchemaMode], Awaitable[None]]:
    async def choose(mode: SchemaMode) -> None:
        shop = stage.shop
        await stage.storage.put_event_type(EventType(shop.no, "order:created", "", 1, 0, 0, schema=SCHEMA))
        stage.shop = await stage.storage.update_tenant(shop.no, shop.name, shop.profile, mode, None)

    return choose


async def test_strict_mode_refuses_what_does_not_fit_its_schema(
    stage: Stage, with_schema: Callable[[SchemaMode], Awaitable[None]]
):
    await with_schema(SchemaMode.STRICT)
    with pytest.raises(SchemaViolation) as refused:
        await stage.publish(data={"total": "much"})
    assert refused.value.faults[0].field == "data.total"
    fitting = await stage.publish(data={"total": 5})
    assert await stored(stage) == [fitting]


@pytest.mark.parametrize(("mode", "counted"), [(SchemaMode.LOG, 1), (SchemaMode.OFF, 0)])
async def test_log_mode_stores_and_counts_it_and_off_does_not_look(
    stage: Stage, with_schema: Callable[[SchemaMode], Awaitable[None]], mode: SchemaMode, counted: int
):
    await with_schema(mode)
    event_id = await stage.publish(data={})
    assert await stored(stage) == [event_id]
    assert stage.metrics.schema_violations.value == counted


# --- what is kept ----------------------------------------------------------------------------------------


async def test_all_that_the_publisher_says_is_kept(stage: Stage):
    event_id = await stage.publish(
        "order:paid",
        data={"n": 1},
        occurred_at="2025-12-31T23:59:59.5+01:00",
        object={"type": "order", "id": "4471"},
        source={"application": "checkout", "user_id": "u7"},
        key="order-4471",
        correlation_id="cart-9",
    )
    event = await stage.reader.event(stage.shop, event_id)
    assert (event.object_type, event.object_id) == ("order", "4471")
    assert (event.source_application, event.source_user) == ("checkout", "u7")
    assert (event.key, event.correlation_id) == ("order-4471", "cart-9")
    assert event.occurred_at == 1_767_221_999_500
    assert event.received_at == stage.clock.now()


async def test_related_events_are_found_by_object_and_by_correlation_id(stage: Stage):
    order = {"type": "order", "id": "4471"}
    first = await stage.publish(object=order)
    await stage.publish(object={"type": "order", "id": "4472"})
    third = await stage.publish(object=order, correlation_id="cart-9")
    fourth = await stage.publish("stock:reserved", correlation_id="cart-9")
    page = await stage.reader.related(stage.shop, await stage.reader.event(stage.shop, third), 0, 10)
    assert [event.id for event in page.events] == [fourth, first]


async def test_usage_counts_events_and_bytes_of_the_day(stage: Stage):
    await stage.publish(data="1234567890")
    await stage.publish(data="12345")
    used = await stage.reader.usage(stage.shop, "2026-01-01", "2026-01-01")
    assert [(day.events, day.event_bytes) for day in used] == [(2, 12 + 7)]


async def test_events_are_listed_newest_first(stage: Stage):
    ids = await stage.publish_many(5)
    page = await stage.reader.events(EventQuery(stage.shop.no, limit=3))
    assert [event.id for event in page.events] == ids[:1:-1]
    assert msgspec.json.decode(page.events[0].data) == {"n": 5}


async def test_a_commit_that_never_ends_is_told_as_unknown_and_the_next_one_goes_on(stage: Stage):
    slow_commit(stage, 3600)
    with pytest.raises(StorageUnavailable, match="may be stored"):
        await stage.publish()
    del stage.log.before["append"]
    assert await stage.publish() in await stored(stage)
