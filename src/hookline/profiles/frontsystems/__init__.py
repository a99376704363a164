"""Front Systems, "Real time integration using webhooks": the bare entity, sent once; the integrator checks."""

from __future__ import annotations

from hookline.core.model import Event, RetryKind, RetryPolicy, Sequence, SignatureScheme, Signing, Tenant
from hookline.profiles.base import UNJUDGED, Defaults, NoOptions, Plain


class FrontSystemsFormat(Plain):
    """The publisher's data, as it is."""

    def body(self, event: Event, sequence: Sequence) -> bytes:
        """See ``Format``."""
        return event.data


class FrontSystemsProfile:
    """See ``Profile``. That a header carries the event's id is stated, its name is our choice."""

    name = "frontsystems"
    title = "Front Systems webhooks"
    defaults = Defaults(
        signing=Signing(SignatureScheme.NONE, "X-Webhook-Event-Id", "", "X-Webhook-Signature"),
        retry=RetryPolicy(kind=RetryKind.NONE),
        breaker=UNJUDGED,
        disable_after=0.0,
        disable_on_gone=False,
    )
    options = NoOptions
    headers: frozenset[str] = frozenset()
    uuids = True

    def format(self, tenant: Tenant, options: NoOptions) -> FrontSystemsFormat:
        """See ``Profile``."""
        return FrontSystemsFormat()
