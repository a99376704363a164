"""Bad neighbours: whatever other endpoints do, the healthy ones are served as if they were alone."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from tests.support.http import Connection
from tests.support.receipts import Receipt, Receiver, duplicates, receiving
from tests.support.server import Api, ServerProcess, running
from tests.support.waiting import eventually

HEALTHY = [f"healthy-{number}" for number in range(50)]
BACKLOG = 100_000
BATCH = 1000

PACE = 0.1
"""Seconds between two events. Each goes to all healthy endpoints: 500 deliveries a second."""
BEFORE = 60
DURING = 100
"""Events measured without the bad neighbours, and with them."""

FACTOR = 2.0
FLOOR = 0.030
"""Seconds. Below this, a p99 says more about the scheduler of two shared cores than about us."""


@contextmanager
def refusing() -> Iterator[str]:
    """A URL on a port where nobody listens, and nobody else can."""
    with socket.socket() as placeholder:
        placeholder.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{placeholder.getsockname()[1]}/dead"


def percentile(values: Sequence[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


async def tick(api: Api, name: str, count: int) -> dict[str, int]:
    """Publish events at an even pace on one connection; when each was sent, in monotonic nanoseconds."""
    sent: dict[str, int] = {}
    connection = await Connection.open(api.server.port)
    started = time.monotonic()
    for number in range(count):
        await asyncio.sleep(max(0.0, started + number * PACE - time.monotonic()))
        event = f"{name}-{number}"
        body = json.dumps({"id": event, "type": "shop:tick", "data": {"text": "x" * 600}}).encode()
        sent[event] = time.monotonic_ns()
        answer = await connection.request("POST", "/v1/events", body, api.headers)
        assert answer.status == 202, answer
    await connection.close()
    return sent


async def measure(api: Api, receiver: Receiver, name: str, count: int) -> list[float]:
    """Seconds from publish to receipt, of each event at each healthy endpoint."""
    sent = await tick(api, name, count)
    await receiver.receipts.complete({endpoint: sent for endpoint in HEALTHY})
    receipts = [one for one in receiver.receipts.all if one.event in sent and one.endpoint in HEALTHY]
    assert len(receipts) == count * len(HEALTHY)
    return [latency(receipt, sent) for receipt in receipts]


def latency(receipt: Receipt, sent: dict[str, int]) -> float:
    return (receipt.at - sent[receipt.event]) / 1e9


async def pile_up(api: Api) -> None:
    """Publish the backlog, in batches."""
    connection = await Connection.open(api.server.port)
    for start in range(0, BACKLOG, BATCH):
        events = [
            {"id": f"b{number}", "type": "bulk:row", "data": {"row": number}}
            for number in range(start, start + BATCH)
        ]
        answer = await connection.request(
            "POST", "/v1/events/batch", json.dumps(events).encode(), api.headers
        )
        assert {item["status"] for item in answer.json["data"]} == {202}
    await connection.close()


@asynccontextmanager
async def bad_neighbours(api: Api, receiver: Receiver, bulk: str) -> AsyncGenerator[None]:
    """One dead, one that never answers, one slow, one that answers 429, and one that works off a backlog."""
    retry = {"kind": "list", "delays": [0.5] * 50, "jitter": 0}
    with refusing() as dead:
        for url in (
            dead,
            receiver.url("silent", "hang=1"),
            receiver.url("slow", "delay=10"),
            receiver.url("throttling", "status=429&retry_after=1"),
        ):
            await api.subscribe(url, events=["shop:*"], retry=retry, signing={"secret": receiver.secret})
        await api.post(f"/v1/subscriptions/{bulk}/resume", {})
        await eventually(lambda: waiting(receiver), lambda count: count > 0, "the backlog moves")
        yield


async def waiting(receiver: Receiver) -> int:
    return receiver.receipts.count("bulk")


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_bad_neighbours_do_not_slow_the_healthy(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "data")
    async with receiving(tmp_path) as receiver, running(server):
        api = await Api(server).new_tenant("shop")
        signing = {"secret": receiver.secret}
        for endpoint in HEALTHY:
            await api.subscribe(receiver.url(endpoint), events=["shop:*"], signing=signing)
        bulk = await api.subscribe(receiver.url("bulk"), events=["bulk:*"], signing=signing)
        await api.post(f"/v1/subscriptions/{bulk}/pause", {})
        await pile_up(api)
        await measure(api, receiver, "warm-up", 10)
        before = await measure(api, receiver, "before", BEFORE)
        async with bad_neighbours(api, receiver, bulk):
            during = await measure(api, receiver, "during", DURING)
            drained = receiver.receipts.count("bulk")
            lag = (await api.get(f"/v1/subscriptions/{bulk}/health"))["lag"]
        report(before, during, drained)
        normal, disturbed = percentile(before, 0.99), percentile(during, 0.99)
        assert disturbed <= max(FACTOR * normal, FLOOR)
        assert 0 < drained < BACKLOG, "the backlog must have been worked off all the while"
        assert lag > 0
        assert duplicates(one for one in receiver.receipts.all if one.endpoint in HEALTHY) == []
        assert server.complaints() == []


def report(before: Sequence[float], during: Sequence[float], drained: int) -> None:
    for name, values in (("alone", before), ("with bad neighbours", during)):
        figures = ", ".join(f"p{part * 100:g} {percentile(values, part) * 1000:.1f}" for part in (0.5, 0.9, 0.99))
        print(f"{name}: {figures} ms of {len(values)}")  # noqa: T201 - the figures of the run
    print(f"{drained} of the backlog delivered meanwhile")  # noqa: T201 - the figures of the run
