"""Mail addresses, the operator's mail server, and which subscriptions may be mails."""

from __future__ import annotations

import re
from email.headerregistry import Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from hookline.core.address import AddressRule
from hookline.core.definition import Rules, check_definition, check_secrets
from hookline.core.errors import AddressRefused
from hookline.core.mail import (
    MailServer,
    Originator,
    address_fault,
    mail_server,
    originator,
    recipient_of,
)
from hookline.core.model import Auth, AuthKind, Definition, Secrets, SignatureScheme, Signing
from hookline.engine.manage.spec import drafted
from hookline.profiles import PROFILES

# --- addresses --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "ops@example.com",
        "Anna.O'Brien+hooks@mail.example.co.uk",
        "a@b.de",
        "x" * 64 + "@example.com",
        "kunde@xn--mller-kva.example",
        "ops@mail.internal",
        "a_b=c~d&e*f^g-h@1und1.de",
    ],
)
def test_plain_addresses_are_good(address: str) -> None:
    assert address_fault(address) == ""
    assert recipient_of(f"mailto:{address}") == address


@pytest.mark.parametrize(
    "address",
    [
        "", "@", "ops", "ops@", "@example.com", "ops@localhost", "ops@example.com.", "ops@.com", "ops@a..com",
        ".ops@example.com", "ops.@example.com", "o..ps@example.com", "-oQ/tmp@example.com",
        "a@b.com,c@d.com", "a@b.com;c@d.com", "a@b@c.com", "a b@c.com", " a@b.com", "a@b.com ", "<a@b.com>",
        "Anna <a@b.com>", '"a b"@c.com', "a(comment)@b.com", "a%40b@c.com", "a%b@c.com", "host!user@b.com",
        "a@[127.0.0.1]", "a@[IPv6:::1]", "a@127.0.0.1", "a@1.2", "a@-b.com", "a@b-.com", "a@b_c.com",
        "a@b.com\r\nBcc: x@y.com", "a\r\n@b.com", "a@b.com\n", "a\0@b.com", "a@b.com\u2028", "\tops@example.com",
        "müller@example.com", "ops@müller.example", "ops\uff20example.com", "x" * 65 + "@example.com",
        "a@" + "b" * 64 + ".com", "a@" + ".".join(["b" * 60] * 5) + ".com", "`id`@b.com", "$(id)@b.com",
        "|cmd@b.com", "/etc/passwd@b.com", "a\\@b.com", "a:b@c.com", "a@b.com/path", "a@b.com#x",
    ],
)  # fmt: skip
def test_what_could_mean_more_than_one_mailbox_is_refused(address: str) -> None:
    assert address_fault(address).startswith("must have")
    with pytest.raises(AddressRefused) as caught:
        recipient_of(f"mailto:{address}")
    assert caught.value.faults[0].field == "url"


@pytest.mark.parametrize("rest", ["?subject=x", "?cc=b@c.com", "?bcc=b@c.com", "?body=x", "?", "?to=b@c.com"])
def test_a_mailto_url_has_no_parameters(rest: str) -> None:
    with pytest.raises(AddressRefused, match="no parameters"):
        recipient_of(f"mailto:a@b.com{rest}")


@pytest.mark.parametrize(
    "url", ["https://example.com/", "mailto", "MAILTO:a@b.com", " mailto:a@b.com", "mailto//a@b.com"]
)
def test_another_url_is_no_mail_address(url: str) -> None:
    with pytest.raises(AddressRefused, match="mailto:name@domain"):
        recipient_of(url)


@given(st.text(max_size=80) | st.text(alphabet="ab@.-%\r\n<>,;\"' ", max_size=30))
def test_a_good_address_is_one_word_that_mail_programs_read_as_it_is(text: str) -> None:
    if not address_fault(text):
        assert Address(addr_spec=text).addr_spec == text
        assert re.fullmatch(r"[!-~]{3,254}", text)
        assert text.count("@") == 1


# --- settings ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("smtp://mail.example", MailServer("mail.example", 587, tls=False, start_tls="offered")),
        ("smtp://localhost:25", MailServer("localhost", 25, tls=False, start_tls="offered")),
        ("smtp://m.example/?starttls=never", MailServer("m.example", 587, tls=False, start_tls="never")),
        ("smtp://[::1]:2525?starttls=required", MailServer("::1", 2525, tls=False, start_tls="required")),
        ("smtps://m.example", MailServer("m.example", 465, True, "offered")),
        ("smtp://u:p@m.example", MailServer("m.example", 587, False, "required", "u", "p")),
        ("smtps://a%40b:p%3A%2F%C3%BC@m:1", MailServer("m", 1, True, "required", "a@b", "p:/ü")),
        ("smtp://u:p@m?starttls=offered", MailServer("m", 587, False, "offered", "u", "p")),
    ],
)
def test_the_url_of_a_mail_server(url: str, server: MailServer) -> None:
    assert mail_server(url) == server


