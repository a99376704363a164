"""Five nodes, and a PostgreSQL that stops, crashes, hangs up on them, or has no room for them."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.chaos.fleet import Fleet, dice, fleet
from tests.support.cluster import CUT_OFF, LEASE, Cluster, cluster
from tests.support.postgres import PostgresServer
from tests.support.receipts import receiving
from tests.support.waiting import eventually, until

pytestmark = pytest.mark.slow

REFUSED = 6
"""Publishes that must have been in vain before an outage ends."""
CUTS = 15
NO_KEY = {"Authorization": ""}
TOO_MANY = asyncpg.TooManyConnectionsError


async def ready(nodes: Cluster, status: int) -> None:
    """Return once both API nodes say so; they live in any case."""
    for node in nodes.apis:
        api = nodes.view(node)
        await eventually(
            lambda api=api: api.call("GET", "/readyz", headers=NO_KEY),
            lambda answer: answer.status == status,
            f"{node.name} says {status}",
        )
        assert (await api.call("GET", "/healthz", headers=NO_KEY)).status == 200


async def outage(this: Fleet, server: PostgresServer, how: signal.Signals, until_wall_clock: int = 0) -> None:
    """Stop the server, and start it again once publishers were refused and the time (in milliseconds) has come."""
    before = this.retried
    await asyncio.to_thread(server.stop, how)
    try:
        await until(
            lambda: this.retried >= before + REFUSED and time.time() * 1000 > until_wall_clock, "an outage"
        )
        await ready(this.cluster, 503)
    finally:
        server.start()
    await ready(this.cluster, 200)
    await this.flowing()


@pytest.mark.timeout(400)
async def test_the_database_stops_and_crashes(durable: PostgresServer, tmp_path: Path) -> None:
    chance = dice()
    async with cluster(durable, tmp_path) as nodes, receiving(tmp_path) as receiver:
        async with fleet(nodes, receiver) as this:
            for how in (signal.SIGINT, signal.SIGQUIT, signal.SIGQUIT):
                await this.more(chance.randint(10, 40))
                await outage(this, durable, how)
            ends = await nodes.latest_expiry() + 1000 * LEASE
            await outage(this, durable, signal.SIGQUIT, int(ends))
            await nodes.even()
        verdict = await this.examine()
        verdict.tell(outages=4)


# --- no room -----------------------------------------------------------------------------------------


@asynccontextmanager
async def all_taken(nodes: Cluster) -> AsyncGenerator[asyncpg.Connection[Any]]:
    """Another client has every connection that the server gives."""
    async with AsyncExitStack() as stack, nodes.connection() as first:
        while True:
            await take_what_is_left(nodes, stack)
            if not await first.fetchval(CUT_OFF, nodes.roles):
                break
        yield first


async def take_what_is_left(nodes: Cluster, stack: AsyncExitStack) -> None:
    while True:
        try:
            await stack.enter_async_context(nodes.connection())
        except TOO_MANY:
            return


@pytest.mark.timeout(400)
async def test_connections_are_cut_and_run_out(durable: PostgresServer, tmp_path: Path) -> None:
    chance = dice()
    async with cluster(durable, tmp_path) as nodes, receiving(tmp_path) as receiver:
        async with fleet(nodes, receiver) as this:
            cut = 0
            for _ in range(CUTS):
                await this.more(chance.randint(1, 10))
                await asyncio.sleep(chance.uniform(0, 0.1))
                cut += await nodes.cut_connections()
            await this.flowing()
            async with all_taken(nodes) as db:
                before = this.retried
                ends = await db.fetchval("SELECT max(expires_at) FROM hookline.shard_leases")
                await until(
                    lambda: time.time() * 1000 > ends and this.retried >= before + REFUSED, "it lasts"
                )
                await ready(nodes, 503)
            await ready(nodes, 200)
            await nodes.even()
            await this.flowing()
        verdict = await this.examine()
        verdict.tell(**{"connections cut": cut})
        assert cut > CUTS * len(nodes.nodes)


@pytest.mark.timeout(400)
async def test_a_full_pool_costs_no_lease(durable: PostgresServer, tmp_path: Path) -> None:
    """All connections of all nodes for reading and publishing are stuck; leases have their own."""
    async with cluster(durable, tmp_path) as nodes, receiving(tmp_path) as receiver:
        async with fleet(nodes, receiver) as this:
            await this.flowing()
            async with nodes.connection() as db, db.transaction():
                await db.execute("LOCK TABLE hookline.events IN ACCESS EXCLUSIVE MODE")
                before, epochs = this.retried, await nodes.epochs()
                await nodes.renewed()
                await until(lambda: this.retried >= before + REFUSED, "publishers have given up")
                assert await nodes.epochs() == epochs
            await this.flowing()
        verdict = await this.examine()
        verdict.tell()
        assert (verdict.duplicates, verdict.forced) == ([], [])


STUCK = """
SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'hookline.attempts'::regclass
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


@pytest.mark.timeout(400)
async def test_a_record_that_hangs_costs_no_other_lease(durable: PostgresServer, tmp_path: Path) -> None:
    """Where nothing can be recorded, what has nothing to record stays where it is."""
    async with cluster(durable, tmp_path) as nodes, receiving(tmp_path) as receiver:
        async with fleet(nodes, receiver) as this:
            await this.flowing()
            quiet = set(await nodes.epochs()) - set((await this.parts()).values())
            async with nodes.connection() as db, db.transaction():
                await db.execute("LOCK TABLE hookline.attempts IN ACCESS EXCLUSIVE MODE")
                epochs = await nodes.epochs(quiet)
                await eventually(lambda: nodes.fetch(STUCK), lambda rows: rows[0][0] >= 3, "records hang")
                await nodes.renewed(quiet)
                assert await nodes.epochs(quiet) == epochs
            await nodes.even()
            await this.flowing()
        verdict = await this.examine()
        verdict.tell()
