"""Avvyr, as its "Event Delivery" page describes it: ``_meta`` and the entity."""

from __future__ import annotations

import re

from hookline.core.model import Event, RetryKind, RetryPolicy, Sequence, SignatureScheme, Signing, Tenant
from hookline.core.times import rfc3339
from hookline.profiles.base import UNJUDGED, Defaults, NoOptions, Plain, text

_NOUN = re.compile(r"[a-z0-9]+")


class AvvyrFormat(Plain):
    """``{"_meta": {eventType, entityType, tenantId, messageId, timestamp}, "data": the entity}``."""

    def __init__(self, tenant: Tenant) -> None:
        self._tenant = text(tenant.id)

    def body(self, event: Event, sequence: Sequence) -> bytes:
        """See ``Format``."""
        meta = (
            f'{{"_meta":{{"eventType":"{event.type}","entityType":{text(entity_type(event))},'
            f'"tenantId":{self._tenant},"messageId":"{event.id}","timestamp":"{rfc3339(event.occurred_at)}"}},"data":'
        )
        return meta.encode() + event.data + b"}"

    def headers(self, event: Event) -> list[str]:
        """See ``Format``."""
        return [f"X-Webhook-Event: {event.type}"]


def entity_type(event: Event) -> str:
    """The noun in lower case: ``order`` for ``orderCreated``; other names give their object's type."""
    if event.object_type:
        return event.object_type.lower()
    noun = _NOUN.match(event.type)
    return noun.group() if noun else event.type.lower()


class AvvyrProfile:
    """See ``Profile``. The pages state that retries are switched on and counted for each subscription; how long they
    wait is our choice, and so is that they are on."""

    name = "avvyr"
    title = "Avvyr Events API"
    defaults = Defaults(
        signing=Signing(SignatureScheme.NONE, "X-Webhook-Delivery", "", "X-Webhook-Signature"),
        retry=RetryPolicy(
            kind=RetryKind.EXPONENTIAL, base=60.0, factor=2.0, cap=3600.0, max_attempts=4, jitter=0.1
        ),
        breaker=UNJUDGED,
        disable_after=0.0,
        disable_on_gone=False,
    )
    options = NoOptions
    headers = frozenset({"x-webhook-event"})
    uuids = True

    def format(self, tenant: Tenant, options: NoOptions) -> AvvyrFormat:
        """See ``Profile``."""
        return AvvyrFormat(tenant)
