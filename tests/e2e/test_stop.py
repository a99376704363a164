"""How the server ends: on request, quickly; when it cannot work, with a word and an exit code."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.http import Connection
from tests.support.load import publishing
from tests.support.server import ROOT, Api, ServerProcess, child_environment, running
from tests.support.waiting import until

GRACE = 30.0
SOON = GRACE / 3
"""Stopping takes half a second; more only because the machine may be busy."""
BODY = b'{"type": "order:created", "data": {}}'


@asynccontextmanager
async def shop(tmp_path: Path, **settings: str) -> AsyncGenerator[tuple[ServerProcess, Api]]:
    """A server with the default grace, and a tenant."""
    server = ServerProcess(tmp_path / "data", shutdown_grace=f"{GRACE:g}s", **settings)
    async with running(server):
        yield server, await Api(server).new_tenant("shop")


async def seconds_to_stop(server: ServerProcess) -> float:
    began = time.monotonic()
    assert await server.terminate() == 0
    assert server.complaints() == []
    return time.monotonic() - began


async def test_idle_keep_alive_connections_do_not_delay_the_stop(tmp_path: Path) -> None:
    async with shop(tmp_path) as (server, api):
        connections = [await Connection.open(server.port) for _ in range(20)]
        for connection in connections[:15]:  # the others never say a word
            assert (await connection.request("POST", "/v1/events", BODY, api.headers)).status == 202
        assert await seconds_to_stop(server) < SOON
        assert [await connection.end() for connection in connections] == [b""] * 20
        for connection in connections:
            await connection.close()


async def test_publishers_that_come_again_do_not_delay_the_stop(tmp_path: Path) -> None:
    async with shop(tmp_path) as (server, api), publishing(server, api, 20, pace=0.001) as load:
        await load.more(200)
        assert await seconds_to_stop(server) < SOON
        await server.start()
        await load.more(20)


@pytest.mark.parametrize("sent", ["half a body", "many requests, and reads no answer"])
async def test_clients_that_keep_us_waiting_do_not_use_up_the_grace(tmp_path: Path, sent: str) -> None:
    async with shop(tmp_path) as (server, api):
        with closing(socket.create_connection(("127.0.0.1", server.port))) as client:
            client.setblocking(False)
            lines = "".join(f"{name}: {value}\r\n" for name, value in api.headers.items())
            if sent == "half a body":
                head = f"POST /v1/events HTTP/1.1\r\nHost: x\r\n{lines}Content-Length: {len(BODY)}\r\n\r\n"
                client.send(head.encode() + BODY[:9])
            else:
                client.send(f"GET /openapi.json HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode() * 200)
            assert (await api.call("GET", "/v1/whoami")).status == 200  # so the other one has been read
            assert await seconds_to_stop(server) < GRACE / 2


async def test_a_request_that_is_being_answered_gets_its_answer(tmp_path: Path) -> None:
    """A test delivery takes as long as its endpoint."""
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        arrived.set()
        await go_on.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    async with shop(tmp_path) as (server, api), await asyncio.start_server(answer, "127.0.0.1", 0) as slow:
        port = slow.sockets[0].getsockname()[1]
        subscription = await api.subscribe(f"http://127.0.0.1:{port}/")
        trial = asyncio.create_task(api.post(f"/v1/subscriptions/{subscription}/test", {}))
        await asyncio.wait_for(arrived.wait(), 60)
        server.signal(signal.SIGTERM)
        await until(lambda: '"event": "stopping"' in server.tail(), "it is stopping")
        go_on.set()
        assert (await asyncio.wait_for(trial, 60))["accepted"]
        await until(lambda: not server.alive, "it has ended")
        assert server.process.returncode == 0


async def test_a_second_interrupt_ends_it_at_once(tmp_path: Path) -> None:
    async with shop(tmp_path) as (server, api):
        with closing(socket.create_server(("127.0.0.1", 0))) as silent:
            await api.subscribe(f"http://127.0.0.1:{silent.getsockname()[1]}/")
            await api.publish({"type": "order:created", "data": {}})
            silent.settimeout(60)
            delivery, _ = await asyncio.to_thread(silent.accept)  # under way, and it will not end
            server.signal(signal.SIGINT)
            await until(lambda: '"event": "stopping"' in server.tail(), "it is stopping")
            server.signal(signal.SIGINT)
            await until(lambda: not server.alive, "it has ended", SOON)
            assert server.process.returncode == 130
            delivery.close()


# --- when it cannot work


def serve(
    folder: Path, program: str = "from hookline.cli import main; main(['serve'])", **settings: str
) -> str:
    """The standard error of a server that ends by itself with 1."""
    given = {f"HOOKLINE_{name.upper()}": value for name, value in settings.items()}
    ended = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, timeout=150, text=True,
        cwd=ROOT, env=child_environment(HOOKLINE_DATA_DIR=str(folder / "data"), **given),
    )  # fmt: skip
    assert ended.returncode == 1, ended
    return ended.stderr


@contextmanager
def taken_port(host: str = "127.0.0.1") -> Generator[int]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with closing(socket.create_server((host, 0), family=family)) as other:
        yield other.getsockname()[1]


def test_a_port_in_use_is_told_in_one_line(tmp_path: Path) -> None:
    with taken_port() as port:
        assert serve(tmp_path, port=str(port)) == (
            f"hookline: cannot listen on 127.0.0.1:{port}: another program listens there; "
            "HOOKLINE_HOST and HOOKLINE_PORT say where to listen\n"
        )
        assert not (tmp_path / "data").exists()  # nothing was begun


def test_so_is_the_port_of_a_process_that_delivers(tmp_path: Path) -> None:
    with taken_port() as port:
        said = serve(tmp_path, role="delivery", metrics_port=str(port))
    assert said.count("\n") == 1
    assert f"127.0.0.1:{port}" in said
    assert "HOOKLINE_METRICS_PORT" in said


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("192.0.2.1", "192.0.2.1:8480: this machine does not have that address"),
        ("no-such-host.invalid", "no-such-host.invalid:8480: there is no such host name"),
        ("2001:db8::1", "[2001:db8::1]:8480: this machine does not have that address"),
    ],
)
def test_a_host_that_is_not_ours_is_told(tmp_path: Path, host: str, reason: str) -> None:
    assert f"cannot listen on {reason}; HOOKLINE_HOST" in serve(tmp_path, host=host)


def test_every_address_of_a_name_is_listened_on(tmp_path: Path) -> None:
    """``localhost`` may be two addresses; both get the same port."""
    from hookline.api.listen import bind

    with ExitStack() as opened:
        sockets = [opened.enter_context(closing(one)) for one in bind("localhost", 0)]
        names = {one[4][0] for one in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)}
        assert {one.getsockname()[0] for one in sockets} == names
        assert len({one.getsockname()[1] for one in sockets}) == 1


SABOTAGE = """
import asyncio
from hookline.{module} import {name}

