"""Signatures of Standard Webhooks 1.0.0: ``v1`` (HMAC-SHA256) and ``v1a`` (Ed25519).

Signed are id, timestamp and body, joined with full stops; see
https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import binascii
import hmac
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from typing import Final, assert_never, final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hookline.core.errors import Fault, InvalidInput
from hookline.core.model import Millis, SignatureScheme, SigningKey

HMAC_PREFIX: Final = "whsec_"
PRIVATE_PREFIX: Final = "whsk_"
PUBLIC_PREFIX: Final = "whpk_"

MIN_SECRET: Final = 24
MAX_SECRET: Final = 64
"""Bytes of an HMAC secret, by the specification."""

_SEED: Final = 32


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
            raise InvalidInput(
                "The scheme none has no secret", [Fault("signing.scheme", "must be v1 or v1a")]
            )
        case _:
            assert_never(scheme)


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
            assert_never(scheme)


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


def _signer(secret: str) -> _Sign:
    """Raises ``InvalidInput`` if the secret is of neither kind."""
    private = secret.startswith(PRIVATE_PREFIX)
    fault = _private_fault(secret) if private else _hmac_fault(secret)
    if fault:
        raise InvalidInput("A signing key cannot be used", [Fault("secret", fault)])
    return _ed25519_signer(secret) if private else _hmac_signer(secret)


@final
class Signer:
    """The keys of a subscription, decoded once.

    A key signs in the form that its prefix names, so a change of scheme overlaps just as a rotation does.
    Raises ``InvalidInput`` for a key that cannot be used.
    """

    __slots__ = ("_keys",)

    def __init__(self, scheme: SignatureScheme, keys: Sequence[SigningKey]) -> None:
        newest_first = sorted(keys, key=lambda key: key.created_at, reverse=True)
        self._keys = [(_signer(key.secret), key.expires_at) for key in newest_first]
        if scheme is SignatureScheme.NONE:
            self._keys = []

    def sign(self, message_id: str, timestamp: int, body: bytes, now: Millis) -> str:
        """The value of the signature header: one signature for each key live at ``now``, newest first.

        Empty if there is none. ``timestamp`` is in seconds; ``message_id`` must not have a full stop.
        """
        message = b"%b.%d.%b" % (message_id.encode(), timestamp, body)
        return b" ".join(
            [sign(message) for sign, expires_at in self._keys if expires_at is None or expires_at > now]
        ).decode()
