"""Sending again: one delivery, a range, only what failed; slowly, to be watched and cancelled."""

from __future__ import annotations

import pytest

from hookline.core.errors import Conflict, InvalidInput, NotFound
from hookline.core.ids import delivery_id
from hookline.core.model import DeliveryState, ReplayState, Subscription, SubscriptionState
from hookline.engine.manage import Range
from hookline.engine.replay import WAITING_LIMIT
from tests.engine.endpoints import Endpoint, Reply
from tests.engine.stage import Stage

FAILED = (DeliveryState.FAILED,)


async def delivered(stage: Stage, count: int, fail: tuple[int, ...] = ()) -> tuple[Subscription, Endpoint]:
    """A subscription that got ``count`` events; those in ``fail`` failed for good."""
    subscription, endpoint = await stage.subscribe(events=["order:*"], retry={"kind": "none"})
    for number in fail:
        endpoint.answers_event(f"e{number}", 500)
    await stage.publish_many(count)
    await stage.settled(subscription, count)
    endpoint.arrivals.clear()
    return subscription, endpoint


# --- one delivery ----------------------------------------------------------------------------------------


async def test_a_resend_sends_the_same_event_with_its_sequence_at_once(stage: Stage):
    subscription, endpoint = await delivered(stage, 3)
    asked = stage.loop.time()
    await stage.resend(subscription, 2)
    await stage.until(lambda: len(endpoint.arrivals) == 1)
    sent = endpoint.arrivals[0]
    assert (sent.event_id, sent.sequence, sent.attempt) == ("e2", 2, 2)
    assert sent.at - asked < 0.1


async def test_a_failed_delivery_can_be_resent_and_succeeds(stage: Stage):
    subscription, _ = await delivered(stage, 3, fail=(2,))
    assert await stage.states(subscription) == ["succeeded", "failed", "succeeded"]
    await stage.resend(subscription, 2)
    await stage.settled(subscription, 3)
    assert await stage.states(subscription) == ["succeeded"] * 3
    assert [each.status for each in await stage.attempts(subscription, 2)] == [500, 200]


async def test_a_resend_starts_the_retry_schedule_anew(stage: Stage):
    subscription, endpoint = await stage.subscribe(retry={"kind": "list", "delays": [1, 1], "jitter": 0})
    endpoint.always(500)
    await stage.publish()
    await stage.settled(subscription, 1)
    assert len(endpoint.arrivals) == 3
    await stage.resend(subscription, 1)
    await stage.settled(subscription, 1)
    assert [arrival.attempt for arrival in endpoint.arrivals] == [1, 2, 3, 4, 5, 6]


async def test_a_delivery_that_waits_for_its_retry_is_sent_at_once(stage: Stage):
    subscription, endpoint = await stage.subscribe(retry={"kind": "list", "delays": [500], "jitter": 0})
    endpoint.answers(500)
    await stage.publish()
    await stage.until(lambda: len(endpoint.arrivals) == 1)
    await stage.pass_time(5)
    await stage.resend(subscription, 1)
    await stage.settled(subscription, 1, within=5)


async def test_a_resend_of_a_paused_subscription_waits_for_its_resume(stage: Stage):
    subscription, endpoint = await delivered(stage, 1)
    await stage.pause(subscription)
    await stage.resend(subscription, 1)
    await stage.pass_time(30)
    assert endpoint.arrivals == []
    await stage.resume(subscription)
    await stage.until(lambda: endpoint.ids == ["e1"])


async def test_what_is_not_there_cannot_be_resent(stage: Stage):
    subscription, _ = await delivered(stage, 1)
    other = await stage.add_tenant("other")
    with pytest.raises(NotFound):
        await stage.resend(subscription, 99)
    with pytest.raises(NotFound):
        await stage.replays.resend(other, delivery_id(subscription.no, 1))
    await stage.delete(subscription)
    with pytest.raises(Conflict):
        await stage.resend(subscription, 1)


# --- a range ---------------------------------------------------------------------------------------------


async def test_a_replay_sends_a_range_of_time_again(stage: Stage):
    subscription, endpoint = await stage.subscribe()
    await stage.publish_many(3)
    await stage.pass_time(10)
    since = stage.clock.now()
    await stage.publish_many(3)
    await stage.pass_time(10)
    until = stage.clock.now()
    await stage.publish_many(3)
    await stage.settled(subscription, 9)
    endpoint.arrivals.clear()
    await stage.replay(subscription, since=since, until=until)
    await stage.until(lambda: len(endpoint.arrivals) == 3)
    await stage.pass_time(10)
    assert sorted(endpoint.ids) == ["e4", "e5", "e6"]
    assert sorted(endpoint.sequences) == [4, 5, 6]


async def test_a_replay_of_what_failed_sends_nothing_else(stage: Stage):
    subscription, endpoint = await delivered(stage, 20, fail=(3, 7, 19))
    job_id = await stage.replay(subscription, states=FAILED)
    await stage.until(lambda: len(endpoint.arrivals) == 3)
    await stage.pass_time(10)
    assert sorted(endpoint.sequences) == [3, 7, 19]
    assert await stage.states(subscription) == ["succeeded"] * 20
    assert (await stage.storage.get_replay(job_id)).total == 3


