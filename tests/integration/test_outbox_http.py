"""The relay on its own: it publishes to a real server by HTTP."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from hookline.core.errors import SettingsInvalid
from hookline.sources.outbox import HttpTarget, OutboxOptions, inspect_outbox
from hookline.sources.outbox.results import STORED, Held, Later, Rejected, Result, Row
from tests.integration.test_outbox_relay import HOSTILE, event, place, place_raw
from tests.support.outbox import dead_letters, emptied, make_outbox, outbox_url, relaying
from tests.support.ports import own_port
from tests.support.programs import Database, postgres_database, sqlite_database
from tests.support.server import OPERATOR_KEY, Api, ServerProcess, running
from tests.support.waiting import eventually, until

pytestmark = pytest.mark.slow


@pytest.fixture
async def server(tmp_path: Path) -> AsyncGenerator[ServerProcess]:
    """It keeps its port when it is started again."""
    limits = {"max_event_bytes": "64KiB", "max_batch_bytes": "128KiB", "max_batch_items": "50"}
    made = ServerProcess(tmp_path / "data", port=str(own_port()), **limits)
    async with running(made):
        yield made


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncGenerator[Database]:
    async with sqlite_database(tmp_path) as database:
        await make_outbox(database)
        yield database


def target(server: ServerProcess, key: str = OPERATOR_KEY, tenant: str = "") -> HttpTarget:
    return HttpTarget(f"http://127.0.0.1:{server.port}", key, tenant)


def key_of(api: Api) -> str:
    return api.headers["Authorization"].removeprefix("Bearer ")


async def log_of(api: Api) -> list[str]:
    """The ids, oldest first."""
    return [event["id"] for event in await api.listing("/v1/events")][::-1]


async def test_with_the_key_of_a_tenant(server: ServerProcess, shop: Database) -> None:
    """In batches that are too large for the server by rows and by bytes."""
    api = await Api(server).new_tenant("shop")
    await place(shop, *(event(f"e-{number}", data="x" * 10_000) for number in range(120)))
    await place(shop, event("too-large", data="x" * 70_000), event("named", tenant="shop"))
    async with relaying(shop, target(server, key_of(api)), batch=500, batch_bytes=2 << 20):
        await emptied(shop)
    assert await log_of(api) == [*(f"e-{number}" for number in range(120)), "named"]
    assert [letter[:2] for letter in await dead_letters(shop)] == [("too-large", "too_large")]


async def test_with_the_key_of_an_operator(server: ServerProcess, shop: Database) -> None:
    one, other = await Api(server).new_tenant("one"), await Api(server).new_tenant("other")
    async with relaying(shop, target(server, tenant="one")):
        await place(
            shop, event("e-1"), event("e-2", tenant="other"), event("e-3", tenant="nobody"), event("e-4")
        )
        await emptied(shop)
    assert (await log_of(one), await log_of(other)) == (["e-1", "e-4"], ["e-2"])
    assert await dead_letters(shop) == [("e-3", "not_found", "there is no tenant 'nobody'")]


async def test_what_the_server_refuses(server: ServerProcess, shop: Database) -> None:
    api = await Api(server).new_tenant("shop")
    await api.publish({"type": "order:created", "id": "taken", "data": 1})
    async with relaying(shop, target(server, key_of(api))):
        await place(shop, event("e-1"), event("taken", data=2), event("e-2"))
        for event_id, body in HOSTILE.items():
            await place_raw(shop, event_id, body)
        await place_raw(shop, "tenant", '{"type":"a","data":1}', "sh\r\nop: 1")
        await place(shop, event("e-3"))
        await emptied(shop)
    assert await log_of(api) == ["taken", "e-1", "e-2", "e-3"]
    letters = {event_id: code for event_id, code, reason in await dead_letters(shop) if reason}
    assert len(letters) == len(HOSTILE) + 2
    assert letters["taken"] == "event_id_conflict"
    assert letters["nan"] == "invalid_json"
    assert letters["unknown-field"] == "invalid_input"
    assert all(letters.values())


async def test_a_key_that_does_not_fit_loses_nothing(server: ServerProcess, shop: Database) -> None:
    api, other = await Api(server).new_tenant("shop"), await Api(server).new_tenant("other")
    await place(shop, event("e-1"), event("e-2", tenant="other"), event("e-3"))
    async with relaying(shop, target(server, "hk_wrong")) as relay:
        await until(lambda: relay.relay._pause_log > 0.2, "it has tried twice")
    async with relaying(shop, target(server)):
        await eventually(
            lambda: log_of(other), lambda ids: ids == ["e-2"], "its tenant is named, so it comes"
        )
    async with relaying(shop, target(server, key_of(other))):
        await eventually(lambda: log_of(other), lambda ids: len(ids) == 3, "they belong to nobody else")
    assert await dead_letters(shop) == []
    await place(shop, event("e-4", tenant="other"), event("e-5"))
    async with relaying(shop, target(server, key_of(api))):
        await eventually(lambda: log_of(api), lambda ids: ids == ["e-5"], "the other one's is held back")
    assert [event_id for event_id, _, _ in await shop.events()] == ["e-4"]
    assert (await inspect_outbox(OutboxOptions(url=outbox_url(shop)))).dead == 0


async def test_the_server_is_away_for_a_while(server: ServerProcess) -> None:
    api = await Api(server).new_tenant("shop")
    async with postgres_database() as shop:
        await make_outbox(shop)
        pinned = target(server, key_of(api))
        async with relaying(shop, pinned) as relay:
            await place(shop, event("e-1"))
            await emptied(shop)
            server.kill()
            await place(shop, *(event(f"f-{number}") for number in range(60)))
            await until(lambda: relay.relay._pause_log > 0.2, "it has tried twice")
            await server.start()
            await emptied(shop)
    assert await log_of(api) == ["e-1", *(f"f-{number}" for number in range(60))]


async def test_a_server_empties_the_outbox_itself(shop: Database, tmp_path: Path) -> None:
    """Two lives of it, the first one cut short."""
    server = ServerProcess(tmp_path / "data", outbox_url=outbox_url(shop), outbox_tenant="shop")
    async with running(server):
        api = await Api(server).new_tenant("shop")
        await place(shop, *(event(f"e-{number}") for number in range(700)))
        await eventually(lambda: log_of(api), lambda ids: len(ids) > 0, "it has begun")
        server.kill()
        await place(shop, event("last"), event("lost", tenant="nobody"))
        await server.start()
        await emptied(shop)
        assert await log_of(api) == [*(f"e-{number}" for number in range(700)), "last"]
        assert await api.metric("outbox_leading") == 1
        assert await api.metric("outbox_dead_letters_total") == 1
        assert await server.terminate() == 0
        assert server.complaints() == []


# --- answers that no server of ours gives at will

Respond = Callable[[list[bytes]], tuple[int, bytes]]


@asynccontextmanager
async def answering(respond: Respond) -> AsyncGenerator[HttpTarget]:
    """A target whose server answers what the test says to the items of a batch."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                body = await reader.readexactly(length)
                status, answer = respond([json.dumps(item).encode() for item in json.loads(body)])
                writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(answer), answer))
                if status == 0:
                    break
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(handle, "127.0.0.1", 0)
    made = HttpTarget(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/", "hk_key")
    try:
        yield made
    finally:
        await made.close()
        listening.close()
        await listening.wait_closed()


def rows(*names: str) -> list[Row]:
    return [Row(seq, name, "", b'{"type":"a","data":1}') for seq, name in enumerate(names)]


def problem(code: str) -> bytes:
    return json.dumps({"code": code, "detail": f"it is {code}"}).encode()


def stored(items: list[bytes]) -> tuple[int, bytes]:
    return 200, json.dumps({"data": [{"status": 202} for _ in items]}).encode()


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, b"<html>", Later),
        (200, b'{"data":[]}', Later),
        (301, b"", Later),
        (404, b"", Later),
        (405, problem("method_not_allowed"), Later),
        (401, problem("unauthorized"), Later),
        (403, problem("forbidden"), Held),
        (408, problem("request_timeout"), Later),
        (429, b"slow down", Later),
        (500, b"<html>", Later),
        (502, b"", Later),
        (503, problem("storage_unavailable"), Later),
        (400, b"a proxy's", Later),
        (500, problem("internal_error"), Rejected),
        (422, problem("invalid_input"), Rejected),
    ],
)
async def test_answers_to_a_whole_batch(status: int, body: bytes, expected: type[Result]) -> None:
    async with answering(lambda _: (status, body)) as made:
        results = await made.publish(rows("a", "b", "c"))
    assert [type(result) for result in results] == [expected] * 3


