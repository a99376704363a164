"""A client that was written from EvolutionX's pages, against the real server."""

from __future__ import annotations

import ast
import asyncio
import hashlib
import hmac
import json
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.http import Connection
from tests.support.server import Api, ServerProcess, running
from tests.support.waiting import PATIENCE, eventually

CLIENT = Path(__file__).with_name("evolutionx_client.py")
RECORD = '{ "id":1000,\t"total":1.50e2, "big":100000000000000000000000001.10, "name":"M\\u00fcller ü", "lines":[ ] }'
"""A record whose bytes would change if anything read it and wrote it again."""
QUICK = {"retry": {"kind": "list", "delays": [1.1] * 60, "jitter": 0}}
"""Only the native API knows the delays of retries. A second and a bit: each attempt has a time of its own."""


class Client:
    """The client's process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin, self._stdout = process.stdin, process.stdout

    async def say(self, line: str) -> Any:
        self._stdin.write(f"{line}\n".encode())
        async with asyncio.timeout(PATIENCE * 2):
            answer = await self._stdout.readline()
        assert answer, "the client ended; its complaint is above"
        return json.loads(answer)

    async def report(self) -> Any:
        report = await self.say("report")
        assert report["complaints"] == []
        return report

    async def processed(self, *events: str) -> Any:
        """The report once exactly these events were processed."""
        return await eventually(
            self.report, lambda report: sorted(report["processed"]) == sorted(events), f"processed: {events}"
        )


class Shop:
    """A tenant: the publisher's native API, its operator's, and the integrator's client."""

    def __init__(self, server: ServerProcess, tenant: str, key: str, client: Client) -> None:
        self.operator = Api(server)
        self.api = Api(server, key)
        self.tenant = tenant
        self.client = client

    async def publish(
        self, event_id: str, type: str = "order.created", source: str = "storefront", **more: str
    ) -> None:
        """``more`` are members of the event, as JSON."""
        members = {
            "id": json.dumps(event_id),
            "type": json.dumps(type),
            "data": '{"event_data":{"customer_id":7}, "object":%s}' % RECORD,  # noqa: UP031 - braces
            "object": '{"type":"order","id":"1000"}',
            "source": json.dumps({"application": source, "user_id": "1000"}),
            **more,
        }
        body = ",".join(f'"{name}":{value}' for name, value in members.items())
        answer = await self.api.call("POST", "/v1/events", f"{{{body}}}".encode())
        assert answer.status == 202, answer

    async def subscribe(self, method: str = "POST") -> Any:
        """A webhook of the client's, with quick retries."""
        webhook = await self.client.say(f"subscribe {method}")
        await self.api.patch(f"/v1/subscriptions/{webhook['id']}", QUICK)
        return webhook

    async def trace(self, event_id: str, requests: int) -> Any:
        """What the logs tell of an event once so many requests are recorded."""
        return await eventually(
            lambda: self.client.say(f"trace {event_id}"),
            lambda found: len(found["requests"]) == requests,
            f"{requests} requests of {event_id} are in the log",
        )

    async def switch(self, *, webhooks: bool) -> None:
        await self.operator.patch(f"/v1/tenants/{self.tenant}", {"webhooks": webhooks})


