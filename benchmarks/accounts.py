"""What a stretch of a benchmark used: CPU of each process, bytes of WAL, disk and network, for each event of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg

from benchmarks.figures import Row
from benchmarks.processes import cpu_seconds
from tests.support.postgres import PostgresServer

_WAL = "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint"
_SIZES = """
SELECT c.relname, pg_total_relation_size(c.oid) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = 'hookline' AND c.relkind = 'r'
"""


def tree_cpu_seconds(pid: int) -> float:
    """User and system time of a process, its children, and those of its children that have ended. A PostgreSQL
    server's postmaster waits for each of its children, so nothing of theirs is lost."""
    total = cpu_seconds([pid], ended=True)
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        try:
            total += cpu_seconds([int(child)], ended=True)
        except FileNotFoundError:  # it ended after the first look: the next one has it with its parent
            continue
    return total


def loopback_bytes() -> float:
    """Bytes that went over the loopback interface, with the headers of TCP and IP; each is counted once."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, fields = line.partition(":")
        if name.strip() == "lo":
            return float(fields.split()[0])
    raise LookupError("no loopback interface")


class Database:
    """A PostgreSQL server with a database for each measurement. It syncs each commit, as PostgreSQL does by default."""

    def __init__(self) -> None:
        self._server = PostgresServer(
            durable=True,
            shared_buffers="1GB",
            max_wal_size="8GB",
            checkpoint_timeout="15min",
            wal_compression="off",
        )
        self._count = 0

    @contextmanager
    def fresh(self, *, socket: bool = False) -> Generator[str]:
        """An empty database; its URL, over TCP as from another machine, or by the server's socket. Gone afterwards, and
        its pages written, so that they do not fall into the next measurement."""
        self._count += 1
        name = f"bench_{self._count}"
        self._run(f"CREATE DATABASE {name}")
        try:
            yield self._server.url(name) if socket else self._server.tcp_url(name)
        finally:
            self._run(f"DROP DATABASE {name} WITH (FORCE)")
            self._run("CHECKPOINT")

    def cpu(self) -> float:
        """CPU seconds of all its processes."""
        return tree_cpu_seconds(self._server.pid)

    def wal(self) -> float:
        """Bytes of WAL since the beginning."""
        return float(ask(self._server.url(), _WAL)[0][0])

    def remove(self) -> None:
        """Stop it."""
        self._server.remove()

    def _run(self, statement: str) -> None:
        ask(self._server.url(), statement)


@contextmanager
def database() -> Generator[Database]:
    """A server, gone afterwards."""
    made = Database()
    try:
        yield made
    finally:
        made.remove()


class Asker:
    """Asks a database again and again, on one connection: a new one costs the server as much as many events."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._runner = asyncio.Runner()
        self._db: asyncpg.Connection[Any]

    def __enter__(self) -> Asker:
        self._db = self._runner.run(asyncpg.connect(self._url))
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._db.close())
        self._runner.close()

    def ask(self, query: str) -> list[Any]:
        """The rows."""
        return self._runner.run(self._db.fetch(query))

    def wait(self, query: str, good: Callable[[Any], bool], seconds: float = 300.0) -> None:
        """Return once the only value that ``query`` answers is ``good``."""
        deadline = time.monotonic() + seconds
        while not good(found := self.ask(query)[0][0]):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{query}: {found}")
            time.sleep(0.05)


def ask(url: str, query: str) -> list[Any]:
    """The rows, once."""
    with Asker(url) as asker:
        return asker.ask(query)


def table_bytes(url: str) -> float:
    """Bytes that the tables take on disk, with their indexes."""
    return float(sum(size for _, size in ask(url, _SIZES)))


Reading = Mapping[str, float]


class Meter:
    """Reads several accounts. ``cpu``: seconds, by the name of who uses them; ``amounts``: fields of ``Row``."""

    def __init__(
        self, cpu: Mapping[str, Callable[[], float]], amounts: Mapping[str, Callable[[], float]] | None = None
    ) -> None:
        self._cpu = cpu
        self._amounts = amounts or {}

    def read(self) -> Reading:
        """All accounts, and the time."""
        accounts = {**self._amounts, **self._cpu}
        return {name: account() for name, account in accounts.items()} | {"time": time.monotonic()}

    def row(self, before: Reading, count: float, *, idle: float = 0.0, **about: int) -> Row:
        """What was used since ``before`` for each of ``count`` events; ``idle`` seconds of the time were waiting."""
        after = self.read()
        used = {name: after[name] - before[name] for name in after}
        return Row(
            rate=count / (used["time"] - idle),
            cpu={name: used[name] / count * 1e6 for name in self._cpu},
            **{name: used[name] / count for name in self._amounts},
            **about,
        )


def postgres_meter(cpu: Mapping[str, Callable[[], float]], base: Database, url: str) -> Meter:
    """Those of ``cpu``, of the server, and of what it wrote."""
    return Meter(
        {**cpu, "postgres": base.cpu},
        {"wal": base.wal, "disk": lambda: table_bytes(url), "network": loopback_bytes},
    )
