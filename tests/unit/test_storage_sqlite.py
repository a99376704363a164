"""What is particular to SQLite: one writer, locks between processes, trouble with the file, sudden death."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from sqlite3 import Connection
from typing import Any

import pytest

import hookline
from hookline.core.errors import Conflict, Overloaded, StorageUnavailable
from hookline.core.model import Appended
from hookline.ports import DeliveryQuery, Record, Storage
from hookline.storage.memory import MemoryStorage
from hookline.storage.sqlite import SqliteStorage, connection
from tests.contract.make import NOW, World, api_key, new_event, settled, unsettled

SECONDS = 20
"""Longest wait for anything that should happen at once."""


def test_both_engines_fill_the_ports(tmp_path: Path) -> None:
    engines: list[Storage] = [MemoryStorage(shards=3), SqliteStorage(tmp_path / "x.db")]
    assert [engine.shards for engine in engines] == [3, 1]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hookline.db"


@pytest.fixture
async def storage(path: Path) -> AsyncIterator[SqliteStorage]:
    storage = SqliteStorage(path)
    await storage.open()
    yield storage
    await storage.close()


@asynccontextmanager
async def held(storage: SqliteStorage) -> AsyncIterator[None]:
    """Keep the writer's thread inside a job meanwhile."""
    begun, go = threading.Event(), threading.Event()

    def wait(_: Connection) -> None:
        begun.set()
        go.wait(SECONDS)

    task = asyncio.ensure_future(storage._write(wait))
    assert await asyncio.to_thread(begun.wait, SECONDS)
    try:
        yield
    finally:
        go.set()
        await task


# --- group commit ------------------------------------------------------------------------------------


