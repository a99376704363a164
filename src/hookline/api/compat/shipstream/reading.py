"""What the methods of ``webhook`` are given, in all the forms that clients of ShipStream use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import cast

from msgspec import Struct

from hookline.api.compat.shipstream.rpc import CREATE_DATA, MISSING, PARAMS, RpcError
from hookline.core.definition import MAX_HEADERS
from hookline.core.errors import Fault
from hookline.core.reading import MAX_FAULTS, unknown_names

HIGHEST_ID = 2**31 - 1
_CREATE_KEYS = ("is_active", "topics", "url", "extra_headers", "secret_key")
_GIVEN_BY_US = ("webhook_id", "increment_id")
_BEHIND = {"events": "topics", "secret_headers": "extra_headers", "signing": "secret_key"}
"""The platform's names of what a subscription calls otherwise."""


class StatusChange(Struct, frozen=True):
    """Switch webhooks on or off: the one with ``webhook_id``, those that list ``topic``, or with neither all."""

    active: bool
    topic: str | None = None
    webhook_id: int | None = None


def arguments(given: object) -> list[object]:
    """The third parameter of ``call``. What is no array is the only argument, as the platform's own server takes it."""
    if given is None:
        return []
    return cast("list[object]", given) if isinstance(given, list) else [given]


def nothing(arguments: Sequence[object]) -> None:
    """Raises ``RpcError`` if there is an argument that says something."""
    if any(argument not in (None, [], {}) for argument in arguments):
        raise RpcError(PARAMS, "this method has no arguments")


# --- webhook.create ---------------------------------------------------------------------------------------


def new_webhook(arguments: Sequence[object]) -> dict[str, object]:
    """The subscription that ``webhook.create`` asks for, as the native API writes it.

    Raises ``RpcError``. Values that the native API checks go through as they are.
    """
    if not arguments:
        raise RpcError(MISSING, "webhook.create takes an object")
    given = arguments[0]
    if len(arguments) > 1 or not isinstance(given, dict):
        raise RpcError(CREATE_DATA, "webhook.create takes one object")
    webhook = cast("dict[str, object]", given)
    faults = list(_names(webhook))
    active = _flag(webhook.get("is_active", True), "is_active", faults)
    topics = _topics(webhook["topics"], faults) if webhook.get("topics") is not None else []
    headers = _headers(webhook.get("extra_headers"), faults)
    if faults:
        raise RpcError.of_faults(CREATE_DATA, faults)
    return {
        "profile": "shipstream",
        "url": webhook["url"],
        "events": topics,
        "secret_headers": headers,
        "signing": {"secret": _secret(webhook.get("secret_key"))},
        "enabled": active,
    }


def as_told(fault: Fault) -> Fault:
    """A fault of the native API with the platform's name of its place."""
    first, point, rest = fault.field.partition(".")
    name, bracket, index = first.partition("[")
    if name == "signing":
        return Fault("secret_key", fault.message)
    return Fault(f"{_BEHIND.get(name, name)}{bracket}{index}{point}{rest}", fault.message)


def _names(webhook: Mapping[str, object]) -> Iterator[Fault]:
    for name in ("topics", "url"):
        if webhook.get(name) is None:
            yield Fault(name, "is required")
    for name in _GIVEN_BY_US:
        if name in webhook:
            yield Fault(name, "is given by the platform and cannot be chosen")
    yield from unknown_names((name for name in webhook if name not in _GIVEN_BY_US), _CREATE_KEYS)


def _flag(value: object, field: str, faults: list[Fault]) -> bool:
    if value in (1, "1"):
        return True
    if value not in (0, "0"):
        faults.append(Fault(field, "must be 0 or 1"))
    return False


def _topics(value: object, faults: list[Fault]) -> list[str]:
    if isinstance(value, str):
        items: list[object] = [*filter(None, map(str.strip, value.split(",")))]
    elif isinstance(value, list):
        items = cast("list[object]", value)
    else:
        faults.append(Fault("topics", "must be an array of topics, or a text with commas between them"))
        return []
    wrong = (place for place, item in enumerate(items) if not isinstance(item, str))
    faults += [Fault(f"topics[{place}]", "must be a text") for place in islice(wrong, MAX_FAULTS)]
    texts = [item.strip() for item in items if isinstance(item, str)]
    return list(dict.fromkeys(texts))


