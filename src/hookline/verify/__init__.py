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
signature. ``verify_avvyr`` and its siblings check the signatures of the platforms they are named for.
On the command line: ``python -m hookline.verify --help``.
"""

from hookline.verify.platforms import (
    Signed,
    verify_avvyr,
    verify_evolutionx,
    verify_shipstream,
    verify_shopify,
    verify_stripe,
)
from hookline.verify.request import MAX_SIGNATURES, TOLERANCE, VerificationError
from hookline.verify.standard import Verified, verify

__all__ = [
    "verify",
    "Verified",
    "verify_avvyr",
    "verify_evolutionx",
    "verify_shipstream",
    "verify_shopify",
    "verify_stripe",
    "Signed",
    "VerificationError",
    "TOLERANCE",
    "MAX_SIGNATURES",
]
