"""The event log, the request log and the payload log ("Event and Webhook Logs").

An event's time is when it happened; ``from`` and ``to`` bound the time at which it was received, in whose order the
lists are. A list of requests goes by event, newest first, then by attempt, newest first.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import parse_qs, urlsplit

import msgspec
from msgspec import Raw, Struct, field

from hookline.api.compat.base import Answer, Ask, Operation
from hookline.api.compat.evolutionx.forms import (
    DAY,
    PROFILE,
    V1,
    NoQuery,
    PageQuery,
    Unix,
    failed,
    page,
    unix,
    webhook,
)
from hookline.api.paging import Cursor, Limit, cut, place_after
from hookline.api.views import readable
from hookline.core.errors import Fault, NotFound
from hookline.core.ids import attempt_id
from hookline.core.model import Attempt, Event, Millis, Subscription
from hookline.core.reading import read_texts, refuse
from hookline.engine.read import AttemptItem, Page
from hookline.ports import DeliveryQuery, EventQuery

NUMBER_BITS = 20
"""Bits of a cursor for the number of an attempt, below those for its event or webhook."""
_NUMBERS = (1 << NUMBER_BITS) - 1
_BATCH = 100
_MOST_SCANNED = 1000
"""Deliveries that one page of the request log looks at; those that expired unsent have no requests."""


class EventsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Which events. All given conditions must hold."""

    limit: Limit = 50
    cursor: Cursor = ""
    event_type: str = ""
    object_type: str = ""
    object_id: str = ""
    since: Unix = field(default=0, name="from")
    until: Unix = field(default=0, name="to")


class RequestsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Which requests of a webhook, by the time at which their events were received."""

    limit: Limit = 50
    cursor: Cursor = ""
    since: Unix = field(default=0, name="from")
    until: Unix = field(default=0, name="to")


class EventEntry(Struct, frozen=True):
    """One line of the event log. The source user is the application that made the change and its user's id."""

    event_id: str
    event_type: str
    object_type: str | None
    object_id: str | None
    event_time: int
    source_user_type: str | None
    source_user_id: str | None
    received_at: int


class RequestEntry(Struct, frozen=True):
    """One line of the request log ("Webhook Attempt Header Log"). ``response_status`` is null where no answer came, and
    ``error`` says why; ``event_id`` is null once the event is past its retention."""

    request_id: str
    webhook_id: str
    event_id: str | None
    attempt: int
    request_time: int
    request_method: str
    request_uri: str
    response_status: int | None
    response_time_ms: float
    error: str | None


class PayloadEntry(Struct, frozen=True):
    """What was submitted and what came back. An answer that is no JSON is in ``response_text``, in base64 if it is no
    UTF-8 either (``response_encoding``)."""

    request_id: str
    request_json: Raw | dict[str, str | list[str]]
    response_json: Raw | None
    response_text: str | None
    response_encoding: str | None
    response_truncated: bool


# --- events ---------------------------------------------------------------------------------------------


async def list_events(ask: Ask) -> Answer:
    asked = read_texts(EventsQuery, ask.query)
    if asked.object_id and not asked.object_type:
        refuse([Fault("object_type", "is needed together with object_id")])
    query = EventQuery(
        tenant_no=ask.tenant.no,
        before=place_after("evolutionx-events", asked.cursor, int, 0),
        limit=asked.limit,
        type=asked.event_type,
        object_type=asked.object_type,
        object_id=asked.object_id,
        since=asked.since * 1000,
        until=asked.until * 1000,
    )
    return _events("evolutionx-events", await ask.services.reader.events(query))


async def get_event(ask: Ask) -> Answer:
    read_texts(NoQuery, ask.query)
    return Answer(_event(await _found(ask)))


async def list_related(ask: Ask) -> Answer:
    """Other events about the same object, or of the same action (correlation id)."""
    asked = read_texts(PageQuery, ask.query)
    event = await _found(ask)
    listing = f"evolutionx-related:{event.id}"
    before = place_after(listing, asked.cursor, int, 0)
    return _events(listing, await ask.services.reader.related(ask.tenant, event, before, asked.limit))


async def _found(ask: Ask) -> Event:
    return await ask.services.reader.event(ask.tenant, ask.path["id"])


def _events(listing: str, found: Page) -> Answer:
    return page(listing, [_event(event) for event in found.events], found.next)


def _event(event: Event) -> EventEntry:
    return EventEntry(
        event_id=event.id,
        event_type=event.type,
        object_type=event.object_type,
        object_id=event.object_id,
        event_time=unix(event.occurred_at),
        source_user_type=event.source_application,
        source_user_id=event.source_user,
        received_at=unix(event.received_at),
    )


# --- requests -------------------------------------------------------------------------------------------


async def list_event_requests(ask: Ask) -> Answer:
    """Webhook after webhook."""
    asked = read_texts(PageQuery, ask.query)
    event = await _found(ask)
    listing = f"evolutionx-event-requests:{event.id}"
    after, below = _place(place_after(listing, asked.cursor, int, 0))
    storage = ask.services.storage
    entries: list[tuple[int, RequestEntry]] = []
    for delivery in await storage.event_deliveries(ask.tenant.no, event.position):
        if delivery.subscription_no < after or delivery.attempts == 0 or len(entries) > asked.limit:
            continue
        subscription = await storage.subscription_by_no(delivery.subscription_no)
        if subscription.definition.profile == PROFILE:
            made = await storage.list_attempts(subscription.no, event.position)
            top = below if subscription.no == after else 0
            entries += _requests(subscription, event, made, top, subscription.no)
    return _request_page(listing, entries, asked.limit)