@asynccontextmanager
async def client_of(server: ServerProcess, key: str) -> AsyncGenerator[Client]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(CLIENT), f"http://127.0.0.1:{server.port}", key,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 24,
    )  # fmt: skip
    try:
        yield Client(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        async with asyncio.timeout(PATIENCE):
            await process.wait()
    assert process.returncode == 0


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    server = ServerProcess(tmp_path / "data", allow_http="true")
    async with running(server):
        made = await Api(server).post(
            "/v1/tenants", {"id": "shop", "name": "The shop", "profile": "evolutionx"}
        )
        async with client_of(server, made["api_key"]) as client:
            yield Shop(server, "shop", made["api_key"], client)
        assert server.complaints() == []
        assert await server.terminate() == 0


def test_the_client_knows_nothing_of_hookline() -> None:
    imported: set[str] = set()
    for node in ast.walk(ast.parse(CLIENT.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module or "")
    assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names


def test_the_page_names_tests_that_exist() -> None:
    root = CLIENT.parents[2]
    page = (root / "docs/platforms/evolutionx.md").read_text("utf-8")
    files = {letter: root / path for path, letter in re.findall(r"`(tests/\S+\.py)` \((\w)", page)}
    named = re.findall(r"(\w)`::(\w+)`", page)
    texts = {letter: path.read_text("utf-8") for letter, path in files.items()}
    assert len(named) > 40
    assert [f"{letter}::{name}" for letter, name in named if f"def {name}(" not in texts[letter]] == []


# --- receiving ----------------------------------------------------------------------------------------------


async def test_events_arrive_signed_with_their_record_and_are_filtered_by_their_source(shop: Shop) -> None:
    webhook = await shop.subscribe()
    assert webhook["events"] == ["order.created", "user.updated", "user.subscribed", "user.unsubscribed"]
    user = '{"type":"user","id":"8"}'
    await shop.publish("evt_order")
    await shop.publish("evt_own", source="api")
    await shop.publish("evt_updated", "user.updated", object=user, correlation_id='"act-1"')
    await shop.publish("evt_subscribed", "user.subscribed", object=user, correlation_id='"act-1"')
    await shop.publish("evt_unwanted", "product.updated")
    report = await shop.client.processed("evt_order", "evt_updated", "evt_subscribed")
    report = await eventually(shop.client.report, lambda found: found["skipped"], "our own change is skipped")
    assert (report["skipped"], report["duplicates"], report["refused"]) == (["evt_own"], [], [])
    assert len(report["arrived"]) == 4
    (order,) = [each for each in report["arrived"] if each["event_id"] == "evt_order"]
    assert order["body"].endswith(f',"event_data":{{"customer_id":7}},"data":{RECORD}}}')
    head = json.loads(order["body"])
    assert (head["event_type"], head["object_type"], head["object_id"]) == ("order.created", "order", "1000")
    assert (head["source_user_type"], head["source_user_id"]) == ("storefront", "1000")


async def test_several_targets_get_the_same_event(shop: Shop) -> None:
    await shop.subscribe()
    await shop.subscribe("GET")
    await shop.publish("evt_1")
    report = await eventually(shop.client.report, lambda found: len(found["arrived"]) == 2, "both arrived")
    assert {each["method"] for each in report["arrived"]} == {"POST", "GET"}
    assert len(report["duplicates"]) == 1


async def test_a_get_webhook_carries_the_event_in_its_query(shop: Shop) -> None:
    await shop.subscribe("GET")
    await shop.publish("evt_1")
    await shop.publish("evt_own", source="api")
    report = await shop.client.processed("evt_1")
    await eventually(
        shop.client.report, lambda found: found["skipped"] == ["evt_own"], "it filters by source"
    )
    (request,) = [each for each in report["arrived"] if each["event_id"] == "evt_1"]
    assert (request["method"], request["body"]) == ("GET", "")
    assert request["parameters"]["event_type"] == "order.created"
    trace = await shop.trace("evt_1", 1)
    assert trace["requests"][0]["request_method"] == "GET"
    assert trace["payloads"][0]["request_json"] == request["parameters"]


async def test_the_client_refuses_what_is_forged_or_old(shop: Shop) -> None:
    key = (await shop.subscribe())["signature_key"]
    address = urlsplit(await shop.client.say("address"))
    body, now = b'{"event_id":"evt_x","event_type":"order.created"}', int(time.time())

    async def offer(sent: int, signature: str) -> int:
        connection = await Connection.open(address.port or 0)
        headers = {"EVOX-TIME": str(sent), "EVOX-SIGNATURE": signature}
        try:
            await connection.write(
                b"POST /post/receive HTTP/1.0\r\nContent-Length: %d\r\n" % len(body)
                + "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()
                + b"\r\n"
                + body
            )
            return int((await connection.end()).split(b" ")[1])
        finally:
            await connection.close()

    def sign(sent: int, secret: str) -> str:
        return hmac.new(secret.encode(), f"{sent}.".encode() + body, hashlib.sha256).hexdigest()

    assert await offer(now, sign(now, "another key")) == 401
    assert await offer(now, sign(now, key).upper()) == 401
    assert await offer(now - 301, sign(now - 301, key)) == 401
    assert await offer(now, sign(now - 1, key)) == 401
    assert await shop.client.say("php") is (shutil.which("php") is not None)
    report = await shop.client.report()
    assert report["refused"] == ["signature", "signature", "time", "signature"]
    assert report["arrived"] == []


async def test_a_rotated_key_holds_at_once(shop: Shop) -> None:
    webhook = await shop.subscribe()
    assert await shop.client.say("rotate") == webhook["id"]
    await shop.publish("evt_1")
    await shop.client.processed("evt_1")
    assert (await shop.client.report())["refused"] == []


# --- failing, trying again, and the logs ------------------------------------------------------------------


def both_came_twice(report: Any) -> bool:
    times = Counter(each["event_id"] for each in report["arrived"])
    return min(times["evt_updated"], times["evt_subscribed"]) >= 2


async def test_a_broken_receiver_gets_it_again_and_the_logs_tell_the_story(shop: Shop) -> None:
    webhook = await shop.subscribe()
    await shop.client.say("break 410")
    user = '{"type":"user","id":"8"}'
    await shop.publish("evt_updated", "user.updated", object=user, correlation_id='"act-1"')
    await shop.publish("evt_subscribed", "user.subscribed", object=user, correlation_id='"act-1"')
    await eventually(shop.client.report, both_came_twice, "both come again")
    await shop.client.say("mend")
    report = await shop.client.processed("evt_updated", "evt_subscribed")
    attempts = [each for each in report["arrived"] if each["event_id"] == "evt_updated"]
    assert len(attempts) >= 3
    assert len({each["body"] for each in attempts}) == 1
    assert len({each["time"] for each in attempts}) == len({each["signature"] for each in attempts}) > 2
    assert webhook["status"] == "active"

    found = await shop.trace("evt_updated", len(attempts))
    assert found["event"]["source_user_type"] == "storefront"
    assert abs(found["event"]["event_time"] - time.time()) < 60
    assert [each["event_id"] for each in found["related"]] == ["evt_subscribed"]
    statuses = [each["response_status"] for each in found["requests"]]
    assert statuses == [200] + [410] * (len(attempts) - 1)
    target = f"{urlsplit(webhook['url']).netloc}/post/receive"
    assert {each["request_uri"] for each in found["requests"]} == {target}
    assert {each["event_id"] for each in found["requests"]} == {"evt_updated"}
    assert all(each["response_time_ms"] > 0 for each in found["requests"])
    sent = [each["time"] for each in reversed(attempts)]
    assert [each["request_time"] for each in found["requests"]] == pytest.approx(sent, abs=1)
    assert [each["response_json"] for each in found["payloads"]] == [
        {"result": "processed"},
        *[{"error": "broken"}] * (len(attempts) - 1),
    ]
    assert found["payloads"][0]["request_json"] == json.loads(attempts[0]["body"])
    listed = (await shop.client.say(f"get /webhooks/{webhook['id']}/requests?limit=200"))["json"]["data"]
    assert [each for each in listed if each["event_id"] == "evt_updated"] == found["requests"]


async def test_a_duplicate_is_known_by_its_event_id(shop: Shop) -> None:
    webhook = await shop.subscribe()
    await shop.publish("evt_1")
    await shop.client.processed("evt_1")
    deliveries = f"/v1/subscriptions/{webhook['id']}/deliveries"
    (delivery,) = await eventually(
        lambda: shop.api.listing(deliveries),
        lambda found: [each["state"] for each in found] == ["succeeded"],
        "the delivery is recorded",
    )
    await shop.api.post(f"/v1/deliveries/{delivery['id']}/resend")
    report = await eventually(shop.client.report, lambda found: found["duplicates"], "it came again")
    assert (report["processed"], report["duplicates"]) == (["evt_1"], ["evt_1"])


# --- the charged feature --------------------------------------------------------------------------------


async def test_switched_off_nothing_is_sent_and_on_again_nothing_is_missing(shop: Shop) -> None:
    await shop.subscribe()
    await shop.publish("evt_before")
    await shop.client.processed("evt_before")
    await shop.switch(webhooks=False)
    assert (await shop.client.say("get /feature"))["json"] == {"event_driven_webhooks": False}
    refused = await shop.client.say("subscribe GET")
    assert (refused["status"], refused["error"]["type"]) == (403, "feature_off")
    seen = (await shop.client.report())["arrived"]
    meanwhile = [f"evt_{number}" for number in range(20)]
    for event_id in meanwhile:
        await shop.publish(event_id)
    trace = await shop.trace("evt_before", 1)
    assert (trace["requests"][0]["response_status"], len(trace["payloads"])) == (200, 1)
    rest = time.monotonic() + 1.0
    while time.monotonic() < rest:
        assert (await shop.client.report())["arrived"] == seen, "something was sent while it is off"
        await asyncio.sleep(0.05)
    await shop.switch(webhooks=True)
    assert (await shop.client.say("get /feature"))["json"] == {"event_driven_webhooks": True}
    report = await shop.client.processed("evt_before", *meanwhile)
    assert report["duplicates"] == []


async def test_usage_is_what_was_published_and_sent(shop: Shop) -> None:
    await shop.subscribe()
    for number in range(5):
        await shop.publish(f"evt_{number}")
    await shop.client.processed(*(f"evt_{number}" for number in range(5)))

    async def usage() -> Any:
        return (await shop.client.say("get /usage"))["json"]["total"]

    total = await eventually(usage, lambda found: found["requests"] == 5, "the requests are counted")
    assert total["events"] == 5
    data = '{"event_data":{"customer_id":7}, "object":%s}' % RECORD  # noqa: UP031 - braces
    assert total["event_bytes"] == 5 * len(data.encode())
    bodies = [each["body"] for each in (await shop.client.report())["arrived"]]
    assert total["request_bytes"] >= sum(len(body.encode()) for body in bodies)
