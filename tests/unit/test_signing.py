import base64
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from hookline.core.errors import InvalidInput
from hookline.core.model import SignatureScheme, SigningKey
from hookline.core.signing import Signer, new_secret, public_key, secret_fault
from hookline.verify import verify

# Vectors of the Standard Webhooks libraries (A: Go, B: Rust) and of Svix' server (C).
A = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
B = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
C = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
C_PUBLIC = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="

VECTORS = {
    "A": (A, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}',
          "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
    "B": (B, "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", 1649367553, b'{"email":"test@example.com","username":"test_user"}',
          "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw="),
    "C": (C, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}',
          "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="),
}  # fmt: skip


def counted(length: int) -> bytes:
    return bytes(range(length))


def signer(*keys: SigningKey, scheme: SignatureScheme = SignatureScheme.V1) -> Signer:
    return Signer(scheme, keys)


@pytest.mark.parametrize("name", VECTORS)
def test_published_vectors(name: str):
    secret, message_id, timestamp, body, expected = VECTORS[name]
    scheme = SignatureScheme.V1A if name == "C" else SignatureScheme.V1
    assert signer(SigningKey(secret, 0), scheme=scheme).sign(message_id, timestamp, body, 0) == expected
    assert secret_fault(secret, scheme) is None


def test_the_public_key_of_a_vector():
    assert public_key(C) == C_PUBLIC


@given(
    st.binary(max_size=300).map(lambda raw: raw.hex().encode()),
    st.integers(0, 2**32),
    st.binary(min_size=32, max_size=32),
)
def test_the_independent_library_signs_alike(body: bytes, timestamp: int, entropy: bytes):
    secret = new_secret(SignatureScheme.V1, lambda _: entropy)
    oracle = Webhook(secret).sign("evt_1", datetime.fromtimestamp(timestamp, UTC), body.decode())
    assert signer(SigningKey(secret, 0)).sign("evt_1", timestamp, body, 0) == oracle


@given(
    st.sampled_from([SignatureScheme.V1, SignatureScheme.V1A]),
    st.binary(max_size=300),
    st.binary(min_size=32, max_size=32),
)
def test_what_is_signed_is_verified(scheme: SignatureScheme, body: bytes, entropy: bytes):
    secret = new_secret(scheme, lambda length: entropy[:length])
    assert secret_fault(secret, scheme) is None
    header = signer(SigningKey(secret, 0), scheme=scheme).sign("evt_1", 1000, body, 0)
    headers = {"webhook-id": "evt_1", "webhook-timestamp": "1000", "webhook-signature": header}
    held = public_key(secret) if scheme is SignatureScheme.V1A else secret
    assert verify(body, headers, held, now=1000.0) == ("evt_1", 1000)


def test_new_secrets_have_the_standard_form():
    hmac_secret = new_secret(SignatureScheme.V1, counted)
    assert base64.b64decode(hmac_secret.removeprefix("whsec_")) == counted(32)
    raw = base64.b64decode(new_secret(SignatureScheme.V1A, counted).removeprefix("whsk_"))
    assert (raw[:32], len(raw)) == (counted(32), 64)
    with pytest.raises(InvalidInput):
        new_secret(SignatureScheme.NONE, counted)


def test_all_live_keys_sign_newest_first():
    old, new = SigningKey(A, 1000, expires_at=5000), SigningKey(B, 2000)
    first, second = (signer(key).sign("evt_1", 3, b"{}", 3000) for key in (new, old))
    assert signer(old, new).sign("evt_1", 3, b"{}", 3000) == f"{first} {second}"
    assert signer(old, new).sign("evt_1", 3, b"{}", 4999) == f"{first} {second}"
    assert signer(old, new).sign("evt_1", 3, b"{}", 5000) == first


def test_a_change_of_scheme_overlaps():
    both = signer(SigningKey(A, 1000, expires_at=5000), SigningKey(C, 2000), scheme=SignatureScheme.V1A)
    assert [part.split(",")[0] for part in both.sign("evt_1", 3, b"{}", 3000).split()] == ["v1a", "v1"]
    assert [part.split(",")[0] for part in both.sign("evt_1", 6, b"{}", 6000).split()] == ["v1a"]


def test_without_keys_or_scheme_nothing_is_signed():
    assert signer().sign("evt_1", 3, b"{}", 3000) == ""
    assert signer(SigningKey(A, 0, expires_at=10)).sign("evt_1", 3, b"{}", 10) == ""
    assert signer(SigningKey(A, 0), scheme=SignatureScheme.NONE).sign("evt_1", 3, b"{}", 10) == ""


def b64(length: int) -> str:
    return base64.b64encode(counted(length)).decode()


@pytest.mark.parametrize(
    ("secret", "scheme", "part"),
    [
        (f"whsec_{b64(24)}", SignatureScheme.V1, None),
        (f"whsec_{b64(64)}", SignatureScheme.V1, None),
        (f"whsec_{b64(32).rstrip('=')}", SignatureScheme.V1, None),
        (f"whsec_{b64(23)}", SignatureScheme.V1, "24 to 64 bytes, has 23"),
        (f"whsec_{b64(65)}", SignatureScheme.V1, "has 65"),
        ("whsec_", SignatureScheme.V1, "has 0"),
        ("", SignatureScheme.V1, "whsec_ followed by base64"),
        (b64(32), SignatureScheme.V1, "whsec_ followed by base64"),
        ("whsec_not base64!", SignatureScheme.V1, "followed by base64"),
        ("whsec_ä", SignatureScheme.V1, "followed by base64"),
        (C, SignatureScheme.V1, "whsec_ followed by base64"),
        (C, SignatureScheme.V1A, None),
        (A, SignatureScheme.V1A, "whsk_ followed by base64"),
        (C_PUBLIC, SignatureScheme.V1A, "whsk_ followed by base64"),
        (f"whsk_{b64(32)}", SignatureScheme.V1A, "64 bytes"),
        (f"whsk_{b64(64)}", SignatureScheme.V1A, "does not belong to the seed"),
        (A, SignatureScheme.NONE, "has no secret"),
    ],
)
def test_faults_of_secrets(secret: str, scheme: SignatureScheme, part: str | None):
    fault = secret_fault(secret, scheme)
    assert (fault is None) if part is None else part in (fault or "")
    assert secret[10:] not in (fault or "") or not secret[10:]


def test_bad_keys_are_refused_without_showing_them():
    for secret in ("whsec_c2hvcnQ=", f"whsk_{b64(64)}"):
        with pytest.raises(InvalidInput) as caught:
            signer(SigningKey(secret, 0))
        assert secret.split("_")[1] not in f"{caught.value} {caught.value.faults}"
    with pytest.raises(InvalidInput):
        public_key(A)
