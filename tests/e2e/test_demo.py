"""The demo as a user starts it: a real server, receivers in a process of their own, and nothing may be lost."""

import asyncio
import json
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Any

import pytest

from hookline.demo import options_of


async def start_demo(temporary: Path, *arguments: str) -> Process:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(temporary)}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hookline", "demo", *arguments, stdout=PIPE, stderr=PIPE, env=environment
    )


@pytest.mark.slow
async def test_a_fast_day_loses_nothing(tmp_path: Path):
    demo = await start_demo(tmp_path, "--fast", "--events", "300", "--no-live", "--json")
    output, errors = await asyncio.wait_for(demo.communicate(), 150)
    report: dict[str, Any] = json.loads(output or "{}")
    assert demo.returncode == 0, f"{report.get('faults')}\n{errors.decode()}"
    assert report["ok"]
    assert report["faults"] == []
    assert report["published"] == 300
    assert report["delivered"] == report["verified"] == report["expected"] > 600
    assert report["duplicates_sent"] == report["duplicates_refused"] > 0
    assert report["gaps"] == report["disordered"] == 0
    assert report["retries"] > 0
    assert all(row["log_agrees"] for row in report["rows"])
    assert is_empty(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupted_demo_leaves_nothing_behind(tmp_path: Path, number: signal.Signals):
    demo = await start_demo(tmp_path, "--events", "300", "--no-live")
    assert demo.stderr
    while b"publishing" not in (await asyncio.wait_for(demo.stderr.readline(), 60)):
        assert demo.returncode is None
    children = children_of(demo.pid)
    assert len(children) >= 2
    demo.send_signal(number)
    await asyncio.wait_for(demo.communicate(), 60)
    assert demo.returncode == 128 + number
    assert not any(is_alive(child) for child in children)
    assert is_empty(tmp_path)


def children_of(pid: int) -> list[int]:
    listing = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii")
    return [int(child) for child in listing.split()]


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def is_empty(folder: Path) -> bool:
    return not list(folder.iterdir())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--events", "0"], "--events: must be a number from 1 to 100000"),
        (["--events", "many"], "--events: must be a number from 1 to 100000"),
        (["--seconds", "nan"], "--seconds: must be a number from 0 to 3600"),
        (["--port", "99999"], "--port: must be a number from 0 to 65535"),
        (["--svg", "/nowhere/day.svg"], "--svg: /nowhere/day.svg cannot be written"),
    ],
)
def test_what_makes_no_sense_is_said_at_once(
    arguments: list[str], told: str, capfd: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as ended:
        options_of(arguments)
    assert ended.value.code == 2
    assert told in capfd.readouterr().err


async def test_the_server_of_somebody_else_is_left_alone(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        demo = await start_demo(tmp_path, "--events", "1", "--port", str(other.getsockname()[1]))
        _, errors = await asyncio.wait_for(demo.communicate(), 60)
        other.setblocking(False)
        with pytest.raises(BlockingIOError):  # nobody called
            other.accept()
    assert demo.returncode == 1
    assert b"cannot be had (Address already in use)" in errors
