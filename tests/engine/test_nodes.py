"""Several nodes: slices shared out, handed over and taken over, with order and sequences kept."""

from __future__ import annotations

import asyncio

import pytest

from hookline.core.errors import StorageUnavailable
from hookline.core.model import Subscription
from hookline.engine.presence import Presence, gone_after
from hookline.ports import Record
from tests.engine.endpoints import Endpoint, Reply
from tests.engine.stage import HOUR, LEASE, Stage

SHARDS = 8
SLICES = 2
ROUNDS = 4 * LEASE


def shares(stage: Stage) -> list[int]:
    return sorted(len(process.parts) for process in stage.workers if process.storage.alive)


async def shared_out(stage: Stage, *expected: int) -> None:
    """All slices have one owner each, and the nodes have so many."""
    await stage.until(lambda: shares(stage) == sorted(expected), within=ROUNDS)
    owned = [part for process in stage.workers for part in process.parts]
    assert len(owned) == len(set(owned)) == stage.storage.shards * stage.storage.slices


def twice(endpoint: Endpoint) -> list[str]:
    ids = [arrival.event_id for arrival in endpoint.arrivals]
    return [one for one in set(ids) if ids.count(one) > 1]


async def all_arrived(stage: Stage, subscription: Subscription, endpoint: Endpoint, count: int) -> None:
    await stage.settled(subscription, count)
    assert sorted({arrival.sequence for arrival in endpoint.arrivals}) == list(range(1, count + 1))


async def test_nodes_that_join_and_leave_share_evenly():
    async with Stage(shards=SHARDS, slices=SLICES) as stage:
        await shared_out(stage, 16)
        await stage.start_worker()
        await shared_out(stage, 8, 8)
        await stage.start_worker()
        await shared_out(stage, 5, 5, 6)
        await stage.workers[0].stop()
        await shared_out(stage, 8, 8)
        stage.workers[1].kill()
        await shared_out(stage, 16)


async def test_nothing_moves_while_nobody_comes_or_goes():
    async with Stage(shards=SHARDS) as stage:
        for _ in range(2):
            await stage.start_worker()
        await shared_out(stage, 2, 3, 3)
        before = [process.parts for process in stage.workers]
        await stage.pass_time(HOUR / 10)
        assert [process.parts for process in stage.workers] == before
        assert sum(process.metrics.lost_leases.value for process in stage.workers) == 0


async def test_a_large_tenant_is_delivered_by_several_nodes():
    """Its subscriptions spread over the slices of its shard; each keeps its order and its sequence."""
    async with Stage(shards=1, slices=4) as stage:
        for _ in range(3):
            await stage.start_worker()
        await shared_out(stage, 1, 1, 1, 1)
        made = [await stage.subscribe(f"{name}.example", order="strict") for name in "abcdefgh"]
        ids = await stage.publish_many(40)
        for subscription, endpoint in made:
            await all_arrived(stage, subscription, endpoint, 40)
            assert [arrival.event_id for arrival in endpoint.arrivals] == ids
        await stage.until(lambda: sum(len(process.lanes) for process in stage.workers) == 8)
        assert [len(process.lanes) for process in stage.workers] == [2, 2, 2, 2]


async def test_the_slices_of_a_shard_come_to_several_nodes_also_where_there_are_many_shards():
    async with Stage(shards=SHARDS, slices=2) as stage:
        await shared_out(stage, 16)
        await stage.start_worker()
        await shared_out(stage, 8, 8)
        for process in stage.workers:
            assert {shard for shard, _ in process.parts} == set(range(SHARDS))


async def test_handing_over_repeats_nothing_and_loses_nothing():
    async with Stage(shards=2, slices=2) as stage:
        subscription, endpoint = await stage.subscribe(
            retry={"kind": "list", "delays": [30.0] * 5, "jitter": 0}
        )
        endpoint.always(Reply(after=1.5))
        for count in range(1, 7):
            await stage.publish_many(20)
            await stage.pass_time(1)
            if count % 2:
                await stage.start_worker()
            await stage.pass_time(LEASE)
        await all_arrived(stage, subscription, endpoint, 120)
        assert twice(endpoint) == []


