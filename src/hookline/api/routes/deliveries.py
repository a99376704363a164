"""Deliveries, attempts, sending again, usage."""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType, field

from hookline.api.paging import Cursor, Limit, encode_cursor, place_after
from hookline.api.route import AnyRoute, Call, NoQuery, Nothing, Route
from hookline.api.routes.common import From, Include, LimitQuery, To, moment
from hookline.api.views import attempt_view, delivery_view, replay_view, usage_view
from hookline.api.wire import AttemptView, DeliveryView, PageView, ReplayInput, ReplayView, UsageView
from hookline.core.errors import Conflict, Fault, InvalidInput, NotFound
from hookline.core.model import DeliveryState, Scope, Subscription
from hookline.core.reading import refuse
from hookline.core.times import rfc3339
from hookline.engine.manage import Range
from hookline.engine.manage.replays import FINAL_STATES
from hookline.engine.read import UNSUCCESSFUL_STATES
from hookline.ports import DeliveryQuery

TAG = "Deliveries"
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
USAGE_DAYS = 31


class DeliveriesQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Which deliveries of a subscription, newest first."""

    limit: Limit = 50
    cursor: Cursor = ""
    since: From = field(default="", name="from")
    until: To = field(default="", name="to")
    state: Annotated[tuple[DeliveryState, ...], Meta(description="states, with commas between")] = ()
    success: Annotated[
        bool | UnsetType, Meta(description="true: succeeded; false: retrying, failed or expired")
    ] = UNSET
    include: Include = ()


class UsageQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Which days (``YYYY-MM-DD``, UTC), both included; the last 31 if none are given."""

    since: Annotated[str, Meta(description="first day, YYYY-MM-DD")] = field(default="", name="from")
    until: Annotated[str, Meta(description="last day, YYYY-MM-DD")] = field(default="", name="to")


async def list_deliveries(call: Call[DeliveriesQuery, Nothing]) -> PageView[DeliveryView]:
    asked = call.query
    found = await _subscription(call)
    listing = f"deliveries:{found.id}"
    query = DeliveryQuery(
        subscription_no=found.no,
        before=place_after(listing, asked.cursor, int, 0),
        limit=asked.limit,
        states=_states(asked),
        since=moment("from", asked.since),
        until=moment("to", asked.until),
    )
    payloads = "payload" in asked.include
    items, last = await call.services.reader.deliveries(
        call.tenant, found, query, attempts="attempts" in asked.include, payloads=payloads
    )
    following = None if last is None else encode_cursor(listing, last)
    return PageView([delivery_view(item, payload=payloads) for item in items], following)


def _states(asked: DeliveriesQuery) -> tuple[DeliveryState, ...]:
    if isinstance(asked.success, UnsetType):
        return asked.state
    wanted = (DeliveryState.SUCCEEDED,) if asked.success else UNSUCCESSFUL_STATES
    if not asked.state:
        return wanted
    both = tuple(state for state in asked.state if state in wanted)
    if not both:
        message = "contradicts state: no delivery can be both"
        raise InvalidInput(f"success: {message}", [Fault("success", message)])
    return both


async def get_delivery(call: Call[NoQuery, Nothing]) -> DeliveryView:
    return delivery_view(await call.services.reader.delivery(call.tenant, call.path["id"]), payload=True)


async def resend_delivery(call: Call[NoQuery, Nothing]) -> DeliveryView:
    return delivery_view(await call.services.replays.resend(call.tenant, call.path["id"]))


async def get_attempt(call: Call[NoQuery, Nothing]) -> AttemptView:
    return attempt_view(*await call.services.reader.attempt(call.tenant, call.path["id"]))


async def create_replay(call: Call[NoQuery, ReplayInput]) -> ReplayView:
    found, asked = await _subscription(call), call.body
    wanted = Range(
        since=0 if asked.start == "beginning" else moment("from", asked.start or "?"),
        until=moment("to", asked.end or ""),
        states=_chosen(asked),
        rate=asked.rate,
    )
    replays = call.services.replays
    replay = await (replays.plan if asked.dry_run else replays.start)(found, wanted)
    return replay_view(found, replay, dry_run=asked.dry_run)


