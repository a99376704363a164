"""The rules a subscription has to keep, checked all at once: every fault is named with its place.

The limits are ours. They are wide enough for every receiver we know of and keep one subscription from
costing what many should.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct

from hookline.core.address import AddressRule, check_url
from hookline.core.certificate import certificate_faults
from hookline.core.errors import Fault, HooklineError
from hookline.core.filter import compile_filter
from hookline.core.mail import MAILTO, recipient_of
from hookline.core.matching import events_faults
from hookline.core.model import (
    Auth,
    AuthKind,
    BreakerPolicy,
    Definition,
    RateLimit,
    Secrets,
    SignatureScheme,
    Signing,
    Timeout,
)
from hookline.core.retry import policy_faults
from hookline.core.signing import NEEDED_HEADERS, secret_fault

MAX_HEADERS = 50
MAX_QUERY = 50
MAX_METADATA = 50
MAX_NAME = 200
MAX_VALUE = 4096
MAX_URL = 2048
DAY = 86400.0

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110 §5.6.2
_HEADER_VALUE = re.compile(r"[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?|")  # RFC 9110 §5.5, ASCII only
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

FRAMING_HEADERS = frozenset(
    "host content-length transfer-encoding connection keep-alive te trailer upgrade expect content-encoding "
    "accept-encoding proxy-authorization proxy-authenticate proxy-connection content-type user-agent".split()
)
"""Headers that say how a message is framed, routed or encoded: the sender alone sets them."""

OUR_PREFIXES = ("webhook-", "hookline-")

MAIL_PROFILE = "mail"
"""The profile that goes with ``mailto:`` URLs, and with no others."""


class Rules(Struct, frozen=True):
    """What this installation allows."""

    addresses: AddressRule
    profiles: frozenset[str] = frozenset({"standard"})
    mail: bool = False
    """Whether there is an SMTP server to send mails through."""


def check_definition(definition: Definition, rules: Rules) -> list[Fault]:
    """Everything that is wrong with a definition, in the order of its fields."""
    return [
        *_target(definition, rules),
        *events_faults(definition.events),
        *text_faults("name", definition.name, MAX_NAME),
        *_headers("headers", definition.headers, _reserved(definition.signing)),
        *_pairs("query", definition.query, MAX_QUERY, MAX_VALUE),
        *_profile(definition.profile, rules.profiles),
        *_signing(definition.signing),
        *policy_faults(definition.retry),
        *_timeout(definition.timeout),
        *_rate_limit(definition.rate_limit),
        *_range("max_in_flight", definition.max_in_flight, 1, 1000),
        *_filter(definition.filter),
        *_breaker(definition.breaker),
        *_range("disable_after", definition.disable_after, 0, 365 * DAY),
        *_pairs("metadata", definition.metadata, MAX_METADATA, 1000),
    ]


def check_secrets(definition: Definition, secrets: Secrets, rules: Rules) -> list[Fault]:
    """Everything that is wrong with the secret parts, alone and together with their definition."""
    taken = _reserved(definition.signing) | {name.lower() for name in definition.headers}
    return [
        *_mail_secrets(definition, secrets),
        *_auth(definition, secrets, rules),
        *_client_certificate(definition, secrets),
        *_headers("secret_headers", secrets.headers, taken),
        *_keys(definition.signing.scheme, secrets),
    ]


# --- addresses and events ------------------------------------------------------------------------------


def _target(definition: Definition, rules: Rules) -> Iterator[Fault]:
    """A ``mailto:`` URL and the profile ``mail`` go together."""
    mailto = definition.url.lower().startswith(MAILTO)
    if definition.profile == MAIL_PROFILE:
        yield from _mail(definition, rules)
    elif mailto and MAIL_PROFILE in rules.profiles:
        yield Fault("profile", f"must be {MAIL_PROFILE} for a URL that begins with {MAILTO}")
    else:
        yield from _url("url", definition.url, rules)


def _url(field: str, url: str, rules: Rules) -> Iterator[Fault]:
    if len(url) > MAX_URL:
        yield Fault(field, f"must have at most {MAX_URL} characters")
        return
    try:
        check_url(url, rules.addresses)
    except HooklineError as error:
        yield Fault(field, error.faults[0].message if error.faults else error.detail)


_NO_MAIL_SERVER = "cannot be used: no SMTP server is set up here; the operator sets HOOKLINE_SMTP_URL"


def _mail(definition: Definition, rules: Rules) -> Iterator[Fault]:
    """A mail has an address, and none of the parts of an HTTP request."""
    if MAIL_PROFILE in rules.profiles and not rules.mail:
        yield Fault("profile", _NO_MAIL_SERVER)
    try:
        recipient_of(definition.url)
    except HooklineError as error:
        yield from error.faults
    if definition.method != "POST":
        yield Fault("method", "must be POST for mails")
    if definition.headers:
        yield Fault("headers", "must be empty: mails have no headers of your own")
    if definition.query:
        yield Fault("query", "must be empty for mails")
    if definition.signing.scheme is not SignatureScheme.NONE:
        yield Fault("signing.scheme", "must be none: mails are not signed")


def _mail_secrets(definition: Definition, secrets: Secrets) -> Iterator[Fault]:
    if definition.profile != MAIL_PROFILE:
        return
    if secrets.headers:
        yield Fault("secret_headers", "must be empty: mails have no headers of your own")
    if secrets.auth.kind is not AuthKind.NONE:
        yield Fault("auth.kind", "must be none: the operator's settings log in to the mail server")
    if secrets.client_certificate is not None:
        yield Fault("client_certificate", "must be absent for mails")


def _profile(profile: str, known: frozenset[str]) -> Iterator[Fault]:
    if profile not in known:
        yield Fault("profile", f"must be one of {', '.join(sorted(known))}")


def _filter(text: str | None) -> Iterator[Fault]:
    if text is None:
        return
    try:
        compile_filter(text)
    except HooklineError as error:
        yield from (Fault("filter", fault.message) for fault in error.faults)
        if not error.faults:
            yield Fault("filter", error.detail)


# --- headers and texts ---------------------------------------------------------------------------------


def _reserved(signing_: Signing) -> frozenset[str]:
    return frozenset(name.lower() for name in _signing_names(signing_).values() if name)


def _headers(field: str, headers: Mapping[str, str], taken: frozenset[str]) -> Iterator[Fault]:
    if len(headers) > MAX_HEADERS:
        yield Fault(field, f"must have at most {MAX_HEADERS} entries")
        return
    seen: set[str] = set()
    for name, value in headers.items():
        place = f"{field}.{name[:80]}"
        if message := header_name_fault(name, taken):
            yield Fault(place, message)
        if name.lower() in seen:
            yield Fault(place, "occurs twice; header names do not differ by case")
        if message := header_value_fault(value):
            yield Fault(place, message)
        seen.add(name.lower())


def header_name_fault(name: str, taken: Iterable[str] = ()) -> str:
    """Why a custom header may not have this name ("" if it may): syntax, framing, or one of ours."""
    lower = name.lower()
    if len(name) > 128 or not _TOKEN.fullmatch(name):
        return "is not a header name (letters, digits and !#$%&'*+.^_`|~- only, at most 128)"
    if lower in FRAMING_HEADERS:
        return "is set by the sender and cannot be chosen"
    if lower.startswith(OUR_PREFIXES) or lower in taken:
        return "is a header that Hookline sets for its receivers to trust; choose another name"
    return ""


def header_value_fault(value: str) -> str:
    """Why a header may not have this value ("" if it may). CR, LF and NUL would inject headers."""
    if len(value) > MAX_VALUE:
        return f"must have at most {MAX_VALUE} characters"
    if not _HEADER_VALUE.fullmatch(value):
        return "must be printable ASCII without line breaks, and must not begin or end with a space"
    return ""


def _pairs(field: str, pairs: Mapping[str, str], most: int, longest: int) -> Iterator[Fault]:
    if len(pairs) > most:
        yield Fault(field, f"must have at most {most} entries")
        return
    for name, value in pairs.items():
        place = f"{field}.{name[:80]}"
        if not name:
            yield Fault(place, "must have a name")
        yield from text_faults(place, name, MAX_NAME, "name ")
        yield from text_faults(place, value, longest)


def text_faults(field: str, value: str, longest: int = MAX_NAME, what: str = "") -> Iterator[Fault]:
    """A text must be short enough and free of control characters, which no log or database shows well."""
    if len(value) > longest:
        yield Fault(field, f"{what}must have at most {longest} characters")
    if _CONTROL.search(value):
        yield Fault(field, f"{what}must not contain control characters")


def _range(field: str, value: float, least: float, most: float) -> Iterator[Fault]:
    if not least <= value <= most:  # neither infinite nor NaN is
        yield Fault(field, f"must be between {least:g} and {most:.10g}")


# --- signing and authentication ------------------------------------------------------------------------


def _signing_names(signing_: Signing) -> dict[str, str]:
    return {
        "id_header": signing_.id_header,
        "timestamp_header": signing_.timestamp_header,
        "signature_header": signing_.signature_header,
    }


def _signing(signing_: Signing) -> Iterator[Fault]:
    names = _signing_names(signing_)
    needed = NEEDED_HEADERS.get(signing_.scheme, ("signature_header",))
    for field, name in names.items():
        lower = name.lower()
        if not name:
            if field in needed:
                yield Fault(
                    f"signing.{field}", f"is needed to verify signatures of the form {signing_.scheme}"
                )
        elif len(name) > 128 or not _TOKEN.fullmatch(name):
            yield Fault(f"signing.{field}", "is not a header name")
        elif lower in FRAMING_HEADERS or lower.startswith("hookline-") or lower == "authorization":
            yield Fault(f"signing.{field}", "is a header with another meaning; choose another name")
    given = [name.lower() for name in names.values() if name]
    if len(set(given)) < len(given):
        yield Fault("signing", "must give the three headers different names")


def _keys(scheme: SignatureScheme, secrets: Secrets) -> Iterator[Fault]:
    if scheme is not SignatureScheme.NONE and not secrets.keys:
        yield Fault("signing.secret", "is required for a signed subscription")
    for key in secrets.keys:
        if message := secret_fault(key.secret, scheme):
            yield Fault("signing.secret", message)


_NEEDED = {
    AuthKind.NONE: (),
    AuthKind.BASIC: ("username", "secret"),
    AuthKind.BEARER: ("secret",),
    AuthKind.API_KEY: ("header", "secret"),
    AuthKind.OAUTH2: ("token_url", "client_id", "secret"),
}
_OPTIONAL = {AuthKind.OAUTH2: ("scope",)}


def _auth(definition: Definition, secrets: Secrets, rules: Rules) -> Iterator[Fault]:
    auth = secrets.auth
    for field in _NEEDED[auth.kind]:
        if not getattr(auth, field):
            yield Fault(f"auth.{field}", f"is required for {auth.kind.value}")
    yield from _unused(auth)
    for field in ("username", "client_id", "scope"):
        yield from text_faults(f"auth.{field}", getattr(auth, field), MAX_VALUE)
    if auth.kind is AuthKind.BASIC and ":" in auth.username:
        yield Fault("auth.username", "must not contain a colon (RFC 7617)")
    if auth.kind is AuthKind.OAUTH2 and auth.token_url:
        yield from _url("auth.token_url", auth.token_url, rules)
    yield from _auth_secret(auth)
    yield from _auth_header(auth, definition, secrets)


def _unused(auth: Auth) -> Iterator[Fault]:
    wanted = {"kind", *_NEEDED[auth.kind], *_OPTIONAL.get(auth.kind, ())}
    plain = Auth()
    for field in auth.__struct_fields__:
        if field not in wanted and getattr(auth, field) != getattr(plain, field):
            yield Fault(f"auth.{field}", f"does not belong to {auth.kind.value}")


def _auth_secret(auth: Auth) -> Iterator[Fault]:
    if auth.kind in (AuthKind.BEARER, AuthKind.API_KEY):
        if message := header_value_fault(auth.secret):
            yield Fault("auth.secret", message)
    else:
        yield from text_faults("auth.secret", auth.secret, MAX_VALUE)


def _client_certificate(definition: Definition, secrets: Secrets) -> Iterator[Fault]:
    if secrets.client_certificate is not None and definition.profile != MAIL_PROFILE:
        yield from certificate_faults(secrets.client_certificate, definition.url)


def _auth_header(auth: Auth, definition: Definition, secrets: Secrets) -> Iterator[Fault]:
    """The header that carries the credentials must be free, and must not be given twice."""
    if auth.kind is AuthKind.NONE:
        return
    header = auth.header.lower() if auth.kind is AuthKind.API_KEY else "authorization"
    if auth.kind is AuthKind.API_KEY and (
        message := header_name_fault(auth.header, _reserved(definition.signing))
    ):
        yield Fault("auth.header", message)
    for field, headers in (("headers", definition.headers), ("secret_headers", secrets.headers)):
        for name in headers:
            if name.lower() == header:
                yield Fault(f"{field}.{name}", "is already set by auth")


# --- pace ------------------------------------------------------------------------------------------------


def _timeout(timeout: Timeout) -> Iterator[Fault]:
    yield from _range("timeout.connect", timeout.connect, 0.1, 60)
    yield from _range("timeout.total", timeout.total, 0.1, 120)
    if timeout.connect > timeout.total:
        yield Fault("timeout.connect", "must not be longer than timeout.total")


def _rate_limit(limit: RateLimit | None) -> Iterator[Fault]:
    if limit is not None:
        yield from _range("rate_limit.count", limit.count, 1, 1_000_000)
        yield from _range("rate_limit.seconds", limit.seconds, 0.001, DAY)
        yield from _range("rate_limit.burst", limit.burst, 0, 1_000_000)


def _breaker(breaker: BreakerPolicy) -> Iterator[Fault]:
    yield from _range("breaker.failures", breaker.failures, 0, 1_000_000)
    yield from _range("breaker.cooldown", breaker.cooldown, 0.001, DAY)
    yield from _range("breaker.max_cooldown", breaker.max_cooldown, 0.001, DAY)
    if breaker.max_cooldown < breaker.cooldown:
        yield Fault("breaker.max_cooldown", "must not be shorter than breaker.cooldown")
