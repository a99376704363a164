"""``benchmarks/run``: what an event costs, beside the floor; how fast it arrives; how cost and memory grow.

CPU time is user and system time of all our processes, all threads, from the kernel's own accounts, divided by the
events that were accepted, delivered and recorded. The floor is measured in the same run, in turns with ours. The
receiver and the load generator run outside our processes, on the same machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import grow
from benchmarks.processes import (
    PAYLOAD,
    ROOT,
    Server,
    cpu_seconds,
    free_port,
    load,
    process,
    receiver,
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


def throughput(folder: Path, options: argparse.Namespace) -> None:
    """Ours beside the floor, in turns."""
    seconds, rounds = (3, 1) if options.quick else (8, 3)
    accepts: list[float] = []
    sends: list[float] = []
    ours: dict[bool, list[tuple[float, float, float]]] = {True: [], False: []}
    with receiver(folder) as port:
        for number in range(rounds):
            accepts.append(accept_floor(seconds))
            sends.append(send_floor(port, 8_000 * seconds))
            for split in (True, False):
                data = folder / f"data-{split}-{number}"
                with server(data, split=split) as target:
                    target.create_tenant()
                    target.subscribe(f"http://127.0.0.1:{port}/")
                    saturate(target, 2)
                    ours[split].append(saturate(target, seconds))
    accept, send = statistics.median(accepts), statistics.median(sends)
    print(
        f"floor: accept {accept:.1f} us + sign and send {send:.1f} us = {accept + send:.1f} us CPU per event"
    )
    for split, name in ((True, "two processes"), (False, "one process")):
        cost = statistics.median(row[1] for row in ours[split])
        rate = statistics.median(row[2] for row in ours[split])
        print(
            f"{name}: {cost:.1f} us CPU per event, {rate:,.0f} events/s accepted, delivered and recorded; "
            f"floor/ours {(accept + send) / cost:.2f}"
        )


def latency(folder: Path, options: argparse.Namespace) -> None:
    """From publishing to receipt, at half of what the machine carries."""
    seconds, rate = (4, 1000) if options.quick else (15, options.rate)
    port, times = free_port(), folder / "times"
    body = json.loads(PAYLOAD)
    body["data"]["sent"] = 0
    text = json.dumps(body).replace('"sent": 0', '"sent": @SENT@')
    with process(sys.executable, "-m", "benchmarks.receiver", str(port), str(times)):
        wait_for(port)
        with server(folder / "latency") as target:
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
    print(
        f"latency at {int(answer.stdout) / seconds:,.0f} events/s: p50 {took[len(took) // 2]:.1f} ms, "
        f"p99 {took[len(took) * 99 // 100]:.1f} ms from publish to receipt ({len(took)} events)"
    )


PARTS: dict[str, Callable[[Path, argparse.Namespace], None]] = {
    "throughput": throughput,
    "latency": latency,
    "fanout": grow.fanout,
    "subscriptions": grow.subscriptions,
    "log": grow.log,
    "backlog": grow.backlog,
}


def main() -> None:
    """Run the parts named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="which parts; default: all")
    parser.add_argument("--quick", action="store_true", help="small counts, for a look")
    parser.add_argument("--rate", type=int, default=3000, help="events a second for the latency part")
    options = parser.parse_args()
    print(machine(), flush=True)
    for name in options.parts or PARTS:
        with tempfile.TemporaryDirectory(prefix="hookline-bench-") as folder:
            PARTS[name](Path(folder), options)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