def _chosen(asked: ReplayInput) -> tuple[DeliveryState, ...]:
    if asked.state is None:
        return FINAL_STATES
    return (asked.state,) if isinstance(asked.state, DeliveryState) else tuple(asked.state)


async def list_replays(call: Call[LimitQuery, Nothing]) -> PageView[ReplayView]:
    found = await _subscription(call)
    replays = await call.services.replays.list(found, call.query.limit)
    return PageView([replay_view(found, replay) for replay in replays])


async def get_replay(call: Call[NoQuery, Nothing]) -> ReplayView:
    return replay_view(*await call.services.replays.get(call.tenant, call.path["id"]))


async def cancel_replay(call: Call[NoQuery, Nothing]) -> ReplayView:
    return replay_view(*await call.services.replays.cancel(call.tenant, call.path["id"]))


async def get_usage(call: Call[UsageQuery, Nothing]) -> PageView[UsageView]:
    asked = call.query
    refuse(
        Fault(name, "must be a day like 2026-01-31")
        for name, day in (("from", asked.since), ("to", asked.until))
        if day and not _is_day(day)
    )
    last = asked.until or rfc3339(call.services.clock.now())[:10]
    first = asked.since or _days_before(last, USAGE_DAYS - 1)
    found = await call.services.reader.usage(call.tenant, first, last)
    return PageView([usage_view(usage) for usage in found])


def _is_day(text: str) -> bool:
    try:
        return bool(_DAY.fullmatch(text)) and bool(date.fromisoformat(text))
    except ValueError:  # no calendar has it
        return False


def _days_before(day: str, days: int) -> str:
    return date.fromordinal(max(date.fromisoformat(day).toordinal() - days, 1)).isoformat()


async def _subscription(call: Call[Any, Any]) -> Subscription:
    return await call.services.storage.get_subscription(call.tenant.no, call.path["id"])


SUBSCRIPTION = "/v1/subscriptions/{id}"

ROUTES: list[AnyRoute] = [
    Route(
        "GET", f"{SUBSCRIPTION}/deliveries", list_deliveries, "List the deliveries of a subscription", TAG,
        PageView[DeliveryView], DeliveriesQuery, Nothing, errors=(NotFound,),
    ),
    Route(
        "GET", "/v1/deliveries/{id}", get_delivery, "Get a delivery with its attempts", TAG, DeliveryView,
        NoQuery, Nothing, errors=(NotFound,),
    ),
    Route(
        "POST", "/v1/deliveries/{id}/resend", resend_delivery, "Send a delivery again", TAG, DeliveryView,
        NoQuery, Nothing, scope=Scope.MANAGE, status=202, errors=(NotFound, Conflict),
        description="At once and with a fresh retry schedule; event id and sequence stay the same.",
    ),
    Route(
        "GET", "/v1/attempts/{id}", get_attempt, "Get an attempt: request, response, times", TAG,
        AttemptView, NoQuery, Nothing, errors=(NotFound,),
    ),
    Route(
        "POST", f"{SUBSCRIPTION}/replay", create_replay, "Send a range of deliveries again", TAG, ReplayView,
        NoQuery, ReplayInput, scope=Scope.MANAGE, status=202, errors=(NotFound,), changes=True,
        description="`dry_run` only counts. `from` may be \"beginning\".",
    ),
    Route(
        "GET", f"{SUBSCRIPTION}/replays", list_replays, "List the replays of a subscription", TAG,
        PageView[ReplayView], LimitQuery, Nothing, errors=(NotFound,),
    ),
    Route(
        "GET", "/v1/replays/{id}", get_replay, "Get a replay and its progress", TAG, ReplayView,
        NoQuery, Nothing, errors=(NotFound,),
    ),
    Route(
        "POST", "/v1/replays/{id}/cancel", cancel_replay, "Cancel a replay", TAG, ReplayView,
        NoQuery, Nothing, scope=Scope.MANAGE, errors=(NotFound,), changes=True,
    ),
    Route(
        "GET", "/v1/usage", get_usage, "What the tenant used, by day", "Tenants and keys",
        PageView[UsageView], UsageQuery, Nothing,
    ),
]  # fmt: skip
