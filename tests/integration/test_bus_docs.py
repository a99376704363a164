"""The programs and server settings of the pages on publishing do what the pages say."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.errors import Error

from hookline.client import AsyncHookline, Event, Hookline, NatsHookline, Unavailable
from hookline.client.servers import split_login
from hookline.sources.nats import NatsOptions
from hookline.storage.memory import MemoryStorage
from tests.integration.apiserver import api_server
from tests.support.bus import Bus, bus
from tests.support.nats import NatsServer, single
from tests.support.waiting import eventually

DOCS = Path(__file__).parents[2] / "docs/how-to"
BUS = DOCS / "use-a-bus.md"
SDK = DOCS / "publish-from-your-program.md"


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def program(page: Path, word: str) -> dict[str, Any]:
    """What the page's Python program with this word defines."""
    (text,) = [one for one in blocks(page, "py") if word in one]
    defined: dict[str, Any] = {"__name__": "page"}
    exec(compile(text, str(page), "exec"), defined)
    return defined


@pytest.fixture
async def line(tmp_path: Path) -> AsyncGenerator[Bus]:
    """An installation under the names of the pages, on a server of its own."""
    async with single(tmp_path / "nats") as server, bus(server.url, tmp_path) as made:
        made.options = NatsOptions(url=server.url, max_bytes=64 << 20, dead_max_bytes=16 << 20)
        made.names.stream, made.names.dead_stream = made.options.stream, made.options.dead_stream
        made.names.subject = made.options.subject
        await made.source().prepare()
        yield made


async def test_a_plain_client_publishes(line: Bus, capsys: pytest.CaptureFixture[str]):
    await program(BUS, "order:created")["publish"](line.options.url)
    assert "stored as message 1 of HOOKLINE_EVENTS" in capsys.readouterr().out
    async with line.feeding():
        await eventually(line.ids, lambda ids: ids == ["order-4471-created"], "the event is in the log")


async def test_dead_letters_are_published_again(line: Bus):
    event = b'{"id":"e%d","type":"order:created","data":{}}'
    async with line.feeding():
        for number in range(3):
            await line.send("order:created", event % number, tenant="later")
        await eventually(line.dead, lambda dead: len(dead) == 3, "they are dead letters")
        await line.new_tenant("later")
        await line.send("order:created", b"{", tenant="later")
        await eventually(line.dead, lambda dead: len(dead) == 4, "another one for another reason")
        again = program(BUS, "publish_again")["publish_again"]
        assert await again(line.options.url, "later", "not_found") == 3
        await eventually(line.ids, lambda ids: sorted(ids) == ["e0", "e1", "e2"], "the events are in the log")
        assert await again(line.options.url, "later", "not_found") == 0
    assert (await line.js.stream_info("HOOKLINE_DEAD")).state.messages == 1


async def test_the_subjects_of_the_table(line: Bus):
    rows = re.findall(
        r"^\| `([^`]+)` \| `hookline\.events\.shop\.([^`]+)` \|$", BUS.read_text("utf-8"), re.MULTILINE
    )
    assert len(rows) == 5
    async with line.feeding():
        for name, tail in rows:
            await line.send(tail, b'{"type":"%s","data":1}' % name.encode())
        stored = await eventually(line.stored, lambda found: len(found) == len(rows), "all are in the log")
    assert [event.type for event in stored] == [name for name, _ in rows]
    assert line.metrics.bus_dead_letters.value == 0


def server_with_permissions(folder: Path) -> NatsServer:
    """The settings of the page, with our ports and folders."""
    servers, users = blocks(BUS, "conf")
    assert "sync_interval: always" in servers
    users = users.replace(
        '{ user: "shop"',
        '{ user: "mart", password: "secret", permissions: {\n'
        '        publish: ["hookline.events.mart.>"], subscribe: ["_INBOX_mart.>"] } },\n    { user: "shop"',
    )
    server = NatsServer(folder, more=users)
    config = folder / "n1.conf"
    config.write_text(
        config.read_text("utf-8").replace("max_memory_store", "sync_interval: always, max_memory_store")
    )
    return server


