"""What holds for every test: sockets reach this machine only, and no setting leaks in from outside."""

import ipaddress
import os
import socket
import sys

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "hookline",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
settings.load_profile("hookline")
"""Whether a property holds does not depend on how busy the machine is, nor on how lucky the generator."""


class OutsideWorld(RuntimeError):
    """A test tried to leave the machine. Start a server of its own on 127.0.0.1 and use that."""


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"


def _loopback_only(event: str, args: tuple[object, ...]) -> None:
    """Guards what Python's own sockets connect or send to, in every thread, whoever made them.

    libcurl and uvloop open sockets without Python: there the sender's address guard decides, and tests start
    their servers on loopback addresses.
    """
    if event not in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        return
    sock, address = args
    inet = isinstance(sock, socket.socket) and sock.family in (socket.AF_INET, socket.AF_INET6)
    if inet and isinstance(address, tuple) and not _is_loopback(str(address[0])):
        raise OutsideWorld(f"a test tried to reach {address}: tests may only use loopback addresses")


sys.addaudithook(_loopback_only)


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The developer's own HOOKLINE_* variables must not decide how a test ends."""
    for name in [name for name in os.environ if name.startswith("HOOKLINE_")]:
        monkeypatch.delenv(name)
