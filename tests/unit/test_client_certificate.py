"""The client certificate of a subscription: what is wrong with one, and which request carries it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from msgspec.structs import replace

from hookline.core.certificate import MAX_PEM, certificate_faults
from hookline.core.model import ClientCertificate

URL = "https://example.com/hooks"


@dataclass
class Made:
    """Certificates of one authority, and what can be wrong with them."""

    good: ClientCertificate
    other_key: str
    encrypted: str
    unlike: str
    authority: str


def client_certificate(leaf: trustme.LeafCert) -> ClientCertificate:
    chain = "".join(part.bytes().decode() for part in leaf.cert_chain_pems)
    return ClientCertificate(chain, leaf.private_key_pem.bytes().decode())


@pytest.fixture(scope="module")
def made() -> Made:
    ca = trustme.CA()
    good = client_certificate(ca.create_child_ca().issue_cert("shop"))
    key = load_pem_private_key(good.key.encode(), None)
    secret = BestAvailableEncryption(b"secret")
    return Made(
        good,
        client_certificate(ca.issue_cert("shop")).key,
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, secret).decode(),
        Ed25519PrivateKey.generate().private_bytes_raw().hex(),
        ca.cert_pem.bytes().decode(),
    )


def faults(found: ClientCertificate, url: str = URL) -> list[tuple[str, str]]:
    return [(fault.field, fault.message) for fault in certificate_faults(found, url)]


def test_a_chain_with_its_key_is_good(made: Made) -> None:
    assert made.good.certificate.count("BEGIN CERTIFICATE") == 2
    assert faults(made.good) == []
    assert faults(made.good, "HTTPS://EXAMPLE.COM/") == []


def test_it_needs_tls(made: Made) -> None:
    assert faults(made.good, "http://example.com/") == [
        ("client_certificate", "needs a URL that begins with https:")
    ]


def test_the_key_is_that_of_the_first_certificate(made: Made) -> None:
    expected = [(
        "client_certificate.key",
        "does not belong to the first certificate; the client's own comes first, then those that issued it",
    )]  # fmt: skip
    assert faults(replace(made.good, key=made.other_key)) == expected
    assert faults(replace(made.good, certificate=made.authority + made.good.certificate)) == expected


def test_an_encrypted_key_is_refused(made: Made) -> None:
    assert faults(replace(made.good, key=made.encrypted)) == [
        ("client_certificate.key", "must not be encrypted with a passphrase: it is stored encrypted here")
    ]


@pytest.mark.parametrize("text", ["", "x", "-----BEGIN", "•••", "\x00", "ä" * 9])
def test_what_is_no_pem_is_refused(made: Made, text: str) -> None:
    assert faults(ClientCertificate(text, text)) == [
        ("client_certificate.certificate", "must be certificates in PEM form (-----BEGIN …)"),
        ("client_certificate.key", "must be a private key in PEM form (-----BEGIN …)"),
    ]
    mixed = ClientCertificate(made.good.key, made.good.certificate)
    assert [place for place, _ in faults(mixed)] == [
        "client_certificate.certificate", "client_certificate.key",
    ]  # fmt: skip
    assert [place for place, _ in faults(replace(made.good, key=made.unlike))] == ["client_certificate.key"]


def test_size_is_bounded(made: Made) -> None:
    padding = "#" * MAX_PEM
    large = ClientCertificate(made.good.certificate + padding, made.good.key + padding)
    message = f"must have at most {MAX_PEM} characters"
    assert faults(large) == [
        ("client_certificate.certificate", message),
        ("client_certificate.key", message),
    ]
