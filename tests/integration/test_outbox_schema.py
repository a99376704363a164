"""The outbox's tables: made by the package, by SQLAlchemy, by Alembic, by the plain SQL; all the same."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, Engine, MetaData, create_engine
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.pool import NullPool

from hookline.outbox import Event, Outbox, create_table, drop_table, outbox_table, publish
from tests.support.programs import Database, postgres_database, psycopg_connection, sqlite_database

COLUMNS = """
SELECT table_name, column_name, data_type, is_nullable, column_default, is_identity,
    (SELECT reloptions::text FROM pg_class WHERE oid = ('"' || table_name || '"')::regclass)
FROM information_schema.columns WHERE table_name LIKE 'hookline%' ORDER BY table_name, ordinal_position
"""
TRIGGERS = """
SELECT tgname, tgdeferrable, tginitdeferred, pg_get_triggerdef(oid)
FROM pg_trigger WHERE NOT tgisinternal AND tgrelid = 'hookline_outbox'::regclass
"""
FUNCTIONS = "SELECT proname, prosrc, prosecdef, proconfig::text FROM pg_proc WHERE proname LIKE 'hookline%'"
SQLITE_COLUMNS = """
SELECT t.name, c.name, c.type, c."notnull" OR c.pk, replace(replace(c.dflt_value, '(', ''), ')', ''), c.pk
FROM sqlite_master AS t, pragma_table_info(t.name) AS c WHERE t.name LIKE 'hookline%' ORDER BY t.name, c.cid
"""
NUMBERED = "SELECT name FROM sqlite_master WHERE sql LIKE '%AUTOINCREMENT%' ORDER BY name"
SHAPES = {"postgresql": (COLUMNS, TRIGGERS, FUNCTIONS), "sqlite": (SQLITE_COLUMNS, NUMBERED)}
LEFT = {
    "postgresql": "SELECT relname FROM pg_class WHERE relname LIKE 'hookline%' "
    "UNION ALL SELECT proname FROM pg_proc WHERE proname LIKE 'hookline%'",
    "sqlite": "SELECT name FROM sqlite_master WHERE name LIKE 'hookline%'",
}


@pytest.fixture(params=["sqlite", "postgresql"])
async def shop(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Database]:
    made = sqlite_database(tmp_path) if request.param == "sqlite" else postgres_database()
    async with made as database:
        yield database


def engine_of(database: Database) -> Engine:
    driver = "pysqlite" if database.dialect == "sqlite" else "psycopg"
    return create_engine(database.sqlalchemy(driver), poolclass=NullPool)


async def shape(database: Database) -> list[Any]:
    return [await database.all(query) for query in SHAPES[database.dialect]]


async def make_by_package(database: Database) -> list[Any]:
    with engine_of(database).begin() as db:
        create_table(db)
    made = await shape(database)
    with engine_of(database).begin() as db:
        drop_table(db)
    assert await database.all(LEFT[database.dialect]) == []
    return made


async def test_metadata_makes_the_same(shop: Database) -> None:
    expected = await make_by_package(shop)
    metadata = MetaData()
    assert outbox_table(metadata).name == "hookline_outbox"
    engine = engine_of(shop)
    metadata.create_all(engine)
    metadata.create_all(engine)
    assert await shape(shop) == expected
    with engine.begin() as db:
        publish(db, Event("a", 1, id="e-1"))
    assert [event_id for event_id, _, _ in await shop.events()] == ["e-1"]
    metadata.drop_all(engine)
    assert await shop.all(LEFT[shop.dialect]) == []


async def test_a_program_may_read_its_outbox_as_a_table(shop: Database) -> None:
    class Base(DeclarativeBase):
        pass

    table = Outbox(table="hookline_outbox").table(Base.metadata)
    engine = engine_of(shop)
    Base.metadata.create_all(engine)
    with engine.begin() as db:
        publish(db, Event("a", 1, id="e-1"))
        db.execute(table.insert().values(body='{"type":"a","data":2}'))
        first, second = db.execute(table.select().order_by(table.c.seq)).all()
    assert (first.id, first.created_at.year >= 2025) == ("e-1", True)
    assert second.id.startswith("evt_")


async def test_alembic_runs_the_statements_and_leaves_the_tables_alone(shop: Database) -> None:
    expected = await make_by_package(shop)
    metadata = MetaData()
    outbox_table(metadata)
    with engine_of(shop).begin() as db:
        operations = Operations(MigrationContext.configure(db))
        for statement in Outbox().statements(shop.dialect):
            operations.execute(statement)
        assert difference(db, metadata) == []
    assert await shape(shop) == expected
    with engine_of(shop).begin() as db:
        create_table(Operations(MigrationContext.configure(db)).get_bind())
        drop_table(db)
        kinds = [change[0] for change in difference(db, metadata)]
        assert kinds == ["add_table", "add_table"]


def difference(db: Connection, metadata: MetaData) -> list[Any]:
    """What autogenerate would write, but for the program's own table."""
    options = {"compare_type": True, "include_name": lambda name, kind, parents: name != "orders"}
    return compare_metadata(MigrationContext.configure(db, opts=options), metadata)


async def test_the_tables_are_part_of_the_transaction() -> None:
    async with postgres_database() as shop:
        with psycopg.connect(shop.address) as db:
            create_table(db)
            publish(db, Event("a", 1))
            db.rollback()
        assert await shop.all(LEFT["postgresql"]) == []


async def test_many_programs_that_start_at_once_do_not_get_in_each_others_way(shop: Database) -> None:
    faults: list[BaseException] = []

    def start() -> None:
        try:
            if shop.dialect == "sqlite":
                db = sqlite3.connect(shop.address)
                create_table(db)
                db.close()
            else:
                with psycopg.connect(shop.address) as connection:
                    create_table(connection)
        except BaseException as error:  # noqa: BLE001 - the test shows it
            faults.append(error)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join, 30)
    assert faults == []
    assert len(await shop.all(LEFT[shop.dialect])) >= 2


async def test_the_trigger_numbers_only_what_was_overtaken() -> None:
    """A row whose number is the newest keeps it: a program on its own pays for no second write."""
    async with postgres_database() as shop:
        for number in range(3):
            async with psycopg_connection(shop) as tx:
                create_table(tx.connection)
                publish(tx.connection, Event("a", 1, id=f"e-{number}"))
        rows = await shop.all("SELECT seq, ctid::text FROM hookline_outbox ORDER BY seq")
    assert rows == [(1, "(0,1)"), (2, "(0,2)"), (3, "(0,3)")]
