"""The server on PostgreSQL beside SQLite: with one process and more, few tenants and many, and several endpoints; how
delivery scales; and the storage's steps alone."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from benchmarks.accounts import Asker, Database, Meter, database, postgres_meter
from benchmarks.figures import Figures, Row, describe, median
from benchmarks.measure import accept_floor, arrivals, send_floor
from benchmarks.processes import PAYLOAD, ROOT, Server, cpu_seconds, load, receiver, server
from benchmarks.quota import NoQuota, limited
from hookline.core.ids import time_ordered
from hookline.core.model import NewEvent
from hookline.storage.postgres import PostgresStorage

TENANTS = 64
"""Tenants that there are; as many as a new database has shards, so each has its own."""
BATCH = 50
"""Events in one request of the parts that go at a given pace."""
QUOTA = 0.3
"""Part of a core that a delivery process gets where it is measured how they scale."""
AT_ONCE = 4
"""Callers that append at the same time."""


class Setup(Struct, frozen=True, kw_only=True):
    """What runs: on PostgreSQL unless ``sqlite``. ``busy`` tenants publish; ``fan`` subscriptions of each match."""

    name: str
    sqlite: bool = False
    split: bool = True
    deliveries: int = 1
    busy: int = 8
    fan: int = 1
    socket: bool = False
    cut: str = ""
    """Shards and slices, parted by a comma; as a new database has them if empty."""
    env: Mapping[str, str] = {}
    """Further settings."""


class Run(Struct, frozen=True):
    """A setup that runs."""

    target: Server
    keys: list[str]
    meter: Meter


Others = Mapping[str, Callable[[], float]]
"""CPU seconds, by the name of who used them."""

ROWS = (
    Setup(name="SQLite, one process", sqlite=True, split=False),
    Setup(name="SQLite, api + delivery", sqlite=True),
    Setup(name="one process", split=False),
    Setup(name="api + delivery"),
    Setup(name="api + 2 x delivery", deliveries=2),
)
"""Measured in turns, at full speed."""
MORE = (
    Setup(name="api + delivery, 1 tenant", busy=1),
    Setup(name="api + delivery, 64 tenants", busy=64),
    Setup(name="api + delivery, by socket", socket=True),
)
PACED = tuple(Setup(name=f"fan-out {fan}", fan=fan) for fan in (1, 3, 10))
"""Measured at a pace that the machine keeps up with: lanes that fall behind read the log in another way."""
SCALED = (
    Setup(name="8 tenants, 1 x delivery"),
    Setup(name="8 tenants, 2 x delivery", deliveries=2),
    Setup(name="1 tenant in 4 slices, 1 x delivery", busy=1, fan=8, cut="1,4"),
    Setup(name="1 tenant in 4 slices, 2 x delivery", busy=1, fan=8, cut="1,4", deliveries=2),
)
"""Each delivery process with ``QUOTA`` of a core."""


# --- what runs ---------------------------------------------------------------------------------------------


@contextmanager
def running(
    folder: Path, base: Database, setup: Setup, port: int, others: Others | None = None
) -> Generator[Run]:
    """The server with its tenants and subscriptions; a new database each time. ``others`` also count."""
    data = folder / f"data-{time.monotonic_ns()}"
    with base.fresh(socket=setup.socket) as url:
        env = _environment(url, setup)
        with server(data, split=setup.split, deliveries=setup.deliveries, env=env) as target:
            keys = subscribed(target, port, setup.busy, setup.fan)
            if setup.deliveries > 1:
                wait_until_even(url, setup.deliveries)
            accounts = {**_processes(target, setup), **(others or {})}
            meter = Meter(accounts) if setup.sqlite else postgres_meter(accounts, base, url)
            yield Run(target, keys, meter)


def _environment(url: str, setup: Setup) -> dict[str, str]:
    env = dict(setup.env)
    if not setup.sqlite:
        env["HOOKLINE_DATABASE_URL"] = url
    if setup.cut:
        shards, slices = setup.cut.split(",")
        env |= {"HOOKLINE_DATABASE_SHARDS": shards, "HOOKLINE_DATABASE_SLICES": slices}
    return env


def _processes(target: Server, setup: Setup) -> Others:
    first, *delivery = target.pids
    accounts = {"api" if setup.split else "server": lambda: cpu_seconds([first])}
    return {**accounts, "delivery": lambda: cpu_seconds(delivery)} if delivery else accounts


def subscribed(target: Server, port: int, busy: int, fan: int) -> list[str]:
    """Make all tenants, and subscriptions for ``busy`` of them, far apart; their keys."""
    keys = [target.create_tenant(f"tenant-{number}") for number in range(TENANTS)]
    keys = keys[:: TENANTS // busy]
    for tenant, key in enumerate(keys):
        target.key = key
        for number in range(fan):
            target.subscribe(f"http://127.0.0.1:{port}/{tenant}/{number}")
    return keys


def wait_until_even(url: str, nodes: int) -> None:
    """Return once so many nodes have as much as each other."""
    query = (
        "SELECT array_agg(parts) FROM (SELECT count(*) AS parts FROM hookline.shard_leases WHERE owner IS NOT NULL "
        "GROUP BY owner) AS held"
    )
    with Asker(url) as asker:
        asker.wait(query, lambda held: len(held or ()) == nodes and max(held) - min(held) <= 1)


# --- ways to measure ---------------------------------------------------------------------------------------


def full_speed(run: Run, setup: Setup, seconds: float) -> Row:
    """Publish one event a request, as fast as it is accepted, and wait until all is recorded."""
    target = run.target
    load(target.port, ",".join(run.keys), 2)
    target.wait_delivered(target.metric("events_appended"))
    first, before = target.metric("events_appended"), run.meter.read()
    load(target.port, ",".join(run.keys), seconds)
    last = target.metric("events_appended")
    target.wait_delivered(last)
    return run.meter.row(before, last - first, idle=1.1, fan=setup.fan, tenants=setup.busy)


def at_a_pace(run: Run, setup: Setup, seconds: float, deliveries: float) -> Row:
    """Publish in batches of ``BATCH``, for so many deliveries a second."""
    target = run.target
    rate = deliveries / setup.fan
    _publish_paced(run, 2, rate)
    target.wait_delivered(target.metric("events_appended") * setup.fan)
    first, before = target.metric("events_appended"), run.meter.read()
    _publish_paced(run, seconds, rate)
    last = target.metric("events_appended")
    target.wait_delivered(last * setup.fan)
    return run.meter.row(before, last - first, idle=1.1, fan=setup.fan, tenants=setup.busy)


def _publish_paced(run: Run, seconds: float, rate: float) -> None:
    command = [
        sys.executable,
        "-m",
        "benchmarks.load",
        str(run.target.port),
        str(seconds),
        "8",
        str(rate / BATCH),
    ]
    body = json.dumps([json.loads(PAYLOAD)] * BATCH)
    environment = {**os.environ, "KEY": ",".join(run.keys), "BODY": body, "TARGET": "/v1/events/batch"}
    subprocess.run(command, check=True, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)


def catching_up(run: Run, setup: Setup, deliveries: int) -> Row:
    """Publish more than is delivered meanwhile, then look how fast the rest is. Figures are for each delivery."""
    target, events = run.target, deliveries // setup.fan
    with limited(target.pids[1:], QUOTA):
        before = run.meter.read()
        _publish_all(run, events)
        first, start = target.metric("deliveries_succeeded"), time.monotonic()
        enough = first + 0.95 * (deliveries - first)
        while (reached := target.metric("deliveries_succeeded")) < enough:
            time.sleep(0.1)
        rate = (reached - first) / (time.monotonic() - start)
        target.wait_delivered(deliveries)
        row = run.meter.row(before, deliveries, fan=setup.fan, tenants=setup.busy)
    return replace(row, rate=rate)


def _publish_all(run: Run, events: int, batch: int = 500) -> None:
    data = json.dumps([json.loads(PAYLOAD)] * batch).encode()
    for number in range(events // batch):
        key = run.keys[number % len(run.keys)]
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{run.target.url}/v1/events/batch", data, headers, method="POST")
        urllib.request.urlopen(request, timeout=120).close()


# --- the part ----------------------------------------------------------------------------------------------


def postgres(folder: Path, options: argparse.Namespace) -> Figures:
    """All of it, beside the floor."""
    figures = Figures()
    with receiver(folder) as port, database() as base:
        floor = _at_full_speed(folder, base, port, figures, quick=options.quick)
        seconds, pace = (3, 2000) if options.quick else (10, 4000)
        for setup in MORE:
            with running(folder, base, setup, port) as run:
                _found(figures, setup, full_speed(run, setup, seconds), floor)
        for setup in PACED:
            with running(folder, base, setup, port) as run:
                _found(figures, setup, at_a_pace(run, setup, seconds, pace))
        _scaling(folder, base, port, figures, 12_000 if options.quick else 64_000)
        with base.fresh() as url:
            found = arrivals(
                folder, seconds, 500 if options.quick else options.rate, {"HOOKLINE_DATABASE_URL": url}
            )
            print(f"latency: {found}")
            name = f"latency at {round(found.rate, -2):,.0f} events/s"
            figures.steps |= {f"{name}, p50, ms": found.p50, f"{name}, p99, ms": found.p99}
        with base.fresh() as url:
            figures.steps |= asyncio.run(steps(url, base, 20 if options.quick else 100))
            print({name: round(value, 2) for name, value in figures.steps.items()}, flush=True)
    return figures


def _at_full_speed(folder: Path, base: Database, port: int, figures: Figures, *, quick: bool) -> float:
    """Floor and rows in turns; the floor's CPU microseconds."""
    seconds, rounds = (3, 1) if quick else (8, 3)
    floors: list[tuple[float, float]] = []
    found: dict[str, list[Row]] = {setup.name: [] for setup in ROWS}
    for _ in range(rounds):
        floors.append((accept_floor(seconds), send_floor(port, 8_000 * seconds)))
        for setup in ROWS:
            with running(folder, base, setup, port) as run:
                found[setup.name].append(full_speed(run, setup, seconds))
    accept, send = (statistics.median(part) for part in zip(*floors, strict=True))
    figures.steps |= {"floor, accept, us": accept, "floor, sign and send, us": send}
    print(
        f"floor: accept {accept:.1f} us + sign and send {send:.1f} us = {accept + send:.1f} us CPU per event"
    )
    for setup in ROWS:
        _found(figures, setup, median(found[setup.name]), accept + send)
    return accept + send


