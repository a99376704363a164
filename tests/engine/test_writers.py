"""Many who change one subscription at once: each change is made, none is lost, and nobody is sent away."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest

from hookline.core.address import AddressRule
from hookline.core.definition import Rules
from hookline.core.errors import Conflict
from hookline.core.model import Subscription
from hookline.engine.manage import Subscriptions
from hookline.profiles import PROFILES
from tests.engine.stage import Stage

WRITERS = 20
TRIP = 0.003
"""Seconds to the database and back."""


@pytest.fixture(autouse=True)
def updates(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The storage is a trip away, as a database is: others have their turn in every call. The versions that were
    written upon, in turn."""
    get, update = stage.storage.get_subscription, stage.storage.update_subscription
    seen: list[int] = []

    async def slow_get(tenant_no: int, subscription_id: str) -> Subscription:
        found = await get(tenant_no, subscription_id)
        await asyncio.sleep(TRIP)
        return found

    async def slow_update(no: int, expected: int, *fields: object) -> Subscription:
        await asyncio.sleep(TRIP)
        seen.append(expected)
        return await update(no, expected, *fields)  # pyright: ignore[reportArgumentType]  passed on as they are

    monkeypatch.setattr(stage.storage, "get_subscription", slow_get)
    monkeypatch.setattr(stage.storage, "update_subscription", slow_update)
    return seen


def processes(stage: Stage, count: int) -> list[Subscriptions]:
    """What each process of the API has one of."""
    rules = Rules(AddressRule(allow_http=True), frozenset(PROFILES))
    return [
        Subscriptions(stage.storage, stage.clock, random.Random(seed).randbytes, stage.vault, rules)
        for seed in range(count)
    ]


async def write(stage: Stage, made: Subscription, through: Sequence[Subscriptions]) -> None:
    """Each writer adds its own entry to the metadata."""
    async with asyncio.TaskGroup() as group:
        for number in range(WRITERS):
            patch = {"metadata": {f"writer-{number}": "was here"}}
            group.create_task(through[number % len(through)].update(stage.shop, made.id, patch))


async def test_writers_in_one_process_take_turns(stage: Stage, updates: list[int]):
    made, _ = await stage.subscribe()
    await write(stage, made, processes(stage, 1))
    assert len((await stage.now(made)).definition.metadata) == WRITERS
    assert len(updates) == WRITERS, "they got in each other's way"


async def test_writers_in_many_processes_all_come_through(stage: Stage):
    made, _ = await stage.subscribe()
    await write(stage, made, processes(stage, WRITERS))
    assert len((await stage.now(made)).definition.metadata) == WRITERS


async def test_keys_that_are_rotated_at_once_are_all_made(stage: Stage):
    made, _ = await stage.subscribe(profile="evolutionx", signing={"secret": "a key of our own"})
    async with asyncio.TaskGroup() as group:
        rotating = [
            group.create_task(each.rotate(stage.shop, made.id, 0)) for each in processes(stage, WRITERS) * 2
        ]
    keys = {stage.secrets(task.result()).keys for task in rotating}
    assert len(keys) == 2 * WRITERS
    assert (await stage.now(made)).version == made.version + 2 * WRITERS


async def test_who_names_a_version_is_told_at_once_that_it_is_past(stage: Stage, updates: list[int]):
    made, _ = await stage.subscribe()
    await stage.edit(made, name="other")
    with pytest.raises(Conflict, match="version 2, not 1"):
        await stage.subscriptions.update(stage.shop, made.id, {"name": "mine"}, 1)
    assert updates == [1]


async def test_writers_of_different_subscriptions_do_not_wait_for_each_other(stage: Stage):
    made = [(await stage.subscribe(f"{number}.example"))[0] for number in range(WRITERS)]
    (process,) = processes(stage, 1)
    began = stage.loop.time()
    async with asyncio.TaskGroup() as group:
        for each in made:
            group.create_task(process.update(stage.shop, each.id, {"name": "changed"}))
    assert stage.loop.time() - began < 4 * TRIP


async def test_who_waits_for_a_turn_for_too_long_is_sent_away(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    made, _ = await stage.subscribe()
    gate = asyncio.Event()

    async def stuck(*_: object) -> Subscription:
        await gate.wait()
        raise Conflict

    (process,) = processes(stage, 1)
    update = stage.storage.update_subscription
    monkeypatch.setattr(stage.storage, "update_subscription", stuck)
    first = asyncio.create_task(process.update(stage.shop, made.id, {"name": "first"}))
    await stage.pass_time(1)
    with pytest.raises(Conflict, match="try again"):
        await process.update(stage.shop, made.id, {"name": "second"})
    monkeypatch.setattr(stage.storage, "update_subscription", update)
    gate.set()
    with pytest.raises(Conflict):
        await first
    assert (await process.update(stage.shop, made.id, {"name": "third"})).definition.name == "third"
