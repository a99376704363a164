"""A client of ShipStream, which knows nothing of Hookline, against the real server over HTTP."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from hookline.profiles.catalogue import shipped
from tests.support.server import ROOT, Api, ServerProcess, child_environment, running
from tests.support.waiting import PATIENCE, eventually

PROGRAM = Path(__file__).with_name("shipstream_client.py")
SECRET = "2RUJ8NXLnLRrAj3"
TENANT = "shop"
STOCK = {"sku123": {"qty_adjust": -5, "qty_available": 95}}
CHANGED = {"old_status": None, "new_status": "new", "old_state": None, "new_state": "new"}
SEED: list[tuple[str, dict[str, Any]]] = [
    ("order:created", {"unique_id": "100000015", "stock_adjustments": STOCK}),
    ("order:holded", {"unique_id": "100000017"}),
    ("order:status_changed", {"unique_id": "100000022", **CHANGED}),
    ("product:updated", {"sku": "product1"}),
    ("import:created", {"unique_id": 4}),
    ("inventory:adjusted", {"stock_adjustments": STOCK}),
]
"""Messages of the page "Event", without the counter."""


class Client:
    """The client program, and a command to it at a time."""

    def __init__(self, process: Process, port: int, php: bool) -> None:
        self.process = process
        self.php = php
        self.base = f"http://127.0.0.1:{port}"

    async def do(self, *command: object) -> Any:
        """What the command comes to."""
        answer = await self._exchange(command)
        assert "error" not in answer, answer
        return answer["result"]

    async def refusal(self, *command: object) -> int:
        """The code that a call is refused with."""
        return (await self._exchange(command))["error"]["code"]

    async def call(self, style: str, method: str, *arguments: object) -> Any:
        return await self.do("call", style, f"webhook.{method}", list(arguments))

    async def _exchange(self, command: tuple[object, ...]) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(command).encode() + b"\n")
        async with asyncio.timeout(2 * PATIENCE):
            line = await self.process.stdout.readline()
        assert line, "the client has ended"
        return json.loads(line)


@asynccontextmanager
async def client_of(server: ServerProcess, key: str, session: str) -> AsyncGenerator[Client]:
    account = {
        "SHIPSTREAM_URL": f"http://127.0.0.1:{server.port}/shipstream/api/jsonrpc",
        "SHIPSTREAM_USER": TENANT,
        "SHIPSTREAM_KEY": key,
        "SHIPSTREAM_SECRET": SECRET,
        "SHIPSTREAM_SESSION": session,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", str(PROGRAM),
        cwd=ROOT, env=child_environment(**account), stdin=PIPE, stdout=PIPE, limit=4 << 20,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE):
            hello = json.loads(await process.stdout.readline())
        yield Client(process, hello["port"], hello["php"])
        process.stdin.close()
        async with asyncio.timeout(PATIENCE):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@asynccontextmanager
async def shop(tmp_path: Path, session: str = "") -> AsyncGenerator[tuple[Api, Client]]:
    """A server, the native API of a tenant (for the side that publishes), and the merchant's client."""
    server = ServerProcess(tmp_path / "data", allow_http="true")
    async with running(server):
        made = await Api(server).post("/v1/tenants", {"id": TENANT, "name": "Shop", "profile": "shipstream"})
        async with client_of(server, made["api_key"], session) as client:
            yield Api(server, made["api_key"]), client
        assert server.complaints() == []


def new_webhook(client: Client, hook: str, **fields: object) -> dict[str, object]:
    return {
        "url": f"{client.base}{hook}",
        "extra_headers": "",
        "secret_key": SECRET,
        "is_active": 1,
        **fields,
    }


