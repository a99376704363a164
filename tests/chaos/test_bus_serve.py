"""The bus goes on while the database is away and while the node that reads it is killed; nothing published is lost."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from pathlib import Path

import pytest
from nats.js import JetStreamContext

from tests.support import nats
from tests.support.postgres import PostgresServer
from tests.support.receipts import (
    Receiver,
    assert_sequences_follow_the_log,
    assert_signed,
    duplicates,
    receiving,
)
from tests.support.server import Api, ServerProcess, running
from tests.support.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

OUTAGE = float(os.environ.get("BUS_OUTAGE", "15"))
"""Seconds without a database. ``BUS_OUTAGE=60`` is the minute of a careful reader."""
PAUSE = 0.01
SMALL = {"bus_ack_wait": "5s", "bus_max_bytes": "64MiB", "bus_dead_max_bytes": "1MiB"}
IN_FLIGHT = 1024


class Publisher:
    """A program with a plain NATS client, that publishes until it is told to stop."""

    def __init__(self, js: JetStreamContext) -> None:
        self._js = js
        self.acknowledged: list[str] = []
        self.stopping = False

    async def run(self) -> None:
        number = 0
        while not self.stopping:
            number += 1
            name = f"e{number}"
            event = {"id": name, "type": "order:created", "data": {"n": number}}
            answer = await self._js.publish(
                "hookline.events.shop.order:created",
                json.dumps(event).encode(),
                headers={"Nats-Msg-Id": f"shop/{name}"},
                timeout=60,
            )
            assert answer.seq
            self.acknowledged.append(name)
            await asyncio.sleep(PAUSE)


async def all_arrived(receiver: Receiver, api: Api, names: list[str], kills: int) -> None:
    await receiver.receipts.complete({"hook": names}, seconds=90)
    receipts = receiver.receipts.of("hook")
    assert_signed(receipts)
    log = [event["id"] for event in reversed(await api.listing("/v1/events"))]
    assert sorted(log) == sorted(names)
    assert_sequences_follow_the_log(receipts, log)
    assert len(duplicates(receipts)) <= kills * IN_FLIGHT


async def test_publishing_goes_on_without_a_database_and_nothing_is_lost(tmp_path: Path) -> None:
    postgres = PostgresServer(durable=True)
    try:
        async with (
            nats.single(tmp_path / "nats") as bus,
            nats.client(bus.url) as nc,
            receiving(tmp_path) as receiver,
        ):
            node = ServerProcess(tmp_path / "data", database_url=postgres.tcp_url(), bus=bus.url, **SMALL)
            async with running(node):
                api = await Api(node).new_tenant("shop")
                await api.subscribe(receiver.url("hook"), signing={"secret": receiver.secret})
                publisher = Publisher(nc.jetstream())
                publishing = asyncio.create_task(publisher.run())
                await until(lambda: len(publisher.acknowledged) > 100, "publishing began")
                before, began = len(publisher.acknowledged), time.monotonic()
                await asyncio.to_thread(postgres.stop, signal.SIGINT)
                await until(
                    lambda: time.monotonic() > began + OUTAGE, "the outage is over", seconds=OUTAGE + 30
                )
                meanwhile = len(publisher.acknowledged) - before
                assert meanwhile > OUTAGE * 2
                await asyncio.to_thread(postgres.start)
                await until(
                    lambda: receiver.receipts.count("hook") > before + meanwhile, "it is caught up", 60
                )
                publisher.stopping = True
                await publishing
                await all_arrived(receiver, api, publisher.acknowledged, kills=0)
    finally:
        postgres.remove()


async def test_a_node_that_is_killed_again_and_again_loses_nothing_of_the_bus(tmp_path: Path) -> None:
    async with (
        nats.single(tmp_path / "nats") as bus,
        nats.client(bus.url) as nc,
        receiving(tmp_path) as receiver,
    ):
        node = ServerProcess(tmp_path / "data", bus=bus.url, **SMALL)
        async with running(node):
            api = await Api(node).new_tenant("shop")
            await api.subscribe(receiver.url("hook"), signing={"secret": receiver.secret})
            publisher = Publisher(nc.jetstream())
            publishing = asyncio.create_task(publisher.run())
            kills = 5
            for _ in range(kills):
                seen = receiver.receipts.count("hook")
                await until(lambda seen=seen: receiver.receipts.count("hook") > seen + 40, "it delivers", 60)
                node.kill()
                await node.start()
            publisher.stopping = True
            await publishing
            await all_arrived(receiver, api, publisher.acknowledged, kills)