async def broken(*_):
    await asyncio.sleep(0.1)
    {end}

{target} = broken
from hookline.cli import main
main(["serve"])
"""


FAULT, RETURN, CANCEL = "raise RuntimeError('a fault of ours')", "return", "raise asyncio.CancelledError"


@pytest.mark.parametrize(
    ("task", "module", "target", "end"),
    [
        ("publisher", "engine.publish", "Publisher.run", FAULT),
        ("publisher", "engine.publish", "Publisher.run", RETURN),
        ("worker", "engine.dispatch.worker", "Worker.run", CANCEL),
        ("worker", "engine.dispatch.feeder", "Feeder.follow", FAULT),
        ("http", "api.listen", "HttpServer.run", RETURN),
    ],
)
def test_the_process_does_not_outlive_a_task(
    tmp_path: Path, task: str, module: str, target: str, end: str
) -> None:
    name = target.partition(".")[0]
    said = serve(tmp_path, SABOTAGE.format(module=module, name=name, target=target, end=end), port="0")
    (line,) = [line for line in said.splitlines() if "task_died" in line]
    entry: dict[str, Any] = json.loads(line)
    assert (entry["level"], entry["task"]) == ("error", task)
    assert ("a fault of ours" in entry.get("exception", "")) == (end == FAULT)
