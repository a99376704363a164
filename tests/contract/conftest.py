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
from hookline.storage.sqlite import SqliteStorage


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


BACKENDS = {"memory": MemoryBackend, "sqlite": SqliteBackend}


@pytest.fixture(params=list(BACKENDS), ids=list(BACKENDS))
async def storage_factory(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Backend]:
    backend = BACKENDS[request.param](tmp_path)
    yield backend
    await backend.close()


@pytest.fixture
async def storage(storage_factory: Backend) -> Storage:
    return await storage_factory.connect()
