"""The event as the publisher states it, its rules, and the row it becomes.

The rules are those of Hookline itself (``POST /v1/events``): what they refuse would come to nothing later, when the
transaction that caused it is long over.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import UTC, datetime
from math import isfinite
from typing import Any, Final, NamedTuple, NoReturn, TypedDict, cast

from hookline.outbox.errors import Fault, InvalidEvent

MAX_BYTES: Final = 1 << 20
"""Bytes of one event: the server's own default."""
TEXT_LETTERS: Final = 256
DEEPEST: Final = 200
"""How deep a search for the place of a fault goes."""

_TYPE: Final = re.compile(r"[A-Za-z0-9_.:\-/]{1,128}")
_ID: Final = re.compile(r"[A-Za-z0-9_:\-]{1,128}")
_TENANT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-]{0,63}")
_OWN: Final = "hookline."
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_END: Final = datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)


class ObjectRef(TypedDict):
    """The business object that an event is about: ``{"type": "order", "id": "4471"}``."""

    type: str
    id: str


class Source(TypedDict, total=False):
    """Which application and which of its users made the change."""

    application: str | None
    user_id: str | None


@dataclass(frozen=True, slots=True)
class Event:
    """A fact to be told to whoever subscribed to its type.

    ``data`` is anything that ``json.dumps`` takes, or ``bytes`` that are JSON already: those go out as they are.
    Without ``id`` the event gets one when it is published; its ``occurred_at`` is that moment, unless it says
    otherwise. ``tenant`` of "" is the one of the ``Outbox``, else the relay's.
    """

    type: str
    data: Any
    _: KW_ONLY
    id: str = ""
    tenant: str = ""
    occurred_at: datetime | str | None = None
    object: ObjectRef | None = None
    source: Source | None = None
    key: str | None = None
    correlation_id: str | None = None


class Row(NamedTuple):
    """What is written."""

    id: str
    tenant: str
    body: str


@dataclass(frozen=True, slots=True)
class Defaults:
    """What an outbox adds to events that do not say it themselves, and how large an event may be."""

    tenant: str = ""
    source: Source | None = None
    max_bytes: int = MAX_BYTES


def rows_of(events: Sequence[Event], defaults: Defaults) -> list[Row]:
    """The rows of a batch. Raises ``InvalidEvent`` with the faults of all, their places as ``[2].data.total``."""
    rows: list[Row] = []
    faults: list[Fault] = []
    for number, event in enumerate(events):
        try:
            rows.append(row_of(event, defaults))
        except InvalidEvent as error:
            faults += [Fault(f"[{number}].{fault.field}", fault.message) for fault in error.faults]
    if faults:
        raise InvalidEvent(faults)
    return rows


def row_of(event: Event, defaults: Defaults) -> Row:
    """Check an event and write it down. Raises ``InvalidEvent``."""
    if not isinstance(event, Event):  # pyright: ignore[reportUnnecessaryIsInstance] - callers need not be type-checked
        raise InvalidEvent(
            [Fault("event", f"is a {_kind(event)}; give hookline.outbox.Event(type, data, …)")]
        )
    faults = [*_name_faults(event, defaults), *_text_faults(event)]
    data = _data(event.data, faults)
    occurred_at = _occurred_at(event.occurred_at, faults)
    if faults:
        raise InvalidEvent(faults)
    fields: dict[str, object] = {
        "occurred_at": occurred_at,
        "object": event.object,
        "source": event.source or defaults.source,
        "key": event.key,
        "correlation_id": event.correlation_id,
    }
    given = {name: value for name, value in fields.items() if value is not None}
    body = f'{{"type":{_json(event.type)},"data":{data},{_json(given)[1:]}'
    event_id = event.id or new_id()
    size = len(body.encode()) + len(f',"id":"{event_id}"')  # as the relay sends it
    if size > defaults.max_bytes:
        message = f"the event has {size} bytes; the limit is {defaults.max_bytes}: send a reference to what is large"
        raise InvalidEvent([Fault("data", message)])
    return Row(event_id, event.tenant or defaults.tenant, body)


def new_id() -> str:
    """``evt_`` and the digits of a UUID version 7 (RFC 9562), which sort by time."""
    random = int.from_bytes(os.urandom(10), "big") & ~(0xF << 76 | 0b11 << 62) | 0x7 << 76 | 0b10 << 62
    return f"evt_{time.time_ns() // 1_000_000:012x}{random:020x}"


# --- names and texts


def _name_faults(event: Event, defaults: Defaults) -> Iterator[Fault]:
    if not _fits(_TYPE, event.type):
        yield Fault("type", "takes 1 to 128 letters, digits and _ . : - / such as order:created")
    elif event.type.startswith(_OWN):
        yield Fault("type", f"names that begin with {_OWN!r} are Hookline's own; choose another beginning")
    if event.id and not _fits(_ID, event.id):
        yield Fault("id", "takes 1 to 128 letters out of A-Z a-z 0-9 _ : - (leave it out, and one is made)")
    tenant = event.tenant or defaults.tenant
    if tenant and not _fits(_TENANT, tenant):
        yield Fault(
            "tenant", "takes the id of a tenant: 1 to 64 letters out of A-Z a-z 0-9 _ -, no _ or - first"
        )


