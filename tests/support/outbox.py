"""The relay on a real outbox, into a real log whose database can be cut off."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from hookline.app.parts import SystemClock
from hookline.core.errors import StorageUnavailable
from hookline.core.model import Appended, Event, Millis, NewEvent, SchemaMode, Tenant
from hookline.engine.catalogue import Catalogue
from hookline.engine.publish import Publisher, PublishLimits
from hookline.engine.types import EventTypeCatalogue, Shelves
from hookline.observe import Metrics
from hookline.outbox import Outbox
from hookline.ports import EventLog, Storage
from hookline.sources.outbox import (
    LogTarget,
    OutboxOptions,
    OutboxRelay,
    Target,
    open_outbox,
)
from hookline.storage.sqlite import SqliteStorage
from hookline.storage.wake import LocalWake
from tests.contract.make import NOW, api_key
from tests.support.programs import Database
from tests.support.waiting import eventually


class Cuttable:
    """A log whose database can be away."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.shards = storage.shards
        self.down = False
        self.commits: list[int] = []
        """The size of each."""

    async def append(self, events: Sequence[NewEvent], now: Millis) -> list[Appended]:
        if self.down:
            raise StorageUnavailable("the database is away")
        self.commits.append(len(events))
        return await self._storage.append(events, now)


@dataclass
class Installation:
    """Storage, publisher and tenants of a Hookline, without its API."""

    storage: Storage
    log: Cuttable
    publisher: Publisher

    async def find_tenant(self, tenant_id: str) -> Tenant | None:
        return await self.storage.find_tenant(tenant_id)

    async def new_tenant(self, tenant_id: str, mode: SchemaMode = SchemaMode.LOG) -> Tenant:
        tenant = await self.storage.create_tenant(tenant_id, tenant_id, "standard", api_key(tenant_id), NOW)
        return await self.storage.update_tenant(tenant.no, tenant_id, "standard", mode, None)

    def target(self, tenant: str = "shop") -> LogTarget:
        return LogTarget(self.publisher, self.find_tenant, tenant)

    async def stored(self) -> list[Event]:
        """The log, in order."""
        events: list[Event] = []
        while page := (await self.storage.read_log(0, len(events), 1000, 0)).events:
            events += page
        return events

    async def ids(self) -> list[str]:
        return [event.id for event in await self.stored()]


@asynccontextmanager
async def installation(folder: Path, limits: PublishLimits | None = None) -> AsyncGenerator[Installation]:
    """One with the tenant ``shop``, on SQLite in ``folder``."""
    storage = SqliteStorage(folder / "hookline.db")
    await storage.open()
    log = Cuttable(storage)
    publisher = Publisher(
        cast("EventLog", log),
        Catalogue(EventTypeCatalogue(storage, Shelves())),
        SystemClock(),
        os.urandom,
        LocalWake(),
        Metrics(),
        limits or PublishLimits(),
    )
    running = asyncio.create_task(publisher.run())
    try:
        made = Installation(storage, log, publisher)
        await made.new_tenant("shop")
        yield made
        assert not running.done(), running
    finally:
        running.cancel()
        await asyncio.wait([running])
        await storage.close()


@dataclass
class Relaying:
    """A relay at work."""

    relay: OutboxRelay
    task: asyncio.Task[None]
    metrics: Metrics = field(default_factory=Metrics)


@asynccontextmanager
async def relaying(database: Database, target: Target, **options: Any) -> AsyncGenerator[Relaying]:
    """A relay at work; it stops in good order at the end, unless the test has ended it."""
    given = OutboxOptions(**{"url": outbox_url(database), "poll": 0.05} | options)
    metrics = Metrics()
    relay = OutboxRelay(given, open_outbox(given), target, metrics)
    task = asyncio.create_task(relay.run())
    try:
        yield Relaying(relay, task, metrics)
    finally:
        await relay.stop(20)
        task.cancel()
        await asyncio.wait([task])
    assert task.cancelled() or task.exception() is None, task.exception()


def outbox_url(database: Database) -> str:
    """As the relay takes it."""
    return database.address if database.dialect == "postgresql" else f"sqlite:///{database.address}"


async def make_outbox(database: Database, outbox: Outbox | None = None) -> None:
    """Its tables, by the plain SQL."""
    for statement in (outbox or Outbox()).statements(database.dialect):
        await database.run(statement)


async def emptied(database: Database, table: str = "hookline_outbox") -> None:
    """Return once nothing is left in the outbox."""
    await eventually(
        lambda: database.all(f"SELECT count(*) FROM {table}"), lambda rows: rows == [(0,)], "it is empty"
    )


async def dead_letters(database: Database) -> list[tuple[str, str, str]]:
    """Id, code and reason of each."""
    return [
        tuple(row)
        for row in await database.all("SELECT id, code, reason FROM hookline_outbox_dead ORDER BY no")
    ]
