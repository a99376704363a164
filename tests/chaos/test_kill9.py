"""Kill -9 of the real server at random moments under load: nothing accepted is lost, and little comes twice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.chaos.storm import Storm
from tests.support.load import Load, publishing
from tests.support.receipts import assert_no_duplicates_within, receiving
from tests.support.server import Api, ServerProcess, running

PUBLISHERS = 6
PACE = 0.03
"""Seconds between the events of one publisher."""
IN_FLIGHT = 64
UNRECORDED = 2 * IN_FLIGHT
"""``UNRECORDED_FACTOR`` of the engine: outcomes that may wait to be written."""
EDIT_EVERY = 4
MOST_BETWEEN_KILLS = 80


def dice() -> random.Random:
    """Chance from a printed seed."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails
    return random.Random(seed)


async def wreck(
    storm: Storm,
    load: Load,
    victims: Sequence[Sequence[ServerProcess]],
    chance: random.Random,
    rounds: int,
) -> list[int]:
    """Kill some and start them again, ``rounds`` times. The times at which the processes' lives began."""
    lives = [0]
    for number in range(rounds):
        await load.more(chance.randint(1, MOST_BETWEEN_KILLS))
        if number % EDIT_EVERY == 0:
            await storm.edit()
        await asyncio.sleep(chance.uniform(0, 0.05))
        chosen = chance.choice(victims)
        for victim in chosen:
            victim.kill()
        lives.append(await storm.receiver.caught_up())
        for victim in chosen:
            await victim.start()
    await load.more(MOST_BETWEEN_KILLS)
    return lives


async def examine(storm: Storm, load: Load, lives: Sequence[int], servers: Sequence[ServerProcess]) -> None:
    """The promises, and the figures."""
    await storm.settle(load)
    await storm.check(load)
    assert_no_duplicates_within(lives, storm.receiver.receipts.all)
    kills, repeats, survivors = len(lives) - 1, storm.repeats(), storm.survivors(lives)
    print(  # noqa: T201 - the figures of the run
        f"{kills} kills, {len(load.accepted)} events, {len(storm.receiver.receipts.all)} requests, "
        f"{repeats} duplicates, {survivors} retries survived a kill, "
        f"{load.already_stored} events were stored although their answer was lost"
    )
    assert repeats <= kills * (IN_FLIGHT + UNRECORDED)
    assert survivors > 0
    await storm.check_answers_to_repeats(load)
    assert [server.complaints() for server in servers] == [[] for _ in servers]


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_one_process_killed_again_and_again(tmp_path: Path) -> None:
    chance = dice()
    server = ServerProcess(tmp_path / "data", max_in_flight=str(IN_FLIGHT))
    async with receiving(tmp_path) as receiver, running(server):
        storm = await Storm.prepare(Api(server), receiver)
        async with publishing(server, storm.api, PUBLISHERS, PACE) as load:
            lives = await wreck(storm, load, [[server]], chance, rounds=24)
        await examine(storm, load, lives, [server])


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_two_processes_on_one_file_killed_one_by_one_or_together(tmp_path: Path) -> None:
    chance = dice()
    api = ServerProcess(tmp_path / "data", "api")
    delivery = ServerProcess(tmp_path / "data", "delivery", max_in_flight=str(IN_FLIGHT))
    async with receiving(tmp_path) as receiver, running(api, delivery):
        storm = await Storm.prepare(Api(api), receiver)
        async with publishing(api, storm.api, PUBLISHERS, PACE) as load:
            victims = [[api], [delivery], [api, delivery]]
            lives = await wreck(storm, load, victims, chance, rounds=18)
        await examine(storm, load, lives, [api, delivery])
