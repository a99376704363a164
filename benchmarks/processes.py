"""The processes of a benchmark: our server, the receiver, the load; and the CPU time they use."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
OPERATOR = "operator-key-of-the-benchmark"
PAYLOAD = json.dumps(
    {
        "type": "order:created",
        "data": {
            "unique_id": "100000015",
            "stock_adjustments": {"sku123": {"qty_adjust": -5, "qty_available": 95}},
            "note": "x" * 560,
        },
    }
)
"""One event as it is published, about 700 bytes."""
_TICKS = os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """A TCP port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def cpu_seconds(pids: Sequence[int], *, ended: bool = False) -> float:
    """User and system time that these processes have used, all threads; and their children that have ``ended``."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += sum(map(int, fields[11 : 15 if ended else 13]))
    return total / _TICKS


def resident_mb(pid: int) -> float:
    """Memory of a process that is in RAM."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def wait_for(port: int, seconds: float = 30.0) -> None:
    """Return once something listens."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens on port {port}")


@contextmanager
def process(*command: str, env: dict[str, str] | None = None) -> Generator[subprocess.Popen[bytes]]:
    """A child process that is stopped at the end."""
    child = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "src", **(env or {})},
        stdout=subprocess.DEVNULL,
        stderr=None if os.environ.get("BENCH_VERBOSE") else subprocess.DEVNULL,
    )
    try:
        yield child
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@contextmanager
def receiver(folder: Path, listeners: int = 1) -> Generator[int]:
    """An endpoint that answers 200 at once: nginx if it is installed, else a lean stand-in. Gives its port."""
    port = free_port()
    if shutil.which("nginx"):
        config = folder / "nginx.conf"
        config.write_text(
            f"daemon off; worker_processes {listeners}; pid {folder}/nginx.pid; error_log {folder}/error.log crit;"
            "events { worker_connections 8192; } http { access_log off; keepalive_requests 1000000000;"
            f"keepalive_timeout 1h; client_body_temp_path {folder}/body; proxy_temp_path {folder}/p;"
            f"fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;"
            f"server {{ listen 127.0.0.1:{port}; location / {{ return 200; }} }} }}"
        )
        command = ["nginx", "-c", str(config), "-p", str(folder)]
    else:
        command = [sys.executable, "-m", "benchmarks.receiver", str(port)]
    with process(*command):
        wait_for(port)
        yield port


class Server:
    """Our server: one process, or one that accepts and others that deliver. ``ports``: of each, the API's first."""

    def __init__(self, ports: Sequence[int], children: Sequence[subprocess.Popen[bytes]]) -> None:
        self.port = ports[0]
        self.url = f"http://127.0.0.1:{self.port}"
        self._metrics = [f"http://127.0.0.1:{port}/metrics" for port in ports]
        self.pids = [child.pid for child in children]
        self.key = OPERATOR

    def call(self, method: str, path: str, body: object = None, key: str = "") -> Any:
        """One request of the API."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {key or self.key}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or b"null")

    def create_tenant(self, tenant_id: str = "bench") -> str:
        """A tenant; gives its key, which is used from now on."""
        self.key = self.call("POST", "/v1/tenants", {"id": tenant_id, "name": tenant_id}, OPERATOR)["api_key"]
        return self.key

    def subscribe(self, url: str, events: Sequence[str] = ("order:*",), **more: object) -> str:
        """A subscription; gives its id."""
        return self.call("POST", "/v1/subscriptions", {"url": url, "events": list(events), **more})["id"]

    def metric(self, name: str) -> float:
        """A counter, over all our processes."""
        total = 0.0
        for url in self._metrics:
            request = urllib.request.Request(url, headers={"Authorization": f"Bearer {OPERATOR}"})
            with urllib.request.urlopen(request, timeout=60) as answer:
                for line in answer.read().decode().splitlines():
                    if line.startswith((f"hookline_{name}_total ", f"hookline_{name} ")):
                        total += float(line.split()[1])
        return total

    def wait_delivered(self, count: float, seconds: float = 600.0) -> None:
        """Return once so many deliveries succeeded and were recorded."""
        deadline = time.monotonic() + seconds
        while self.metric("deliveries_succeeded") < count or self.metric("outcomes_unrecorded") > 0:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.metric('deliveries_succeeded'):.0f} of {count:.0f} delivered")
            time.sleep(0.1)
        time.sleep(1.1)

    def cpu(self) -> float:
        """CPU seconds of all our processes."""
        return cpu_seconds(self.pids)


@contextmanager
def server(
    folder: Path, *, split: bool = True, deliveries: int = 1, env: Mapping[str, str] | None = None
) -> Generator[Server]:
    """Our server on a data folder, with fsync as in production. Not ``split``, one process does everything."""
    roles = ["api", *["delivery"] * deliveries] if split else ["all"]
    ports = [free_port() for _ in roles]
    settings = {
        "HOOKLINE_HOST": "127.0.0.1",
        "HOOKLINE_PORT": str(ports[0]),
        "HOOKLINE_DATA_DIR": str(folder),
        "HOOKLINE_OPERATOR_KEY": OPERATOR,
        "HOOKLINE_ALLOW_NETWORKS": "127.0.0.0/8",
        "HOOKLINE_LOG_LEVEL": "warning",
        **(env or {}),
    }
    with ExitStack() as stack:
        children: list[subprocess.Popen[bytes]] = []
        for role, port in zip(roles, ports, strict=True):
            command = [sys.executable, "-m", "hookline", "serve", "--role", role]
            child = process(*command, env={**settings, "HOOKLINE_METRICS_PORT": str(port)})
            children.append(stack.enter_context(child))
            wait_for(port)
        yield Server(ports, children)


def load(port: int, key: str, seconds: float, connections: int = 64) -> None:
    """Publish as fast as it is accepted: wrk if it is installed, else a lean stand-in. ``key``: one, or several parted
    by commas, which take turns."""
    if shutil.which("wrk"):
        script = ROOT / "benchmarks" / "publish.lua"
        command = [
            "wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "-s", str(script),
            f"http://127.0.0.1:{port}/v1/events",
        ]  # fmt: skip
    else:
        command = [sys.executable, "-m", "benchmarks.load", str(port), str(seconds), str(connections)]
    subprocess.run(
        command,
        check=True,
        cwd=ROOT,
        env={**os.environ, "KEY": key, "BODY": PAYLOAD},
        stdout=subprocess.DEVNULL,
    )
