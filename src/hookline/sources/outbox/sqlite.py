"""An outbox in an SQLite file. Everything happens in one thread of its own."""

from __future__ import annotations

import asyncio
import fcntl
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TypeVar
from urllib.parse import quote

import msgspec

from hookline.core.errors import Fault, SettingsInvalid
from hookline.sources.outbox.options import OutboxOptions
from hookline.sources.outbox.results import (
    COUNTED,
    LARGEST,
    MISSING,
    DeadLetter,
    OutboxDown,
    OutboxReport,
    Row,
)

T = TypeVar("T")

BUSY_SECONDS = 5.0
"""How long to wait for another writer of the file."""


# Columns of SQLite hold values of any type; the body comes as bytes, for it need not be UTF-8.
_READ = """
SELECT seq, CAST(id AS TEXT), CAST(tenant AS TEXT), CASE WHEN size > ?4 THEN x'' ELSE CAST(body AS BLOB) END, size
FROM (
    SELECT *, sum(size) OVER (ORDER BY seq) - size AS before FROM (
        SELECT *, length(CAST(body AS BLOB)) AS size FROM @events
        WHERE tenant NOT IN (SELECT value FROM json_each(?1)) ORDER BY seq LIMIT ?2
    )
) WHERE before < ?3 ORDER BY seq
"""

_REMOVE = "DELETE FROM @events WHERE seq = ?"

_BURY = """
INSERT INTO @dead (id, tenant, body, created_at, code, reason)
SELECT id, tenant, body, created_at, ?, ? FROM @events WHERE seq = ?
"""

_REPORT = """
SELECT
    (SELECT count(*) FROM (SELECT 1 FROM @events LIMIT ?1)),
    coalesce((julianday('now') - julianday((SELECT created_at FROM @events ORDER BY seq LIMIT 1))) * 86400, 0),
    (SELECT count(*) FROM (SELECT 1 FROM @dead LIMIT ?1))
"""

_TABLES = "SELECT 1 FROM @events, @dead LIMIT 0"


class SqliteOutbox:
    """The lock that makes it the only relay is one of the kernel's, on a file beside the database."""

    def __init__(self, options: OutboxOptions) -> None:
        if not options.address or options.address.startswith(":"):
            raise SettingsInvalid(
                "the outbox cannot be used", [Fault("outbox", "names no file: sqlite:///<path>")]
            )
        self._path = Path(options.address)
        self._names = options.names
        self._thread = ThreadPoolExecutor(1, "hookline-relay")
        self._connection: sqlite3.Connection | None = None
        self._lock: IO[bytes] | None = None

    async def open(self) -> None:
        """See ``Outbox``."""
        await self._do(self._open)

    async def close(self) -> None:
        """See ``Outbox``."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)

    async def lead(self) -> bool:
        """See ``Outbox``."""
        return await self._do(self._try_lock)

    async def read(self, rows: int, size: int, without: Sequence[str]) -> list[Row]:
        """See ``Outbox``."""
        return await self._do(lambda: self._read(rows, size, without))

    async def remove(self, rows: Sequence[Row]) -> None:
        """See ``Outbox``."""
        await self._do(lambda: self._write((self._names.fill(_REMOVE), [(row.seq,) for row in rows])))

    async def bury(self, letters: Sequence[DeadLetter]) -> None:
        """See ``Outbox``."""
        copies = [(letter.code, letter.reason, letter.row.seq) for letter in letters]
        gone = [(letter.row.seq,) for letter in letters]
        await self._do(
            lambda: self._write((self._names.fill(_BURY), copies), (self._names.fill(_REMOVE), gone))
        )

    async def report(self) -> OutboxReport:
        """See ``Outbox``."""
        rows, oldest, dead = await self._do(
            lambda: self._db.execute(self._names.fill(_REPORT), (COUNTED,)).fetchone()
        )
        return OutboxReport(rows=rows, oldest_seconds=max(0.0, oldest), dead=dead, ordered=True)

    async def _do(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except (sqlite3.Error, OSError) as error:
            raise OutboxDown(str(error)) from error

    # --- in the thread

    def _open(self) -> None:
        if not self._path.exists():
            raise OutboxDown(f"there is no file {self._path}")
        self._connection = db = sqlite3.connect(
            f"file:{quote(str(self._path.absolute()))}?mode=rw", BUSY_SECONDS, uri=True, isolation_level=None
        )
        db.text_factory = _readable
        try:
            db.execute(self._names.fill(_TABLES))
        except sqlite3.OperationalError as error:
            raise OutboxDown(f"{error}; {MISSING} sql sqlite` prints the tables") from error

    def _close(self) -> None:
        db, self._connection = self._connection, None
        lock, self._lock = self._lock, None
        if db is not None:
            db.close()
        if lock is not None:
            lock.close()

    def _try_lock(self) -> bool:
        if self._lock is None:
            lock = self._path.with_name(f"{self._path.name}-relay").open("ab")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                return False
            self._lock = lock
        return True

    def _read(self, rows: int, size: int, without: Sequence[str]) -> list[Row]:
        found = self._db.execute(
            self._names.fill(_READ), (msgspec.json.encode(without).decode(), rows, size, LARGEST)
        )
        return [Row(*row) for row in found.fetchall()]

    def _write(self, *work: tuple[str, Sequence[tuple[object, ...]]]) -> None:
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        try:
            for statement, values in work:
                db.executemany(statement, values)
            db.execute("COMMIT")
        except sqlite3.Error:
            db.rollback()
            raise

    @property
    def _db(self) -> sqlite3.Connection:
        if self._connection is None:
            raise OutboxDown("the connection is lost")
        return self._connection


def _readable(text: bytes) -> str:
    return text.decode(errors="replace")
