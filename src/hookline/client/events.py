"""An event as a publisher makes it: with its id from the start, so that it can be sent again."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypedDict, cast

Default = Callable[[Any], Any]

_ID = re.compile(r"[A-Za-z0-9_:\-]{1,128}")
_TYPE = re.compile(r"[A-Za-z0-9_.:\-/]{1,128}")
_OWN = "hookline."
_LETTERS = 256
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_END = datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
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
        """Raises ``ValueError`` or ``TypeError`` for what no server accepts, and for data that is not JSON and that
        ``default`` (see ``json.dumps``) does not make so."""
        if not _TYPE.fullmatch(type) or type.startswith(_OWN):
            raise ValueError(
                f"type {type!r}: takes 1 to 128 letters, digits and _ . : - /, but not {_OWN!r} at its beginning"
            )
        given = {name: value for name, value in (fields or {}).items() if value is not None}
        given["id"] = event_id = str(given["id"] if "id" in given else new_id())
        if not _ID.fullmatch(event_id):
            raise ValueError(f"id {event_id!r}: takes 1 to 128 letters out of A-Z a-z 0-9 _ : -")
        if "occurred_at" in given:
            given["occurred_at"] = _time(given["occurred_at"])
        _check_texts(given)
        document = {"type": type, **given, "data": data}
        try:
            text = json.dumps(
                document, default=default, ensure_ascii=False, allow_nan=False, separators=(",", ":")
            )
        except RecursionError:
            raise ValueError("data: is nested too deeply") from None
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


def _time(given: object) -> str:
    if isinstance(given, datetime):
        if given.utcoffset() is None:
            raise ValueError("occurred_at needs a time zone: datetime.now(timezone.utc)")
        text = given.isoformat()
    elif isinstance(given, str):
        text = given
    else:
        raise TypeError(f"occurred_at: is a {_kind(given)}; give a datetime, or text as RFC 3339 has it")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"occurred_at {text!r}: is no RFC 3339 time such as 2026-03-01T09:30:00Z") from None
    if not _EPOCH <= (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) <= _END:
        raise ValueError(f"occurred_at {text!r}: lies before 1970 or after the year 9999")
    return text


def _check_texts(given: Mapping[str, object]) -> None:
    """What a server would refuse: too late for those who publish into a buffer or over NATS."""
    unknown = given.keys() - EventFields.__annotations__.keys()
    if unknown:
        raise TypeError(f"{min(unknown)}: an event has no such field")
    for name in ("key", "correlation_id"):
        if name in given:
            _check_text(name, given[name])
    for name, parts in _PARTS.items():
        if name in given:
            _check_parts(name, given[name], parts)


_PARTS = {"object": {"type", "id"}, "source": {"application", "user_id"}}


def _check_parts(field: str, given: object, parts: set[str]) -> None:
    """All parts of an object are needed, those of a source may be left out."""
    if not isinstance(given, dict):
        raise TypeError(f"{field}: is a {_kind(given)}; give a dict of {' and '.join(sorted(parts))}")
    named = cast("dict[object, object]", given)
    whole = field == "object"
    if not named.keys() <= parts or (whole and len(named) < len(parts)):
        raise ValueError(f"{field}: takes a dict of {' and '.join(sorted(parts))}")
    for name, text in named.items():
        if whole or text is not None:
            _check_text(f"{field}.{name}", text)


def _check_text(field: str, text: object) -> None:
    if not isinstance(text, str):
        raise TypeError(f"{field}: is a {_kind(text)}; give text, such as str(…)")
    if not (0 < len(text) <= _LETTERS and text.isprintable()):
        raise ValueError(f"{field}: takes 1 to {_LETTERS} printable letters")


def _kind(value: object) -> str:
    return type(value).__name__
