"""Connections to the file, its schema, and what SQLite's errors mean to the callers."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.resources import files
from itertools import chain
from pathlib import Path
from sqlite3 import Connection
from typing import Any

from hookline.core.errors import StorageUnavailable
from hookline.storage.migrate import Migration, load, migrate

Row = tuple[Any, ...]

OLDEST_SQLITE = (3, 37, 0)
"""The first version with STRICT tables; RETURNING and upserts are older."""

CHECKPOINT_PAGES = 4000
"""Pages in the write-ahead log before they go to their place in the file (16 MB). Fewer cost more syncs and write hot
index pages more often; more make reading slower."""

WRITER_CACHE_KIB = 32 * 1024
READER_CACHE_KIB = 8 * 1024
BUSY_MS = 5000
"""How long SQLite itself waits for a lock that some other tool holds on the file."""


def check_version() -> None:
    """Raises ``StorageUnavailable`` if the SQLite library is too old."""
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        oldest = ".".join(map(str, OLDEST_SQLITE))
        raise StorageUnavailable(f"SQLite {oldest} or newer is needed; this is {sqlite3.sqlite_version}")


def connect_writer(path: Path) -> Connection:
    """A connection that may write, synced at each commit."""
    db = _connect(path, WRITER_CACHE_KIB)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    return db


def connect_reader(path: Path) -> Connection:
    """A connection that cannot write."""
    db = _connect(path, READER_CACHE_KIB)
    db.execute("PRAGMA query_only = ON")
    return db


def _connect(path: Path, cache_kib: int) -> Connection:
    db = sqlite3.connect(path, timeout=BUSY_MS / 1000, isolation_level=None, cached_statements=256)
    db.execute(f"PRAGMA cache_size = -{cache_kib}")
    db.execute("PRAGMA temp_store = MEMORY")
    return db


@contextmanager
def snapshot(db: Connection) -> Generator[None]:
    """All reads inside see the same state."""
    db.execute("BEGIN")
    try:
        yield
    finally:
        db.execute("COMMIT")


class ManyRows:
    """An INSERT of many rows in few statements: ``head VALUES (row), (row) … tail``.

    The interpreter lock is given up at every statement and may be taken by a busy thread, so a statement for each row
    costs much more than its own work. Rows go in groups of a few fixed sizes, to keep few statements prepared.
    """

    SIZES = (64, 16, 4, 1)

    def __init__(self, head: str, row: str, tail: str = "") -> None:
        self._statements = [(size, f"{head} VALUES {', '.join([row] * size)} {tail}") for size in self.SIZES]

    def insert(self, db: Connection, rows: Sequence[Row]) -> None:
        """Insert all rows, in order."""
        done = 0
        for size, statement in self._statements:
            while len(rows) - done >= size:
                db.execute(statement, list(chain.from_iterable(rows[done : done + size])))
                done += size


def converted(row: Row, converters: Mapping[int, Callable[[Any], Any]]) -> Row:
    """The row with some of its columns, by index, as the model has them."""
    values = list(row)
    for column, convert in converters.items():
        values[column] = convert(values[column])
    return tuple(values)


def told(error: Exception) -> Exception:
    """The error as callers shall see it: trouble with the file, disk or locks is ``StorageUnavailable``; an error
    of our own tree, or a mistake in our code, is itself."""
    trouble = isinstance(error, sqlite3.OperationalError | sqlite3.InternalError | OSError)
    if not trouble and type(error) is not sqlite3.DatabaseError:
        return error
    unavailable = StorageUnavailable(f"the storage failed: {error}")
    unavailable.__cause__ = error
    return unavailable


class Schema:
    """The file as a ``MigrationTarget``."""

    def __init__(self, db: Connection) -> None:
        self._db = db

    @contextmanager
    def exclusively(self) -> Generator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    def applied(self) -> Mapping[str, str]:
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS migrations "
            "(number INTEGER NOT NULL, name TEXT PRIMARY KEY, checksum TEXT NOT NULL, applied_at TEXT NOT NULL) STRICT"
        )
        return dict(self._db.execute("SELECT name, checksum FROM migrations").fetchall())

    def apply(self, migration: Migration) -> None:
        for statement in statements(migration.sql):
            self._db.execute(statement)
        self._db.execute(
            "INSERT INTO migrations VALUES (?, ?, ?, datetime())",
            (migration.number, migration.name, migration.checksum),
        )


def statements(script: str) -> Iterator[str]:
    """The statements of a script, one by one: ``executescript`` would commit the transaction around them."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
    if pending.strip():
        yield pending


def prepare(path: Path) -> None:
    """Make the file if there is none, and bring its schema up to date."""
    check_version()
    db = connect_writer(path)
    try:
        migrate(Schema(db), load(files("hookline.storage.sqlite") / "migrations"))
    finally:
        db.close()
