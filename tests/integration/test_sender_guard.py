"""Request forgery: the guard sees the final address of every connection, whatever the URL looked like."""

import asyncio
from collections.abc import AsyncIterator
from ipaddress import ip_network
from pathlib import Path

import pytest
import trustme

from hookline.core.address import AddressRule
from hookline.ports import ErrorClass
from hookline.sender import CurlSender
from tests.integration.receivers import authority, receiver, server_context, status
from tests.integration.resolver import Resolver, resolver
from tests.integration.senders import open_sender, send

# Written straight into a request: what would happen if the check of URLs missed it.
HOSTS = """
127.0.0.1 127.1 127.0.1 2130706433 0x7f000001 0x7f.1 0x7f.0.0.1 0177.0.0.1 017700000001 0 0.0.0.0 10.0.0.1
172.16.0.1 192.168.1.1 169.254.169.254 169.254.170.2 168.63.129.16 100.100.100.200 100.64.0.1 192.0.0.192 198.18.0.1
224.0.0.1 255.255.255.255 localhost localhost. LOCALHOST [::] [::1] [::ffff:127.0.0.1] [::ffff:7f00:1] [::127.0.0.1]
[::ffff:169.254.169.254] [64:ff9b::7f00:1] [64:ff9b:1::1] [2002:7f00:1::] [2001::1] [fe80::1] [fc00::1] [fec0::1]
[fd00:ec2::254] [ff02::1] [2001:db8::1] [3fff::1] [100::1] [5f00::1] %31%32%37.0.0.1 me:pass@127.0.0.1
""".split()

PUBLIC = "127.0.0.1"  # stands for a public address: the only one that the rule of these tests opens
RULE = AddressRule([ip_network("127.0.0.1/32")])


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return authority()


@pytest.fixture(scope="module")
def ca_file(ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(path)
    return path


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("scheme", ["https", "http"])
async def test_no_spelling_gets_a_connection_to_a_closed_address(scheme: str, host: str) -> None:
    async with open_sender(AddressRule(allow_http=True)) as sender:
        outcome = await send(sender, f"{scheme}://{host}:8443/")
    assert outcome.status == 0
    assert outcome.error is ErrorClass.ADDRESS_REFUSED
    assert outcome.detail
    assert outcome.connect_us == 0


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "gopher://127.0.0.1/", "ftp://127.0.0.1/", "dict://127.0.0.1:11/"]
)
async def test_other_protocols_are_not_spoken(url: str) -> None:
    async with open_sender() as sender:
        outcome = await send(sender, url)
    assert outcome.error in {ErrorClass.PROTOCOL, ErrorClass.INTERNAL}
    assert outcome.body == b""


async def test_the_reason_and_the_address_are_reported() -> None:
    async with open_sender() as sender:
        outcome = await send(sender, "https://10.0.0.1/")
        port = await send(sender, "http://127.0.0.1:6379/")
        plain = await send(sender, "http://1.1.1.1/")
    assert (outcome.detail, outcome.address) == ("10.0.0.1 is a private address (RFC 1918)", "10.0.0.1:443")
    assert port.detail == "port 6379 belongs to another kind of service; choose another"
    assert plain.error is ErrorClass.ADDRESS_REFUSED
    assert "without encryption" in plain.detail


async def test_the_allow_list_opens_only_what_it_names() -> None:
    async with open_sender(RULE) as sender, receiver() as there, receiver(host="127.0.0.2") as next_door:
        assert (await send(sender, there.url())).status == 200
        outcome = await send(sender, next_door.url())
    assert outcome.error is ErrorClass.ADDRESS_REFUSED
    assert next_door.connections == 0


@pytest.mark.parametrize("spelling", ["127.1", "2130706433", "0x7f.1", "localhost"])
async def test_a_refused_address_is_never_connected_to(spelling: str) -> None:
    async with open_sender(AddressRule(allow_http=True)) as sender, receiver() as there:
        outcome = await send(sender, there.url(host=spelling))
    assert outcome.error is ErrorClass.ADDRESS_REFUSED
    assert there.connections == 0


@pytest.mark.parametrize("own_ip", ["127.0.0.1", "0.0.0.0", "::"])
async def test_the_server_does_not_call_itself(own_ip: str) -> None:
    async with (
        receiver() as there,
        receiver() as other,
        open_sender(own_addresses=[(own_ip, there.port)]) as sender,
    ):
        outcome = await send(sender, there.url())
        assert (await send(sender, other.url())).status == 200
    assert (outcome.error, outcome.detail) == (
        ErrorClass.ADDRESS_REFUSED,
        f"127.0.0.1:{there.port} is this server itself",
    )
    assert there.connections == 0


# --- names -------------------------------------------------------------------------------------------------


class Names:
    """What the resolver answers; a test changes it between two questions."""

    def __init__(self) -> None:
        self.table: dict[str, list[list[str]]] = {}

    def __call__(self, name: str, time: int) -> list[str]:
        answers = self.table.get(name, [[]])
        return answers[min(time, len(answers)) - 1]


@pytest.fixture
def names() -> Names:
    return Names()


@pytest.fixture
async def dns(ca: trustme.CA, names: Names) -> AsyncIterator[Resolver]:
    async with resolver(server_context(ca.issue_cert("127.0.0.1")), names) as running:
        yield running


