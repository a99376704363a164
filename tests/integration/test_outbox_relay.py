"""The relay on real databases: order, batches, dead letters, outages, and several relays on one outbox."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest

from hookline.core.errors import HooklineError
from hookline.core.model import EventType, SchemaMode, Tenant
from hookline.engine.publish import Published, PublishLimits
from hookline.outbox import Event, Outbox, publish
from hookline.sources.outbox import LogTarget, OutboxDown, OutboxOptions, inspect_outbox, open_outbox
from hookline.sources.outbox.postgres import PostgresOutbox
from hookline.sources.outbox.results import Later, Result, Row
from tests.contract.make import NOW
from tests.support.outbox import (
    Installation,
    dead_letters,
    emptied,
    installation,
    make_outbox,
    outbox_url,
    relaying,
)
from tests.support.postgres import PostgresServer
from tests.support.programs import (
    Database,
    asyncpg_connection,
    done,
    postgres_database,
    psycopg_connection,
    sqlite3_connection,
    sqlite_database,
)
from tests.support.waiting import eventually, never, until


@pytest.fixture
async def hookline(tmp_path: Path) -> AsyncGenerator[Installation]:
    async with installation(tmp_path) as made:
        yield made


@pytest.fixture
async def postgres() -> AsyncGenerator[Database]:
    async with postgres_database() as database:
        await make_outbox(database)
        yield database


@pytest.fixture(params=["sqlite", "postgresql"])
async def shop(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Database]:
    made = sqlite_database(tmp_path) if request.param == "sqlite" else postgres_database()
    async with made as database:
        await make_outbox(database)
        yield database


def event(event_id: str, **fields: Any) -> Event:
    return Event(
        fields.pop("type", "order:created"), fields.pop("data", {"id": event_id}), id=event_id, **fields
    )


async def place(database: Database, *events: Event, outbox: Outbox | None = None) -> None:
    """Publish in one transaction."""
    begin = sqlite3_connection if database.dialect == "sqlite" else asyncpg_connection
    async with begin(database) as tx:
        await done((outbox or Outbox()).publish_batch(tx.connection, events))


async def place_raw(database: Database, event_id: str, body: str, tenant: str = "") -> None:
    """A row that no library has checked."""
    values = ", ".join("'" + text.replace("'", "''") + "'" for text in (event_id, tenant, body))
    await database.run(f"INSERT INTO hookline_outbox (id, tenant, body) VALUES ({values})")


# --- the way of an event


async def test_events_reach_the_log_and_leave_the_outbox(shop: Database, hookline: Installation) -> None:
    data = b'{ "total" : 10.50, "text": "Gr\xc3\xb6\xc3\x9fe \\u0000" }'
    async with relaying(shop, hookline.target()) as relay:
        await place(
            shop,
            event(
                "e-1",
                data=data,
                occurred_at="2026-03-01T09:30:00.250Z",
                object={"type": "order", "id": "4471"},
                source={"application": "checkout", "user_id": "u-1"},
                key="4471",
                correlation_id="c-1",
            ),
            event("e-2"),
        )
        await emptied(shop)
        first, second = await hookline.stored()
        assert (first.id, first.type, first.data) == ("e-1", "order:created", data)
        assert first.occurred_at == 1772357400250
        assert (first.object_type, first.object_id, first.key) == ("order", "4471", "4471")
        assert (first.source_application, first.source_user, first.correlation_id) == (
            "checkout",
            "u-1",
            "c-1",
        )
        assert second.id == "e-2"
        await until(lambda: relay.metrics.outbox_relayed.value == 2, "they are counted")
    assert await dead_letters(shop) == []


async def test_batches_are_bounded_by_rows_and_bytes(shop: Database, hookline: Installation) -> None:
    sizes = [100] * 20 + [60_000] * 5 + [300_000] + [100] * 20
    events = [event(f"e-{number}", data="x" * size) for number, size in enumerate(sizes)]
    await place(shop, *events)
    target = Watched(hookline.target())
    async with relaying(shop, target, batch=10, batch_bytes=100_000):
        await emptied(shop)
    assert await hookline.ids() == [one.id for one in events]
    assert max(len(batch) for batch in target.batches) == 10
    assert max(sum(map(len, batch[:-1])) for batch in target.batches) < 100_000


class Watched:
    """A target that remembers what it was given, and can be told to fail."""

    def __init__(self, target: LogTarget) -> None:
        self._target = target
        self.batches: list[list[bytes]] = []
        self.ids: list[str] = []
        self.down = False

    async def publish(self, rows: Sequence[Row]) -> list[Result]:
        if self.down:
            return [Later("away")] * len(rows)
        self.batches.append([row.body for row in rows])
        self.ids += [row.id for row in rows]
        return await self._target.publish(rows)

    async def close(self) -> None:
        await self._target.close()


async def test_many_events_share_few_commits(shop: Database, hookline: Installation) -> None:
    await place(shop, *(event(f"e-{number}") for number in range(2000)))
    async with relaying(shop, hookline.target()):
        await emptied(shop)
    assert await hookline.ids() == [f"e-{number}" for number in range(2000)]
    assert len(hookline.log.commits) <= 8


async def test_rows_of_another_table_and_tenant(shop: Database, hookline: Installation) -> None:
    await hookline.new_tenant("other")
    outbox = Outbox(table="Ausgang", tenant="other")
    await make_outbox(shop, outbox)
    async with relaying(shop, hookline.target(), table="Ausgang"):
        await place(shop, event("e-1"), event("e-2", tenant="shop"), outbox=outbox)
        await emptied(shop, '"Ausgang"')
    other, own = sorted(await hookline.stored(), key=lambda stored: stored.id)
    assert other.tenant_no != own.tenant_no


async def test_an_empty_outbox_is_looked_at_less_often(shop: Database, hookline: Installation) -> None:
    async with relaying(shop, hookline.target(), poll=0.4) as relay:
        await until(lambda: relay.relay._idle >= 0.4, "it has become patient")
        await place(shop, event("e-1"))
        await emptied(shop)
        assert await hookline.ids() == ["e-1"]


# --- order


async def test_events_come_in_the_order_of_their_commits(postgres: Database, hookline: Installation) -> None:
    """The first to write is the last to commit; its events are the last, and together."""
    async with psycopg_connection(postgres) as slow:
        publish(slow.connection, event("slow-1"))
        async with psycopg_connection(postgres) as quick:
            publish(quick.connection, event("quick-1"))
            async with psycopg_connection(postgres) as quicker:
                publish(quicker.connection, event("quicker"))
            publish(quick.connection, event("quick-2"))
        publish(slow.connection, event("slow-2"))
    async with relaying(postgres, hookline.target()):
        await emptied(postgres)
    assert await hookline.ids() == ["quicker", "quick-1", "quick-2", "slow-1", "slow-2"]


async def test_a_transaction_that_is_open_holds_nobody_up(postgres: Database, hookline: Installation) -> None:
    async with relaying(postgres, hookline.target()):
        async with psycopg_connection(postgres) as slow:
            publish(slow.connection, event("slow"))
            await place(postgres, event("quick"))
            await eventually(hookline.ids, lambda ids: ids == ["quick"], "the quick one has come")
        await eventually(hookline.ids, lambda ids: ids == ["quick", "slow"], "the slow one has come")


async def test_an_early_transaction_does_not_overtake_what_it_waited_for(
    postgres: Database, hookline: Installation
) -> None:
    """Where rows are taken by the age of their transactions, this goes wrong: the old one changes the order after
    the young one, while another one in between is still open."""
    await postgres.run("INSERT INTO orders VALUES ('1')")
    paid = "UPDATE orders SET no = no WHERE no = '1'"
    async with relaying(postgres, hookline.target()):
        with psycopg.connect(postgres.address) as old, psycopg.connect(postgres.address) as between:
            old.execute("SELECT pg_current_xact_id()")
            between.execute("SELECT pg_current_xact_id()")
            with psycopg.connect(postgres.address) as young:
                publish(young, event("shipped", key="1"))
                young.execute(paid)
            publish(old, event("returned", key="1"))
            old.execute(paid)
            old.commit()
            await emptied(postgres)
            between.rollback()
    assert await hookline.ids() == ["shipped", "returned"]


@pytest.mark.parametrize("published", ["before the row is locked", "after the row is locked"])
async def test_the_order_of_each_key_holds_under_load(
    postgres: Database, hookline: Installation, published: str
) -> None:
    """Transactions change the same orders at the same time: a version number in the row tells the true order."""
    await postgres.run(
        "CREATE TABLE versions (no int PRIMARY KEY, version int)",
        "INSERT INTO versions SELECT no, 0 FROM generate_series(0, 2) AS no",
    )

    async def change(worker: int) -> None:
        for turn in range(40):
            no = (worker + turn) % 3
            async with asyncpg_connection(postgres) as tx:
                made = event(f"w{worker}-{turn}", key=str(no))
                if published.startswith("before"):
                    await publish(tx.connection, made)
                version = await tx.connection.fetchval(
                    "UPDATE versions SET version = version + 1 WHERE no = $1 RETURNING version", no
                )
                versions[made.id] = (no, version)
                if published.startswith("after"):
                    await publish(tx.connection, made)
                await asyncio.sleep(0.001 * (worker % 3))

    versions: dict[str, tuple[int, int]] = {}
    async with relaying(postgres, hookline.target(), poll=0.02):
        async with asyncio.TaskGroup() as tasks:
            for worker in range(5):
                tasks.create_task(change(worker))
        await emptied(postgres)
    order = [versions[event_id] for event_id in await hookline.ids()]
    for no in range(3):
        of_key = [version for key, version in order if key == no]
        assert of_key == list(range(1, len(of_key) + 1))
    assert len(order) == 200


async def test_serializable_transactions_and_the_relay_do_not_get_in_each_others_way(
    postgres: Database, hookline: Installation
) -> None:
    await postgres.run(
        "DO $$ BEGIN EXECUTE 'ALTER DATABASE ' || current_database() || "
        "' SET default_transaction_isolation = serializable'; END $$"
    )

    async def publish_some(worker: int) -> None:
        for turn in range(40):
            await place(postgres, event(f"w{worker}-{turn}"), event(f"w{worker}-{turn}-too"))

    async with relaying(postgres, hookline.target(), poll=0.01):
        async with asyncio.TaskGroup() as tasks:
            for worker in range(4):
                tasks.create_task(publish_some(worker))
        await emptied(postgres)
    assert len(await hookline.ids()) == 4 * 40 * 2


async def test_a_missing_trigger_is_told(postgres: Database, hookline: Installation) -> None:
    options = OutboxOptions(url=outbox_url(postgres))
    assert (await inspect_outbox(options)).ordered
    await postgres.run("DROP TRIGGER hookline_outbox_stamp ON hookline_outbox")
    assert not (await inspect_outbox(options)).ordered
    await place(postgres, event("e-1"))
    async with relaying(postgres, hookline.target()):
        await emptied(postgres)
    assert await hookline.ids() == ["e-1"]


# --- what the log refuses


async def test_dead_letters_do_not_stop_the_others(shop: Database, hookline: Installation) -> None:
    tenant = await hookline.new_tenant("strict", SchemaMode.STRICT)
    schema = b'{"type":"object","required":["total"],"properties":{"total":{"type":"number"}}}'
    await hookline.storage.put_event_type(EventType(tenant.no, "order:paid", "", 1, NOW, NOW, schema=schema))
    async with relaying(shop, hookline.target()) as relay:
        await place(shop, event("e-1"), event("taken", data=1))
        await emptied(shop)
        await place(
            shop,
            event("e-2"),
            event("taken", data=2),
            event("bad", type="order:paid", data={"total": "12"}, tenant="strict"),
            event("good", type="order:paid", data={"total": 12}, tenant="strict"),
            event("lost", tenant="nobody"),
            event("e-3"),
        )
        await emptied(shop)
        await until(lambda: relay.metrics.outbox_dead_letters.value == 3, "they are counted")
        report = await inspect_outbox(OutboxOptions(url=outbox_url(shop)))
        assert (report.rows, report.dead, report.oldest_seconds) == (0, 3, 0)
    assert sorted(await hookline.ids()) == ["e-1", "e-2", "e-3", "good", "taken"]
    letters = {event_id: (code, reason) for event_id, code, reason in await dead_letters(shop)}
    assert letters.keys() == {"taken", "bad", "lost"}
    assert letters["taken"][0] == "event_id_conflict"
    assert letters["bad"][0] == "schema_violation"
    assert "total" in letters["bad"][1]
    assert letters["lost"] == ("not_found", "there is no tenant 'nobody'")
    (body,) = [body for (body,) in await shop.all("SELECT body FROM hookline_outbox_dead WHERE id = 'bad'")]
    assert json.loads(body)["data"] == {"total": "12"}


HOSTILE = {
    "no-json": "hello",
    "empty": "",
    "empty-object": "{}",
    "array": "[1]",
    "two": '{"type":"order:created","data":1},{"type":"order:created","data":2}',
    "two-in-a-row": '{"type":"order:created","data":1}{"type":"order:created","data":2}',
    "deep": '{"type":"order:created","data":' + "[" * 5000 + "]" * 5000 + "}",
    "own": '{"type":"hookline.delivery.failed","data":1}',
    "unknown-field": '{"type":"order:created","data":1,"extra":2}',
    "nan": '{"type":"order:created","data":NaN}',
    "id with a.stop": '{"type":"order:created","data":1}',
    'id"},{"type':  '{"type":"order:created","data":1}',
    "x" * 200: '{"type":"order:created","data":1}',
    "": '{"type":"order:created","data":1}',
    "large": '{"type":"order:created","data":"' + "x" * (1 << 20) + '"}',
}  # fmt: skip


async def test_hostile_rows_end_as_dead_letters(shop: Database, hookline: Installation) -> None:
    async with relaying(shop, hookline.target()):
        for event_id, body in HOSTILE.items():
            await place_raw(shop, event_id, body)
        for tenant in ("..", "a b", "sh\r\nop", "x" * 100, "Ünï"):
            await place_raw(shop, f"tenant-{len(tenant)}", '{"type":"a","data":1}', tenant)
        await place(shop, event("last"))
        await emptied(shop)
    assert await hookline.ids() == ["last"]
    letters = await dead_letters(shop)
    assert len(letters) == len(HOSTILE) + 5
    assert all(code and reason for _, code, reason in letters)


async def test_what_no_server_takes_is_not_even_read(shop: Database, hookline: Installation) -> None:
    body = "hex(zeroblob(33 << 20))" if shop.dialect == "sqlite" else "repeat('x', 66 << 20)"
    await shop.run(f"INSERT INTO hookline_outbox (id, body) VALUES ('huge', {body})")
    await place(shop, event("e-1"))
    target = Watched(hookline.target())
    async with relaying(shop, target):
        await emptied(shop)
    assert target.ids == await hookline.ids() == ["e-1"]
    assert [letter[:2] for letter in await dead_letters(shop)] == [("huge", "too_large")]
    assert await shop.all("SELECT length(body) FROM hookline_outbox_dead") == [(66 << 20,)]


async def test_the_rows_id_counts_not_the_bodys(shop: Database, hookline: Installation) -> None:
    async with relaying(shop, hookline.target()):
        await place_raw(shop, "right", '{"id":"wrong","type":"order:created","data":1}')
        await place_raw(shop, "also-right", '{"id":null,"type":"order:created","data":1} \n')
        await emptied(shop)
    assert await hookline.ids() == ["right", "also-right"]


async def test_a_row_of_sqlite_need_not_be_text(tmp_path: Path, hookline: Installation) -> None:
    async with sqlite_database(tmp_path) as shop:
        await make_outbox(shop)
        for values in (
            "x'ff', '', x'ff00'",
            "1, 2, 3",
            "'ok', '', CAST('{\"type\":\"a\",\"data\":1}' AS BLOB)",
        ):
            await shop.run(f"INSERT INTO hookline_outbox (id, tenant, body) VALUES ({values})")
        async with relaying(shop, hookline.target()):
            await emptied(shop)
        assert await hookline.ids() == ["ok"]
        assert len(await dead_letters(shop)) == 2


async def test_dead_letters_can_be_sent_again(shop: Database, hookline: Installation) -> None:
    """With the statements of docs/how-to/transactional-outbox.md."""
    async with relaying(shop, hookline.target()):
        await place(shop, event("e-1", tenant="later"))
        await emptied(shop)
        assert [letter[0] for letter in await dead_letters(shop)] == ["e-1"]
        await hookline.new_tenant("later")
        await shop.run(
            "INSERT INTO hookline_outbox (id, tenant, body) "
            "SELECT id, tenant, body FROM hookline_outbox_dead WHERE code = 'not_found' ORDER BY no",
            "DELETE FROM hookline_outbox_dead WHERE code = 'not_found'",
        )
        await emptied(shop)
    assert await hookline.ids() == ["e-1"]


class Crashing:
    """A publisher with a fault of its own: it breaks on one event."""

    def __init__(self, hookline: Installation, poison: bytes) -> None:
        self._publisher = hookline.publisher
        self._poison = poison

    async def publish_batch(self, tenant: Tenant, items: Sequence[bytes]) -> list[Published | HooklineError]:
        if any(self._poison in item for item in items):
            raise ZeroDivisionError
        return await self._publisher.publish_batch(tenant, items)


async def test_an_event_that_crashes_the_publisher_is_put_aside(
    shop: Database, hookline: Installation
) -> None:
    await place(shop, event("e-1"), event("e-2", data="poison"), event("e-3"))
    target = LogTarget(Crashing(hookline, b"poison"), hookline.find_tenant, "shop")
    async with relaying(shop, target):
        await emptied(shop)
    assert await hookline.ids() == ["e-1", "e-3"]
    assert [(letter[0], letter[1]) for letter in await dead_letters(shop)] == [("e-2", "internal_error")]


async def test_events_without_a_tenant_wait_for_one(shop: Database, hookline: Installation) -> None:
    """A relay that was set up badly holds them back, and lets the others through."""
    async with relaying(shop, hookline.target(tenant="")):
        await place(shop, event("e-1"), event("e-2", tenant="shop"))
        await eventually(hookline.ids, lambda ids: ids == ["e-2"], "the other one has come")
    assert [event_id for event_id, _, _ in await shop.events()] == ["e-1"]
    async with relaying(shop, hookline.target()):
        await emptied(shop)
    assert await dead_letters(shop) == []


# --- outages


async def test_the_log_is_away_for_a_while(shop: Database, hookline: Installation) -> None:
    hookline.log.down = True
    async with relaying(shop, hookline.target()) as relay:
        await place(shop, *(event(f"e-{number}") for number in range(700)))
        await until(lambda: relay.relay._pause_log > 0.2, "it has tried twice")
        assert len(await shop.events()) == 700
        hookline.log.down = False
        await emptied(shop)
    assert await hookline.ids() == [f"e-{number}" for number in range(700)]
    assert await dead_letters(shop) == []


async def test_the_log_has_no_room(shop: Database, tmp_path: Path) -> None:
    async with installation(tmp_path / ".", PublishLimits(waiting=30)) as hookline:
        await place(shop, *(event(f"e-{number}") for number in range(100)))
        async with relaying(shop, hookline.target()):
            await emptied(shop)
        assert await hookline.ids() == [f"e-{number}" for number in range(100)]


async def test_the_outbox_is_away_for_a_while(hookline: Installation) -> None:
    server = PostgresServer(durable=False)
    try:
        shop = Database("postgresql", server.url())
        await make_outbox(shop)
        async with relaying(shop, hookline.target()) as relay:
            await place(shop, event("e-1"))
            await emptied(shop)
            server.stop()
            check = relay.relay.check
            await eventually(check, lambda state: not state.startswith("relays"), "it has noticed")
            server.start()
            await place(shop, event("e-2"))
            await emptied(shop)
            assert (await check()).startswith("relays")
        assert await hookline.ids() == ["e-1", "e-2"]
    finally:
        server.remove()


async def test_an_outbox_that_is_not_there_yet(tmp_path: Path, hookline: Installation) -> None:
    for made in (sqlite_database(tmp_path), postgres_database()):
        async with made as shop, relaying(shop, hookline.target()) as relay:
            await eventually(
                relay.relay.check, lambda state: "hookline.outbox sql" in state, "it says what to do"
            )
            await make_outbox(shop)
            await place(shop, event(shop.dialect))
            await emptied(shop)
    assert await hookline.ids() == ["sqlite", "postgresql"]


async def test_a_connection_that_is_cut_again_and_again(postgres: Database, hookline: Installation) -> None:
    cut = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'hookline-relay' AND datname = current_database()"
    )
    async with relaying(postgres, hookline.target(), batch=20) as relay:
        for number in range(10):
            await place(postgres, *(event(f"e-{number}-{place}") for place in range(50)))
            await until(lambda: relay.metrics.outbox_leading.value == 1, "it works")
            await postgres.run(cut)
        await emptied(postgres)
    expected = [f"e-{number}-{place}" for number in range(10) for place in range(50)]
    assert await hookline.ids() == expected


# --- nothing is held


async def test_nothing_is_locked_while_events_are_published(
    postgres: Database, hookline: Installation
) -> None:
    """Another one may do what it likes with the rows, and no transaction keeps the server from cleaning up."""
    locks = (
        "SELECT count(*) FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid) WHERE a.application_name = "
        "'hookline-relay' AND a.datname = current_database() AND l.locktype <> 'advisory'"
    )
    idle = (
        "SELECT state, backend_xmin IS NULL FROM pg_stat_activity "
        "WHERE application_name = 'hookline-relay' AND datname = current_database()"
    )
    seen: list[Any] = []

    class Looking(Watched):
        async def publish(self, rows: Sequence[Row]) -> list[Result]:
            seen.append((await postgres.all(locks), await postgres.all(idle)))
            await postgres.run("UPDATE hookline_outbox SET tenant = tenant")
            return await super().publish(rows)

    await place(postgres, event("e-1"))
    async with relaying(postgres, Looking(hookline.target())):
        await emptied(postgres)
    assert seen == [([(0,)], [("idle", True)])]


async def test_a_shop_on_sqlite_can_write_while_events_are_published(
    tmp_path: Path, hookline: Installation
) -> None:
    class Writing(Watched):
        async def publish(self, rows: Sequence[Row]) -> list[Result]:
            await shop.run("INSERT INTO orders VALUES ('now')")
            return await super().publish(rows)

    async with sqlite_database(tmp_path) as shop:
        await make_outbox(shop)
        await place(shop, event("e-1"))
        async with relaying(shop, Writing(hookline.target())):
            await emptied(shop)
        assert await shop.orders() == ["now"]


# --- several


async def test_one_works_and_the_others_stand_by(shop: Database, hookline: Installation) -> None:
    first, second = Watched(hookline.target()), Watched(hookline.target())
    async with relaying(shop, second) as later:
        await until(lambda: later.metrics.outbox_leading.value == 1, "it works")
        async with relaying(shop, first) as sooner:
            await eventually(sooner.relay.check, lambda state: state.startswith("stands by"), "it stands by")
            await place(shop, event("e-1"))
            await emptied(shop)
            assert (first.ids, second.ids) == ([], ["e-1"])
            await later.relay.stop(20)
            await until(lambda: sooner.metrics.outbox_leading.value == 1, "it has taken over")
            await place(shop, event("e-2"))
            await emptied(shop)
            assert first.ids == ["e-2"]
    assert await hookline.ids() == ["e-1", "e-2"]


async def test_two_at_work_at_the_same_time_only_repeat_each_other(
    postgres: Database, hookline: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind a pooler, where the lock of a session means nothing."""

    async def lead(self: object) -> bool:
        return True

    monkeypatch.setattr(PostgresOutbox, "lead", lead)
    async with (
        relaying(postgres, hookline.target(), batch=7),
        relaying(postgres, hookline.target(), batch=11),
        relaying(postgres, hookline.target(), batch=13),
    ):
        for number in range(20):
            await place(postgres, *(event(f"e-{number:02}-{place:02}") for place in range(20)))
        await emptied(postgres)
    ids = await hookline.ids()
    assert ids == sorted(ids)
    assert len(ids) == 400
    assert await dead_letters(postgres) == []


