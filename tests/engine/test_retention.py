"""How long things are kept, and that nothing goes that somebody still needs, or unseen."""

from __future__ import annotations

import pytest

from hookline.core.model import DeliveryState, Position, Retention, Subscription, Tenant
from hookline.engine import retain
from hookline.ports import EventQuery
from tests.engine.endpoints import Endpoint, Reply
from tests.engine.stage import DAY, HOUR, Stage


async def leap(stage: Stage, days: float) -> None:
    """Let days go by while no worker runs; the next one begins with a round of retention."""
    stage.worker.kill()
    await stage.pass_time(days * DAY)
    await stage.start_worker()
    await stage.pass_time(30)


async def kept(stage: Stage, tenant: Tenant | None = None) -> list[str]:
    """The events in the log, oldest first."""
    query = EventQuery((tenant or stage.shop).no, limit=100_000)
    return [event.id for event in await stage.storage.list_events(query)][::-1]


async def delivered(stage: Stage, tenant: Tenant | None = None) -> tuple[Subscription, Endpoint]:
    """A subscription with one delivery."""
    tenant = tenant or stage.shop
    subscription, endpoint = await stage.subscribe(f"{tenant.id}.example", tenant=tenant)
    endpoint.always(Reply(body=b"thanks"))
    await stage.publish(tenant=tenant)
    await stage.settled(subscription, 1)
    return subscription, endpoint


# --- how long --------------------------------------------------------------------------------------------


def test_the_default_is_60_days_for_events_and_attempts_and_15_for_bodies():
    assert Retention() == Retention(events=60, attempts=60, bodies=15)


async def test_bodies_go_after_15_days_and_the_rest_stays(stage: Stage):
    subscription, _ = await delivered(stage)
    await leap(stage, 14)
    assert (await stage.attempts(subscription, 1))[0].response_body == b"thanks"
    await leap(stage, 2)
    attempt = (await stage.attempts(subscription, 1))[0]
    assert (attempt.response_body, attempt.status) == (b"", 200)
    assert b"200" in attempt.response_headers
    assert await kept(stage) == ["e1"]


async def test_events_attempts_and_deliveries_go_after_60_days(stage: Stage):
    subscription, _ = await delivered(stage)
    await leap(stage, 59)
    assert (await kept(stage), len(await stage.attempts(subscription, 1))) == (["e1"], 1)
    assert await stage.states(subscription) == ["succeeded"]
    await leap(stage, 2)
    assert (await kept(stage), await stage.attempts(subscription, 1)) == ([], [])
    assert await stage.deliveries(subscription) == []


async def test_a_tenant_can_have_times_of_its_own(stage: Stage):
    brief = await stage.add_tenant("brief")
    brief = await stage.storage.update_tenant(
        brief.no, brief.name, brief.profile, brief.schema_mode, Retention(events=3, attempts=2, bodies=1)
    )
    mine, _ = await delivered(stage)
    theirs, _ = await delivered(stage, brief)
    await leap(stage, 1.5)
    assert (await stage.attempts(theirs, 2))[0].response_body == b""
    await leap(stage, 1)
    assert await stage.attempts(theirs, 2) == []
    assert await kept(stage, brief) == ["e2"]
    await leap(stage, 1)
    assert await kept(stage, brief) == []
    assert await kept(stage) == ["e1"]
    assert (await stage.attempts(mine, 1))[0].response_body == b"thanks"


async def test_a_round_comes_every_hour(stage: Stage):
    await stage.pass_time(HOUR - 60)
    assert stage.worker.storage.calls["oldest_needed"] == 1
    await stage.pass_time(120)
    assert stage.worker.storage.calls["oldest_needed"] == 2


async def test_the_id_of_a_removed_event_can_be_used_again(stage: Stage):
    await stage.publish(id="order-1", data=1)
    await leap(stage, 61)
    assert not (await stage.offer(id="order-1", data=2)).duplicate


async def test_numbers_go_on_after_all_was_removed(stage: Stage):
    _, endpoint = await delivered(stage)
    await leap(stage, 61)
    await stage.publish()
    await stage.until(lambda: len(endpoint.arrivals) == 2)
    assert endpoint.sequences == [1, 2]


# --- in small steps --------------------------------------------------------------------------------------


async def test_it_removes_in_small_steps_and_publishing_goes_on_between_them(stage: Stage):
    await stage.publish_many(2600)
    stage.worker.kill()
    await stage.pass_time(61 * DAY)
    steps = stage.storage.remove_events
    removed: list[tuple[int, Position]] = []

    async def watched(tenant_no: int, before: int, until: Position, limit: int) -> int:
        assert limit == retain.STEP
        removed.append((await steps(tenant_no, before, until, limit), await stage.storage.head(0)))
        return removed[-1][0]

    stage.storage.remove_events = watched
    await stage.start_worker()
    while sum(count for count, _ in removed) < 2600:
        await stage.publish()
        await stage.pass_time(0.01)
    assert [count for count, _ in removed] == [500, 500, 500, 500, 500, 100]
    heads = [head for _, head in removed]
    assert len(set(heads)) >= 5, "nothing was published between the steps"


