"""The rules of a subscription: each is broken alone, and all at once."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from msgspec.structs import replace

from hookline.core.address import AddressRule
from hookline.core.definition import MAX_HEADERS, Rules, check_definition, check_secrets
from hookline.core.model import (
    Auth,
    AuthKind,
    BreakerPolicy,
    Definition,
    RateLimit,
    RetryKind,
    RetryPolicy,
    Secrets,
    SignatureScheme,
    Signing,
    SigningKey,
    Timeout,
)

RULES = Rules(AddressRule([ip_network("127.0.0.0/8")]))
GOOD = Definition(url="https://example.com/hooks")
KEY = SigningKey("whsec_" + "A" * 43 + "=", 0)
OTHER_KEY = SigningKey("whsk_AAAA", 0)


def places(definition: Definition) -> set[str]:
    return {fault.field for fault in check_definition(definition, RULES)}


def secret_places(secrets: Secrets, definition: Definition = GOOD) -> set[str]:
    return {fault.field for fault in check_secrets(definition, secrets, RULES)}


def test_the_defaults_are_good() -> None:
    assert check_definition(GOOD, RULES) == []
    assert check_secrets(GOOD, Secrets(keys=(KEY,)), RULES) == []


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"url": "ftp://example.com"}, "url"),
        ({"url": "https://169.254.169.254/"}, "url"),
        ({"url": "https://u:p@example.com/"}, "url"),
        ({"url": "https://example.com/" + "x" * 3000}, "url"),
        ({"events": ()}, "events"),
        ({"events": ("a*b",)}, "events[0]"),
        ({"events": ("ok", "ä")}, "events[1]"),
        ({"name": "x" * 201}, "name"),
        ({"name": "a\x00b"}, "name"),
        ({"headers": {"X-A": "a\r\nX-B: b"}}, "headers.X-A"),
        ({"headers": {"X-A": "a\x00"}}, "headers.X-A"),
        ({"headers": {"X-A": "ä"}}, "headers.X-A"),
        ({"headers": {"X-A": " a"}}, "headers.X-A"),
        ({"headers": {"X-A": "x" * 5000}}, "headers.X-A"),
        ({"headers": {"X A": "a"}}, "headers.X A"),
        ({"headers": {"": "a"}}, "headers."),
        ({"headers": {"X-A": "a", "x-a": "b"}}, "headers.x-a"),
        ({"headers": {f"X-{n}": "a" for n in range(MAX_HEADERS + 1)}}, "headers"),
        ({"query": {"": "x"}}, "query."),
        ({"query": {"a": "x\n"}}, "query.a"),
        ({"profile": "nonesuch"}, "profile"),
        ({"signing": Signing(id_header="Content-Length")}, "signing.id_header"),
        ({"signing": Signing(id_header="a b")}, "signing.id_header"),
        ({"signing": Signing(timestamp_header="hookline-attempt")}, "signing.timestamp_header"),
        ({"signing": Signing(signature_header="Authorization")}, "signing.signature_header"),
        ({"signing": Signing(id_header="X-S", signature_header="x-s")}, "signing"),
        ({"signing": Signing(id_header="X-S"), "headers": {"x-s": "1"}}, "headers.x-s"),
        ({"retry": RetryPolicy(delays=())}, "retry.delays"),
        ({"retry": RetryPolicy(kind=RetryKind.EXPONENTIAL)}, "retry.max_attempts"),
        ({"retry": RetryPolicy(retry_on=("2xx",))}, "retry.retry_on[0]"),
        ({"timeout": Timeout(0, 20)}, "timeout.connect"),
        ({"timeout": Timeout(5, 1000)}, "timeout.total"),
        ({"timeout": Timeout(5, 4)}, "timeout.connect"),
        ({"timeout": Timeout(5, float("nan"))}, "timeout.total"),
        ({"rate_limit": RateLimit(0)}, "rate_limit.count"),
        ({"rate_limit": RateLimit(1, float("inf"))}, "rate_limit.seconds"),
        ({"rate_limit": RateLimit(1, 1, -1)}, "rate_limit.burst"),
        ({"max_in_flight": 0}, "max_in_flight"),
        ({"max_in_flight": 10**400}, "max_in_flight"),
        ({"disable_after": float("nan")}, "disable_after"),
        ({"filter": "data.x =="}, "filter"),
        ({"filter": ""}, "filter"),
        ({"breaker": BreakerPolicy(-1)}, "breaker.failures"),
        ({"breaker": BreakerPolicy(cooldown=0)}, "breaker.cooldown"),
        ({"breaker": BreakerPolicy(cooldown=10, max_cooldown=5)}, "breaker.max_cooldown"),
        ({"disable_after": -1}, "disable_after"),
        ({"metadata": {"a": "x" * 1001}}, "metadata.a"),
        ({"metadata": {str(n): "" for n in range(51)}}, "metadata"),
    ],
)
def test_each_rule(change: dict[str, object], place: str) -> None:
    assert place in places(replace(GOOD, **change))


@pytest.mark.parametrize(
    "name",
    [
        "Host", "content-length", "Transfer-Encoding", "Connection", "TE", "Trailer", "Upgrade", "Expect",
        "Content-Encoding", "Accept-Encoding", "Content-Type", "User-Agent", "Proxy-Authorization", "Keep-Alive",
        "webhook-id", "Webhook-Signature", "webhook-anything", "hookline-sequence", "Hookline-Attempt",
    ],
)  # fmt: skip
def test_headers_that_break_framing_or_impersonate_ours(name: str) -> None:
    assert places(replace(GOOD, headers={name: "x"})) == {f"headers.{name}"}
    assert secret_places(Secrets(keys=(KEY,), headers={name: "x"})) == {f"secret_headers.{name}"}


def test_all_faults_are_named_at_once() -> None:
    broken = Definition(
        url="gopher://x", events=("*a",), name="\n", headers={"Host": "x"}, profile="no", filter="(",
        timeout=Timeout(-1, -1), max_in_flight=10**9, metadata={"a": "\x00"},
    )  # fmt: skip
    assert places(broken) == {
        "url", "events[0]", "name", "headers.Host", "profile", "filter", "timeout.connect", "timeout.total",
        "max_in_flight", "metadata.a",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("auth", "wrong"),
    [
        (Auth(AuthKind.NONE), set[str]()),
        (Auth(AuthKind.NONE, secret="x"), {"auth.secret"}),
        (Auth(AuthKind.BASIC, username="u", secret="p"), set()),
        (Auth(AuthKind.BASIC), {"auth.username", "auth.secret"}),
        (Auth(AuthKind.BASIC, username="a:b", secret="p"), {"auth.username"}),
        (Auth(AuthKind.BASIC, username="u", secret="p", scope="s"), {"auth.scope"}),
        (Auth(AuthKind.BEARER, secret="t"), set()),
        (Auth(AuthKind.BEARER, secret="t\r\nX: y"), {"auth.secret"}),
        (Auth(AuthKind.API_KEY, secret="k"), set()),
        (Auth(AuthKind.API_KEY, secret="k", header="Host"), {"auth.header"}),
        (Auth(AuthKind.API_KEY, secret="k", header="webhook-id"), {"auth.header"}),
        (Auth(AuthKind.OAUTH2), {"auth.token_url", "auth.client_id", "auth.secret"}),
        (
            Auth(AuthKind.OAUTH2, token_url="https://10.0.0.1/t", client_id="c", secret="s"),
            {"auth.token_url"},
        ),
        (
            Auth(AuthKind.OAUTH2, token_url="https://example.com/t", client_id="c", secret="s", scope="a b"),
            set(),
        ),
    ],
)
def test_each_kind_of_authentication(auth: Auth, wrong: set[str]) -> None:
    assert secret_places(Secrets(auth=auth, keys=(KEY,))) == wrong


def test_credentials_are_not_given_twice() -> None:
    definition = replace(GOOD, headers={"authorization": "Basic x"})
    basic = Auth(AuthKind.BASIC, username="u", secret="p")
    assert secret_places(Secrets(basic, (KEY,)), definition) == {"headers.authorization"}
    api_key = Auth(AuthKind.API_KEY, secret="k", header="X-Key")
    assert secret_places(Secrets(api_key, (KEY,), {"x-key": "1"})) == {"secret_headers.x-key"}
    assert secret_places(Secrets(keys=(KEY,)), definition) == set()


def test_secret_headers_do_not_repeat_plain_ones() -> None:
    definition = replace(GOOD, headers={"X-A": "1"})
    assert secret_places(Secrets(keys=(KEY,), headers={"x-a": "2"}), definition) == {"secret_headers.x-a"}


def test_signing_keys_fit_their_scheme() -> None:
    assert secret_places(Secrets()) == {"signing.secret"}
    assert secret_places(Secrets(keys=(OTHER_KEY,))) == {"signing.secret"}
    unsigned = replace(GOOD, signing=Signing(SignatureScheme.NONE))
    assert secret_places(Secrets(), unsigned) == set()
