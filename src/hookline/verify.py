"""Check that a request came from Hookline, or from any sender of Standard Webhooks 1.0.0.

For the receiver's own program: needs nothing but Python; ``whpk_`` keys (Ed25519) also need
``cryptography``. ::

    from hookline.verify import VerificationError, verify

    try:
        verified = verify(raw_body, request.headers, "whsec_…")
    except VerificationError as error:
        return 401, str(error)
    if already_handled(verified.id): ...

The body must be the bytes as they were received: JSON that was decoded and encoded again has another
signature. On the command line: ``python -m hookline.verify --help``.
"""

from __future__ import annotations

import argparse
import binascii
import hmac
import math
import os
import re
import sys
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["VerificationError", "Verified", "verify"]

TOLERANCE: Final = 300.0
"""Seconds that a request's time may differ from ours, either way (all reference libraries use 5 minutes)."""

MAX_SIGNATURES: Final = 32
"""More than any rotation needs; keeps a hostile header from costing thousands of Ed25519 checks."""

_SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - a prefix
_PUBLIC_PREFIX: Final = "whpk_"
_PRIVATE_PREFIX: Final = "whsk_"
_TIMESTAMP: Final = re.compile(r"[0-9]{1,12}")


class VerificationError(Exception):
    """The request must not be trusted. The text says why; it is safe to log and to answer.

    ``code`` is one of ``missing_header``, ``repeated_header``, ``bad_id``, ``bad_timestamp``, ``too_old``, ``too_new``,
    ``bad_signature_header``, ``no_match`` and ``bad_secret`` (which is the receiver's own mistake).
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Verified(NamedTuple):
    """What the signature vouches for beside the body: ``id`` names the event (the same over all retries: use
    it to drop duplicates), ``timestamp`` is the time of the attempt in Unix seconds."""

    id: str
    timestamp: int


def verify(
    body: bytes | bytearray | memoryview,
    headers: Mapping[str, str],
    secrets: str | Sequence[str],
    *,
    tolerance: float = TOLERANCE,
    now: float | None = None,
    id_header: str = "webhook-id",
    timestamp_header: str = "webhook-timestamp",
    signature_header: str = "webhook-signature",
) -> Verified:
    """Return what was verified, or raise ``VerificationError``.

    ``secrets`` are ``whsec_…`` or ``whpk_…``; during a rotation give the old and the new one: any match
    counts. Header names are compared without regard to case. ``now`` (Unix seconds) replaces the clock, and
    a ``tolerance`` of ``math.inf`` switches the check of the time off: only for tests and stored requests.
    """
    if not isinstance(body, bytes | bytearray | memoryview):  # pyright: ignore[reportUnnecessaryIsInstance] - untyped callers
        raise TypeError("body must be the raw bytes of the request")
    checks = [_check(secret) for secret in ([secrets] if isinstance(secrets, str) else secrets)]
    if not checks:
        raise VerificationError("bad_secret", "no secret was given")
    lines = _fold(headers)
    message_id = _id(_header(lines, id_header))
    timestamp = _timestamp(_header(lines, timestamp_header), tolerance, time.time() if now is None else now)
    signatures = _signatures(_header(lines, signature_header))
    message = b".".join((_encode(message_id), str(timestamp).encode(), bytes(body)))
    if not any(check(message, signatures) for check in checks):
        raise VerificationError("no_match", "no signature matches: wrong secret, or the body was changed")
    return Verified(message_id, timestamp)


# --- headers ----------------------------------------------------------------------------------------


def _fold(headers: Mapping[str, str]) -> dict[str, str]:
    folded: dict[str, str] = {}
    for name, value in headers.items():
        if folded.setdefault(name.lower(), value) != value:
            raise VerificationError("repeated_header", f"the header {name.lower()} was given twice")
    return folded


def _header(lines: Mapping[str, str], name: str) -> str:
    value = lines.get(name.lower(), "").strip()
    if not value:
        raise VerificationError("missing_header", f"the header {name} is missing")
    return value


def _id(text: str) -> str:
    """A full stop would let someone move the border between id, timestamp and body (the standard rules it out)."""
    if "." in text:
        raise VerificationError("bad_id", "the id has a full stop in it")
    return text


def _timestamp(text: str, tolerance: float, now: float) -> int:
    if not _TIMESTAMP.fullmatch(text):
        raise VerificationError("bad_timestamp", "the timestamp is not a number of seconds")
    timestamp = int(text)
    age = now - timestamp
    if not age <= tolerance:  # written so that NaN is refused
        raise VerificationError("too_old", f"the request is {age:.0f} s old, more than {tolerance:g} s")
    if not -age <= tolerance:
        raise VerificationError(
            "too_new", f"the request is {-age:.0f} s ahead of our clock, check both clocks"
        )
    return timestamp


def _signatures(text: str) -> list[tuple[str, bytes]]:
    """Version and signature, as text; what has no version is passed over like an unknown version."""
    parts = text.split()
    if len(parts) > MAX_SIGNATURES:
        raise VerificationError("bad_signature_header", f"there are more than {MAX_SIGNATURES} signatures")
    pairs = [part.split(",", 1) for part in parts if "," in part]
    known = [(version, _encode(signature)) for version, signature in pairs if version in ("v1", "v1a")]
    if not known:
        raise VerificationError("bad_signature_header", "there is no signature of the form v1,… or v1a,…")
    return known


def _encode(text: str) -> bytes:
    # Servers give header values as Latin-1; what ASCII cannot hold is then compared as the bytes it was.
    return text.encode("latin-1", "replace")


# --- secrets ----------------------------------------------------------------------------------------

_Check = Callable[[bytes, Iterable[tuple[str, bytes]]], bool]


def _check(secret: str) -> _Check:
    """A function that says whether a message has a signature by this secret."""
    if secret.startswith(_PRIVATE_PREFIX):
        raise VerificationError("bad_secret", "whsk_ is the sender's private key; the receiver needs whpk_")
    if secret.startswith(_PUBLIC_PREFIX):
        return _ed25519_check(_raw(secret, _PUBLIC_PREFIX))
    if secret.startswith(_SECRET_PREFIX):
        return _hmac_check(_raw(secret, _SECRET_PREFIX))
    raise VerificationError("bad_secret", "a secret begins with whsec_ or whpk_")


def _raw(secret: str, prefix: str) -> bytes:
    text = secret.removeprefix(prefix)
    try:
        raw = b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise VerificationError("bad_secret", f"what follows {prefix} is not base64") from None
    if not raw:
        raise VerificationError("bad_secret", f"there is nothing after {prefix}")
    return raw


def _hmac_check(key: bytes) -> _Check:
    def check(message: bytes, signatures: Iterable[tuple[str, bytes]]) -> bool:
        expected = b64encode(hmac.digest(key, message, "sha256"))
        # compare_digest looks at the whole of both: a shorter signature never passes (CVE-2024-21491).
        return any(hmac.compare_digest(expected, given) for version, given in signatures if version == "v1")

    return check


def _ed25519_check(key: bytes) -> _Check:
    try:
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - only whpk_ keys need it
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415
    except ImportError:
        message = "whpk_ keys need the package cryptography"
        raise VerificationError("bad_secret", message) from None
    if len(key) != 32:
        raise VerificationError("bad_secret", "a whpk_ key has 32 bytes")
    public = Ed25519PublicKey.from_public_bytes(key)

    def matches(message: bytes, given: bytes) -> bool:
        try:
            public.verify(b64decode(given, validate=True), message)
        except (InvalidSignature, binascii.Error, ValueError):
            return False
        return True

    def check(message: bytes, signatures: Iterable[tuple[str, bytes]]) -> bool:
        return any(matches(message, given) for version, given in signatures if version == "v1a")

    return check


# --- command line -----------------------------------------------------------------------------------


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m hookline.verify",
        description="Verify a stored webhook request. Exit code 0: verified, 1: not, 2: cannot be read.",
    )
    parser.add_argument(
        "--secret",
        action="append",
        metavar="whsec_…|whpk_…",
        help="may be repeated; without it, HOOKLINE_WEBHOOK_SECRET is read (other users cannot see that one)",
    )
    parser.add_argument("--headers", required=True, metavar="FILE", help="lines of the form name: value")
    parser.add_argument("--body", required=True, metavar="FILE", help="the exact body; - reads stdin")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, metavar="SECONDS", help="default: 300")
    parser.add_argument("--any-time", action="store_true", help="accept a request of any age")
    return parser.parse_args(argv)


def _read_headers(path: str) -> dict[str, str]:
    """Header lines; a request or status line (which has no colon before its first space) is passed over."""
    headers: dict[str, str] = {}
    for line in Path(path).read_text("latin-1").splitlines():
        name, colon, value = line.partition(":")
        if colon and name and " " not in name:
            headers[name.lower()] = value.strip()
    return headers


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    options = _arguments(argv)
    secrets: list[str] = options.secret or os.environ.get("HOOKLINE_WEBHOOK_SECRET", "").split()
    try:
        headers = _read_headers(options.headers)
        body = sys.stdin.buffer.read() if options.body == "-" else Path(options.body).read_bytes()
    except OSError as error:
        print(f"cannot read {error.filename}: {error.strerror}", file=sys.stderr)  # noqa: T201 - a command
        return 2
    try:
        verified = verify(
            body, headers, secrets, tolerance=math.inf if options.any_time else options.tolerance
        )
    except VerificationError as error:
        print(f"not verified: {error} ({error.code})", file=sys.stderr)  # noqa: T201 - a command
        return 1
    print(f"verified: id {verified.id}, timestamp {verified.timestamp}")  # noqa: T201 - a command
    return 0


if __name__ == "__main__":
    sys.exit(main())
