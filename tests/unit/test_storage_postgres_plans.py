"""No statement may walk a whole table that grows: the server tells the plan of each one that it runs, those inside our
functions too."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from itertools import product
from typing import Any, cast

import asyncpg
import pytest
from msgspec import Struct
from msgspec.structs import replace

from hookline.core.model import Definition, DeliveryState, Order
from hookline.ports import DeliveryQuery, EventQuery, Node, Storage
from hookline.storage.postgres import PostgresStorage
from hookline.storage.postgres.connection import Link, Session
from tests.contract.make import DAY, NOW, World, attempt, lane, new_event, replay, settled, unsettled
from tests.support.postgres import drop_database, make_database, url_of

GROWING = (
    "events",
    "event_ids",
    "event_blocks",
    "deliveries",
    "unsettled",
    "attempts",
    "response_bodies",
    "usage",
)
STATES = (
    (),
    (DeliveryState.SUCCEEDED,),
    (DeliveryState.FAILED, DeliveryState.EXPIRED),
    (DeliveryState.PENDING,),
)
RARE = ("GROUP BY s.shard, s.slice", "mod(b.tenant_no")
"""Parts of the statements that may walk: the doctor's counting of all that waits, and the forgetting of old blocks."""

EXPLAIN = (
    "LOAD 'auto_explain'",
    "SET auto_explain.log_min_duration = 0",
    "SET auto_explain.log_nested_statements = on",
    "SET auto_explain.log_format = 'json'",
    "SET client_min_messages = 'log'",
)


class Plan(Struct, frozen=True):
    """A statement, and the steps of its plan."""

    query: str
    steps: tuple[tuple[str, str], ...]
    """Kind of each step with the table that it reads, if it reads one, without the day of a partition."""

    def walked(self) -> list[str]:
        return [table for kind, table in self.steps if kind == "Seq Scan" and table in GROWING]

    def sorts(self) -> bool:
        """Whether rows of growing tables are sorted to get a few of them."""
        kinds = {kind for kind, _ in self.steps}
        tables = {table for _, table in self.steps}
        return "Sort" in kinds and " LIMIT " in self.query and not tables.isdisjoint(GROWING)


def _steps(node: dict[str, Any]) -> Iterator[tuple[str, str]]:
    table = str(node.get("Relation Name", ""))
    day = table.rpartition("_")
    yield str(node["Node Type"]), day[0] if day[2].isdecimal() else table
    for child in node.get("Plans", ()):
        yield from _steps(child)


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> dict[str, Plan]:
    """Every plan that was run, by its statement."""
    found: dict[str, Plan] = {}

    def told(_db: object, message: asyncpg.PostgresLogMessage) -> None:
        text = str(message.message)
        if "plan:" in text:
            plan = json.loads(text.partition("plan:")[2])
            query = plan["Query Text"]
            found.setdefault(query, Plan(query, tuple(_steps(plan["Plan"]))))

    connect = Link.connect

    async def explained(link: Link) -> Session:
        db = await connect(link)
        cast("asyncpg.Connection[asyncpg.Record]", db).add_log_listener(told)
        for setting in EXPLAIN:
            await db.execute(setting)
        return db

    monkeypatch.setattr(Link, "connect", explained)
    return found


@pytest.fixture
async def storage(plans: dict[str, Plan]) -> AsyncIterator[PostgresStorage]:
    name = await make_database()
    storage = PostgresStorage(url_of(name), shards=1)
    await storage.open()
    yield storage
    await storage.close()
    await drop_database(name)


async def _run_everything(storage: PostgresStorage) -> None:
    world = World(storage)
    tenant = await world.tenant()
    by_key = Definition(url="https://example.test", order=Order.KEY)
    sub = (await world.subscription(tenant, definition=by_key)).no
    for day in range(3):
        fields = {"object_type": "o", "object_id": "1", "correlation_id": "c", "key": "k"}
        await world.publish(tenant, 5, NOW + day * DAY, **fields)
    await storage.append([new_event(tenant.no, "twice"), new_event(tenant.no, "twice")], NOW)
    await storage.append([new_event(tenant.no, "twice")], NOW)
    await world.record(
        watermark=1,
        attempts=[attempt(sub, 1, response_body=b"b")],
        settled=[settled(sub, 1), settled(sub, 3, DeliveryState.FAILED, settled_at=NOW + DAY)],
        unsettled=[unsettled(sub, 2, key="k")],
        lanes=[lane(sub, 3)],
        disabled=[(sub, "410")],
        operational=[new_event(tenant.no, "op")],
    )
    await storage.load_shard(0, world.epoch)
    await _read_log(storage, tenant.no)
    await _lists(storage, tenant.no, sub)
    await _again(storage, sub)
    await storage.beat(Node("a", "all", "1", NOW), NOW, 10)
    await storage.progress(NOW)
    await storage.remove_events(tenant.no, NOW + 9, 2, 10)
    await storage.remove_bodies(tenant.no, NOW + 9, 10)
    await storage.remove_attempts(tenant.no, NOW + 9, 10)
    await storage.oldest_needed(tenant.no)
    await storage.drop_partitions(NOW + 9 * DAY, NOW + 9 * DAY, NOW + 9 * DAY)


async def _read_log(storage: Storage, tenant_no: int) -> None:
    for after, changes, tenant in product((0, 2), (0, 1, 10**9), (None, tenant_no)):
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


async def test_no_statement_walks_a_growing_table(storage: PostgresStorage, plans: dict[str, Plan]) -> None:
    await _run_everything(storage)
    assert len(plans) > 90
    assert any("INSERT INTO hookline.attempts" in query for query in plans), "functions show their statements"
    looked_at = [plan for plan in plans.values() if not any(part in plan.query for part in RARE)]
    assert {plan.query: plan.walked() for plan in looked_at if plan.walked()} == {}
    assert [plan.query for plan in looked_at if plan.sorts()] == []


async def test_a_walk_would_be_found(storage: PostgresStorage, plans: dict[str, Plan]) -> None:
    await World(storage).publish(await World(storage).tenant(), 2)
    walk = "SELECT * FROM hookline.events WHERE type = 'x'"
    sort = "SELECT * FROM hookline.deliveries WHERE subscription_no = 1 ORDER BY sequence LIMIT 5"

    async def look(db: Any) -> None:
        await db.fetch(walk)
        await db.fetch(sort)

    await storage._read(look)
    assert "events" in plans[walk].walked()
    assert plans[sort].sorts()
