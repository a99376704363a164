"""Publishing in batches, and reading events."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from hookline.api.http import media_type
from hookline.api.paging import Cursor, Limit, encode_cursor, place_after
from hookline.api.problems import problem
from hookline.api.route import JSON, NDJSON, AnyRoute, Call, NoQuery, Nothing, Route
from hookline.api.routes.common import From, IncludePayload, To, moment
from hookline.api.views import event_view, story_view
from hookline.api.wire import BatchItem, BatchResult, EventDeliveryView, EventView, PageView, PublishedView
from hookline.core.errors import (
    Fault,
    HooklineError,
    IdConflict,
    InvalidInput,
    InvalidJson,
    NotFound,
    Overloaded,
    SchemaViolation,
    StorageUnavailable,
    TooLarge,
)
from hookline.core.model import Scope
from hookline.engine.publish import EventInput, Published
from hookline.engine.read import Page
from hookline.ports import EventQuery

TAG = "Events"


class EventsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Which events, newest first. All given conditions must hold."""

    limit: Limit = 50
    cursor: Cursor = ""
    type: str = ""
    object_type: str = ""
    object_id: Annotated[str, Meta(description="together with object_type")] = ""
    correlation_id: str = ""
    since: From = msgspec.field(default="", name="from")
    until: To = msgspec.field(default="", name="to")
    include: IncludePayload = ()


class RelatedQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """A page of related events, newest first."""

    limit: Limit = 50
    cursor: Cursor = ""
    include: IncludePayload = ()


class StoriesQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """A page of subscriptions, oldest first."""

    limit: Limit = 200
    cursor: Cursor = ""


async def publish_event(call: Call[NoQuery, bytes]) -> PublishedView:
    """Only the table's row: ``POST /v1/events`` is answered by ``Ingest``."""
    published = await call.services.publisher.publish(call.tenant, call.body)
    return PublishedView(published.id, published.duplicate)


async def publish_batch(call: Call[NoQuery, bytes]) -> BatchResult:
    items = _items(media_type(call.headers.get(b"content-type", b"")), call.body)
    most = call.services.options.batch_items
    if len(items) > most:
        raise TooLarge(f"the batch has {len(items)} items; the limit is {most}")
    results = await call.services.publisher.publish_batch(call.tenant, items)
    return BatchResult([_result(result, call.request_id) for result in results])


def _items(content_type: bytes, body: bytes) -> list[bytes]:
    """The items with their exact bytes: lines of NDJSON, or elements of a JSON array."""
    if content_type == NDJSON.encode():
        return [line for line in body.split(b"\n") if line.strip()]
    try:
        return [bytes(item) for item in msgspec.json.decode(body, type=list[Raw])]
    except msgspec.ValidationError:
        raise InvalidInput(
            "the body must be a JSON array of events", [Fault("", "must be a JSON array, or NDJSON")]
        ) from None
    except RecursionError:
        raise InvalidJson("the body is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidJson(f"the body is not valid JSON: {error}") from None


def _result(result: Published | HooklineError, request_id: str) -> BatchItem:
    if isinstance(result, HooklineError):
        return BatchItem(status=result.status, error=problem(result, request_id))
    return BatchItem(status=202, id=result.id, duplicate=result.duplicate)


async def list_events(call: Call[EventsQuery, Nothing]) -> PageView[EventView]:
    asked = call.query
    if bool(asked.object_type) is not bool(asked.object_id):
        given, missing = ("object_type", "object_id") if asked.object_type else ("object_id", "object_type")
        message = f"is needed together with {given}"
        raise InvalidInput(f"{missing}: {message}", [Fault(missing, message)])
    query = EventQuery(
        tenant_no=call.tenant.no,
        before=place_after("events", asked.cursor, int, 0),
        limit=asked.limit,
        type=asked.type,
        object_type=asked.object_type,
        object_id=asked.object_id,
        correlation_id=asked.correlation_id,
        since=moment("from", asked.since),
        until=moment("to", asked.until),
    )
    payloads = "payload" in asked.include
    return _page("events", await call.services.reader.events(query, payloads=payloads), payloads=payloads)


async def get_event(call: Call[NoQuery, Nothing]) -> EventView:
    return event_view(await call.services.reader.event(call.tenant, call.path["id"]), payload=True)


async def get_event_deliveries(call: Call[StoriesQuery, Nothing]) -> PageView[EventDeliveryView]:
    event = await call.services.reader.event(call.tenant, call.path["id"])
    after = place_after("stories", call.query.cursor, int, 0)
    stories, last = await call.services.reader.stories(call.tenant, event, after, call.query.limit)
    following = None if last is None else encode_cursor("stories", last)
    return PageView([story_view(story, event) for story in stories], following)


async def list_related_events(call: Call[RelatedQuery, Nothing]) -> PageView[EventView]:
    asked, reader = call.query, call.services.reader
    event = await reader.event(call.tenant, call.path["id"])
    before = place_after("related", asked.cursor, int, 0)
    payloads = "payload" in asked.include
    page = await reader.related(call.tenant, event, before, asked.limit, payloads=payloads)
    return _page("related", page, payloads=payloads)


def _page(listing: str, page: Page, *, payloads: bool) -> PageView[EventView]:
    following = None if page.next is None else encode_cursor(listing, page.next)
    return PageView([event_view(event, payload=payloads) for event in page.events], following)


PUBLISH_ERRORS = (
    InvalidJson, IdConflict, SchemaViolation, TooLarge, Overloaded, StorageUnavailable,
)  # fmt: skip

ROUTES: list[AnyRoute] = [
    Route(
        "POST", "/v1/events", publish_event, "Publish an event", TAG, PublishedView,
        NoQuery, bytes, scope=Scope.PUBLISH, status=202, document=EventInput, errors=PUBLISH_ERRORS,
        description="Answers 202 once the event is on disk. The same id with the same content again answers "
        "`duplicate: true`; with other content it is refused. `data` reaches receivers byte for byte.",
    ),
    Route(
        "POST", "/v1/events/batch", publish_batch, "Publish up to 1,000 events", TAG, BatchResult,
        NoQuery, bytes, scope=Scope.PUBLISH, document=list[Any], media_types=(JSON, NDJSON),
        errors=(InvalidJson, TooLarge), large=True,
        description="Each item is what `POST /v1/events` takes, and is stored or refused on its own; the results come "
        "in the order of the items. As NDJSON, each line is an item.",
    ),
    Route(
        "GET", "/v1/events", list_events, "List events, newest first", TAG, PageView[EventView],
        EventsQuery, Nothing,
    ),
    Route(
        "GET", "/v1/events/{id}", get_event, "Get an event", TAG, EventView,
        NoQuery, Nothing, errors=(NotFound,),
    ),
    Route(
        "GET", "/v1/events/{id}/deliveries", get_event_deliveries, "What became of an event, and why", TAG,
        PageView[EventDeliveryView], StoriesQuery, Nothing, errors=(NotFound,),
        description="One entry for every subscription of the tenant: its delivery, that it is still pending, "
        "or the reason why there is none.",
    ),
    Route(
        "GET", "/v1/events/{id}/related", list_related_events, "Events about the same object or correlation",
        TAG, PageView[EventView], RelatedQuery, Nothing, errors=(NotFound,),
    ),
]  # fmt: skip
