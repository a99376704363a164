"""Which events a subscription gets: by tenant, by type, by filter. Nothing while it is stopped."""

from __future__ import annotations

import msgspec
import pytest

from hookline.core.errors import InvalidInput
from hookline.engine.manage import Trials
from hookline.engine.types import EventTypeCatalogue
from tests.engine.endpoints import Endpoint
from tests.engine.stage import Stage


async def got(stage: Stage, endpoint: Endpoint, count: int) -> list[str]:
    """The types that arrived, once there are so many and no more follow."""
    await stage.until(lambda: len(endpoint.arrivals) >= count)
    await stage.pass_time(3)
    return endpoint.types


async def test_an_exact_name_gets_this_type_only(stage: Stage):
    _, endpoint = await stage.subscribe(events=["order:created"])
    for name in ("order:created", "order:created:late", "order:create", "order:created"):
        await stage.publish(name)
    assert await got(stage, endpoint, 2) == ["order:created", "order:created"]
    assert endpoint.sequences == [1, 2]


async def test_a_prefix_wildcard_gets_all_that_begin_so(stage: Stage):
    _, endpoint = await stage.subscribe(events=["order:*"])
    for name in ("order:created", "orders", "stock:changed", "order:item:added", "order:"):
        await stage.publish(name)
    assert await got(stage, endpoint, 3) == ["order:created", "order:item:added", "order:"]


async def test_several_names_give_one_delivery_of_each_event(stage: Stage):
    _, endpoint = await stage.subscribe(events=["order:created", "order:*", "*"])
    await stage.publish("order:created")
    assert await got(stage, endpoint, 1) == ["order:created"]


async def test_a_star_means_all_events_of_the_shop_but_none_of_hooklines_own(stage: Stage):
    _, everything = await stage.subscribe("all.example", events=["*"])
    _, watcher = await stage.subscribe("watcher.example", events=["hookline.*"])
    _, broken = await stage.subscribe("broken.example", events=["order:created"], retry={"kind": "none"})
    broken.always(500)
    await stage.publish("order:created")
    assert await got(stage, watcher, 1) == ["hookline.delivery.failed"]
    assert everything.types == ["order:created"]


async def test_events_of_another_tenant_never_match(stage: Stage):
    other = await stage.add_tenant("other")
    _, endpoint = await stage.subscribe(events=["*"])
    _, theirs = await stage.subscribe("their.example", tenant=other, events=["*"])
    await stage.publish("order:created", tenant=other)
    await stage.publish("order:paid")
    assert await got(stage, endpoint, 1) == ["order:paid"]
    assert theirs.types == ["order:created"]


async def test_a_filter_looks_into_the_payload(stage: Stage):
    wanted = 'data.total >= 100 and data.country in ["DE", "AT"] and not data.test exists'
    _, endpoint = await stage.subscribe(filter=wanted)
    good = await stage.publish(data={"total": 250, "country": "AT"})
    await stage.publish(data={"total": 99.99, "country": "DE"})
    await stage.publish(data={"total": 250, "country": "FR"})
    await stage.publish(data={"total": 250, "country": "DE", "test": None})
    await got(stage, endpoint, 1)
    assert endpoint.ids == [good]


async def test_an_invalid_filter_is_refused_with_the_place_of_the_fault(stage: Stage):
    with pytest.raises(InvalidInput) as refused:
        await stage.subscribe(filter="data.total >= 100 and and data.country")
    fault = refused.value.faults[0]
    assert fault.field == "filter"
    assert "column 23" in fault.message  # where the second `and` begins


async def test_a_new_subscription_gets_what_comes_after_it(stage: Stage):
    await stage.publish("order:old")
    _, endpoint = await stage.subscribe()
    await stage.publish("order:new")
    assert await got(stage, endpoint, 1) == ["order:new"]


async def test_a_paused_subscription_gets_nothing_and_costs_no_reads(stage: Stage):
    subscription, endpoint = await stage.subscribe()
    await stage.pause(subscription)
    await stage.pass_time(2)
    before = stage.worker.storage.calls.copy()
    for _ in range(50):
        await stage.publish()
        await stage.pass_time(0.1)
    calls = stage.worker.storage.calls - before
    assert endpoint.arrivals == []
    assert not calls["read_page"] + calls["due"] + calls["read_events"]
    assert all(batch.lanes == [] for batch in stage.worker.storage.records[-3:])


async def test_a_preview_says_whether_an_event_matches_and_why(stage: Stage):
    subscription, endpoint = await stage.subscribe(events=["order:*"], filter="data.total > 10")
    types = EventTypeCatalogue(stage.storage)
    trials = Trials(types, stage.clock, stage.entropy, stage.subscriptions, stage.worker.wire, _NoTokens())
    cheap = await trials.synthetic(stage.shop, "order:created", b'{"total": 5}')
    preview = trials.preview(stage.shop, subscription, cheap)
    assert not preview.matches
    first, *_, last = preview.reasons
    assert (first.rule, first.passed, last.passed) == ("events", True, False)
    assert preview.composed.request.url == endpoint.url
    dear = await trials.synthetic(stage.shop, "order:created", b'{"total": 50}')
    assert trials.preview(stage.shop, subscription, dear).matches


class _NoTokens:
    async def token(self, auth: object) -> str:
        raise AssertionError


async def test_the_story_of_an_event_tells_what_it_became_for_each_subscription(stage: Stage):
    first, _ = await stage.subscribe("a.example", events=["order:*"])
    second, _ = await stage.subscribe("b.example", events=["stock:*"])
    event_id = await stage.publish("order:created")
    await stage.settled(first, 1)
    event = await stage.reader.event(stage.shop, event_id)
    stories, _ = await stage.reader.stories(stage.shop, event, 0, 10)
    assert [(story.subscription.no, story.outcome.value) for story in stories] == [
        (first.no, "succeeded"),
        (second.no, "not_matched"),
    ]
    assert "stock:*" in stories[1].reason


async def test_the_payload_reaches_the_receiver_byte_for_byte(stage: Stage):
    _, endpoint = await stage.subscribe()
    data = b'{"price":1.10000000000000000001, "big":12345678901234567890123,  "u":"\\u00e9"}'
    await stage.publisher.publish(stage.shop, b'{"type":"order:created","data":' + data + b"}")
    await stage.until(lambda: len(endpoint.arrivals) == 1)
    body = endpoint.arrivals[0].request.body or b""
    assert body.endswith(b'"data":' + data + b"}")
    assert msgspec.json.decode(body)["type"] == "order:created"
