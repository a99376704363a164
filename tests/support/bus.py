"""The bus source on a real server, feeding a real publisher over a storage that can be cut off."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from hookline.app.parts import SystemClock
from hookline.core.errors import StorageUnavailable
from hookline.core.model import Appended, Event, Millis, NewEvent, SchemaMode, Tenant
from hookline.engine.catalogue import Catalogue
from hookline.engine.publish import Publisher, PublishLimits
from hookline.engine.types import EventTypeCatalogue, Shelves
from hookline.observe import Counter, Gauge, Metrics
from hookline.ports import EventLog, Storage
from hookline.sources.nats import NatsOptions, NatsSource
from hookline.storage.sqlite import SqliteStorage
from hookline.storage.wake import LocalWake
from tests.contract.make import NOW, api_key
from tests.support.nats import Names, client
from tests.support.waiting import eventually


class Counts:
    """What ``Metrics`` has of the bus."""

    def __init__(self) -> None:
        self.bus_received = Counter("bus_received", "")
        self.bus_redelivered = Counter("bus_redelivered", "")
        self.bus_dead_letters = Counter("bus_dead_letters", "")
        self.bus_returned = Counter("bus_returned", "")
        self.bus_lag = Gauge("bus_lag", "")
        self.bus_unacknowledged = Gauge("bus_unacknowledged", "")
        self.bus_connected = Gauge("bus_connected", "")


class Cuttable:
    """A log whose database can be away, or hang; it counts its commits."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.shards = storage.shards
        self.down = False
        self.held: asyncio.Event | None = None
        self.commits = 0
        self.pings = 0

    async def ping(self) -> None:
        self.pings += 1
        if self.down:
            raise StorageUnavailable("the database is away")

    async def append(self, events: Sequence[NewEvent], now: Millis) -> list[Appended]:
        if self.held is not None:
            await self.held.wait()
        if self.down:
            raise StorageUnavailable("the database is away")
        self.commits += 1
        return await self._storage.append(events, now)


@dataclass
class Bus:
    """One installation: storage, publisher, and sources to be started and stopped."""

    options: NatsOptions
    names: Names
    storage: Storage
    log: Cuttable
    publisher: Publisher
    nc: Client
    metrics: Counts = field(default_factory=Counts)
    tenants: dict[str, Tenant] = field(default_factory=dict[str, Tenant])

    @property
    def js(self) -> JetStreamContext:
        return JetStreamContext(self.nc, timeout=60)

    async def find_tenant(self, tenant_id: str) -> Tenant | None:
        if self.log.down:
            raise StorageUnavailable("the database is away")
        return await self.storage.find_tenant(tenant_id)

    def source(self) -> NatsSource:
        return NatsSource(self.options, self.publisher, self.find_tenant, self.log, self.metrics)

    async def prepare(self) -> None:
        """Make streams and consumer. A source goes on without them if the bus is too busy to answer in time."""

        async def made() -> bool:
            await self.source().prepare()
            try:
                await self.js.consumer_info(self.names.stream, self.options.durable)
            except NotFoundError:
                return False
            return True

        await eventually(made, bool, "streams and consumer are made")

    @asynccontextmanager
    async def feeding(self) -> AsyncGenerator[NatsSource]:
        """A source at work; it stops in good order at the end."""
        source = self.source()
        running = asyncio.create_task(source.run())
        try:
            yield source
        finally:
            await source.stop(20)
            running.cancel()
            await asyncio.wait([running])

    async def new_tenant(self, tenant_id: str, mode: SchemaMode = SchemaMode.LOG) -> Tenant:
        tenant = await self.storage.create_tenant(tenant_id, tenant_id, "standard", api_key(tenant_id), NOW)
        return await self.storage.update_tenant(tenant.no, tenant_id, "standard", mode, None)

    async def send(
        self, tail: str, payload: bytes, headers: Mapping[str, str] | None = None, tenant: str = "shop"
    ) -> None:
        """Publish as a plain client does."""
        await self.js.publish(
            f"{self.names.subject}.{tenant}.{tail}", payload, headers=dict(headers) if headers else None
        )

    async def stored(self) -> list[Event]:
        """The log, in order."""
        events: list[Event] = []
        while page := (await self.storage.read_log(0, len(events), 1000, 0)).events:
            events += page
        return events

    async def ids(self) -> list[str]:
        return [event.id for event in await self.stored()]

    async def left(self) -> int:
        """Messages in the stream."""
        return (await self.js.stream_info(self.names.stream)).state.messages

    async def dead(self) -> list[Any]:
        """The dead letters, oldest first."""
        state = (await self.js.stream_info(self.names.dead_stream)).state
        return [
            await self.js.get_msg(self.names.dead_stream, seq)
            for seq in range(max(1, state.first_seq), state.last_seq + 1)
        ]


@asynccontextmanager
async def bus(
    url: str, folder: Path, limits: PublishLimits | None = None, **options: Any
) -> AsyncGenerator[Bus]:
    """An installation with one tenant, ``shop``; streams and storage are gone afterwards."""
    names = Names()
    storage = SqliteStorage(folder / "hookline.db")
    await storage.open()
    cut = Cuttable(storage)
    catalogue = Catalogue(EventTypeCatalogue(storage, Shelves()))
    publisher = Publisher(
        cast("EventLog", cut),
        catalogue,
        SystemClock(),
        os.urandom,
        LocalWake(),
        Metrics(),
        limits or PublishLimits(),
    )
    running = asyncio.create_task(publisher.run())
    try:
        async with client(url) as nc:
            made = Bus(
                NatsOptions(url=url, max_bytes=256 << 20, dead_max_bytes=16 << 20, **names.options(), **options),
                names, storage, cut, publisher, nc,
            )  # fmt: skip
            await made.new_tenant("shop")
            await made.prepare()
            yield made
            await names.remove(made.js)
        assert not running.done(), running
    finally:
        running.cancel()
        await asyncio.wait([running])
        await storage.close()
