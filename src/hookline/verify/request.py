"""What all schemes share: how body, headers, time and secrets are read, and the error that refuses a request."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

TOLERANCE: Final = 300.0
"""Seconds that a request's time may differ from ours, either way (all reference libraries use 5 minutes)."""

MAX_SIGNATURES: Final = 32
"""More than any rotation needs; keeps a hostile header from costing thousands of Ed25519 checks."""

Body = bytes | bytearray | memoryview

_TIMESTAMP: Final = re.compile(r"[0-9]{1,12}")


class VerificationError(Exception):
    """The request must not be trusted. The text says why; it is safe to log and to answer.

    ``code`` is one of ``missing_header``, ``repeated_header``, ``bad_id``, ``bad_timestamp``, ``too_old``, ``too_new``,
    ``bad_signature_header``, ``no_match`` and ``bad_secret`` (which is the receiver's own mistake).
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def raw(body: Body) -> bytes:
    """Raises ``TypeError`` for text: what was decoded may not encode to the same bytes."""
    if not isinstance(body, bytes | bytearray | memoryview):  # pyright: ignore[reportUnnecessaryIsInstance] - untyped callers
        raise TypeError("body must be the raw bytes of the request")
    return bytes(body)


def listed(secrets: str | Sequence[str]) -> list[str]:
    """One secret or several, as a list. Raises ``VerificationError`` if there is none, ``TypeError`` for bytes and for
    None, which is what a setting that was forgotten gives."""
    if secrets is None:  # pyright: ignore[reportUnnecessaryComparison] - untyped callers
        raise TypeError("a secret must be text")
    found = [secrets] if isinstance(secrets, str) else list(secrets)
    if not found:
        raise VerificationError("bad_secret", "no secret was given")
    if not all(isinstance(secret, str) for secret in found):  # pyright: ignore[reportUnnecessaryIsInstance] - untyped callers
        raise TypeError("a secret must be text")
    return found


class Headers:
    """Headers by name: without regard to case, and with ``_`` for ``-``.

    Servers of WSGI and CGI give a request's headers as ``HTTP_NAME`` (PHP as well); a header is looked for under
    that spelling if it is not there under its own. None, as ``headers.get(name)`` gives it, means that it is
    missing. Raises ``TypeError`` for what is no mapping of texts.
    """

    def __init__(self, headers: Mapping[str, str]) -> None:
        if not callable(getattr(headers, "items", None)):
            raise TypeError("headers must be a mapping of names to values")
        self._values: dict[str, list[object]] = {}
        for name, value in headers.items():
            if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance] - untyped callers
                raise TypeError("the name of a header must be text")
            if value is not None:  # pyright: ignore[reportUnnecessaryComparison] - untyped callers
                self._values.setdefault(_plain(name), []).append(value)

    def one(self, name: str) -> str:
        """The value of the header. Raises ``VerificationError`` if it is missing, empty, or there with two values."""
        plain = _plain(name)
        given = self._values.get(plain) or self._values.get(f"http-{plain}") or [""]
        values = {_text(value, name) for value in given}
        if len(values) > 1:
            raise VerificationError("repeated_header", f"the header {name} was given twice")
        (value,) = values
        if not value:
            raise VerificationError("missing_header", f"the header {name} is missing")
        return value


def _text(value: object, name: str) -> str:
    """Only the headers that are asked for are texts for sure: an ``environ`` holds other things beside them."""
    if not isinstance(value, str):
        raise TypeError(f"the header {name} must be text")
    return value.strip()


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")


def seconds(text: str, tolerance: float, now: float | None) -> int:
    """A request's time as a number, if it is near ``now`` (None: the clock's time)."""
    if not _TIMESTAMP.fullmatch(text):
        raise VerificationError("bad_timestamp", "the timestamp is not a number of seconds")
    timestamp = int(text)
    age = (time.time() if now is None else now) - timestamp
    if not age <= tolerance:  # written so that NaN is refused
        raise VerificationError("too_old", f"the request is {age:.0f} s old, more than {tolerance:g} s")
    if not -age <= tolerance:
        raise VerificationError(
            "too_new", f"the request is {-age:.0f} s ahead of our clock, check both clocks"
        )
    return timestamp


def elements(text: str, separator: str | None, most: int) -> Iterator[str]:
    """The parts of a signature header, stripped. Raises ``VerificationError`` if there are more than ``most``."""
    parts = text.split(separator, most)
    if len(parts) > most:
        raise VerificationError("bad_signature_header", f"the header has more than {most} parts")
    return (part.strip() for part in parts)


def no_match() -> VerificationError:
    """The refusal when everything has its form and no signature is right."""
    return VerificationError("no_match", "no signature matches: wrong secret, or the body was changed")
