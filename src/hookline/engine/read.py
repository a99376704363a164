"""Reading for the API, the console and the CLI: what happened to an event, a delivery, a subscription.

A delivery is written only once something became of it. That an event still waits for a subscription, or why it never
went there, is worked out from the definition in force at its position.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import TypeVar

from msgspec import Struct, structs

from hookline.core import ids
from hookline.core.errors import NotFound
from hookline.core.matching import Matcher, Payload
from hookline.core.model import (
    Attempt,
    Definition,
    DefinitionVersion,
    DeliveryState,
    Event,
    LaneState,
    Millis,
    Position,
    Subscription,
    SubscriptionState,
    Tenant,
    Usage,
)
from hookline.engine.compose import request_body
from hookline.ports import Delivery, DeliveryQuery, EventQuery, Storage

PAGE_BYTES = 8 << 20
"""A page of payloads ends early, but holds at least one, when its payloads come to more bytes than this."""

T = TypeVar("T")


class Page(Struct, frozen=True):
    """One page, and where the next one begins (None: this is the last)."""

    events: Sequence[Event]
    next: Position | None


class DeliveryItem(Struct, frozen=True):
    """A recorded delivery with what was asked for along with it. ``event`` is None once retention removed it."""

    delivery: Delivery
    subscription: Subscription
    event: Event | None
    attempts: Sequence[AttemptItem] | None = None


class AttemptItem(Struct, frozen=True):
    """One attempt and the body it sent (None if the event is gone)."""

    attempt: Attempt
    body: bytes | None


class Outcome(StrEnum):
    """What an event became for one subscription. Beside the states of a delivery, why there is none."""

    PENDING = "pending"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    EXPIRED = "expired"
    NOT_MATCHED = "not_matched"
    BEFORE_START = "before_start"
    SKIPPED = "skipped"
    REMOVED = "removed"


class Story(Struct, frozen=True):
    """What became of one event for one subscription, and why. ``delivery`` is there once it is recorded."""

    subscription: Subscription
    outcome: Outcome
    reason: str
    delivery: Delivery | None = None


class Health(Struct, frozen=True):
    """How a subscription is doing. ``lag`` is how many events of the log it has not looked at."""

    subscription: Subscription
    cursor: Position
    head: Position
    lag: int
    sequence: int
    waiting: int
    next_due: Millis
    failing_since: Millis


class Reader:
    """Answers questions. Everything is of one tenant: what belongs to another is ``NotFound``."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    # --- events ---

    async def event(self, tenant: Tenant, event_id: str) -> Event:
        """Raises ``NotFound``."""
        found = (
            await self._storage.find_event(tenant.no, event_id) if ids.EVENT_ID.fullmatch(event_id) else None
        )
        if found is None:
            raise NotFound("there is no such event, or its retention has ended")
        return found

    async def events(self, query: EventQuery, *, payloads: bool = False) -> Page:
        """Newest first."""
        found = await self._storage.list_events(structs.replace(query, limit=query.limit + 1))
        return _page(found, query.limit, payloads=payloads)

    async def related(
        self, tenant: Tenant, event: Event, before: Position, limit: int, *, payloads: bool = False
    ) -> Page:
        """Other events about the same object, or with the same correlation id, newest first."""
        base = EventQuery(tenant_no=tenant.no, before=before, limit=limit + 2)
        found: dict[Position, Event] = {}
        if event.object_type is not None and event.object_id is not None:
            query = structs.replace(base, object_type=event.object_type, object_id=event.object_id)
            found |= {other.position: other for other in await self._storage.list_events(query)}
        if event.correlation_id is not None:
            query = structs.replace(base, correlation_id=event.correlation_id)
            found |= {other.position: other for other in await self._storage.list_events(query)}
        found.pop(event.position, None)
        ordered = [found[position] for position in sorted(found, reverse=True)]
        return _page(ordered, limit, payloads=payloads)

    async def stories(
        self, tenant: Tenant, event: Event, after: int, limit: int
    ) -> tuple[list[Story], int | None]:
        """What became of an event, for each subscription of its tenant with a number above ``after``, and the
        number that the next page begins after. Deleted ones are there if they got it."""
        recorded = {
            found.subscription_no: found
            for found in await self._storage.event_deliveries(tenant.no, event.position)
        }
        subscriptions = await self._storage.list_subscriptions(tenant.no, after, limit + 1)
        last = subscriptions[limit - 1].no if len(subscriptions) > limit else None
        known = {subscription.no for subscription in subscriptions}
        for no in recorded.keys() - known:
            if after < no and (last is None or no <= last):
                subscriptions.append(await self._storage.subscription_by_no(no))
        page = [found for found in subscriptions if last is None or found.no <= last]
        payload = Payload(event.data)
        return [await self._story(event, payload, found, recorded.get(found.no)) for found in page], last

    async def _story(
        self, event: Event, payload: Payload, subscription: Subscription, delivery: Delivery | None
    ) -> Story:
        if delivery is not None:
            reason = "the delivery is recorded" if not delivery.error else f"the last error: {delivery.error}"
            return Story(subscription, Outcome(delivery.state.value), reason, delivery)
        if event.position <= subscription.start_after:
            return Story(subscription, Outcome.BEFORE_START, "the subscription begins after this event")
        definition = await self._in_force(subscription, event.position)
        failed = [
            reason.detail for reason in Matcher(definition).explain(event, payload) if not reason.passed
        ]
        if failed:
            return Story(subscription, Outcome.NOT_MATCHED, "; ".join(failed))
        return await self._unrecorded(event, subscription)

    async def _in_force(self, subscription: Subscription, position: Position) -> Definition:
        if subscription.matches_from <= position:
            return subscription.definition
        versions = await self._storage.definition_versions(subscription.no)
        return in_force(versions, position) or subscription.definition

    async def _unrecorded(self, event: Event, subscription: Subscription) -> Story:
        """A match without a record: it is still to come, was passed over, or its record was removed."""
        lane = await self._storage.lane_state(subscription.no)
        if lane is not None and lane.cursor >= event.position and event.position > subscription.skip_to:
            return Story(subscription, Outcome.REMOVED, "the delivery is past its retention")
        if event.position <= subscription.skip_to:
            return Story(subscription, Outcome.SKIPPED, "the subscription was resumed from a later time")
        if subscription.state is SubscriptionState.ACTIVE:
            return Story(subscription, Outcome.PENDING, "it matches, and no outcome is recorded yet")
        why = f" ({subscription.state_reason})" if subscription.state_reason else ""
        reason = f"it matches; the subscription is {subscription.state.value}{why}"
        return Story(subscription, Outcome.PENDING, reason)

    # --- deliveries and attempts ---

    async def deliveries(
        self, tenant: Tenant, subscription: Subscription, query: DeliveryQuery, *, attempts: bool = False,
        payloads: bool = False,
    ) -> tuple[list[DeliveryItem], Position | None]:  # fmt: skip
        """Newest first, with their events, and their attempts if asked for."""
        found = await self._storage.list_deliveries(structs.replace(query, limit=query.limit + 1))
        positions = [delivery.position for delivery in found[: query.limit]]
        events = {
            event.position: event for event in await self._storage.read_events(subscription.shard, positions)
        }
        items: list[DeliveryItem] = []
        size = 0
        for delivery in found[: query.limit]:
            event = events.get(delivery.position)
            item = await self._item(tenant, subscription, delivery, event, attempts=attempts)
            items.append(item)
            size += _weight(item, payloads=payloads)
            if size > PAGE_BYTES:
                break
        more = len(items) < len(found)
        return items, (items[-1].delivery.position if more and items else None)

    async def delivery(self, tenant: Tenant, delivery_id: str, *, attempts: bool = True) -> DeliveryItem:
        """Raises ``NotFound``."""
        subscription_no, position = ids.parse_delivery_id(delivery_id)
        subscription = await self.owned(tenant, subscription_no)
        delivery = await self._storage.get_delivery(subscription_no, position)
        if delivery is None:
            raise NotFound("there is no record of this delivery: it is still pending, or past its retention")
        events = await self._storage.read_events(subscription.shard, [position])
        return await self._item(tenant, subscription, delivery, _first(events), attempts=attempts)

    async def attempt(
        self, tenant: Tenant, attempt_id: str
    ) -> tuple[Subscription, Event | None, AttemptItem]:
        """Raises ``NotFound``."""
        subscription_no, position, number = ids.parse_attempt_id(attempt_id)
        subscription = await self.owned(tenant, subscription_no)
        attempt = await self._storage.get_attempt(subscription_no, position, number)
        if attempt is None:
            raise NotFound("there is no such attempt, or its retention has ended")
        event = _first(await self._storage.read_events(subscription.shard, [position]))
        delivery = await self._storage.get_delivery(subscription_no, position)
        sequence = delivery.sequence if delivery is not None else 0
        versions = await self._storage.definition_versions(subscription.no)
        return subscription, event, _sent(tenant, subscription, versions, event, sequence, attempt)

    async def owned(self, tenant: Tenant, subscription_no: int) -> Subscription:
        """The subscription, deleted or not, if it is the tenant's. Raises ``NotFound``."""
        try:
            found = await self._storage.subscription_by_no(subscription_no)
        except (NotFound, OverflowError):
            found = None
        if found is None or found.tenant_no != tenant.no:
            raise NotFound("there is no such delivery")
        return found

    async def _item(
        self, tenant: Tenant, subscription: Subscription, delivery: Delivery, event: Event | None, *,
        attempts: bool,
    ) -> DeliveryItem:  # fmt: skip
        if not attempts:
            return DeliveryItem(delivery, subscription, event)
        made = await self._storage.list_attempts(subscription.no, delivery.position)
        versions = await self._storage.definition_versions(subscription.no)
        sent = [_sent(tenant, subscription, versions, event, delivery.sequence, attempt) for attempt in made]
        return DeliveryItem(delivery, subscription, event, sent)

    # --- subscriptions and tenants ---

    async def health(self, subscription: Subscription) -> Health:
        """How far the subscription is, and what waits."""
        lane = await self._storage.lane_state(subscription.no)
        state = lane or LaneState(subscription.no, subscription.start_after, 0, live=False)
        head = await self._storage.head(subscription.shard)
        waiting, next_due = await self._storage.waiting(subscription.no)
        cursor = max(state.cursor, subscription.skip_to)
        return Health(
            subscription=subscription,
            cursor=cursor,
            head=head,
            lag=max(0, head - cursor),
            sequence=state.sequence,
            waiting=waiting,
            next_due=next_due,
            failing_since=state.failing_since,
        )

    async def usage(self, tenant: Tenant, since_day: str, until_day: str) -> list[Usage]:
        """By day (``YYYY-MM-DD``, UTC), both ends included."""
        return await self._storage.usage(tenant.no, since_day, until_day)


