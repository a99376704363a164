"""An installation moves to PostgreSQL, and on from there: all of it arrives, or nothing does."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookline.core.errors import SettingsInvalid, StorageUnavailable
from hookline.core.model import Definition
from hookline.core.vault import AesGcmVault
from hookline.ports import Lease, Node, Record, Storage
from hookline.storage.migrate import SchemaMismatch
from hookline.storage.move import MoveMismatch, MoveRefused, Wish, move, postgres, target
from hookline.storage.move.digest import digest_of
from hookline.storage.move.plan import Cut, End, Facts, planned_ends
from hookline.storage.move.postgres import PostgresSource, shown
from hookline.storage.move.source import BATCH_ROWS, Pace
from hookline.storage.move.sqlite import SqliteSource
from hookline.storage.move.tables import BY_NAME, TABLES, Row, Table
from hookline.storage.move.target import Filling, Places
from hookline.storage.postgres import PostgresStorage
from hookline.storage.postgres.connection import Link
from hookline.storage.sqlite import SqliteStorage
from tests.contract.make import DAY, NOW, api_key, attempt, new_event, replay, settled
from tests.support.moving import (
    EVENTS,
    LARGE,
    VAULT,
    copy_of,
    furnish,
    move_now,
    now,
    open_postgres,
    opened,
    started,
    told,
)
from tests.support.postgres import drop_database, make_database, run_as_admin, url_of
from tests.support.server import ROOT, child_environment
from tests.support.waiting import until

SUBSCRIPTIONS = range(1, 9)


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once; tests that change it take a copy."""
    return asyncio.run(furnish(tmp_path_factory.mktemp("furnished") / "hookline.db"))


@pytest.fixture
def source(furnished: Path, tmp_path: Path) -> Path:
    return copy_of(furnished, tmp_path / "data")


@pytest.fixture
async def databases() -> AsyncIterator[Callable[[], Awaitable[str]]]:
    made: list[str] = []

    async def make() -> str:
        made.append(await make_database())
        return url_of(made[-1])

    yield make
    for name in made:
        await drop_database(name)


@pytest.fixture
async def empty(databases: Callable[[], Awaitable[str]]) -> str:
    return await databases()


async def ask(url: str, query: str) -> Any:
    db = await asyncpg.connect(url)
    try:
        return await db.fetchval(query)
    finally:
        await db.close()


async def assert_nothing_visible(url: str) -> None:
    """No server would start, and no row is there."""
    storage = PostgresStorage(url)
    with pytest.raises(SchemaMismatch):
        await storage.open()
    for table in ("tenants", "api_keys", "events", "event_ids", "attempts"):
        assert await ask(url, f"SELECT count(*) FROM hookline.{table}") == 0


# --- everything arrives ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shards", "slices"), [(64, 1), (1, 1), (3, 4)])
async def test_what_was_told_before_is_told_after(source: Path, empty: str, shards: int, slices: int) -> None:
    moved = await move_now(source, empty, shards=shards, slices=slices)
    assert all(each.same for each in moved.tables)
    assert {each.table: each.rows for each in moved.tables}["events"] > EVENTS // 2
    assert moved.mended > 100
    async with opened(SqliteStorage(source)) as before, opened(await open_postgres(empty)) as after:
        assert (after.shards, after.slices) == (shards, slices)
        assert await told(after) == await told(before)
        assert await started(after, SUBSCRIPTIONS) == await started(before, SUBSCRIPTIONS)


async def test_the_moved_installation_goes_on(source: Path, empty: str) -> None:
    await move_now(source, empty, shards=4)
    async with opened(await open_postgres(empty)) as storage:
        first = (await storage.list_tenants("", 1))[0]
        again, new = await storage.append([new_event(first.no, "evt_0"), new_event(first.no, "new")], NOW)
        assert again.existing is not None
        assert (again.position, new.position) == (1, EVENTS + 1)
        found = await storage.find_event(first.no, "new")
        assert found is not None
        assert found.received_at == NOW + (EVENTS - 1) * 3_600_000, "time stands until it has caught up"
        tenant = await storage.create_tenant("late", "", "standard", api_key("late"), NOW)
        assert tenant.no == 5
        made = await storage.create_subscription(
            "sub_late", first.no, Definition(url="https://l.test"), b"", NOW
        )
        assert (made.no, made.start_after) == (9, EVENTS + 1)
        await storage.create_replay(replay(first.no, "rpl_new"))
        assert [each.id for each in await storage.list_replays(first.no, 9)] == ["rpl_new", "rpl_1", "rpl_0"]
        assert await storage.resend(5, [3], NOW) == 0, "the event is gone"
        assert await storage.resend(1, [9], NOW) == 1


