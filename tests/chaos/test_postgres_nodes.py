"""Five nodes on one PostgreSQL, killed, suspended, restarted, joined and removed under load."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.chaos.fleet import AT_ONCE, Fleet, dice, fleet
from tests.support.cluster import IN_FLIGHT, LEASE, SHARDS, SLICES, Cluster, Node, cluster
from tests.support.postgres import PostgresServer
from tests.support.receipts import receiving
from tests.support.server import OPERATOR_KEY, ROOT, child_environment
from tests.support.waiting import until

pytestmark = pytest.mark.slow

ROUNDS = 6
UNRECORDED_AT_ONCE = 32
"""Requests to the slow endpoint that may come to an end while a batch of outcomes is written: in more than a second."""
SLACK = 10.0
"""Seconds that a busy machine may be late."""
ROUND = LEASE / 3
"""Seconds between the looks of a worker at nodes and leases."""


# --- kill -9 -----------------------------------------------------------------------------------------


async def kill_and_restart(this: Fleet, chance: random.Random) -> None:
    """Kill -9 at a random moment, of one node or two."""
    await this.more(chance.randint(1, 30))
    await chance.choice(this.tenants).edit()
    await asyncio.sleep(chance.uniform(0, 0.05))
    victims = chance.sample(this.cluster.nodes, chance.choice((1, 1, 2)))
    for victim in victims:
        victim.kill()
    await asyncio.gather(this.more(10), this.cluster.start(*victims))


@pytest.mark.timeout(400)
async def test_nodes_are_killed_again_and_again(durable: PostgresServer, tmp_path: Path) -> None:
    chance = dice()
    async with cluster(durable, tmp_path) as nodes, receiving(tmp_path) as receiver:
        async with fleet(nodes, receiver) as this:
            for _ in range(ROUNDS):
                await kill_and_restart(this, chance)
            victim = chance.choice(nodes.workers)  # at least one whose parts the others must take over
            await nodes.even()
            killed = time.time_ns()
            victim.kill()
            await nodes.rest([victim])
            await this.flowing()
            await victim.start()
            await nodes.even()
        verdict = await this.examine()
        verdict.tell(rounds=ROUNDS + 1)
        for tenant in this.tenants:
            await tenant.check_answers_to_repeats()
        assert verdict.forced
        assert verdict.take_over_seconds(forced=True, since=killed) < LEASE + 2 * ROUND + SLACK


# --- SIGSTOP -----------------------------------------------------------------------------------------


async def suspend(this: Fleet, victims: Sequence[Node]) -> int:
    """Stop some nodes until the others have all their parts, then let them go on; the time of that."""
    for victim in victims:
        victim.signal(signal.SIGSTOP)
    await this.cluster.rest(victims)
    await this.flowing()
    continued = time.monotonic_ns()
    for victim in victims:
        victim.signal(signal.SIGCONT)
    await this.cluster.even()
    return continued


@pytest.mark.timeout(400)
async def test_nodes_that_sleep_past_their_leases_are_fenced(durable: PostgresServer, tmp_path: Path) -> None:
    """They write nothing when they wake up, and send nothing of the hundreds that they still have in memory."""
    async with cluster(durable, tmp_path) as nodes, receiving(tmp_path) as receiver:
        async with fleet(nodes, receiver) as this:
            await this.flowing()
            first = await this.make_backlog()
            second = next(node for node in nodes.workers if node is not first)
            times = [await suspend(this, victims) for victims in ([first, nodes.apis[1]], [first, second])]
        verdict = await this.examine()
        late = sum(any(at < one.at < at + 1e9 for at in times) for one in verdict.duplicates)
        lost = [node.said("shard_lost") + node.said("fenced") for node in (first, second)]
        twice = this.check_backlog(2 * (AT_ONCE + UNRECORDED_AT_ONCE))
        verdict.tell(
            **{"told to have lost parts": lost, "sent after waking up": late, "backlog sent twice": twice}
        )
        assert min(lost) > 0
        assert late <= IN_FLIGHT  # what libcurl had in its hands when the process was stopped


# --- SIGTERM, and more or fewer nodes ----------------------------------------------------------------


@pytest.mark.timeout(400)
async def test_nodes_join_leave_and_restart_in_turn(durable: PostgresServer, tmp_path: Path) -> None:
    """Nothing comes twice, no lease runs out, and everybody has the same share within a few rounds."""
    async with cluster(durable, tmp_path) as nodes, receiving(tmp_path) as receiver:
        async with fleet(nodes, receiver) as this:
            fourth = await nodes.node(f"{nodes.database}_fourth", "delivery")
            await nodes.start(fourth)
            await nodes.even()
            assert await shown(nodes) == [4, 4, 4, 4]
            assert f"{SHARDS * SLICES} slices of {SHARDS} shards" in await doctor(nodes)
            await this.flowing()
            assert await fourth.terminate() == 0
            nodes.nodes.remove(fourth)
            await nodes.even()
            assert sorted(await shown(nodes)) == [5, 5, 6]
            for node in nodes.nodes:
                await this.flowing(2)
                assert await node.terminate() == 0
                await node.start()
            await nodes.even()
            await this.flowing()
        verdict = await this.examine()
        verdict.tell(restarts=len(nodes.nodes))
        assert (verdict.duplicates, verdict.forced, fourth.complaints()) == ([], [], [])
        assert verdict.take_over_seconds(forced=False) < 2 * ROUND + SLACK


async def shown(nodes: Cluster) -> list[int]:
    """How many slices the operator sees with each node that delivers."""
    answer = await nodes.api.get("/v1/nodes")
    assert all(each["owner"] for each in answer["slices"])
    assert len([node for node in answer["nodes"] if node["role"] == "api"]) == len(nodes.apis)
    return [node["slices"] for node in answer["nodes"] if node["role"] == "delivery"]


async def doctor(nodes: Cluster) -> str:
    """What ``hookline doctor`` says of a healthy installation."""
    url = f"http://127.0.0.1:{nodes.apis[0].port}"
    with subprocess.Popen(
        [sys.executable, "-m", "hookline", "doctor", "--url", url, "--key", OPERATOR_KEY],
        cwd=ROOT, env=child_environment(HOOKLINE_DATA_DIR=str(nodes.folder / "doctor")),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        await until(lambda: process.poll() is not None, "the doctor has finished")
        assert process.stdout is not None
        said = process.stdout.read()
    assert process.returncode == 0, said
    return said
