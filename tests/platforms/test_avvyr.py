"""A client that was written from Avvyr's pages alone, against the real server."""

from __future__ import annotations

import ast
import asyncio
import json
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.mailbox import mailbox
from tests.support.server import Api, ServerProcess, running
from tests.support.waiting import PATIENCE, eventually

CLIENT = Path(__file__).with_name("avvyr_client.py")
ODD = '{ "no":"A-1",\t"total":1.50e2, "big":100000000000000000000000001.10, "name":"M\\u00fcller ü", "empty":{ } }'
"""A payload whose bytes would change if anything read it and wrote it again."""
QUICK = {"retry": {"base": 0.05, "factor": 1.0, "jitter": 0.0}}
"""Only the native API knows the delays of retries; the count stays as the client wants it."""


class Client:
    """The client's process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self._stdin, self._stdout = process.stdin, process.stdout

    async def say(self, line: str) -> Any:
        self._stdin.write(f"{line}\n".encode())
        async with asyncio.timeout(PATIENCE * 2):
            answer = await self._stdout.readline()
        assert answer, "the client ended; its complaint is above"
        return json.loads(answer)

    async def arrived(self, name: str) -> list[Any]:
        """The requests for one of its endpoints."""
        report = await self.say("report")
        assert report["complaints"] == []
        return [each for each in report["requests"] if each["name"] == name]


class Shop:
    """A tenant of the profile: the publisher's API, and the integrator's client."""

    def __init__(self, server: ServerProcess, key: str, tenant: str, client: Client) -> None:
        self.server = server
        self.api = Api(server, key)
        self.tenant = tenant
        self.client = client

    async def publish(self, type: str, id: str, data: str = '{"a":1}') -> None:
        body = '{"type":"%s","id":"%s","data":%s}' % (type, id, data)  # noqa: UP031 - braces
        answer = await self.api.call("POST", "/v1/events", body.encode())
        assert answer.status == 202, answer

    async def states(self, subscription: str) -> list[str]:
        found = await self.api.listing(f"/v1/subscriptions/{subscription}/deliveries")
        return [each["state"] for each in found]


@asynccontextmanager
async def shop(server: ServerProcess, name: str = "shop") -> AsyncGenerator[Shop]:
    made = await Api(server).post("/v1/tenants", {"id": name, "name": name, "profile": "avvyr"})
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", CLIENT, f"http://127.0.0.1:{server.port}/avvyr", name, made["api_key"],
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 22,
    )  # fmt: skip
    try:
        yield Shop(server, made["api_key"], name, Client(process))
    finally:
        process.kill()
        await process.wait()


EVENTS = {
    "none": "orderCreated",
    "basic": "productUpdated",
    "bearer": "cartDeleted",
    "hmac": "fulfillmentCreated",
}


def test_the_client_knows_nothing_of_hookline() -> None:
    tree = ast.parse(CLIENT.read_text("utf-8"))
    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module or ""] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names]
        )
    }
    assert imported <= sys.stdlib_module_names
    assert "json" in imported


async def test_each_kind_of_authentication_and_every_management_operation(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "data")
    async with running(server), shop(server) as here:
        ids = await here.client.say("subscribe")
        for name, event_type in EVENTS.items():
            await here.publish(event_type, f"event-{name}", ODD)
        await here.publish("orderUpdated", "not-subscribed")
        for name in EVENTS:
            (request,) = await eventually(
                lambda name=name: here.client.arrived(name), lambda found: len(found) == 1, f"{name} arrived"
            )
            assert request["message"] == f"event-{name}"
            assert request["body"].endswith(f',"data":{ODD}}}')

        assert await here.client.say("manage") == "ok"

        tried = [await here.client.say("test hmac") for _ in range(2)]
        assert [(each["success"], each["statusCode"]) for each in tried] == [(True, 200)] * 2
        tests = (await here.client.arrived("hmac"))[1:]
        assert [each["delivery"] for each in tests] == [each["deliveryId"] for each in tried]
        assert [each["message"] for each in tests] == [each["messageId"] for each in tried]
        assert len({each["delivery"] for each in await here.client.arrived("hmac")}) == 3
        example = (await here.api.get("/v1/event-types/fulfillmentCreated"))["example"]
        assert json.loads(tests[0]["body"])["data"] == example

        assert await here.client.say("delete bearer") == 404
        assert not (await here.client.say("switch basic off"))["enabled"]
        for name in ("bearer", "basic", "none"):
            await here.publish(EVENTS[name], f"later-{name}")
        assert (await here.client.say("switch basic on"))["enabled"]
        await here.publish(EVENTS["basic"], "last-basic")
        twice = ["succeeded"] * 2
        await eventually(lambda: here.states(ids["basic"]), lambda found: found == twice, "the last arrived")
        await eventually(lambda: here.states(ids["none"]), lambda found: found == twice, "none arrived")
        assert [each["message"] for each in await here.client.arrived("basic")] == [
            "event-basic",
            "last-basic",
        ]
        assert len(await here.client.arrived("bearer")) == 1
        assert server.complaints() == []


async def test_a_broken_endpoint_is_retried_as_often_as_it_asked_and_keeps_the_delivery_id(
    tmp_path: Path,
) -> None:
    server = ServerProcess(tmp_path / "data")
    async with running(server), shop(server) as here:
        ids = await here.client.say("subscribe")
        for subscription in ids.values():
            await here.api.patch(f"/v1/subscriptions/{subscription}", QUICK)

        await here.client.say("answer 500 410 503")
        await here.publish("fulfillmentCreated", "in-the-end", ODD)
        await eventually(
            lambda: here.states(ids["hmac"]), lambda found: found == ["succeeded"], "it came through"
        )
        attempts = await here.client.arrived("hmac")
        assert [each["status"] for each in attempts] == [500, 410, 503, 200]
        assert len({(each["delivery"], each["message"], each["body"]) for each in attempts}) == 1

        await here.client.say("answer 500 500 500 500 500 500")
        await here.publish("orderCreated", "never")
        await eventually(
            lambda: here.states(ids["none"]), lambda found: found == ["failed"], "it is given up"
        )
        assert len(await here.client.arrived("none")) == 4, "one attempt, and three retries"
        await here.publish("transferUpdated", "once")
        await eventually(
            lambda: here.states(ids["once"]), lambda found: found == ["failed"], "it is given up"
        )
        assert len(await here.client.arrived("once")) == 1, "retries are off"

        await here.client.say("answer 200")
        await here.publish("orderCreated", "after")
        await eventually(
            lambda: here.states(ids["none"]), lambda found: "succeeded" in found, "still enabled"
        )
        assert server.complaints() == []


async def test_the_delivery_id_survives_the_death_of_the_server(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "data")
    async with running(server), shop(server) as here:
        ids = await here.client.say("subscribe")
        await here.api.patch(f"/v1/subscriptions/{ids['basic']}", {"retry": {"base": 1.0, "jitter": 0.0}})
        await here.client.say("answer 500")
        await here.publish("productUpdated", "survivor")
        await eventually(
            lambda: here.states(ids["basic"]), lambda found: found == ["retrying"], "it is recorded"
        )
        server.kill()
        await server.start()
        await eventually(
            lambda: here.states(ids["basic"]), lambda found: found == ["succeeded"], "it came through"
        )
        attempts = await here.client.arrived("basic")
        assert [each["status"] for each in attempts] == [500, 200]
        assert len({(each["delivery"], each["message"], each["body"]) for each in attempts}) == 1


async def test_an_error_email_says_which_delivery_failed_for_good(tmp_path: Path) -> None:
    async with mailbox() as box:
        mail = {"smtp_url": f"smtp://127.0.0.1:{box.port}", "smtp_from": "hookline@example.com"}
        server = ServerProcess(tmp_path / "data", **mail)
        async with running(server), shop(server) as here:
            ids = await here.client.say('subscribe errorEmail="ops@example.com" retryEnabled=false')
            await here.client.say("answer 200")
            await here.publish("orderCreated", "fine")
            await eventually(
                lambda: here.states(ids["none"]), lambda found: found == ["succeeded"], "it is fine"
            )
            await here.client.say("answer 500")
            await here.publish("cartDeleted", "broken")

            async def mails() -> list[Any]:
                return box.mails

            (message,) = await eventually(mails, lambda found: len(found) > 0, "a mail")
            assert message["To"] == "ops@example.com"
            text = message.get_content()
            assert "broken (cartDeleted)" in text
            assert ids["bearer"] in text
            assert "answered 500" in text
            assert await here.client.say("manage") == "ok"
            assert server.complaints() == []
