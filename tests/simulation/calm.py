"""A world without faults, for stories told step by step; every promise is watched all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from hookline.core.model import Definition, NewEvent, Retention, SignatureScheme, Signing
from tests.simulation.network import Mood, healthy
from tests.simulation.plan import Plan, Weather
from tests.simulation.traffic import VERSION_HEADER
from tests.simulation.world import World, quiet, run_virtual

CALM = Plan(
    kind="calm", seconds=0, workers=1, apis=0, shards=1, slices=1, tenants=1, subscriptions=0, capacity=64, lease=10.0,
    skew=0.0, publish_every=1, batch=1, keys=1, operate_every=1, mood_every=1, kill_every=1, freeze_every=1,
    outage_every=1, retention=Retention(), memory=1 << 27, limits={}, pace=1.0,
)  # fmt: skip


def in_calm(story: Callable[[World], Coroutine[Any, Any, Any]]) -> Any:
    """Run a story in a world without faults; every promise is watched."""

    async def run() -> Any:
        world = World(1, CALM, Weather())
        result: list[Any] = []

        async def told() -> None:
            await world.set_up()
            result.append(await story(world))

        await world.live(told())
        return result[0]

    with quiet():
        return run_virtual(run())


async def subscribe(world: World, mood: Mood = healthy, **changes: Any) -> int:
    """A subscription with an endpoint of its own; its number."""
    number = len(world.witness.books) + 1
    world.endpoints.moods[f"e{number}.test"] = mood
    definition = Definition(
        url=f"http://e{number}.test/",
        headers={VERSION_HEADER: f"{number}.1"},
        signing=Signing(scheme=SignatureScheme.NONE),
        **changes,
    )
    await world.user.create_subscription(f"sub{number}", 1, definition, b"", world.witness.now())
    return number


async def publish(world: World, count: int, seconds: float, kind: str = "sale") -> None:
    """Events at an even pace."""
    for index in range(count):
        event = NewEvent(1, f"{kind}-{world.loop.time()}-{index}", kind, b"{}", key=f"k{index % 7}")
        await world.user.append([event], world.witness.now())
        world.ring(world.random)
        await asyncio.sleep(seconds / count)