def in_force(versions: Iterable[DefinitionVersion], position: Position) -> Definition | None:
    """The definition that decides about the event at ``position``."""
    found: Definition | None = None
    for version in versions:
        if version.matches_from <= position:
            found = version.definition
    return found


def _sent(
    tenant: Tenant,
    subscription: Subscription,
    versions: Sequence[DefinitionVersion],
    event: Event | None,
    sequence: int,
    attempt: Attempt,
) -> AttemptItem:
    used = next((found.definition for found in versions if found.version == attempt.version), None)
    if event is None:
        return AttemptItem(attempt, None)
    return AttemptItem(attempt, request_body(used or subscription.definition, event, sequence, tenant))


def _page(found: Sequence[Event], limit: int, *, payloads: bool) -> Page:
    kept = list(found[:limit])
    if payloads:
        size = 0
        for number, event in enumerate(kept):
            size += len(event.data)
            if size > PAGE_BYTES:
                kept = kept[: number + 1]
                break
    return Page(kept, kept[-1].position if kept and len(kept) < len(found) else None)


def _weight(item: DeliveryItem, *, payloads: bool) -> int:
    weight = len(item.event.data) if payloads and item.event is not None else 0
    for sent in item.attempts or ():
        weight += len(sent.body or b"") + len(sent.attempt.response_body) + len(sent.attempt.response_headers)
    return weight


def _first(found: Sequence[T]) -> T | None:
    return found[0] if found else None


FAILED_STATES = (DeliveryState.FAILED, DeliveryState.EXPIRED)
UNSUCCESSFUL_STATES = (DeliveryState.RETRYING, *FAILED_STATES)
