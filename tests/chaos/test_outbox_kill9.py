"""Kill -9 of the relay at every step, and at random moments: nothing is lost, nothing comes twice, order holds."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hookline.outbox import Event, publish
from tests.support.outbox import dead_letters, emptied, make_outbox, outbox_url
from tests.support.programs import (
    Database,
    asyncpg_connection,
    done,
    postgres_database,
    sqlite3_connection,
    sqlite_database,
)
from tests.support.relay import BATCH, STEPS, RelayProcess, relay_process
from tests.support.server import Api, ServerProcess, running
from tests.support.waiting import until

KEYS = 5
ROLLED_BACK = 7
POISONED = 11
"""Each so-manieth order is given up after its event was written; each so-manieth event is none that Hookline takes."""


class GivenUp(Exception):
    """The customer changed their mind."""


@dataclass
class Shop:
    """Orders that are written one after the other, each with its event."""

    database: Database
    committed: list[str] = field(default_factory=list[str])
    poisoned: list[str] = field(default_factory=list[str])
    number: int = 0

    async def order(self) -> None:
        """One order: committed, or given up."""
        self.number += 1
        no = f"o-{self.number:05}"
        begin = sqlite3_connection if self.database.dialect == "sqlite" else asyncpg_connection
        try:
            async with begin(self.database) as tx:
                await done(
                    publish(tx.connection, Event("order:created", {"no": no}, id=no, key=self.key(no)))
                )
                await tx.order(no)
                if self.number % ROLLED_BACK == 0:
                    raise GivenUp
        except GivenUp:
            return
        self.committed.append(no)
        if self.number % POISONED == 0:
            self.poisoned.append(f"bad-{no}")
            body = '{"type":"hookline.own","data":1}'
            await self.database.run(f"INSERT INTO hookline_outbox (id, body) VALUES ('bad-{no}', '{body}')")

    async def orders(self, count: int) -> None:
        for _ in range(count):
            await self.order()

    @staticmethod
    def key(no: str) -> str:
        return f"k-{int(no[2:]) % KEYS}"

    async def check(self, api: Api) -> None:
        """What was committed is in the log, once, in order, alone; what was refused is a dead letter, once."""
        await emptied(self.database)
        events = (await api.listing("/v1/events"))[::-1]
        assert [event["position"] for event in events] == list(range(1, len(events) + 1))
        ids = [event["id"] for event in events]
        assert sorted(ids) == self.committed
        assert ids == self.committed
        of_keys: defaultdict[str, list[str]] = defaultdict(list)
        for event in events:
            of_keys[event["key"]].append(event["id"])
        assert all(of_key == sorted(of_key) for of_key in of_keys.values())
        assert len(of_keys) == KEYS
        letters = await dead_letters(self.database)
        assert [event_id for event_id, _, _ in letters] == self.poisoned
        assert await self.database.orders() == self.committed


@asynccontextmanager
async def installed(
    dialect: str, folder: Path
) -> AsyncGenerator[tuple[Shop, ServerProcess, RelayProcess, Api]]:
    """A shop, a Hookline, and a relay between them that is not started."""
    server = ServerProcess(folder / "data")
    made = sqlite_database(folder) if dialect == "sqlite" else postgres_database()
    async with made as database, running(server):
        await make_outbox(database)
        api = await Api(server).new_tenant("shop")
        key = api.headers["Authorization"].removeprefix("Bearer ")
        url = outbox_url(database)
        async with relay_process(folder, url, lambda: f"http://127.0.0.1:{server.port}", key) as relay:
            yield Shop(database), server, relay, api


@pytest.mark.slow
@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
async def test_killed_after_each_step(dialect: str, tmp_path: Path) -> None:
    async with installed(dialect, tmp_path) as (shop, server, relay, api):
        for step in STEPS:
            await shop.orders(3 * BATCH)
            relay.start(step, "1" if step in ("opened", "leading") else "2")
            await relay.killed_itself()
        assert len(await shop.database.events()) > 0
        relay.start()
        await shop.check(api)
        assert await relay.terminate() == 0
        assert server.complaints() == []


@pytest.mark.slow
@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
async def test_killed_at_random_moments(dialect: str, tmp_path: Path) -> None:
    """Mostly the relay, now and then the server behind it, while orders come in."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails
    chance = random.Random(seed)
    async with installed(dialect, tmp_path) as (shop, server, relay, api):
        for number in range(8):
            before = relay.beginnings()
            relay.start()
            await shop.orders(chance.randint(20, 80))
            await until(lambda before=before: relay.beginnings() > before, relay.tail)
            await shop.orders(chance.randint(1, 30))
            await asyncio.sleep(chance.uniform(0, 0.05))
            if number % 4 == 3:
                server.kill()
                await shop.orders(chance.randint(1, 20))
                await server.start()
            relay.kill()
        relay.start()
        await shop.check(api)
