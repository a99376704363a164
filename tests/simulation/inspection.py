"""Looks into the workers, as no outsider can: are all their queues within bounds, and do their counts come out even?"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from hookline.engine.dispatch import feeder, lane, ordered
from hookline.engine.dispatch.lane import Lane
from hookline.engine.dispatch.ordered import OrderedLane
from hookline.engine.dispatch.turns import UNRECORDED_FACTOR
from hookline.engine.dispatch.worker import Worker
from tests.simulation.world import World


async def inspect_now_and_then(world: World) -> None:
    """For ever."""
    while True:
        await asyncio.sleep(world.plan.seconds / 200)
        for worker in _workers(world):
            _check_bounds(world, worker)


def _workers(world: World) -> Iterator[Worker]:
    for process in world.workers:
        if process.worker is not None and not process.frozen:
            yield process.worker


def _lanes(worker: Worker) -> Iterator[Lane]:
    for run in worker._shards.values():
        yield from run._roster.lanes.values()


def _check_bounds(world: World, worker: Worker) -> None:
    breaks, capacity = world.witness.breaks, world.plan.capacity
    turns = worker._tools.turns
    if turns.in_flight > capacity:
        breaks("requests in flight are bounded", turns.in_flight)
    if turns.unrecorded > capacity * (UNRECORDED_FACTOR + 1) + _parked(worker):
        breaks("unrecorded outcomes are bounded", turns.unrecorded)
    for each in _lanes(worker):
        if each.queued > lane.QUEUE_LIMIT + feeder.LANE_PAGE + ordered.HOLD_LIMIT:
            breaks("a lane's queue is bounded", each.no, each.queued)
        if isinstance(each, OrderedLane) and each._held > ordered.HOLD_LIMIT:
            breaks("what is held for its key is bounded", each.no, each._held)


def _parked(worker: Worker) -> int:
    """Parked deliveries are written too, though nothing was sent for them."""
    return sum(ordered.PARK_LIMIT + feeder.LANE_PAGE for _ in _lanes(worker))


def check_counts(world: World) -> None:
    """At rest nothing is under way, and every count says so."""
    breaks = world.witness.breaks
    for worker in _workers(world):
        turns = worker._tools.turns
        if turns.in_flight or turns.unrecorded:
            breaks("counts come out even", "in flight", turns.in_flight, "unrecorded", turns.unrecorded)
        if turns.memory.used:
            breaks("what is kept in memory is let go", turns.memory.used)
        for each in _lanes(worker):
            if not each.idle or each.queued:
                breaks(
                    "lanes come to rest", each.no, each.in_flight, each.unrecorded, each.retrying, each.queued
                )
            if isinstance(each, OrderedLane) and (each._held or each._parked or each._blocked or each._busy):
                breaks("keys are freed", each.no, each._held, each._parked, each._blocked, each._busy)