async def test_the_first_event_of_a_day_that_began_before_the_move(source: Path, empty: str) -> None:
    """The day in which the source stands has no event of this tenant yet."""
    await move_now(source, empty)
    async with opened(await open_postgres(empty)) as storage:
        tenant = (await storage.list_tenants("", 9))[2]
        last = await storage.head(tenant.no)
        (appended,) = await storage.append([new_event(tenant.no, "first")], NOW + EVENTS * 3_600_000)
        assert appended.position == last + 1
        assert [event.id for event in await storage.read_events(tenant.no, [last + 1])] == ["first"]
        assert (await storage.read_log(tenant.no, 0, 10, 10**9)).events[-1].id == "first"


async def test_on_to_other_shards_and_slices(source: Path, databases: Callable[[], Awaitable[str]]) -> None:
    old, new = await databases(), await databases()
    await move_now(source, old, shards=4, slices=2)
    async with opened(await open_postgres(old)) as storage:
        await _work_on(storage)
        before = await told(storage)
    moved = await move_now(old, new, shards=8, slices=3)
    assert all(each.same for each in moved.tables)
    async with opened(await open_postgres(new)) as storage:
        assert await told(storage) == before
        after = await started(storage, SUBSCRIPTIONS)
    async with opened(await open_postgres(old)) as storage:
        assert after == await started(storage, SUBSCRIPTIONS)


async def _work_on(storage: Storage) -> None:
    """Slices of one shard come to stand at different watermarks, and an attempt is recorded anew a day later."""
    for number, watermark in ((0, EVENTS), (1, EVENTS - 2)):
        lease = await storage.lease(1, "worker", NOW, 1, number)
        assert lease is not None
        parts: dict[str, Any] = {}
        if number:
            parts = {"attempts": [attempt(1, 1, started_at=NOW + DAY)], "settled": [settled(1, 57)]}
        await storage.record(Record(1, lease.epoch, NOW + DAY, watermark, slice=number, **parts))
        await storage.release(lease)
    await storage.append([new_event(3, "elsewhere")], NOW + 9 * DAY)


async def test_shards_whose_positions_would_collide_do_not_meet(
    source: Path, databases: Callable[[], Awaitable[str]]
) -> None:
    old, new = await databases(), await databases()
    await move_now(source, old, shards=4)
    with pytest.raises(MoveRefused, match="a multiple of 4 shards"):
        await move_now(old, new, shards=3)
    await move_now(old, new, shards=4)


