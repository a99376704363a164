"""The native profile: the body that Standard Webhooks 1.0.0 recommends (``type``, ``timestamp``, ``data``)."""

from __future__ import annotations

from hookline.core.model import Event, Sequence, Tenant
from hookline.core.times import rfc3339
from hookline.profiles.base import Defaults, NoOptions, Plain


class StandardFormat(Plain):
    """``{"type": …, "timestamp": when it occurred, "data": the publisher's JSON}``."""

    def body(self, event: Event, sequence: Sequence) -> bytes:
        """See ``Format``. Event types need no escaping: their letters are restricted."""
        head = f'{{"type":"{event.type}","timestamp":"{rfc3339(event.occurred_at)}","data":'
        return head.encode() + event.data + b"}"


class StandardProfile:
    """See ``Profile``."""

    name = "standard"
    title = "Standard Webhooks"
    defaults = Defaults()
    options = NoOptions
    headers: frozenset[str] = frozenset()
    uuids = False

    def format(self, tenant: Tenant, options: NoOptions) -> StandardFormat:
        """See ``Profile``."""
        return StandardFormat()