async def publish(api: Api, events: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """Publish and return the ids of the events."""
    return [(await api.publish({"type": topic, "data": message}))["id"] for topic, message in events]


def numbers(requests: list[Any]) -> list[int]:
    """The counters, in order."""
    return sorted(request["body"]["message"]["webhook_increment_id"] for request in requests)


def messages(requests: list[Any]) -> dict[str, Any]:
    """By topic, without the counter."""
    found = {request["body"]["topic"]: dict(request["body"]["message"]) for request in requests}
    for message in found.values():
        del message["webhook_increment_id"]
    return found


async def test_subscribe_receive_verify_and_unsubscribe(tmp_path: Path):
    """Both ways of speaking: the vendor's client (session, array, true) and the pages' examples (Basic, commas, 1)."""
    async with shop(tmp_path) as (api, client):
        assert client.php is (shutil.which("php") is not None)
        orders = new_webhook(
            client, "/orders", topics=["order:created", "order:holded", "order:status_changed"]
        )
        vendors = orders | {"is_active": True, "extra_headers": "X-Plugin: ShipStream_Test"}
        assert await client.call("session", "create", vendors) is True
        pages = new_webhook(
            client, "/all", topics="order:*, product:updated,import:created,inventory:adjusted"
        )
        assert await client.call("basic", "create", pages) is True
        first, second = await client.call("basic", "list")
        assert await client.call("session", "list") == [first, second]
        assert first == {
            "webhook_id": first["webhook_id"],
            "increment_id": 0,
            "is_active": 1,
            "topics": "order:created,order:holded,order:status_changed",
            "url": f"{client.base}/orders",
            "extra_headers": "X-Plugin: ShipStream_Test",
            "secret_key": SECRET,
        }

        await publish(api, SEED)
        at_orders = await client.do("await", "/orders", 3)
        at_all = await client.do("await", "/all", 6)
        assert numbers(at_orders) == [1, 2, 3]
        assert numbers(at_all) == [1, 2, 3, 4, 5, 6]
        assert messages(at_all) == dict(SEED)
        assert messages(at_orders) == dict(SEED[:3])
        assert {request["headers"]["x-plugin"] for request in at_orders} == {"ShipStream_Test"}
        assert {request["headers"]["content-type"] for request in at_all} == {"application/json"}

        assert await client.call("session", "delete", first["webhook_id"]) is True
        assert await client.call("basic", "delete", str(second["webhook_id"])) is True
        assert await client.call("basic", "list") == []
        assert await client.refusal("call", "basic", "webhook.delete", [first["webhook_id"]]) == 103


async def test_a_broken_receiver_is_retried_and_gets_what_it_missed(tmp_path: Path):
    async with shop(tmp_path) as (api, client):
        await client.call("session", "create", new_webhook(client, "/hook", topics=["*"]))
        await publish(api, SEED[:1])
        await client.do("await", "/hook", 1)
        await client.do("break")
        await publish(api, SEED[1:3])
        await client.do("refused", "/hook", 2)

        (subscription,) = await api.listing("/v1/subscriptions")
        path = f"/v1/subscriptions/{subscription['id']}/deliveries"

        async def waiting() -> list[Any]:
            return await api.listing(f"{path}?state=retrying")

        retrying = await eventually(waiting, lambda found: len(found) == 2, "both wait for a retry")
        assert [delivery["sequence"] for delivery in retrying] == [3, 2]
        for delivery in retrying:
            assert (delivery["status"], delivery["attempts"]) == (503, 1)
            assert 50 < (time_of(delivery["due_at"]) - time_of(delivery["received_at"])).total_seconds() < 90

        await client.do("mend")
        await publish(api, SEED[3:4])
        gap = numbers(await client.do("await", "/hook", 2))
        assert gap == [1, 4], "the receiver sees that two are missing"
        for delivery in retrying:
            await api.post(f"/v1/deliveries/{delivery['id']}/resend")
        whole = await client.do("await", "/hook", 4)
        assert numbers(whole) == [1, 2, 3, 4]
        assert messages(whole) == dict(SEED[:4])
        listed = await eventually(
            lambda: api.listing(path),
            lambda found: all(one["state"] == "succeeded" for one in found),
            "all succeed",
        )
        assert [delivery["sequence"] for delivery in listed] == [4, 3, 2, 1]


def time_of(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.parametrize("off", [["order:created", 0], [{"status": "0"}]], ids=["topic", "all"])
async def test_a_webhook_that_is_off_gets_nothing_until_it_is_on(tmp_path: Path, off: list[object]):
    async with shop(tmp_path) as (api, client):
        await client.call("session", "create", new_webhook(client, "/hook", topics="order:created"))
        await publish(api, SEED[:1])
        await client.do("await", "/hook", 1)
        assert await client.call("basic", "update_status", *off) is True
        await client.call("session", "create", new_webhook(client, "/other", topics="order:created"))
        (webhook, _) = await client.call("session", "list")
        assert webhook["is_active"] == 0
        await publish(api, SEED[:1])
        await client.do("await", "/other", 1)
        assert len(await client.do("await", "/hook", 0)) == 1
        assert await client.refusal("call", "basic", "webhook.update_status", ["order:canceled", 1]) == 100
        assert await client.call("session", "update_status", "order:created", 1) is True
        assert numbers(await client.do("await", "/hook", 2)) == [1, 2]


async def test_the_list_tells_the_number_of_the_newest_message(tmp_path: Path):
    async with shop(tmp_path) as (api, client):
        await client.call("session", "create", new_webhook(client, "/hook", topics="order:created"))
        await publish(api, SEED[:1] * 3)

        async def listed() -> Any:
            return (await client.call("basic", "list"))[0]["increment_id"]

        assert await eventually(listed, lambda number: number == 3, "three messages are counted") == 3


async def test_a_test_event_comes_at_once_and_counts_for_nothing(tmp_path: Path):
    async with shop(tmp_path) as (api, client):
        await client.call("session", "create", new_webhook(client, "/hook", topics="order:created"))
        (webhook,) = await client.call("basic", "list")
        assert (await client.call("basic", "test", webhook["webhook_id"]))["accepted"] is True
        await publish(api, SEED[:1])
        ping, order = await client.do("await", "/hook", 2)
        assert ping["body"]["topic"] == "test:ping"
        assert (numbers([ping]), numbers([order])) == ([0], [1])


async def test_every_topic_of_the_catalogue_arrives_with_its_example(tmp_path: Path):
    async with shop(tmp_path) as (api, client):
        await client.call("session", "create", new_webhook(client, "/hook", topics="*"))
        types = shipped("shipstream")
        events = [(name, json.loads(each.example or b"{}")) for name, each in types.items()]
        await publish(api, events)
        requests = await client.do("await", "/hook", len(events))
        assert messages(requests) == dict(events)
        assert numbers(requests) == list(range(1, len(events) + 1))


async def test_a_session_from_an_earlier_day_is_replaced_by_a_new_one(tmp_path: Path):
    async with shop(tmp_path, session="be1c13ed4e03f0ed7f1e4053dfff9658") as (_, client):
        assert await client.call("session", "list") == []


async def test_the_client_refuses_what_is_signed_with_another_key(tmp_path: Path):
    """The proof can fail: what the client takes elsewhere, it has verified."""
    async with shop(tmp_path) as (api, client):
        wrong = new_webhook(client, "/hook", topics="*", secret_key=SECRET + "x")
        await client.call("session", "create", wrong)
        await publish(api, SEED[:1])
        await client.do("refused", "/hook", 1)
        assert await client.do("await", "/hook", 0) == []


async def test_errors_have_the_codes_of_the_pages(tmp_path: Path):
    async with shop(tmp_path) as (_, client):
        assert await client.refusal("call", "session", "webhook.create", [{}]) == 101
        assert await client.refusal("call", "session", "webhook.create", []) == 6
        assert await client.refusal("call", "session", "webhook.delete", [1]) == 103
        assert await client.refusal("call", "session", "webhook.update_status", ["order:created", 1]) == 100
        assert await client.refusal("call", "session", "order.search", []) == 3
        assert await client.refusal("call", "basic", "webhook.info", [1]) == 4
