"""What the user gives on the command line, made ready for the API."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from hookline.cli.failures import Usage

Source = Annotated[str, Parameter(allow_leading_hyphen=True)]
"""An option that may be ``-``."""

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def utf8(argument: str) -> str:
    """An argument of the command line as its writer meant it, whatever the locale says. Raises ``Usage``."""
    try:
        argument.encode()
    except UnicodeEncodeError:  # Python could not decode it by the locale, and kept its bytes
        return _decoded(os.fsencode(argument), f"the argument {argument!a}")
    return argument


def text_or_file(given: str) -> str:
    """The text itself; ``@path`` reads a file, ``-`` standard input."""
    if given == "-":
        return _decoded(sys.stdin.buffer.read(), "standard input")
    if not given.startswith("@"):
        return given
    name = given[1:]
    try:
        raw = Path(name).expanduser().read_bytes()
    except (OSError, ValueError) as error:
        raise Usage(f"{name} cannot be read: {reason(error)}") from error
    return _decoded(raw, name)


def reason(error: OSError | ValueError) -> str:
    """Why a file cannot be read, without its name. ``ValueError``: its name is none."""
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _decoded(raw: bytes, what: str) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Usage(f"{what} is not UTF-8: byte {error.start} is 0x{raw[error.start]:02x}") from error


def json_text(given: str, what: str) -> str:
    """JSON as it was written, byte for byte, after a check that it is JSON."""
    text = text_or_file(given).strip()
    try:
        json.loads(text)
    except ValueError as error:
        raise Usage(f"{what} is not valid JSON: {error}") from error
    return text


def json_object(given: str, what: str) -> dict[str, Any]:
    """A JSON object."""
    value = json.loads(json_text(given, what))
    if not isinstance(value, dict):
        raise Usage(f"{what} must be a JSON object")
    return value  # pyright: ignore[reportUnknownVariableType] JSON objects have string names


def pairs(given: tuple[str, ...], what: str) -> dict[str, str]:
    """``name=value`` arguments as a mapping."""
    result: dict[str, str] = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals or not name:
            raise Usage(f"{what} takes name=value, not {one!r}")
        result[name] = value
    return result


def time(given: str) -> str:
    """A time as the API takes it: RFC 3339 as it is, and ``15m``, ``2h``, ``7d`` as that long ago."""
    number, unit = given[:-1], given[-1:]
    if number.isdecimal() and unit in _UNITS:
        return (datetime.now(UTC) - timedelta(**{_UNITS[unit]: int(number)})).isoformat()
    return given


def spliced(fields: Mapping[str, object], **texts: str) -> bytes:
    """A JSON object of fields, and of JSON texts put in as they are: decoding could change their numbers.

    Empty texts are left out.
    """
    parts = [f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in fields.items()]
    parts += [f"{json.dumps(name)}: {text}" for name, text in texts.items() if text]
    return ("{" + ", ".join(parts) + "}").encode()


def kept(**fields: Any) -> dict[str, Any]:
    """The fields that were given: no empty text, list or object, and no None."""
    return {
        name: value for name, value in fields.items() if value is False or value not in (None, "", (), {}, [])
    }


def change(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a change. Raises ``Usage`` if there are none: an empty value counts as not given."""
    if not fields:
        raise Usage(
            "nothing is to be changed: give an option with a value; where there is --spec, null in it empties a field"
        )
    return fields
