"""The publisher's client against the real server: over a bad network, at the end of a program, in forks, by NATS."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from hookline.client import (
    AsyncHookline,
    Hookline,
    NatsHookline,
    NotAllowed,
    Published,
    Refused,
    SyncNatsHookline,
    Unavailable,
    answers,
)
from hookline.core.model import Event
from hookline.storage.memory import MemoryStorage
from tests.integration.apiserver import Api, api_server
from tests.support.bus import bus
from tests.support.nats import Names, NatsServer, client, shared, single
from tests.support.server import child_environment
from tests.support.waiting import eventually


@pytest.fixture
def shop() -> Iterator[Api]:
    with api_server(MemoryStorage) as api:
        yield api.new_tenant("shop")


def url(api: Api) -> str:
    return f"http://127.0.0.1:{api.port}"


def stored(api: Api) -> list[Event]:
    return list(api.run(api.services.storage.read_log(0, 0, 100_000, 0)).events)


def ids(api: Api) -> list[str]:
    return [event.id for event in stored(api)]


class BadNetwork:
    """Stands between client and server and cuts every so-manieth connection at a random place, in either direction."""

    def __init__(self, target: int, chance: random.Random, most: int) -> None:
        """No connection carries more than ``most`` bytes of requests."""
        self._most = most
        self._target = target
        self._chance = chance
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.05)
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self.cuts = 0
        self.port: int = self._listener.getsockname()[1]

    def run(self) -> None:
        while not self._stop.is_set():
            with suppress(TimeoutError):
                accepted, _ = self._listener.accept()
                thread = threading.Thread(target=self._carry, args=(accepted,))
                thread.start()
                self._threads.append(thread)

        self._listener.close()

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(20)

    def _carry(self, near: socket.socket) -> None:
        """Forward both ways, until one side closes or the budget of bytes in one direction is used up."""
        far = socket.create_connection(("127.0.0.1", self._target), timeout=10)
        budget = {near: self._chance.randint(1, self._most), far: self._chance.randint(1, self._most // 2)}
        for one in (near, far):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with near, far:
            threads = [
                threading.Thread(target=self._forward, args=(one, other, budget[one]))
                for one, other in ((near, far), (far, near))
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(20)

    def _forward(self, source: socket.socket, target: socket.socket, budget: int) -> None:
        with suppress(OSError):
            while budget > 0 and (data := source.recv(min(4096, budget))):
                target.sendall(data)
                budget -= len(data)
            self.cuts += budget <= 0
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


@contextmanager
def bad_network(api: Api, most: int) -> Iterator[BadNetwork]:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails
    network = BadNetwork(api.port, random.Random(seed), most)
    thread = threading.Thread(target=network.run)
    thread.start()
    try:
        yield network
    finally:
        network.end()
        thread.join(20)
        assert not thread.is_alive()


# --- over HTTP -----------------------------------------------------------------------------------------------


def test_an_event_arrives_as_it_was_given(shop: Api):
    with Hookline(url(shop), shop.key) as hookline:
        published = hookline.publish(
            "order:created", {"total": "12.50"}, id="e1", key="4471", correlation_id="c1",
            object={"type": "order", "id": "4471"}, source={"application": "pos"},
            occurred_at="2026-03-01T09:30:00Z",
        )  # fmt: skip
        again = hookline.publish("order:paid", {}, id="e1-other")
    assert (published, again) == (Published("e1"), Published("e1-other"))
    (event, _) = stored(shop)
    assert (event.id, event.type, event.data) == ("e1", "order:created", b'{"total":"12.50"}')
    assert (event.key, event.object_id, event.source_application) == ("4471", "4471", "pos")


def test_other_content_under_the_same_id_is_refused(shop: Api):
    with Hookline(url(shop), shop.key) as hookline:
        hookline.publish("order:created", {"n": 1}, id="e1")
        with pytest.raises(Refused) as caught:
            hookline.publish("order:created", {"n": 2}, id="e1")
    assert (caught.value.status, caught.value.code) == (409, "event_id_conflict")


def test_a_wrong_key_is_told(shop: Api):
    with Hookline(url(shop), "hk_wrong") as hookline, pytest.raises(NotAllowed):
        hookline.publish("order:created", {})


def test_over_a_bad_network_everything_is_stored_once(shop: Api, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(answers, "LONGEST_PAUSE", 0.02)
    with bad_network(shop, 5_000) as network:
        with Hookline(f"http://127.0.0.1:{network.port}", shop.key, timeout=5) as hookline:
            sent = [hookline.publish("order:created", {"n": n}).id for n in range(400)]
        assert network.cuts > 10
    assert ids(shop) == sent


def test_over_a_bad_network_the_buffer_loses_and_doubles_nothing(shop: Api, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(answers, "LONGEST_PAUSE", 0.02)
    monkeypatch.setattr("hookline.client.buffer.BATCH_EVENTS", 50)
    monkeypatch.setattr("hookline.client.sender.BATCH_EVENTS", 50)
    with bad_network(shop, 40_000) as network:
        with Hookline(f"http://127.0.0.1:{network.port}", shop.key, timeout=5, buffered=True) as hookline:
            sent = [hookline.publish("order:created", {"n": n}).id for n in range(5000)]
        assert network.cuts > 5
    assert ids(shop) == sent


async def test_async_and_buffered(shop: Api):
    async with AsyncHookline(url(shop), shop.key, buffered=True) as hookline:
        sent = [(await hookline.publish("order:created", {"n": n})).id for n in range(1000)]
    assert ids(shop) == sent


# --- programs ------------------------------------------------------------------------------------------------


def program(api: Api, text: str) -> str:
    """Run a program with a buffered client, ``hookline``; what it printed."""
    begin = "import os, sys\nfrom hookline.client import Hookline\n"
    make = f"hookline = Hookline({url(api)!r}, {api.key!r}, buffered=True)\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", begin + make + text],
        env=child_environment(), capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout


def test_a_program_that_just_ends_has_sent_everything(shop: Api):
    program(shop, "for n in range(3000): hookline.publish('order:created', n, id=f'e{n}')")
    assert ids(shop) == [f"e{n}" for n in range(3000)]


def test_a_program_that_exits_early_has_sent_everything(shop: Api):
    program(shop, "hookline.publish('order:created', 1, id='e1'); sys.exit(0)")
    assert ids(shop) == ["e1"]


def test_a_child_sends_what_is_its_own_and_the_parent_the_rest(shop: Api):
    text = """
