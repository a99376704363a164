"""One scenario from its seed to its verdict: faults for a while, then calm, then every promise is checked."""

from __future__ import annotations

import asyncio
import json

from hookline.core.model import Millis, Order, Unsettled
from tests.simulation.actors import Misfortune, Owners, Publishers
from tests.simulation.inspection import check_counts, inspect_now_and_then
from tests.simulation.ledger import FINAL, WAITING, Book
from tests.simulation.plan import draw, paced, tuned
from tests.simulation.witness import Broken
from tests.simulation.world import Report, World, quiet, run_virtual

DUE_WAIT = 3600.0 * 6
"""Seconds of calm in which every delivery that was due at its beginning is tried: a pause that the endpoint asked for
is over, and so is the backlog of the slowest rate limit."""
CALM_WAIT = 86400.0 * 4
"""Virtual seconds in which everything must come to its end once all is well: a delivery may wait for a day because
its endpoint asked for it, and longer by its own retry schedule."""


AFTERMATH = 10.0
"""Seconds after the last fault in which what was on its way into the log arrives."""
SOON = 120.0
"""Seconds of those in which the engine's polls keep their pace; later ones are only about due retries."""
LAZY = 600.0
"""By how much polls are slower from then on."""


class SimulationFailed(AssertionError):
    """A promise was broken. The message holds the seed and the end of the trace."""


def simulate(seed: int, hours: float | None = None, trace: int = 60, *, from_outside: bool = False) -> Report:
    """Run the scenario of a seed. ``from_outside``: do not look at cursors, only at what comes of the events.

    Raises ``SimulationFailed``.
    """
    with quiet():
        return run_virtual(_simulate(seed, hours, trace, from_outside))


async def _simulate(seed: int, hours: float | None, trace: int, from_outside: bool) -> Report:
    plan, weather = draw(seed, hours)
    with tuned(plan):
        world = World(seed, plan, weather)
        world.witness.sees_lanes = not from_outside
        try:
            await world.live(_story(world))
        except Broken as broken:
            tail = world.witness.trace.tail(trace)
            again = f"python -m tests.simulation --seed {seed}" + (f" --hours {hours:g}" if hours else "")
            raise SimulationFailed(f"seed {seed} ({again}): {broken}\n{tail}") from None
    counts = dict(world.traffic.counts)
    counts["events"] = sum(map(len, world.witness.log))
    return Report(seed, plan.kind, world.loop.time() / 3600, world.witness.trace.digest, counts)


async def _story(world: World) -> None:
    await world.set_up()
    publishers, owners, misfortune = Publishers(world), Owners(world), Misfortune(world)
    await owners.begin()
    acting = [world.loop.create_task(actor.run()) for actor in (publishers, owners, misfortune)]
    acting.append(world.loop.create_task(inspect_now_and_then(world)))
    await asyncio.wait(acting, timeout=world.plan.seconds)
    for task in acting:
        task.cancel()
    for result in await asyncio.gather(*acting, return_exceptions=True):
        if isinstance(result, Exception):
            raise result
    world.heal()
    await owners.resume_all()
    await _come_to_rest(world, owners)
    await asyncio.sleep(world.plan.lease)  # lost answers come in, lanes of deleted subscriptions go
    check_end(world, publishers)


async def _come_to_rest(world: World, owners: Owners) -> None:
    """Wait until all deliveries are at their end, or nothing more happens."""
    await asyncio.sleep(AFTERMATH)
    await _wait_while_busy(world, owners, SOON)
    calm_since = world.witness.now()
    with paced(LAZY / world.plan.pace):
        world.be_lazy()
        await _wait_while_busy(world, owners, DUE_WAIT)
        _check_tried(world, calm_since)
        await _wait_while_busy(world, owners, CALM_WAIT)
    if _unfinished(world):
        world.witness.breaks("everything comes to its end", *map(_describe, _unfinished(world)))


async def _wait_while_busy(world: World, owners: Owners, seconds: float) -> None:
    deadline, pause = world.loop.time() + seconds, 1.0
    while world.loop.time() < deadline and _unfinished(world):
        await asyncio.sleep(pause)
        pause = min(pause * 1.3, 1800.0)
        await owners.resume_all()


def _check_tried(world: World, since: Millis) -> None:
    """What was due long ago, and waits behind nothing, was tried."""
    for book in _unfinished(world):
        rows = sorted(world.storage._unsettled[book.no].values(), key=lambda row: row.position)
        order = world.storage._subscriptions[book.no].definition.order
        heads: dict[object, Unsettled] = {}
        for row in rows:
            lock = (
                0 if order is Order.STRICT else row.key if order is Order.KEY and row.key else -row.position
            )
            heads.setdefault(lock, row)
        for row in heads.values():
            if row.due_at <= since:
                world.witness.breaks("what is due is tried", book.id, row.position, row.due_at)


def _unfinished(world: World) -> list[Book]:
    return [
        book for book in world.witness.books.values() if not book.deleted and not _is_finished(world, book)
    ]


def _is_finished(world: World, book: Book) -> bool:
    if any(trail.state not in FINAL and not trail.skipped for trail in book.trails.values()):
        return False
    return not world.storage._unsettled[book.no]


def _describe(book: Book) -> str:
    open_ones = [
        (trail.position, trail.sequence, trail.state)
        for trail in book.trails.values()
        if trail.state not in FINAL and not trail.skipped
    ]
    return f"{book.id}: {open_ones[:5]} of {len(open_ones)};"


# --- the verdict -------------------------------------------------------------------------------------


def check_end(world: World, publishers: Publishers) -> None:
    """What can only be said at the end."""
    _check_stored(world, publishers)
    check_counts(world)
    for book in world.witness.books.values():
        _check_received(world, book)
        _check_sequences(world, book)


def _check_stored(world: World, publishers: Publishers) -> None:
    places = world.witness.places
    for (tenant_no, event_id), body in publishers.acknowledged.items():
        event = places.get((tenant_no, event_id))
        if event is None:
            world.witness.breaks("stored means stored", event_id)
        elif json.loads(event.data) != json.loads(body)["data"]:
            world.witness.breaks("stored means stored", event_id, "has other content")


def _check_received(world: World, book: Book) -> None:
    for trail in book.trails.values():
        if trail.state == "succeeded" and not trail.accepted:
            world.witness.breaks("success means an answer of 2xx", book.id, trail.position)
        if book.deleted:
            continue
        if trail.state in {"", WAITING} and not trail.skipped:
            world.witness.breaks("nothing disappears", book.id, trail.position)
        if trail.sends < trail.owed and trail.state != "expired":
            world.witness.breaks("what is asked for again is sent again", book.id, trail.position)


def _check_sequences(world: World, book: Book) -> None:
    numbers = [trail.sequence for trail in book.trails.values() if trail.state and trail.sequence]
    recorded = [trail for trail in book.trails.values() if trail.state]
    if len(numbers) != len(recorded):
        world.witness.breaks("each delivery has a sequence", book.id)
    if not book.deleted and numbers != list(range(1, len(numbers) + 1)):
        world.witness.breaks("sequences are gapless", book.id, numbers)
