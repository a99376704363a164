"""The signatures of Avvyr, EvolutionX, ShipStream, Shopify and Stripe.

All are HMAC-SHA256, and the key is the secret's text as it stands (UTF-8, prefixes such as ``whsec_`` included), not
decoded as in Standard Webhooks.

The arguments of all functions are those of ``hookline.verify.verify``: the raw body, the headers (a WSGI ``environ``
will do), one secret or several. All raise ``VerificationError``.

A signature must have exactly the form that its platform states: upper-case hexadecimal or base64 without its ``=`` is
refused, as the platforms' own samples (which compare text) refuse it.
"""

from __future__ import annotations

import hmac
import re
from base64 import b64encode
from binascii import hexlify
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


class Signed(NamedTuple):
    """What the signature vouches for beside the body: ``timestamp``, the time of the attempt in Unix seconds.

    None where only the body is signed: then a request that someone recorded verifies for ever, and no header is
    vouched for. Drop what you had before by an id inside the body.
    """

    timestamp: int | None


def verify_avvyr(
    body: Body,
    headers: Mapping[str, str],
    secrets: str | Sequence[str],
    *,
    signature_header: str = "X-Webhook-Signature",
) -> Signed:
    """``sha256=`` and the HMAC of the body in lowercase hexadecimal (Avvyr, "Event Delivery")."""
    content, keys = raw(body), _keys(secrets)
    algorithm, _, signature = Headers(headers).one(signature_header).partition("=")
    if algorithm != "sha256":
        raise VerificationError("bad_signature_header", "the signature does not begin with sha256=")
    _check(keys, content, [signature], _HEX)
    return Signed(None)


def verify_evolutionx(
    body: Body,
    headers: Mapping[str, str],
    secrets: str | Sequence[str],
    *,
    tolerance: float = TOLERANCE,
    now: float | None = None,
    signature_header: str = "EVOX-SIGNATURE",
    timestamp_header: str = "EVOX-TIME",
) -> Signed:
    """The HMAC of time, full stop and body in lowercase hexadecimal (EvolutionX, "Webhook Request Validation").

    That page names the headers as PHP shows them: ``HTTP_EVOX_SIGNATURE`` and ``HTTP_EVOX_TIME`` will do as well.
    """
    content, keys, lines = raw(body), _keys(secrets), Headers(headers)
    time = lines.one(timestamp_header)
    timestamp = seconds(time, tolerance, now)
    _check(keys, _timed(time, content), [lines.one(signature_header)], _HEX)
    return Signed(timestamp)


def verify_shipstream(
    body: Body,
    headers: Mapping[str, str],
    secrets: str | Sequence[str],
    *,
    signature_header: str = "X-Plugin-Hmac-Sha256",
) -> Signed:
    """The HMAC of the body in base64 (ShipStream, "Webhook" and "Event")."""
    return _base64_of_body(body, headers, secrets, signature_header)


def verify_shopify(
    body: Body,
    headers: Mapping[str, str],
    secrets: str | Sequence[str],
    *,
    signature_header: str = "X-Shopify-Hmac-Sha256",
) -> Signed:
    """The HMAC of the body in base64 (Shopify, "Verify deliveries")."""
    return _base64_of_body(body, headers, secrets, signature_header)


def _base64_of_body(
    body: Body, headers: Mapping[str, str], secrets: str | Sequence[str], signature_header: str
) -> Signed:
    content, keys = raw(body), _keys(secrets)
    _check(keys, content, [Headers(headers).one(signature_header)], _BASE64)
    return Signed(None)


def verify_stripe(
    body: Body,
    headers: Mapping[str, str],
    secrets: str | Sequence[str],
    *,
    tolerance: float = TOLERANCE,
    now: float | None = None,
    signature_header: str = "Stripe-Signature",
) -> Signed:
    """``t=<time>,v1=<signature>``: the HMAC of time, full stop and body in lowercase hexadecimal (Stripe, "Verify
    webhook signatures").

    The parts may come in any order, ``v1`` several times (while a secret is rolled); other schemes are passed over.
    """
    content, keys = raw(body), _keys(secrets)
    time, signatures = _stripe_parts(Headers(headers).one(signature_header))
    timestamp = seconds(time, tolerance, now)
    _check(keys, _timed(time, content), signatures, _HEX)
    return Signed(timestamp)


def _stripe_parts(text: str) -> tuple[str, list[str]]:
    pairs = [part.partition("=") for part in elements(text, ",", MAX_SIGNATURES + 1)]
    times = [value for name, _, value in pairs if name == "t"]
    if len(times) != 1:  # with two, another reader of the header could take the other one
        raise VerificationError("bad_signature_header", "there must be one time, of the form t=…")
    return times[0], [value for name, _, value in pairs if name == "v1"]


# --- keys and comparison ----------------------------------------------------------------------------


class _Form(NamedTuple):
    """How 32 bytes are written: what it looks like, in words, and the function that writes."""

    pattern: re.Pattern[str]
    name: str
    encode: Callable[[bytes], bytes]


_HEX: Final = _Form(re.compile(r"[0-9a-f]{64}"), "64 lowercase hexadecimal digits", hexlify)
_BASE64: Final = _Form(re.compile(r"[A-Za-z0-9+/]{43}="), "base64 of 32 bytes", b64encode)


def _keys(secrets: str | Sequence[str]) -> list[bytes]:
    texts = listed(secrets)
    if not all(texts):
        raise VerificationError("bad_secret", "a secret is empty")
    try:
        return [secret.encode() for secret in texts]
    except UnicodeEncodeError:  # half of a surrogate pair
        raise VerificationError("bad_secret", "a secret is not valid text") from None


def _timed(time: str, body: bytes) -> bytes:
    return b"%b.%b" % (time.encode(), body)


def _check(keys: Iterable[bytes], message: bytes, signatures: Iterable[str], form: _Form) -> None:
    """Raise unless one of the signatures is by one of the keys."""
    # The pattern lets nothing but ASCII through, and what it compares has one length.
    given = [signature.encode() for signature in signatures if form.pattern.fullmatch(signature)]
    if not given:
        raise VerificationError("bad_signature_header", f"there is no signature of {form.name}")
    expected = [form.encode(hmac.digest(key, message, "sha256")) for key in keys]
    if not any(hmac.compare_digest(right, one) for right in expected for one in given):
        raise no_match()