async def list_webhook_requests(ask: Ask) -> Answer:
    asked = read_texts(RequestsQuery, ask.query)
    found = await webhook(ask)
    listing = f"evolutionx-requests:{found.id}"
    at, below = _place(place_after(listing, asked.cursor, int, 0))
    entries: list[tuple[int, RequestEntry]] = []
    query = DeliveryQuery(
        found.no, at + 1 if at else 0, _BATCH, (), since=asked.since * 1000, until=asked.until * 1000
    )
    for _ in range(_MOST_SCANNED // _BATCH):
        deliveries = await ask.services.storage.list_deliveries(query)
        for delivery in deliveries:
            if delivery.attempts and len(entries) <= asked.limit:
                top = below if delivery.position == at else 0
                entries += await _requests_at(ask, found, delivery.position, top)
        if len(deliveries) < _BATCH or len(entries) > asked.limit:
            return _request_page(listing, entries, asked.limit)
        query = msgspec.structs.replace(query, before=deliveries[-1].position)
    return page(listing, [entry for _, entry in entries], query.before << NUMBER_BITS | 1)


async def _requests_at(
    ask: Ask, subscription: Subscription, position: int, below: int
) -> list[tuple[int, RequestEntry]]:
    """One event at a time: a page of them at once could be as large as their payloads."""
    storage = ask.services.storage
    events = await storage.read_events(subscription.shard, [position])
    made = await storage.list_attempts(subscription.no, position)
    return _requests(subscription, events[0] if events else None, made, below, position)


def _requests(
    subscription: Subscription, event: Event | None, made: Sequence[Attempt], below: int, place: int
) -> list[tuple[int, RequestEntry]]:
    """The attempts with a number ``below`` this (0: all), newest first, each with its place in the list."""
    return [
        (place << NUMBER_BITS | attempt.number, _request(subscription, event, attempt))
        for attempt in reversed(made)
        if below == 0 or attempt.number < below
    ]


def _place(cursor: int) -> tuple[int, int]:
    return cursor >> NUMBER_BITS, cursor & _NUMBERS


def _request_page(listing: str, entries: Sequence[tuple[int, RequestEntry]], limit: int) -> Answer:
    shown, last = cut(entries, limit)
    return page(listing, [entry for _, entry in shown], None if last is None else last[0])


async def get_request(ask: Ask) -> Answer:
    read_texts(NoQuery, ask.query)
    subscription, event, sent = await _sent(ask)
    return Answer(_request(subscription, event, sent.attempt))


async def _sent(ask: Ask) -> tuple[Subscription, Event | None, AttemptItem]:
    try:
        found = await ask.services.reader.attempt(ask.tenant, ask.path["id"])
    except NotFound:
        found = None
    if found is None or found[0].definition.profile != PROFILE:
        raise NotFound("there is no such request, or it is past its retention")
    return found


def _request(subscription: Subscription, event: Event | None, attempt: Attempt) -> RequestEntry:
    target = urlsplit(attempt.url)
    return RequestEntry(
        request_id=attempt_id(attempt.subscription_no, attempt.position, attempt.number),
        webhook_id=subscription.id,
        event_id=None if event is None else event.id,
        attempt=attempt.number,
        request_time=unix(attempt.started_at),
        request_method=attempt.method,
        request_uri=target.netloc + target.path,
        response_status=attempt.status or None,
        response_time_ms=attempt.total_us / 1000,
        error=attempt.error or None,
    )


# --- payloads -------------------------------------------------------------------------------------------


async def get_payload(ask: Ask) -> Answer:
    """Gone (410) once the payload is past its retention, while the request log still has the request.

    The request's body is rendered again from the event (docs/adr/0006), so its time must be looked at here.
    """
    read_texts(NoQuery, ask.query)
    _, event, sent = await _sent(ask)
    days = (ask.tenant.retention or ask.services.options.retention).bodies
    kept_since: Millis = ask.services.clock.now() - days * DAY
    if event is None or sent.body is None or sent.attempt.started_at < kept_since:
        message = (
            f"the payload log keeps {days} days, and this request is past them; its header log is still there"
        )
        return failed(410, "past_retention", message, (), ask.request_id)
    return Answer(_payload(ask.path["id"], sent.attempt, sent.body))


def _payload(request_id: str, attempt: Attempt, body: bytes) -> PayloadEntry:
    answer = attempt.response_body
    is_json = _is_json(answer)
    is_text = bool(answer) and not is_json
    text, encoding = readable(answer, truncated=attempt.response_truncated) if is_text else (None, None)
    return PayloadEntry(
        request_id=request_id,
        request_json=_submitted(attempt.url) if attempt.method == "GET" else Raw(body),
        response_json=Raw(answer) if is_json else None,
        response_text=text,
        response_encoding=encoding,
        response_truncated=attempt.response_truncated,
    )


def _submitted(url: str) -> dict[str, str | list[str]]:
    """What a request without a body says in its URL."""
    given = parse_qs(urlsplit(url).query, keep_blank_values=True)
    return {name: values[0] if len(values) == 1 else values for name, values in given.items()}


def _is_json(answer: bytes) -> bool:
    try:
        msgspec.json.decode(answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


OPERATIONS = (
    Operation("GET", f"{V1}/events", list_events),
    Operation("GET", f"{V1}/events/{{id}}", get_event),
    Operation("GET", f"{V1}/events/{{id}}/related", list_related),
    Operation("GET", f"{V1}/events/{{id}}/requests", list_event_requests),
    Operation("GET", f"{V1}/webhooks/{{id}}/requests", list_webhook_requests),
    Operation("GET", f"{V1}/requests/{{id}}", get_request),
    Operation("GET", f"{V1}/requests/{{id}}/payload", get_payload),
)