async def test_waiting_writes_share_a_transaction(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    statements: list[str] = []
    connect = connection.connect_writer

    def traced(path: Path) -> Connection:
        db = connect(path)
        db.set_trace_callback(statements.append)
        return db

    monkeypatch.setattr("hookline.storage.sqlite.storage.connect_writer", traced)
    storage = SqliteStorage(path)
    await storage.open()
    async with held(storage):
        waiting = [asyncio.ensure_future(storage.append([new_event(1, f"e{n}")], NOW)) for n in range(50)]
        await asyncio.sleep(0)
    answers = await asyncio.gather(*waiting)
    await storage.close()
    assert sorted(answer[0].position for answer in answers) == list(range(1, 51))
    assert statements.count("COMMIT") == 2


async def test_an_error_rolls_back_its_own_job_only(storage: SqliteStorage) -> None:
    world = World(storage)
    tenant = await world.tenant()
    async with held(storage):
        jobs = [
            asyncio.ensure_future(storage.append([new_event(tenant.no, "before")], NOW)),
            asyncio.ensure_future(storage.create_tenant("new", "New", "standard", api_key("acme"), NOW)),
            asyncio.ensure_future(storage.append([new_event(tenant.no, "after")], NOW)),
        ]
        await asyncio.sleep(0)
    before, failed, after = await asyncio.gather(*jobs, return_exceptions=True)
    assert isinstance(failed, Conflict)
    assert [before, after] == [[Appended(1)], [Appended(2)]]
    assert await storage.find_tenant("new") is None
    assert [event.id for event in await world.events()] == ["before", "after"]


# --- limits ------------------------------------------------------------------------------------------


async def test_a_full_queue_is_told_at_once(path: Path) -> None:
    storage = SqliteStorage(path, queue_limit=3)
    await storage.open()
    async with held(storage):
        waiting = [asyncio.ensure_future(storage.append([new_event(1, f"e{n}")], NOW)) for n in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await storage.append([new_event(1, "too many")], NOW)
        with pytest.raises(StorageUnavailable):
            await storage.ping()
    await asyncio.gather(*waiting)
    assert (await storage.append([new_event(1, "again")], NOW))[0].position == 3
    await storage.close()


async def test_what_was_given_up_is_never_stored(path: Path) -> None:
    storage = SqliteStorage(path, patience=0.05)
    await storage.open()
    async with held(storage):
        with pytest.raises(StorageUnavailable, match="nothing was stored"):
            await storage.append([new_event(1, "late")], NOW)
    await storage.append([new_event(1, "next")], NOW)
    assert await storage.find_event(1, "late") is None
    await storage.close()


async def test_what_was_begun_is_waited_for(path: Path) -> None:
    storage = SqliteStorage(path, patience=0.05)
    await storage.open()
    begun = threading.Event()

    def slow(db: Connection) -> str:
        begun.set()
        threading.Event().wait(0.2)
        return "done"

    assert await storage._write(slow) == "done"
    await storage.close()


async def test_closing_finishes_what_was_accepted(path: Path) -> None:
    storage = SqliteStorage(path)
    await storage.open()
    waiting = [asyncio.ensure_future(storage.append([new_event(1, f"e{n}")], NOW)) for n in range(30)]
    await asyncio.sleep(0)
    await storage.close()
    assert len(await asyncio.gather(*waiting)) == 30
    with pytest.raises(StorageUnavailable):
        await storage.append([new_event(1, "x")], NOW)
    again = SqliteStorage(path)
    await again.open()
    assert await again.head(0) == 30
    await again.close()


async def test_closing_twice_is_fine_and_a_closed_storage_opens_again(path: Path) -> None:
    storage = SqliteStorage(path)
    await storage.close()
    for _ in range(2):
        await storage.open()
        await storage.ping()
        await storage.close()
        await storage.close()
    assert not any(thread.name.startswith("hookline-sqlite") for thread in threading.enumerate())


# --- trouble -----------------------------------------------------------------------------------------


async def test_a_locked_file_is_unavailable(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "BUSY_MS", 50)
    storage = SqliteStorage(path)
    await storage.open()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageUnavailable) as caught:
        await storage.append([new_event(1, "a")], NOW)
    assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
    with pytest.raises(StorageUnavailable):
        await storage.ping()
    assert (await storage.read_log(0, 0, 10, 0)).head == 0
    other.execute("ROLLBACK")
    other.close()
    await storage.ping()
    assert (await storage.append([new_event(1, "a")], NOW))[0].position == 1
    await storage.close()


async def test_a_full_disk_stores_nothing_of_the_transaction(storage: SqliteStorage) -> None:
    await storage.append([new_event(1, "first")], NOW)

    (pages,) = await storage._write(lambda db: db.execute("PRAGMA page_count").fetchone())
    await storage._write(lambda db: db.execute(f"PRAGMA max_page_count = {pages}").fetchone())
    async with held(storage):
        jobs = [
            asyncio.ensure_future(storage.append([new_event(1, f"e{n}", data=b"x" * size)], NOW))
            for n, size in enumerate((10, 500_000, 10))
        ]
        await asyncio.sleep(0)
    answers = await asyncio.gather(*jobs, return_exceptions=True)
    assert isinstance(answers[1], StorageUnavailable)
    stored = {event.id for event in (await storage.read_log(0, 0, 10, 0)).events}
    promised = {f"e{n}" for n, answer in enumerate(answers) if not isinstance(answer, Exception)}
    assert stored == promised | {"first"}
    await storage._write(lambda db: db.execute("PRAGMA max_page_count = 1000000").fetchone())
    assert len(await storage.append([new_event(1, "later", data=b"x" * 500_000)], NOW)) == 1


@pytest.fixture
def garbage(path: Path) -> Path:
    path.write_bytes(b"something else entirely" * 100)
    return path


async def test_a_file_that_is_no_database(garbage: Path) -> None:
    with pytest.raises(StorageUnavailable, match="not a database"):
        await SqliteStorage(garbage).open()


async def test_a_folder_that_cannot_be_made(garbage: Path) -> None:
    with pytest.raises(StorageUnavailable):
        await SqliteStorage(garbage / "hookline.db").open()


async def test_commits_are_synced_and_the_file_is_private(storage: SqliteStorage, path: Path) -> None:
    def ask(db: Connection) -> list[object]:
        return [db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]

    assert await storage._write(lambda db: db.execute("PRAGMA synchronous").fetchone()[0]) == 2
    assert (await storage._read(ask))[0] == "wal"
    assert os.stat(path).st_mode & 0o777 == 0o600  # noqa: PTH116  a test may wait for a file


async def test_a_mistake_in_our_code_is_not_hidden(storage: SqliteStorage) -> None:
    with pytest.raises(ZeroDivisionError):
        await storage._read(lambda _: 1 // 0)
    await storage.ping()


# --- the delivery lock -------------------------------------------------------------------------------


async def test_a_live_process_keeps_its_shard_past_expiry(storage: SqliteStorage, path: Path) -> None:
    other = SqliteStorage(path)
    await other.open()
    assert await storage.lease(0, "a", NOW, 10) is not None
    assert await other.lease(0, "b", NOW + 3_600_000, 10) is None
    renewed = await storage.lease(0, "a", NOW + 3_600_000, 10)
    assert renewed is not None
    assert renewed.epoch == 1
    await other.close()


@pytest.mark.parametrize("owner", ["a", "b"])
async def test_a_shard_of_a_closed_storage_is_taken_at_once(
    storage: SqliteStorage, path: Path, owner: str
) -> None:
    first = SqliteStorage(path)
    await first.open()
    assert await first.lease(0, "a", NOW, 10) is not None
    assert await storage.lease(0, owner, NOW + 1, 10) is None
    await first.close()
    taken = await storage.lease(0, owner, NOW + 2, 10)
    assert taken is not None
    assert (taken.epoch, taken.expires_at) == (2, NOW + 10_002)


async def test_a_released_shard_is_free_for_another_process(storage: SqliteStorage, path: Path) -> None:
    other = SqliteStorage(path)
    await other.open()
    lease = await storage.lease(0, "a", NOW, 10)
    assert lease is not None
    await storage.release(lease)
    taken = await other.lease(0, "b", NOW, 10)
    assert taken is not None
    assert taken.epoch == 2
    await storage.release(lease)
    assert await storage.lease(0, "a", NOW, 10) is None
    await other.close()


async def test_a_lease_that_could_not_be_written_frees_the_lock(
    storage: SqliteStorage, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr("hookline.storage.sqlite.lease.take", fail)
        with pytest.raises(StorageUnavailable):
            await storage.lease(0, "a", NOW, 10)
    other = SqliteStorage(path)
    await other.open()
    assert await other.lease(0, "b", NOW, 10) is not None
    await other.close()


# --- kill -9 -----------------------------------------------------------------------------------------

_PREFIX = """
import asyncio, sys
from pathlib import Path
from hookline.core.model import NewEvent
from hookline.storage.sqlite import SqliteStorage
"""
_HOLD = (
    _PREFIX
    + """
async def main():
    storage = SqliteStorage(Path(sys.argv[1]))
    await storage.open()
    print((await storage.lease(0, "a", 1, 10)).epoch, flush=True)
    sys.stdin.read()
asyncio.run(main())
"""
)
_LOAD = (
    _PREFIX
    + """
async def main():
    storage = SqliteStorage(Path(sys.argv[1]))
    await storage.open()
    async def publish(task):
        number = 0
        while True:
            batch = [NewEvent(1, f"{sys.argv[2]}-{task}-{number + n}", "t", b"x" * 700) for n in range(task + 1)]
            answers = await storage.append(batch, 1)
            sys.stdout.write("".join(f"{a.position} {e.id}\\n" for a, e in zip(answers, batch)))
            sys.stdout.flush()
            number += len(batch)
    await asyncio.gather(*(publish(task) for task in range(8)))
asyncio.run(main())
"""
)


@contextmanager
def running(script: str, *args: str) -> Iterator[subprocess.Popen[str]]:
    """Another process, killed at the end if not before."""
    source = str(Path(hookline.__file__).parents[1])
    with subprocess.Popen(
        [sys.executable, "-c", script, *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": source},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


async def test_the_shard_of_a_killed_process_is_taken_at_once(storage: SqliteStorage, path: Path) -> None:
    with running(_HOLD, str(path)) as process:
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == "1\n"
        assert await storage.lease(0, "b", 2, 10) is None
        process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(process.wait, SECONDS)
        taken = await storage.lease(0, "b", 3, 10)
    assert taken is not None
    assert taken.epoch == 2


@pytest.mark.parametrize("lines", [5, 200, 900])
async def test_a_killed_writer_loses_nothing_it_acknowledged(path: Path, lines: int) -> None:
    acknowledged: dict[int, str] = {}
    for round_no in range(2):  # the second starts on what the first one left
        with running(_LOAD, str(path), str(round_no)) as process:
            assert process.stdout is not None
            for _ in range(lines):
                position, event_id = (await asyncio.to_thread(process.stdout.readline)).split()
                acknowledged[int(position)] = event_id
            process.send_signal(signal.SIGKILL)
            for line in await asyncio.to_thread(process.stdout.readlines):
                if line.endswith("\n"):
                    position, event_id = line.split()
                    acknowledged[int(position)] = event_id
    storage = SqliteStorage(path)
    await storage.open()
    events = (await storage.read_log(0, 0, 100_000, 0)).events
    stored = {event.position: event.id for event in events}
    await storage.close()
    assert list(stored) == list(range(1, len(stored) + 1))
    assert len(set(stored.values())) == len(stored)
    assert acknowledged.items() <= stored.items()


# --- questions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("look", ["one", "of the subscription", "of the event"])
async def test_a_delivery_that_moves_while_it_is_looked_for_is_found(
    storage: SqliteStorage, path: Path, monkeypatch: pytest.MonkeyPatch, look: str
) -> None:
    """It waits when the settled ones are read, and is settled when those that wait are."""
    world = World(storage)
    tenant = await world.tenant()
    subscription = await world.subscription(tenant)
    await storage.append([new_event(tenant.no, "e1")], NOW)
    lease = await storage.lease(0, "w", NOW, 10)
    assert lease is not None
    await storage.record(Record(0, lease.epoch, NOW, 0, unsettled=[unsettled(subscription.no, 1)]))
    settle = Record(0, lease.epoch, NOW, 0, settled=[settled(subscription.no, 1)])
    loop, moved = asyncio.get_running_loop(), threading.Event()

    def moves(made: str) -> None:
        if "unsettled" in made and not moved.is_set():
            moved.set()
            asyncio.run_coroutine_threadsafe(storage.record(settle), loop).result(SECONDS)

    def traced(*given: Any) -> Connection:
        made = connection.connect_reader(*given)
        made.set_trace_callback(moves)
        return made

    monkeypatch.setattr("hookline.storage.sqlite.storage.connect_reader", traced)
    reader = SqliteStorage(path)
    await reader.open()
    if look == "one":
        found = [await reader.get_delivery(subscription.no, 1)]
    elif look == "of the event":
        found = await reader.event_deliveries(tenant.no, 1)
    else:
        found = await reader.list_deliveries(DeliveryQuery(subscription.no))
    assert moved.is_set()
    assert [delivery is not None for delivery in found] == [True]
    await reader.close()
