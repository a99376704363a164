"""A running installation moves from SQLite to PostgreSQL with the command, and goes on there as if nothing had been."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hookline.core.ids import DeliveryUuids, parse_delivery_id
from tests.integration.receivers import OK, Exchange, Received, Receiver, receiver
from tests.support.moving import furnish
from tests.support.postgres import drop_database, make_database, url_of
from tests.support.server import ROOT, Api, ServerProcess, child_environment, running
from tests.support.waiting import eventually, until

EVENTS = 45
BUSY = b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy"
LATER = {"kind": "list", "delays": [3600.0] * 5, "jitter": 0.0}
NEVER_AGAIN = {"kind": "none"}
LARGE = 200_000


@pytest.fixture
async def database() -> AsyncIterator[str]:
    name = await make_database()
    yield url_of(name)
    await drop_database(name)


async def hookline(*arguments: str, **settings: str) -> tuple[int, str, str]:
    """The command as a process: exit code, output, complaints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hookline", *arguments, cwd=ROOT, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=child_environment(**settings),
    )  # fmt: skip
    async with asyncio.timeout(120):
        output, complaints = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(), complaints.decode()


@dataclass
class Shop:
    """An installation with two tenants, and the endpoints that its events go to."""

    endpoints: Receiver
    server: ServerProcess
    tenants: dict[str, Api] = field(default_factory=dict[str, Api])
    ids: dict[str, str] = field(default_factory=dict[str, str])
    published: dict[str, list[str]] = field(default_factory=dict[str, list[str]])

    def sent(self, name: str) -> list[Received]:
        """What an endpoint got."""
        return [request for request in self.endpoints.requests if request.target == f"/{name}"]

    def sequences(self, name: str) -> list[int]:
        return sorted({int(request.headers["hookline-sequence"]) for request in self.sent(name)})

    def use(self, server: ServerProcess) -> None:
        """Ask this server from now on."""
        self.server = server
        for api in self.tenants.values():
            api.server = server

    async def new_tenant(self, name: str, profile: str) -> None:
        operator = Api(self.server)
        made = await operator.post("/v1/tenants", {"id": name, "name": f"{name} Ümläut", "profile": profile})
        self.tenants[name] = Api(self.server, made["api_key"])
        self.published[name] = []

    async def subscribe(self, tenant: str, name: str, **fields: object) -> None:
        url = self.endpoints.url(f"/{name}")
        self.ids[name] = await self.tenants[tenant].subscribe(url, name=name, **fields)

    async def publish(self, tenant: str, count: int = EVENTS) -> None:
        known = self.published[tenant]
        for number in range(len(known), len(known) + count):
            await self.tenants[tenant].post("/v1/events", make_event(tenant, number))
            known.append(f"{tenant}-{number}")

    async def settled(self, tenant: str, *names: str) -> None:
        for name in names:
            await eventually(
                lambda name=name: self.tenants[tenant].get(f"/v1/subscriptions/{self.ids[name]}/health"),
                lambda health: health["lag"] == 0,
                f"{name} is up to date",
            )

    async def deliveries(self, tenant: str, name: str, query: str = "") -> list[Any]:
        """Newest first."""
        return await self.tenants[tenant].listing(f"/v1/subscriptions/{self.ids[name]}/deliveries{query}")

    async def answers(self) -> dict[str, Any]:
        """Everything that the API tells, but what is about processes."""
        operator = Api(self.server)
        told: dict[str, Any] = {"tenants": await operator.listing("/v1/tenants")}
        for name, api in self.tenants.items():
            events = await api.listing("/v1/events?include=payload")
            told[name] = {
                "whoami": await api.get("/v1/whoami"),
                "keys": await api.get("/v1/keys"),
                "types": await api.listing("/v1/event-types"),
                "usage": await api.get("/v1/usage"),
                "events": events,
                "stories": [await api.get(f"/v1/events/{event['id']}/deliveries") for event in events],
                "related": [await api.get(f"/v1/events/{event['id']}/related") for event in events[:9]],
                "orders": await api.listing(
                    "/v1/events?object_type=order&object_id=№1".replace("№", "%E2%84%96")
                ),
                "subscriptions": await api.listing("/v1/subscriptions"),
            }
        for tenant, names in (("shop", SHOP), ("avvyr", ("uuid",))):
            for name in names:
                told[name] = await self._of_subscription(tenant, name)
        return told

    async def _of_subscription(self, tenant: str, name: str) -> dict[str, Any]:
        api, place = self.tenants[tenant], f"/v1/subscriptions/{self.ids[name]}"
        deliveries = await api.listing(f"{place}/deliveries?include=payload,attempts")
        return {
            "one": await api.get(place),
            "secret": await api.get(f"{place}/secret"),
            "health": await api.get(f"{place}/health"),
            "deliveries": deliveries,
            "alone": [await api.get(f"/v1/deliveries/{each['id']}") for each in deliveries[:5]],
            "replays": await api.listing(f"{place}/replays"),
        }


