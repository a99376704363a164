"""The forms of Front Systems: keys, times, status texts, errors."""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import final

from msgspec import UNSET, Raw, Struct, UnsetType

from hookline.api.problems import TYPE_BASE
from hookline.core import ids
from hookline.core.errors import HooklineError, InvalidInput
from hookline.core.model import Attempt, DeliveryState, Event, EventType, Millis, Subscription
from hookline.core.times import rfc3339
from hookline.ports import Delivery, ErrorClass

STORE = "storeId"
"""The name in a subscription's metadata under which its store stands."""
STORES = range(-(1 << 31), 1 << 31)
"""The platform's model has an int32: another number would break its clients' reading of the whole list."""
_STORE = re.compile(r"0|-?[1-9][0-9]{0,9}")

# --- texts ---------------------------------------------------------------------------------------------

PENDING = "Pending"
EXPIRED = "Expired"
_OWN_TEXTS = {
    413: "Payload too large",
    414: "URI too long",
    416: "Range not satisfiable",
    422: "Unprocessable entity",
}
"""As the platform's framework has them. Python's own texts for these differ from version to version."""


def _sentence(phrase: str) -> str:
    """``Not Found`` as the platform writes it, ``Not found``; abbreviations stay as they are."""
    first, *others = phrase.split(" ")
    return " ".join([first, *(word if word.isupper() and len(word) > 1 else word.lower() for word in others)])


REASONS = {status.value: _sentence(status.phrase) for status in HTTPStatus} | _OWN_TEXTS
"""HTTP reason texts by status."""
NO_ANSWER = {
    ErrorClass.DNS: "Name not resolved",
    ErrorClass.ADDRESS_REFUSED: "Address refused",
    ErrorClass.CONNECT: "Connection failed",
    ErrorClass.CONNECT_TIMEOUT: "Connection timed out",
    ErrorClass.TLS: "TLS failed",
    ErrorClass.TIMEOUT: "Timed out",
    ErrorClass.RESET: "Connection reset",
    ErrorClass.PROTOCOL: "Protocol error",
    ErrorClass.AUTH: "No access token",
    ErrorClass.INTERNAL: "Internal error",
}
"""What stands in the place of a reason text when there was no answer."""
_NO_ANSWER: dict[str, str] = {error.value: text for error, text in NO_ANSWER.items()}


def reason_text(status: int, error: str) -> str:
    """What came of one request."""
    if status:
        return REASONS.get(status, f"Status {status}")
    return _NO_ANSWER.get(error, _NO_ANSWER[ErrorClass.INTERNAL])


def result_of(delivery: Delivery) -> tuple[str, int]:
    """Status text and code of the last run: code 0 where there was no answer, or the event waits to be sent."""
    if delivery.state is DeliveryState.EXPIRED:
        return EXPIRED, 0
    if delivery.state in (DeliveryState.PENDING, DeliveryState.RETRYING):
        return PENDING, 0
    return reason_text(delivery.status, delivery.error), delivery.status


# --- times ---------------------------------------------------------------------------------------------


def short_time(time: Millis) -> str:
    """``2021-12-09T08:50:46.02``: UTC without saying so, and without zeros at the end."""
    return rfc3339(time)[:-1].rstrip("0").rstrip(".")


def long_time(time: Millis) -> str:
    """``2021-12-09T08:50:46.0200000+00:00``."""
    return f"{rfc3339(time)[:-1]}0000+00:00"


# --- webhooks and types --------------------------------------------------------------------------------


class WebhookView(Struct, frozen=True, rename="camel"):
    """A webhook."""

    id: str
    store_id: int | None
    event: str
    url: str


class TypeView(Struct, frozen=True):
    """A type of webhook event."""

    name: str
    group: str
    description: str
    usage: str


def store_of(found: Subscription) -> int | None:
    """The store to which a webhook is limited. Metadata is free to its owner: what is no store there means none."""
    store = found.definition.metadata.get(STORE, "")
    return int(store) if _STORE.fullmatch(store) and int(store) in STORES else None


def event_of(found: Subscription) -> str:
    """Subscriptions that were made elsewhere may name several types: these are shown with commas between."""
    return ", ".join(found.definition.events)


