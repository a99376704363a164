"""The signatures of Standard Webhooks 1.0.0: ``v1`` (HMAC-SHA256) and ``v1a`` (Ed25519)."""

from __future__ import annotations

import binascii
import hmac
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from hookline.verify.request import (
    MAX_SIGNATURES,
    TOLERANCE,
    Body,
    Headers,
    VerificationError,
    elements,
    listed,
    no_match,
    raw,
    seconds,
)

_SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - a prefix
_PUBLIC_PREFIX: Final = "whpk_"
_PRIVATE_PREFIX: Final = "whsk_"


class Verified(NamedTuple):
    """What the signature vouches for beside the body: ``id`` names the event (the same over all retries: use
    it to drop duplicates), ``timestamp`` is the time of the attempt in Unix seconds."""

    id: str
    timestamp: int


def verify(
    body: Body,
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
    counts. Header names are compared without regard to case, and those of a WSGI ``environ`` will do. ``now``
    (Unix seconds) replaces the clock, and a ``tolerance`` of ``math.inf`` switches the check of the time off: only
    for tests and stored requests.
    """
    content = raw(body)
    checks = [_check(secret) for secret in listed(secrets)]
    lines = Headers(headers)
    message_id = _id(lines.one(id_header))
    timestamp = seconds(lines.one(timestamp_header), tolerance, now)
    signatures = _signatures(lines.one(signature_header))
    message = b"%b.%d.%b" % (_id_bytes(message_id), timestamp, content)
    if not any(check(message, signatures) for check in checks):
        raise no_match()
    return Verified(message_id, timestamp)


# --- headers ----------------------------------------------------------------------------------------


def _id(text: str) -> str:
    """A full stop would let someone move the border between id, timestamp and body (the standard rules it out)."""
    if "." in text:
        raise VerificationError("bad_id", "the id has a full stop in it")
    return text


def _signatures(text: str) -> list[tuple[str, bytes]]:
    """Version and signature; what has no version is passed over like an unknown version."""
    pairs = [part.split(",", 1) for part in elements(text, None, MAX_SIGNATURES) if "," in part]
    known = [
        (version, signature.encode("ascii", "replace"))
        for version, signature in pairs
        if version in ("v1", "v1a")
    ]
    if not known:
        raise VerificationError("bad_signature_header", "there is no signature of the form v1,… or v1a,…")
    return known


def _id_bytes(text: str) -> bytes:
    """Servers give header values as Latin-1, so these are the bytes that came. Another letter has no bytes that could
    have been signed; put in the place of one, it would make a new id of one that was handled already."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raise VerificationError("bad_id", "the id has letters that no header can hold") from None


# --- secrets ----------------------------------------------------------------------------------------

_Check = Callable[[bytes, Iterable[tuple[str, bytes]]], bool]


def _check(secret: str) -> _Check:
    """A function that says whether a message has a signature by this secret."""
    if secret.startswith(_PRIVATE_PREFIX):
        raise VerificationError("bad_secret", "whsk_ is the sender's private key; the receiver needs whpk_")
    if secret.startswith(_PUBLIC_PREFIX):
        return _ed25519_check(_key(secret, _PUBLIC_PREFIX))
    if secret.startswith(_SECRET_PREFIX):
        return _hmac_check(_key(secret, _SECRET_PREFIX))
    raise VerificationError("bad_secret", "a secret begins with whsec_ or whpk_")


def _key(secret: str, prefix: str) -> bytes:
    text = secret.removeprefix(prefix)
    try:
        key = b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise VerificationError("bad_secret", f"what follows {prefix} is not base64") from None
    if not key:
        raise VerificationError("bad_secret", f"there is nothing after {prefix}")
    return key


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