SHOP = ("plain", "waits", "paused", "replayed", "keyed")


def make_event(tenant: str, number: int) -> dict[str, Any]:
    """The same one each time."""
    data = {"number": number, "text": "Grüße 世界 🛒", "filler": "x" * (LARGE if number == 3 else 20)}
    event: dict[str, Any] = {
        "id": f"{tenant}-{number}",
        "type": ("orderCreated", "stockAdjusted")[number % 2],
        "data": data,
    }
    if number % 3:
        event |= {"object": {"type": "order", "id": f"№{number % 5}"}, "key": f"k{number % 4}"}
    return event | (
        {"correlation_id": f"c{number % 6}", "source": {"application": "till"}} if number % 2 else {}
    )


async def _use_for_months(shop: Shop) -> None:
    """Everything that can be in an installation."""
    await shop.new_tenant("shop", "standard")
    await shop.new_tenant("avvyr", "avvyr")
    await shop.subscribe("shop", "plain")
    await shop.subscribe("shop", "waits", retry=LATER, breaker={"failures": 0})
    await shop.subscribe("shop", "paused", events=["orderCreated"])
    await shop.subscribe("shop", "replayed", retry=NEVER_AGAIN, breaker={"failures": 0})
    await shop.subscribe("shop", "keyed", order="key", retry=LATER, breaker={"failures": 0})
    await shop.subscribe("shop", "deleted")
    await shop.subscribe("avvyr", "uuid", retry=LATER, breaker={"failures": 0})
    api = shop.tenants["shop"]
    await api.post(
        "/v1/event-types", {"name": "orderCreated", "description": "Ü", "schema": {"type": "object"}}
    )
    for tenant in ("shop", "avvyr", "shop"):
        await shop.publish(tenant)
    await shop.settled("shop", *SHOP, "deleted")
    await shop.settled("avvyr", "uuid")
    await api.post(f"/v1/subscriptions/{shop.ids['paused']}/pause", {"reason": "moving"})
    await api.patch(f"/v1/subscriptions/{shop.ids['plain']}", {"events": ["*"], "metadata": {"a": "b"}})
    assert (await api.call("DELETE", f"/v1/subscriptions/{shop.ids['deleted']}")).status == 204
    key = await api.post("/v1/keys", {"name": "old", "scopes": ["read"]})
    assert (await api.call("DELETE", f"/v1/keys/{key['id']}")).status < 300
    await shop.publish("shop")
    await shop.settled("shop", "plain", "waits", "replayed", "keyed")
    oldest = (await shop.deliveries("shop", "plain"))[-1]
    await api.post(f"/v1/deliveries/{oldest['id']}/resend")
    wish = {"from": "1h", "states": ["failed"], "rate": 0.5}
    await api.call("POST", f"/v1/subscriptions/{shop.ids['replayed']}/replay", wish)
    await until(lambda: len(shop.sent("plain")) > 3 * EVENTS, "the oldest came again")


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_a_running_installation_moves(tmp_path: Path, database: str) -> None:
    down = True

    async def behave(exchange: Exchange) -> None:
        refused = down and exchange.request.target in ("/waits", "/replayed", "/keyed", "/uuid")
        number = int(exchange.request.headers.get("hookline-sequence", "0"))
        await exchange.send(BUSY if refused and number % 4 == 0 else OK)

    async with receiver(behave) as endpoints:
        server = ServerProcess(tmp_path / "data")
        shop = Shop(endpoints, server)
        async with running(server):
            await _use_for_months(shop)
            code, _, complaints = await hookline(*_command(server, database), **_keys(server))
            assert (code, "is in use: stop the servers" in complaints) == (1, True)
            assert await server.terminate() == 0
        before = await _answers(shop, ServerProcess(tmp_path / "data", "api"))
        await _move(server, database)
        after = await _answers(shop, ServerProcess(tmp_path / "data", "api", database_url=database))
        for name in before:
            assert after[name] == before[name], name
        down = False
        await _go_on(shop, ServerProcess(tmp_path / "data", database_url=database), before)


