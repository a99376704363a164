"""Publish events from your program, over HTTP or NATS.

Needs nothing but Python; over NATS also ``nats-py`` (the extra ``nats``). ::

    from hookline.client import Hookline

    with Hookline("https://hookline.example", "hk_…") as hookline:
        hookline.publish("order:created", {"number": 4471}, id="order-4471-created")

An event has its id before it is first sent, and is sent under that id until the server has answered for it: what is
published once is stored once. docs/how-to/publish-from-your-program.md tells more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hookline.client.aio import AsyncHookline
from hookline.client.buffer import Buffering
from hookline.client.errors import (
    BufferFull,
    Closed,
    Fault,
    NotAllowed,
    NotSent,
    PublishError,
    Refused,
    SomeRefused,
    Unavailable,
)
from hookline.client.events import Event, EventFields, Published
from hookline.client.sync import Hookline

if TYPE_CHECKING:
    from hookline.client.bus import NatsHookline, SyncNatsHookline

__all__ = [
    "Hookline",
    "AsyncHookline",
    "NatsHookline",
    "SyncNatsHookline",
    "Buffering",
    "Event",
    "EventFields",
    "Published",
    "PublishError",
    "Refused",
    "NotAllowed",
    "Fault",
    "Unavailable",
    "BufferFull",
    "NotSent",
    "SomeRefused",
    "Closed",
]

_OVER_NATS = ("NatsHookline", "SyncNatsHookline")


def __getattr__(name: str) -> Any:
    """The clients for NATS are loaded when they are asked for: they need ``nats-py``."""
    if name not in _OVER_NATS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from hookline.client import bus  # noqa: PLC0415 - loads nats-py

    return getattr(bus, name)
