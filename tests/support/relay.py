"""``hookline relay`` as a process that can be killed: from outside at any time, or by itself at a given step.

``python -m tests.support.relay <outbox> <url> <key> [<step> <number>]``: at the ``number``-th time that it has come to
the step, it kills itself as kill -9 does.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from hookline.cli.relay import relay
from hookline.sources import outbox as parts
from tests.support.server import ROOT, STOP_SECONDS, child_environment
from tests.support.waiting import until

STEPS = ("opened", "leading", "read", "published", "removed", "buried")
BATCH = 20


class RelayProcess:
    """A relay to be started, killed and started again. ``dead_at`` names the step and the number of it."""

    def __init__(self, folder: Path, outbox: str, url: Callable[[], str], key: str) -> None:
        self.log = folder / "relay.log"
        self._outbox = outbox
        self._url = url
        self._key = key
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *dead_at: str) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.relay", self._outbox, self._url(), self._key, *dead_at],
                cwd=ROOT, env=child_environment(), stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    async def killed_itself(self) -> None:
        """Return once it is dead by its own hand."""
        await until(lambda: not self.alive, lambda: f"it came to its step\n{self.tail()}")
        assert self._process is not None
        assert self._process.returncode == -signal.SIGKILL, self.tail()

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(STOP_SECONDS)

    async def terminate(self) -> int:
        """SIGTERM; the exit code."""
        assert self._process is not None
        self._process.terminate()
        await until(lambda: not self.alive, lambda: f"ended after SIGTERM\n{self.tail()}", STOP_SECONDS)
        return self._process.returncode

    def beginnings(self) -> int:
        """How often its log tells that it began to work."""
        return self.log.read_text().count("outbox_relaying") if self.log.exists() else 0

    def tail(self) -> str:
        return self.log.read_text("utf-8", "replace")[-4000:]


@asynccontextmanager
async def relay_process(
    folder: Path, outbox: str, url: Callable[[], str], key: str
) -> AsyncGenerator[RelayProcess]:
    """One that is not started yet, and is not left behind."""
    made = RelayProcess(folder, outbox, url, key)
    try:
        yield made
    finally:
        if made.alive:
            made.kill()


# --- in the process


class Deadly:
    """Does what its inner part does, and dies after one of its methods at a given time."""

    def __init__(self, inner: Any, names: dict[str, str], step: str, number: int) -> None:
        self._inner = inner
        self._names = names
        self._step = step
        self._left = number

    def __getattr__(self, name: str) -> Any:
        method: Callable[..., Awaitable[Any]] = getattr(self._inner, name)
        if self._names.get(name) != self._step:
            return method

        async def deadly(*arguments: Any) -> Any:
            result = await method(*arguments)
            if result is None or result:
                self._left -= 1
            if not self._left:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return deadly


OF_OUTBOX = {"open": "opened", "lead": "leading", "read": "read", "remove": "removed", "bury": "buried"}
OF_TARGET = {"publish": "published"}


def make_deadly(step: str, number: int) -> None:
    """Put ourselves between the relay and its parts."""
    open_outbox, target = parts.open_outbox, parts.HttpTarget
    parts.open_outbox = lambda options: Deadly(open_outbox(options), OF_OUTBOX, step, number)
    parts.HttpTarget = lambda *given: Deadly(target(*given), OF_TARGET, step, number)


def main(outbox: str, url: str, key: str, *dead_at: str) -> int:
    if dead_at:
        make_deadly(dead_at[0], int(dead_at[1]))
    return relay(outbox=outbox, to=url, key=key, poll=0.02, batch=BATCH)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
