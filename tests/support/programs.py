"""A program on each driver that ``hookline.outbox`` knows: transactions, savepoints, its own row beside the event."""

from __future__ import annotations

import inspect
import sqlite3
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from tests.support.postgres import drop_database, make_database, url_of

ORDERS = "CREATE TABLE orders (no TEXT PRIMARY KEY)"


@dataclass(frozen=True)
class Database:
    """Where a program keeps its data."""

    dialect: str
    address: str
    """A URL, or a path."""

    async def all(self, statement: str) -> list[tuple[Any, ...]]:
        """The rows of a query, by a connection that nobody else uses."""
        if self.dialect == "sqlite":
            db = sqlite3.connect(self.address, isolation_level=None)
            try:
                return db.execute(statement).fetchall()
            finally:
                db.close()
        connection = await asyncpg.connect(self.address)
        try:
            return [tuple(row) for row in await connection.fetch(statement)]
        finally:
            await connection.close()

    async def run(self, *statements: str) -> None:
        for statement in statements:
            await self.all(statement)

    async def orders(self) -> list[str]:
        return [no for (no,) in await self.all("SELECT no FROM orders ORDER BY no")]

    async def events(self, table: str = "hookline_outbox") -> list[tuple[str, str, str]]:
        """Id, tenant and body of what lies in the outbox."""
        return [tuple(row) for row in await self.all(f"SELECT id, tenant, body FROM {table} ORDER BY seq")]

    def sqlalchemy(self, driver: str) -> str:
        """The URL as SQLAlchemy has it."""
        if self.dialect == "sqlite":
            return f"sqlite+{driver}:///{self.address}"
        return self.address.replace("postgresql://", f"postgresql+{driver}://")


@asynccontextmanager
async def postgres_database() -> AsyncGenerator[Database]:
    """A new one, with the program's own table."""
    name = await make_database()
    try:
        database = Database("postgresql", url_of(name))
        await database.run(ORDERS)
        yield database
    finally:
        await drop_database(name)


@asynccontextmanager
async def sqlite_database(folder: Path) -> AsyncGenerator[Database]:
    """A new file, with the program's own table."""
    database = Database("sqlite", str(folder / "shop.sqlite"))
    await database.run("PRAGMA journal_mode = WAL", ORDERS)
    yield database


async def done(result: Any) -> Any:
    """The result of a call that may have to be awaited."""
    return await result if inspect.isawaitable(result) else result


class Transaction:
    """One that is open. ``connection`` is what a program would give to ``publish``."""

    def __init__(
        self,
        connection: Any,
        run: Callable[[str], Any],
        savepoint: Callable[[], AbstractAsyncContextManager[Any]],
    ) -> None:
        self.connection = connection
        self._run = run
        self.savepoint = savepoint

    async def order(self, no: str) -> None:
        """Write the program's own row."""
        await done(self._run(f"INSERT INTO orders VALUES ('{no}')"))


Program = Callable[[Database], AbstractAsyncContextManager[Transaction]]
"""Opens a connection and a transaction; commits at the end, rolls back on an error."""


def _lifted(manager: Callable[[], Any]) -> Callable[[], AbstractAsyncContextManager[Any]]:
    """A plain context manager as an asynchronous one."""

    @asynccontextmanager
    async def lifted() -> AsyncGenerator[Any]:
        with manager() as value:
            yield value

    return lifted


@asynccontextmanager
async def sqlite3_connection(database: Database) -> AsyncGenerator[Transaction]:
    db = sqlite3.connect(database.address)

    @asynccontextmanager
    async def savepoint() -> AsyncGenerator[None]:
        db.execute("SAVEPOINT inner")
        try:
            yield
        except BaseException:
            db.execute("ROLLBACK TO inner")
            raise
        finally:
            db.execute("RELEASE inner")

    try:
        with db:
            db.execute("BEGIN")
            yield Transaction(db, db.execute, savepoint)
    finally:
        db.close()


