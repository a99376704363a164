"""The last gate before a connection: judges the address a socket is about to be opened to."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from ipaddress import ip_address

from hookline.core.address import AddressRule


class Guard:
    """The address rule, and that a webhook must not call the server that sends it.

    ``own_addresses`` are the (IP, port) pairs this server listens on; an unspecified IP means every address
    of this machine. With a proxy, nothing but the proxy is ever connected to: it has to do the guarding.
    """

    def __init__(
        self, rule: AddressRule, own_addresses: Iterable[tuple[str, int]] = (), *, behind_proxy: bool = False
    ) -> None:
        self._rule = rule
        self._own = tuple((ip_address(ip), port) for ip, port in own_addresses)
        self._behind_proxy = behind_proxy

    def refusal(self, ip: str, port: int, *, plain: bool) -> str | None:
        """Why no socket may be opened to this address; None if it may. ``plain``: without encryption."""
        if self._behind_proxy:
            return None
        rule = self._rule
        return rule.refusal(ip, plain=plain) or rule.port_refusal(port) or self._own_refusal(ip, port)

    def _own_refusal(self, ip: str, port: int) -> str | None:
        for own, own_port in self._own:
            if port == own_port and (str(own) == ip or (own.is_unspecified and _is_this_machine(ip))):
                return f"{ip}:{port} is this server itself"
        return None


def _is_this_machine(ip: str) -> bool:
    """Only an address of one's own can be bound to."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((ip, 0))
        except OSError:
            return False
    return True
