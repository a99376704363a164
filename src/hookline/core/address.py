"""Which targets may be called: the form of a URL, and the addresses behind it.

A URL is judged once when it is stored (``check_url``), and every address that a connection is about to be
opened to is judged again (``AddressRule.refusal``): names can change what they resolve to at any time. The
ranges are the union of the IANA special-purpose registries and of what known request forgeries used.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from ipaddress import (
    AddressValueError,
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import NoReturn

import idna

from hookline.core.errors import AddressRefused, Fault

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MAX_URL = 2048
MAX_HOST = 253  # RFC 1035 §2.3.4, in text form

# fmt: off
BLOCKED_PORTS = frozenset((
    # "Bad ports" of the WHATWG Fetch standard: services that could take HTTP for their own protocol.
    1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104,
    109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515,
    526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049,
    3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080,
    # Databases, caches, brokers, and control planes that are often open on the inside.
    445, 873, 1433, 1521, 2181, 2375, 2376, 2379, 2380, 3306, 3389, 4222, 5432, 5672, 5900, 6379, 6443, 7001,
    9042, 9092, 9200, 9300, 10250, 11211, 27017, 27018, 27019,
))
# fmt: on

_REFUSED: tuple[tuple[Network, str], ...] = tuple(
    (ip_network(network), reason)
    for network, reason in (
        ("0.0.0.0/8", "an address of this machine's own network (RFC 1122)"),
        ("10.0.0.0/8", "a private address (RFC 1918)"),
        ("100.100.100.200/32", "a cloud's metadata service"),
        ("100.64.0.0/10", "a carrier's shared address (RFC 6598)"),
        ("127.0.0.0/8", "a loopback address (RFC 1122)"),
        ("168.63.129.16/32", "a cloud's internal service address"),
        ("169.254.169.254/32", "a cloud's metadata service"),
        ("169.254.170.2/32", "a cloud's metadata service"),
        ("169.254.0.0/16", "a link-local address (RFC 3927)"),
        ("172.16.0.0/12", "a private address (RFC 1918)"),
        ("192.0.0.0/24", "a protocol assignment (RFC 6890)"),
        ("192.0.2.0/24", "a documentation address (RFC 5737)"),
        ("192.88.99.0/24", "a 6to4 relay (RFC 7526)"),
        ("192.168.0.0/16", "a private address (RFC 1918)"),
        ("198.18.0.0/15", "a benchmarking address (RFC 2544)"),
        ("198.51.100.0/24", "a documentation address (RFC 5737)"),
        ("203.0.113.0/24", "a documentation address (RFC 5737)"),
        ("224.0.0.0/4", "a multicast address (RFC 5771)"),
        ("255.255.255.255/32", "the broadcast address (RFC 919)"),
        ("240.0.0.0/4", "a reserved address (RFC 1112)"),
        ("::/128", "the unspecified address (RFC 4291)"),
        ("::1/128", "the loopback address (RFC 4291)"),
        ("::/96", "an IPv4 address in IPv6 form (RFC 4291)"),
        ("64:ff9b::/96", "an IPv4 address behind NAT64 (RFC 6052)"),
        ("64:ff9b:1::/48", "an IPv4 address behind NAT64 (RFC 8215)"),
        ("100::/64", "a discard address (RFC 6666)"),
        ("2001::/32", "an IPv4 address behind Teredo (RFC 4380)"),
        ("2001::/23", "a protocol assignment (RFC 2928)"),
        ("2001:db8::/32", "a documentation address (RFC 3849)"),
        ("2002::/16", "an IPv4 address behind 6to4 (RFC 3056)"),
        ("3fff::/20", "a documentation address (RFC 9637)"),
        ("5f00::/16", "a segment routing address (RFC 9602)"),
        ("fd00:ec2::254/128", "a cloud's metadata service"),
        ("fc00::/7", "a private address (RFC 4193)"),
        ("fe80::/10", "a link-local address (RFC 4291)"),
        ("fec0::/10", "a site-local address (RFC 3879)"),
        ("ff00::/8", "a multicast address (RFC 4291)"),
    )
)
"""The first that fits gives the reason, so single addresses stand before the range around them."""

_GLOBAL_UNICAST = ip_network("2000::/3")
"""The only part of IPv6 given out for the public Internet (IANA, IPv6 Address Space)."""

_MAPPED = IPv6Network("::ffff:0:0/96")
_COMPATIBLE = IPv6Network("::/96")
_NAT64 = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))

_INTERNAL_NAMES = frozenset(
    ("local", "internal", "localdomain", "lan", "home", "home.arpa", "intranet", "private", "corp", "svc")
)
"""Ends of names that mean something inside a network only (RFC 6762, RFC 8375, ICANN's list, clusters)."""


class AddressRule:
    """The ranges that may not be called, less the networks that the operator opened.

    ``allow``: each network opens exactly itself; one in IPv4-mapped form means the IPv4 network.
    ``allow_http``: plain HTTP is accepted everywhere; otherwise only inside ``allow``.
    ``open_ports``: ports to accept although they are in ``BLOCKED_PORTS``.
    """

    def __init__(
        self, allow: Iterable[Network] = (), *, allow_http: bool = False, open_ports: Collection[int] = ()
    ) -> None:
        self.allow = tuple(_unmapped(network) for network in allow)
        self.allow_http = allow_http
        self._blocked_ports = BLOCKED_PORTS - frozenset(open_ports)
        self.opens_loopback = any(
            network.overlaps(loopback)
            for network in self.allow
            for loopback in (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
            if type(network) is type(loopback)
        )

    def refusal(self, ip: str, *, plain: bool = False) -> str | None:
        """Why no connection may go to this address; None if it may. ``plain``: it would not be encrypted."""
        try:
            address = ip_address(ip)
        except ValueError:
            return f"{ip[:80]!r} is not an IP address"
        if isinstance(address, IPv6Address) and address.scope_id is not None:
            return f"{ip[:80]} has a zone: it means something on one machine only"
        if reason := self._judge(address):
            return reason
        if plain and not self.allow_http and not self._is_allowed(address):
            return f"{ip} would be called without encryption (http://), which is for allowed networks only"
        return None

    def port_refusal(self, port: int) -> str | None:
        """Why no connection may go to this port; None if it may."""
        if not 0 < port < 65536:
            return f"port {port} does not exist; use one from 1 to 65535"
        if port in self._blocked_ports:
            return f"port {port} belongs to another kind of service; choose another"
        return None

    def _judge(self, address: Address) -> str | None:
        if self._is_allowed(address):
            inner = _embedded(address)
            return self._judge(inner) if inner else None
        for network, reason in _REFUSED:
            if address in network:
                return f"{address} is {reason}"
        if isinstance(address, IPv6Address):
            if address.ipv4_mapped:
                return f"{address} is the IPv4 address {address.ipv4_mapped} in IPv6 form (RFC 4291)"
            if address not in _GLOBAL_UNICAST:
                return f"{address} is not a public address (2000::/3)"
        return None

    def _is_allowed(self, address: Address) -> bool:
        """A mapped address reaches the host that its IPv4 address names, so the same networks open it."""
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        return any(address in network for network in self.allow)


def _unmapped(network: Network) -> Network:
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        return IPv4Network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - 96))
    return network