def _command(server: ServerProcess, database: str) -> tuple[str, ...]:
    return "migrate", "--from", f"sqlite:///{server.data_dir / 'hookline.db'}", "--to", database


def _keys(server: ServerProcess) -> dict[str, str]:
    return {"HOOKLINE_DATA_DIR": str(server.data_dir)}


async def _answers(shop: Shop, server: ServerProcess) -> dict[str, Any]:
    async with running(server):
        shop.use(server)
        answers = await shop.answers()
        assert await server.terminate() == 0
    assert server.complaints() == []
    return answers


async def _move(server: ServerProcess, database: str) -> None:
    arguments, settings = _command(server, database), _keys(server)
    wrong = base64.b64encode(bytes(32)).decode()
    code, _, complaints = await hookline(*arguments, **settings, HOOKLINE_MASTER_KEY=wrong)
    assert (code, "HOOKLINE_MASTER_KEY" in complaints) == (1, True)
    code, output, complaints = await hookline(*arguments, **settings)
    assert code == 0, complaints
    heading, *rows = [line.split("\t") for line in output.splitlines()]
    assert heading == ["TABLE", "ROWS", "SOURCE", "TARGET", "SAME"]
    assert all(source == target and same == "yes" for _, _, source, target, same in rows)
    assert int({row[0]: row[1] for row in rows}["events"]) >= 4 * EVENTS
    assert "all digests are the same" in complaints
    code, output, complaints = await hookline(*arguments, **settings)
    assert (code, output, "nothing was done" in complaints) == (0, "", True)


async def _go_on(shop: Shop, server: ServerProcess, before: dict[str, Any]) -> None:
    """What waits becomes due, and new events come."""
    waiting = {
        name: [each for each in before[name]["deliveries"] if each["state"] == "retrying"]
        for name in ("waits", "uuid", "keyed")
    }
    assert all(waiting.values())
    await _let_time_pass(server.settings["database_url"])
    seen = {name: len(shop.sent(name)) for name in shop.ids}
    async with running(server):
        shop.use(server)
        for name, deliveries in waiting.items():
            tenant = "avvyr" if name == "uuid" else "shop"
            await _retried(shop, tenant, name, deliveries, seen[name])
        await _new_events(shop)
        await _old_events(shop, before)
        assert await server.terminate() == 0
    assert server.complaints() == []


async def _let_time_pass(database: str) -> None:
    """Retries are due now that were to come in an hour."""
    import asyncpg

    db = await asyncpg.connect(database)
    await db.execute("UPDATE hookline.unsettled SET due_at = due_at - 3600000 WHERE attempts > 0")
    await db.close()


async def _retried(shop: Shop, tenant: str, name: str, deliveries: list[Any], seen: int) -> None:
    """Each is sent once more with the same ids and sequence, and succeeds."""
    api = shop.tenants[tenant]
    for each in deliveries:
        again = await eventually(
            lambda each=each: api.get(f"/v1/deliveries/{each['id']}"),
            lambda found: found["state"] == "succeeded",
            f"{each['id']} of {name} succeeds",
        )
        assert (again["event"], again["sequence"]) == (each["event"], each["sequence"])
        assert again["attempts"] == each["attempts"] + 1
    requests = {int(request.headers["hookline-sequence"]): request for request in shop.sent(name)[seen:]}
    uuids = DeliveryUuids(shop.ids[name])
    for each in deliveries:
        headers = requests[each["sequence"]].headers
        assert headers["hookline-attempt"] == "2"
        if name == "uuid":
            assert headers["x-webhook-delivery"] == uuids.of(parse_delivery_id(each["id"])[1])
        else:
            assert headers["webhook-id"] == each["event"]


