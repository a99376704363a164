"""Bugs, planted on purpose: a simulation that does not find them proves nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

from msgspec.structs import replace

from hookline.core.lane import Breaker, TokenBucket
from hookline.core.matching import Payload
from hookline.core.model import Appended, Event, LaneState, Millis, NewEvent, Position, Unsettled
from hookline.engine.dispatch.delivery import Deliverer
from hookline.engine.dispatch.lane import Job, Lane
from hookline.engine.dispatch.ordered import OrderedLane
from hookline.engine.dispatch.watermark import Watermark
from hookline.storage.common import event_at
from hookline.storage.memory.state import MemoryState, Slice

Bug = Callable[[], AbstractContextManager[object]]


def cursor_before_outcome() -> AbstractContextManager[object]:
    """The cursor is written as far as the log was read, whatever is still under way."""

    def state(lane: Lane) -> LaneState:
        return LaneState(
            lane.no, lane.read_to, lane.sequence, lane.live, False, lane.failing_since, lane.warned_at
        )

    return patch.object(Lane, "state", state)


@contextmanager
def watermark_ignores_holds() -> Iterator[None]:
    """The watermark does not wait for what live lanes have under way."""

    def nothing(watermark: Watermark, position: Position) -> None: ...

    with patch.object(Watermark, "hold", nothing), patch.object(Watermark, "release", nothing):
        yield


def epoch_not_checked() -> AbstractContextManager[object]:
    """The storage takes records from whoever sends them."""

    def unfenced(state: MemoryState, shard: int, slice: int, epoch: int) -> Slice:
        return state._shards[shard].slices[slice]

    return patch.object(MemoryState, "_fenced", unfenced)


def numbered_when_sent() -> AbstractContextManager[object]:
    """An event gets its sequence number when it is sent, not when it is matched."""
    begin = Lane.__init__
    started = Lane.started

    def count_from_state(lane: Lane, *args: Any) -> None:
        begin(lane, *args)
        lane.__dict__["sent"] = lane.sequence

    def number(lane: Lane, job: Job, now: float) -> None:
        if not job.waiting:
            lane.__dict__["sent"] += 1
            job.sequence = lane.__dict__["sent"]
        started(lane, job, now)

    return patch.multiple(Lane, __init__=count_from_state, started=number)


def newest_definition_matches() -> AbstractContextManager[object]:
    """What matches is judged by the definition as it is, not as it was where the event stands."""

    def matches(lane: Lane, event: Event, payload: Payload) -> bool:
        return event.position > lane.read_to and lane._newest.matches(event, payload)

    return patch.object(Lane, "matches", matches)


def retry_set_forgotten() -> AbstractContextManager[object]:
    """A new owner does not look for deliveries that waited for their retry."""
    begin = Lane.__init__

    def forget(lane: Lane, subscription: Any, versions: Any, place: Any, *rest: Any) -> None:
        begin(lane, subscription, versions, replace(place, waiting=0, next_due=0), *rest)

    return patch.object(Lane, "__init__", forget)


def duplicate_stored_twice() -> AbstractContextManager[object]:
    """An event whose id is known is stored again."""

    def append(state: MemoryState, event: NewEvent, now: Millis) -> Appended:
        shard = state._shard_of(event.tenant_no)
        shard.head += 1
        stored = event_at(shard.no, shard.head, event, now)
        shard.positions.append(stored.position)
        shard.events[stored.position] = stored
        state._event_ids[event.tenant_no, event.id] = stored
        return Appended(stored.position)

    return patch.object(MemoryState, "_append", append)


def breaker_never_waits() -> AbstractContextManager[object]:
    """An open breaker lets everything through."""

    def wait(breaker: Breaker, now: float) -> float:
        return 0.0

    return patch.object(Breaker, "wait", wait)


def rate_limit_ignored() -> AbstractContextManager[object]:
    """The rate limit is not asked."""

    def wait(bucket: TokenBucket, now: float) -> float:
        return 0.0

    return patch.object(TokenBucket, "wait", wait)


def retry_after_ignored() -> AbstractContextManager[object]:
    """An endpoint's wish to be left alone is not heard."""

    def throttle(deliverer: Deliverer, lane: Lane, *rest: object) -> None:
        lane.window.throttled()

    return patch.object(Deliverer, "_throttle", throttle)


def blocked_keys_overtaken() -> AbstractContextManager[object]:
    """A delivery that waits for its retry does not keep later ones of its key back."""
    unsettled = Lane.unsettled

    def forget(lane: OrderedLane, job: Job, row: Unsettled) -> None:
        unsettled(lane, job, row)
        if not job.waiting:
            lane._resume_held(lane._lock_of(job.event))

    return patch.object(OrderedLane, "unsettled", forget)


BUGS: tuple[Bug, ...] = (
    cursor_before_outcome, watermark_ignores_holds, epoch_not_checked, numbered_when_sent, newest_definition_matches,
    retry_set_forgotten, duplicate_stored_twice, breaker_never_waits, rate_limit_ignored, retry_after_ignored,
    blocked_keys_overtaken,
)  # fmt: skip
