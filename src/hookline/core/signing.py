"""Signatures: those of Standard Webhooks 1.0.0, and the forms that the platforms' receivers know.

``v1`` (HMAC-SHA256) and ``v1a`` (Ed25519) sign id, timestamp and body, joined with full stops; see
https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md. The platforms' forms are all
HMAC-SHA256, with the secret's text as the key:

============  =====================================  ===============================
scheme        signed                                 value of the header
============  =====================================  ===============================
avvyr         the body                               ``sha256=`` and hexadecimal
evolutionx    timestamp, full stop, body             hexadecimal (time in a header)
shipstream    the body                               base64
shopify       the body                               base64
stripe        timestamp, full stop, body             ``t=<timestamp>,v1=<hexadecimal>``
============  =====================================  ===============================

Sources: Avvyr "Event Delivery"; EvolutionX "Webhook Request Validation"; ShipStream "Webhook"; Shopify "Verify
deliveries"; Stripe "Verify webhook signatures".
"""

from __future__ import annotations

import binascii
import hmac
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from typing import Final, final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hookline.core.errors import Fault, InvalidInput
from hookline.core.model import Millis, SignatureScheme, Signing, SigningKey

HMAC_PREFIX: Final = "whsec_"
PRIVATE_PREFIX: Final = "whsk_"
PUBLIC_PREFIX: Final = "whpk_"

MIN_SECRET: Final = 24
MAX_SECRET: Final = 64
"""Bytes of an HMAC secret, by the specification."""

MAX_TEXT_SECRET: Final = 256
"""Characters of a secret for one of the platforms' forms. They have no rule; ours keeps it short enough to show."""

_SEED: Final = 32

HEADERS: Final = {
    SignatureScheme.NONE: ("webhook-id", "webhook-timestamp", "webhook-signature"),
    SignatureScheme.V1: ("webhook-id", "webhook-timestamp", "webhook-signature"),
    SignatureScheme.V1A: ("webhook-id", "webhook-timestamp", "webhook-signature"),
    SignatureScheme.AVVYR: ("X-Webhook-Delivery", "", "X-Webhook-Signature"),
    SignatureScheme.EVOLUTIONX: ("", "EVOX-TIME", "EVOX-SIGNATURE"),
    SignatureScheme.SHIPSTREAM: ("", "", "X-Plugin-Hmac-Sha256"),
    SignatureScheme.SHOPIFY: ("X-Shopify-Webhook-Id", "", "X-Shopify-Hmac-Sha256"),
    SignatureScheme.STRIPE: ("", "", "Stripe-Signature"),
}
"""The headers of each scheme for id, timestamp and signature. EvolutionX names its headers as PHP shows them
(``HTTP_EVOX_TIME``); these are the names on the wire."""

NEEDED_HEADERS: Final = {
    SignatureScheme.V1: ("id_header", "timestamp_header", "signature_header"),
    SignatureScheme.V1A: ("id_header", "timestamp_header", "signature_header"),
    SignatureScheme.EVOLUTIONX: ("timestamp_header", "signature_header"),
}
"""Headers without which a receiver cannot verify; of the other schemes, the signature alone."""

STANDARD_SCHEMES: Final = frozenset({SignatureScheme.V1, SignatureScheme.V1A})


def signing_of(scheme: SignatureScheme) -> Signing:
    """The scheme with the headers that its receivers expect."""
    return Signing(scheme, *HEADERS[scheme])


def new_secret(scheme: SignatureScheme, entropy: Callable[[int], bytes]) -> str:
    """A fresh secret, from ``entropy(n)`` random bytes. An Ed25519 key is its seed, then its public key.

    Raises ``InvalidInput`` for the scheme ``none``, which has no secrets.
    """
    match scheme:
        case SignatureScheme.V1:
            return HMAC_PREFIX + b64encode(entropy(32)).decode()
        case SignatureScheme.V1A:
            seed = entropy(_SEED)
            return PRIVATE_PREFIX + b64encode(seed + _public_bytes(seed)).decode()
        case SignatureScheme.NONE:
            raise InvalidInput("The scheme none has no secret", [Fault("signing.scheme", "must not be none")])
        case SignatureScheme.STRIPE:
            return HMAC_PREFIX + entropy(32).hex()
        case _:
            return entropy(32).hex()


def secret_fault(secret: str, scheme: SignatureScheme) -> str | None:
    """What is wrong with a secret for the scheme, or None. Never repeats the secret."""
    match scheme:
        case SignatureScheme.V1:
            return _hmac_fault(secret)
        case SignatureScheme.V1A:
            return _private_fault(secret)
        case SignatureScheme.NONE:
            return "the scheme none has no secret"
        case _:
            return _text_fault(secret)


def _text_fault(secret: str) -> str | None:
    if not 1 <= len(secret) <= MAX_TEXT_SECRET:
        return f"must have 1 to {MAX_TEXT_SECRET} characters, has {len(secret)}"
    if not secret.isprintable():
        return "must not contain control characters or line breaks"
    return None


def _hmac_fault(secret: str) -> str | None:
    raw = _raw(secret, HMAC_PREFIX)
    if raw is None:
        return f"must be {HMAC_PREFIX} followed by base64"
    if not MIN_SECRET <= len(raw) <= MAX_SECRET:
        return f"must have {MIN_SECRET} to {MAX_SECRET} bytes, has {len(raw)}"
    return None