def _secret(value: object) -> object:
    """An empty key is none: Hookline makes one."""
    return None if value == "" else value


# --- extra headers ----------------------------------------------------------------------------------------


def _headers(value: object, faults: list[Fault]) -> object:
    """Lines ``Name: value`` in one text or an array of texts. Objects are left to the native API's check."""
    if value is None or isinstance(value, dict):
        return cast("object", value) or {}
    lines = value.splitlines() if isinstance(value, str) else value
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in cast("list[object]", lines)):
        faults.append(Fault("extra_headers", "must be a text with lines such as X-Name: value"))
        return {}
    filled = [line for line in cast("list[str]", lines) if line.strip()]
    if len(filled) > MAX_HEADERS:
        faults.append(Fault("extra_headers", f"must have at most {MAX_HEADERS} lines"))
        return {}
    return _by_name(filled, faults)


def _by_name(lines: Sequence[str], faults: list[Fault]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        name, colon, value = line.partition(":")
        name = name.strip()
        if not colon or not name:
            faults.append(Fault("extra_headers", f"line {number} is not of the form Name: value"))
        elif name in headers:
            faults.append(Fault("extra_headers", f"line {number} repeats a name"))
        else:
            headers[name] = value.strip()
    return headers


# --- the other methods ------------------------------------------------------------------------------------


def webhook_id(arguments: Sequence[object]) -> int:
    """The one argument of ``webhook.delete``: a number, a text of digits, or an object with ``webhook_id``.

    Raises ``RpcError``.
    """
    given = arguments[0] if arguments else None
    if isinstance(given, dict):
        given = cast("dict[str, object]", given).get("webhook_id")
    if given is None:
        raise RpcError(MISSING, "give a webhook_id")
    if len(arguments) > 1:
        raise RpcError(PARAMS, "give one webhook_id")
    return _id(given)


def _id(given: object) -> int:
    """0, which no webhook has, stands for numbers that none can have."""
    if isinstance(given, str) and given.isascii() and given.isdigit() and len(given) <= 20:
        given = int(given)
    if not isinstance(given, int) or isinstance(given, bool):
        raise RpcError.of_faults(PARAMS, [Fault("webhook_id", "must be a whole number")])
    return given if 0 < given <= HIGHEST_ID else 0


def status_change(arguments: Sequence[object]) -> StatusChange:
    """What ``webhook.update_status`` is to change. Raises ``RpcError``.

    The page names two arguments, topic and status, and its example gives one object with ``status`` alone: both
    forms are read, the object also with ``topic`` or ``webhook_id``, and a number as first argument is an id.
    """
    if len(arguments) > 2:
        raise RpcError(PARAMS, "webhook.update_status takes a topic and a status")
    if len(arguments) == 2:
        return _change(*arguments)
    if not arguments or not isinstance(arguments[0], dict):
        raise RpcError(MISSING, "webhook.update_status takes a topic and a status, or an object with status")
    return _named_change(cast("dict[str, object]", arguments[0]))


def _named_change(given: Mapping[str, object]) -> StatusChange:
    known = ("topic", "webhook_id", "status")
    faults = unknown_names(given, known)
    if given.get("topic") is not None and given.get("webhook_id") is not None:
        faults.append(Fault("topic", "cannot be given together with webhook_id"))
    if faults:
        raise RpcError.of_faults(PARAMS, faults)
    if given.get("status") is None:
        raise RpcError(MISSING, "status: is required")
    if given.get("webhook_id") is not None:
        return StatusChange(_status(given["status"]), webhook_id=_id(given["webhook_id"]))
    return _change(given.get("topic"), given["status"])


def _change(target: object, status: object) -> StatusChange:
    active = _status(status)
    if target is None:
        return StatusChange(active)
    if isinstance(target, int) or (isinstance(target, str) and target.isdigit()):
        return StatusChange(active, webhook_id=_id(target))
    if not isinstance(target, str) or not target.strip():
        raise RpcError.of_faults(PARAMS, [Fault("topic", "must be a text, such as order:created")])
    return StatusChange(active, topic=target.strip())


def _status(value: object) -> bool:
    faults: list[Fault] = []
    active = _flag(value, "status", faults)
    if faults:
        raise RpcError.of_faults(PARAMS, faults)
    return active