def _embedded(address: Address) -> IPv4Address | None:
    """The IPv4 address a gateway would turn this one into: opening the gateway does not open that."""
    if isinstance(address, IPv4Address) or address.ipv4_mapped:
        return None
    if address.sixtofour:
        return address.sixtofour
    if address.teredo:
        return address.teredo[1]
    if any(address in network for network in _NAT64) or (address in _COMPATIBLE and int(address) > 1):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return None


# --- URLs ------------------------------------------------------------------------------------------------

_SPACE_OR_CONTROL = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029]")
_SHAPE = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?]*)(/[^?]*)?(\?.*)?")
_HOST_PORT = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(?::([0-9]*))?")
_REST = re.compile(r"(?:[!$&-;=?-Z\[\]_a-z|~]|%[0-9A-Fa-f]{2})*")  # RFC 3986, and the usual [ ] |
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_DOTTED_QUAD = re.compile(r"(?:(?:0|[1-9][0-9]{0,2})\.){3}(?:0|[1-9][0-9]{0,2})")


def check_url(url: str, rule: AddressRule) -> str:
    """The URL in normal form: scheme and host in lower case and ASCII, no default port, the rest as given.

    It is parsed once, strictly: what two parsers could read differently is refused. No name is resolved here.
    Raises ``AddressRefused`` with a fault that says what is wrong and what to do.
    """
    _check_characters(url)
    shape = _SHAPE.fullmatch(url)
    if not shape:
        _refuse("must be a full URL of the form https://host/path")
    scheme, authority, path, query = shape[1].lower(), shape[2], shape[3] or "/", shape[4] or ""
    if scheme not in ("https", "http"):
        _refuse(f"has the scheme {scheme[:20]!r}; use https://")
    if not _REST.fullmatch(path + query):
        _refuse("has a character in its path or query that must be percent-encoded")
    host, port = _split(authority)
    return f"{scheme}://{_host(host, scheme == 'http', rule)}{_port(port, scheme, rule)}{path}{query}"