async def test_a_dry_run_counts_and_sends_nothing(stage: Stage):
    subscription, endpoint = await delivered(stage, 20, fail=(3, 7))
    assert (await stage.replays.plan(subscription, Range(0))).total == 20
    assert (await stage.replays.plan(subscription, Range(0, states=FAILED))).total == 2
    await stage.pass_time(10)
    assert endpoint.arrivals == []
    assert await stage.replays.list(subscription, 10) == []


async def test_a_replay_runs_beside_the_normal_traffic(stage: Stage):
    subscription, endpoint = await delivered(stage, 50)
    await stage.replay(subscription, rate=5)
    new = await stage.publish()
    await stage.until(lambda: new in endpoint.ids, within=1)
    await stage.until(lambda: len(endpoint.arrivals) == 51)
    assert {arrival.event_id: arrival.sequence for arrival in endpoint.arrivals}[new] == 51


# --- pace, progress, cancel ------------------------------------------------------------------------------


async def test_the_rate_of_a_replay_is_kept(stage: Stage):
    subscription, endpoint = await delivered(stage, 60)
    await stage.replay(subscription, rate=5)
    await stage.until(lambda: len(endpoint.arrivals) == 60)
    times = [arrival.at for arrival in endpoint.arrivals]
    assert times[-1] - times[0] >= 59 / 5 - 0.5
    assert times[-1] - times[0] <= 59 / 5 + 3
    assert max(sum(start <= time < start + 2 for time in times) for start in times) <= 12


async def test_a_replay_tells_its_progress(stage: Stage):
    subscription, _ = await delivered(stage, 40)
    job_id = await stage.replay(subscription, rate=10)
    await stage.pass_time(2)
    halfway = await stage.storage.get_replay(job_id)
    assert halfway.state is ReplayState.RUNNING
    assert 10 <= halfway.done <= 30
    assert halfway.total == 40
    await stage.pass_time(5)
    ended = await stage.storage.get_replay(job_id)
    assert (ended.state, ended.done) == (ReplayState.DONE, 40)


async def test_a_cancelled_replay_sends_nothing_further(stage: Stage):
    subscription, endpoint = await delivered(stage, 100)
    job_id = await stage.replay(subscription, rate=10)
    await stage.pass_time(3)
    _, cancelled = await stage.replays.cancel(stage.shop, job_id)
    stage.notify()
    assert cancelled.state is ReplayState.CANCELLED
    await stage.pass_time(2)
    count = len(endpoint.arrivals)
    assert count == (await stage.storage.get_replay(job_id)).done
    await stage.pass_time(30)
    assert len(endpoint.arrivals) == count
    assert await stage.states(subscription) == ["succeeded"] * 100


async def test_a_replay_goes_on_after_a_restart(stage: Stage):
    subscription, endpoint = await delivered(stage, 60)
    await stage.replay(subscription, rate=10)
    await stage.pass_time(2)
    await stage.restart()
    await stage.until(lambda: set(endpoint.sequences) == set(range(1, 61)))
    await stage.pass_time(5)
    assert len(endpoint.arrivals) <= 62  # what was in flight at the kill may come twice
    assert await stage.states(subscription) == ["succeeded"] * 60


async def test_a_replay_of_much_keeps_the_retry_set_bounded(stage: Stage):
    subscription, endpoint = await delivered(stage, 2500)
    endpoint.always(Reply(after=0.5))
    await stage.replay(subscription)
    most = 0
    while len(endpoint.arrivals) < 2500:
        most = max(most, (await stage.storage.waiting(subscription.no))[0])
        await stage.pass_time(0.1)
    assert most <= WAITING_LIMIT + 200


async def test_deleting_the_subscription_cancels_its_replay(stage: Stage):
    subscription, endpoint = await delivered(stage, 50)
    job_id = await stage.replay(subscription, rate=5)
    await stage.pass_time(2)
    await stage.delete(subscription)
    await stage.pass_time(2)
    count = len(endpoint.arrivals)
    await stage.pass_time(60)
    assert len(endpoint.arrivals) == count
    assert (await stage.storage.get_replay(job_id)).state is ReplayState.CANCELLED
    assert not {"pending", "retrying"} & set(await stage.states(subscription))


async def test_the_worker_cancels_the_replay_of_a_subscription_whose_delete_was_cut_short(stage: Stage):
    subscription, _ = await delivered(stage, 50)
    job_id = await stage.replay(subscription, rate=5)
    await stage.pass_time(2)
    deleted, now = SubscriptionState.DELETED, stage.clock.now()
    await stage.storage.set_subscription_state(subscription.no, deleted, "", now)  # and no more: the API died
    await stage.pass_time(5)
    assert (await stage.storage.get_replay(job_id)).state is ReplayState.CANCELLED
    assert not {"pending", "retrying"} & set(await stage.states(subscription))


@pytest.mark.parametrize(
    ("wanted", "place"),
    [
        (Range(0, states=()), "state"),
        (Range(0, states=(DeliveryState.PENDING,)), "state"),
        (Range(1000, 1000), "to"),
        (Range(0, rate=-1), "rate"),
        (Range(0, rate=float("nan")), "rate"),
    ],
)
async def test_a_range_that_makes_no_sense_is_refused(stage: Stage, wanted: Range, place: str):
    subscription, _ = await stage.subscribe()
    with pytest.raises(InvalidInput) as refused:
        await stage.replays.start(subscription, wanted)
    assert place in [fault.field for fault in refused.value.faults]