async def test_one_event_that_spoils_every_batch_is_found() -> None:
    def respond(items: list[bytes]) -> tuple[int, bytes]:
        return (500, problem("internal_error")) if any(b"bad" in item for item in items) else stored(items)

    names = [f"n-{number}" for number in range(40)]
    names[13] = "bad"
    async with answering(respond) as made:
        results = await made.publish(rows(*names))
    assert [name for name, result in zip(names, results, strict=True) if result != STORED] == ["bad"]
    assert results[13] == Rejected("internal_error", "it is internal_error")


async def test_a_proxy_with_a_lower_limit_gets_smaller_requests() -> None:
    def respond(items: list[bytes]) -> tuple[int, bytes]:
        return (413, b"<html>Request Entity Too Large") if sum(map(len, items)) > 200 else stored(items)

    events = [Row(seq, f"n-{seq}", "", b'{"type":"a","data":1}') for seq in range(40)]
    events[7] = Row(7, "n-7", "", b'{"type":"a","data":"' + b"x" * 300 + b'"}')
    async with answering(respond) as made:
        results = await made.publish(events)
    assert [result for result in results if result != STORED] == [results[7]]
    assert isinstance(results[7], Rejected)
    assert results[7].code == "too_large"


async def test_items_fare_on_their_own() -> None:
    def respond(items: list[bytes]) -> tuple[int, bytes]:
        faults = [{"field": "data.total", "message": "is no number"}]
        data = [
            {"status": 202, "id": "a", "duplicate": True},
            {"status": 503, "error": {"code": "overloaded", "detail": "full"}},
            {
                "status": 422,
                "error": {"code": "schema_violation", "detail": "bad", "faults": faults, "more": 1},
            },
        ]
        return 200, json.dumps({"data": data}).encode()

    async with answering(respond) as made:
        results = await made.publish(rows("a", "b", "c"))
    assert results == [STORED, Later("full"), Rejected("schema_violation", "bad\ndata.total: is no number")]


