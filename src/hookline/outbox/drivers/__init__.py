"""How to write to each kind of connection. A driver is imported only if the program uses it already."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from importlib import import_module
from typing import Any, Protocol, cast

from hookline.outbox.errors import UnsupportedConnection
from hookline.outbox.event import Row
from hookline.outbox.names import Names


class Driver(Protocol):
    """What a module of this package has. The functions of asynchronous connections are coroutines."""

    def dialect(self, connection: Any, /) -> str:
        """``postgresql``, ``sqlite`` or another word of SQLAlchemy's."""
        ...

    def insert(self, connection: Any, names: Names, rows: Sequence[Row]) -> Coroutine[Any, Any, None] | None:
        """Write the rows in the transaction that is open. Raises ``NoTransaction`` if there is none."""
        ...

    def execute(self, connection: Any, statements: Sequence[str]) -> Coroutine[Any, Any, None] | None:
        """Run statements that have no parameters."""
        ...


_MODULES = {
    ("sqlalchemy", "Session"): "of_sqlalchemy",
    ("sqlalchemy", "scoped_session"): "of_sqlalchemy",
    ("sqlalchemy", "Connection"): "of_sqlalchemy",
    ("sqlalchemy", "AsyncSession"): "of_sqlalchemy_async",
    ("sqlalchemy", "async_scoped_session"): "of_sqlalchemy_async",
    ("sqlalchemy", "AsyncConnection"): "of_sqlalchemy_async",
    ("psycopg", "Connection"): "of_psycopg",
    ("psycopg", "AsyncConnection"): "of_psycopg_async",
    ("asyncpg", "Connection"): "of_asyncpg",
    ("asyncpg", "PoolConnectionProxy"): "of_asyncpg",
    ("sqlite3", "Connection"): "of_sqlite3",
}

_WAY_OUT = {
    ("sqlalchemy", "Engine"): "give a Session or Connection of it",
    ("sqlalchemy", "AsyncEngine"): "give an AsyncSession or AsyncConnection of it",
    ("sqlalchemy", "sessionmaker"): "call it, and give the session",
    ("sqlalchemy", "async_sessionmaker"): "call it, and give the session",
    ("asyncpg", "Pool"): "give a connection that you acquired from it",
    ("psycopg", "Cursor"): "give its .connection",
    ("psycopg", "AsyncCursor"): "give its .connection",
    ("sqlite3", "Cursor"): "give its .connection",
    ("aiosqlite", "Connection"): "give a connection of sqlite3, or one of SQLAlchemy on aiosqlite",
}
_SUPPORTED = (
    "give a Session, Connection, AsyncSession or AsyncConnection of SQLAlchemy 2, "
    "or a connection of psycopg 3, asyncpg or sqlite3"
)


def driver_of(connection: object) -> Driver:
    """The driver for a connection, known by its class. Raises ``UnsupportedConnection``."""
    lineage = [(one.__module__.partition(".")[0], one.__name__) for one in type(connection).__mro__]
    module = next((_MODULES[one] for one in lineage if one in _MODULES), None)
    if module is None:
        way_out = next((_WAY_OUT[one] for one in lineage if one in _WAY_OUT), _SUPPORTED)
        raise UnsupportedConnection(
            f"connection: a {'.'.join(lineage[0])} cannot hold a transaction of yours; {way_out}"
        )
    return cast("Driver", import_module(f"hookline.outbox.drivers.{module}"))
