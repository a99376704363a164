"""Nodes whose wall clocks are wrong, jump, or stand still. The kernel's clocks, which time the work, are right."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.fleet import fleet
from tests.support.cluster import LEASE, Cluster, cluster
from tests.support.postgres import PostgresServer
from tests.support.receipts import receiving
from tests.support.skewed import SkewedClock
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

WIDE = 2 * LEASE
"""Seconds of a lease. Renewals come a third of it apart, and a third goes to the clocks: the rest is for being late."""
SLIGHT = WIDE / 6
"""Seconds by which a clock may be wrong without harm: two such nodes differ by a third of the lease."""
GROSS = 2 * WIDE


async def add_skewed(nodes: Cluster, count: int) -> list[SkewedClock]:
    """More nodes that deliver, with clocks that can be set."""
    clocks: list[SkewedClock] = []
    for number in range(count):
        clock = SkewedClock(nodes.folder / f"clock-{number}")
        launcher = ("-m", "tests.support.skewed", str(clock.path))
        await nodes.node(f"{nodes.database}_skewed_{number}", "delivery", launcher=launcher)
        clocks.append(clock)
    return clocks


@pytest.mark.timeout(400)
async def test_clocks_that_are_wrong(durable: PostgresServer, tmp_path: Path) -> None:
    async with cluster(durable, tmp_path, workers=1, lease=WIDE) as nodes, receiving(tmp_path) as receiver:
        ahead, behind = await add_skewed(nodes, 2)
        await nodes.start(*nodes.workers[1:])
        await nodes.even()
        async with fleet(nodes, receiver) as this:
            ahead.set(SLIGHT)
            behind.set(-SLIGHT)
            await nodes.renewed()
            await this.flowing()
            assert not [change for change in await nodes.history() if change.is_forced]
            behind.set(0)
            for jump in (GROSS, -GROSS, None):
                epochs = await nodes.epochs()
                ahead.stop() if jump is None else ahead.set(jump)
                await eventually(nodes.epochs, lambda now, was=epochs: now != was, "parts are taken")
                await this.flowing()
                ahead.set(0)
                await nodes.even()
            await this.flowing()
        verdict = await this.examine()
        verdict.tell()
