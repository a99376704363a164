"""The demo as a user starts it: a real server, receivers in a process of their own, and nothing may be lost."""

import asyncio
import json
import os
import signal
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Any

import pytest


async def start_demo(temporary: Path, *arguments: str) -> Process:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(temporary)}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hookline", "demo", *arguments, stdout=PIPE, stderr=PIPE, env=environment
    )


@pytest.mark.slow
async def test_a_fast_day_loses_nothing(tmp_path: Path):
    demo = await start_demo(tmp_path, "--fast", "--events", "300", "--no-live", "--json")
    output, errors = await asyncio.wait_for(demo.communicate(), 55)
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
    while b"publishing" not in (await asyncio.wait_for(demo.stderr.readline(), 30)):
        assert demo.returncode is None
    children = children_of(demo.pid)
    assert len(children) >= 2
    demo.send_signal(number)
    await asyncio.wait_for(demo.communicate(), 30)
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


async def test_what_makes_no_sense_is_said_at_once():
    demo = await start_demo(Path(tempfile.gettempdir()), "--events", "0")
    _, errors = await asyncio.wait_for(demo.communicate(), 30)
    assert demo.returncode == 2
    assert b"must be between 1 and 100000" in errors