@pytest.mark.parametrize("moment", [0.0, 0.1, 0.9, 1.7, 2.4, 2.9, 3.3])
async def test_dead_nodes_slices_are_taken_over_within_the_lease_time(moment: float):
    """Whenever they die, and though the others do not look at the same time."""
    async with Stage(shards=SHARDS, slices=SLICES) as stage:
        for pause in (0.7, 1.1, 0.4):
            await stage.pass_time(pause)
            await stage.start_worker()
        await shared_out(stage, 4, 4, 4, 4)
        await stage.pass_time(moment)
        stage.workers[0].kill()
        await stage.until(lambda: shares(stage) == [5, 5, 6], within=LEASE)
        stage.workers[2].kill()
        stage.workers[3].kill()
        await stage.until(lambda: shares(stage) == [16], within=LEASE)


@pytest.mark.parametrize("lease", [1.0, LEASE, 300.0])
async def test_nodes_that_live_are_listed_all_the_time(lease: float):
    async with Stage(shards=2, lease=lease) as stage:
        presence = Presence("api-1", "api", stage.storage, stage.clock, lease)
        task = stage.loop.create_task(presence.run())
        for _ in range(200):
            await stage.pass_time(1.7)
            listed = await stage.storage.nodes(stage.clock.now(), gone_after(lease))
            assert [node.id for node in listed] == ["api-1", "worker-0"]
        task.cancel()
        await asyncio.wait([task])
        stage.worker.kill()
        await stage.pass_time(max(15.0, lease) + 0.1)
        assert await stage.storage.nodes(stage.clock.now(), gone_after(lease)) == []


async def test_a_slice_that_could_not_be_loaded_is_taken_again_in_the_next_round(stage: Stage):
    """The storage failed us: we do not wait until our own lease has ended. The epoch is another one, in which nothing
    that was still on its way can be recorded."""
    subscription, endpoint = await stage.subscribe()
    first, second = stage.worker, await stage.start_worker()
    failures = 2

    async def fail(*_: object) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise StorageUnavailable

    second.storage.before["load_shard"] = fail
    (before,) = first.worker._leases.values()
    first.kill()
    await stage.publish()
    await stage.until(lambda: not failures, within=2 * LEASE)
    await stage.until(lambda: second.worker.owned == [0], within=LEASE / 2)
    (after,) = second.worker._leases.values()
    assert after.epoch == before.epoch + 3
    await all_arrived(stage, subscription, endpoint, 1)


async def test_the_leases_are_kept_while_a_node_drains(stage: Stage):
    """What is under way takes longer than the lease: nobody takes over, and nothing is sent twice."""
    subscription, endpoint = await stage.subscribe(timeout={"total": 60})
    endpoint.always(Reply(after=2.5 * LEASE))
    await stage.publish_many(3)
    await stage.pass_time(1)
    first, second = stage.worker, await stage.start_worker()
    await first.stop(grace=4 * LEASE)
    await stage.until(lambda: second.worker.owned == [0], within=LEASE)
    await all_arrived(stage, subscription, endpoint, 3)
    assert twice(endpoint) == []


async def test_a_record_whose_answer_is_lost_undoes_no_resend(stage: Stage):
    subscription, endpoint = await stage.subscribe()
    await stage.publish()
    await stage.settled(subscription, 1)
    storage = stage.worker.storage

    async def resend_and_lose_the_answer(_: str, args: tuple[Record]) -> None:
        if args[0].settled:
            del storage.after["record"]
            assert await stage.storage.resend(subscription.no, [2], stage.clock.now()) == 1
            raise StorageUnavailable

    storage.after["record"] = resend_and_lose_the_answer
    await stage.publish()
    await stage.until(lambda: [arrival.event_id for arrival in endpoint.arrivals].count("e2") == 2)


async def test_retention_of_a_shard_is_one_nodes_work():
    async with Stage(shards=2, slices=2) as stage:
        await stage.start_worker()
        await shared_out(stage, 2, 2)
        before = sum(process.storage.calls["remove_events"] for process in stage.workers)
        await stage.pass_time(HOUR)
        after = sum(process.storage.calls["remove_events"] for process in stage.workers)
        assert after - before == 1  # an hour, one tenant: not once for each slice
