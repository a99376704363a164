"""``hookline.outbox`` on each driver, on real databases: an event exists if its transaction commits, and only then."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlalchemy.pool import NullPool

from hookline.outbox import Event, InvalidEvent, NoTransaction, Outbox, create_table, publish, publish_batch
from tests.support.programs import (
    PROGRAMS,
    Database,
    Program,
    Transaction,
    asyncpg_connection,
    done,
    postgres_database,
    psycopg_connection,
    sqlite_database,
)

Shop = tuple[Database, Callable[[], AbstractAsyncContextManager[Transaction]]]


class Refused(Exception):
    """What makes a program give up its transaction."""


async def opened(dialect: str, folder: Path) -> AbstractAsyncContextManager[Database]:
    return postgres_database() if dialect == "postgresql" else sqlite_database(folder)


@pytest.fixture(params=PROGRAMS)
async def shop(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Shop]:
    """A database with an outbox, and a program on it."""
    dialect, program = PROGRAMS[request.param]
    async with await opened(dialect, tmp_path) as database:
        async with program(database) as tx:
            await done(create_table(tx.connection))
        yield database, lambda: program(database)


@pytest.fixture
async def postgres() -> AsyncGenerator[Database]:
    async with postgres_database() as database:
        async with psycopg_connection(database) as tx:
            create_table(tx.connection)
        yield database


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncGenerator[Database]:
    async with sqlite_database(tmp_path) as database:
        with sqlite3.connect(database.address) as db:
            create_table(db)
        db.close()
        yield database


def order(no: str, **fields: Any) -> Event:
    return Event("order:created", {"no": no}, id=f"order-{no}", **fields)


async def ids(database: Database) -> list[str]:
    return [event_id for event_id, _, _ in await database.events()]


# --- if and only if


async def fail(_: Transaction) -> None:
    raise Refused


async def order_and(
    begun: AbstractAsyncContextManager[Transaction], then: Callable[[Transaction], Awaitable[None]]
) -> None:
    """An order with its event, and something else in the same transaction."""
    async with begun as tx:
        await done(publish(tx.connection, order("1")))
        await tx.order("1")
        await then(tx)


async def order_in_savepoint(
    tx: Transaction, no: str, then: Callable[[Transaction], Awaitable[None]]
) -> None:
    async with tx.savepoint():
        await tx.order(no)
        await done(publish(tx.connection, order(no)))
        await then(tx)


async def test_a_commit_brings_both(shop: Shop) -> None:
    database, begin = shop
    async with begin() as tx:
        await tx.order("1")
        assert await done(publish(tx.connection, order("1"))) == "order-1"
    assert await database.orders() == ["1"]
    assert await ids(database) == ["order-1"]


async def test_an_error_leaves_neither(shop: Shop) -> None:
    database, begin = shop
    with pytest.raises(Refused):
        await order_and(begin(), fail)
    assert await database.orders() == []
    assert await ids(database) == []


async def test_an_error_of_the_database_leaves_neither(shop: Shop) -> None:
    database, begin = shop
    with pytest.raises(Exception, match=r"(?i)unique|duplicate"):
        await order_and(begin(), lambda tx: tx.order("1"))
    assert await ids(database) == []


async def test_nobody_sees_the_event_before_the_commit(shop: Shop) -> None:
    database, begin = shop
    async with begin() as tx:
        await tx.order("1")
        await done(publish(tx.connection, order("1")))
        assert await ids(database) == []
    assert await ids(database) == ["order-1"]


async def test_a_savepoint_takes_its_event_with_it(shop: Shop) -> None:
    database, begin = shop
    async with begin() as tx:
        await tx.order("1")
        await done(publish(tx.connection, order("1")))
        with pytest.raises(Refused):
            await order_in_savepoint(tx, "2", fail)
        async with tx.savepoint():
            await tx.order("3")
            await done(publish(tx.connection, order("3")))
    assert await database.orders() == ["1", "3"]
    assert await ids(database) == ["order-1", "order-3"]


async def test_a_fault_of_the_event_does_not_reach_the_database(shop: Shop) -> None:
    database, begin = shop
    async with begin() as tx:
        await tx.order("1")
        with pytest.raises(InvalidEvent):
            await done(publish(tx.connection, Event("order created", {})))
        with pytest.raises(InvalidEvent):
            await done(publish_batch(tx.connection, [order("1"), Event("order:created", {"price": {1}})]))
    assert await database.orders() == ["1"]
    assert await ids(database) == []


# --- what is written


LARGE = json.dumps({"text": "Größe 漢字 \U0001f6d2 " * 40_000}, ensure_ascii=False).encode()
PAYLOADS: list[bytes] = [
    b'{"price": 10.50, "price_exact": 1.000000000000000000001, "big": 123456789012345678901234567890}',
    b'{ "spaces" :  [ 1 ,\n\t2 ] }',
    '{"text":"Größe 漢字 \U0001f6d2 \u2028 \x7f","escaped":"\\u0000\\u00e9\\"\\\\"}'.encode(),
    b"null", b'"text"', b"[]", b"-0.0",
    b"""{"sql":"'; DROP TABLE orders; --","marks":"%s %(x)s :name $1 ? {0} \\\\ %%"}""",
]  # fmt: skip


async def test_payloads_are_kept_byte_for_byte(shop: Shop) -> None:
    database, begin = shop
    async with begin() as tx:
        for payload in [*PAYLOADS, LARGE]:
            await done(
                publish(tx.connection, Event("order:created", payload, occurred_at="2026-03-01T09:30:00Z"))
            )
    bodies = [body for _, _, body in await database.events()]
    for payload, body in zip([*PAYLOADS, LARGE], bodies, strict=True):
        expected = b'{"type":"order:created","data":' + payload + b',"occurred_at":"2026-03-01T09:30:00Z"}'
        assert body.encode() == expected


async def test_all_fields_are_kept(shop: Shop) -> None:
    database, begin = shop
    hostile = "'; DROP TABLE hookline_outbox; -- %s :x $1 \\ 漢"
    given = Event(
        "order:paid",
        {"total": "12.50"},
        id="A-z_0:9",
        tenant="shop-1",
        occurred_at="2026-03-01T09:30:00.25+01:00",
        object={"type": hostile, "id": "4471"},
        source={"application": "checkout", "user_id": hostile},
        key=hostile,
        correlation_id=hostile,
    )
    async with begin() as tx:
        await done(publish(tx.connection, given))
    ((event_id, tenant, body),) = await database.events()
    assert (event_id, tenant) == ("A-z_0:9", "shop-1")
    assert json.loads(body) == {
        "type": "order:paid",
        "data": {"total": "12.50"},
        "occurred_at": "2026-03-01T09:30:00.25+01:00",
        "object": {"type": hostile, "id": "4471"},
        "source": {"application": "checkout", "user_id": hostile},
        "key": hostile,
        "correlation_id": hostile,
    }


async def test_a_batch_keeps_its_order(shop: Shop) -> None:
    database, begin = shop
    async with begin() as tx:
        made = await done(publish_batch(tx.connection, [order(str(number)) for number in range(200)]))
        assert await done(publish_batch(tx.connection, [])) == []
    assert made == [f"order-{number}" for number in range(200)]
    assert await ids(database) == made


async def test_another_table_with_defaults(shop: Shop) -> None:
    database, begin = shop
    outbox = Outbox(table="Bestell_Ausgang", tenant="shop-2", source={"application": "pos"})
    async with begin() as tx:
        await done(outbox.create_table(tx.connection))
        await done(outbox.create_table(tx.connection))
        await done(outbox.publish(tx.connection, order("1")))
        await done(outbox.publish(tx.connection, order("2", tenant="other", source={"user_id": "u"})))
    first, second = await database.events('"Bestell_Ausgang"')
    assert (first[1], json.loads(first[2])["source"]) == ("shop-2", {"application": "pos"})
    assert (second[1], json.loads(second[2])["source"]) == ("other", {"user_id": "u"})
    assert await ids(database) == []
    async with begin() as tx:
        await done(outbox.drop_table(tx.connection))
        await done(outbox.create_table(tx.connection))
    assert await database.events('"Bestell_Ausgang"') == []


# --- no transaction, no event


async def test_psycopg_that_commits_by_itself(postgres: Database) -> None:
    with psycopg.connect(postgres.address, autocommit=True) as db:
        with pytest.raises(NoTransaction, match="transaction"):
            publish(db, order("1"))
        with db.transaction():
            publish(db, order("2"))
    async with await psycopg.AsyncConnection.connect(postgres.address, autocommit=True) as db:
        with pytest.raises(NoTransaction, match="transaction"):
            await publish(db, order("3"))
        async with db.transaction():
            await publish(db, order("4"))
    assert await ids(postgres) == ["order-2", "order-4"]


async def test_psycopg_with_cursors_of_another_kind(postgres: Database) -> None:
    with psycopg.connect(postgres.address, cursor_factory=psycopg.RawCursor) as db:
        publish(db, order("1"))
    with psycopg.connect(postgres.address, cursor_factory=psycopg.ClientCursor) as db:
        publish_batch(db, [order("2"), order("3")])
    assert await ids(postgres) == ["order-1", "order-2", "order-3"]


async def test_asyncpg_outside_a_transaction(postgres: Database) -> None:
    db = await asyncpg.connect(postgres.address)
    with pytest.raises(NoTransaction, match="transaction"):
        await publish(db, order("1"))
    await db.close()
    assert await ids(postgres) == []


async def test_sqlite3_that_commits_by_itself(sqlite: Database) -> None:
    db = sqlite3.connect(sqlite.address, isolation_level=None)
    with pytest.raises(NoTransaction, match="BEGIN"):
        publish(db, order("1"))
    db.execute("BEGIN")
    publish(db, order("2"))
    db.execute("COMMIT")
    db.close()
    implicit = sqlite3.connect(sqlite.address)
    publish(implicit, order("3"))
    assert implicit.in_transaction
    implicit.rollback()
    implicit.close()
    assert await ids(sqlite) == ["order-2"]


@pytest.mark.parametrize("level", ["engine", "connection"])
async def test_sqlalchemy_that_commits_by_itself(sqlite: Database, postgres: Database, level: str) -> None:
    for url in (sqlite.sqlalchemy("pysqlite"), postgres.sqlalchemy("psycopg")):
        options: dict[str, Any] = {"isolation_level": "AUTOCOMMIT"}
        engine = create_engine(url, poolclass=NullPool, **(options if level == "engine" else {}))
        with engine.connect() as plain:
            db = plain.execution_options(**options) if level == "connection" else plain
            with pytest.raises(NoTransaction, match="AUTOCOMMIT"):
                publish(db, order("1"))
    engine = create_async_engine(
        postgres.sqlalchemy("asyncpg"), poolclass=NullPool, isolation_level="AUTOCOMMIT"
    )
    async with AsyncSession(engine) as session:
        with pytest.raises(NoTransaction, match="AUTOCOMMIT"):
            await publish(session, order("1"))
    await engine.dispose()
    assert await ids(sqlite) == await ids(postgres) == []


async def test_sqlalchemy_with_its_own_begin_on_sqlite(sqlite: Database) -> None:
    """The way that SQLAlchemy's documentation has for SQLite: isolation_level=None and BEGIN at the beginning."""
    engine = create_engine(sqlite.sqlalchemy("pysqlite"), poolclass=NullPool)

    @event.listens_for(engine, "connect")
    def connected(dbapi_connection: Any, record: object) -> None:
        dbapi_connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begun(one: Any) -> None:
        one.exec_driver_sql("BEGIN")

    with engine.connect() as db:
        publish(db, order("1"))
        db.rollback()
        with db.begin_nested():
            publish(db, order("2"))
        db.rollback()
        publish(db, order("3"))
        db.commit()
    assert await ids(sqlite) == ["order-3"]


