"""What an operator can get wrong with a PostgreSQL, and how a new version is rolled out on one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from hookline.core.errors import StorageUnavailable
from hookline.ports import EventQuery, Node, Record
from hookline.storage.migrate import Migration, SchemaMismatch
from hookline.storage.postgres import PostgresStorage, Rollout, migrate_database, schema
from hookline.storage.postgres import storage as storage_module
from hookline.storage.postgres.connection import Link
from tests.contract.make import DAY, NOW, World, new_event
from tests.support.postgres import drop_database, make_database, run_as_admin, url_of
from tests.support.waiting import eventually

SECONDS = 15.0


@pytest.fixture
async def empty() -> AsyncIterator[str]:
    """A database without anything of ours."""
    name = await make_database()
    yield name
    await drop_database(name)


@asynccontextmanager
async def _role(name: str, *grants: str) -> AsyncIterator[None]:
    await run_as_admin(f"CREATE ROLE {name} LOGIN", *grants)
    try:
        yield
    finally:
        await run_as_admin(f"DROP ROLE {name}")


def _asking(url: str, what: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}{what}"


def _as(role: str, url: str) -> str:
    return _asking(url, f"role={role}")


@asynccontextmanager
async def _opened(url: str, **options: object) -> AsyncIterator[PostgresStorage]:
    storage = PostgresStorage(url, **options)  # pyright: ignore[reportArgumentType] by name
    await storage.open()
    try:
        yield storage
    finally:
        await storage.close()


# --- addresses and rights ----------------------------------------------------------------------------


@pytest.mark.parametrize("asked", ["frobnicate=1", "port=banana", "sslmode=banana"])
async def test_an_address_that_cannot_be_is_told_apart_from_a_mistake_of_ours(empty: str, asked: str) -> None:
    with pytest.raises(StorageUnavailable, match="the storage failed"):
        await Link(_asking(url_of(empty), asked)).connect()


async def test_a_user_without_rights_is_told_what_it_needs(empty: str) -> None:
    async with _role("hookline_nobody"):
        url = _as("hookline_nobody", url_of(empty))
        with pytest.raises(StorageUnavailable, match="must own the schema"):  # nor may it make one
            await migrate_database(Link(url))
        await migrate_database(Link(url_of(empty)))
        with pytest.raises(StorageUnavailable, match="must own the schema"):
            await migrate_database(Link(url))
        with pytest.raises(StorageUnavailable, match="must own the schema"):
            await PostgresStorage(url).open()


async def test_the_owner_of_a_schema_that_was_made_for_it_needs_no_other_right(empty: str) -> None:
    async with _role("hookline_owner"):
        db = await asyncpg.connect(url_of(empty))
        await db.execute("CREATE SCHEMA hookline AUTHORIZATION hookline_owner")
        async with _opened(_as("hookline_owner", url_of(empty)), shards=2) as storage:
            await storage.append([new_event(1, "one")], NOW)
        await db.execute("DROP SCHEMA hookline CASCADE")
        await db.close()


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_a_database_of_another_encoding_is_refused(encoding: str) -> None:
    name = await make_database()
    await drop_database(name)
    await run_as_admin(f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
    try:
        with pytest.raises(SchemaMismatch, match="ENCODING 'UTF8'"):
            await PostgresStorage(url_of(name)).open()
    finally:
        await drop_database(name)


@pytest.mark.parametrize("replica", ["another database", "no address"])
async def test_a_replica_that_cannot_be_read_costs_no_list(empty: str, replica: str) -> None:
    other = await make_database()
    address = url_of(other) if replica == "another database" else "postgresql://[::1/hookline"
    try:
        async with _opened(url_of(empty), replica_dsn=address, shards=1) as storage:
            await storage.append([new_event(1, "one")], NOW)
            assert [event.id for event in await storage.list_events(EventQuery(1))] == ["one"]
    finally:
        await drop_database(other)


async def test_a_replica_that_says_nothing_holds_up_one_list_at_a_time(
    empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_module, "REPLICA_SECONDS", 0.2)
    monkeypatch.setattr(storage_module, "REPLICA_PAUSE", 1.0)
    asked: list[asyncio.StreamWriter] = []
    silent = await asyncio.start_server(lambda _, writer: asked.append(writer), "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    address = f"postgresql://nobody@127.0.0.1:{port}/x?sslmode=disable"
    async with _opened(url_of(empty), replica_dsn=address, shards=1) as storage, asyncio.timeout(60):
        assert await storage.list_events(EventQuery(1)) == []
        assert len(asked) == 1
        while len(asked) == 1:  # each time the pause is over
            await asyncio.gather(*(storage.list_events(EventQuery(1)) for _ in range(8)))
        assert len(asked) == 2
    for writer in asked:
        writer.close()
    silent.close()


# --- a new version -----------------------------------------------------------------------------------

PRE = Migration(9001, "9001_pre_next", "CREATE TABLE hookline.next ()")
POST = Migration(9002, "9002_post_next", "DROP TABLE hookline.next")


async def _rolled_out(url: str, version: str = "2", now: int = NOW) -> tuple[list[str], list[str]]:
    done = await migrate_database(Link(url), rollout=Rollout(version, now, SECONDS))
    return [each.name for each in done.applied], [each.name for each in done.left]


async def test_what_old_nodes_cannot_bear_waits_until_none_runs(
    empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = url_of(empty)
    async with _opened(url, shards=1) as storage:
        await storage.beat(Node("old", "all", "1", NOW), NOW, SECONDS)
        known = schema.load(schema.files("hookline.storage.postgres") / "migrations")
        monkeypatch.setattr(schema, "load", lambda _: [*known, PRE, POST])
        assert await _rolled_out(url) == ([PRE.name], [POST.name])
        assert await _rolled_out(url) == ([], [POST.name])
        await storage.beat(Node("new", "all", "2", NOW), NOW, SECONDS)
        assert await _rolled_out(url) == ([], [POST.name])
        await storage.leave("old")
        assert await _rolled_out(url) == ([POST.name], [])
        assert await _rolled_out(url) == ([], [])


async def test_a_node_that_runs_before_the_first_step_is_an_old_one_whatever_it_says(
    empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = url_of(empty)
    async with _opened(url, shards=1) as storage:
        await storage.beat(Node("old", "all", "2", NOW), NOW, SECONDS)
        known = schema.load(schema.files("hookline.storage.postgres") / "migrations")
        monkeypatch.setattr(schema, "load", lambda _: [*known, PRE, POST])
        assert await _rolled_out(url) == ([PRE.name], [POST.name])
        assert await _rolled_out(url, now=NOW + 20_000) == ([POST.name], [])


async def test_a_new_database_takes_all_steps_at_once_and_only_once(
    empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = schema.load(schema.files("hookline.storage.postgres") / "migrations")
    monkeypatch.setattr(schema, "load", lambda _: [*known, PRE, POST])
    both = await asyncio.gather(*(_rolled_out(url_of(empty)) for _ in range(4)))
    steps = [step.name for step in (*known, PRE, POST)]
    assert sorted(both) == [([], [])] * 3 + [(steps, [])]


async def test_a_database_that_is_cut_otherwise_is_not_said_to_be_in_order(empty: str) -> None:
    link, rollout = Link(url_of(empty)), Rollout("2", NOW, SECONDS)
    await migrate_database(link, shards=4, rollout=rollout)
    await migrate_database(link, shards=4, slices=1, rollout=rollout)
    with pytest.raises(SchemaMismatch, match="was made with 4 shards"):
        await migrate_database(link, shards=16, rollout=rollout)


# --- locks -------------------------------------------------------------------------------------------


async def test_disabling_several_subscriptions_waits_for_nobody_crosswise(empty: str) -> None:
    """Somebody changes the second one meanwhile: it is held, and then the configuration is."""
    async with _opened(url_of(empty), shards=1) as storage:
        world = World(storage)
        tenant = await world.tenant()
        one, two = await world.subscription(tenant, "one"), await world.subscription(tenant, "two")
        lease = await storage.lease(one.shard, "node", NOW, 10)
        assert lease is not None
        db = await asyncpg.connect(url_of(empty))
        change = db.transaction()
        await change.start()
        await db.execute("SELECT FROM hookline.subscriptions WHERE no = $1 FOR UPDATE", two.no)
        disabled = [(one.no, "gone"), (two.no, "gone")]
        recording = asyncio.create_task(
            storage.record(Record(one.shard, lease.epoch, NOW, 0, disabled=disabled))
        )

        async def waits() -> bool:
            return await db.fetchval(
                "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() "
                "AND wait_event_type = 'Lock')"
            )

        await eventually(waits, bool, "the record waits for the second subscription")
        await db.execute("SET LOCAL lock_timeout = '500ms'")  # before the server would see a deadlock
        await db.execute("UPDATE hookline.config SET version = version + 1")
        await change.commit()
        await recording
        await db.close()
        states = [(await storage.subscription_by_no(each.no)).state.value for each in (one, two)]
        assert states == ["disabled", "disabled"]


async def test_old_events_are_removed_while_their_day_is_dropped_without_deadlocks(empty: str) -> None:
    url = url_of(empty)
    async with _opened(url, shards=1) as one, _opened(url) as other:
        world = World(one)
        tenants = [await world.tenant(name) for name in ("a", "b", "c")]
        for day in range(2):
            for batch in range(12):
                events = [new_event(tenants[n % 3].no, f"{day}-{batch}-{n}") for n in range(500)]
                await one.append(events, NOW + day * DAY)

            async def remove(tenant_no: int, day: int = day) -> None:
                while await other.remove_events(tenant_no, NOW + (day + 1) * DAY, 10**9, 500):
                    pass

            later = NOW + (day + 2) * DAY
            removing = (remove(tenant.no) for tenant in tenants)
            await asyncio.gather(one.drop_partitions(later, later, later), *removing)
    db = await asyncpg.connect(url_of("postgres"))
    counted = "SELECT numbackends, deadlocks FROM pg_stat_database WHERE datname = $1"

    async def left() -> tuple[int, int]:
        """Backends count what they did at their end."""
        row = await db.fetchrow(counted, empty)
        assert row is not None
        return row[0], row[1]

    try:
        _, deadlocks = await eventually(left, lambda found: not found[0], "all connections are closed")
    finally:
        await db.close()
    assert deadlocks == 0
