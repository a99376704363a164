"""Mail: events as text for a person, sent through the operator's SMTP server."""

from __future__ import annotations

import re
from typing import Final

import msgspec
from msgspec import Struct

from hookline.core.model import (
    OPERATIONAL_PREFIX,
    Event,
    RetryKind,
    RetryPolicy,
    Sequence,
    SignatureScheme,
    Signing,
    Tenant,
    Timeout,
)
from hookline.core.times import rfc3339
from hookline.profiles.base import UNJUDGED, Defaults, NoOptions

MOST_DATA: Final = 64 * 1024
"""Bytes of an event's data that a mail shows."""
_LONGEST: Final = 1000
"""Characters of any other text."""
_SUBJECT: Final = 150

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_NOT_PLAIN = re.compile(r"[^\x20-\x7e]")


class _Failed(Struct):
    """What a mail tells of ``hookline.delivery.failed``."""

    subscription_id: str
    delivery_id: str
    event_id: str
    event_type: str
    attempts: int
    reason: str


class _Unwell(Struct):
    """What a mail tells of a subscription that is failing or disabled. Its URL is left out: it may hold a secret."""

    subscription_id: str
    reason: str
    name: str = ""
    failing_since: str | None = None


class MailFormat:
    """Plain text. What is known to need a person's help says so in words; of any other event, the data is shown."""

    content_type = "text/plain; charset=utf-8"

    def __init__(self, tenant: Tenant) -> None:
        self._tenant = tenant

    def body(self, event: Event, sequence: Sequence) -> bytes:
        """See ``Format``."""
        told = _told(event)
        lines = [*(told[1] if told else _shown(event)), "", f"Tenant: {self._tenant.id}"]
        return "\n".join([*lines, ""]).encode("utf-8", "replace")

    def headers(self, event: Event) -> list[str]:
        """See ``Format``. ASCII, like everything that goes into the log as a header."""
        told = _told(event)
        about = f" ({event.object_type} {event.object_id})" if event.object_type and event.object_id else ""
        subject = f"[{self._tenant.id}] {told[0] if told else event.type + about}"
        return [
            f"Subject: {_NOT_PLAIN.sub('?', subject)[:_SUBJECT].rstrip()}",
            f"X-Hookline-Event: {event.id}",
            f"X-Hookline-Event-Type: {event.type}",
            f"X-Hookline-Tenant: {self._tenant.id}",
        ]

    def query(self, event: Event) -> dict[str, str]:
        """See ``Format``. A mail has a body."""
        return {}


# --- words ----------------------------------------------------------------------------------------------


def _told(event: Event) -> tuple[str, list[str]] | None:
    """Subject and text for the events that Hookline publishes itself; None for all others."""
    if not event.type.startswith(OPERATIONAL_PREFIX):
        return None
    try:
        match event.type:
            case "hookline.delivery.failed":
                return _failed(event, msgspec.json.decode(event.data, type=_Failed))
            case "hookline.subscription.failing":
                return _failing(event, msgspec.json.decode(event.data, type=_Unwell))
            case "hookline.subscription.disabled":
                return _disabled(event, msgspec.json.decode(event.data, type=_Unwell))
            case _:
                return None
    except msgspec.DecodeError:
        return None


def _failed(event: Event, data: _Failed) -> tuple[str, list[str]]:
    count = "1 attempt" if data.attempts == 1 else f"{data.attempts} attempts"
    return f"Delivery of {data.event_type} failed", [
        f"An event could not be delivered. Hookline gave up after {count}.",
        "",
        _row("Subscription", data.subscription_id),
        _row("Event", f"{data.event_id} ({data.event_type})"),
        _row("Delivery", data.delivery_id),
        _row("Reason", data.reason),
        _row("Time", rfc3339(event.occurred_at)),
        "",
        "What to do:",
        "1. Find out from the reason why the endpoint did not take it, and mend that.",
        f"2. Send it again:  POST /v1/deliveries/{_clean(data.delivery_id)}/resend",
        f"   All that failed:  POST /v1/subscriptions/{_clean(data.subscription_id)}/replay",
    ]


def _failing(event: Event, data: _Unwell) -> tuple[str, list[str]]:
    return f"Subscription {data.subscription_id} is failing", [
        "A subscription has had nothing but failures for long. If that goes on, Hookline will disable it.",
        "",
        *_about(event, data),
        "",
        "What to do:",
        f"1. Look at its attempts:  GET /v1/subscriptions/{_clean(data.subscription_id)}/deliveries?include=attempts",
        "2. Mend the endpoint, or point the subscription to another one.",
    ]


def _disabled(event: Event, data: _Unwell) -> tuple[str, list[str]]:
    return f"Subscription {data.subscription_id} was disabled", [
        "Hookline disabled a subscription: nothing more is sent to its endpoint. Its place in the log is kept.",
        "",
        *_about(event, data),
        "",
        "What to do:",
        "1. Mend the endpoint, or point the subscription to another one.",
        f"2. Go on where it stopped:  POST /v1/subscriptions/{_clean(data.subscription_id)}/resume",
    ]


def _about(event: Event, data: _Unwell) -> list[str]:
    rows = [_row("Subscription", data.subscription_id), _row("Reason", data.reason)]
    if data.name:
        rows.insert(1, _row("Name", data.name))
    if data.failing_since:
        rows.append(_row("Failing since", data.failing_since))
    return [*rows, _row("Time", rfc3339(event.occurred_at))]


def _shown(event: Event) -> list[str]:
    about = [("Object", f"{event.object_type or ''} {event.object_id or ''}".strip())]
    about += [("Source", event.source_application or ""), ("Correlation", event.correlation_id or "")]
    return [
        _row("Event type", event.type),
        _row("Time", rfc3339(event.occurred_at)),
        *(_row(name, value) for name, value in about if value),
        _row("Event", event.id),
        "",
        _data(event.data),
    ]


def _row(name: str, value: str) -> str:
    return f"{name + ':':<14} {_clean(value)}"


def _clean(value: str) -> str:
    """A text of others on one line."""
    return _CONTROL.sub(" ", value)[:_LONGEST]


def _data(data: bytes) -> str:
    """The data laid out for people; a long one as it came, for its beginning alone."""
    if len(data) <= MOST_DATA:
        try:
            laid_out = msgspec.json.format(data, indent=2)
        except (msgspec.DecodeError, RecursionError):
            laid_out = data
        if len(laid_out) <= MOST_DATA:
            return laid_out.decode("utf-8", "replace")
    note = f"(cut off here: the data has {len(data)} bytes, and a mail shows up to {MOST_DATA})"
    return data[:MOST_DATA].decode("utf-8", "ignore") + f" …\n\n{note}"


class MailProfile:
    """See ``Profile``. What a mail server refuses for good (5xx) is not tried again; an address that does not exist
    stays so."""

    name = "mail"
    title = "Mail"
    defaults = Defaults(
        signing=Signing(SignatureScheme.NONE, "", ""),
        retry=RetryPolicy(
            kind=RetryKind.LIST,
            delays=(60.0, 300.0, 900.0, 3600.0, 14_400.0),
            jitter=0.1,
            retry_on=("network", "4xx"),
        ),
        timeout=Timeout(connect=10.0, total=60.0),
        breaker=UNJUDGED,
        disable_after=0.0,
        disable_on_gone=False,
    )
    options = NoOptions
    headers = frozenset({"subject", "x-hookline-event", "x-hookline-event-type", "x-hookline-tenant"})
    uuids = False

    def format(self, tenant: Tenant, options: NoOptions) -> MailFormat:
        """See ``Profile``."""
        return MailFormat(tenant)