async def test_sqlalchemy_sessions_that_belong_to_a_scope(sqlite: Database, postgres: Database) -> None:
    engine = create_engine(sqlite.sqlalchemy("pysqlite"), poolclass=NullPool)
    scoped = scoped_session(sessionmaker(engine))
    publish(scoped, order("1"))
    scoped.commit()
    scoped.remove()
    async_engine = create_async_engine(postgres.sqlalchemy("asyncpg"), poolclass=NullPool)
    async_scoped = async_scoped_session(async_sessionmaker(async_engine), scopefunc=lambda: 1)
    await publish(async_scoped, order("2"))
    await async_scoped.commit()
    await async_scoped.remove()
    await async_engine.dispose()
    assert (await ids(sqlite), await ids(postgres)) == (["order-1"], ["order-2"])


async def test_a_session_that_begins_by_itself_is_left_open(postgres: Database) -> None:
    engine = create_engine(postgres.sqlalchemy("psycopg"), poolclass=NullPool)
    with Session(engine) as session:
        publish(session, order("1"))
        assert session.in_transaction()
        session.rollback()
        session.execute(text("INSERT INTO orders VALUES ('2')"))
        publish(session, order("2"))
        session.commit()
    assert await ids(postgres) == ["order-2"]


# --- rights, schemas, other writers


