"""From an event and a subscription to the exact HTTP request."""

from __future__ import annotations

from base64 import b64encode
from urllib.parse import urlencode, urlsplit, urlunsplit

from msgspec import Struct

from hookline import __version__
from hookline.core import ids
from hookline.core.mail import MAILTO
from hookline.core.model import (
    Auth,
    AuthKind,
    Definition,
    Event,
    Millis,
    Secrets,
    Sequence,
    SignatureScheme,
    Subscription,
    Tenant,
)
from hookline.core.signing import Signer
from hookline.ports import Request
from hookline.profiles import PROFILES, Format, read_options

USER_AGENT = f"Hookline/{__version__}"
MASK = "•••"
"""Stands in the log for each secret value."""


class Composed(Struct, frozen=True, gc=False):
    """A request, and its header block as the log may show it."""

    request: Request
    masked_headers: str


class Composer:
    """Makes the requests of one version of a subscription; what does not change is prepared once."""

    __slots__ = (
        "_certificate", "_definition", "_extra", "_format", "_lines", "_masked", "_signer", "_url", "_uuids", "oauth2",
    )  # fmt: skip

    def __init__(
        self, subscription: Subscription, secrets: Secrets, tenant: Tenant, user_agent: str = USER_AGENT
    ) -> None:
        definition = subscription.definition
        profile = PROFILES[definition.profile]
        self._definition = definition
        self._format = format_of(definition, tenant)
        self._extra = bool(profile.headers)
        self._uuids = ids.DeliveryUuids(subscription.id) if profile.uuids else None
        self._url = with_query(definition.url, definition.query)
        self.oauth2: Auth | None = secrets.auth if secrets.auth.kind is AuthKind.OAUTH2 else None
        """The credentials for which an access token must be fetched first, if that is how it authenticates."""
        self._certificate = secrets.client_certificate
        self._signer = (
            Signer(definition.signing.scheme, secrets.keys)
            if definition.signing.scheme is not SignatureScheme.NONE
            else None
        )
        plain = [f"User-Agent: {user_agent}"]
        if definition.method != "GET":
            plain.append(f"Content-Type: {self._format.content_type}")
        if definition.url.startswith(MAILTO):
            # A mailbox may be the end of many subscriptions: the reader and the sender have to tell them apart.
            plain.append(f"X-Hookline-Subscription: {subscription.id}")
        plain += [f"{name}: {value}" for name, value in definition.headers.items()]
        secret = {**secrets.headers, **_auth_headers(secrets.auth)}
        self._lines = [*plain, *(f"{name}: {value}" for name, value in secret.items())]
        self._masked = "\n".join([*plain, *(f"{name}: {MASK}" for name in secret)])

    def body(self, event: Event, sequence: Sequence) -> bytes:
        """The bytes that are signed and sent; empty where the method has no body."""
        if self._definition.method == "GET":
            return b""
        return self._format.body(event, sequence)

    def message_id(self, event: Event) -> str:
        """What the header for the id says, the same in every attempt."""
        return event.id if self._uuids is None else self._uuids.of(event.position)

    def compose(
        self, event: Event, sequence: Sequence, attempt: int, now: Millis, token: str = ""
    ) -> Composed:
        """The request of the ``attempt``-th try (1, 2, …) at ``now``; ``token`` is the OAuth2 access token."""
        definition = self._definition
        body = self.body(event, sequence)
        lines = self._lines.copy()
        message_id = self.message_id(event)
        own = self._own_lines(event, message_id, sequence, attempt, now)
        masked = [self._masked, *own]
        lines += own
        if self._signer is not None:
            name = definition.signing.signature_header
            lines.append(f"{name}: {self._signer.sign(message_id, now // 1000, body, now)}")
            masked.append(f"{name}: {MASK}")
        if self.oauth2 is not None:
            lines.append(f"Authorization: Bearer {token}")
            masked.append(f"Authorization: Bearer {MASK}")
        bodiless = definition.method == "GET"
        request = Request(
            definition.method,
            with_query(self._url, self._format.query(event)) if bodiless else self._url,
            lines,
            None if bodiless else body,
            definition.timeout.connect,
            definition.timeout.total,
            self._certificate,
        )
        return Composed(request, "\n".join(masked))

    def _own_lines(
        self, event: Event, message_id: str, sequence: Sequence, attempt: int, now: Millis
    ) -> list[str]:
        definition = self._definition
        signing = definition.signing
        lines = self._format.headers(event) if self._extra else []
        if signing.id_header:
            lines.append(f"{signing.id_header}: {message_id}")
        if signing.timestamp_header:
            lines.append(f"{signing.timestamp_header}: {now // 1000}")
        if definition.tracking_headers:
            lines += [f"hookline-sequence: {sequence}", f"hookline-attempt: {attempt}"]
        return lines


def format_of(definition: Definition, tenant: Tenant) -> Format:
    """How the definition's profile writes events. Raises ``HooklineError`` for options of another version of it."""
    profile = PROFILES[definition.profile]
    return profile.format(tenant, read_options(profile, definition.profile_options))


def with_query(url: str, query: dict[str, str]) -> str:
    """The URL with the parameters added behind those it has."""
    if not query:
        return url
    parts = urlsplit(url)
    return urlunsplit(parts._replace(query="&".join(filter(None, (parts.query, urlencode(query))))))


def request_body(definition: Definition, event: Event, sequence: Sequence, tenant: Tenant) -> bytes:
    """The body that an attempt under ``definition`` sent: the log renders it again instead of storing it."""
    if definition.method == "GET":
        return b""
    return format_of(definition, tenant).body(event, sequence)


def _auth_headers(auth: Auth) -> dict[str, str]:
    match auth.kind:
        case AuthKind.BASIC:
            pair = b64encode(f"{auth.username}:{auth.secret}".encode()).decode()
            return {"Authorization": f"Basic {pair}"}
        case AuthKind.BEARER:
            return {"Authorization": f"Bearer {auth.secret}"}
        case AuthKind.API_KEY:
            return {auth.header: auth.secret}
        case AuthKind.NONE | AuthKind.OAUTH2:
            return {}
