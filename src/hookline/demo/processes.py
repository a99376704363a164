"""The two child processes, on temporary files and free ports, and their certain end."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from hookline.demo.client import Client, Unreachable
from hookline.demo.receipts import Ports

T = TypeVar("T")

START_SECONDS = 30.0
STOP_SECONDS = 15.0


class ProcessFailed(Exception):
    """A child process did not get ready, or ended early; the message says why."""


class Server(Struct, frozen=True):
    """A running server."""

    port: int
    operator_key: str
    data_dir: Path
    log: Path
    process: Process

    async def during(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of ``work``. Raises ``ProcessFailed`` if the server ends before it does."""
        task = asyncio.ensure_future(work)
        ended = asyncio.ensure_future(self.process.wait())
        try:
            await asyncio.wait({task, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise ProcessFailed(f"the server ended with {self.process.returncode}:\n{tail(self.log)}")
            return task.result()
        finally:
            ended.cancel()
            task.cancel()
            await asyncio.wait({task, ended})


@asynccontextmanager
async def running_server(folder: Path, port: int = 0) -> AsyncGenerator[Server]:
    """``hookline serve`` on an empty data folder inside ``folder``, until the block ends.

    ``port`` of 0 takes a free one. Raises ``ProcessFailed``.
    """
    port, key = _free_port(port), f"demo-{secrets.token_urlsafe(24)}"
    data_dir, log = folder / "data", folder / "server.log"
    data_dir.mkdir()
    environment = _environment(port, key, data_dir)
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "hookline", "serve",
            stdin=DEVNULL, stdout=output, stderr=output, env=environment, cwd=folder, process_group=0,
        )  # fmt: skip
    try:
        await _until_ready(process, port, log)
        yield Server(port, key, data_dir, log, process)
    finally:
        await _stop(process)


def _environment(port: int, key: str, data_dir: Path) -> dict[str, str]:
    """Ours, without settings that are meant for another server."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HOOKLINE_")}
    return kept | {
        "HOOKLINE_HOST": "127.0.0.1",
        "HOOKLINE_PORT": str(port),
        "HOOKLINE_DATA_DIR": str(data_dir),
        "HOOKLINE_OPERATOR_KEY": key,
        "HOOKLINE_ALLOW_NETWORKS": "127.0.0.0/8",
        "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
    }


def _free_port(wanted: int) -> int:
    """The port that is wanted (0: any), if nobody listens there: else theirs would be taken for our server."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError as error:
            raise ProcessFailed(
                f"--port: {wanted} cannot be had ({error.strerror}); give another one, or none for a free one"
            ) from error
        return int(probe.getsockname()[1])


async def _until_ready(process: Process, port: int, log: Path) -> None:
    try:
        async with asyncio.timeout(START_SECONDS), Client(port, timeout=2) as client:
            while not await _is_ready(client):
                if process.returncode is not None:
                    raise ProcessFailed(f"the server ended with {process.returncode}:\n{tail(log)}")
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise ProcessFailed(f"the server was not ready within {START_SECONDS:g} s:\n{tail(log)}") from None


async def _is_ready(client: Client) -> bool:
    try:
        return (await client.send("GET", "/readyz")).status == 200
    except Unreachable:
        return False


def tail(log: Path) -> str:
    """The last lines of a log file, long ones without their middle."""
    lines = log.read_text("utf-8", "replace").splitlines()[-5:]
    return "\n".join(line if len(line) < 800 else f"{line[:150]} … {line[-600:]}" for line in lines)


@asynccontextmanager
async def running_receivers(folder: Path) -> AsyncGenerator[Ports]:
    """The receivers, until the block ends. Raises ``ProcessFailed``."""
    log = folder / "receivers.log"
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "hookline.demo.receivers",
            stdin=PIPE, stdout=PIPE, stderr=errors, process_group=0,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
        )  # fmt: skip
    try:
        yield await _read_ports(process, log)
    finally:
        await _stop(process)


async def _read_ports(process: Process, log: Path) -> Ports:
    assert process.stdout is not None  # noqa: S101  # it was asked for
    try:
        line = await asyncio.wait_for(process.stdout.readline(), START_SECONDS)
        return msgspec.json.decode(line, type=Ports)
    except (TimeoutError, msgspec.DecodeError) as error:
        raise ProcessFailed(f"the receivers did not start:\n{tail(log)}") from error


async def _stop(process: Process) -> None:
    """SIGTERM, and SIGKILL if that is not obeyed in time. Finishes even if we are being cancelled."""
    if process.returncode is not None:
        return
    if process.stdin is not None:
        process.stdin.close()
    process.terminate()
    try:
        await asyncio.shield(asyncio.wait_for(process.wait(), STOP_SECONDS))
    except TimeoutError:
        process.kill()
        await process.wait()
    except asyncio.CancelledError:
        process.kill()
        raise