def webhook_view(found: Subscription) -> WebhookView:
    return WebhookView(ids.uuid_of(found.id), store_of(found), event_of(found), found.definition.url)


def type_view(found: EventType) -> TypeView:
    """What the seed's overview says of a type: its trigger is our description."""
    return TypeView(found.name, found.group, found.description, found.usage)


# --- events --------------------------------------------------------------------------------------------


class RunView(Struct, frozen=True, rename="camel"):
    """One request: an attempt."""

    date_time: str
    status: str
    status_code: int
    success: bool
    duration: float
    """Milliseconds."""
    error: str | None


class ItemView(Struct, frozen=True, rename="camel"):
    """An event in a list."""

    webhook_id: str
    webhook_event_id: str
    created_date_time: str
    updated_date_time: str | None
    status: str
    status_code: int
    success: bool
    runs_counter: int
    runs: list[RunView]
    payload: Raw | UnsetType | None = UNSET


class DetailView(Struct, frozen=True, rename="camel"):
    """One event, as it is shown alone and after a resend."""

    webhook_id: str
    webhook_event_id: str
    created_date_time: str
    status: str
    payload: Raw | None


@final
class Views:
    """The events of one webhook. ``event`` is None once its retention is over."""

    __slots__ = ("_uuids", "_webhook")

    def __init__(self, found: Subscription) -> None:
        self._webhook = ids.uuid_of(found.id)
        self._uuids = ids.DeliveryUuids(found.id)

    def item(
        self, delivery: Delivery, event: Event | None, runs: Sequence[Attempt], *, payload: bool
    ) -> ItemView:
        """An entry of the list."""
        text, code = result_of(delivery)
        again = delivery.attempts > 1 and delivery.settled_at
        return ItemView(
            webhook_id=self._webhook,
            webhook_event_id=self._uuids.of(delivery.position),
            created_date_time=short_time(created_at(delivery, event)),
            updated_date_time=short_time(delivery.settled_at) if again else None,
            status=text,
            status_code=code,
            success=delivery.state is DeliveryState.SUCCEEDED,
            runs_counter=delivery.attempts,
            runs=[_run(attempt) for attempt in runs],
            payload=_payload(event) if payload else UNSET,
        )

    def detail(self, delivery: Delivery, event: Event | None) -> DetailView:
        """The event alone."""
        return DetailView(
            webhook_id=self._webhook,
            webhook_event_id=self._uuids.of(delivery.position),
            created_date_time=long_time(created_at(delivery, event)),
            status=result_of(delivery)[0],
            payload=_payload(event),
        )


def created_at(delivery: Delivery, event: Event | None) -> Millis:
    """When the event was received; of one that is gone, only its last run is known."""
    return delivery.settled_at if event is None else event.received_at


def _payload(event: Event | None) -> Raw | None:
    return None if event is None else Raw(event.data)


def _run(attempt: Attempt) -> RunView:
    return RunView(
        date_time=short_time(attempt.started_at),
        status=reason_text(attempt.status, attempt.error),
        status_code=attempt.status,
        success=200 <= attempt.status < 300,
        duration=attempt.total_us / 1000,
        error=(attempt.detail or attempt.error) if attempt.error else None,
    )


# --- errors --------------------------------------------------------------------------------------------


class ProblemView(Struct, frozen=True, rename="camel"):
    """An error (RFC 7807, with the two members that ASP.NET adds; ``errors`` only where there are faults)."""

    type: str
    title: str
    status: int
    detail: str
    trace_id: str
    errors: dict[str, list[str]] | UnsetType


_FIELDS = {"events": "event", "": "$"}
"""What the platform calls fields of ours; ``$`` is the body as a whole."""


def problem_view(error: HooklineError, request_id: str) -> ProblemView:
    """The error, with every fault under the name of its field."""
    errors: dict[str, list[str]] = {}
    for fault in error.faults:
        name = fault.field.partition("[")[0]
        errors.setdefault(_FIELDS.get(name, name), []).append(fault.message)
    status = 400 if isinstance(error, InvalidInput) else error.status
    return ProblemView(TYPE_BASE + error.code, error.title, status, error.detail, request_id, errors or UNSET)