def test_a_silent_server_does_not_hold_up_the_end_of_the_program() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:

        async def main() -> None:
            made = HttpTarget(f"http://127.0.0.1:{silent.getsockname()[1]}", "hk_key")
            publishing = asyncio.create_task(made.publish(rows("a")))
            connection, _ = await asyncio.to_thread(silent.accept)
            await asyncio.to_thread(connection.recv, 1)
            publishing.cancel()
            await asyncio.wait([publishing])
            await made.close()
            silenced.append(connection)

        silenced: list[socket.socket] = []
        started = time.monotonic()
        asyncio.run(main())
        assert time.monotonic() - started < 10
        silenced[0].close()


async def test_a_server_that_is_not_there_or_hangs_up() -> None:
    async with answering(lambda _: (0, b"")) as made:
        assert [type(result) for result in await made.publish(rows("a"))] == [Later]
    for url in ("http://127.0.0.1:9", "http://["):
        gone = HttpTarget(url, "hk_key")
        assert [type(result) for result in await gone.publish(rows("a", "b"))] == [Later, Later]
        await gone.close()


@pytest.mark.parametrize(
    ("url", "key", "tenant", "field"),
    [
        ("hookline.test", "hk_key", "", "to"),
        ("http://hookline.test", "", "", "key"),
        ("http://hookline.test", "hk_key\r\nX: y", "", "key"),
        ("http://hookline.test", "hk_key", "no tenant", "tenant"),
    ],
)
def test_what_can_never_work_is_refused(url: str, key: str, tenant: str, field: str) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        HttpTarget(url, key, tenant)
    assert [fault.field for fault in caught.value.faults] == [field]
