"""Where an event goes on the bus: one subject for each tenant and event type.

``<prefix>.<tenant>.<type>``. The type stands as it is, so that its full stops part tokens and subjects such as
``hookline.events.shop.order.>`` work. A token that would be empty (a type that begins or ends with a full stop, or has
two in a row) is written ``%``, which no type contains: the way back is exact, too.
"""

from __future__ import annotations

PREFIX = "hookline.events"
EMPTY = "%"


def tail_of(type: str) -> str:
    """The part of the subject that stands for the event type."""
    if "." not in type:
        return type
    return ".".join(token or EMPTY for token in type.split("."))


def type_of(tail: str) -> str:
    """The event type that a subject's tail stands for."""
    return ".".join("" if token == EMPTY else token for token in tail.split("."))


def subject_of(tenant: str, type: str, prefix: str = PREFIX) -> str:
    """The subject on which a tenant's events of this type are published."""
    return f"{prefix}.{tenant}.{tail_of(type)}"


def message_id_of(tenant: str, event_id: str) -> str:
    """What to send as ``Nats-Msg-Id``: JetStream compares these ids over all subjects of a stream, so the tenant is a
    part of it. Neither part can contain a slash."""
    return f"{tenant}/{event_id}"
