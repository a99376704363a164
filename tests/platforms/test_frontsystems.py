"""A client that was written from Front Systems' pages alone, against the real server: nothing is missing in the end."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.http import Connection
from tests.support.server import Api, ServerProcess, running
from tests.support.waiting import PATIENCE, eventually

CLIENT = Path(__file__).with_name("frontsystems_client.py")
EVENT = "OmniChannelEndlessAisleOrderCreated"
PART = 20
BODIES = [
    '{ "orderNo" : "EA-%d",\t"total":1.50e2, "note":"\\u00e6\u00f8\u00e5", "lines":[ ] }',
    '{"orderNo":"EA-%d","total":100000000000000000000000001.10,"comment":null}',
    '{"orderNo":"EA-%d","customer":{"name":"M\u00fcller & S\u00f8nner","deep":[[[{"a":false}]]]}}',
]
"""Payloads whose bytes would change if anything read them and wrote them again."""


def payload(number: int) -> str:
    return BODIES[number % len(BODIES)] % number


class Client:
    """The client's process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self._stdin, self._stdout = process.stdin, process.stdout

    async def say(self, line: str) -> Any:
        self._stdin.write(f"{line}\n".encode())
        return await self.answer()

    async def answer(self) -> Any:
        async with asyncio.timeout(PATIENCE * 2):
            line = await self._stdout.readline()
        assert line, "the client ended; its complaint is above"
        return json.loads(line)


@asynccontextmanager
async def client(server: ServerProcess, key: str, tenant: str) -> AsyncGenerator[Client]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", CLIENT, f"http://127.0.0.1:{server.port}/frontsystems/restapi/V2", key, tenant, EVENT,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 22,
    )  # fmt: skip
    try:
        yield Client(process)
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def shop(server: ServerProcess, name: str) -> AsyncGenerator[tuple[Api, Client]]:
    """A tenant of the profile: the publisher's API, and the integrator's client."""
    made = await Api(server).post("/v1/tenants", {"id": name, "name": name, "profile": "frontsystems"})
    async with client(server, made["api_key"], name) as one:
        yield Api(server, made["api_key"]), one


class Published:
    """What was published, in turn."""

    def __init__(self, server: ServerProcess, api: Api, webhook: str) -> None:
        self._server = server
        self._api = api
        self._webhook = webhook
        self.bodies: list[str] = []

    async def more(self, count: int) -> None:
        """Publish, and wait until the first request of each is over."""
        connection = await Connection.open(self._server.port)
        for number in range(len(self.bodies), len(self.bodies) + count):
            body = '{"type":"%s","id":"order-%d","data":%s}' % (EVENT, number, payload(number))  # noqa: UP031 - braces
            answer = await connection.request("POST", "/v1/events", body.encode(), self._api.headers)
            assert answer.status == 202, answer
            self.bodies.append(payload(number))
        await connection.close()
        await eventually(self.deliveries, lambda found: len(found) == len(self.bodies), "all sent once")

    async def deliveries(self) -> list[Any]:
        found = await self._api.listing(f"/v1/subscriptions/{self._webhook}/deliveries")
        return [each for each in found if each["state"] in ("succeeded", "failed")]


def day(offset: int) -> str:
    return f"{datetime.now(UTC) + timedelta(days=offset):%Y-%m-%d}"


@pytest.mark.timeout(400)
async def test_the_recovery_loop_ends_with_nothing_missing(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "data")
    async with running(server), shop(server, "shop") as (api, one):
        hello = await one.answer()
        webhook = hello["webhook"]
        assert EVENT in hello["types"]
        assert "orderNo" in json.dumps(hello["schema"])
        assert (webhook["event"], webhook["storeId"]) == (EVENT, None)
        published = Published(server, api, f"sub_{webhook['id'].replace('-', '')}")
        await published.more(PART)
        await one.say("answer 404 500 410 429 302")
        await published.more(PART)
        await one.say("down")
        await published.more(PART)

        failed = await one.say(f"failed {day(-1)} {day(1)}")
        assert len(failed) == 2 * PART
        assert {item["status"] for item in failed} == {
            "Not found", "Internal server error", "Gone", "Too many requests", "Found", "Connection failed",
        }  # fmt: skip
        assert {item["runsCounter"] for item in failed} == {1}
        assert [item["payload"]["orderNo"] for item in failed] == [f"EA-{n}" for n in range(PART, 3 * PART)]

        await one.say("up")
        await one.say("answer 200 200 503")
        recovered = await one.say(f"recover {day(-1)} {day(1)}")
        assert recovered["left"] == 0
        assert recovered["resent"] == sorted(item["webhookEventId"] for item in failed)

        seen = await one.say("report")
        assert seen["strangers"] == 0
        assert sorted(each["body"] for each in seen["booked"]) == sorted(published.bodies)
        assert sorted(each["body"] for each in seen["booked"][:PART]) == sorted(published.bodies[:PART])
        events = {each["event"] for each in seen["booked"]}
        assert len(events) == 3 * PART, "every event has its own id, and was booked once"
        assert events >= set(recovered["resent"])
        assert await one.say(f"failed {day(-1)} {day(1)}") == []
        assert server.complaints() == []


async def test_nothing_is_resent_unless_it_is_asked_for(tmp_path: Path) -> None:
    """Not after the receiver is well again, not by a restart of the server, not by later events."""
    server = ServerProcess(tmp_path / "data")
    async with running(server), shop(server, "shop") as (api, one):
        webhook = (await one.answer())["webhook"]
        published = Published(server, api, f"sub_{webhook['id'].replace('-', '')}")
        await one.say("answer 500")
        await published.more(5)
        await server.terminate()
        await server.start()
        await one.say("answer 200")
        await published.more(5)
        report = await one.say("report")
        assert report["requests"] == 10
        assert sorted(each["body"] for each in report["booked"]) == sorted(published.bodies[5:])


async def test_a_deleted_webhook_receives_nothing_more(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "data")
    async with running(server), shop(server, "shop") as (api, one), shop(server, "other") as (_, other):
        webhook, theirs = (await one.answer())["webhook"], (await other.answer())["webhook"]
        published = Published(server, api, f"sub_{webhook['id'].replace('-', '')}")
        await published.more(3)
        assert await one.say("delete") == webhook
        witness = await api.post(
            "/v1/subscriptions", {"url": theirs["url"], "events": ["*"], "from": "beginning"}
        )
        later = Published(server, api, witness["id"])
        later.bodies = published.bodies
        await later.more(2)
        assert len((await one.say("report"))["booked"]) == 3
        assert len((await other.say("report"))["booked"]) == 5, "the witness of the same tenant got all"
