"""SQLAlchemy 2: ``Session``, ``scoped_session`` and ``Connection``, on any driver."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, TypeAlias

from sqlalchemy import Connection, Insert, Text, column, table
from sqlalchemy import insert as insert_into
from sqlalchemy.orm import Session, scoped_session

from hookline.outbox.drivers.of_sqlite3 import writes_at_once
from hookline.outbox.errors import NoTransaction
from hookline.outbox.event import Row
from hookline.outbox.names import Names
from hookline.outbox.schema import COLUMNS

Given: TypeAlias = Session | scoped_session[Any] | Connection


def dialect(connection: Given) -> str:
    return _connection(connection).dialect.name


def insert(connection: Given, names: Names, rows: Sequence[Row]) -> None:
    begun = _connection(connection)
    if not begun.in_transaction():
        begun.begin()  # as its first statement does by itself
    if _commits_alone(begun):
        raise NoTransaction(
            "connection: its isolation level is AUTOCOMMIT, so the event would be committed at once; take another one"
        )
    if rows:
        begun.execute(_statement(names), [row._asdict() for row in rows])


def execute(connection: Given, statements: Sequence[str]) -> None:
    begun = _connection(connection)
    for statement in statements:
        begun.exec_driver_sql(statement).close()


def _connection(given: Given) -> Connection:
    """Of a session: the connection of its transaction."""
    return given if isinstance(given, Connection) else given.connection()


@lru_cache(maxsize=64)
def _statement(names: Names) -> Insert:
    outbox = table(names.table, *(column(name, Text) for name in COLUMNS), schema=names.schema)
    return insert_into(outbox)


def _commits_alone(connection: Connection) -> bool:
    """Asked of the driver's own connection: there it shows however the level was set."""
    pooled = connection.connection
    if connection.dialect.name == "sqlite":
        return writes_at_once(pooled.driver_connection)
    return getattr(pooled.dbapi_connection, "autocommit", False) is True
