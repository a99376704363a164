"""How cost and memory grow: with endpoints, subscriptions, the length of the log, and a backlog."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
import urllib.request
from pathlib import Path

from benchmarks.processes import PAYLOAD, Server, load, receiver, resident_mb, server
from hookline.core.ids import time_ordered
from hookline.core.model import NewEvent
from hookline.storage.sqlite import SqliteStorage

BATCH = 1000


def publish_batches(target: Server, count: int, event_type: str = "order:created") -> None:
    """Publish so many events in batches of 1,000."""
    event = json.loads(PAYLOAD)
    event["type"] = event_type
    data = json.dumps([event] * BATCH).encode()
    headers = {"Authorization": f"Bearer {target.key}", "Content-Type": "application/json"}
    for _ in range(count // BATCH):
        request = urllib.request.Request(f"{target.url}/v1/events/batch", data, headers, method="POST")
        urllib.request.urlopen(request, timeout=120).close()


def _cost(target: Server, seconds: float, fan: int = 1) -> float:
    """CPU microseconds for each delivery while events are published as fast as possible."""
    first, delivered, before = (
        target.metric("events_appended"),
        target.metric("deliveries_succeeded"),
        target.cpu(),
    )
    load(target.port, target.key, seconds)
    count = (target.metric("events_appended") - first) * fan
    target.wait_delivered(delivered + count)
    return (target.cpu() - before) / count * 1e6


def fanout(folder: Path, options: argparse.Namespace) -> None:
    """One event to many endpoints: CPU for each delivery."""
    for endpoints in (1, 10, 100) if options.quick else (1, 10, 100, 1000):
        with receiver(folder) as port, server(folder / f"fanout-{endpoints}") as target:
            target.create_tenant()
            for number in range(endpoints):
                target.subscribe(f"http://127.0.0.1:{port}/{number}")
            events = max(BATCH, (100_000 if options.quick else 200_000) // endpoints // BATCH * BATCH)
            events = min(events, 50_000)
            if endpoints >= BATCH:
                events = BATCH
            before, start = target.cpu(), time.monotonic()
            publish_batches(target, events)
            target.wait_delivered(events * endpoints)
            elapsed = time.monotonic() - start - 1.1
            cost = (target.cpu() - before) / (events * endpoints) * 1e6
            print(
                f"fan-out to {endpoints:,}: {cost:.1f} us CPU per delivery, "
                f"{events * endpoints / elapsed:,.0f} deliveries/s"
            )


def subscriptions(folder: Path, options: argparse.Namespace) -> None:
    """Many subscriptions, of which one wants each event: CPU per event."""
    seconds = 3 if options.quick else 8
    base = 0.0
    for count in (10, 1_000) if options.quick else (10, 100, 1_000, 10_000):
        with receiver(folder) as port, server(folder / f"subs-{count}") as target:
            target.create_tenant()
            target.subscribe(f"http://127.0.0.1:{port}/")
            for number in range(count - 1):
                target.subscribe(f"http://127.0.0.1:{port}/{number}", [f"other:{number}"])
            _cost(target, 2)
            cost = _cost(target, seconds)
            base = base or cost
            print(f"{count:,} subscriptions: {cost:.1f} us CPU per event ({cost / base:.2f} of that with 10)")


def log(folder: Path, options: argparse.Namespace) -> None:
    """An empty log and a long one: CPU per event."""
    seconds = 3 if options.quick else 8
    base = 0.0
    for length in (0, 200_000) if options.quick else (0, 5_000_000):
        data = folder / f"log-{length}"
        with receiver(folder) as port:
            with server(data, split=False) as target:
                key = target.create_tenant()
            asyncio.run(_fill(data, length))
            with server(data) as target:
                target.key = key
                target.subscribe(f"http://127.0.0.1:{port}/")
                _cost(target, 2)
                cost = _cost(target, seconds)
        base = base or cost
        print(f"log of {length:,} events: {cost:.1f} us CPU per event ({cost / base:.2f} of that with none)")


async def _fill(data: Path, count: int) -> None:
    """Append events straight to the storage: the same statements as publishing, without HTTP."""
    storage = SqliteStorage(data / "hookline.db")
    await storage.open()
    tenant = await storage.find_tenant("bench")
    assert tenant is not None
    payload = json.dumps(json.loads(PAYLOAD)["data"]).encode()
    now = time.time_ns() // 1_000_000 - count
    for start in range(0, count, BATCH):
        numbers = range(start, min(start + BATCH, count))
        entropy = [number.to_bytes(10) for number in numbers]
        events = [
            NewEvent(tenant.no, time_ordered("evt", now + number, salt), "order:created", payload)
            for number, salt in zip(numbers, entropy, strict=True)
        ]
        await storage.append(events, now + start)
    await storage.close()


def backlog(folder: Path, options: argparse.Namespace) -> None:
    """A paused subscription gathers a backlog and is resumed: memory of each process, and the time to catch up."""
    count = 50_000 if options.quick else 1_000_000
    with receiver(folder) as port, server(folder / "backlog") as target:
        target.create_tenant()
        subscription = target.subscribe(f"http://127.0.0.1:{port}/")
        target.call("POST", f"/v1/subscriptions/{subscription}/pause", {})
        publish_batches(target, count)
        peak = [resident_mb(pid) for pid in target.pids]
        start = time.monotonic()
        target.call("POST", f"/v1/subscriptions/{subscription}/resume", {})
        while target.metric("deliveries_succeeded") < count:
            peak = [max(old, resident_mb(pid)) for old, pid in zip(peak, target.pids, strict=True)]
            time.sleep(0.25)
        elapsed = time.monotonic() - start
    print(
        f"backlog of {count:,} events: most memory {max(peak):.0f} MB in one process "
        f"({' + '.join(f'{value:.0f}' for value in peak)}), caught up at {count / elapsed:,.0f} events/s"
    )
