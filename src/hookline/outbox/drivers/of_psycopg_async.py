"""``psycopg.AsyncConnection``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, LiteralString, cast

from psycopg import AsyncConnection, AsyncCursor

from hookline.outbox.drivers.of_psycopg import require_transaction, statement_of
from hookline.outbox.event import Row
from hookline.outbox.names import Names


def dialect(_: AsyncConnection[Any]) -> str:
    return "postgresql"


async def insert(connection: AsyncConnection[Any], names: Names, rows: Sequence[Row]) -> None:
    require_transaction(connection)
    async with AsyncCursor(connection) as cursor:
        await cursor.executemany(statement_of(names), rows)


async def execute(connection: AsyncConnection[Any], statements: Sequence[str]) -> None:
    async with AsyncCursor(connection) as cursor:
        for statement in statements:
            await cursor.execute(cast("LiteralString", statement))
