"""From a message of the bus to the body of ``POST /v1/events``: which tenant, which id."""

from __future__ import annotations

import hashlib

import msgspec
from msgspec import Struct
from nats.aio.msg import Msg

from hookline.client.subjects import tail_of
from hookline.core.errors import Fault, InvalidInput
from hookline.core.ids import time_ordered

MESSAGE_ID = "Nats-Msg-Id"


class Place(Struct, frozen=True):
    """Where a message stands in its stream, when it came there (Unix, nanoseconds), how often it was handed out."""

    stream: str
    sequence: int
    stored_at: int
    delivered: int

    @property
    def event_id(self) -> str:
        """An id for an event that was published without: the same whenever the message is handed out again."""
        entropy = hashlib.sha256(f"{self.stream}/{self.sequence}/{self.stored_at}".encode()).digest()
        return time_ordered("evt", self.stored_at // 1_000_000, entropy)


class Incoming(Struct, frozen=True):
    """An event as it came: for whom, and the body with its id in it."""

    tenant: str
    body: bytes


class _Named(Struct):
    id: str | None = None
    type: str | None = None


_named = msgspec.json.Decoder(_Named)


def place_of(msg: Msg) -> Place:
    """Read from the address of the answer: ``$JS.ACK.<stream>.<consumer>.<delivered>.<sequence>.<n>.<time>.<pending>``,
    or the newer form with domain and account before the stream."""
    tokens = msg.reply.split(".")
    shift = 0 if len(tokens) == 9 else 2
    stream, _, delivered, sequence, _, stored_at = tokens[2 + shift : 8 + shift]
    return Place(stream, int(sequence), int(stored_at), int(delivered))


def read(msg: Msg, prefix: str) -> Incoming:
    """The event in a message. Raises ``InvalidInput`` if subject, message id and payload contradict each other.

    What is wrong with the payload itself is left to the publisher to find.
    """
    tenant, _, tail = msg.subject[len(prefix) + 1 :].partition(".")
    try:
        named = _named.decode(msg.data)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return Incoming(tenant, msg.data)
    if named.type is None:
        return Incoming(tenant, msg.data)
    if tail_of(named.type) != tail:
        raise _contradiction(
            "subject", f"does not end with the event's type; expected {tail_of(named.type)!r}"
        )
    given = _message_id(msg, tenant)
    if named.id is not None:
        if given is not None and given != named.id:
            raise _contradiction(MESSAGE_ID, f"names another id than the event, {named.id!r}")
        return Incoming(tenant, msg.data)
    return Incoming(tenant, _with_id(msg.data, given or place_of(msg).event_id))


def _message_id(msg: Msg, tenant: str) -> str | None:
    """The event id in the message id: the whole of it, or what follows ``<tenant>/``."""
    text = (msg.headers or {}).get(MESSAGE_ID)
    if not text:
        return None
    owner, slash, event_id = text.partition("/")
    if not slash:
        return text
    if owner != tenant:
        raise _contradiction(MESSAGE_ID, f"names another tenant than the subject, {tenant!r}")
    return event_id


def _with_id(body: bytes, event_id: str) -> bytes:
    """The JSON object with an ``id``: at its end, where it counts although a null may stand before it."""
    return body.rstrip()[:-1] + b',"id":' + msgspec.json.encode(event_id) + b"}"


def _contradiction(field: str, message: str) -> InvalidInput:
    return InvalidInput(f"{field} {message}", [Fault(field, message)])
