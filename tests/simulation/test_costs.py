"""What must cost nothing costs nothing: stopped and dead endpoints per event, and a restart per event of the log."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

from hookline.core.model import (
    BreakerPolicy,
    Order,
    RetryPolicy,
    SubscriptionState,
)
from hookline.engine.record import IDLE_INTERVAL
from tests.simulation.calm import in_calm, publish, subscribe
from tests.simulation.network import Reply, dead
from tests.simulation.world import World


class Calls:
    """Counts what the workers ask of the storage."""

    def __init__(self) -> None:
        self.by_name: Counter[str] = Counter()
        self.pages_after: list[int] = []
        self.tails_after: list[int] = []

    def note(self, process: str, name: str, args: Sequence[Any]) -> None:
        if not process.startswith("worker"):
            return
        self.by_name[name] += 1
        if name == "read_log":
            (self.pages_after if args[-1] == 1 and len(args) > 4 else self.tails_after).append(args[1])


def throttled_for_an_hour(random: object, now: float) -> Reply:
    return Reply(0.01, 429, b"HTTP/1.1 429 Slow\r\nRetry-After: 3600\r\n\r\n")


def test_stopped_and_failing_endpoints_cost_no_reads_per_event():
    async def reads(world: World, events: int) -> Counter[str]:
        calls = Calls()
        retry = RetryPolicy(delays=(3600.0,), jitter=0)
        paused = await subscribe(world)
        await world.user.set_subscription_state(paused, SubscriptionState.PAUSED, "", world.witness.now())
        for order in Order:
            await subscribe(world, dead, order=order, retry=retry, breaker=BreakerPolicy(3, 600.0, 600.0))
            await subscribe(world, throttled_for_an_hour, order=order, retry=retry)
        await publish(world, 60, 60)  # all have failed by now
        world.witness.on_call = calls.note
        await publish(world, events, 300)
        assert len(calls.tails_after) > 0
        calls.by_name["pages"] = len(calls.pages_after)
        return calls.by_name

    few, many = (in_calm(lambda world, n=n: reads(world, n)) for n in (50, 1500))
    for name in ("pages", "due", "waiting", "read_events"):
        assert many[name] <= few[name] + 5, (name, few, many)
    assert many["record"] <= 300 / IDLE_INTERVAL + 5  # the watermark alone


def test_restart_reads_nothing_again_that_was_settled():
    async def reads(world: World) -> tuple[int, Calls]:
        for order in Order:
            await subscribe(world, order=order)
            for _ in range(5):
                await subscribe(world, events=("rare",), order=order)
        await publish(world, 400, 100)
        await asyncio.sleep(5)
        settled = world.storage._shards[0].slices[0].watermark
        calls = Calls()
        world.witness.on_call = calls.note
        world.kill(world.workers[0])
        await asyncio.sleep(60)
        await publish(world, 5, 5)
        await publish(world, 5, 5, "rare")
        await asyncio.sleep(30)
        assert all(trail.accepted for book in world.witness.books.values() for trail in book.trails.values())
        return settled, calls

    settled, calls = in_calm(reads)
    assert settled == 400
    assert calls.by_name["load_shard"] == 1
    assert min(calls.tails_after) >= settled
    assert calls.pages_after == []


def test_lane_behind_goes_on_at_its_own_cursor_after_restart():
    async def reads(world: World) -> tuple[int, int, Calls]:
        await subscribe(world)
        behind = await subscribe(world)
        await publish(world, 100, 20)
        await asyncio.sleep(3)
        await world.user.set_subscription_state(behind, SubscriptionState.PAUSED, "", world.witness.now())
        await asyncio.sleep(3)
        await publish(world, 300, 20)
        lane = await world.storage.lane_state(behind)
        assert lane is not None
        calls = Calls()
        world.witness.on_call = calls.note
        world.kill(world.workers[0])
        await asyncio.sleep(60)
        await world.user.set_subscription_state(behind, SubscriptionState.ACTIVE, "", world.witness.now())
        await asyncio.sleep(60)
        assert all(trail.accepted for trail in world.witness.books[behind].trails.values())
        return lane.cursor, world.storage._shards[0].head, calls

    cursor, head, calls = in_calm(reads)
    assert (cursor, head) == (100, 400)
    assert min(calls.pages_after) == cursor
    assert min(calls.tails_after) >= head - 1
    assert len(calls.pages_after) <= 5
