"""The address rule and the strict reading of URLs: every known trick, and that nothing else is in the way."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookline.core.address import BLOCKED_PORTS, AddressRule, check_url
from hookline.core.errors import AddressRefused

CLOSED = AddressRule()
LOOPBACK = AddressRule([ip_network("127.0.0.0/8")])

# One address from each range of practice.md §4.1, most often its first or last.
REFUSED = """
0.0.0.0 0.255.255.255 10.0.0.0 10.255.255.255 100.64.0.0 100.127.255.255 127.0.0.1 127.255.255.255
169.254.0.1 169.254.255.255 172.16.0.0 172.31.255.255 192.0.0.1 192.0.0.192 192.0.2.1 192.88.99.1
192.168.0.0 192.168.255.255 198.18.0.0 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255
240.0.0.1 255.255.255.255 169.254.169.254 169.254.170.2 168.63.129.16 100.100.100.200
:: ::1 fe80::1 febf::1 fc00::1 fdff::1 fec0::1 feff::1 ff02::1 ::ffff:127.0.0.1 ::ffff:7f00:1 ::ffff:10.0.0.1
::ffff:8.8.8.8 ::127.0.0.1 ::7f00:1 ::8.8.8.8 64:ff9b::7f00:1 64:ff9b::808:808 64:ff9b:1::1 2002:7f00:1::
2002:808:808:: 2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:2::1 2001:10::1 2001:db8::1 3fff::1 100::1
5f00::1 fd00:ec2::254 1234::1 4000::1
""".split()

PUBLIC = """
1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.1 169.253.255.255
172.15.255.255 172.32.0.0 192.0.1.1 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0 223.255.255.255
2600:: 2606:4700:4700::1111 2a00:1450::1 2001:4860:4860::8888 2003::1 3ffe:ffff::1
""".split()


@pytest.mark.parametrize("ip", REFUSED)
def test_a_refused_address_has_its_reason(ip: str) -> None:
    reason = CLOSED.refusal(ip)
    assert reason is not None
    assert " is " in reason


@pytest.mark.parametrize("ip", PUBLIC)
def test_a_public_address_may_be_called(ip: str) -> None:
    assert CLOSED.refusal(ip) is None


def test_reasons_name_the_kind_of_address() -> None:
    assert CLOSED.refusal("10.0.0.1") == "10.0.0.1 is a private address (RFC 1918)"
    assert CLOSED.refusal("169.254.169.254") == "169.254.169.254 is a cloud's metadata service"
    assert "zone" in (CLOSED.refusal("fe80::1%eth0") or "")
    assert "not an IP address" in (CLOSED.refusal("localhost") or "")


@pytest.mark.parametrize("ip", [ip for ip in REFUSED if ip != "10.1.2.3"])
def test_a_network_on_the_allow_list_opens_only_itself(ip: str) -> None:
    one = AddressRule([ip_network("10.1.2.3/32")])
    assert one.refusal("10.1.2.3") is None
    assert one.refusal(ip) is not None


@pytest.mark.parametrize("ip", ["::ffff:127.0.0.1", "::ffff:7f00:1", "127.9.9.9"])
def test_mapped_addresses_are_opened_with_the_address_they_reach(ip: str) -> None:
    assert LOOPBACK.refusal(ip) is None
    assert AddressRule([ip_network("::ffff:127.0.0.0/104")]).refusal(ip) is None


@pytest.mark.parametrize("ip", ["::127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "::1"])
def test_what_a_gateway_would_turn_into_an_open_address_stays_closed(ip: str) -> None:
    assert LOOPBACK.refusal(ip) is not None


def test_an_open_gateway_does_not_open_what_is_behind_it() -> None:
    nat64 = AddressRule([ip_network("64:ff9b::/96")])
    assert nat64.refusal("64:ff9b::808:808") is None
    assert nat64.refusal("64:ff9b::a00:1") == "10.0.0.1 is a private address (RFC 1918)"
    assert AddressRule([ip_network("2002::/16")]).refusal("2002:a00:1::") is not None


def test_plain_http_is_for_allowed_networks_unless_opened() -> None:
    assert "encryption" in (LOOPBACK.refusal("1.1.1.1", plain=True) or "")
    assert LOOPBACK.refusal("127.0.0.1", plain=True) is None
    assert AddressRule(allow_http=True).refusal("1.1.1.1", plain=True) is None
    assert AddressRule(allow_http=True).refusal("10.0.0.1", plain=True) is not None


@given(st.ip_addresses(v=4))
def test_no_v4_address_that_python_knows_as_special_is_called(address: IPv4Address) -> None:
    if not address.is_global or address.is_multicast:
        assert CLOSED.refusal(str(address)) is not None


@given(st.ip_addresses(v=6))
def test_no_v6_address_that_python_knows_as_special_is_called(address: IPv6Address) -> None:
    if not address.is_global or address.is_multicast or address.is_reserved:
        assert CLOSED.refusal(str(address)) is not None


# --- URLs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("https://example.com", "https://example.com/"),
        ("HTTPS://EXAMPLE.com:443/Path/../x?Q=1", "https://example.com/Path/../x?Q=1"),
        ("https://example.com?a[]=1&b=%2F", "https://example.com/?a[]=1&b=%2F"),
        ("https://example.com:8443/a", "https://example.com:8443/a"),
        ("https://my_shop.example.com/@a:b", "https://my_shop.example.com/@a:b"),
        ("https://bücher.example/x", "https://xn--bcher-kva.example/x"),
        ("https://例え。jp/", "https://xn--r8jz45g.jp/"),
        ("https://xn--bcher-kva.example/", "https://xn--bcher-kva.example/"),
        ("https://1.1.1.1/", "https://1.1.1.1/"),
        ("https://[2606:4700:4700:0::1111]/", "https://[2606:4700:4700::1111]/"),
        (
            "https://169.254.169.254.nip.io/",
            "https://169.254.169.254.nip.io/",
        ),  # judged by what it resolves to
        ("https://a.b.1x/", "https://a.b.1x/"),
    ],
)
def test_good_urls_come_out_in_normal_form(url: str, normal: str) -> None:
    assert check_url(url, CLOSED) == normal
    assert check_url(normal, CLOSED) == normal


REFUSED_URLS = {
    "": "full URL",
    "example.com/hook": "full URL",
    "//example.com/": "full URL",
    "https:/example.com/": "full URL",
    "javascript:alert(1)": "full URL",
    "http://example.com/": "https://",
    "ftp://example.com/": "scheme",
    "file:///etc/passwd": "scheme",
    "gopher://example.com/": "scheme",
    "https:///path": "no host",
    "https://:443/": "no host",
    "https://user@example.com/": "user name",
    "https://user:secret@example.com/": "put credentials into auth or a header",
    "https://example.com@127.0.0.1/": "user name",
    "https://example.com#@127.0.0.1/": "fragment",
    "https://example.com/#part": "fragment",
    "https://example.com\\@127.0.0.1/": "backslash",
    "https:\\\\example.com/": "backslash",
    "https://exa mple.com/": "space",
    " https://example.com/": "space",
    "https://example.com/a b": "space",
    "https://example.com/\r\nHost: evil": "space",
    "https://exa\tmple.com/": "space",
    "https://exam\x00ple.com/": "space",
    "https://exam\x7fple.com/": "space",
    "https://exam\u00a0ple.com/": "space",
    "https://example.com/ü": "percent-encoded",
    "https://example.com/%zz": "percent-encoded",
    'https://example.com/"': "percent-encoded",
    "https://example.com:/": "port",
    "https://example.com:0/": "port",
    "https://example.com:65536/": "port",
    "https://example.com:99999999999/": "port",
    "https://example.com:-1/": "cannot be read",
    "https://example.com:\uff14\uff14\uff13/": "cannot be read",
    "https://example.com:443:443/": "cannot be read",
    "https://[::1/": "cannot be read",
    "https://::1/": "cannot be read",
    "https://[::1]x/": "cannot be read",
    "https://[1.1.1.1]/": "not IPv6",
    "https://[v1.x]/": "not IPv6",
    "https://[]/": "not IPv6",
    "https://[fe80::1%25eth0]/": "zone",
    "https://[fe80::1%eth0]/": "zone",
    "https://[::1]/": "loopback",
    "https://[::ffff:127.0.0.1]/": "in IPv6 form",
    "https://[::ffff:7f00:1]/": "in IPv6 form",
    "https://[::127.0.0.1]/": "in IPv6 form",
    "https://[64:ff9b::7f00:1]/": "NAT64",
    "https://[2002:7f00:1::]/": "6to4",
    "https://[fd00:ec2::254]/": "metadata",
    "https://127.0.0.1/": "loopback",
    "https://10.1.2.3/": "private",
    "https://169.254.169.254/latest/meta-data/": "metadata",
    "https://0.0.0.0/": "own network",
    "https://2130706433/": "ends in a number",
    "https://0x7f000001/": "ends in a number",
    "https://0x7f.0.0.1/": "ends in a number",
    "https://0x7f.1/": "ends in a number",
    "https://0177.0.0.1/": "ends in a number",
    "https://017700000001/": "ends in a number",
    "https://127.1/": "ends in a number",
    "https://127.0.1/": "ends in a number",
    "https://127.0.0.01/": "ends in a number",
    "https://008.8.8.8/": "ends in a number",
    "https://1.2.3.4.5/": "ends in a number",
    "https://256.1.1.1/": "ends in a number",
    "https://0/": "ends in a number",
    "https://0x/": "ends in a number",
    "https://example.0x7f/": "ends in a number",
    "https://\uff11\uff12\uff17.\uff10.\uff10.\uff11/": "ends in a number",
    "https://127。0。0。1/": "ends in a number",
    "https://①②⑦.0.0.1/": "ends in a number",
    "https://127.0.0.1./": "full stop",
    "https://example.com./": "full stop",
    "https://example..com/": "between two full stops",
    "https://.example.com/": "between two full stops",
    "https://%6cocalhost/": "not a domain name",
    "https://-bad.example/": "not a domain name",
    "https://exam!ple.com/": "not a domain name",
    "https://" + "a" * 64 + ".com/": "not a domain name",
    "https://" + "a." * 130 + "com/": "not a domain name",
    "https://xn--a.example/": "international",
    "https://a\u200db.example/": "international",
    "https://♥.example/": "international",
    "https://localhost/": "localhost",
    "https://LOCALHOST:8000/": "localhost",
    "https://a.localhost/": "localhost",
    "https://ⓛⓞcalhost/": "localhost",
    "https://printer.local/": "inside a network",
    "https://metadata.google.internal/": "inside a network",
    "https://api.default.svc/": "inside a network",
    "https://api.default.svc.cluster.local/": "inside a network",
    "https://router.home.arpa/": "inside a network",
    "https://intranet/": "inside a network",
    "https://example.com/" + "a" * 2048: "2048",
}


@pytest.mark.parametrize(("url", "why"), REFUSED_URLS.items(), ids=range(len(REFUSED_URLS)))
def test_bad_urls_are_refused_with_their_fault(url: str, why: str) -> None:
    with pytest.raises(AddressRefused) as refused:
        check_url(url, CLOSED)
    (fault,) = refused.value.faults
    assert fault.field == "url"
    assert why in fault.message


@pytest.mark.parametrize("port", sorted(BLOCKED_PORTS))
def test_ports_of_other_services_are_refused(port: int) -> None:
    with pytest.raises(AddressRefused, match=f"port {port} "):
        check_url(f"https://example.com:{port}/", CLOSED)
    assert check_url(f"https://example.com:{port}/", AddressRule(open_ports=[port]))


def test_the_blocked_ports_leave_the_web_alone() -> None:
    assert {22, 25, 6379} <= BLOCKED_PORTS
    assert not {80, 443, 3000, 8000, 8080, 8443} & BLOCKED_PORTS
    assert max(BLOCKED_PORTS) < 32768  # free ports that systems hand out to test servers start there


def test_an_open_network_opens_its_literals_and_names_that_may_lead_there() -> None:
    for url in (
        "http://127.0.0.1:8000/",
        "https://[::ffff:127.0.0.1]/",
        "http://localhost/",
        "http://a.localhost/",
    ):
        assert check_url(url, LOOPBACK)
    for url in ("http://10.0.0.1/", "https://[::1]/", "https://127.1/", "http://1.1.1.1/"):
        with pytest.raises(AddressRefused):
            check_url(url, LOOPBACK)


def test_localhost_needs_an_open_loopback_and_internal_names_any_open_network() -> None:
    office = AddressRule([ip_network("10.0.0.0/8")])
    assert check_url("https://crm.internal/", office) == "https://crm.internal/"
    assert check_url("http://receiver:8080/", office) == "http://receiver:8080/"
    with pytest.raises(AddressRefused, match="localhost"):
        check_url("https://localhost/", office)
    assert check_url("https://localhost/", AddressRule([ip_network("::1/128")]))


def test_plain_http_can_be_opened_everywhere() -> None:
    anywhere = AddressRule(allow_http=True)
    assert check_url("http://example.com:80/", anywhere) == "http://example.com/"
    assert check_url("http://1.1.1.1/", anywhere) == "http://1.1.1.1/"
    with pytest.raises(AddressRefused):
        check_url("http://10.0.0.1/", anywhere)


def _normal(url: str) -> str | None:
    try:
        return check_url(url, CLOSED)
    except AddressRefused:
        return None


@given(st.text(max_size=60))
def test_any_text_is_either_refused_or_made_normal(text: str) -> None:
    for url in (text, f"https://{text}", f"https://{text}/", f"https://example.com{text}"):
        if normal := _normal(url):
            assert normal.isascii()
            assert _normal(normal) == normal


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
def test_a_literal_is_accepted_just_when_its_address_is(address: IPv4Address | IPv6Address) -> None:
    url = f"https://[{address}]/" if address.version == 6 else f"https://{address}/"
    if CLOSED.refusal(str(address)):
        with pytest.raises(AddressRefused):
            check_url(url, CLOSED)
    else:
        assert ip_address(check_url(url, CLOSED)[len("https://") : -1].strip("[]")) == address
