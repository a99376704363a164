"""Wake-ups on one machine: within a process, and over datagram sockets between processes.

A wake-up is only a hint. It may be lost; whoever waits looks again after a while in any case.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import time
from collections.abc import Callable, Collection
from pathlib import Path

LOOK_AGAIN = 1.0
"""Seconds after which a new listener is noticed at the latest."""


class LocalBell:
    """One who waits in this process."""

    def __init__(self, closed: Callable[[LocalBell], None]) -> None:
        self._event = asyncio.Event()
        self._closed = closed
        self.ring = self._event.set

    async def wait(self, seconds: float) -> None:
        """See ``Bell``."""
        if not self._event.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._event.wait()
        self._event.clear()

    def close(self) -> None:
        """See ``Bell``."""
        self._closed(self)


class LocalWake:
    """Wakes those who wait in this process."""

    def __init__(self) -> None:
        self._bells: dict[int, set[LocalBell]] = {}

    def notify(self, shards: Collection[int] | None = None) -> None:
        """See ``Wake``."""
        for shard in self._bells if shards is None else shards:
            for bell in self._bells.get(shard, ()):
                bell.ring()

    def listen(self, shard: int) -> LocalBell:
        """See ``Bells``."""
        bells = self._bells.setdefault(shard, set())
        bell = LocalBell(bells.discard)
        bells.add(bell)
        return bell


class _Folder:
    """A folder of sockets. They are reached through its descriptor: the address of a socket holds 107 bytes,
    too few for many a path."""

    def __init__(self, path: Path) -> None:
        path.mkdir(mode=0o700, exist_ok=True)
        self._path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)

    def address(self, name: str) -> str:
        return f"/proc/self/fd/{self._fd}/{name}"

    def names(self) -> list[str]:
        return [entry.name for entry in self._path.iterdir()]

    def knock(self, sender: socket.socket, name: str) -> bool:
        """Wake one listener; False if it is dead, and its socket removed now. A full buffer will wake it anyway."""
        try:
            sender.sendto(b"\0", self.address(name))
        except ConnectionRefusedError:
            self.remove(name)
            return False
        except OSError:
            pass
        return True

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._fd)

    def close(self) -> None:
        os.close(self._fd)


class SocketWake:
    """Wakes all processes that listen in ``folder``: those that deliver, from one that accepts events."""

    def __init__(self, folder: Path) -> None:
        self._folder = _Folder(folder)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._names: list[str] = []
        self._look_at = 0.0

    def notify(self, shards: Collection[int] | None = None) -> None:
        """See ``Wake``; all are woken whatever the shards."""
        now = time.monotonic()
        if now >= self._look_at:
            self._names, self._look_at = self._folder.names(), now + LOOK_AGAIN
        for name in self._names:
            if not self._folder.knock(self._socket, name):
                self._look_at = now

    def close(self) -> None:
        """Free the socket."""
        self._socket.close()
        self._folder.close()


class WakeListener:
    """Passes wake-ups that arrive in ``folder`` on to ``wake``. Each listener has a socket of its own there, so that
    one that waits for its turn, or goes, takes no wake-ups from the one that delivers."""

    def __init__(self, folder: Path, wake: LocalWake) -> None:
        self._wake = wake
        self._folder = _Folder(folder)
        self._name = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        for name in self._folder.names():
            self._folder.knock(self._socket, name)  # and so remove what killed processes left
        self._socket.bind(self._folder.address(self._name))
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._arrived)

    def _arrived(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._socket.recv(16):
                pass
        self._wake.notify()

    def close(self) -> None:
        """Stop listening."""
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()
        self._folder.remove(self._name)
        self._folder.close()