def _private_fault(secret: str) -> str | None:
    raw = _raw(secret, PRIVATE_PREFIX)
    if raw is None or len(raw) != 2 * _SEED:
        return f"must be {PRIVATE_PREFIX} followed by base64 of 64 bytes: seed and public key"
    if _public_bytes(raw[:_SEED]) != raw[_SEED:]:
        return "the public key in its second half does not belong to the seed"
    return None


def public_key(secret: str) -> str:
    """The ``whpk_…`` that belongs to a ``whsk_…``. Raises ``InvalidInput`` for anything else."""
    fault = _private_fault(secret)
    if fault:
        raise InvalidInput("This is not an Ed25519 signing key", [Fault("secret", fault)])
    return PUBLIC_PREFIX + b64encode(b64decode(secret.removeprefix(PRIVATE_PREFIX))[_SEED:]).decode()


def _raw(secret: str, prefix: str) -> bytes | None:
    """The bytes behind the prefix, or None. Padding may be left out, as the reference libraries allow."""
    if not secret.startswith(prefix):
        return None
    text = secret.removeprefix(prefix)
    try:
        return b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def _public_bytes(seed: bytes) -> bytes:
    return (
        Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    )


_Sign = Callable[[bytes], bytes]


def _hmac_signer(secret: str) -> _Sign:
    keyed = hmac.new(_raw(secret, HMAC_PREFIX) or b"", digestmod="sha256")

    def sign(message: bytes) -> bytes:
        # The key is taken in once; and unlike hmac.digest, this keeps the interpreter lock.
        signature = keyed.copy()
        signature.update(message)
        return b"v1," + b64encode(signature.digest())

    return sign


def _ed25519_signer(secret: str) -> _Sign:
    key = Ed25519PrivateKey.from_private_bytes((_raw(secret, PRIVATE_PREFIX) or b"")[:_SEED])

    def sign(message: bytes) -> bytes:
        return b"v1a," + b64encode(key.sign(message))

    return sign


def _standard_signer(secret: str) -> _Sign:
    """Raises ``InvalidInput`` if the secret is of neither kind."""
    private = secret.startswith(PRIVATE_PREFIX)
    fault = _private_fault(secret) if private else _hmac_fault(secret)
    if fault:
        raise InvalidInput("A signing key cannot be used", [Fault("secret", fault)])
    return _ed25519_signer(secret) if private else _hmac_signer(secret)


class _Standard:
    """One signature for each live key. A key signs in the form that its prefix names, so a change between ``v1`` and
    ``v1a`` overlaps just as a rotation does."""

    def __init__(self, keys: Sequence[SigningKey]) -> None:
        self._keys = [(_standard_signer(key.secret), key.expires_at) for key in keys]

    def sign(self, message_id: str, timestamp: int, body: bytes, now: Millis) -> str:
        message = b"%b.%d.%b" % (message_id.encode(), timestamp, body)
        return b" ".join(
            [sign(message) for sign, expires_at in self._keys if expires_at is None or expires_at > now]
        ).decode()


class _Platform:
    """The forms of the platforms. Where the header holds one signature, it is the newest key's."""

    def __init__(self, scheme: SignatureScheme, keys: Sequence[SigningKey]) -> None:
        self._form = _FORMS[scheme]
        self._keys = [(key.secret.encode(), key.expires_at) for key in keys]

    def sign(self, message_id: str, timestamp: int, body: bytes, now: Millis) -> str:
        live = [key for key, expires_at in self._keys if expires_at is None or expires_at > now]
        return self._form(live, timestamp, body) if live else ""


def _avvyr(keys: Sequence[bytes], _timestamp: int, body: bytes) -> str:
    return f"sha256={hmac.digest(keys[0], body, 'sha256').hex()}"


def _evolutionx(keys: Sequence[bytes], timestamp: int, body: bytes) -> str:
    return hmac.digest(keys[0], b"%d.%b" % (timestamp, body), "sha256").hex()


def _base64(keys: Sequence[bytes], _timestamp: int, body: bytes) -> str:
    return b64encode(hmac.digest(keys[0], body, "sha256")).decode()


def _stripe(keys: Sequence[bytes], timestamp: int, body: bytes) -> str:
    message = b"%d.%b" % (timestamp, body)
    return ",".join([f"t={timestamp}", *(f"v1={hmac.digest(key, message, 'sha256').hex()}" for key in keys)])


_FORMS: Final[dict[SignatureScheme, Callable[[Sequence[bytes], int, bytes], str]]] = {
    SignatureScheme.AVVYR: _avvyr,
    SignatureScheme.EVOLUTIONX: _evolutionx,
    SignatureScheme.SHIPSTREAM: _base64,
    SignatureScheme.SHOPIFY: _base64,
    SignatureScheme.STRIPE: _stripe,
}


@final
class Signer:
    """The keys of a subscription, decoded once. Raises ``InvalidInput`` for a key that cannot be used."""

    __slots__ = ("sign",)

    sign: Callable[[str, int, bytes, Millis], str]
    """The value of the signature header, from message id, timestamp in seconds, body and the time in milliseconds:
    signatures of the keys live at that time, newest first; empty if there is none. The id must not have a full stop."""

    def __init__(self, scheme: SignatureScheme, keys: Sequence[SigningKey]) -> None:
        newest_first = sorted(keys, key=lambda key: key.created_at, reverse=True)
        if scheme is SignatureScheme.NONE:
            newest_first = []
        form = _Platform(scheme, newest_first) if scheme in _FORMS else _Standard(newest_first)
        self.sign = form.sign
