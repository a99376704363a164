"""ShipStream, as its "Event" and "Webhook" pages describe it: topic and message, with a counter for each webhook."""

from __future__ import annotations

from hookline.core.model import Event, RetryPolicy, Sequence, SignatureScheme, Tenant, Timeout
from hookline.core.signing import signing_of
from hookline.core.times import rfc3339
from hookline.profiles.base import UNJUDGED, Defaults, Options, Plain, members, object_of, text

COUNTER = "webhook_increment_id"
TIMESTAMP = "event_timestamp"
DELAYS = (
    *(60.0 * minutes for minutes in (1, 2, 4, 8, 15, 30)),
    *(3600.0 * hours for hours in (1, 2, 4, 8, 16, 24, 24, 24)),
)
"""The 14 delays of the "Webhook" page, in seconds; in place of the 15th retry the call is marked ``failed``."""


class ShipStreamOptions(Options, frozen=True):
    """``event_timestamp``: add the time of the event to the message, as the platform does since December 2021.
    ``merchant``: put ``merchant_id`` and ``merchant_code`` before the topic, as its middleware logs them."""

    event_timestamp: bool = False
    merchant: bool = False


class ShipStreamFormat(Plain):
    """``{"topic": …, "message": {the publisher's members and "webhook_increment_id"}}``.

    Data that is no object becomes the member ``data`` of the message.
    """

    def __init__(self, tenant: Tenant, options: ShipStreamOptions) -> None:
        self._timestamp = options.event_timestamp
        self._head = (
            f'{{"merchant_id":{text(str(tenant.no))},"merchant_code":{text(tenant.id)},"topic":"'
            if options.merchant
            else '{"topic":"'
        )

    def body(self, event: Event, sequence: Sequence) -> bytes:
        """See ``Format``."""
        ours = {COUNTER: b"%d" % sequence}
        if self._timestamp:
            ours[TIMESTAMP] = text(rfc3339(event.occurred_at).replace("Z", "+00:00")).encode()
        return f'{self._head}{event.type}","message":'.encode() + _with(ours, event.data) + b"}"


def _with(ours: dict[str, bytes], data: bytes) -> bytes:
    """The data with our members in front. A member of the same name gives way: receivers count by ours."""
    inner = data.strip()
    if not inner.startswith(b"{"):
        inner = b'{"data":%b}' % data
    elif b"webhook_" in inner or b"event_" in inner or b"\\u" in inner:
        theirs = members(inner)
        if theirs is None:  # nested deeper than can be followed here: nothing of it may be lost
            return object_of(ours | {"data": inner})
        if ours.keys() & theirs.keys():
            return object_of(ours | {name: raw for name, raw in theirs.items() if name not in ours})
    rest = inner[1:].lstrip()
    return object_of(ours)[:-1] + (b"" if rest == b"}" else b",") + rest


class ShipStreamProfile:
    """See ``Profile``."""

    name = "shipstream"
    title = "ShipStream Merchant API"
    defaults = Defaults(
        signing=signing_of(SignatureScheme.SHIPSTREAM),
        retry=RetryPolicy(delays=DELAYS, jitter=0.0),
        timeout=Timeout(connect=3.0, total=5.0),
        breaker=UNJUDGED,
        disable_after=0.0,
        disable_on_gone=False,
    )
    options = ShipStreamOptions
    headers: frozenset[str] = frozenset()
    uuids = False

    def format(self, tenant: Tenant, options: ShipStreamOptions) -> ShipStreamFormat:
        """See ``Profile``."""
        return ShipStreamFormat(tenant, options)
