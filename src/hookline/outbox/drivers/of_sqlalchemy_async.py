"""SQLAlchemy 2: ``AsyncSession``, ``async_scoped_session`` and ``AsyncConnection``, on any driver."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session

from hookline.outbox.drivers import of_sqlalchemy
from hookline.outbox.event import Row
from hookline.outbox.names import Names

Given: TypeAlias = AsyncSession | async_scoped_session[Any] | AsyncConnection


def dialect(connection: Given) -> str:
    one = _single(connection)
    return one.dialect.name if isinstance(one, AsyncConnection) else one.get_bind().dialect.name


async def insert(connection: Given, names: Names, rows: Sequence[Row]) -> None:
    await _single(connection).run_sync(of_sqlalchemy.insert, names, rows)


async def execute(connection: Given, statements: Sequence[str]) -> None:
    await _single(connection).run_sync(of_sqlalchemy.execute, statements)


def _single(given: Given) -> AsyncSession | AsyncConnection:
    return given if isinstance(given, AsyncSession | AsyncConnection) else given()
