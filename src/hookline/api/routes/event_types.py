"""The catalogue."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from hookline.api.paging import cut, encode_cursor, place_after
from hookline.api.route import AnyRoute, Call, NoQuery, Nothing, Reply, Route
from hookline.api.routes.common import PageQuery
from hookline.api.views import event_type_view
from hookline.api.wire import (
    DeprecateInput,
    EventTypeChange,
    EventTypeView,
    GroupsView,
    GroupView,
    PageView,
)
from hookline.core.errors import Conflict, IncompatibleSchema, NotFound
from hookline.core.event_type import MAX_GROUP
from hookline.core.model import Scope
from hookline.core.reading import given
from hookline.engine.manage import EventTypeSpec
from hookline.engine.manage.event_types import spec_of

TAG = "Event types"


class ForceQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """How a change is made."""

    force: Annotated[bool, Meta(description="change the schema even if that could break receivers")] = False


class TypesQuery(PageQuery, frozen=True, forbid_unknown_fields=True):
    """Which types."""

    group: Annotated[str, Meta(max_length=MAX_GROUP, description="only types of this group")] = ""


async def list_event_types(call: Call[TypesQuery, Nothing]) -> PageView[EventTypeView]:
    after = place_after("event-types", call.query.cursor, str, "")
    found = await call.services.types.list(call.tenant, after, call.query.limit + 1, call.query.group)
    page, last = cut(found, call.query.limit)
    following = None if last is None else encode_cursor("event-types", last.name)
    return PageView([event_type_view(found) for found in page], following)


async def list_groups(call: Call[NoQuery, Nothing]) -> GroupsView:
    counts = await call.services.types.groups(call.tenant)
    return GroupsView([GroupView(name, types) for name, types in counts.items()])


async def create_event_type(call: Call[NoQuery, EventTypeSpec]) -> EventTypeView:
    return event_type_view(await call.services.event_types.create(call.tenant, call.body))


async def get_event_type(call: Call[NoQuery, Nothing]) -> EventTypeView:
    return event_type_view(await call.services.event_types.get(call.tenant, call.path["name"]))


async def update_event_type(call: Call[ForceQuery, EventTypeChange]) -> EventTypeView:
    types, change = call.services.event_types, call.body
    spec = spec_of(await types.get(call.tenant, call.path["name"]))
    changed = EventTypeSpec(
        name=spec.name,
        description=given(change.description, spec.description),
        group=given(change.group, spec.group),
        usage=given(change.usage, spec.usage),
        schema=given(change.schema, spec.schema),
        example=given(change.example, spec.example),
    )
    return event_type_view(await types.update(call.tenant, changed, force=call.query.force))


async def deprecate_event_type(call: Call[NoQuery, DeprecateInput]) -> EventTypeView:
    types = call.services.event_types
    found = await types.deprecate(call.tenant, call.path["name"], deprecated=call.body.deprecated)
    return event_type_view(found)


async def get_event_type_schema(call: Call[NoQuery, Nothing]) -> Reply:
    return _document((await call.services.event_types.get(call.tenant, call.path["name"])).schema)


async def get_event_type_example(call: Call[NoQuery, Nothing]) -> Reply:
    return _document((await call.services.event_types.get(call.tenant, call.path["name"])).example)


def _document(found: bytes | None) -> Reply:
    if found is None:
        raise NotFound("this event type has none")
    return Reply(raw=found)


NAME = "/v1/event-types/{name:path}"

ROUTES: list[AnyRoute] = [
    Route(
        "GET", "/v1/event-types", list_event_types, "List the catalogue", TAG, PageView[EventTypeView],
        TypesQuery, Nothing,
        description="The tenant's own types, those from files of this installation, and those of its profile.",
    ),
    Route(
        "GET", "/v1/event-type-groups", list_groups, "List the groups of the catalogue", TAG, GroupsView,
        NoQuery, Nothing,
    ),
    Route(
        "POST", "/v1/event-types", create_event_type, "Add an event type", TAG, EventTypeView,
        NoQuery, EventTypeSpec, scope=Scope.MANAGE, status=201, errors=(Conflict,), changes=True,
    ),
    Route(
        "GET", f"{NAME}/schema", get_event_type_schema, "Get the JSON Schema of a type", TAG, Any,
        NoQuery, Nothing, errors=(NotFound,),
    ),
    Route(
        "GET", f"{NAME}/example", get_event_type_example, "Get the example of a type", TAG, Any,
        NoQuery, Nothing, errors=(NotFound,),
    ),
    Route(
        "POST", f"{NAME}/deprecate", deprecate_event_type, "Deprecate a type, or take that back", TAG,
        EventTypeView, NoQuery, DeprecateInput, scope=Scope.MANAGE, body_required=False, errors=(NotFound,),
        changes=True,
    ),
    Route(
        "GET", NAME, get_event_type, "Get an event type", TAG, EventTypeView,
        NoQuery, Nothing, errors=(NotFound,),
    ),
    Route(
        "PATCH", NAME, update_event_type, "Change an event type", TAG, EventTypeView,
        ForceQuery, EventTypeChange, scope=Scope.MANAGE, errors=(NotFound, IncompatibleSchema), changes=True,
        description="A schema under which receivers of the old one could fail is refused unless `force=true`. "
        "A type that came with the profile or from a file becomes the tenant's own.",
    ),
]  # fmt: skip