@given(
    shards=st.sampled_from([1, 2, 4, 6]),
    wanted=st.integers(1, 24),
    tenants=st.sets(st.integers(1, 40)),
    heads=st.lists(st.integers(0, 99), min_size=6),
)
def test_a_shard_stands_where_its_tenants_stood(
    shards: int, wanted: int, tenants: set[int], heads: list[int]
) -> None:
    ends = [End(shard, heads[shard], heads[shard] * 2, heads[shard] // 2) for shard in range(shards)]
    facts = Facts("", "", Cut(shards, 1), ends, sorted(tenants), [], [])
    meet = any(
        one % wanted == other % wanted and one % shards != other % shards
        for one in tenants
        for other in tenants
    )
    if meet:
        assert wanted % shards
        with pytest.raises(MoveRefused):
            planned_ends(facts, Cut(wanted, 1))
        return
    planned = planned_ends(facts, Cut(wanted, 1))
    assert [end.shard for end in planned] == list(range(wanted))
    for tenant in tenants:
        assert planned[tenant % wanted].head == heads[tenant % shards]


# --- after a break -----------------------------------------------------------------------------------------


async def test_killed_at_any_point_and_run_again(source: Path, empty: str) -> None:
    for when in ("0.0001", "0.3", "0.499", "0.7", "0.999", "finish"):
        assert await _die(source, empty, when) == -signal.SIGKILL
        await assert_nothing_visible(empty)
    moved = await move_now(source, empty)
    assert all(each.same for each in moved.tables)
    await _assert_complete(source, empty)


async def test_killed_behind_the_commit_it_is_finished(source: Path, empty: str) -> None:
    assert await _die(source, empty, "committed") == -signal.SIGKILL
    assert (await move_now(source, empty)).before is not None
    await _assert_complete(source, empty)


async def _die(source: Path, url: str, when: str) -> int:
    command = [sys.executable, "-m", "tests.support.moving", f"sqlite:///{source}", url, when]
    with subprocess.Popen(command, cwd=ROOT, env=child_environment()) as process:
        await until(lambda: process.poll() is not None, "killed itself")
        return process.returncode


async def _assert_complete(source: Path, url: str) -> None:
    async with opened(SqliteStorage(source)) as before, opened(await open_postgres(url)) as after:
        assert await told(after) == await told(before)


class Broken(Exception):
    """What goes wrong in these tests."""


async def test_an_error_at_any_step_leaves_nothing(
    source: Path, empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in ("begin", "fill", "complete", "read_back", "shards", "finish"):
        whole = getattr(Filling, step)

        def fail(self: Filling, *args: Any, whole: Any = whole) -> Any:
            if args and isinstance(args[0], Table) and args[0].name != "attempts":
                return whole(self, *args)
            raise Broken

        with monkeypatch.context() as patched:
            patched.setattr(Filling, step, fail)
            with pytest.raises(Broken):
                await move_now(source, empty)
        await assert_nothing_visible(empty)
    await move_now(source, empty)
    await _assert_complete(source, empty)


@pytest.mark.parametrize("share", [0.2, 0.8])
async def test_a_connection_that_breaks_leaves_nothing(source: Path, empty: str, share: float) -> None:
    broken: list[int] = []

    def cut(done: int, total: int) -> None:
        if done >= total * share and not broken:
            broken.append(done)
            name = empty.rpartition("?")[0].rpartition("/")[2] or empty.rpartition("/")[2]
            ending = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
            thread = threading.Thread(target=lambda: asyncio.run(run_as_admin(ending)))
            thread.start()
            thread.join()

    with pytest.raises(StorageUnavailable):
        await move(Wish(f"sqlite:///{source}", empty, seconds=0), VAULT, now, cut)
    assert broken
    await assert_nothing_visible(empty)
    await move_now(source, empty)


async def test_stopped_by_ctrl_c_it_leaves_nothing(source: Path, empty: str) -> None:
    task: asyncio.Task[Any]

    def stop(done: int, total: int) -> None:
        if done > total // 4:
            task.cancel()

    task = asyncio.create_task(move(Wish(f"sqlite:///{source}", empty, seconds=0), VAULT, now, stop))
    with pytest.raises(asyncio.CancelledError):
        await task
    await assert_nothing_visible(empty)
    await move_now(source, empty)


async def test_cut_otherwise_after_a_break(source: Path, empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(self: Filling, *_: Any) -> None:
        raise Broken

    with monkeypatch.context() as patched:
        patched.setattr(Filling, "complete", fail)
        with pytest.raises(Broken):
            await move_now(source, empty, shards=8, slices=2)
    await move_now(source, empty, slices=3)
    async with opened(await open_postgres(empty)) as storage:
        assert (storage.shards, storage.slices) == (8, 3)


async def test_it_tells_how_far_it_is(source: Path, empty: str) -> None:
    seen: list[tuple[int, int]] = []
    wish = Wish(f"sqlite:///{source}", empty, seconds=0)
    await move(wish, VAULT, now, lambda done, total: seen.append((done, total)))
    assert len({total for _, total in seen}) == 1
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert seen[-1][0] == seen[-1][1]


async def test_finished_it_is_not_done_again(source: Path, empty: str) -> None:
    first = await move_now(source, empty)
    async with opened(await open_postgres(empty)) as storage:
        await storage.append([new_event(1, "served")], NOW + 9 * DAY)
    with pytest.MonkeyPatch.context() as patched:
        patched.delattr(target, "migrate_database")  # the schema of what is served is left alone
        again = await move_now(source, empty)
    assert again.before is not None
    assert (again.source, again.target, again.tables) == (first.source, first.target, ())
    assert await ask(empty, "SELECT count(*) FROM hookline.events WHERE id = 'served'") == 1


# --- what is checked -----------------------------------------------------------------------------------------


def _lost(rows: Sequence[Row]) -> Sequence[Row]:
    return rows[:-1]


def _changed(rows: Sequence[Row]) -> Sequence[Row]:
    return [*rows[:-1], tuple(value + 1 if value == rows[-1][0] else value for value in rows[-1])]


@pytest.mark.parametrize("spoil", [_lost, _changed])
async def test_a_row_that_arrives_otherwise_is_found(
    source: Path,
    empty: str,
    spoil: Callable[[Sequence[Row]], Sequence[Row]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fill, spoilt_table = Filling.fill, ""

    async def spoilt(batches: AsyncIterator[Sequence[Row]]) -> AsyncIterator[Sequence[Row]]:
        held: Sequence[Row] = ()
        async for rows in batches:
            if held:
                yield held
            held = rows
        yield spoil(held)

    async def fill_spoilt(self: Filling, table: Table, batches: AsyncIterator[Sequence[Row]]) -> None:
        await fill(self, table, spoilt(batches) if table.name == spoilt_table else batches)

    monkeypatch.setattr(Filling, "fill", fill_spoilt)
    for spoilt_table in [table.name for table in TABLES if table.name not in ("config", "tenants")]:
        with pytest.raises(MoveMismatch, match=spoilt_table) as caught:
            await move_now(source, empty)
        assert spoilt_table in [each.table for each in caught.value.tables if not each.same]
    await assert_nothing_visible(empty)


WRONG_PLACES = {
    "events": ["UPDATE hookline.events SET shard = (shard + 1) % 64 WHERE id = 'evt_0'"],
    "event_ids": ["DELETE FROM hookline.event_ids WHERE id = 'evt_0'",
                  "UPDATE hookline.event_ids SET position = position + 1 WHERE id = 'evt_0'",
                  "UPDATE hookline.event_ids SET day = day + 1 WHERE id = 'evt_0'",
                  "INSERT INTO hookline.event_ids VALUES (1, 20254, 1, 'x')",
                  "UPDATE hookline.shard_heads SET head = 0 WHERE shard = 1",
                  "DELETE FROM hookline.shard_days WHERE shard = 1"],
    "subscriptions": ["UPDATE hookline.subscriptions SET shard = 63 WHERE no = 2",
                      "UPDATE hookline.subscriptions SET slice = 1 WHERE no = 2"],
    "requeues": ["UPDATE hookline.requeues SET shard = 63", "UPDATE hookline.shard_changes SET version = 0"],
    "lanes": ["UPDATE hookline.shard_leases SET watermark = watermark + 1"],
    "shards": ["UPDATE hookline.shard_leases SET epoch = 1 WHERE shard = 9",
               "UPDATE hookline.shard_heads SET last_received = last_received + 1 WHERE shard = 1"],
    "usage": ["INSERT INTO hookline.usage (tenant_no, part, day, events) VALUES (1, 7, '2025-06-15', 1)"],
}  # fmt: skip


async def test_a_row_at_a_wrong_place_is_found(
    source: Path, empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete, statement = Filling.complete, ""

    async def complete_wrongly(self: Filling, ends: Sequence[End]) -> None:
        await complete(self, ends)
        assert not (await self._db.execute(statement)).endswith(" 0")

    monkeypatch.setattr(Filling, "complete", complete_wrongly)
    for table, statements in WRONG_PLACES.items():
        for statement in statements:
            with pytest.raises(MoveMismatch) as caught:
                await move_now(source, empty)
            assert table in [each.table for each in caught.value.tables if not each.same], statement
    await assert_nothing_visible(empty)


async def test_rows_that_were_not_read_are_missed(
    source: Path, empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = SqliteSource.read

    async def read_less(self: SqliteSource, table: Table) -> AsyncIterator[Sequence[Row]]:
        async for rows in read(self, table):
            yield rows[1:] if table.name == "deliveries" else rows

    monkeypatch.setattr(SqliteSource, "read", read_less)
    with pytest.raises(MoveMismatch, match="deliveries") as caught:
        await move_now(source, empty)
    assert [each.source for each in caught.value.tables if not each.same] == ["50 of 51 rows were read"]


ROWS = st.lists(
    st.tuples(st.none() | st.integers(-(2**63), 2**63 - 1) | st.text() | st.binary() | st.booleans())
)


@given(ROWS, st.randoms())
def test_a_digest_does_not_depend_on_the_order(rows: list[Row], random: Any) -> None:
    mixed = rows.copy()
    random.shuffle(mixed)
    assert digest_of(mixed).text == digest_of(rows).text


@given(ROWS, ROWS)
def test_a_digest_tells_rows_apart(rows: list[Row], others: list[Row]) -> None:
    def sorted_form(each: list[Row]) -> list[str]:
        return sorted(map(repr, each))

    same = digest_of(rows).text == digest_of(others).text
    assert same == (sorted_form(rows) == sorted_form(others))


def test_what_looks_alike_differs() -> None:
    alike: list[Row] = [("1",), (1,), (b"1",), (True,), (1.0,), (None,), ("",), (b"",), (0,), (False,)]
    assert len({digest_of([row]).text for row in alike}) == len(alike)
    assert digest_of(alike[:1] * 2).text != digest_of([]).text


def test_large_rows_are_read_one_by_one() -> None:
    pace = Pace(BY_NAME["events"])
    small: Row = (1, 1, "e", "t", b"x" * 100, *[None] * 8)
    paces = [pace.rows]
    for _ in range(9):
        pace.seen([small] * pace.rows)
        paces.append(pace.rows)
    assert all(later <= 4 * earlier for earlier, later in pairwise(paces))
    assert paces[-1] == BATCH_ROWS
    pace.seen([(1, 1, "e", "t", b"x" * LARGE * 2, *[None] * 8)])
    assert pace.rows == 1


# --- every table and column ----------------------------------------------------------------------------------

KINDS = {
    "INTEGER": {"int", "flag"}, "TEXT": {"text"}, "BLOB": {"bytes"}, "REAL": {"real"},
    "bigint": {"int"}, "integer": {"int"}, "smallint": {"int"}, "boolean": {"flag"}, "text": {"text"},
    "bytea": {"bytes"}, "double precision": {"real"},
}  # fmt: skip
SQLITE_OWN = {
    "shards": {"shard", "head", "last_received", "watermark", "epoch", "owner", "expires_at", "recorded"},
    "nodes": {"id", "role", "version", "started_at", "seen_at"},
    "config": {"only_row", "pings"},
    "subscriptions": {"shard"},
    "attempts": {"no"},
    "response_bodies": {"attempt_no"},
}
"""What a move derives, or leaves behind because it is about processes."""
SQLITE_LACKS = {
    "config": {"tenants", "subscriptions"},
    "response_bodies": {"tenant_no", "subscription_no", "position", "number", "started_at"},
}
POSTGRES_OWN = {
    "installation": {"only_row", "shards", "slices"},
    "shard_heads": {"shard", "head", "last_received"},
    "shard_changes": {"shard", "version"},
    "shard_leases": {"shard", "slice", "watermark", "epoch", "expires_at", "recorded", "owner"},
    "shard_days": {"shard", "day", "first_position"},
    "nodes": {"id", "role", "version", "started_at", "seen_at"},
    "event_ids": {"tenant_no", "day", "position", "id"},
    "config": {"only_row"},
    "subscriptions": {"shard", "slice"},
    "requeues": {"shard"},
    "events": {"shard", "day"},
    "deliveries": {"day"},
    "attempts": {"day"},
    "response_bodies": {"day"},
    "usage": {"part"},
}
Columns = dict[str, dict[str, str]]


def test_every_column_of_sqlite_is_moved_or_known_not_to_be(furnished: Path) -> None:
    db = sqlite3.connect(furnished)
    names = [row[0] for row in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    there: Columns = {
        name: {row[1]: row[2] for row in db.execute(f"PRAGMA table_info({name})")} for name in names
    }
    db.close()
    _assert_accounted_for(there, SQLITE_OWN, SQLITE_LACKS)


async def test_every_column_of_postgres_is_moved_or_known_not_to_be(empty: str) -> None:
    async with opened(await open_postgres(empty)):
        db = await asyncpg.connect(empty)
        rows = await db.fetch(
            "SELECT c.table_name, c.column_name, c.data_type FROM information_schema.columns AS c "
            "JOIN pg_class AS k ON k.relname = c.table_name AND k.relnamespace = 'hookline'::regnamespace "
            "WHERE c.table_schema = 'hookline' AND NOT k.relispartition AND k.relkind IN ('r', 'p')"
        )
        await db.close()
    there: Columns = {}
    for table, column, kind in rows:
        there.setdefault(table, {})[column] = kind
    _assert_accounted_for(there, POSTGRES_OWN, {})


def _assert_accounted_for(there: Columns, own: dict[str, set[str]], lacks: dict[str, set[str]]) -> None:
    there.pop("migrations")
    expected = {name: set(columns) for name, columns in own.items()}
    for table in TABLES:
        names = set(table.names) - lacks.get(table.name, set())
        expected[table.name] = names | own.get(table.name, set())
        for column in table.columns:
            if column.name in names:
                assert column.kind in KINDS[there[table.name][column.name]], (table.name, column.name)
    assert {name: set(columns) for name, columns in there.items()} == expected


# --- what is refused -----------------------------------------------------------------------------------------


async def test_a_file_that_is_not_there_is_not_made(tmp_path: Path, empty: str) -> None:
    path = tmp_path / "no" / "hookline.db"
    with pytest.raises(MoveRefused, match="no such file"):
        await move_now(path, empty)
    assert not path.parent.exists()


async def test_what_is_no_installation_is_refused(
    tmp_path: Path, databases: Callable[[], Awaitable[str]]
) -> None:
    url = await databases()
    (tmp_path / "text").write_text("no database " * 100)
    with pytest.raises(StorageUnavailable, match="not a database"):
        await move_now(tmp_path / "text", url)
    sqlite3.connect(tmp_path / "other.db").execute("CREATE TABLE x (y)")
    with pytest.raises(MoveRefused, match="no installation"):
        await move_now(tmp_path / "other.db", url)
    with pytest.raises(MoveRefused, match="no installation"):
        await move_now(url, await databases())


async def test_an_installation_that_was_never_used_is_refused(
    tmp_path: Path, databases: Callable[[], Awaitable[str]]
) -> None:
    old, new = await databases(), await databases()
    async with opened(SqliteStorage(tmp_path / "new.db")), opened(await open_postgres(old)):
        pass
    for place in (tmp_path / "new.db", old):
        with pytest.raises(MoveRefused, match="nothing to move"):
            await move_now(place, new)


async def test_another_version_is_refused(source: Path, databases: Callable[[], Awaitable[str]]) -> None:
    old, new = await databases(), await databases()
    await move_now(source, old)
    insert = "INSERT INTO {}migrations (number, name, checksum{more}) VALUES (9999, '9999_x', ''{value})"
    changes = {"DELETE FROM {}migrations": MoveRefused, insert: SchemaMismatch}
    for change, error in changes.items():
        db = sqlite3.connect(source)
        db.execute(change.format("", more=", applied_at", value=", ''"))
        db.commit()
        db.close()
        await ask(old, change.format("hookline.", more="", value="") + " RETURNING 1")
        for place in (source, old):
            with pytest.raises(error):
                await move_now(place, new)


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
async def test_a_source_in_use_is_refused(
    source: Path, databases: Callable[[], Awaitable[str]], engine: str
) -> None:
    old, new = await databases(), await databases()
    await move_now(source, old)
    place, storage = (source, SqliteStorage(source)) if engine == "sqlite" else (old, PostgresStorage(old))
    async with opened(storage):
        lease = await storage.lease(0, "worker-7", now(), 60)
        assert isinstance(lease, Lease)
        with pytest.raises(MoveRefused, match="stop"):
            await move_now(place, new)
        await storage.release(lease)
        await storage.beat(Node("node-9", "api", "1", 0), now() - 3000, 60)
        address = f"sqlite:///{place}" if engine == "sqlite" else old
        with pytest.raises(MoveRefused, match=r"node-9 \(api, seen 3 s ago\).*counts as alive for 15 s"):
            await move(Wish(address, new, seconds=15), VAULT, now)
        await storage.leave("node-9")
        await move(Wish(address, new, seconds=15), VAULT, now)


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
async def test_a_source_that_is_written_to_is_refused(
    source: Path, databases: Callable[[], Awaitable[str]], engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = await databases(), await databases()
    await move_now(source, old)
    monkeypatch.setattr("hookline.storage.move.sqlite.LOCK_SECONDS", 0.1)
    monkeypatch.setattr(postgres, "_SETTINGS", "SET LOCAL lock_timeout = '100ms'")
    if engine == "sqlite":
        lock = SqliteStorage(source)
        async with opened(lock):
            with lock._opened().write_lock, pytest.raises(MoveRefused, match="write to it"):
                await move_now(source, new)
        return
    db = await asyncpg.connect(old)
    async with db.transaction():
        await db.execute("UPDATE hookline.config SET version = version + 1")
        with pytest.raises(MoveRefused, match="written to"):
            await move_now(old, new)
    await db.close()


async def test_nobody_steps_in_meanwhile(
    source: Path, databases: Callable[[], Awaitable[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a move is under way, nobody delivers from its source, no server starts at its target, and no other move
    comes to either."""
    url, other = await databases(), await databases()
    begun, go_on = asyncio.Event(), asyncio.Event()
    complete = Filling.complete

    async def wait(self: Filling, ends: Sequence[End]) -> None:
        begun.set()
        await go_on.wait()
        await complete(self, ends)

    monkeypatch.setattr(Filling, "complete", wait)
    monkeypatch.setattr(postgres, "_SETTINGS", "SET LOCAL lock_timeout = '100ms'")
    task = asyncio.create_task(move_now(source, url))
    await begun.wait()
    with pytest.raises(SchemaMismatch):
        await PostgresStorage(url).open()
    with pytest.raises(MoveRefused, match="in use"):
        await move_now(source, other)
    with pytest.raises(MoveRefused, match="another move"):
        await move_now(copy_of(source, source.parent / "copy"), url)
    async with opened(SqliteStorage(source)) as storage:
        assert await storage.lease(0, "worker", now(), 10) is None
        go_on.set()
        assert (await task).before is None


async def test_a_target_that_is_not_empty_is_refused(source: Path, empty: str, tmp_path: Path) -> None:
    async with opened(await open_postgres(empty)) as storage:
        await storage.add_key(api_key("operator"))
    with pytest.raises(MoveRefused, match=r"not empty \(api_keys\)"):
        await move_now(source, empty)
    async with opened(await open_postgres(empty)) as storage:
        assert [key.id for key in await storage.list_keys(None)] == ["key_operator"]


async def test_a_target_that_somebody_serves_is_refused(source: Path, empty: str) -> None:
    async with opened(await open_postgres(empty)) as storage:
        await storage.beat(Node("node-1", "all", "1", 0), now(), 60)
        with pytest.raises(MoveRefused, match="node-1"):
            await move(Wish(f"sqlite:///{source}", empty, seconds=15), VAULT, now)
        await storage.leave("node-1")
    await move_now(source, empty)


async def test_a_target_that_was_only_prepared_is_taken(source: Path, empty: str) -> None:
    async with opened(PostgresStorage(empty, shards=5, slices=2)):
        pass
    await move_now(source, empty)
    async with opened(await open_postgres(empty)) as storage:
        assert (storage.shards, storage.slices) == (5, 2)


async def test_a_target_of_another_installation_is_refused(
    source: Path, tmp_path: Path, empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(SqliteStorage(tmp_path / "other.db")) as storage:
        await storage.add_key(api_key("other"))

    async def fail(self: Filling, *_: Any) -> None:
        raise Broken

    with monkeypatch.context() as patched:
        patched.setattr(Filling, "complete", fail)
        with pytest.raises(Broken):
            await move_now(source, empty)
    with pytest.raises(MoveRefused, match="was being filled with another installation"):
        await move_now(tmp_path / "other.db", empty)
    await move_now(source, empty)
    with pytest.raises(MoveRefused, match="holds another installation"):
        await move_now(tmp_path / "other.db", empty)


async def test_another_move_that_was_quicker_is_left_alone(
    source: Path, tmp_path: Path, empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(SqliteStorage(tmp_path / "other.db")) as storage:
        await storage.add_key(api_key("other"))
    migrate = target.migrate_database

    async def move_before(link: Link, **options: Any) -> None:
        monkeypatch.setattr(target, "migrate_database", migrate)
        await move_now(tmp_path / "other.db", empty)

    monkeypatch.setattr(target, "migrate_database", move_before)
    with pytest.raises(MoveRefused, match="holds another installation"):
        await move_now(source, empty)
    async with opened(await open_postgres(empty)) as storage:
        assert [key.id for key in await storage.list_keys(None)] == ["key_other"]


async def test_a_source_that_was_used_after_its_move_is_refused(source: Path, empty: str) -> None:
    await move_now(source, empty)
    async with opened(SqliteStorage(source)) as storage:
        await storage.append([new_event(1, "late")], NOW + 9 * DAY)
    with pytest.raises(MoveRefused, match="was used again since"):
        await move_now(source, empty)


@pytest.mark.parametrize("vault", [None, AesGcmVault([bytes([1] * 32)], bytes)])
async def test_another_master_key_is_refused(source: Path, empty: str, vault: AesGcmVault | None) -> None:
    with pytest.raises(MoveRefused, match="HOOKLINE_MASTER_KEY"):
        await move(Wish(f"sqlite:///{source}", empty, seconds=0), vault, now)
    assert await ask(empty, "SELECT to_regnamespace('hookline') IS NULL")


@pytest.mark.parametrize(
    ("from_", "to", "option"),
    [
        ("mysql://x/y", "postgresql://x/y", "--from"), ("hookline.db", "postgresql://x/y", "--from"),
        ("sqlite:///", "postgresql://x/y", "--from"), ("postgresql://", "postgresql://x/y", "--from"),
        ("sqlite:///x", "sqlite:///y", "--to"), ("sqlite:///x", "", "--to"),
    ],
)  # fmt: skip
async def test_addresses_that_cannot_be_are_refused(from_: str, to: str, option: str) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        await move(Wish(from_, to), VAULT, now)
    assert [fault.field for fault in caught.value.faults] == [option]


async def test_a_server_that_is_not_there_is_named(source: Path) -> None:
    with pytest.raises(StorageUnavailable):
        await move_now(source, "postgresql://127.0.0.1:1/nothing")


async def test_more_days_than_the_server_can_lock_are_refused(
    source: Path, empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target, "LOCKS_FOR_A_DAY", 10**6)
    with pytest.raises(MoveRefused, match="max_locks_per_transaction"):
        await move_now(source, empty)
    await assert_nothing_visible(empty)


async def test_a_day_takes_no_more_locks_than_are_counted(source: Path, empty: str) -> None:
    counts: list[int] = []
    begin = Filling.begin

    async def count(self: Filling, days: Sequence[int]) -> None:
        await begin(self, days)
        held = await self._db.fetchval("SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid()")
        counts.append(held - target.LOCKS_FOR_A_DAY * len(days))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Filling, "begin", count)
        await move_now(source, empty)
    assert counts[0] <= target.OTHER_LOCKS


@pytest.mark.parametrize(
    ("dsn", "name"),
    [
        ("postgresql://me:secret@db/x", "postgresql://me@db/x"),
        ("postgresql://db/x?user=me&password=secret&port=1", "postgresql://db/x?user=me&password=…&port=1"),
        ("postgres://me@/x?host=/run", "postgres://me@/x?host=/run"),
    ],
)
def test_no_password_is_shown(dsn: str, name: str) -> None:
    assert (shown(dsn), PostgresSource(dsn).name) == (name, name)


def test_the_places_are_as_the_storage_looks_for_them() -> None:
    columns, extra = Places(Cut(4, 3), {9: 6}).extras(BY_NAME["requeues"])
    assert (columns, extra((9, 1))) == (("shard",), (2,))
