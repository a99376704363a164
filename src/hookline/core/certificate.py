"""Client certificates (mutual TLS): what is wrong with one that a subscription is to show to its endpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509 import load_pem_x509_certificates

from hookline.core.errors import Fault
from hookline.core.model import ClientCertificate

MAX_PEM = 32 * 1024
"""Characters of a chain or a key; chains of four certificates with 4,096-bit RSA keys take about 9,000."""

_FIELD = "client_certificate"

T = TypeVar("T")


def certificate_faults(found: ClientCertificate, url: str) -> Iterator[Fault]:
    """Everything that is wrong with a certificate, its key, and both for an endpoint with this URL.

    When it ends is for the endpoint to judge: a change of something else must not fail for it.
    """
    if not url.lower().startswith("https:"):
        yield Fault(_FIELD, "needs a URL that begins with https:")
    chain, chain_fault = _read(found.certificate, load_pem_x509_certificates, "certificates")
    key, key_fault = _read(found.key, lambda pem: load_pem_private_key(pem, None), "a private key")
    if chain_fault:
        yield Fault(f"{_FIELD}.certificate", chain_fault)
    if key_fault:
        yield Fault(f"{_FIELD}.key", key_fault)
    if chain and key is not None and _form(chain[0].public_key()) != _form(key.public_key()):
        yield Fault(
            f"{_FIELD}.key",
            "does not belong to the first certificate; the client's own comes first, then those that issued it",
        )


def _read(text: str, load: Callable[[bytes], T], what: str) -> tuple[T | None, str]:
    """What was read, or what is wrong with it."""
    if len(text) > MAX_PEM:
        return None, f"must have at most {MAX_PEM} characters"
    try:
        return load(text.encode("ascii")), ""
    except TypeError:
        return None, "must not be encrypted with a passphrase: it is stored encrypted here"
    except (ValueError, UnsupportedAlgorithm):
        return None, f"must be {what} in PEM form (-----BEGIN …)"


def _form(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
