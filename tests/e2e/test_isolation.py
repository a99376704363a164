"""Bad neighbours: whatever other endpoints do, the healthy ones are served as if they were alone."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.http import Connection
from tests.support.ports import own_port
from tests.support.receipts import Receipt, Receiver, duplicates, receiving
from tests.support.server import Api, ServerProcess, running

HEALTHY = [f"healthy-{number}" for number in range(50)]
BACKLOG = 100_000
BATCH = 1000

PACE = 0.1
"""Seconds between two events. Each goes to all healthy endpoints: 500 deliveries a second."""
ROUNDS = 10
SLICE = 10
"""Events that are measured at a time: ``ROUNDS`` times without the bad neighbours, then as often with them."""

FACTOR = 2.0
FLOOR = 0.050
"""Seconds. Below this, a p99 says more about two cores that server, receiver and publisher share with whatever else
runs there than about us: it takes several turns of a busy loop and a sync of the disk."""


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
    await receiver.receipts.complete(dict.fromkeys(HEALTHY, sent))
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


async def failing_neighbours(api: Api, receiver: Receiver) -> list[str]:
    """One dead, one that never answers, one slow, one that answers 429, all busy with what the healthy ones get."""
    retry = {"kind": "list", "delays": [0.5] * 50, "jitter": 0}
    urls = (
        f"http://127.0.0.1:{own_port()}/dead",
        receiver.url("silent", "hang=1"),
        receiver.url("slow", "delay=10"),
        receiver.url("throttling", "status=429&retry_after=1"),
    )
    signing = {"secret": receiver.secret}
    return [await api.subscribe(url, events=["shop:*"], retry=retry, signing=signing) for url in urls]


async def backlog(api: Api, receiver: Receiver) -> str:
    """A paused subscription with many events to work off."""
    signing = {"secret": receiver.secret}
    subscription = await api.subscribe(receiver.url("bulk"), events=["bulk:*"], signing=signing)
    await api.post(f"/v1/subscriptions/{subscription}/pause", {})
    await pile_up(api)
    return subscription


@asynccontextmanager
async def shop(folder: Path) -> AsyncGenerator[tuple[Api, Receiver]]:
    """A server with healthy endpoints, warmed up."""
    server = ServerProcess(folder / "data")
    async with receiving(folder) as receiver, running(server):
        api = await Api(server).new_tenant("shop")
        for endpoint in HEALTHY:
            await api.subscribe(
                receiver.url(endpoint), events=["shop:*"], signing={"secret": receiver.secret}
            )
        await measure(api, receiver, "warm-up", 10)
        yield api, receiver
        assert duplicates(one for one in receiver.receipts.all if one.endpoint in HEALTHY) == []
        assert server.complaints() == []


async def switch(api: Api, subscriptions: Sequence[str], how: str) -> None:
    """``pause`` or ``resume`` them."""
    for subscription in subscriptions:
        await api.post(f"/v1/subscriptions/{subscription}/{how}", {})


async def slices(api: Api, receiver: Receiver, name: str, lasts: Callable[[], bool]) -> list[list[float]]:
    """Measure again and again, for as long as it lasts."""
    found: list[list[float]] = []
    for number in range(ROUNDS):
        values = await measure(api, receiver, f"{name}-{number}", SLICE)
        if not lasts():
            break
        found.append(values)
    return found


async def compare(api: Api, receiver: Receiver, bad: Sequence[str], lasts: Callable[[], bool]) -> None:
    """Measure while the bad neighbours are paused, then while they are not, without a break, and judge.

    What else the machine does at a time spoils one slice or another, not the middle one; a fault of ours spoils most.
    """
    await switch(api, bad, "pause")
    alone = await slices(api, receiver, "alone", lambda: True)
    await switch(api, bad, "resume")
    during = await slices(api, receiver, "during", lasts)
    found = {"alone": alone, "with bad neighbours": during}
    p99 = {name: [percentile(values, 0.99) for values in each] for name, each in found.items()}
    for name, values in p99.items():
        shown = ", ".join(f"{each * 1000:.1f}" for each in values)
        print(f"{name}: p99 {shown} ms")  # noqa: T201 - the figures of the run
    assert len(during) >= ROUNDS // 2, "the bad neighbours did not last long enough to tell"
    normal, disturbed = (statistics.median(values) for values in p99.values())
    assert disturbed <= max(FACTOR * normal, FLOOR)


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_failing_neighbours_do_not_slow_the_healthy(tmp_path: Path) -> None:
    async with shop(tmp_path) as (api, receiver):
        bad = await failing_neighbours(api, receiver)
        await compare(api, receiver, bad, lambda: True)
        receiver.receipts.read()
        assert {"silent", "slow", "throttling"} <= {one.endpoint for one in receiver.receipts.all}


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_a_backlog_beside_failing_neighbours_does_not_slow_the_healthy(tmp_path: Path) -> None:
    async with shop(tmp_path) as (api, receiver):
        bulk, *_ = bad = [await backlog(api, receiver), *await failing_neighbours(api, receiver)]
        await compare(api, receiver, bad, lambda: receiver.receipts.count("bulk") < BACKLOG)
        delivered = receiver.receipts.count("bulk")
        print(f"{delivered} of the backlog of {bulk} delivered meanwhile")  # noqa: T201 - the figures of the run
        assert delivered > 0