# --- what is still needed --------------------------------------------------------------------------------


async def test_an_event_that_waits_for_a_retry_is_kept(stage: Stage):
    week = {"kind": "list", "delays": [7 * DAY] * 20, "jitter": 0}
    subscription, endpoint = await stage.subscribe(retry=week, disable_after=0)
    endpoint.answers(*[500] * 9)
    await stage.publish()
    await stage.until(lambda: len(endpoint.arrivals) == 1)
    for _ in range(9):
        await stage.pass_time(1)
        await leap(stage, 7.01)
    assert endpoint.arrivals[-1].at > 62 * DAY
    assert len(endpoint.arrivals) == 10
    assert [each.state for each in await stage.deliveries(subscription)] == ["succeeded"]


async def test_a_lane_that_is_behind_gets_what_is_past_its_time_as_expired(stage: Stage):
    subscription, endpoint = await stage.subscribe()
    await stage.pause(subscription)
    await stage.publish_many(3)
    await stage.pass_time(5)
    stage.worker.kill()
    await stage.pass_time(61 * DAY)
    await stage.publish()
    await stage.resume(subscription)
    await stage.start_worker()
    done = await stage.settled(subscription, 4)
    assert [each.state for each in done] == ["expired"] * 3 + ["succeeded"]
    assert [each.sequence for each in done] == [1, 2, 3, 4]
    assert endpoint.ids == ["e4"]
    await stage.pass_time(HOUR + 60)
    assert await kept(stage) == ["e4"]


async def test_what_a_paused_subscription_has_not_seen_is_kept_until_its_time(stage: Stage):
    subscription, endpoint = await stage.subscribe()
    await stage.pause(subscription)
    await stage.publish_many(3)
    await leap(stage, 59)
    assert await kept(stage) == ["e1", "e2", "e3"]
    await stage.resume(subscription)
    await stage.settled(subscription, 3)
    assert endpoint.sequences == [1, 2, 3]


@pytest.mark.parametrize("order", ["none", "key", "strict"])
async def test_the_backlog_of_a_stopped_subscription_ends_visibly_as_expired(stage: Stage, order: str):
    subscription, endpoint = await stage.subscribe(order=order)
    await stage.publish(key="k")
    await stage.settled(subscription, 1)
    await stage.pause(subscription)
    old = await stage.publish_many(700, key="k")
    await stage.pass_time(40 * 60)
    await leap(stage, 50)
    await stage.publish_many(2, key="k")
    await leap(stage, 11)
    done = await stage.deliveries(subscription)
    assert [each.position for each in done if each.state == "expired"] == list(range(2, len(old) + 2))
    assert await kept(stage) == ["e702", "e703"]
    await stage.resume(subscription)
    await stage.until(lambda: len(endpoint.arrivals) == 3)
    assert endpoint.sequences == [1, 702, 703]


@pytest.mark.parametrize("order", ["none", "key", "strict"])
async def test_what_waits_in_a_stopped_subscription_ends_visibly_as_expired_too(stage: Stage, order: str):
    retry = {"kind": "list", "delays": [HOUR] * 5, "jitter": 0}
    subscription, endpoint = await stage.subscribe(order=order, retry=retry)
    endpoint.always(500)
    await stage.publish_many(3, key="k")
    await stage.until(lambda: bool(endpoint.arrivals))
    await stage.pass_time(1)
    await stage.pause(subscription)
    await leap(stage, 59)
    assert "expired" not in await stage.states(subscription)
    await leap(stage, 2)
    assert await stage.states(subscription) == ["expired"] * 3
    await stage.pass_time(HOUR)
    assert await kept(stage) == []
    endpoint.always(200)
    await stage.publish(key="k")
    await stage.resume(subscription)
    await stage.settled(subscription, 4)
    assert endpoint.arrivals[-1].sequence == 4


async def test_a_deleted_subscription_holds_nothing_back(stage: Stage):
    subscription, endpoint = await stage.subscribe()
    endpoint.always(500)
    await stage.publish()
    await stage.until(lambda: len(endpoint.arrivals) == 1)
    await stage.delete(subscription)
    await leap(stage, 61)
    assert await kept(stage) == []


async def test_a_backlog_that_is_just_being_sent_is_not_removed_under_it(stage: Stage):
    await stage.publish_many(300)
    stage.worker.kill()
    await stage.pass_time(59.9 * DAY)
    subscription, endpoint = await stage.subscribe(start="beginning", max_in_flight=1)
    endpoint.always(Reply(after=1))
    await stage.start_worker()
    await stage.pass_time(100)
    sent = len(endpoint.arrivals)
    assert sent >= 90
    assert len(await kept(stage)) == 300
    await stage.settled(subscription, 300)
    assert [each.state for each in await stage.deliveries(subscription, DeliveryState.EXPIRED)] == []
