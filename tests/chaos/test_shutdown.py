"""SIGTERM is not a crash: what is under way is finished and recorded, nothing comes twice."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.chaos.storm import Storm
from tests.support.load import publishing
from tests.support.receipts import assert_no_duplicates_within, duplicates, receiving
from tests.support.server import Api, ServerProcess, running
from tests.support.waiting import until

PUBLISHERS = 6
ROUNDS = 5
GRACE = 20.0


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_a_graceful_stop_under_load_repeats_nothing(tmp_path: Path) -> None:
    chance = random.Random(ROUNDS)
    server = ServerProcess(tmp_path / "data", shutdown_grace=f"{GRACE:g}s")
    async with receiving(tmp_path) as receiver, running(server):
        storm = await Storm.prepare(Api(server), receiver)
        async with publishing(server, storm.api, PUBLISHERS) as load:
            for _ in range(ROUNDS):
                await load.more(chance.randint(20, 150))
                began = time.monotonic()
                assert await server.terminate() == 0
                assert time.monotonic() - began < GRACE
                await server.start()
            await load.more(50)
        await storm.settle(load)
        await storm.check(load)
        assert duplicates(receiver.receipts.all) == []
        assert server.complaints() == []


@pytest.mark.parametrize(
    "order", [("api", "delivery"), ("delivery", "api")], ids=["api-first", "delivery-first"]
)
async def test_two_processes_stop_in_either_order(tmp_path: Path, order: tuple[str, str]) -> None:
    servers = {role: ServerProcess(tmp_path / "data", role) for role in ("api", "delivery")}
    api = servers["api"]
    async with receiving(tmp_path) as receiver, running(*servers.values()):
        storm = await Storm.prepare(Api(api), receiver)
        async with publishing(api, storm.api, PUBLISHERS) as load:
            await load.more(100)
            for role in order:
                assert await servers[role].terminate() == 0
            for role in reversed(order):
                await servers[role].start()
            await load.more(50)
        await storm.settle(load)
        await storm.check(load)
        assert duplicates(receiver.receipts.all) == []
        assert [server.complaints() for server in servers.values()] == [[], []]


async def test_a_request_that_does_not_end_within_the_grace_is_repeated(tmp_path: Path) -> None:
    """The one case where a stop may repeat a delivery: its endpoint takes longer than the grace."""
    server = ServerProcess(tmp_path / "data", shutdown_grace="1s")
    async with receiving(tmp_path) as receiver, running(server):
        api = await Api(server).new_tenant("shop")
        endpoint = receiver.url("slow", "delay=14")
        subscription = await api.subscribe(endpoint, signing={"secret": receiver.secret})
        await api.publish({"id": "held-up", "type": "order:created", "data": {}})
        await until(lambda: receiver.receipts.count("slow") == 1, "the request arrives")
        began = time.monotonic()
        assert await server.terminate() == 0
        assert time.monotonic() - began < 12
        restarted = time.monotonic_ns()
        await server.start()
        await api.patch(f"/v1/subscriptions/{subscription}", {"url": receiver.url("slow")})
        await until(lambda: (receiver.receipts.read(), len(receiver.receipts.all) >= 2)[1], "it comes again")
        first, second = receiver.receipts.all
        assert (first.event, first.sequence) == (second.event, second.sequence) == ("held-up", 1)
        assert_no_duplicates_within([0, restarted], receiver.receipts.all)


async def test_a_stop_while_nothing_happens_is_quick(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "data")
    async with running(server):
        began = time.monotonic()
        assert await server.terminate() == 0
        assert time.monotonic() - began < 10
        assert not (tmp_path / "data" / "hookline.db-wal").exists()  # the file is left whole