@asynccontextmanager
async def psycopg_connection(database: Database) -> AsyncGenerator[Transaction]:
    with psycopg.connect(database.address) as db:
        yield Transaction(db, lambda statement: db.execute(statement.encode()), _lifted(db.transaction))


@asynccontextmanager
async def psycopg_async(database: Database) -> AsyncGenerator[Transaction]:
    async with await psycopg.AsyncConnection.connect(database.address) as db:
        yield Transaction(db, lambda statement: db.execute(statement.encode()), db.transaction)


@asynccontextmanager
async def asyncpg_connection(database: Database) -> AsyncGenerator[Transaction]:
    db = await asyncpg.connect(database.address)
    try:
        async with db.transaction():
            yield Transaction(db, db.execute, db.transaction)
    finally:
        await db.close()


@asynccontextmanager
async def asyncpg_pool(database: Database) -> AsyncGenerator[Transaction]:
    async with (
        asyncpg.create_pool(database.address, min_size=1, max_size=2) as pool,
        pool.acquire() as db,
        db.transaction(),
    ):
        yield Transaction(db, db.execute, db.transaction)


def session(driver: str) -> Program:
    """SQLAlchemy's ``Session``."""

    @asynccontextmanager
    async def program(database: Database) -> AsyncGenerator[Transaction]:
        engine = create_engine(database.sqlalchemy(driver), poolclass=NullPool)
        with Session(engine) as one, one.begin():
            yield Transaction(one, lambda statement: one.execute(text(statement)), _lifted(one.begin_nested))

    return program


def connection(driver: str) -> Program:
    """SQLAlchemy's ``Connection``."""

    @asynccontextmanager
    async def program(database: Database) -> AsyncGenerator[Transaction]:
        engine = create_engine(database.sqlalchemy(driver), poolclass=NullPool)
        with engine.begin() as one:
            yield Transaction(one, one.exec_driver_sql, _lifted(one.begin_nested))

    return program


def async_session(driver: str) -> Program:
    """SQLAlchemy's ``AsyncSession``."""

    @asynccontextmanager
    async def program(database: Database) -> AsyncGenerator[Transaction]:
        engine = create_async_engine(database.sqlalchemy(driver), poolclass=NullPool)
        try:
            async with AsyncSession(engine) as one, one.begin():
                yield Transaction(one, lambda statement: one.execute(text(statement)), one.begin_nested)
        finally:
            await engine.dispose()

    return program


def async_connection(driver: str) -> Program:
    """SQLAlchemy's ``AsyncConnection``."""

    @asynccontextmanager
    async def program(database: Database) -> AsyncGenerator[Transaction]:
        engine = create_async_engine(database.sqlalchemy(driver), poolclass=NullPool)
        try:
            async with engine.begin() as one:
                yield Transaction(one, one.exec_driver_sql, one.begin_nested)
        finally:
            await engine.dispose()

    return program


PROGRAMS: dict[str, tuple[str, Program]] = {
    "sqlite3": ("sqlite", sqlite3_connection),
    "psycopg": ("postgresql", psycopg_connection),
    "psycopg-async": ("postgresql", psycopg_async),
    "asyncpg": ("postgresql", asyncpg_connection),
    "asyncpg-pool": ("postgresql", asyncpg_pool),
    "session-sqlite": ("sqlite", session("pysqlite")),
    "session-psycopg": ("postgresql", session("psycopg")),
    "connection-sqlite": ("sqlite", connection("pysqlite")),
    "connection-psycopg": ("postgresql", connection("psycopg")),
    "async-session-aiosqlite": ("sqlite", async_session("aiosqlite")),
    "async-session-asyncpg": ("postgresql", async_session("asyncpg")),
    "async-session-psycopg": ("postgresql", async_session("psycopg")),
    "async-connection-aiosqlite": ("sqlite", async_connection("aiosqlite")),
    "async-connection-asyncpg": ("postgresql", async_connection("asyncpg")),
}
"""By name: the database it runs on, and the program."""