async def test_the_relays_role_needs_few_rights(postgres: Database, hookline: Installation) -> None:
    """As docs/how-to/transactional-outbox.md has it."""
    role = f"relay_{abs(hash(postgres.address)) % 10**9}"
    await postgres.run(
        f"CREATE ROLE {role} LOGIN",
        f"GRANT SELECT, DELETE ON hookline_outbox TO {role}",
        f"GRANT SELECT, INSERT ON hookline_outbox_dead TO {role}",
    )
    url = outbox_url(postgres).replace("//postgres@", f"//{role}@")
    async with relaying(postgres, hookline.target(), url=url):
        await place(postgres, event("e-1"), event("lost", tenant="nobody"))
        await emptied(postgres)
    assert await hookline.ids() == ["e-1"]
    assert [letter[0] for letter in await dead_letters(postgres)] == ["lost"]
    await postgres.run(f"DROP OWNED BY {role}", f"DROP ROLE {role}")


async def test_numbers_that_were_set_back(postgres: Database) -> None:
    """A restored or truncated table starts from 1 again: a floor may be in the way for a while, but not for ever."""
    outbox = PostgresOutbox(OutboxOptions(url=outbox_url(postgres)))
    await outbox.open()
    try:
        for number in range(5):
            await place(postgres, event(f"e-{number}"))
            await outbox.remove(await outbox.read(100, 1 << 20, []))
        assert await outbox.read(100, 1 << 20, []) == []
        assert outbox._floor._value > 0
        await postgres.run("TRUNCATE hookline_outbox RESTART IDENTITY")
        await place(postgres, event("after"))
        assert await outbox.read(100, 1 << 20, []) == []
        outbox._floor._swept_at -= 3600
        assert [row.id for row in await outbox.read(100, 1 << 20, [])] == ["after"]
    finally:
        await outbox.close()


