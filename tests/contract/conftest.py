"""Every engine behind the storage ports, each with a way to open the same data twice.

A new engine joins by adding its backend to ``BACKENDS``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

import pytest

from hookline.ports import Storage
from hookline.storage.memory import MemoryStorage
from hookline.storage.postgres import PostgresStorage, partitions
from hookline.storage.sqlite import SqliteStorage
from tests.contract.make import DAY, NOW
from tests.support.postgres import drop_database, make_database, url_of


class Backend(Protocol):
    """Where the data of one test live."""

    async def connect(self) -> Storage:
        """Open the data, once more if need be, as another process would."""
        ...

    async def close(self) -> None:
        """Close all that ``connect`` opened."""
        ...


class MemoryBackend:
    """One object: what is shared between processes is the object itself."""

    def __init__(self, folder: Path) -> None:
        self._storage = MemoryStorage()

    async def connect(self) -> Storage:
        await self._storage.open()
        return self._storage

    async def close(self) -> None:
        await self._storage.close()


class SqliteBackend:
    """One file."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "data" / "hookline.db"
        self._opened: list[SqliteStorage] = []

    async def connect(self) -> Storage:
        storage = SqliteStorage(self._path)
        await storage.open()
        self._opened.append(storage)
        return storage

    async def close(self) -> None:
        for storage in self._opened:
            await storage.close()


class PostgresBackend:
    """One database of the run's server. Its log has one shard, as the tests speak of shard 0."""

    def __init__(self, folder: Path) -> None:
        self._name = ""
        self._opened: list[PostgresStorage] = []

    async def connect(self) -> Storage:
        if not self._name:
            self._name = await make_database("contract", _prepare)
        storage = PostgresStorage(url_of(self._name), connections=4, query_connections=2)
        await storage.open()
        self._opened.append(storage)
        return storage

    async def close(self) -> None:
        for storage in self._opened:
            await storage.close()
        if self._name:
            await drop_database(self._name)


async def _prepare(url: str) -> None:
    """With the partitions of the day that the tests live in: making them would take longer than most tests do."""
    storage = PostgresStorage(url, shards=1)
    await storage.open()
    await storage._write(lambda db: partitions.make(db, [NOW // DAY, NOW // DAY + 1]))
    await storage.close()


BACKENDS = {"memory": MemoryBackend, "sqlite": SqliteBackend, "postgres": PostgresBackend}


@pytest.fixture(params=list(BACKENDS), ids=list(BACKENDS))
async def storage_factory(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Backend]:
    backend = BACKENDS[request.param](tmp_path)
    yield backend
    await backend.close()


@pytest.fixture
async def storage(storage_factory: Backend) -> Storage:
    return await storage_factory.connect()
