"""The tables for SQLAlchemy: for ``metadata.create_all`` and for Alembic's autogenerate."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    DDL,
    BigInteger,
    Column,
    DateTime,
    Identity,
    Integer,
    MetaData,
    Table,
    Text,
    event,
    text,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from hookline.outbox.names import Names
from hookline.outbox.schema import POSTGRESQL_ID, SQLITE_ID, stamping


class NewId(FunctionElement[str]):
    """The default of the column ``id``, in each database's own words."""

    inherit_cache = True


@compiles(NewId, "postgresql")
def _on_postgresql(_element: NewId, _compiler: SQLCompiler, **_options: Any) -> str:
    return f"({POSTGRESQL_ID})"


@compiles(NewId, "sqlite")
def _on_sqlite(_element: NewId, _compiler: SQLCompiler, **_options: Any) -> str:
    return f"({SQLITE_ID})"


def table_in(metadata: MetaData, names: Names) -> Table:
    """The outbox as a table of ``metadata``, with the table for dead letters and PostgreSQL's trigger."""
    outbox = Table(
        names.table,
        metadata,
        _number("seq"),
        Column("id", Text, nullable=False, server_default=NewId()),
        Column("tenant", Text, nullable=False, server_default=text("''")),
        Column("body", Text, nullable=False),
        _time("created_at", now=True),
        schema=names.schema,
        sqlite_autoincrement=True,
        postgresql_with={"autovacuum_vacuum_scale_factor": 0, "autovacuum_vacuum_threshold": 2000},
    )
    Table(
        names.dead_table,
        metadata,
        _number("no"),
        *(Column(name, Text, nullable=False) for name in ("id", "tenant", "body")),
        _time("created_at"),
        _time("died_at", now=True),
        *(Column(name, Text, nullable=False) for name in ("code", "reason")),
        schema=names.schema,
        sqlite_autoincrement=True,
    )
    for statement in stamping(names):
        event.listen(outbox, "after_create", DDL(statement).execute_if(dialect="postgresql"))
    removal = DDL(f"DROP FUNCTION IF EXISTS {names.stamp}()")
    event.listen(outbox, "after_drop", removal.execute_if(dialect="postgresql"))
    return outbox


def _number(name: str) -> Column[int]:
    return Column(
        name, BigInteger().with_variant(Integer, "sqlite"), Identity(always=False), primary_key=True
    )


def _time(name: str, *, now: bool = False) -> Column[Any]:
    default: Any = text("CURRENT_TIMESTAMP") if now else None
    return Column(name, DateTime(timezone=True), nullable=False, server_default=default)