async def test_a_role_that_publishes_needs_no_more_than_insert(postgres: Database) -> None:
    role = f"clerk_{abs(hash(postgres.address)) % 10**9}"
    await postgres.run(f"CREATE ROLE {role}", f"GRANT INSERT ON hookline_outbox TO {role}")
    first = psycopg.connect(postgres.address)
    with first, psycopg.connect(postgres.address) as second:
        first.execute(f"SET ROLE {role}".encode())
        publish(first, order("1"))
        publish(second, order("2"))
        second.commit()
    assert await ids(postgres) == ["order-2", "order-1"]
    await postgres.run(f"DROP OWNED BY {role}", f"DROP ROLE {role}")


async def test_an_outbox_in_a_schema_of_its_own(postgres: Database) -> None:
    await postgres.run('CREATE SCHEMA "Billing"')
    outbox = Outbox(table="events", schema="Billing")
    async with psycopg_connection(postgres) as tx:
        outbox.create_table(tx.connection)
        outbox.publish(tx.connection, order("1"))
    async with asyncpg_connection(postgres) as tx:
        await outbox.publish(tx.connection, order("2"))
    engine = create_engine(postgres.sqlalchemy("psycopg"), poolclass=NullPool)
    with engine.begin() as db:
        outbox.publish(db, order("3"))
    names = [event_id for event_id, _, _ in await postgres.events('"Billing".events')]
    assert names == ["order-1", "order-2", "order-3"]


async def test_rows_of_other_programs_get_an_id(postgres: Database, sqlite: Database) -> None:
    for database in (postgres, sqlite):
        await database.run('INSERT INTO hookline_outbox (body) VALUES (\'{"type":"a:b","data":1}\')')
        ((event_id, tenant, _),) = await database.events()
        assert event_id.startswith("evt_")
        assert len(event_id) == 36
        assert tenant == ""


@pytest.mark.parametrize("program", [psycopg_connection, asyncpg_connection])
async def test_serializable_transactions_do_not_get_in_each_others_way(
    postgres: Database, program: Program
) -> None:
    await postgres.run("ALTER DATABASE " + postgres.address.split("/")[3].split("?")[0]
                       + " SET default_transaction_isolation = 'serializable'")  # fmt: skip
    async with program(postgres) as first:
        await done(publish(first.connection, order("1")))
        async with program(postgres) as second:
            await done(publish(second.connection, order("2")))
            async with program(postgres) as third:
                await done(publish(third.connection, order("3")))
        await done(publish(first.connection, order("4")))
    assert await ids(postgres) == ["order-3", "order-2", "order-1", "order-4"]
