"""An installation in a SQLite file, as the source of a move."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from importlib.resources import files
from pathlib import Path
from sqlite3 import Connection
from typing import TypeVar

from hookline.core.errors import StorageUnavailable
from hookline.core.model import Millis
from hookline.storage.migrate import load, missing
from hookline.storage.move.plan import Cut, End, Facts, MoveRefused, Secret
from hookline.storage.move.source import Pace, check_quiet, identity_of, state_of
from hookline.storage.move.tables import Row, Table
from hookline.storage.sqlite.connection import check_version, connect_reader
from hookline.storage.sqlite.gate import FileLock
from hookline.storage.sqlite.log import position_at
from hookline.storage.sqlite.nodes import nodes

T = TypeVar("T")

DAY: Millis = 86_400_000
LOCK_SECONDS = 5.0
"""How long a write that is under way may take."""

_IS_OURS = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'migrations'"
_FIRST_KEY = "SELECT id, digest FROM api_keys WHERE session_of IS NULL ORDER BY no LIMIT 1"
_SHARDS = "SELECT shard, head, last_received, watermark, epoch, recorded FROM shards ORDER BY shard"
_SUBSCRIPTIONS = "SELECT no, id, tenant_no, sealed FROM subscriptions ORDER BY no"
_NEXT_EVENT = "SELECT received_at FROM events WHERE position > ? ORDER BY position LIMIT 1"
_OTHER_DAYS = f"""
SELECT started_at / {DAY} FROM attempts UNION SELECT settled_at / {DAY} FROM deliveries
"""


class SqliteSource:
    """Fills ``Source``. The file is read on a thread of its own, and never changed. Both of its locks are held, so no
    server can deliver from it or write to it meanwhile."""

    def __init__(self, path: Path) -> None:
        self.name = f"sqlite:///{path}"
        self._path = path
        self._thread = ThreadPoolExecutor(1, "hookline-move")
        self._opened: Connection | None = None

    @property
    def _db(self) -> Connection:
        if self._opened is None:
            raise StorageUnavailable("the source is not held")
        return self._opened

    @asynccontextmanager
    async def held(self, now: Millis, seconds: float) -> AsyncGenerator[Facts]:
        """See ``Source``."""
        if not self._path.is_file():
            raise MoveRefused(f"{self.name} cannot be moved: there is no such file")
        with ExitStack() as held:
            await asyncio.to_thread(self._lock, held)
            try:
                yield await self._run(lambda: self._open(now, seconds))
            finally:
                await self._run(self._close)
                self._thread.shutdown()

    def _run(self, work: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _lock(self, held: ExitStack) -> None:
        for kind, use in (("delivery", "deliver from"), ("write", "write to")):
            lock = FileLock(self._path.with_name(f"{self._path.name}.{kind}.lock"))
            held.callback(lock.close)
            deadline = time.monotonic() + LOCK_SECONDS
            while not lock.try_acquire():
                if kind == "delivery" or time.monotonic() > deadline:
                    raise MoveRefused(f"{self.name} is in use: stop the servers that {use} it first")
                time.sleep(0.02)

    # --- on the thread -------------------------------------------------------------------------------

    def _open(self, now: Millis, seconds: float) -> Facts:
        check_version()
        self._opened = db = connect_reader(self._path)
        db.execute("BEGIN")
        self._check_schema(db)
        check_quiet(self.name, nodes(db, now, seconds), now, seconds)
        first = db.execute(_FIRST_KEY).fetchone()
        if first is None:
            raise MoveRefused(f"{self.name} is empty: there is nothing to move")
        shards = db.execute(_SHARDS).fetchall()
        version = db.execute("SELECT version FROM config").fetchone()
        return Facts(
            identity=identity_of(*first),
            state=state_of(version, shards),
            cut=Cut(1, 1),
            ends=[End(*row[:4]) for row in shards],
            tenants=[no for (no,) in db.execute("SELECT no FROM tenants ORDER BY no")],
            subscriptions=[Secret(*row) for row in db.execute(_SUBSCRIPTIONS)],
            days=sorted({*_event_days(db), *(day for (day,) in db.execute(_OTHER_DAYS))}),
        )

    def _check_schema(self, db: Connection) -> None:
        """Raises ``SchemaMismatch`` if a newer version made it."""
        if not db.execute(_IS_OURS).fetchone()[0]:
            raise MoveRefused(f"{self.name} holds no installation of Hookline")
        applied = dict(db.execute("SELECT name, checksum FROM migrations").fetchall())
        if missing(applied, load(files("hookline.storage.sqlite") / "migrations")):
            raise MoveRefused(
                f"{self.name} was made by an older version: bring it to this one with "
                f"hookline migrate --database-url {self.name}"
            )

    def _close(self) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    # --- reading -------------------------------------------------------------------------------------

    async def count(self, table: Table) -> int:
        """See ``Source``."""
        return await self._run(lambda: self._db.execute(f"SELECT count(*) FROM {table.sqlite}").fetchone()[0])

    async def read(self, table: Table) -> AsyncGenerator[Sequence[Row]]:
        """See ``Source``. One batch is read ahead."""
        pace = Pace(table)
        cursor = await self._run(lambda: self._db.execute(table.select_sqlite()))

        def fetch() -> list[Row]:
            rows = cursor.fetchmany(pace.rows)
            pace.seen(rows)
            return rows

        ahead = self._run(fetch)
        while rows := await ahead:
            ahead = self._run(fetch)
            yield rows


def _event_days(db: Connection) -> Iterator[int]:
    """The days of the log, found by a search for the end of each: the times of events have no index."""
    position = 0
    while (row := db.execute(_NEXT_EVENT, (position,)).fetchone()) is not None:
        day = row[0] // DAY
        yield day
        position = position_at(db, (day + 1) * DAY)
