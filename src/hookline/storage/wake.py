"""Wake-ups on one machine: within a process, and over a datagram socket between processes.

A wake-up is only a hint. It may be lost; whoever waits looks again after a while in any case.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path


class LocalWake:
    """Wakes whoever waits in this process."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify(self) -> None:
        """See ``Wake``."""
        self._event.set()

    async def wait(self, seconds: float) -> None:
        """See ``Wake``."""
        if not self._event.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._event.wait()
        self._event.clear()


class SocketWake:
    """Wakes the process that listens at ``path``: the delivery process, from the one that accepts events."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)

    def notify(self) -> None:
        """See ``Wake``. Nobody listening, or a full buffer (it will wake anyway), is no fault."""
        with contextlib.suppress(OSError):
            self._socket.sendto(b"\0", self._path)

    async def wait(self, seconds: float) -> None:
        """This end only notifies; it waits for nothing but the time."""
        await asyncio.sleep(seconds)

    def close(self) -> None:
        """Free the socket."""
        self._socket.close()


class WakeListener:
    """Passes wake-ups that arrive at ``path`` on to ``wake``. A socket left by a dead process is replaced."""

    def __init__(self, path: Path, wake: LocalWake) -> None:
        self._wake = wake
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        self._socket.bind(str(path))
        path.chmod(0o600)
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
        self._path.unlink(missing_ok=True)
