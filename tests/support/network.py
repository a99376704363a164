"""A network of its own for one process, with one cable to the database that can be pulled out.

Inside, the process reaches the database at ``HERE`` over the cable, and services of the tests at the ports of 127.0.0.1
that they have outside: those are not at the other end of the cable.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Generator
from contextlib import contextmanager

HERE, THERE = "10.213.17.1", "10.213.17.2"
"""Our end of the cable, and that of the process."""
_CLONE_NEWNET = 0x40000000
_SECONDS = 10


class Namespace:
    """A network namespace, by its name. Making one needs to be root."""

    def __init__(self) -> None:
        self.name = f"hookline-{os.getpid()}"
        self._cable = f"hl{os.getpid()}"

    def make(self) -> None:
        """With the cable plugged in."""
        _ip("netns", "add", self.name)
        _ip("link", "add", self._cable, "type", "veth", "peer", "name", f"{self._cable}x")
        _ip("link", "set", f"{self._cable}x", "netns", self.name)
        _ip("addr", "add", f"{HERE}/30", "dev", self._cable)
        _ip("-n", self.name, "addr", "add", f"{THERE}/30", "dev", f"{self._cable}x")
        _ip("-n", self.name, "link", "set", f"{self._cable}x", "up")
        _ip("-n", self.name, "link", "set", "lo", "up")
        self.plug(inside=True)

    def plug(self, *, inside: bool) -> None:
        """Put our end of the cable in, or pull it out."""
        _ip("link", "set", self._cable, "up" if inside else "down")

    def listen_here(self) -> socket.socket:
        """A socket that listens at our end of the cable."""
        return socket.create_server((HERE, 0))

    def listen(self, port: int) -> socket.socket:
        """A socket that listens on a port of 127.0.0.1 in there."""
        made: list[socket.socket] = []
        thread = threading.Thread(target=self._listen, args=(port, made))
        thread.start()
        thread.join(_SECONDS)
        assert made, f"no socket in {self.name}"
        return made[0]

    def _listen(self, port: int, made: list[socket.socket]) -> None:
        """A socket belongs to the network in which its thread was when it made it."""
        with open(f"/run/netns/{self.name}", "rb") as namespace:  # noqa: PTH123 - its descriptor is needed
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.setns(namespace.fileno(), _CLONE_NEWNET) == 0:
                made.append(socket.create_server(("127.0.0.1", port)))

    def remove(self) -> None:
        """However far ``make`` came."""
        for command in (("link", "del", self._cable), ("netns", "del", self.name)):
            subprocess.run(["ip", *command], check=False, capture_output=True, timeout=_SECONDS)

    def command(self) -> tuple[str, ...]:
        """What a command line begins with that shall run in there."""
        return ("ip", "netns", "exec", self.name)


def _ip(*args: str) -> None:
    done = subprocess.run(["ip", *args], check=False, capture_output=True, text=True, timeout=_SECONDS)
    assert done.returncode == 0, f"ip {' '.join(args)}: {done.stderr}"


@contextmanager
def namespace() -> Generator[Namespace]:
    """A namespace until the end of the block."""
    made = Namespace()
    try:
        made.make()
        yield made
    finally:
        made.remove()


def is_allowed() -> bool:
    """Whether this machine lets us make one."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    try:
        with namespace():
            return True
    except (AssertionError, OSError, subprocess.SubprocessError):
        return False
