"""What an outcome means: pure steps from the answer of an endpoint to what is recorded."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from hookline.core.ids import delivery_id, time_ordered
from hookline.core.model import (
    OPERATIONAL_PREFIX,
    Attempt,
    DeliveryState,
    Millis,
    NewEvent,
    Settled,
    Subscription,
    Unsettled,
)
from hookline.core.retry import parse_retry_after
from hookline.core.times import rfc3339
from hookline.engine.dispatch.lane import Job
from hookline.ports import Outcome, Request

LANE_PAUSE_CAP = 3600.0
"""Seconds for which one ``Retry-After`` may stop a whole subscription; a single delivery may wait for a day."""

SUBSCRIPTION_DISABLED = f"{OPERATIONAL_PREFIX}subscription.disabled"
SUBSCRIPTION_FAILING = f"{OPERATIONAL_PREFIX}subscription.failing"
DELIVERY_FAILED = f"{OPERATIONAL_PREFIX}delivery.failed"


def attempt_of(job: Job, request: Request, masked: str, started_at: Millis, outcome: Outcome) -> Attempt:
    """The log's entry for one request."""
    subscription = job.lane.subscription
    return Attempt(
        subscription.no,
        job.event.position,
        job.attempts + 1,
        subscription.version,
        started_at,
        request.method,
        request.url,
        outcome.status,
        outcome.error or "",
        outcome.detail,
        outcome.address,
        outcome.dns_us,
        outcome.connect_us,
        outcome.tls_us,
        outcome.first_byte_us,
        outcome.total_us,
        masked,
        0 if request.body is None else len(request.body),
        outcome.headers,
        outcome.body,
        outcome.truncated,
    )


def settled_of(
    job: Job, state: DeliveryState, attempts: int, now: Millis, outcome: Outcome | None
) -> Settled:
    """The delivery at its end."""
    status, error = (outcome.status, outcome.error or "") if outcome is not None else (0, "")
    return Settled(job.lane.no, job.event.position, job.sequence, state, attempts, now, status, error)


def unsettled_of(job: Job, due_at: Millis, started_at: Millis, outcome: Outcome) -> Unsettled:
    """The delivery after a failed attempt that will be repeated."""
    return Unsettled(
        job.lane.no,
        job.event.position,
        job.sequence,
        job.attempts + 1,
        due_at,
        job.first_at or started_at,
        job.runs + 1,
        job.event.key,
        outcome.status,
        outcome.error or "",
    )


def retry_after(outcome: Outcome, now: Millis) -> float | None:
    """The seconds that the endpoint asks us to wait, if it does in a form one can read."""
    if b"retry-after" not in outcome.headers.lower():
        return None
    for line in outcome.headers.decode("latin-1").splitlines():
        name, _, value = line.partition(":")
        if name.strip().lower() == "retry-after":
            return parse_retry_after(value.strip(), now)
    return None


def describe(outcome: Outcome) -> str:
    """The outcome in a few words."""
    return f"answered {outcome.status}" if outcome.status else f"{outcome.error}: {outcome.detail}"


def subscription_event(
    name: str, subscription: Subscription, reason: str, since: Millis, now: Millis, entropy: bytes
) -> NewEvent:
    """An operational event about a subscription."""
    data = {
        "subscription_id": subscription.id,
        "name": subscription.definition.name,
        "url": subscription.definition.url,
        "reason": reason,
        "failing_since": rfc3339(since) if since else None,
    }
    return _operational(name, subscription, data, now, entropy)


def delivery_event(job: Job, attempts: int, outcome: Outcome, now: Millis, entropy: bytes) -> NewEvent:
    """The operational event about a delivery that failed for good."""
    subscription = job.lane.subscription
    data = {
        "delivery_id": delivery_id(subscription.no, job.event.position),
        "subscription_id": subscription.id,
        "event_id": job.event.id,
        "event_type": job.event.type,
        "sequence": job.sequence,
        "attempts": attempts,
        "reason": describe(outcome),
    }
    return _operational(DELIVERY_FAILED, subscription, data, now, entropy)


def _operational(
    name: str, subscription: Subscription, data: Mapping[str, object], now: Millis, entropy: bytes
) -> NewEvent:
    return NewEvent(
        subscription.tenant_no,
        time_ordered("evt", now, entropy),
        name,
        msgspec.json.encode(data),
        object_type="subscription",
        object_id=subscription.id,
        source_application="hookline",
    )
