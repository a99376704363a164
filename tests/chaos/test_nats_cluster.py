"""Three NATS servers, killed one after the other under load: every acknowledged event is in the log, once."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from nats.errors import Error
from nats.js import JetStreamContext

from tests.support.bus import Bus, bus
from tests.support.nats import NatsCluster, client, cluster
from tests.support.waiting import eventually, until

PUBLISHERS = 8
PACE = 0.01
"""Seconds between the events of one publisher."""
AFTER_EACH_BLOW = 1000
"""Events that have to be acknowledged between two blows."""
ACK_WAIT = 3.0
"""Short, so that what a killed server had handed out comes again within the test."""


@dataclass
class Load:
    """Plain clients that publish until each event is acknowledged."""

    acknowledged: list[str] = field(default_factory=list[str])
    repeated: int = 0
    longest: float = 0.0
    stopped: bool = False

    async def publish(self, url: str, subject: str, number: int) -> None:
        async with client(url) as nc:
            js = JetStreamContext(nc, timeout=1.0)
            count = 0
            while not self.stopped:
                event_id = f"p{number}-{count}"
                began = time.monotonic()
                await self._insist(js, subject, event_id)
                self.longest = max(self.longest, time.monotonic() - began)
                self.acknowledged.append(event_id)
                count += 1
                await asyncio.sleep(PACE)

    async def _insist(self, js: JetStreamContext, subject: str, event_id: str) -> None:
        body = json.dumps({"id": event_id, "type": "order:created", "data": {"text": "x" * 400}}).encode()
        while True:
            try:
                await js.publish(
                    f"{subject}.shop.order:created", body, headers={"Nats-Msg-Id": f"shop/{event_id}"}
                )
            except (Error, OSError):
                self.repeated += 1
                await asyncio.sleep(0.05)
            else:
                return

    async def more(self, count: int) -> None:
        target = len(self.acknowledged) + count
        await until(
            lambda: len(self.acknowledged) >= target, lambda: f"{count} more ({len(self.acknowledged)})", 120
        )


async def leader(line: Bus) -> str:
    """The server that leads the stream of events."""
    found = await line.js.stream_info(line.names.stream)
    assert found.cluster is not None
    return str(found.cluster.leader)


async def blow(line: Bus, servers: NatsCluster, load: Load, name: str) -> None:
    """Kill a server, let the others go on without it, start it again and let it catch up."""
    victim = servers.named(name)
    victim.kill()
    await load.more(AFTER_EACH_BLOW)
    victim.launch()

    def current() -> bool:
        return victim.healthy() and servers.complete()

    await until(current, f"{name} has caught up", 120)


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_one_server_then_the_leader_are_killed_under_load(tmp_path: Path) -> None:
    async with (
        cluster(tmp_path / "nats") as servers,
        bus(servers.url, tmp_path, replicas=3, ack_wait=ACK_WAIT) as line,
    ):
        load = Load()
        async with line.feeding(), asyncio.TaskGroup() as tasks:
            for number in range(PUBLISHERS):
                tasks.create_task(load.publish(servers.url, line.names.subject, number))
            await load.more(AFTER_EACH_BLOW)
            first = await leader(line)
            await blow(line, servers, load, next(one.name for one in servers.servers if one.name != first))
            await blow(line, servers, load, await leader(line))
            load.stopped = True
        expected = sorted(load.acknowledged)
        async with line.feeding():
            await eventually(line.left, lambda left: left == 0, "the stream is empty")
        stored = await line.ids()
        print(  # noqa: T201 - the figures of the run
            f"{len(expected)} events acknowledged, {load.repeated} tries repeated, {load.longest:.1f} s the longest, "
            f"{line.metrics.bus_redelivered.value} messages handed out again"
        )
        assert sorted(set(expected).difference(stored)) == [], "acknowledged, and not in the log"
        assert sorted(stored) == expected
        assert line.metrics.bus_dead_letters.value == 0