@pytest.mark.parametrize(
    "url",
    [
        "mail.example", "http://mail.example", "smtp://", "smtp://:587", "smtp://m:0", "smtp://m:99999", "smtp://m:x",
        "smtp://user@m", "smtp://:pass@m", "smtp://m/path", "smtp://m#x", "smtp://m?tls=1", "smtp://m?starttls=maybe",
        "smtps://m?starttls=required", "smtp://m?starttls=never&x=1", "smtp://a_b", "smtp://m\r\nX", "smtp://u:p%0Ax@m",
        "smtp://[::1", "smtp://-m",
    ],
)  # fmt: skip
def test_other_urls_of_mail_servers_are_refused(url: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the settings put their own words in its place
        mail_server(url)


def test_the_password_is_not_shown() -> None:
    assert "hunter2" not in repr(mail_server("smtp://u:hunter2@m"))


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("a@b.com", Originator("", "a@b.com")),
        ("Hookline <a@b.com>", Originator("Hookline", "a@b.com")),
        ("Müller & Söhne <a@b.com>", Originator("Müller & Söhne", "a@b.com")),
    ],
)
def test_an_originator(text: str, read: Originator) -> None:
    assert originator(text) == read
    assert read.domain == "b.com"


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "<a@b.com>", "A <a@b.com", "A <x>", "A <a@b.com> b", "A\r\nBcc: c@d.com <a@b.com>", 'A" <a@b.com>',
        "A, B <a@b.com>",
    ],
)  # fmt: skip
def test_other_originators_are_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the settings put their own words in its place
        originator(text)


# --- subscriptions ----------------------------------------------------------------------------------------

WITH_MAIL = Rules(AddressRule(), frozenset(PROFILES), mail=True)
WITHOUT = Rules(AddressRule(), frozenset(PROFILES))
MAIL = drafted({"url": "mailto:ops@example.com", "profile": "mail"}).spec.definition()


def places(definition: Definition, rules: Rules = WITH_MAIL) -> dict[str, str]:
    return {fault.field: fault.message for fault in check_definition(definition, rules)}


def test_a_mail_with_the_defaults_of_its_profile_is_good() -> None:
    assert check_definition(MAIL, WITH_MAIL) == []
    assert check_secrets(MAIL, Secrets(), WITH_MAIL) == []
    assert (MAIL.retry.retry_on, MAIL.retry.delays[:2]) == (("network", "4xx"), (60.0, 300.0))
    assert (MAIL.signing.scheme, MAIL.breaker.failures, MAIL.disable_after) == (SignatureScheme.NONE, 0, 0.0)


def test_without_a_mail_server_the_fault_names_the_setting() -> None:
    assert "HOOKLINE_SMTP_URL" in places(MAIL, WITHOUT)["profile"]


def test_a_mailto_url_needs_the_profile_mail() -> None:
    for url in ("mailto:ops@example.com", "MAILTO:ops@example.com"):
        definition = Definition(url=url)
        assert places(definition) == {"profile": "must be mail for a URL that begins with mailto:"}
    assert places(Definition(url="mailto:ops@example.com"), Rules(AddressRule())).keys() == {"url"}


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"url": "https://example.com/hooks"}, "url"),
        ({"url": "mailto:ops@example.com?cc=x@y.com"}, "url"),
        ({"url": "mailto:a@b.com\r\nBcc: x@y.com"}, "url"),
        ({"method": "GET"}, "method"),
        ({"headers": {"X-A": "b"}}, "headers"),
        ({"query": {"a": "b"}}, "query"),
        ({"signing": Signing()}, "signing.scheme"),
    ],
)
def test_a_mail_has_no_parts_of_a_request(change: dict[str, object], place: str) -> None:
    assert place in places(replace(MAIL, **change))


def test_a_mail_has_no_secrets() -> None:
    secrets = Secrets(Auth(AuthKind.BEARER, secret="x"), headers={"X-A": "b"})
    found = {fault.field for fault in check_secrets(MAIL, secrets, WITH_MAIL)}
    assert found == {"secret_headers", "auth.kind"}
