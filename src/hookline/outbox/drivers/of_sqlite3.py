"""``sqlite3.Connection``."""

from __future__ import annotations

from collections.abc import Sequence
from sqlite3 import Connection
from typing import Any

from hookline.outbox.errors import NoTransaction
from hookline.outbox.event import Row
from hookline.outbox.names import Names
from hookline.outbox.schema import insertion

_LEGACY = -1
"""``sqlite3.LEGACY_TRANSACTION_CONTROL``, and how every connection is before Python 3.12."""


def dialect(_: Connection) -> str:
    return "sqlite"


def insert(connection: Connection, names: Names, rows: Sequence[Row]) -> None:
    if writes_at_once(connection):
        raise NoTransaction(
            "connection: it commits each statement on its own, and no transaction is open; execute BEGIN first, "
            "or connect without isolation_level=None and autocommit=True"
        )
    connection.executemany(insertion(names, "?, ?, ?"), rows)


def execute(connection: Connection, statements: Sequence[str]) -> None:
    for statement in statements:
        connection.execute(statement)


def writes_at_once(connection: Any) -> bool:
    """Whether a statement would be committed alone. Also asked for a connection of aiosqlite, which is alike."""
    if connection.in_transaction:
        return False
    mode = getattr(connection, "autocommit", _LEGACY)
    return connection.isolation_level is None if mode == _LEGACY else mode is True
