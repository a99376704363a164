"""Trying a subscription out: send a test event now, or see what an event would become.

Nothing of this is written to the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from msgspec import Struct, structs

from hookline.core import ids
from hookline.core.errors import Fault, HooklineError, NotFound
from hookline.core.matching import Matcher, Payload, Reason, name_fault
from hookline.core.model import Auth, AuthKind, Event, Millis, NewEvent, Secrets, Subscription, Tenant
from hookline.core.reading import refuse
from hookline.engine.compose import Composed, Composer
from hookline.engine.manage.subscriptions import Subscriptions, require_webhooks
from hookline.engine.types import EventTypeCatalogue
from hookline.ports import Clock, ErrorClass, Outcome, Request, Sender

TEST_TYPE = "hookline.test"
TEST_DATA = b'{"message":"This is a test event from Hookline."}'
TEST_POSITIONS = 1 << 61
"""Where the positions of test events begin: each has a delivery id of its own, and no log gets that far."""
SENDER_GRACE = 5.0
"""Seconds beyond the request's own deadline after which the sender is taken not to answer."""


class Tokens(Protocol):
    """Gives OAuth2 access tokens."""

    async def token(self, auth: Auth) -> str:
        """Raises ``HooklineError`` if the token endpoint gives none."""
        ...


class Preview(Struct, frozen=True):
    """The request that an event would become, and whether it would be sent at all."""

    matches: bool
    reasons: list[Reason]
    composed: Composed


class Trial(Struct, frozen=True):
    """A test-send and what came of it."""

    event: Event
    started_at: Millis
    composed: Composed
    outcome: Outcome

    @property
    def accepted(self) -> bool:
        """Only 200-299 counts (Standard Webhooks)."""
        return 200 <= self.outcome.status < 300


class Trials:
    """Sends and renders for one installation."""

    def __init__(
        self,
        types: EventTypeCatalogue,
        clock: Clock,
        entropy: Callable[[int], bytes],
        subscriptions: Subscriptions,
        sender: Sender,
        tokens: Tokens,
    ) -> None:
        self._types = types
        self._clock = clock
        self._entropy = entropy
        self._subscriptions = subscriptions
        self._sender = sender
        self._tokens = tokens

    async def synthetic(self, tenant: Tenant, event_type: str | None, data: bytes | None) -> Event:
        """A test event: of a type with its example, or with ``data``.

        Raises ``NotFound`` for an unknown type when there is no ``data``, ``InvalidInput`` for no name of a type.
        """
        fault = name_fault(event_type) if event_type is not None else None
        refuse([Fault("type", fault)] if fault else [])
        if event_type is not None and data is None:
            found = await self._types.get(tenant, event_type)
            if found is None:
                raise NotFound(f"there is no event type {event_type[:128]!r}; give data to test without it")
            data = found.example
        now = self._clock.now()
        event_id = ids.time_ordered("test", now, self._entropy(10))
        new = NewEvent(tenant.no, event_id, event_type or TEST_TYPE, data or TEST_DATA)
        position = TEST_POSITIONS | int.from_bytes(self._entropy(7), "big")
        return structs.replace(as_event(new, now), position=position)

    async def send(self, tenant: Tenant, subscription: Subscription, event: Event) -> Trial:
        """Send right now, past pause, order and limits, and wait for the answer. Sequence 0 marks it as a test.

        Raises ``Forbidden`` if webhooks are switched off.
        """
        require_webhooks(tenant)
        secrets = self._subscriptions.secrets(subscription)
        started = self._clock.now()
        try:
            token = await self._token(secrets)
        except HooklineError as error:
            composed = Composer(subscription, secrets, tenant).compose(event, 0, 1, started)
            return Trial(event, started, composed, Outcome(error=ErrorClass.AUTH, detail=error.detail))
        composed = Composer(subscription, secrets, tenant).compose(event, 0, 1, started, token)
        return Trial(event, started, composed, await self._exchange(composed.request))

    async def _token(self, secrets: Secrets) -> str:
        return await self._tokens.token(secrets.auth) if secrets.auth.kind is AuthKind.OAUTH2 else ""

    async def _exchange(self, request: Request) -> Outcome:
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def done(outcome: Outcome) -> None:
            if not answer.done():
                answer.set_result(outcome)

        self._sender.start(request, done)
        try:
            return await asyncio.wait_for(answer, request.total_timeout + SENDER_GRACE)
        except TimeoutError:
            return Outcome(error=ErrorClass.INTERNAL, detail="the sender did not finish in time")

    def preview(self, tenant: Tenant, subscription: Subscription, event: Event) -> Preview:
        """What would be sent now, secrets masked, and each rule of matching with what it found."""
        secrets = self._subscriptions.secrets(subscription)
        reasons = Matcher(subscription.definition).explain(event, Payload(event.data))
        composed = Composer(subscription, secrets, tenant).compose(event, 0, 1, self._clock.now())
        return Preview(all(reason.passed for reason in reasons), reasons, composed)


def as_event(new: NewEvent, now: Millis) -> Event:
    """A new event as if it stood in the log, at position 0."""
    return Event(
        shard=0,
        position=0,
        tenant_no=new.tenant_no,
        id=new.id,
        type=new.type,
        data=new.data,
        occurred_at=now if new.occurred_at is None else new.occurred_at,
        received_at=now,
        object_type=new.object_type,
        object_id=new.object_id,
        source_application=new.source_application,
        source_user=new.source_user,
        key=new.key,
        correlation_id=new.correlation_id,
    )
