"""The native profile: the body that Standard Webhooks 1.0.0 recommends (``type``, ``timestamp``, ``data``)."""

from __future__ import annotations

from hookline.core.model import Event, Sequence, Tenant
from hookline.core.times import rfc3339


class StandardProfile:
    """``{"type": …, "timestamp": when it occurred, "data": the publisher's JSON}``."""

    name = "standard"
    content_type = "application/json"

    def body(self, event: Event, sequence: Sequence, tenant: Tenant) -> bytes:
        """See ``Profile``. Event types need no escaping: their letters are restricted."""
        head = f'{{"type":"{event.type}","timestamp":"{rfc3339(event.occurred_at)}","data":'
        return head.encode() + event.data + b"}"