async def test_the_permissions_are_enough_and_not_too_many(tmp_path: Path):
    server = server_with_permissions(tmp_path / "nats")
    port = server.port
    options = NatsOptions(
        url=f"nats://hookline:change me too@127.0.0.1:{port}".replace(" ", "%20"),
        max_bytes=64 << 20, dead_max_bytes=1 << 20,
    )  # fmt: skip
    plain = NatsServer(tmp_path / "plain")
    try:
        await server.start()
        await plain.start()
        async with bus(plain.url, tmp_path) as line:
            line.options = options
            await line.source().prepare()
            address = f"nats://127.0.0.1:{port}"
            async with line.feeding():
                async with NatsHookline(address, "shop", user="shop", password="change me") as shop:
                    await shop.publish("order:created", {}, id="e1")
                async with NatsHookline(
                    address, "mart", user="mart", password="secret", inbox_prefix="_INBOX_mart"
                ) as mart:
                    await mart.publish("order:created", {}, id="nobody")
                async with NatsHookline(
                    address, "mart", user="shop", password="change me", patience=0.5, timeout=0.3
                ) as thief:
                    with pytest.raises(Unavailable):
                        await thief.publish("order:created", {}, id="stolen")
                await eventually(line.ids, lambda ids: ids == ["e1"], "the event is in the log")
                await dead_letter_written(line)
    finally:
        server.kill()
        plain.kill()


async def dead_letter_written(line: Bus) -> None:
    """``mart`` is no tenant; the user ``hookline`` may look, but not publish events."""
    (address,), login = split_login(line.options.url)
    nc = Client()
    await nc.connect(address, error_cb=quiet, **login)
    try:

        async def count() -> int:
            return (await nc.jetstream().stream_info("HOOKLINE_DEAD")).state.messages

        await eventually(count, lambda found: found == 1, "the dead letter is written")
        with pytest.raises(Error):
            await nc.jetstream().publish("hookline.events.shop.order:created", b"{}", timeout=0.3)
    finally:
        await nc.close()


async def quiet(_: Exception) -> None:
    """A violated permission is what we want to see."""


# --- the SDK -------------------------------------------------------------------------------------------------


def test_the_programs_of_the_sdk_page(capsys: pytest.CaptureFixture[str]):
    with api_server(MemoryStorage) as api:
        shop = api.new_tenant("shop")
        url = f"http://127.0.0.1:{api.port}"
        with Hookline(url, shop.key) as hookline:
            program(SDK, "order_was_paid")["order_was_paid"](hookline, {"number": "1", "total": "2.50"})
            refused: list[Event] = program(SDK, "import_orders")["import_orders"](hookline, ["1", "2"])
        program(SDK, "def sell")["sell"](url, shop.key, 100)
        asyncio.run(program(SDK, "AsyncHookline")["main"](url, shop.key))
        ids = [event.id for event in api.run(api.services.storage.read_log(0, 0, 1000, 0)).events]
    assert refused == []
    assert ids[:3] == ["order-1-paid", "order-1-created", "order-2-created"]
    assert ids[-1] == "order-4471-created"
    assert len(ids) == 104
    assert capsys.readouterr().out == ""


async def test_the_program_over_nats(line: Bus):
    await program(SDK, "NatsHookline")["publish"](line.options.url)
    assert await line.left() == 1


def test_the_defaults_that_the_page_names():
    import inspect

    from hookline.client import Buffering

    text = SDK.read_text("utf-8")
    bounds = Buffering()
    assert f"`events` ({bounds.events:,})" in text
    assert f"`bytes` ({bounds.bytes >> 20} MiB)" in text
    assert f"`full_timeout` seconds ({bounds.full_timeout:g})" in text
    assert f"{bounds.linger * 1000:g} ms" in text
    defaults = inspect.signature(Hookline).parameters
    assert f"`patience` seconds ({defaults['patience'].default:g})" in text
    assert f"`timeout` ({defaults['timeout'].default:g} s)" in text
    assert defaults.keys() == inspect.signature(AsyncHookline).parameters.keys()


def test_the_streams_that_the_page_names():
    text = BUS.read_text("utf-8")
    options = NatsOptions(url="nats://x")
    for told in (
        f"`{options.stream}`", f"`{options.dead_stream}`", f"`{options.subject}.*.>`", f"`{options.dead_subject}.*`",
        f"{options.max_bytes >> 30} GiB (`HOOKLINE_BUS_MAX_BYTES`)", f"{options.dead_max_bytes >> 30} GiB",
        f"{options.dead_max_age / 86400:g} days", f"{options.duplicate_window * 1000:g} ms",
        f"{options.ack_wait:g} s:", f"{options.max_ack_pending:,}", f"{options.batch} messages",
        f"{options.batch_bytes >> 20} MiB", f"`{options.durable}`, durable",
    ):  # fmt: skip
        assert told in text, told