async def test_the_floor_waits_for_transactions_that_may_still_show_smaller_numbers(
    postgres: Database,
) -> None:
    outbox = PostgresOutbox(OutboxOptions(url=outbox_url(postgres)))
    await outbox.open()
    try:
        async with psycopg_connection(postgres) as slow:
            publish(slow.connection, event("slow"))
            slow.connection.execute(
                "SET CONSTRAINTS ALL IMMEDIATE"
            )  # it has its number now, as if it were committing
            await place(postgres, event("quick"))
            rows = await outbox.read(100, 1 << 20, [])
            assert [row.id for row in rows] == ["quick"]
            await outbox.remove(rows)
            for _ in range(3):
                assert await outbox.read(100, 1 << 20, []) == []
            assert outbox._floor._value == 0
        rows = await outbox.read(100, 1 << 20, [])
        assert [row.id for row in rows] == ["slow"]
        await outbox.remove(rows)
        await outbox.read(100, 1 << 20, [])
        assert outbox._floor._value > 0
    finally:
        await outbox.close()


async def test_a_report_tells_the_lag(shop: Database) -> None:
    outbox = open_outbox(OutboxOptions(url=outbox_url(shop)))
    await outbox.open()
    try:
        await place(shop, event("e-1"), event("e-2"))
        past = "datetime('now', '-1 hour')" if shop.dialect == "sqlite" else "now() - interval '1 hour'"
        await shop.run(f"UPDATE hookline_outbox SET created_at = {past} WHERE id = 'e-1'")
        report = await outbox.report()
        assert (report.rows, report.dead, report.ordered) == (2, 0, True)
        assert 3600 <= report.oldest_seconds < 3700
    finally:
        await outbox.close()


