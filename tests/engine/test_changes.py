"""Changing, disabling and deleting a subscription under load: nothing is lost, doubled or renumbered."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from hookline.core.errors import Conflict, NotFound
from hookline.core.matching import Matcher, Payload
from hookline.core.model import Subscription, SubscriptionState
from hookline.engine.read import in_force
from tests.engine.endpoints import Endpoint, Reply
from tests.engine.stage import Stage

TYPES = ("order:created", "order:paid", "stock:changed")


async def expected(stage: Stage, subscription: Subscription) -> list[str]:
    """The events that match the definitions in force at their positions, in order."""
    versions = await stage.storage.definition_versions(subscription.no)
    events = (await stage.storage.read_log(0, subscription.start_after, 100_000, 0)).events
    wanted: list[str] = []
    for event in events:
        definition = in_force(versions, event.position)
        if definition is not None and Matcher(definition).matches(event, Payload(event.data)):
            wanted.append(event.id)
    return wanted


async def load(stage: Stage, events: int = 200) -> None:
    """Publish steadily, of all types and keys."""
    for number in range(events):
        await stage.publish(TYPES[number % 3], key=f"k{number % 4}", data={"total": number % 50})
        await stage.pass_time(0.02)


EDITS: dict[str, list[dict[str, Any]]] = {
    "events": [{"events": ["order:*"]}, {"events": ["stock:*"]}, {"events": ["order:paid", "stock:changed"]}],
    "filter": [{"filter": "data.total > 25"}, {"filter": "data.total < 10"}, {"filter": None}],
    "url": [{"url": "https://b.example/hook"}, {"url": "https://a.example/hook"}],
    "order": [{"order": "key"}, {"order": "strict"}, {"order": "none"}, {"order": "key"}],
    "rate": [{"rate_limit": {"count": 40}}, {"rate_limit": {"count": 200}}, {"rate_limit": None}],
    "window": [{"max_in_flight": 2}, {"max_in_flight": 100}],
    "several at once": [
        {"order": "key", "filter": "data.total > 25", "events": ["order:*"]},
        {"order": "none", "filter": None, "url": "https://b.example/hook"},
    ],
}


@pytest.mark.parametrize("what", EDITS)
async def test_a_change_under_load_loses_doubles_and_renumbers_nothing(stage: Stage, what: str):
    subscription, first = await stage.subscribe("a.example")
    second = stage.endpoint("b.example")
    for endpoint in (first, second):
        endpoint.always(Reply(after=0.05))
        for number in range(0, 200, 9):
            endpoint.answers_event(f"e{number}", 500, 503)
    loading = asyncio.create_task(load(stage))
    for edit in EDITS[what]:
        await stage.pass_time(0.75)
        await stage.edit(subscription, **edit)
    await loading
    wanted = await expected(stage, subscription)
    await stage.settled(subscription, len(wanted))
    await check(stage, subscription, wanted, first, second)


async def check(stage: Stage, subscription: Subscription, wanted: list[str], *endpoints: Endpoint) -> None:
    arrivals = [arrival for endpoint in endpoints for arrival in endpoint.arrivals]
    assert len(wanted) >= 60
    assert {(each.event_id, each.sequence) for each in arrivals} == {
        (event_id, number) for number, event_id in enumerate(wanted, start=1)
    }
    tries = [(each.event_id, each.attempt) for each in arrivals]
    assert len(tries) == len(set(tries)), "an attempt was made twice"
    assert await stage.states(subscription) == ["succeeded"] * len(wanted)


async def test_changes_under_load_survive_a_restart_in_their_midst(stage: Stage):
    subscription, endpoint = await stage.subscribe()
    loading = asyncio.create_task(load(stage))
    for edit in EDITS["events"]:
        await stage.pass_time(0.75)
        await stage.edit(subscription, **edit)
        stage.worker.kill()
        await stage.start_worker()
    await loading
    wanted = await expected(stage, subscription)
    await stage.settled(subscription, len(wanted))
    assert {(each.event_id, each.sequence) for each in endpoint.arrivals} == {
        (event_id, number) for number, event_id in enumerate(wanted, start=1)
    }


# --- what takes effect at once ---------------------------------------------------------------------------


async def test_a_retry_uses_the_new_url_headers_and_secret_at_once(stage: Stage):
    subscription, old = await stage.subscribe(
        "old.example", retry={"kind": "list", "delays": [30], "jitter": 0}
    )
    new = stage.endpoint("new.example")
    old.always(500)
    await stage.publish()
    await stage.until(lambda: len(old.arrivals) == 1)
    await stage.edit(
        subscription, url=new.url, headers={"X-Shop": "7"}, auth={"kind": "bearer", "secret": "s3"}
    )
    await stage.settled(subscription, 1)
    assert len(old.arrivals) == 1
    sent = new.arrivals[0]
    assert (sent.event_id, sent.sequence, sent.attempt) == ("e1", 1, 2)
    assert (sent.headers["x-shop"], sent.headers["authorization"]) == ("7", "Bearer s3")


async def test_the_log_tells_which_version_each_attempt_used(stage: Stage):
    subscription, endpoint = await stage.subscribe()
    endpoint.answers(500)
    await stage.publish()
    await stage.until(lambda: len(endpoint.arrivals) == 1)
    await stage.edit(subscription, url="https://a.example/other")
    await stage.settled(subscription, 1)
    attempts = await stage.attempts(subscription, 1)
    assert [(each.version, each.url) for each in attempts] == [
        (1, "https://a.example/hook"),
        (2, "https://a.example/other"),
    ]


async def test_a_change_of_what_matches_counts_from_the_next_event_on(stage: Stage):
    subscription, endpoint = await stage.subscribe(events=["order:created"])
    endpoint.always(Reply(after=0.5))
    await stage.publish_many(20, "order:created")
    await stage.edit(subscription, events=["order:paid"])
    await stage.publish("order:created")
    await stage.publish("order:paid")
    await stage.settled(subscription, 21)
    assert sorted(endpoint.types) == ["order:created"] * 20 + ["order:paid"]


async def test_a_change_of_what_matches_reaches_a_backlog_only_behind_it(stage: Stage):
    subscription, endpoint = await stage.subscribe(events=["order:created"])
    await stage.pause(subscription)
    await stage.publish_many(3, "order:created")
    await stage.publish_many(3, "order:paid")
    await stage.edit(subscription, events=["order:paid"])
    await stage.publish_many(2, "order:paid")
    await stage.publish_many(2, "order:created")
    await stage.resume(subscription)
    await stage.settled(subscription, 5)
    await stage.pass_time(5)
    assert endpoint.types == ["order:created"] * 3 + ["order:paid"] * 2
    assert endpoint.sequences == [1, 2, 3, 4, 5]


async def test_a_lower_rate_takes_effect_at_once(stage: Stage):
    subscription, endpoint = await stage.subscribe()
    await stage.publish_many(10)
    await stage.settled(subscription, 10)
    await stage.edit(subscription, rate_limit={"count": 1, "seconds": 1})
    await stage.publish_many(5)
    await stage.settled(subscription, 15)
    assert endpoint.gaps[-4:] == pytest.approx([1, 1, 1, 1], abs=0.05)


async def test_two_editors_of_one_version_do_not_overwrite_each_other(stage: Stage):
    subscription, _ = await stage.subscribe()
    await stage.edit(subscription, name="first", version=1)
    with pytest.raises(Conflict):
        await stage.edit(subscription, name="second", version=1)
    assert (await stage.now(subscription)).definition.name == "first"


async def test_a_change_that_changes_nothing_makes_no_version(stage: Stage):
    subscription, _ = await stage.subscribe(events=["order:*"])
    assert (await stage.edit(subscription, events=["order:*"])).version == 1


# --- disable, enable, delete -----------------------------------------------------------------------------


async def test_disable_and_enable_keep_the_place(stage: Stage):
    subscription, endpoint = await stage.subscribe()
    await stage.publish_many(2)
    await stage.settled(subscription, 2)
    stopped = await stage.edit(subscription, enabled=False)
    assert stopped.state is SubscriptionState.PAUSED
    await stage.publish_many(2)
    await stage.pass_time(30)
    assert len(endpoint.arrivals) == 2
    await stage.edit(subscription, enabled=True)
    await stage.settled(subscription, 4)
    assert endpoint.sequences == [1, 2, 3, 4]


async def test_deleting_ends_what_waits_as_expired(stage: Stage):
    subscription, endpoint = await stage.subscribe(retry={"kind": "list", "delays": [100], "jitter": 0})
    endpoint.answers(500, 500)
    await stage.publish_many(3)
    await stage.settled(subscription, 1)
    await stage.delete(subscription)
    await stage.publish_many(3)
    await stage.pass_time(300)
    assert await stage.states(subscription) == ["expired", "expired", "succeeded"]
    assert len(endpoint.arrivals) == 3
    with pytest.raises(NotFound):
        await stage.storage.get_subscription(stage.shop.no, subscription.id)


async def test_deleting_with_requests_in_flight_records_how_they_end(stage: Stage):
    subscription, endpoint = await stage.subscribe()
    endpoint.always(Reply(after=5))
    endpoint.answers_event("e1", Reply(500, after=5))
    await stage.publish_many(3)
    await stage.until(lambda: endpoint.in_flight == 3)
    await stage.delete(subscription)
    await stage.pass_time(30)
    assert await stage.states(subscription) == ["expired", "succeeded", "succeeded"]
    assert len(endpoint.arrivals) == 3
    assert subscription.no not in stage.worker.lanes


@pytest.mark.parametrize("order", ["none", "key", "strict"])
async def test_a_delete_that_was_cut_short_is_finished_by_the_next_worker(stage: Stage, order: str):
    subscription, endpoint = await stage.subscribe(
        order=order, retry={"kind": "list", "delays": [100], "jitter": 0}
    )
    endpoint.answers(500)
    await stage.publish()
    await stage.until(lambda: len(endpoint.arrivals) == 1)
    await stage.pass_time(1)
    stage.worker.kill()
    deleted, now = SubscriptionState.DELETED, stage.clock.now()
    await stage.storage.set_subscription_state(subscription.no, deleted, "", now)  # and no more: the API died
    await stage.start_worker()
    await stage.pass_time(5)
    assert await stage.states(subscription) == ["expired"]
    assert subscription.no not in stage.worker.lanes


async def test_a_deleted_subscription_leaves_the_others_alone(stage: Stage):
    gone, _ = await stage.subscribe("gone.example")
    kept, endpoint = await stage.subscribe("kept.example")
    await stage.publish_many(3)
    await stage.delete(gone)
    await stage.publish_many(3)
    await stage.settled(kept, 6)
    assert endpoint.sequences == [1, 2, 3, 4, 5, 6]


async def test_a_hundred_edits_leave_a_hundred_versions(stage: Stage):
    subscription, _ = await stage.subscribe()
    for number in range(100):
        await stage.edit(subscription, metadata={"n": str(number)})
    versions = await stage.storage.definition_versions(subscription.no)
    assert [each.version for each in versions] == list(range(1, 102))
    assert msgspec.to_builtins(versions[-1].definition)["metadata"] == {"n": "99"}