for n in range(100): hookline.publish('order:created', n, id=f'p{n}')
child = os.fork()
if child == 0:
    assert hookline.pending == 0
    for n in range(100): hookline.publish('order:created', n, id=f'c{n}')
    hookline.close()
    os._exit(0)
for n in range(100, 200): hookline.publish('order:created', n, id=f'p{n}')
assert os.waitpid(child, 0)[1] == 0
hookline.close()
"""
    program(shop, text)
    assert sorted(ids(shop)) == sorted([f"p{n}" for n in range(200)] + [f"c{n}" for n in range(100)])


def test_a_client_for_asyncio_goes_on_in_a_child(shop: Api):
    text = f"""
import asyncio
from hookline.client import AsyncHookline
one = AsyncHookline({url(shop)!r}, {shop.key!r})
asyncio.run(one.publish('order:created', 1, id='parent'))
child = os.fork()
if child == 0:
    asyncio.run(asyncio.wait_for(one.publish('order:created', 2, id='child'), 10))
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
asyncio.run(one.close())
"""
    program(shop, text)
    assert sorted(ids(shop)) == ["child", "parent"]


def test_the_client_loads_nothing_of_the_server_and_no_library():
    text = "import sys, json, hookline.client; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", text],
        env=child_environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    loaded = json.loads(done.stdout)
    ours = [name for name in loaded if name.split(".")[0] == "hookline"]
    assert [name for name in ours if name != "hookline" and not name.startswith("hookline.client")] == []
    assert not {"nats", "msgspec", "starlette", "structlog"}.intersection(loaded)


# --- over NATS -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nats_url() -> Iterator[str]:
    with shared() as address:
        yield address


async def test_over_nats_an_event_goes_into_the_log(nats_url: str, tmp_path: Path):
    async with (
        bus(nats_url, tmp_path, duplicate_window=60.0) as line,
        line.feeding(),
        NatsHookline(nats_url, "shop", prefix=line.names.subject) as hookline,
    ):
        assert await hookline.publish("order.created", {"n": 1}, id="e1", key="k") == Published("e1")
        assert await hookline.publish("order.created", {"n": 1}, id="e1", key="k") == Published(
            "e1", duplicate=True
        )
        results = await hookline.publish_many([hookline.event("stock", n, id=f"s{n}") for n in range(500)])
        assert results == [Published(f"s{n}") for n in range(500)]
        await eventually(line.left, lambda left: left == 0, "the stream is empty")
        found = await line.ids()
        assert sorted(found) == sorted(["e1", *(f"s{n}" for n in range(500))])
        assert line.metrics.bus_dead_letters.value == 0


async def test_over_nats_without_asyncio(nats_url: str, tmp_path: Path):
    async with bus(nats_url, tmp_path) as line:

        def program() -> list[Published | Refused]:
            with SyncNatsHookline(nats_url, "shop", prefix=line.names.subject) as hookline:
                first = hookline.publish("order:created", {"n": 1}, id="e1")
                return [first, *hookline.publish_many([hookline.event("order:paid", {}, id="e2")])]

        assert await asyncio.to_thread(program) == [Published("e1"), Published("e2")]
        async with line.feeding():
            await eventually(line.ids, lambda found: found == ["e1", "e2"], "the events are in the log")


async def test_over_nats_without_a_stream_patience_ends(nats_url: str):
    async with NatsHookline(nats_url, "shop", prefix=f"{Names().subject}", patience=0.5) as hookline:
        with pytest.raises(Unavailable, match="no response from stream") as caught:
            await hookline.publish("order:created", {}, id="e1")
    assert [event.id for event in caught.value.events] == ["e1"]


async def test_over_nats_patience_is_for_each_event_not_for_all(nats_url: str, tmp_path: Path):
    async with (
        bus(nats_url, tmp_path) as line,
        NatsHookline(nats_url, "shop", prefix=line.names.subject, patience=0.4, in_flight=1) as hookline,
    ):
        count = 0
        async with asyncio.timeout(30):
            started = time.monotonic()
            while time.monotonic() - started < 0.5:  # as many as take longer than the patience, and more
                await hookline.publish("order:created", 1)
                count += 1
            results = await hookline.publish_many([hookline.event("stock", n) for n in range(2 * count)])
    assert len(results) == 2 * count
    assert all(isinstance(result, Published) for result in results)


async def test_over_nats_a_client_that_published_nothing_closes(nats_url: str):
    async with NatsHookline(nats_url, "shop"):
        pass


async def test_over_nats_without_patience_there_is_one_try(nats_url: str, tmp_path: Path):
    async with (
        bus(nats_url, tmp_path) as line,
        NatsHookline(nats_url, "shop", prefix=line.names.subject, patience=0) as hookline,
    ):
        assert await hookline.publish("order:created", 1, id="e1") == Published("e1")


async def test_over_nats_a_missing_permission_is_named(tmp_path: Path):
    permissions = '{ publish: ["hookline.events.mart.>"], subscribe: ["_INBOX.>"] }'
    more = f'authorization {{ users: [{{ user: "u", password: "p", permissions: {permissions} }}] }}'
    server = NatsServer(tmp_path, more=more)
    try:
        await server.start()
        async with NatsHookline(
            server.url, "shop", user="u", password="p", patience=0.5, timeout=0.5
        ) as hookline:
            with pytest.raises(Unavailable, match=r"(?i)permissions violation"):
                await hookline.publish("order:created", {}, id="e1")
    finally:
        server.kill()


async def test_over_nats_without_a_server_many_wait_no_longer_than_one(tmp_path: Path):
    server = NatsServer(tmp_path)
    async with NatsHookline(server.url, "shop", patience=0.5, timeout=0.5) as hookline:
        events = [hookline.event("order:created", n) for n in range(600)]
        async with asyncio.timeout(10):
            with pytest.raises(Unavailable) as caught:
                await hookline.publish_many(events)
    assert len(caught.value.events) == 600


async def test_over_nats_what_is_too_large_is_refused(nats_url: str, tmp_path: Path):
    async with (
        bus(nats_url, tmp_path) as line,
        NatsHookline(nats_url, "shop", prefix=line.names.subject) as hookline,
    ):
        with pytest.raises(Refused, match="larger than a message"):
            await hookline.publish("order:created", "x" * (line.nc.max_payload + 1))


async def test_over_nats_a_full_stream_is_waited_for(nats_url: str):
    names = Names()
    async with client(nats_url) as nc, NatsHookline(nats_url, "shop", prefix=names.subject) as hookline:
        js = nc.jetstream()
        await js.add_stream(name=names.stream, subjects=[f"{names.subject}.>"], max_msgs=1, discard="new")
        await hookline.publish("order:created", 1)
        publishing = asyncio.create_task(hookline.publish("order:created", 2, id="e2"))
        await asyncio.wait([publishing], timeout=0.3)
        assert not publishing.done()
        await js.purge_stream(names.stream)
        assert await publishing == Published("e2")
        await names.remove(js)


async def test_over_nats_a_restart_loses_nothing(tmp_path: Path):
    async with (
        single(tmp_path / "nats") as server,
        bus(server.url, tmp_path) as line,
        NatsHookline(server.url, "shop", prefix=line.names.subject, timeout=1) as hookline,
    ):
        sent: list[str] = []

        async def publish() -> None:
            for number in range(300):
                published = await hookline.publish("order:created", number, id=f"e{number}")
                sent.append(published.id)

        publishing = asyncio.create_task(publish())
        while len(sent) < 50:
            await asyncio.sleep(0)
        server.kill()
        await server.start()
        await publishing
        async with line.feeding():
            await eventually(line.left, lambda left: left == 0, "the stream is empty")
        assert await line.ids() == sent


def test_nats_is_only_needed_when_it_is_used():
    import hookline.client

    assert {"NatsHookline", "SyncNatsHookline"} <= set(hookline.client.__all__)
    with pytest.raises(AttributeError):
        _ = hookline.client.Nonsense
    assert hookline.client.NatsHookline.__module__ == "hookline.client.bus"
