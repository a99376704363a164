"""The other ways in: from the bus (NATS JetStream) and from a program's outbox, into the log on PostgreSQL.

The events lie ready, in the stream or in the table, before the clock starts: only those work then who take them into
the log, the databases, and who delivers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
from msgspec import Struct
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from benchmarks.accounts import database
from benchmarks.figures import Figures, Row, describe, median
from benchmarks.nodes import TENANTS, Run, Setup, running
from benchmarks.processes import PAYLOAD, Server, cpu_seconds, free_port, process, receiver, wait_for
from hookline.client.subjects import subject_of
from hookline.outbox import Event, create_table, publish
from hookline.sources.nats import NatsOptions
from tests.support.nats import binary

BUSY = 8
NAMES = [f"tenant-{number}" for number in range(0, TENANTS, TENANTS // BUSY)]
"""The tenants that have subscriptions."""
WARM = 4_000
"""Events that go before those that are counted."""
WRITERS = 16
"""Connections of the program with the outbox."""
FLUSH = 500
PATIENCE = 300.0


class Supply(Struct, frozen=True):
    """Where events lie ready: ``keeper`` is the server that has them."""

    name: str
    keeper: str
    url: str
    cpu: Callable[[], float]
    """CPU seconds of the keeper."""
    fill: Callable[[int], Awaitable[None]]
    """Put so many there, and return once they are."""
    count: int
    """How many lie ready in a full run."""


# --- the bus -----------------------------------------------------------------------------------------------


@contextmanager
def bus(folder: Path) -> Generator[Supply]:
    """A NATS server. It syncs as NATS does by default: every two minutes."""
    port = free_port()
    with process(binary(), "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(folder / "nats")) as child:
        wait_for(port)
        url = f"nats://127.0.0.1:{port}"
        yield Supply(
            "bus", "nats", url, lambda: cpu_seconds([child.pid]), lambda count: _publish(url, count), 80_000
        )


async def _publish(url: str, count: int) -> None:
    nc = Client()
    await nc.connect(url)
    js = nc.jetstream()
    before = await _last(js)
    subjects = [subject_of(tenant, "order:created") for tenant in NAMES]
    for number in range(count):
        await nc.publish(subjects[number % BUSY], PAYLOAD.encode())
        if number % FLUSH == 0:
            await nc.flush(30)
    while await _last(js) < before + count:  # noqa: ASYNC110 - the server is asked, it tells nothing by itself
        await asyncio.sleep(0.05)
    await nc.close()


async def _last(js: JetStreamContext) -> int:
    """The number of the last message. Waits for the stream, which our process makes."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return (await js.stream_info(NatsOptions(url="").stream)).state.last_seq
        except NotFoundError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)


# --- the outbox --------------------------------------------------------------------------------------------


@contextmanager
def shop() -> Generator[Supply]:
    """A program's database, on a PostgreSQL server of its own."""
    with database() as base, base.fresh() as url:
        asyncio.run(_create(url))
        yield Supply("outbox", "shop", url, base.cpu, lambda count: _write(url, count), 32_000)


async def _create(url: str) -> None:
    db = await asyncpg.connect(url)
    async with db.transaction():
        await create_table(db)
    await db.close()


async def _write(url: str, count: int) -> None:
    """Each event in a transaction of its own."""
    data = json.dumps(json.loads(PAYLOAD)["data"]).encode()

    async def write(numbers: range) -> None:
        db = await asyncpg.connect(url)
        for number in numbers:
            async with db.transaction():
                await publish(db, Event("order:created", data, tenant=NAMES[number % BUSY]))
        await db.close()

    await asyncio.gather(*(write(range(first, count, WRITERS)) for first in range(WRITERS)))


# --- measuring ---------------------------------------------------------------------------------------------


def taken_in(run: Run, supply: Supply, count: int, *, deliver: bool) -> Row:
    """What it takes to get ``count`` events that lie ready into the log; with ``deliver``, until they are recorded."""
    asyncio.run(_filled(supply, WARM))
    _wait(run.target, WARM, deliver=deliver)
    with standing_still(run.target.pids[0]):
        asyncio.run(_filled(supply, count))
        before = run.meter.read()
    _wait(run.target, WARM + count, deliver=deliver)
    return run.meter.row(before, count, idle=1.1 if deliver else 0.0, tenants=BUSY)


async def _filled(supply: Supply, count: int) -> None:
    await supply.fill(count)


def _wait(target: Server, total: int, *, deliver: bool) -> None:
    deadline = time.monotonic() + PATIENCE
    while target.metric("events_appended") < total:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{target.metric('events_appended'):.0f} of {total} in the log")
        time.sleep(0.1)
    if deliver:
        target.wait_delivered(total)


@contextmanager
def standing_still(pid: int) -> Generator[None]:
    """The process does nothing meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


# --- the parts ---------------------------------------------------------------------------------------------


def from_bus(folder: Path, options: argparse.Namespace) -> Figures:
    """From the bus into the log; and to the endpoints."""
    with bus(folder) as supply:
        return _all(folder, supply, "HOOKLINE_BUS", quick=options.quick)


def from_outbox(folder: Path, options: argparse.Namespace) -> Figures:
    """From an outbox into the log; and to the endpoints."""
    with shop() as supply:
        return _all(folder, supply, "HOOKLINE_OUTBOX_URL", quick=options.quick)


def _all(folder: Path, supply: Supply, setting: str, *, quick: bool) -> Figures:
    count, rounds = (10_000, 1) if quick else (supply.count, 3)
    env = {setting: supply.url}
    setups = [
        Setup(name=f"{supply.name}, SQLite, one process", sqlite=True, split=False, env=env),
        Setup(name=f"{supply.name}, into the log", deliveries=0, env=env),
        Setup(name=f"{supply.name}, delivered", env=env),
    ]
    found: dict[str, list[Row]] = {setup.name: [] for setup in setups}
    with receiver(folder) as port, database() as base:
        for _ in range(rounds):
            for setup in setups:
                with running(folder, base, setup, port, {supply.keeper: supply.cpu}) as run:
                    found[setup.name].append(taken_in(run, supply, count, deliver=setup.deliveries > 0))
    figures = Figures(rows={name: median(rows) for name, rows in found.items()})
    figures.steps = {f"{supply.name}, {supply.keeper} to store, us": asyncio.run(_storing(supply, count))}
    for name, row in figures.rows.items():
        print(f"{name}: {describe(row)}", flush=True)
    print({name: round(value, 2) for name, value in figures.steps.items()}, flush=True)
    return figures


async def _storing(supply: Supply, count: int) -> float:
    """CPU microseconds of the keeper to get an event, which comes before all that the rows have."""
    before = supply.cpu()
    await supply.fill(count)
    return (supply.cpu() - before) / count * 1e6
