"""Sending again: one delivery, or all of a range."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct, structs

from hookline.core import ids
from hookline.core.errors import Conflict, Fault, NotFound
from hookline.core.model import (
    DeliveryState,
    Millis,
    Replay,
    ReplayState,
    Subscription,
    SubscriptionState,
    Tenant,
)
from hookline.core.reading import refuse
from hookline.engine.read import DeliveryItem, Reader
from hookline.ports import Clock, Storage, Wake

FINAL_STATES = (DeliveryState.SUCCEEDED, DeliveryState.FAILED, DeliveryState.EXPIRED)
MAX_RATE = 1_000_000.0


class Range(Struct, frozen=True):
    """Which deliveries to send again: by the time their event was received (``until`` of 0: up to now)."""

    since: Millis
    until: Millis = 0
    states: Sequence[DeliveryState] = FINAL_STATES
    rate: float = 0


class Replays:
    """Starts, shows and cancels replay jobs. The delivery worker carries them out."""

    def __init__(
        self, storage: Storage, clock: Clock, entropy: Callable[[int], bytes], reader: Reader, wake: Wake
    ) -> None:
        self._storage = storage
        self._clock = clock
        self._entropy = entropy
        self._reader = reader
        self._wake = wake

    async def resend(self, tenant: Tenant, delivery_id: str) -> DeliveryItem:
        """Send one delivery again, at once and with a fresh retry schedule; same event id and sequence.

        Whoever recovers calls this thousands of times, so it wakes the worker of the one shard and no other.
        Raises ``NotFound``, and ``Conflict`` if the event is gone or the subscription deleted.
        """
        found = await self._reader.delivery(tenant, delivery_id, attempts=False)
        if found.event is None:
            raise Conflict("the event is past its retention, so it cannot be sent again")
        if found.subscription.state is SubscriptionState.DELETED:
            raise Conflict("the subscription was deleted")
        position = found.delivery.position
        await self._storage.resend(found.subscription.no, [position], self._clock.now())
        self._wake.notify({found.subscription.shard})
        changed = await self._storage.get_delivery(found.subscription.no, position)
        return found if changed is None else structs.replace(found, delivery=changed)

    async def plan(self, subscription: Subscription, wanted: Range) -> Replay:
        """The job for a range, not stored: its ``total`` is how many deliveries it would send."""
        refuse(_faults(wanted))
        now = self._clock.now()
        shard = subscription.shard
        after = await self._storage.position_at(shard, wanted.since) if wanted.since else 0
        if wanted.until:
            until = await self._storage.position_at(shard, wanted.until)
        else:
            until = await self._storage.head(shard)
        total = await self._storage.count_settled(subscription.no, after, until, wanted.states)
        return Replay(
            id=ids.time_ordered("rpl", now, self._entropy(10)),
            subscription_no=subscription.no,
            after=after,
            until=until,
            states=tuple(wanted.states),
            rate=wanted.rate,
            total=total,
            done=0,
            progress=after,
            state=ReplayState.RUNNING,
            created_at=now,
            updated_at=now,
        )

    async def start(self, subscription: Subscription, wanted: Range) -> Replay:
        """Store the job; the worker begins at once."""
        replay = await self.plan(subscription, wanted)
        await self._storage.create_replay(replay)
        return replay

    async def get(self, tenant: Tenant, replay_id: str) -> tuple[Subscription, Replay]:
        """Raises ``NotFound``."""
        found = await self._storage.get_replay(replay_id)
        subscription = await self._storage.subscription_by_no(found.subscription_no)
        if subscription.tenant_no != tenant.no:
            raise NotFound("there is no such replay")
        return subscription, found

    async def list(self, subscription: Subscription, limit: int) -> list[Replay]:
        """Newest first."""
        return await self._storage.list_replays(subscription.no, limit)

    async def cancel(self, tenant: Tenant, replay_id: str) -> tuple[Subscription, Replay]:
        """Stop a job; what it has moved already is still sent. One that has ended stays as it is."""
        subscription, found = await self.get(tenant, replay_id)
        if found.state is not ReplayState.RUNNING:
            return subscription, found
        return subscription, await self._storage.cancel_replay(replay_id, self._clock.now())


def _faults(wanted: Range) -> list[Fault]:
    faults = [
        Fault("state", f"must be one of {', '.join(FINAL_STATES)}")
        for state in wanted.states
        if state not in FINAL_STATES
    ]
    if not wanted.states:
        faults.append(Fault("state", "must not be empty"))
    if wanted.until and wanted.until <= wanted.since:
        faults.append(Fault("to", "must be later than from"))
    if not 0 <= wanted.rate <= MAX_RATE:
        faults.append(Fault("rate", f"must be between 0 (no cap) and {MAX_RATE:g} a second"))
    return faults
