"""``psycopg.Connection``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, LiteralString, cast

from psycopg import AsyncConnection, Connection, Cursor
from psycopg.pq import TransactionStatus

from hookline.outbox.errors import NoTransaction
from hookline.outbox.event import Row
from hookline.outbox.names import Names
from hookline.outbox.schema import insertion


def dialect(_: Connection[Any]) -> str:
    return "postgresql"


def insert(connection: Connection[Any], names: Names, rows: Sequence[Row]) -> None:
    require_transaction(connection)
    with Cursor(
        connection
    ) as cursor:  # not connection.cursor(): the program may have set a class with other marks
        cursor.executemany(statement_of(names), rows)


def execute(connection: Connection[Any], statements: Sequence[str]) -> None:
    with Cursor(connection) as cursor:
        for statement in statements:
            cursor.execute(cast("LiteralString", statement))


def statement_of(names: Names) -> LiteralString:
    """psycopg asks for literals to keep values out of statements; ours holds names that were checked."""
    return cast("LiteralString", insertion(names, "%s, %s, %s"))


def require_transaction(connection: Connection[Any] | AsyncConnection[Any]) -> None:
    """Raises ``NoTransaction`` where a statement would be committed at once."""
    if connection.autocommit and connection.info.transaction_status == TransactionStatus.IDLE:
        raise NoTransaction(
            "connection: it commits each statement on its own (autocommit); open one with connection.transaction()"
        )
