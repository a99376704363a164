"""An event as a publisher makes it: with its id from the start, so that it can be sent again."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypedDict

Default = Callable[[Any], Any]

_ID = re.compile(r"[A-Za-z0-9_:\-]{1,128}")
_TYPE = re.compile(r"[A-Za-z0-9_.:\-/]{1,128}")
_PRINTABLE = re.compile(r"[\x21-\x7e]+")
_VERSION_7 = 0x7 << 76 | 0b10 << 62
_RANDOM_BITS = (1 << 80) - 1 & ~(0xF << 76 | 0b11 << 62)


class EventFields(TypedDict, total=False):
    """What an event may have beside its type and data.

    ``id`` makes publishing safe to repeat over restarts of your program: the same fact must get the same id
    (``order-4471-paid``). Without it, one is made that holds for the repeats of this client. ``key`` is what ordered
    subscriptions keep in order.
    """

    id: str | None
    occurred_at: datetime | str | None
    object: Mapping[str, str] | None
    source: Mapping[str, str] | None
    key: str | None
    correlation_id: str | None


@dataclass(frozen=True)
class Event:
    """An event and its JSON, on one line."""

    id: str
    type: str
    body: bytes

    @classmethod
    def of(
        cls, type: str, data: Any, fields: EventFields | None = None, default: Default | None = None
    ) -> Event:
        """Raises ``ValueError`` for an id, type or time that no server accepts, ``TypeError`` for what is not JSON and
        ``default`` (see ``json.dumps``) does not make so."""
        if not _TYPE.fullmatch(type):
            raise ValueError(f"type {type!r}: takes 1 to 128 letters, digits and _ . : - /")
        given = {name: value for name, value in (fields or {}).items() if value is not None}
        event_id = str(given.setdefault("id", new_id()))
        if not _ID.fullmatch(event_id):
            raise ValueError(f"id {event_id!r}: takes 1 to 128 letters out of A-Z a-z 0-9 _ : -")
        occurred_at = given.get("occurred_at")
        if isinstance(occurred_at, datetime):
            given["occurred_at"] = _time(occurred_at)
        document = {"type": type, **given, "data": data}
        text = json.dumps(
            document, default=default, ensure_ascii=False, allow_nan=False, separators=(",", ":")
        )
        return cls(event_id, type, text.encode())


@dataclass(frozen=True)
class Published:
    """The event is stored under this id. ``duplicate``: it was before.

    None: it is not known yet, because the event waits in the buffer.
    """

    id: str
    duplicate: bool | None = False


def new_id() -> str:
    """``evt_`` and the digits of a UUID version 7: in the order of time, unlike any other."""
    random = int.from_bytes(os.urandom(10), "big") & _RANDOM_BITS | _VERSION_7
    return f"evt_{time.time_ns() // 1_000_000:012x}{random:020x}"


def header_value(text: str) -> str:
    """Raises ``ValueError`` for what would break a header apart."""
    if not _PRINTABLE.fullmatch(text):
        raise ValueError("a key or tenant is printable ASCII without spaces")
    return text


def _time(moment: datetime) -> str:
    if moment.tzinfo is None:
        raise ValueError("occurred_at needs a time zone: datetime.now(timezone.utc)")
    return moment.isoformat()