def _fits(rule: re.Pattern[str], text: object) -> bool:
    return isinstance(text, str) and rule.fullmatch(text) is not None


def _text_faults(event: Event) -> Iterator[Fault]:
    if event.key is not None:
        yield from _text_fault("key", event.key)
    if event.correlation_id is not None:
        yield from _text_fault("correlation_id", event.correlation_id)
    yield from _object_faults(event.object)
    yield from source_faults(event.source)


def _text_fault(field: str, text: object) -> Iterator[Fault]:
    if not isinstance(text, str):
        yield Fault(field, f"is a {_kind(text)}; give text, such as str(…)")
    elif not (0 < len(text) <= TEXT_LETTERS and text.isprintable()):
        yield Fault(field, f"takes 1 to {TEXT_LETTERS} printable letters")


def _object_faults(given: object) -> Iterator[Fault]:
    if given is None:
        return
    fields = _fields(given)
    if fields is None or set(fields) != {"type", "id"}:
        yield Fault("object", 'takes exactly {"type": …, "id": …}, both text')
        return
    for name, value in fields.items():
        yield from _text_fault(f"object.{name}", value)


def source_faults(given: object) -> Iterator[Fault]:
    """What is wrong with a ``source``."""
    if given is None:
        return
    fields = _fields(given)
    if fields is None or not set(fields) <= {"application", "user_id"}:
        yield Fault("source", 'takes {"application": …, "user_id": …}, either or both')
        return
    for name, value in fields.items():
        if value is not None:
            yield from _text_fault(f"source.{name}", value)


def _fields(given: object) -> Mapping[object, object] | None:
    return cast("Mapping[object, object]", given) if isinstance(given, dict) else None


def _kind(value: object) -> str:
    return type(value).__name__


# --- time


def _occurred_at(given: object, faults: list[Fault]) -> str:
    if given is None:
        return _rfc3339(datetime.now(UTC))
    if isinstance(given, datetime):
        faults += _moment_faults(given)
        return "" if faults else _rfc3339(given)
    if not isinstance(given, str):
        faults.append(
            Fault("occurred_at", f"is a {_kind(given)}; give a datetime, or text as RFC 3339 has it")
        )
        return ""
    try:
        moment = datetime.fromisoformat(given)
    except ValueError:
        faults.append(Fault("occurred_at", "is not a time as RFC 3339 has it, such as 2026-03-01T09:30:00Z"))
        return ""
    faults += _moment_faults(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    return given


def _moment_faults(moment: datetime) -> list[Fault]:
    if moment.tzinfo is None or moment.utcoffset() is None:
        return [
            Fault(
                "occurred_at", "has no time zone; take datetime.now(UTC), or add one with replace(tzinfo=…)"
            )
        ]
    if moment < _EPOCH:
        return [Fault("occurred_at", "lies before 1970")]
    if moment > _END:
        return [Fault("occurred_at", "lies after the year 9999, as it is in UTC")]
    return []


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# --- the payload


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _data(data: object, faults: list[Fault]) -> str:
    try:
        if isinstance(data, bytes):
            return _checked(data)
        text = _json(data)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        faults.append(_data_fault(data, error))
        return ""
    return text


def _checked(data: bytes) -> str:
    """JSON that came as bytes, as it is. Numbers are not read: they may be of any size. Raises ``ValueError``."""
    text = data.decode()
    json.loads(text, parse_int=str, parse_float=str, parse_constant=_refuse_constant)
    return text


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _data_fault(data: object, error: Exception) -> Fault:
    if isinstance(data, bytes):
        return Fault("data", f"bytes must be JSON in UTF-8: {_first_line(error)}")
    found = next(_value_faults(data, "data", 0), None)
    return found or Fault("data", f"cannot be written as JSON: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return str(error).partition("\n")[0][:200]


def _value_faults(value: object, place: str, depth: int) -> Iterator[Fault]:
    """Where the payload is no JSON. Only asked when that is known."""
    if depth > DEEPEST:
        yield Fault(place[:80] + "…", "is nested too deeply, or in a circle")
    elif isinstance(value, dict):
        for name, item in cast("dict[object, object]", value).items():
            yield from _key_faults(name, place)
            yield from _value_faults(item, f"{place}.{name}", depth + 1)
    elif isinstance(value, list | tuple):
        for number, item in enumerate(cast("Sequence[object]", value)):
            yield from _value_faults(item, f"{place}[{number}]", depth + 1)
    elif isinstance(value, str):
        yield from _letter_faults(value, place)
    elif isinstance(value, float):
        if not isfinite(value):
            yield Fault(place, f"is {value}, which JSON does not have; give None or text")
    elif not (value is None or isinstance(value, int)):
        yield Fault(
            place, f"is a {_kind(value)}, which JSON does not have; give text such as str(value), or a number"
        )


def _key_faults(name: object, place: str) -> Iterator[Fault]:
    if isinstance(name, str):
        yield from _letter_faults(name, f"{place} (a name in it)")
    elif not (name is None or isinstance(name, int | float)):
        yield Fault(place, f"has a name that is a {_kind(name)}; names are text")


def _letter_faults(text: str, place: str) -> Iterator[Fault]:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        yield Fault(
            place, f"letter {error.start} is half a surrogate pair, which UTF-8 does not have; mend the text"
        )