def _found(figures: Figures, setup: Setup, row: Row, floor: float = 0.0) -> None:
    figures.rows[setup.name] = row
    print(f"{setup.name}: {describe(row, floor)}", flush=True)


def _scaling(folder: Path, base: Database, port: int, figures: Figures, deliveries: int) -> None:
    for setup in SCALED:
        with running(folder, base, setup, port) as run:
            try:
                _found(figures, setup, catching_up(run, setup, deliveries))
            except NoQuota as error:
                print(f"how delivery scales is not measured: {error}")
                return
    for one, two in (SCALED[:2], SCALED[2:]):
        factor = figures.rows[two.name].rate / figures.rows[one.name].rate
        figures.steps[f"scaling from 1 to 2, {one.name.partition(',')[0]}"] = factor
        print(f"{two.name} beside {one.name.rpartition(', ')[2]}: {factor:.2f} times the deliveries/s")


# --- the storage's steps -----------------------------------------------------------------------------------


async def steps(url: str, base: Database, rounds: int) -> dict[str, float]:
    """How long an append takes, what appending and reading cost both sides, and what appends at once add up to."""
    storage = PostgresStorage(url)
    await storage.open()
    found: dict[str, float] = {}
    spread = range(2, 2 + TENANTS)
    for name, tenants, size in (
        ("append 500", [1], 500),
        ("append 50", [1], 50),
        ("append 500, 64 shards", spread, 500),
    ):
        found |= await _appends(storage, base, name, _batches(tenants, size, rounds))
    found |= await _reads(storage, base, 500 * rounds)
    for name, groups in (
        ("to one shard", [[1]] * AT_ONCE),
        ("to 64 shards", [spread] * AT_ONCE),
        ("to 16 shards of their own", [spread[first::AT_ONCE] for first in range(AT_ONCE)]),
    ):
        batches = [_batches(tenants, 500, rounds // 2) for tenants in groups]
        start = time.perf_counter()
        await asyncio.gather(*(_append_all(storage, own) for own in batches))
        rate = AT_ONCE * 500 * (rounds // 2) / (time.perf_counter() - start)
        found[f"{AT_ONCE} at once {name}, events/s"] = rate
    await storage.close()
    return found


def _batches(tenants: Sequence[int], size: int, count: int) -> list[list[NewEvent]]:
    """Events of the tenants in turns, under new ids."""
    payload, now = json.dumps(json.loads(PAYLOAD)["data"]).encode(), _now()
    return [
        [
            NewEvent(
                tenants[number % len(tenants)],
                time_ordered("evt", now, os.urandom(10)),
                "order:created",
                payload,
            )
            for number in range(size)
        ]
        for _ in range(count)
    ]


def _now() -> int:
    return time.time_ns() // 1_000_000


async def _append_all(storage: PostgresStorage, batches: Sequence[Sequence[NewEvent]]) -> list[float]:
    """How many seconds each took."""
    times: list[float] = []
    for events in batches:
        start = time.perf_counter()
        await storage.append(events, _now())
        times.append(time.perf_counter() - start)
    return times


async def _appends(
    storage: PostgresStorage, base: Database, name: str, batches: Sequence[Sequence[NewEvent]]
) -> dict[str, float]:
    """One at a time. CPU microseconds are for each event, ours and the server's."""
    client, server_side = time.process_time(), base.cpu()
    times = await _append_all(storage, batches)
    count = sum(map(len, batches))
    return {
        f"{name}, ms": statistics.median(times) * 1000,
        f"{name}, our us": (time.process_time() - client) / count * 1e6,
        f"{name}, server us": (base.cpu() - server_side) / count * 1e6,
    }


async def _reads(storage: PostgresStorage, base: Database, count: int) -> dict[str, float]:
    """Pages of the log, as the owner of a slice reads them."""
    client, server_side, position = time.process_time(), base.cpu(), 0
    while position < count:
        position = (await storage.read_log(1, position, 500, 2**62)).last
    return {
        "read, our us": (time.process_time() - client) / count * 1e6,
        "read, server us": (base.cpu() - server_side) / count * 1e6,
    }
