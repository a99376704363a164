"""EvolutionX, "Event Driven Webhooks": a thin body, with the whole record if the subscription asks for it."""

from __future__ import annotations

from hookline.core.model import Event, RetryPolicy, Sequence, SignatureScheme, Tenant
from hookline.core.signing import signing_of
from hookline.profiles.base import UNJUDGED, Defaults, Options, Plain, members, text_or_null


class EvolutionXOptions(Options, frozen=True):
    """``include_object_record``: send the full object ("Include object record" of the Admin's form)."""

    include_object_record: bool = False


class EvolutionXFormat(Plain):
    """Who did what to which record: ``event_data`` names whom the object relates to, ``data`` is the object.

    A publisher's data has the members ``event_data`` and ``object``; data without an ``event_data`` is all object.
    Without the record, ``data`` is a reference to it. Where the record stands in the body is our choice.
    """

    def __init__(self, options: EvolutionXOptions) -> None:
        self._whole = options.include_object_record

    def body(self, event: Event, sequence: Sequence) -> bytes:
        """See ``Format``."""
        about, record = _parts(event.data)
        if record is None or not self._whole:
            record = (
                f'{{"type":{text_or_null(event.object_type)},"id":{text_or_null(event.object_id)}}}'.encode()
            )
        head = (
            f'{{"event_id":"{event.id}","event_type":"{event.type}","event_time":{event.occurred_at // 1000},'
            f'"object_type":{text_or_null(event.object_type)},"object_id":{text_or_null(event.object_id)},'
            f'"source_user_type":{text_or_null(event.source_application)},'
            f'"source_user_id":{text_or_null(event.source_user)},"event_data":'
        )
        return head.encode() + about + b',"data":' + record + b"}"

    def query(self, event: Event) -> dict[str, str]:
        """Everything of the body but ``event_data`` and ``data``: receivers that filter on the source must find it."""
        known = {
            "object_type": event.object_type,
            "object_id": event.object_id,
            "source_user_type": event.source_application,
            "source_user_id": event.source_user,
        }
        given = {name: value for name, value in known.items() if value is not None}
        return super().query(event) | {"event_time": str(event.occurred_at // 1000)} | given


def _parts(data: bytes) -> tuple[bytes, bytes | None]:
    """What ``data`` says of the event, and the record."""
    found = members(data)
    if found is None or "event_data" not in found:
        return b"{}", data
    return found["event_data"], found.get("object")


class EvolutionXProfile:
    """See ``Profile``. Retries are our choice: with any jitter, the last one comes within the day for which receivers
    are told to remember ids ("Processing Event Driven Webhooks"), unless their own ``Retry-After`` puts it off."""

    name = "evolutionx"
    title = "EvolutionX Event Driven Webhooks"
    defaults = Defaults(
        signing=signing_of(SignatureScheme.EVOLUTIONX),
        retry=RetryPolicy(delays=(60.0, 300.0, 900.0, 3600.0, 10800.0, 21600.0, 36000.0), jitter=0.1),
        breaker=UNJUDGED,
        disable_after=0.0,
        disable_on_gone=False,
    )
    options = EvolutionXOptions
    headers: frozenset[str] = frozenset()
    uuids = False

    def format(self, tenant: Tenant, options: EvolutionXOptions) -> EvolutionXFormat:
        """See ``Profile``."""
        return EvolutionXFormat(options)
