"""``asyncpg.Connection``, also one from a pool."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from asyncpg import Connection

from hookline.outbox.errors import NoTransaction
from hookline.outbox.event import Row
from hookline.outbox.names import Names
from hookline.outbox.schema import insertion


def dialect(_: Connection[Any]) -> str:
    return "postgresql"


async def insert(connection: Connection[Any], names: Names, rows: Sequence[Row]) -> None:
    if not connection.is_in_transaction():
        raise NoTransaction(
            "connection: no transaction is open, so asyncpg would commit the event at once; "
            "open one with async with connection.transaction()"
        )
    statement = insertion(names, "$1, $2, $3")
    if len(rows) == 1:
        await connection.execute(statement, *rows[0])
    else:
        await connection.executemany(statement, rows)


async def execute(connection: Connection[Any], statements: Sequence[str]) -> None:
    for statement in statements:
        await connection.execute(statement)
