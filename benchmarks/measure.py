"""The floor, and our server at full speed: what several parts measure."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from benchmarks.processes import (
    PAYLOAD,
    ROOT,
    Server,
    cpu_seconds,
    free_port,
    load,
    process,
    server,
    wait_for,
)


def machine() -> str:
    """What these figures were measured on."""
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    return f"{os.cpu_count()} x {model}, Linux {platform.release()}, Python {platform.python_version()}"


def accept_floor(seconds: float) -> float:
    """CPU microseconds to accept one event, with nothing behind it."""
    port = free_port()
    with process(sys.executable, "-m", "benchmarks.floor", "accept", str(port)) as child:
        wait_for(port)
        before = cpu_seconds([child.pid])
        count = _count_of_wrk(port, seconds)
        return (cpu_seconds([child.pid]) - before) / count * 1e6


def _count_of_wrk(port: int, seconds: float) -> int:
    answer = subprocess.run(
        ["wrk", "-t1", "-c64", f"-d{seconds:.0f}s", "-s", "benchmarks/publish.lua", f"http://127.0.0.1:{port}/v1/events"],
        check=True, cwd=ROOT, env={**os.environ, "KEY": "none", "BODY": PAYLOAD}, capture_output=True, text=True,
    )  # fmt: skip
    return next(int(line.split()[0]) for line in answer.stdout.splitlines() if "requests in" in line)


def send_floor(port: int, count: int) -> float:
    """CPU microseconds to sign and send one event, with nothing before it."""
    answer = subprocess.run(
        [sys.executable, "-m", "benchmarks.floor", "send", str(port), str(count)],
        check=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": "src"}, capture_output=True, text=True,
    )  # fmt: skip
    return float(answer.stdout)


def saturate(target: Server, seconds: float) -> tuple[float, float, float]:
    """Publish as fast as possible and wait until all is delivered and recorded: events, CPU us each, events/s."""
    first, before, start = target.metric("events_appended"), target.cpu(), time.monotonic()
    load(target.port, target.key, seconds)
    count = target.metric("events_appended") - first
    target.wait_delivered(first + count)
    elapsed = time.monotonic() - start - 1.1
    return count, (target.cpu() - before) / count * 1e6, count / elapsed


class Arrivals(Struct, frozen=True):
    """From publishing to receipt, in milliseconds."""

    rate: float
    p50: float
    p99: float

    def __str__(self) -> str:
        return f"p50 {self.p50:.1f} ms, p99 {self.p99:.1f} ms from publish to receipt at {self.rate:,.0f} events/s"


def arrivals(folder: Path, seconds: int, rate: int, env: Mapping[str, str] | None = None) -> Arrivals:
    """Publish at a rate, and look how long each event takes to its endpoint."""
    port, times = free_port(), folder / "times"
    body = json.loads(PAYLOAD)
    body["data"]["sent"] = 0
    text = json.dumps(body).replace('"sent": 0', '"sent": @SENT@')
    with process(sys.executable, "-m", "benchmarks.receiver", str(port), str(times)):
        wait_for(port)
        with server(folder / "latency", env=env) as target:
            target.create_tenant()
            target.subscribe(f"http://127.0.0.1:{port}/")
            command = [
                sys.executable,
                "-m",
                "benchmarks.load",
                str(target.port),
                str(seconds),
                "32",
                str(rate),
            ]
            environment = {**os.environ, "KEY": target.key, "BODY": text, "PYTHONPATH": "src"}
            answer = subprocess.run(
                command, check=True, cwd=ROOT, env=environment, capture_output=True, text=True
            )
            target.wait_delivered(int(answer.stdout))
    took = sorted(int(line) / 1000 for line in times.read_text().split())
    return Arrivals(int(answer.stdout) / seconds, took[len(took) // 2], took[len(took) * 99 // 100])
