"""Rules that every storage engine must apply alike, as pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from msgspec.structs import replace

from hookline.core.model import (
    OPERATIONAL_PREFIX,
    Attempt,
    Definition,
    DeliveryState,
    Event,
    LaneState,
    Millis,
    NewEvent,
    Position,
    Replay,
    ReplayState,
    Settled,
    Unsettled,
)
from hookline.ports import PAGE_BYTES, Delivery

FINAL_STATES = (DeliveryState.SUCCEEDED, DeliveryState.FAILED, DeliveryState.EXPIRED)


def day_of(time: Millis) -> str:
    """The day in UTC, ``YYYY-MM-DD``."""
    return datetime.fromtimestamp(time / 1000, UTC).date().isoformat()


def page_of(
    found: Iterable[Event], limit: int, after: Position, head: Position
) -> tuple[list[Event], Position]:
    """The events in turn until there are ``limit`` or their payloads have ``PAGE_BYTES``, and the position that the
    page reaches: its last event's if it was cut short, else the head."""
    page: list[Event] = []
    size = 0
    for event in found:
        page.append(event)
        size += len(event.data)
        if size >= PAGE_BYTES or len(page) == limit:
            return page, event.position
    return page, max(after, head)


def final_states(states: Sequence[DeliveryState]) -> frozenset[DeliveryState]:
    """Those of ``states`` that a settled delivery can have; all of them if ``states`` is empty."""
    return frozenset(FINAL_STATES).intersection(states or FINAL_STATES)


def waiting_state(unsettled: Unsettled) -> DeliveryState:
    """What the log calls a delivery that waits."""
    return DeliveryState.RETRYING if unsettled.attempts else DeliveryState.PENDING


def event_at(shard: int, position: Position, event: NewEvent, received_at: Millis) -> Event:
    """The event as the log holds it."""
    return Event(
        shard=shard,
        position=position,
        tenant_no=event.tenant_no,
        id=event.id,
        type=event.type,
        data=event.data,
        occurred_at=received_at if event.occurred_at is None else event.occurred_at,
        received_at=received_at,
        object_type=event.object_type,
        object_id=event.object_id,
        source_application=event.source_application,
        source_user=event.source_user,
        key=event.key,
        correlation_id=event.correlation_id,
    )


def delivery_of_settled(settled: Settled) -> Delivery:
    """A settled delivery as the log shows it."""
    return Delivery(
        subscription_no=settled.subscription_no,
        position=settled.position,
        sequence=settled.sequence,
        state=settled.state,
        attempts=settled.attempts,
        settled_at=settled.settled_at,
        due_at=0,
        status=settled.status,
        error=settled.error,
    )


def delivery_of_unsettled(unsettled: Unsettled) -> Delivery:
    """A waiting delivery as the log shows it."""
    return Delivery(
        subscription_no=unsettled.subscription_no,
        position=unsettled.position,
        sequence=unsettled.sequence,
        state=waiting_state(unsettled),
        attempts=unsettled.attempts,
        settled_at=0,
        due_at=unsettled.due_at,
        status=unsettled.status,
        error=unsettled.error,
    )


def sent_again(settled: Settled, key: str | None, due_at: Millis) -> Unsettled:
    """A settled delivery put back, with a fresh retry schedule."""
    return Unsettled(
        subscription_no=settled.subscription_no,
        position=settled.position,
        sequence=settled.sequence,
        attempts=settled.attempts,
        due_at=due_at,
        key=key,
        status=settled.status,
        error=settled.error,
    )


def hurried(unsettled: Unsettled, now: Millis) -> Unsettled:
    """A waiting delivery that was resent: due at once (its turn is kept if it is due already), schedule anew."""
    return replace(unsettled, due_at=min(unsettled.due_at, now), first_at=0, runs=0)


def settled_as(unsettled: Unsettled, state: DeliveryState, now: Millis) -> Settled:
    """A waiting delivery that is given up."""
    return Settled(
        subscription_no=unsettled.subscription_no,
        position=unsettled.position,
        sequence=unsettled.sequence,
        state=state,
        attempts=unsettled.attempts,
        settled_at=now,
        status=unsettled.status,
        error=unsettled.error,
    )


def staggered(due_at: Millis, interval: float, count: int) -> list[Millis]:
    """``count`` due times, ``interval`` seconds apart."""
    return [due_at + int(index * interval * 1000) for index in range(count)]


def stepped(replay: Replay, moved: Sequence[Position], more: bool, now: Millis) -> Replay:
    """The job after ``moved`` were put back; ``more`` says that others are left."""
    return replace(
        replay,
        done=replay.done + len(moved),
        progress=moved[-1] if more else replay.until,
        state=ReplayState.RUNNING if more else ReplayState.DONE,
        updated_at=now,
    )


def cancelled(replay: Replay, now: Millis) -> Replay:
    """The job after it was stopped; one that has ended stays as it is."""
    if replay.state is not ReplayState.RUNNING:
        return replay
    return replace(replay, state=ReplayState.CANCELLED, updated_at=now)


def effective_cursor(lane: LaneState, watermark: Position) -> Position:
    """Up to where the lane is settled."""
    return max(lane.cursor, watermark) if lane.live else lane.cursor


def shown(definition: Definition, search: str, event: str, url: str) -> bool:
    """Whether a search of subscriptions keeps this one. ``search`` ignores case."""
    if event and event not in definition.events:
        return False
    if url not in definition.url:
        return False
    needle = search.casefold()
    return not needle or any(needle in text.casefold() for text in _searched(definition))


def _searched(definition: Definition) -> Iterable[str]:
    yield definition.name
    yield definition.url
    for name, value in definition.metadata.items():
        yield name
        yield value


def published(events: Iterable[NewEvent]) -> dict[int, tuple[int, int]]:
    """How many events each tenant published, and their bytes, for its usage. Those that Hookline publishes for it are
    not counted: nobody is charged for being told of a failure."""
    used: dict[int, tuple[int, int]] = {}
    for event in events:
        if not event.type.startswith(OPERATIONAL_PREFIX):
            count, size = used.get(event.tenant_no, (0, 0))
            used[event.tenant_no] = (count + 1, size + len(event.data))
    return used


def attempt_bytes(attempts: Iterable[Attempt]) -> int:
    """What attempts count for in a tenant's usage: the bytes of the request bodies that were sent."""
    return sum(attempt.request_bytes for attempt in attempts)