async def test_an_address_that_leads_nowhere_says_so(tmp_path: Path) -> None:
    for url in (
        f"sqlite:///{tmp_path}/nothing.sqlite",
        "postgresql://postgres@127.0.0.1:9/shop",
        "postgresql://postgres@127.0.0.1:port/shop",
    ):
        with pytest.raises(OutboxDown) as caught:
            await inspect_outbox(OutboxOptions(url=url))
        assert str(caught.value)
    assert not (tmp_path / "nothing.sqlite").exists()


async def test_stopping_finishes_the_batch_under_way(shop: Database, hookline: Installation) -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()

    class Slow(Watched):
        async def publish(self, rows: Sequence[Row]) -> list[Result]:
            entered.set()
            await go_on.wait()
            return await super().publish(rows)

    await place(shop, event("e-1"))
    async with relaying(shop, Slow(hookline.target())) as relay:
        await entered.wait()
        stopping = asyncio.create_task(relay.relay.stop(20))
        await never(stopping.done, "it waits for the batch", 0.1)
        go_on.set()
        await stopping
        assert relay.task.done()
    assert await shop.events() == []
    assert await hookline.ids() == ["e-1"]


async def test_stopping_does_not_wait_for_ever(shop: Database, hookline: Installation) -> None:
    class Hanging(Watched):
        async def publish(self, rows: Sequence[Row]) -> list[Result]:
            await asyncio.Event().wait()
            raise AssertionError

    await place(shop, event("e-1"))
    async with relaying(shop, Hanging(hookline.target())) as relay:
        await until(lambda: relay.metrics.outbox_leading.value == 1, "it works")
        await relay.relay.stop(0.05)
        assert not relay.task.done()
        relay.task.cancel()
        await asyncio.wait([relay.task])
    assert len(await shop.events()) == 1