@pytest.fixture
async def sender(dns: Resolver, ca_file: Path) -> AsyncIterator[CurlSender]:
    """Resolves names by the test's own resolver, anew for each connection."""
    async with open_sender(RULE, ca_file=ca_file, doh_url=dns.url, dns_cache=0) as made:
        yield made


async def test_a_name_that_changes_its_mind_is_refused(
    sender: CurlSender, dns: Resolver, names: Names
) -> None:
    """DNS rebinding: public when it is checked, private when it is called."""
    names.table["shop.example"] = [[PUBLIC], ["127.0.0.2"], ["169.254.169.254"], [PUBLIC]]
    async with receiver(status(200, "Connection: close")) as there:
        outcomes = [await send(sender, there.url(host="shop.example")) for _ in range(4)]
    assert [(one.status, one.error) for one in outcomes] == [
        (200, None),
        (0, ErrorClass.ADDRESS_REFUSED),
        (0, ErrorClass.ADDRESS_REFUSED),
        (200, None),
    ]
    assert outcomes[1].detail == "127.0.0.2 is a loopback address (RFC 1122)"
    assert outcomes[2].detail == "169.254.169.254 is a cloud's metadata service"
    assert dns.asked == ["shop.example"] * 4
    assert len(there.requests) == 2


async def test_a_kept_connection_stays_with_the_address_that_was_checked(
    sender: CurlSender, dns: Resolver, names: Names
) -> None:
    names.table["shop.example"] = [[PUBLIC], ["10.0.0.1"]]
    async with receiver() as there:
        outcomes = [await send(sender, there.url(host="shop.example")) for _ in range(3)]
    assert {one.address for one in outcomes} == {f"{PUBLIC}:{there.port}"}
    assert there.connections == 1
    assert dns.asked == ["shop.example"]


@pytest.mark.parametrize(
    "private",
    [
        "10.0.0.1",
        "127.0.0.2",
        "169.254.169.254",
        "::1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "fd00:ec2::254",
        "fe80::1",
    ],
)
async def test_a_name_for_a_private_address_is_refused(
    sender: CurlSender, names: Names, private: str
) -> None:
    names.table["inside.example"] = [[private]]
    outcome = await send(sender, "https://inside.example/")
    assert (outcome.status, outcome.error) == (0, ErrorClass.ADDRESS_REFUSED)


@pytest.mark.parametrize(
    "addresses", [["10.0.0.1", PUBLIC], ["::1", PUBLIC], ["127.0.0.2", PUBLIC, "127.0.0.3"]]
)
async def test_one_private_address_met_refuses_the_whole_name(
    sender: CurlSender, names: Names, addresses: list[str]
) -> None:
    names.table["mixed.example"] = [addresses]
    async with receiver() as there:
        outcome = await send(sender, there.url(host="mixed.example"))
    assert (outcome.status, outcome.error) == (0, ErrorClass.ADDRESS_REFUSED)
    assert there.connections == 0


async def test_a_mixed_name_never_leads_to_its_private_address(sender: CurlSender, names: Names) -> None:
    """The public address comes first: it may be called; when it is gone, the private one still may not."""
    names.table["mixed.example"] = [[PUBLIC, "127.0.0.2"]]
    async with receiver(status(200, "Connection: close"), host="127.0.0.2") as private:
        outcome = await send(sender, f"http://mixed.example:{private.port}/")
    assert (outcome.status, outcome.error) == (0, ErrorClass.ADDRESS_REFUSED)
    assert private.connections == 0


async def test_a_name_that_does_not_resolve_is_not_called(sender: CurlSender, names: Names) -> None:
    outcome = await send(sender, "https://nowhere.example/")
    assert (outcome.error, outcome.detail) == (ErrorClass.DNS, "the host name could not be resolved")


async def test_a_broken_resolver_is_not_taken_for_an_answer(ca: trustme.CA, ca_file: Path) -> None:
    tls = server_context(ca.issue_cert("127.0.0.1"))
    async with (
        receiver(status(500), tls=tls) as broken,
        receiver() as there,
        open_sender(ca_file=ca_file, doh_url=broken.url("/dns-query"), dns_cache=0) as sender,
    ):
        outcome = await send(sender, there.url(host="shop.example"))
    assert outcome.error is ErrorClass.DNS
    assert there.connections == 0


async def test_the_certificate_is_checked_against_the_name_and_not_the_address(
    sender: CurlSender, names: Names, ca: trustme.CA
) -> None:
    names.table["shop.example"] = names.table["other.example"] = [[PUBLIC]]
    async with receiver(tls=server_context(ca.issue_cert("shop.example"))) as there:
        good = await send(sender, there.url(host="shop.example"))
        bad = await send(sender, there.url(host="other.example"))
    assert (good.status, bad.error) == (200, ErrorClass.TLS)
    assert there.requests[0].headers["host"] == f"shop.example:{there.port}"


async def test_many_names_at_once(sender: CurlSender, names: Names) -> None:
    for number in range(30):
        names.table[f"s{number}.example"] = [[PUBLIC if number % 2 else "10.0.0.1"]]
    async with receiver() as there:
        outcomes = await asyncio.gather(*(send(sender, there.url(host=f"s{n}.example")) for n in range(30)))
    assert [one.status for one in outcomes] == [0, 200] * 15
