"""The real server as a child process, and a client of its API."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.http import PATIENCE, Answer, Connection
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
OPERATOR_KEY = "operator-key-of-the-tests"
START_SECONDS = 60.0
STOP_SECONDS = 60.0


def child_environment(**variables: str) -> dict[str, str]:
    """The environment of a child process: ours without settings of Hookline, and what is given."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HOOKLINE_")}
    return inherited | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"} | variables


class ServerProcess:
    """``python -m hookline serve``, to be started, killed, stopped and started again on the same data folder.

    ``settings`` are those of Hookline, in lower case without their prefix. Each start takes a free port.
    """

    def __init__(self, data_dir: Path, role: str = "all", **settings: str) -> None:
        self.data_dir = data_dir
        self.role = role
        self.port = 0
        self.log = data_dir.with_name(f"{data_dir.name}-{role}-{id(self):x}.log")
        self.settings = {
            "role": role,
            "port": "0",
            "metrics_port": "0",
            "data_dir": str(data_dir),
            "operator_key": OPERATOR_KEY,
            "allow_networks": "127.0.0.0/8",
            "log_format": "json",
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Return once it answers. Fails with the end of its log if it does not."""
        given = {f"HOOKLINE_{name.upper()}": value for name, value in self.settings.items()}
        seen = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "hookline", "serve"],
                cwd=ROOT, env=child_environment(**given), stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        await until(
            lambda: self._started(seen) or not self.alive, lambda: f"started\n{self.tail()}", START_SECONDS
        )
        assert self.alive, f"the server ended with {self.process.returncode}:\n{self.tail()}"

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "it was never started"
        return self._process

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _started(self, seen: int) -> bool:
        with self.log.open("rb") as log:
            log.seek(seen)
            for line in log:
                if b'"event": "started"' in line and line.endswith(b"\n"):
                    self.port = json.loads(line)["port"]
                    return True
        return False

    def tail(self, size: int = 4000) -> str:
        """The end of its log."""
        return self.log.read_text("utf-8", "replace")[-size:]

    def complaints(self) -> list[str]:
        """Lines of its log that no test provokes: tracebacks and unforeseen errors."""
        lines = self.log.read_text("utf-8", "replace").splitlines()
        return [line for line in lines if "Traceback" in line or '"level": "error"' in line]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """Kill -9, and wait until the kernel has buried it."""
        self.process.kill()
        self.process.wait(STOP_SECONDS)

    async def terminate(self) -> int:
        """SIGTERM; the exit code."""
        self.signal(signal.SIGTERM)
        await until(lambda: not self.alive, lambda: f"ended after SIGTERM\n{self.tail()}", STOP_SECONDS)
        return self.process.returncode

    def bury(self) -> None:
        """The end of it, whatever state it is in."""
        if self.alive:
            self.kill()


@asynccontextmanager
async def running(*servers: ServerProcess) -> AsyncGenerator[None]:
    """Start all, and leave none behind."""
    try:
        for server in servers:
            await server.start()
        yield
    finally:
        for server in servers:
            server.bury()


class Api:
    """The API of a server process, through whatever port it has at present."""

    def __init__(self, server: ServerProcess, key: str = OPERATOR_KEY, tenant: str = "") -> None:
        self.server = server
        self.headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        if tenant:
            self.headers["Hookline-Tenant"] = tenant

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        patience: float = PATIENCE,
    ) -> Answer:
        """One request on a connection of its own. ``body`` is sent as JSON; bytes are sent as they are.

        Raises ``TimeoutError`` after ``patience`` seconds.
        """
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection = await Connection.open(self.server.port)
        try:
            async with asyncio.timeout(patience):
                return await connection.request(method, path, raw, {**self.headers, **(headers or {})})
        finally:
            await connection.close()

    async def get(self, path: str) -> Any:
        """The JSON of a good answer."""
        return await self._good("GET", path)

    async def post(self, path: str, body: object = None) -> Any:
        """The JSON of a good answer."""
        return await self._good("POST", path, body)

    async def patch(self, path: str, body: object) -> Any:
        """The JSON of a good answer."""
        return await self._good("PATCH", path, body)

    async def _good(self, method: str, path: str, body: object = None) -> Any:
        answer = await self.call(method, path, body)
        assert answer.status < 300, f"{method} {path}: {answer.status} {answer.body[:2000]!r}"
        return answer.json

    async def listing(self, path: str, page: int = 200) -> list[Any]:
        """All entries of a list, page by page."""
        entries: list[Any] = []
        cursor, joint = "", "&" if "?" in path else "?"
        while True:
            answer = await self.get(f"{path}{joint}limit={page}" + (f"&cursor={cursor}" if cursor else ""))
            entries += answer["data"]
            cursor = answer["next"]
            if not cursor:
                return entries

    async def new_tenant(self, tenant: str) -> Api:
        """Make a tenant; its own API, with the tenant's key."""
        made = await self.post("/v1/tenants", {"id": tenant, "name": tenant})
        return Api(self.server, made["api_key"])

    async def subscribe(self, url: str, **fields: object) -> str:
        """Make a subscription; its id."""
        made = await self.post("/v1/subscriptions", {"url": url, **fields})
        return made["id"]

    async def publish(self, event: Mapping[str, object]) -> Any:
        """Publish one event; the answer's JSON."""
        return await self.post("/v1/events", event)

    async def metric(self, name: str) -> float:
        """The value of a metric without labels."""
        operator = Api(self.server)
        answer = await operator.call("GET", "/metrics")
        assert answer.status == 200, answer
        lines = (line.split(" ") for line in answer.body.decode().splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in lines}[f"hookline_{name}"]