def _refuse(message: str) -> NoReturn:
    raise AddressRefused(f"The URL {message}.", [Fault("url", message)])


def _check_characters(url: str) -> None:
    if len(url) > MAX_URL:
        _refuse(f"must have at most {MAX_URL} characters")
    if found := _SPACE_OR_CONTROL.search(url):
        _refuse(f"has a space, line break or control character at position {found.start() + 1}; remove it")
    if "\\" in url:
        _refuse("has a backslash; use / between the parts of a path")
    if "#" in url:
        _refuse("has a fragment (#…), which is never sent to a server; remove it, or write # as %23")


def _split(authority: str) -> tuple[str, str | None]:
    if "@" in authority:
        _refuse("has a user name or password before its host; put credentials into auth or a header")
    parts = _HOST_PORT.fullmatch(authority)
    if not parts:
        _refuse("has a host that cannot be read; write a name, an IPv4 address, or [an IPv6 address]")
    if not parts[1]:
        _refuse("has no host; use the form https://host/path")
    return parts[1], parts[2]


def _port(text: str | None, scheme: str, rule: AddressRule) -> str:
    if text is None:
        return ""
    if not text or len(text) > 5:
        _refuse("has no valid port after the colon; use a number from 1 to 65535")
    port = int(text)
    if reason := rule.port_refusal(port):
        _refuse(f"is refused: {reason}")
    return "" if port == {"https": 443, "http": 80}[scheme] else f":{port}"


def _host(host: str, plain: bool, rule: AddressRule) -> str:
    if host.startswith("["):
        return f"[{_literal(_ipv6(host[1:-1]), plain, rule)}]"
    name = _name(host)
    if _NUMBER.fullmatch(name.rpartition(".")[2]):
        # What ends in a number is an address for some resolver (inet_aton takes 127.1, 0x7f.1, 017700000001).
        return _literal(_ipv4(host), plain, rule)
    _check_internal(name, rule)
    if plain and not rule.allow_http and not rule.allow:
        _refuse("must begin with https://; plain http:// would show the events to anyone on the way")
    return name


def _literal(address: Address, plain: bool, rule: AddressRule) -> str:
    if reason := rule.refusal(str(address), plain=plain):
        _refuse(
            f"is refused: {reason}; use a public https:// address, or have the operator open it by "
            "HOOKLINE_ALLOW_NETWORKS"
        )
    return str(address)


def _ipv6(text: str) -> IPv6Address:
    if "%" in text:
        _refuse("has an IPv6 address with a zone (%…), which means something on one machine only")
    try:
        return IPv6Address(text)
    except AddressValueError:
        _refuse("has an address in brackets that is not IPv6")


def _ipv4(text: str) -> IPv4Address:
    try:
        if _DOTTED_QUAD.fullmatch(text):
            return IPv4Address(text)
    except AddressValueError:
        pass
    _refuse("has a host that ends in a number; write IPv4 addresses as four decimal numbers (192.0.2.1)")


def _name(host: str) -> str:
    if host.endswith("."):
        _refuse("has a host that ends in a full stop; remove it")
    name = host.lower() if host.isascii() else _punycode(host)
    labels = name.split(".")
    if "" in labels:
        _refuse("has a host with nothing between two full stops")
    if len(name) > MAX_HOST or not all(_LABEL.fullmatch(label) for label in labels):
        _refuse("has a host that is not a domain name (letters, digits and hyphens, up to 63 in each part)")
    for label in labels:
        if label.startswith("xn--"):
            _check_punycode(label)
    return name


def _punycode(host: str) -> str:
    try:
        return idna.encode(host, uts46=True, std3_rules=True).decode("ascii")
    except UnicodeError as error:
        _refuse(f"has an international host name that is not valid: {str(error)[:100]}")


def _check_punycode(label: str) -> None:
    try:
        idna.ulabel(label)
    except UnicodeError as error:
        _refuse(f"has an international host name that is not valid: {str(error)[:100]}")


def _check_internal(name: str, rule: AddressRule) -> None:
    """Refuse names that never mean a public host, unless what they could resolve to has been opened."""
    if name == "localhost" or name.endswith(".localhost"):
        if not rule.opens_loopback:
            _refuse("is refused: localhost is this machine; use a public host, or have the operator allow it")
        return
    labels = name.split(".")
    internal = len(labels) == 1 or labels[-1] in _INTERNAL_NAMES or ".".join(labels[-2:]) in _INTERNAL_NAMES
    if internal and not rule.allow:
        _refuse(
            f"is refused: {name[:80]} is a name inside a network; use a public host, "
            "or have the operator allow its network"
        )
