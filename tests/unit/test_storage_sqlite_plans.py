"""No statement may walk a whole table that grows: the plan of each one that the store runs is looked at."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from itertools import product
from pathlib import Path
from sqlite3 import Connection

import pytest
from msgspec.structs import replace

from hookline.core.model import Definition, DeliveryState, Order
from hookline.ports import DeliveryQuery, EventQuery, Storage
from hookline.storage.sqlite import SqliteStorage, connection
from tests.contract.make import NOW, World, attempt, lane, new_event, replay, settled, unsettled

GROWING = ("events", "event_blocks", "deliveries", "unsettled", "attempts", "response_bodies", "usage")
STATES = (
    (),
    (DeliveryState.SUCCEEDED,),
    (DeliveryState.FAILED, DeliveryState.EXPIRED),
    (DeliveryState.PENDING,),
)


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Every statement that was run, by its text without its values."""
    found: dict[str, str] = {}

    def trace(statement: str) -> None:
        found.setdefault(re.sub(r"x?'[^']*'|\b\d+\b", "?", statement), statement)

    def traced(connect: Callable[[Path], Connection]) -> Callable[[Path], Connection]:
        def connected(path: Path) -> Connection:
            db = connect(path)
            db.set_trace_callback(trace)
            return db

        return connected

    for name in ("connect_reader", "connect_writer"):
        monkeypatch.setattr(f"hookline.storage.sqlite.storage.{name}", traced(getattr(connection, name)))
    return found


@pytest.fixture
async def storage(tmp_path: Path, statements: dict[str, str]) -> AsyncIterator[SqliteStorage]:
    storage = SqliteStorage(tmp_path / "hookline.db")
    await storage.open()
    yield storage
    await storage.close()


async def _run_everything(storage: Storage) -> None:
    world = World(storage)
    tenant = await world.tenant()
    by_key = Definition(url="https://example.test", order=Order.KEY)
    sub = (await world.subscription(tenant, definition=by_key)).no
    await world.publish(tenant, 5, object_type="o", object_id="1", correlation_id="c", key="k")
    await storage.append([new_event(tenant.no, "twice"), new_event(tenant.no, "twice")], NOW)
    await world.record(
        watermark=1,
        attempts=[attempt(sub, 1, response_body=b"b")],
        settled=[settled(sub, 1), settled(sub, 3, DeliveryState.FAILED)],
        unsettled=[unsettled(sub, 2, key="k")],
        lanes=[lane(sub, 3)],
        disabled=[(sub, "410")],
        operational=[new_event(tenant.no, "op")],
    )
    await storage.load_shard(0, world.epoch)
    await _read_log(storage, tenant.no)
    await _lists(storage, tenant.no, sub)
    await _again(storage, sub)
    await storage.remove_events(tenant.no, NOW + 9, 2, 10)
    await storage.remove_bodies(tenant.no, NOW + 9, 10)
    await storage.remove_attempts(tenant.no, NOW + 9, 10)
    await storage.oldest_needed(tenant.no)


async def _read_log(storage: Storage, tenant_no: int) -> None:
    for after, changes, tenant in product((0, 2), (0, 1), (None, tenant_no)):
        await storage.read_log(0, after, 3, changes, tenant)
    await storage.read_events(0, [1, 2])
    await storage.position_at(0, NOW + 2)


async def _lists(storage: Storage, tenant_no: int, sub: int) -> None:
    times = EventQuery(tenant_no, since=NOW - 9, until=NOW + 99)
    filters = {"type": "order:created", "object_type": "o", "object_id": "1", "correlation_id": "c"}
    for chosen in product((False, True), repeat=len(filters)):
        kept = {name: value for (name, value), keep in zip(filters.items(), chosen, strict=True) if keep}
        assert await storage.list_events(replace(times, **kept))
    for states in STATES:
        await storage.list_deliveries(DeliveryQuery(sub, 9, states=states, since=NOW, until=NOW + 9))
        await storage.count_settled(sub, 0, 9, states)
    await storage.find_event(tenant_no, "twice")
    await storage.get_delivery(sub, 2)
    await storage.event_deliveries(tenant_no, 1)
    await storage.list_attempts(sub, 1)
    await storage.get_attempt(sub, 1, 1)
    await storage.lane_state(sub)
    await storage.usage(tenant_no, "2025-01-01", "2026-01-01")
    await storage.due(sub, NOW, 5)
    await storage.waiting(sub)
    await storage.list_replays(sub, 5)


async def _again(storage: Storage, sub: int) -> None:
    await storage.resend(sub, [1, 2], NOW)
    for number, states in enumerate(STATES):
        await storage.create_replay(replay(sub, f"rpl_{number}", states=states))
        await storage.step_replay(f"rpl_{number}", 1, NOW, 0, NOW)
    await storage.drop_unsettled(sub, NOW, DeliveryState.EXPIRED)


def _plan(db: Connection, statement: str) -> list[str]:
    return [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}")]


def _walks(step: str, statement: str) -> bool:
    """Whether a step of a plan reads a whole growing table, or one of its indexes, under any alias."""
    if re.fullmatch(r"SELECT 1 FROM \w+ LIMIT 1", statement):  # whether there is any row: ends at the first
        return False
    name = step.split()[1]
    aliased = re.search(rf"\b(\w+) AS {name}\b", statement)
    return step.startswith("SCAN") and (aliased[1] if aliased else name) in GROWING


async def test_no_statement_walks_a_growing_table(
    storage: SqliteStorage, statements: dict[str, str], tmp_path: Path
) -> None:
    await _run_everything(storage)
    db = connection.connect_reader(tmp_path / "hookline.db")
    plans = {
        statement: _plan(db, statement)
        for statement in statements.values()
        if statement.lstrip().startswith(("SELECT", "INSERT", "UPDATE", "DELETE"))
    }
    db.close()
    assert len(plans) > 60
    walked = {
        statement: plan for statement, plan in plans.items() if any(_walks(step, statement) for step in plan)
    }
    assert walked == {}
    sorting = [statement for statement, plan in plans.items() if any("TEMP B-TREE" in step for step in plan)]
    assert not [each for each in sorting if re.search("(FROM|JOIN) (events|deliveries|attempts)", each)]


def test_a_walk_would_be_found(tmp_path: Path) -> None:
    connection.prepare(tmp_path / "x.db")
    db = connection.connect_reader(tmp_path / "x.db")
    for statement in (
        "SELECT * FROM events AS e WHERE type = 'x'",
        "SELECT count(*) FROM deliveries",
        "SELECT position FROM unsettled ORDER BY due_at",
    ):
        assert any(_walks(step, statement) for step in _plan(db, statement))
    db.close()
