"""What the simulation once found, told as short stories."""

from __future__ import annotations

import asyncio
from random import Random

from msgspec.structs import replace

from hookline.core.model import BreakerPolicy, NewEvent, Order, RetryPolicy
from tests.simulation.calm import in_calm, publish, subscribe
from tests.simulation.inspection import check_counts
from tests.simulation.network import Reply, dead, healthy
from tests.simulation.traffic import VERSION_HEADER
from tests.simulation.world import World


def sends(world: World, number: int) -> list[int]:
    return [trail.sends for trail in world.witness.books[number].trails.values()]


def test_keyless_delivery_in_a_keyed_order_is_retried_once():
    async def story(world: World) -> list[int]:
        number = await subscribe(world, dead, order=Order.KEY, retry=RetryPolicy(delays=(20.0,), jitter=0))
        await world.user.append([NewEvent(1, "no-key", "sale", b"{}")], world.witness.now())
        await asyncio.sleep(10)
        world.endpoints.heal()
        await asyncio.sleep(300)
        return sends(world, number)

    assert in_calm(story) == [2]


def test_lane_whose_order_changes_while_it_waits_goes_on():
    async def story(world: World) -> bool:
        number = await subscribe(world, dead, breaker=BreakerPolicy(2, 60.0, 60.0))
        await publish(world, 20, 2)
        await asyncio.sleep(5)
        old = await world.storage.subscription_by_no(number)
        new = replace(old.definition, order=Order.KEY, headers={VERSION_HEADER: f"{number}.2"})
        await world.user.update_subscription(number, 1, new, b"", world.witness.now())
        world.endpoints.heal()
        await asyncio.sleep(3600)
        return all(trail.accepted for trail in world.witness.books[number].trails.values())

    assert in_calm(story)


def test_worker_that_stood_still_sends_nothing_until_it_has_a_lease_again():
    def slow_enough(random: Random, now: float) -> Reply:
        return Reply(1.0)

    async def story(world: World) -> tuple[int, list[int]]:
        number = await subscribe(world, slow_enough, max_in_flight=4)
        await publish(world, 100, 2)
        world.freeze(world.workers[0], 30)
        world.start_worker()
        await asyncio.sleep(200)
        check_counts(world)
        return world.traffic.counts["sent after the lease was lost"], sends(world, number)

    after, each = in_calm(story)
    assert after == 0
    assert sorted(set(each)) == [1, 2]
    assert each.count(2) <= 4  # those in flight when it stopped


def test_healthy_endpoints_do_not_wait_for_the_outcomes_of_a_lost_shard():
    async def story(world: World) -> bool:
        await subscribe(world, healthy)
        for _ in range(3):
            await publish(world, 200, 0.5)
            world.freeze(world.workers[-1], 30)
            world.start_worker()
            await asyncio.sleep(120)
        check_counts(world)
        return all(trail.accepted for trail in world.witness.books[1].trails.values())

    assert in_calm(story)
