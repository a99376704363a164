"""PostgreSQL as many processes meet it: races, fencing, broken connections, poolers, replicas, partitions."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TypeVar

import asyncpg
import pytest
from msgspec.structs import replace

from hookline.core.errors import Fenced, Overloaded, StorageUnavailable
from hookline.core.model import Event, Tenant
from hookline.ports import Bells, DeliveryQuery, EventQuery, Lease, Record
from hookline.storage.migrate import SchemaMismatch
from hookline.storage.postgres import PostgresStorage, PostgresWake, log, partitions
from hookline.storage.postgres.connection import Connection, Link
from hookline.storage.postgres.pool import Pool
from hookline.storage.postgres.tail import Tail
from tests.contract.make import DAY, NOW, World, api_key, attempt, lane, new_event, settled, unsettled
from tests.support.pooler import Pooler, pooled
from tests.support.postgres import PostgresServer, drop_database, make_database, run_as_admin, server, url_of
from tests.support.waiting import eventually, until

SHARDS = 4
Opener = Callable[..., Awaitable[PostgresStorage]]
T = TypeVar("T")


async def _prepare(url: str) -> None:
    storage = PostgresStorage(url, shards=SHARDS, slices=2)
    await storage.open()
    await storage.close()


@pytest.fixture
async def database() -> AsyncIterator[str]:
    name = await make_database("integration", _prepare)
    yield name
    await drop_database(name)


@pytest.fixture
async def opener(database: str) -> AsyncIterator[Opener]:
    opened: list[PostgresStorage] = []

    async def open_one(url: str = "", **options: object) -> PostgresStorage:
        storage = PostgresStorage(url or url_of(database), **options)  # pyright: ignore[reportArgumentType] by name
        opened.append(storage)
        await storage.open()
        return storage

    yield open_one
    for storage in opened:
        await storage.close()


async def _tenants(storage: PostgresStorage, count: int = SHARDS) -> list[Tenant]:
    return [
        await storage.create_tenant(f"t{number}", "T", "standard", api_key(f"k{number}"), NOW)
        for number in range(count)
    ]


async def _log(storage: PostgresStorage, shard: int) -> list[Event]:
    found: list[Event] = []
    after = 0
    while (page := await storage.read_log(shard, after, 100, 10**9)).last > after:
        found += page.events
        after = page.last
    return found


# --- several processes -------------------------------------------------------------------------------


async def test_racing_appends_keep_every_shard_dense(opener: Opener) -> None:
    """Batches over several shards, in different orders, with ids that others store at the same time."""
    storages = [await opener() for _ in range(3)]
    answers: dict[tuple[int, str], set[int]] = {}

    async def publish(storage: PostgresStorage, seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(15):
            places = [
                (chance.randrange(1, 9), f"e{chance.randrange(150)}") for _ in range(chance.randrange(1, 20))
            ]
            found = await storage.append([new_event(no, name) for no, name in places], NOW + seed)
            for place, answer in zip(places, found, strict=True):
                answers.setdefault(place, set()).add(answer.position)

    await asyncio.gather(*(publish(storage, seed) for seed, storage in enumerate(storages * 3)))
    assert all(len(positions) == 1 for positions in answers.values())
    stored = 0
    for shard in range(SHARDS):
        events = await _log(storages[0], shard)
        assert [event.position for event in events] == list(range(1, len(events) + 1))
        assert all(answers[event.tenant_no, event.id] == {event.position} for event in events)
        stored += len(events)
    assert stored == len(answers)


async def test_events_become_visible_in_order(opener: Opener) -> None:
    writers, reader = [await opener() for _ in range(2)], await opener()
    seen: list[int] = []

    async def follow() -> None:
        after = 0
        while after < 200:
            page = await reader.read_log(1, after, 7, 10**9)
            seen.extend(event.position for event in page.events)
            after = page.last

    async def publish(storage: PostgresStorage, side: int) -> None:
        for number in range(100):
            await storage.append([new_event(1, f"{side}-{number}")], NOW)

    await asyncio.gather(follow(), *(publish(storage, side) for side, storage in enumerate(writers)))
    assert seen == list(range(1, 201))


async def test_an_owner_that_lost_its_lease_writes_nothing_more(opener: Opener) -> None:
    one, two = await opener(), await opener()
    tenant = (await _tenants(one, 1))[0]
    sub = await World(one).subscription(tenant)
    part = (sub.shard, sub.no % one.slices)
    await one.append([new_event(tenant.no, f"e{number}") for number in range(2000)], NOW)
    lease = await one.lease(part[0], "one", NOW, 10, part[1])
    assert lease is not None
    written: list[int] = []

    async def record_until_fenced() -> None:
        for position in range(1, 2001):
            done = [settled(sub.no, position)]
            batch = Record(part[0], 1, NOW, position, settled=done, slice=part[1], number=position)
            await one.record(batch)
            written.append(position)

    recording = asyncio.create_task(record_until_fenced())
    await until(lambda: len(written) > 20, "records are written")
    taken = await two.lease(part[0], "two", NOW + 10_000, 10, part[1])
    assert taken is not None
    state = await two.load_shard(part[0], taken.epoch, part[1])
    with pytest.raises(Fenced):
        await recording
    assert state.watermark == written[-1] == (await two.load_shard(part[0], taken.epoch, part[1])).watermark
    assert (await two.list_deliveries(DeliveryQuery(sub.no, limit=1)))[0].position == written[-1]


async def test_the_slices_of_a_shard_are_owned_and_fenced_apart(opener: Opener) -> None:
    storage = await opener()
    tenant = (await _tenants(storage, 1))[0]
    subs = [await World(storage).subscription(tenant, f"s{number}") for number in range(2)]
    shard = subs[0].shard
    await storage.append([new_event(tenant.no, "e")], NOW)
    leases = [await storage.lease(shard, f"owner-{number}", NOW, 10, number) for number in range(2)]
    assert all(lease is not None and lease.epoch == 1 for lease in leases)
    for sub in subs:
        number = sub.no % 2
        lanes, waits = [lane(sub.no, 1)], [unsettled(sub.no, 1)]
        await storage.record(Record(shard, 1, NOW, number, unsettled=waits, lanes=lanes, slice=number))
    for sub in subs:
        state = await storage.load_shard(shard, 1, sub.no % 2)
        assert [each.no for each in state.changes.subscriptions] == [sub.no]
        assert [(each.state.subscription_no, each.waiting) for each in state.lanes] == [(sub.no, 1)]
        assert state.watermark == sub.no % 2
    await storage.lease(shard, "other", NOW + 20_000, 10, 0)
    with pytest.raises(Fenced):
        await storage.record(Record(shard, 1, NOW, 1, slice=0))
    await storage.record(Record(shard, 1, NOW, 1, slice=1))


async def test_leases_that_are_written_with_do_not_hold_up_the_renewal_of_others(
    opener: Opener, database: str
) -> None:
    storage = await opener()
    held = [
        lease
        for shard in range(SHARDS)
        for part in range(2)
        if (lease := await storage.lease(shard, "one", NOW, 10, part)) is not None
    ]
    assert len(held) == 2 * SHARDS
    busy = held[3]
    other = await asyncpg.connect(url_of(database))
    async with other.transaction():
        await other.execute(
            "SELECT FROM hookline.shard_leases WHERE shard = $1 AND slice = $2 FOR UPDATE",
            busy.shard,
            busy.slice,
        )
        async with asyncio.timeout(5):
            renewed = await storage.renew(held, NOW + 5_000, 10)
    await other.close()
    expected = [replace(lease, expires_at=NOW + 15_000) for lease in held if lease != busy]
    assert sorted(renewed, key=_part_of) == expected


def _part_of(lease: Lease) -> tuple[int, int]:
    return lease.shard, lease.slice


async def test_several_nodes_that_open_a_new_database_migrate_it_once() -> None:
    name = await make_database()
    storages = [PostgresStorage(url_of(name), shards=8) for _ in range(5)]
    try:
        await asyncio.gather(*(storage.open() for storage in storages))
        db = await asyncpg.connect(url_of(name))
        assert await db.fetchval("SELECT count(*) = count(DISTINCT name) FROM hookline.migrations")
        assert await db.fetchval("SELECT count(*) FROM hookline.shard_heads") == 8
        await db.close()
    finally:
        for storage in storages:
            await storage.close()
        await drop_database(name)


async def test_old_and_new_nodes_run_side_by_side(opener: Opener, database: str) -> None:
    db = await asyncpg.connect(url_of(database))
    await db.execute("INSERT INTO hookline.migrations VALUES (2, '0002_pre_next', 'x')")
    await (await opener()).ping()
    await db.execute("INSERT INTO hookline.migrations VALUES (3, '0003_post_next', 'x')")
    await db.close()
    with pytest.raises(SchemaMismatch, match="0003_post_next"):
        await opener()


async def test_how_the_log_is_cut_is_for_good(opener: Opener) -> None:
    assert ((storage := await opener()).shards, storage.slices) == (SHARDS, 2)
    for other in ({"shards": 64}, {"slices": 1}):
        with pytest.raises(SchemaMismatch, match="was made with"):
            await opener(**other)


# --- broken connections ------------------------------------------------------------------------------

_CUT_ONE = """
SELECT count(pg_terminate_backend(pid)) FROM (
    SELECT pid FROM pg_stat_activity WHERE datname = $1 ORDER BY random() LIMIT 1
) AS one
"""


ENOUGH = 10
"""Broken connections after which the test may end."""


class _Insistent:
    """Does what publishers and workers do: again, with the same ids and numbers, until it is done."""

    def __init__(self) -> None:
        self.done = 0
        self.cuts = 0

    async def do(self, work: Callable[[], Awaitable[T]]) -> T:
        while True:
            with suppress(StorageUnavailable):
                result = await work()
                self.done += 1
                return result
            await asyncio.sleep(0.001)

    async def cut_connections(self, database: str) -> None:
        """Break a connection, whatever it is about, each time that a little more was done."""
        chance = random.Random(7)
        db = await asyncpg.connect(url_of("postgres"))
        try:
            while True:
                seen = self.done
                await until(lambda seen=seen: self.done > seen, "something is done between two cuts")
                await asyncio.sleep(chance.uniform(0, 0.02))
                self.cuts += await db.fetchval(_CUT_ONE, database)
        finally:
            db.terminate()


async def test_nothing_acknowledged_is_lost_when_connections_break(opener: Opener, database: str) -> None:
    storage = await opener(connections=4, queue_limit=50)
    tenants = await _tenants(storage)
    sub = await World(storage).subscription(tenants[0])
    part = (sub.shard, sub.no % 2)
    lease = await storage.lease(part[0], "one", NOW, 1000, part[1])
    assert lease is not None
    insistent = _Insistent()
    acknowledged: dict[tuple[int, str], int] = {}

    async def publish(number: int) -> None:
        chance = random.Random(number)
        batch = 0
        while batch < 25 or insistent.cuts < ENOUGH:
            batch += 1
            events = [new_event(chance.choice(tenants).no, f"{number}-{batch}-{n}") for n in range(10)]
            answers = await insistent.do(lambda events=events: storage.append(events, NOW))
            for event, answer in zip(events, answers, strict=True):
                acknowledged[event.tenant_no, event.id] = answer.position

    async def record() -> None:
        for number in range(1, 60):
            tried = [attempt(sub.no, number, request_bytes=1)]
            done = [settled(sub.no, number)]
            batch = Record(part[0], 1, NOW, number, tried, done, slice=part[1], number=number)
            await insistent.do(lambda batch=batch: storage.record(batch))

    cutter = asyncio.create_task(insistent.cut_connections(database))
    try:
        async with asyncio.TaskGroup() as tasks:
            for work in (*(publish(number) for number in range(4)), record()):
                tasks.create_task(work)
    finally:
        cutter.cancel()
        await asyncio.wait([cutter])
    assert insistent.cuts >= ENOUGH
    stored: dict[tuple[int, str], int] = {}
    for shard in range(SHARDS):
        events = await _log(storage, shard)
        assert [event.position for event in events] == list(range(1, len(events) + 1))
        stored |= {(event.tenant_no, event.id): event.position for event in events}
    assert stored == acknowledged
    used = await storage.usage(tenants[0].no, "0", "9")
    assert sum(day.attempts for day in used) == 59
    assert len(await storage.list_deliveries(DeliveryQuery(sub.no, limit=100))) == 59


async def test_a_server_that_stops_and_comes_back() -> None:
    own = PostgresServer()
    storage = PostgresStorage(own.url(), shards=2, connect_timeout=20, patience=20)
    try:
        await storage.open()
        await storage.append([new_event(1, "before")], NOW)
        own.stop()
        for work in (storage.ping(), storage.append([new_event(1, "during")], NOW), storage.head(1)):
            with pytest.raises(StorageUnavailable):
                await work
        own.start()
        await storage.ping()
        assert (await storage.append([new_event(1, "after")], NOW))[0].position == 2
        assert [event.id for event in await _log(storage, 1)] == ["before", "after"]
    finally:
        await storage.close()
        own.remove()


async def test_a_server_that_is_not_there() -> None:
    storage = PostgresStorage("postgresql://postgres@127.0.0.1:1/none")
    with pytest.raises(StorageUnavailable):
        await storage.open()
    with pytest.raises(StorageUnavailable, match="not open"):
        await storage.head(0)


async def test_a_database_that_takes_no_writes(opener: Opener, database: str) -> None:
    storage = await opener()
    await storage.ping()
    await run_as_admin(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    readonly = await opener()
    for work in (readonly.ping(), readonly.append([new_event(1, "e")], NOW)):
        with pytest.raises(StorageUnavailable):
            await work


async def test_a_full_pool_refuses_and_gives_up_in_time(database: str) -> None:
    pool = Pool(Link(url_of(database)), size=1, limit=1, patience=0.1)
    release = asyncio.Event()

    async def hold(db: Connection) -> None:
        await release.wait()

    holder = asyncio.create_task(pool.read(hold))
    await until(pool._free.locked, "the connection is taken")
    waits = asyncio.create_task(pool.read(hold))
    await until(lambda: pool._waiting == 1, "one waits")
    with pytest.raises(Overloaded):
        await pool.read(hold)
    with pytest.raises(StorageUnavailable, match="no connection was free"):
        await waits
    release.set()
    await holder
    await pool.close()
    with pytest.raises(StorageUnavailable):
        await pool.read(hold)


async def test_a_cancelled_caller_leaves_a_pool_that_works(database: str) -> None:
    pool = Pool(Link(url_of(database)), size=1, limit=5, patience=5)
    for way in (pool.read, pool.write, pool.snapshot):
        sleeping = asyncio.create_task(way(lambda db: db.fetchval("SELECT pg_sleep(30)")))
        await until(pool._free.locked, "it sleeps")
        sleeping.cancel()
        await asyncio.wait([sleeping])
        assert await pool.read(lambda db: db.fetchval("SELECT 1")) == 1
    await pool.close()


async def test_a_statement_that_takes_too_long_is_ended(database: str) -> None:
    pool = Pool(Link(url_of(database), timeout=0.2), size=1, limit=5, patience=5)
    with pytest.raises(StorageUnavailable):
        await pool.read(lambda db: db.fetchval("SELECT pg_sleep(30)"))
    await pool.close()


# --- poolers and replicas ----------------------------------------------------------------------------


@pytest.fixture
async def pooler() -> AsyncIterator[Pooler]:
    """In front of the server that we start ourselves, which asks for no password."""
    db = await asyncpg.connect(server().url())
    await db.execute("CREATE DATABASE pooled")
    async with pooled(server().socket, "pooled") as pooler:
        yield pooler
    await db.execute("DROP DATABASE pooled WITH (FORCE)")
    await db.close()


async def test_behind_a_pooler_nothing_depends_on_a_session(opener: Opener, pooler: Pooler) -> None:
    storage = await opener(pooler.url, pooler=True, shards=SHARDS, slices=2)
    try:
        storage = await opener(pooler.url, pooler=True)
        world = World(storage)
        tenant = await world.tenant()
        sub = await world.subscription(tenant)
        part = (sub.shard, sub.no % 2)

        async def publish(number: int) -> None:
            for batch in range(10):
                await storage.append([new_event(tenant.no, f"{number}-{batch}-{n}") for n in range(3)], NOW)
                await storage.read_log(sub.shard, batch, 10, batch % 2)

        await asyncio.gather(*(publish(number) for number in range(6)))
        await storage.append([new_event(tenant.no, "0-0-0")], NOW)
        lease = await storage.lease(*part[:1], "one", NOW, 10, part[1])
        assert lease is not None
        batch = Record(
            part[0], lease.epoch, NOW, 3, [attempt(sub.no, 1, response_body=b"b")], [settled(sub.no, 1)],
            [unsettled(sub.no, 2)], [lane(sub.no, 2)], operational=[new_event(tenant.no, "op")], slice=part[1],
        )  # fmt: skip
        await storage.record(batch)
        assert len(await storage.due(sub.no, NOW, 10)) == 1
        assert (await storage.load_shard(part[0], lease.epoch, part[1])).watermark == 3
        events = await _log(storage, sub.shard)
        assert [event.position for event in events] == list(range(1, 182))
        assert len(await storage.list_events(EventQuery(tenant.no, type="order:created", limit=20))) == 20
        assert (await storage.list_attempts(sub.no, 1))[0].response_body == b"b"
        await storage.ping()
        assert pooler.lent > 100
    finally:
        await storage.close()


async def test_lists_come_from_the_replica_while_it_answers() -> None:
    primary = PostgresServer()
    storage = PostgresStorage(primary.url(), shards=1)
    try:
        await storage.open()
        standby = PostgresServer(standby_of=primary)
        reader = PostgresStorage(primary.url(), replica_dsn=standby.url(), connect_timeout=20)
        await reader.open()
        await storage.append([new_event(1, "one")], NOW)
        events = await eventually(lambda: reader.list_events(EventQuery(1)), bool, "the replica follows")
        assert [event.id for event in events] == ["one"]
        on_replica = await reader._list(lambda db: db.fetchval("SELECT pg_is_in_recovery()"))
        assert on_replica
        assert not await reader._look(lambda db: db.fetchval("SELECT pg_is_in_recovery()"))
        alone = PostgresStorage(standby.url())
        await alone.open()
        with pytest.raises(StorageUnavailable, match="no writes"):
            await alone.ping()
        await alone.close()
        standby.stop()
        assert [event.id for event in await reader.list_events(EventQuery(1))] == ["one"]
        await reader.ping()
        await reader.close()
        standby.remove()
    finally:
        await storage.close()
        primary.remove()


# --- partitions --------------------------------------------------------------------------------------


async def _days(storage: PostgresStorage, table: str) -> list[int]:
    return await storage._look(lambda db: partitions.days(db, table))


TODAY = NOW // DAY


async def test_partitions_are_made_ahead_and_on_demand(opener: Opener) -> None:
    today = int(time.time() * 1000) // DAY  # or yesterday, once it is open
    storage = await opener()
    for table in partitions.TABLES:
        assert set(await _days(storage, table)) >= set(range(today, today + partitions.AHEAD + 1))
    tenant = (await _tenants(storage, 1))[0]
    sub = await World(storage).subscription(tenant)
    part = (sub.shard, sub.no % 2)
    await storage.append([new_event(tenant.no, "far")], NOW + 5000 * DAY)
    lease = await storage.lease(part[0], "one", NOW, 10, part[1])
    assert lease is not None
    tried = [
        attempt(sub.no, 1, number, started_at=NOW + number * DAY, response_body=b"b")
        for number in range(1, 8)
    ]
    ended = [settled(sub.no, 1, settled_at=NOW + 9 * DAY)]
    await storage.record(Record(part[0], lease.epoch, NOW, 1, tried, ended, slice=part[1]))
    assert await storage.list_attempts(sub.no, 1) == []  # nothing is tried before its event was received
    assert {TODAY + number for number in range(1, 8)} <= set(await _days(storage, "attempts"))
    assert TODAY + 9 in await _days(storage, "deliveries")
    assert TODAY + 5000 in await _days(storage, "events")


async def test_many_make_the_same_partition_at_once(opener: Opener) -> None:
    storages = [await opener() for _ in range(4)]
    await asyncio.gather(
        *(
            each.append([new_event(number, f"e{number}")], NOW + 70 * DAY)
            for number, each in enumerate(storages)
        )
    )
    assert (await _days(storages[0], "events")).count(TODAY + 70) == 1


async def _history(storage: PostgresStorage) -> tuple[int, int]:
    """Five days with two events, attempts with bodies and settled deliveries each; tenant and subscription."""
    tenant = (await _tenants(storage, 1))[0]
    sub = await World(storage).subscription(tenant)
    part = (sub.shard, sub.no % 2)
    lease = await storage.lease(part[0], "one", NOW, 10, part[1])
    assert lease is not None
    for day in range(5):
        at = NOW + day * DAY
        answers = await storage.append([new_event(tenant.no, f"{day}-{n}") for n in range(2)], at)
        positions = [answer.position for answer in answers]
        await storage.record(
            Record(
                part[0],
                lease.epoch,
                at,
                positions[-1],
                [attempt(sub.no, position, started_at=at, response_body=b"b") for position in positions],
                [settled(sub.no, position, settled_at=at) for position in positions],
                lanes=[lane(sub.no, positions[-1], live=True)],
                slice=part[1],
            )
        )
    return tenant.no, sub.no


async def test_whole_days_are_dropped_when_all_in_them_is_past_its_time(opener: Opener) -> None:
    storage = await opener()
    tenant_no, sub = await _history(storage)
    start = TODAY * DAY
    dropped = await storage.drop_partitions(start + 2 * DAY, start + 3 * DAY + 5, start + 4 * DAY)
    assert dropped == 2 + 3 + 3 + 4
    assert [event.position for event in await _log(storage, tenant_no % SHARDS)] == list(range(5, 11))
    assert await storage.find_event(tenant_no, "1-0") is None
    assert (await storage.append([new_event(tenant_no, "1-0")], NOW + 5 * DAY))[0].existing is None
    listed = await storage.list_deliveries(DeliveryQuery(sub))
    assert [delivery.position for delivery in listed] == [10, 9, 8, 7]
    bodies = {
        at: [each.response_body for each in await storage.list_attempts(sub, at)] for at in range(5, 11)
    }
    assert bodies == {5: [], 6: [], 7: [b""], 8: [b""], 9: [b"b"], 10: [b"b"]}
    assert await storage.drop_partitions(start + 2 * DAY, start + 3 * DAY, start + 4 * DAY) == 0
    assert await storage.position_at(tenant_no % SHARDS, start) == 4


async def test_a_day_that_a_delivery_needs_stays(opener: Opener) -> None:
    storage = await opener()
    tenant_no, sub = await _history(storage)
    assert await storage.resend(sub, [3], NOW) == 1
    later = (TODAY + 30) * DAY
    await storage.drop_partitions(later, 0, 0)
    assert [event.position for event in await _log(storage, tenant_no % SHARDS)] == list(range(3, 11))
    await storage.lease(tenant_no % SHARDS, "one", NOW, 10, sub % 2)
    done = [settled(sub, 3, settled_at=NOW)]
    await storage.record(Record(tenant_no % SHARDS, 1, NOW, 10, settled=done, slice=sub % 2))
    await storage.drop_partitions(later, 0, 0)
    assert await _log(storage, tenant_no % SHARDS) == []


async def test_a_delivery_settled_again_on_another_day_is_there_once(opener: Opener) -> None:
    storage = await opener()
    tenant_no, sub = await _history(storage)
    place = (tenant_no % SHARDS, 1, NOW + 9 * DAY, 10)
    await storage.record(Record(*place, settled=[settled(sub, 1, settled_at=NOW + 9 * DAY)], slice=sub % 2))
    listed = await storage.list_deliveries(DeliveryQuery(sub, before=3))
    assert [(each.position, each.settled_at) for each in listed] == [(2, NOW), (1, NOW + 9 * DAY)][:2]
    await storage.record(Record(*place, unsettled=[unsettled(sub, 2), unsettled(sub, 1)], slice=sub % 2))
    listed = await storage.list_deliveries(DeliveryQuery(sub, before=3))
    assert [each.settled_at for each in listed] == [0, 0]


# --- texts -------------------------------------------------------------------------------------------


async def test_what_endpoints_say_is_recorded_whatever_it_is(opener: Opener) -> None:
    storage = await opener()
    tenant_no, sub = await _history(storage)
    odd = attempt(sub, 1, 2, started_at=NOW, detail="a\0b\ud800c", response_headers=b"\0\xff")
    ended = [settled(sub, 1, error="x\0", settled_at=NOW)]
    await storage.record(Record(tenant_no % SHARDS, 1, NOW, 10, [odd], ended, slice=sub % 2, number=1))
    found = await storage.get_attempt(sub, 1, 2)
    assert found is not None
    assert (found.detail, found.response_headers) == ("a\ufffdb?c", b"\0\xff")


# --- the tail and wake-ups ---------------------------------------------------------------------------


async def test_those_who_look_at_the_tail_together_share_a_question() -> None:
    asked: list[list[int]] = []

    async def read(shards: Sequence[int]) -> dict[int, log.Ends]:
        asked.append(list(shards))
        await asyncio.sleep(0)
        return {shard: log.Ends(shard, 1, 0) for shard in shards}

    tail = Tail(read)
    ends = await asyncio.gather(*(tail.ends(shard % 64) for shard in range(128)))
    assert [each.head for each in ends] == [*range(64), *range(64)]
    assert len(asked) == 1
    assert tail.known(7) == log.Ends(7, 1, 0)
    await tail.close()


async def test_a_question_that_fails_fails_for_all_who_asked() -> None:
    async def read(_: object) -> dict[int, log.Ends]:
        raise StorageUnavailable("gone")

    tail = Tail(read)
    found = await asyncio.gather(*(tail.ends(shard) for shard in range(3)), return_exceptions=True)
    assert [type(each) for each in found] == [StorageUnavailable] * 3
    await tail.close()


async def test_wake_ups_reach_the_other_processes(database: str) -> None:
    wakes = [PostgresWake(url_of(database)) for _ in range(2)]
    rung: Bells = wakes[0]
    running = [asyncio.create_task(wake.run()) for wake in wakes]
    try:
        for wake in wakes:
            async with asyncio.timeout(20):
                await wake.connected.wait()
        bells = [wake.listen(3) for wake in wakes]
        other = wakes[1].listen(4)
        for bell in (*bells, other):
            await bell.wait(0)
        rung.notify([3])
        await until(bells[1]._event.is_set, "the other process hears it")
        assert bells[0]._event.is_set()
        assert not other._event.is_set()
        wakes[0].notify()
        await until(other._event.is_set, "all shards are woken")
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def test_a_wake_that_lost_its_connection_makes_another(database: str) -> None:
    one, two = PostgresWake(url_of(database), listens=False), PostgresWake(url_of(database))
    running = [asyncio.create_task(wake.run()) for wake in (one, two)]
    try:
        async with asyncio.timeout(20):
            await two.connected.wait()
        bell = two.listen(1)
        await run_as_admin(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}' "
            "AND application_name = 'hookline wake'"
        )
        await until(lambda: not two.connected.is_set(), "the connection is missed")
        async with asyncio.timeout(20):
            await two.connected.wait()
            await one.connected.wait()
        await bell.wait(0)
        one.notify([1])
        await until(bell._event.is_set, "wake-ups arrive again")
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