async def _new_events(shop: Shop) -> None:
    """Sequences go on without a gap, a pause ends where it began."""
    for tenant in ("shop", "avvyr"):
        await shop.publish(tenant)
    await shop.tenants["shop"].post(f"/v1/subscriptions/{shop.ids['paused']}/resume")
    counts = dict.fromkeys(("plain", "waits", "replayed", "keyed"), 4 * EVENTS)
    counts |= {"paused": sum(number % 2 == 0 for number in range(4 * EVENTS)), "uuid": 2 * EVENTS}
    for name, count in counts.items():
        expected = list(range(1, count + 1))
        await until(
            lambda name=name, expected=expected: shop.sequences(name) == expected, f"{name} has {count}"
        )
    assert len(shop.sent("deleted")) == 2 * EVENTS


async def _old_events(shop: Shop, before: dict[str, Any]) -> None:
    """They are known, and can be sent again as they were."""
    api = shop.tenants["shop"]
    for number in (0, 1, EVENTS, 3 * EVENTS - 1):
        answer = await api.post("/v1/events", make_event("shop", number))
        assert answer == {"id": f"shop-{number}", "duplicate": True}
    other = await api.call("POST", "/v1/events", make_event("shop", 0) | {"data": {}})
    assert (other.status, other.code) == (409, "event_id_conflict")
    oldest = before["plain"]["deliveries"][-1]
    seen = len(shop.sent("plain"))
    await api.post(f"/v1/deliveries/{oldest['id']}/resend")
    await until(lambda: len(shop.sent("plain")) > seen, "it came again")
    request = shop.sent("plain")[-1]
    assert int(request.headers["hookline-sequence"]) == oldest["sequence"]
    assert request.headers["webhook-id"] == oldest["event"]
    first = next(one for one in shop.sent("plain") if one.headers["webhook-id"] == oldest["event"])
    assert json.loads(request.body) == json.loads(first.body)


# --- the command -------------------------------------------------------------------------------------------


async def test_json_is_a_line_for_each_table(tmp_path: Path, database: str) -> None:
    await furnish(tmp_path / "hookline.db")
    key = base64.b64encode(bytes(32)).decode()
    (tmp_path / "to").write_text(database + "\n")
    code, output, complaints = await hookline(
        "migrate", "--from", f"sqlite:///{tmp_path / 'hookline.db'}", "--to", f"@{tmp_path / 'to'}", "--json",
        "--database-shards", "7", HOOKLINE_MASTER_KEY=key,
    )  # fmt: skip
    assert code == 0, complaints
    lines = [json.loads(line) for line in output.splitlines()]
    assert all(line["same"] and len(line["source"]) == 64 for line in lines)
    assert [line["rows"] for line in lines if line["table"] == "shards"] == [7]
    assert "held the character NUL" in complaints


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["--from", "sqlite:///x.db"], 2, "together"),
        (["--to", "postgresql://x/y"], 2, "together"),
        (["--from", "sqlite:///no/x.db", "--to", "postgresql://x/y"], 1, "no such file"),
        (["--from", "oracle://x", "--to", "postgresql://x/y"], 2, "--from: accepted"),
        (["--from", "sqlite:///x.db", "--to", "sqlite:///y.db"], 2, "--to: accepted"),
    ],
)
async def test_what_makes_no_sense_is_told(
    tmp_path: Path, arguments: list[str], code: int, reason: str
) -> None:
    ended, output, complaints = await hookline(
        "migrate", *arguments, HOOKLINE_DATA_DIR=str(tmp_path / "data")
    )
    assert (ended, output) == (code, "")
    assert reason in complaints
    assert not (tmp_path / "data").exists()
