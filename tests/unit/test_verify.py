import base64
import hmac
import math
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from hookline.verify import MAX_SIGNATURES, VerificationError, Verified, verify
from hookline.verify.__main__ import main

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
PUBLIC = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="
BODY = b'{"test": 2432232314}'
ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
TIME = 1614265330
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
ASYMMETRIC = "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="
WRONG = "v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc="
GOOD = {"webhook-id": ID, "webhook-timestamp": str(TIME), "webhook-signature": SIGNATURE}


def refused(
    body: bytes = BODY, secrets: str | list[str] = SECRET, now: float = TIME, **changes: str | None
) -> str:
    """The code of the refusal of the good request with these changes."""
    headers = {**GOOD, **{name.replace("_", "-"): value for name, value in changes.items()}}
    with pytest.raises(VerificationError) as caught:
        verify(body, {name: value for name, value in headers.items() if value is not None}, secrets, now=now)
    assert str(caught.value)
    assert "MfKQ9" not in str(caught.value)
    return caught.value.code


def test_the_published_vectors_are_verified():
    assert verify(BODY, GOOD, SECRET, now=TIME) == Verified(ID, TIME)
    assert verify(BODY, {**GOOD, "webhook-signature": ASYMMETRIC}, PUBLIC, now=TIME) == Verified(ID, TIME)


def test_headers_may_be_of_any_case_and_name():
    assert verify(BODY, {name.title(): value for name, value in GOOD.items()}, SECRET, now=TIME).id == ID
    renamed = {"X-Id": ID, "X-Time": f" {TIME} ", "X-Sign": SIGNATURE}
    found = verify(
        BODY,
        renamed,
        SECRET,
        now=TIME,
        id_header="x-ID",
        timestamp_header="X-time",
        signature_header="x-sign",
    )
    assert found.id == ID


def test_headers_may_come_from_an_environ():
    environ: Any = {"wsgi.version": (1, 0), "HTTP_PROXY": "a", "http_proxy": "b"}
    environ |= {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in GOOD.items()}
    assert verify(BODY, environ, SECRET, now=TIME).id == ID
    assert verify(BODY, environ | GOOD, SECRET, now=TIME).id == ID


def test_any_of_several_secrets_and_signatures_counts():
    assert verify(BODY, GOOD, [OTHER, SECRET], now=TIME)
    assert verify(BODY, GOOD, (PUBLIC, SECRET), now=TIME)
    both = f"{WRONG} v2,xyz nonsense {ASYMMETRIC} {SIGNATURE}"
    assert verify(BODY, {**GOOD, "webhook-signature": both}, SECRET, now=TIME)
    assert verify(BODY, {**GOOD, "webhook-signature": both}, PUBLIC, now=TIME)


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("value", [None, "", "  "])
def test_each_header_must_be_there(name: str, value: str | None):
    headers = {**GOOD, name: value}
    with pytest.raises(VerificationError) as caught:
        verify(BODY, {key: text for key, text in headers.items() if text is not None}, SECRET, now=TIME)
    assert caught.value.code == "missing_header"


@pytest.mark.parametrize("value", ["abc", "-5", "1614265330.5", "1e9", "٣", "1" * 13, "0x5", "1614265330 1"])
def test_the_timestamp_must_be_a_number(value: str):
    assert refused(webhook_timestamp=value) == "bad_timestamp"


def test_the_timestamp_must_be_near():
    assert verify(BODY, GOOD, SECRET, now=TIME + 300)
    assert verify(BODY, GOOD, SECRET, now=TIME - 300)
    assert refused(now=TIME + 300.5) == "too_old"
    assert refused(now=TIME - 300.5) == "too_new"
    assert refused(now=math.nan) == "too_old"
    assert verify(BODY, GOOD, SECRET, now=0, tolerance=math.inf)
    with pytest.raises(VerificationError, match="s old"):
        verify(BODY, GOOD, SECRET)


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (WRONG, "no_match"),
        (f"{WRONG} {WRONG}", "no_match"),
        ("v1,", "no_match"),
        (SIGNATURE[:-1], "no_match"),
        (SIGNATURE[:20], "no_match"),
        (f"{SIGNATURE}A", "no_match"),
        (SIGNATURE.replace("v1,", "v1a,"), "no_match"),
        ("v1,☃", "no_match"),
        ("v1", "bad_signature_header"),
        (SIGNATURE.replace("v1,", "v2,"), "bad_signature_header"),
        (SIGNATURE.removeprefix("v1,"), "bad_signature_header"),
        (SIGNATURE.replace(",", "="), "bad_signature_header"),
        (" ".join([SIGNATURE] * (MAX_SIGNATURES + 1)), "bad_signature_header"),
    ],
)
def test_bad_signatures(value: str, code: str):
    assert refused(webhook_signature=value) == code


@pytest.mark.parametrize(
    "value", ["v1a,", ASYMMETRIC[:-2], ASYMMETRIC[:20], ASYMMETRIC.replace("hnO", "hnP"), "v1a,!"]
)
def test_bad_asymmetric_signatures(value: str):
    assert refused(webhook_signature=value, secrets=PUBLIC) == "no_match"


def test_everything_signed_is_covered():
    assert refused(body=BODY + b" ") == "no_match"
    assert refused(webhook_id="msg_other") == "no_match"
    assert refused(webhook_timestamp=str(TIME + 1)) == "no_match"
    assert refused(secrets=OTHER) == "no_match"


def test_the_parts_cannot_be_shifted():
    """A signature for id ``a``, time 1 and a body that begins like a time must not pass as another request."""
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    signed = base64.b64encode(hmac.digest(key, f"a.1.{TIME}.b".encode(), "sha256")).decode()
    assert verify(f"{TIME}.b".encode(), shifted("a", 1, signed), SECRET, now=1)
    with pytest.raises(VerificationError) as caught:
        verify(b"b", shifted("a.1", TIME, signed), SECRET, now=TIME)
    assert caught.value.code == "bad_id"


def shifted(message_id: str, timestamp: int, signed: str) -> dict[str, str]:
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{signed}",
    }


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        "whpk_",
        "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "whsec_!",
        "whsec_ä",
        "whpk_AAAA",
        "whsk_AAAA",
    ],
)
def test_unusable_secrets(secret: str):
    assert refused(secrets=secret) == "bad_secret"
    assert refused(secrets=[SECRET, secret]) == "bad_secret"


def test_no_secret_verifies_nothing():
    assert refused(secrets=[]) == "bad_secret"


def test_a_header_given_twice_is_refused():
    with pytest.raises(VerificationError) as caught:
        verify(BODY, {**GOOD, "Webhook-Signature": WRONG}, SECRET, now=TIME)
    assert caught.value.code == "repeated_header"
    assert verify(BODY, {**GOOD, "Webhook-Id": ID}, SECRET, now=TIME)
    assert verify(BODY, {**GOOD, "Accept": "a", "accept": "b"}, SECRET, now=TIME)


def test_secrets_are_text():
    with pytest.raises(TypeError, match="must be text"):
        verify(BODY, GOOD, SECRET.encode(), now=TIME)  # pyright: ignore[reportArgumentType] - the mistake under test


def test_the_body_must_be_raw():
    with pytest.raises(TypeError, match="raw bytes"):
        verify(BODY.decode(), GOOD, SECRET, now=TIME)  # pyright: ignore[reportArgumentType] - the mistake under test
    assert verify(memoryview(BODY), GOOD, SECRET, now=TIME)


@pytest.mark.parametrize("name", GOOD)
def test_a_header_that_the_server_does_not_find_is_missing(name: str):
    headers: Any = {**GOOD, name: None}  # as {name: request.headers.get(name)} has it
    with pytest.raises(VerificationError) as caught:
        verify(BODY, headers, SECRET, now=TIME)
    assert caught.value.code == "missing_header"


@pytest.mark.parametrize(
    ("headers", "secret", "said"),
    [
        (GOOD, None, "a secret must be text"),
        (list(GOOD.items()), SECRET, "headers must be a mapping"),
        (None, SECRET, "headers must be a mapping"),
        (
            {name.encode(): value.encode() for name, value in GOOD.items()},
            SECRET,
            "name of a header must be text",
        ),
        ({**GOOD, "webhook-id": ID.encode()}, SECRET, "the header webhook-id must be text"),
        ({**GOOD, "webhook-signature": [SIGNATURE]}, SECRET, "the header webhook-signature must be text"),
    ],
)
def test_mistakes_of_the_receiver_are_named(headers: Any, secret: Any, said: str):
    with pytest.raises(TypeError, match=said):
        verify(BODY, headers, secret, now=TIME)


def test_an_id_is_not_verified_by_the_signature_of_another_one():
    message = f"order?1.{TIME}.".encode() + BODY
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    signature = "v1," + base64.b64encode(hmac.digest(key, message, "sha256")).decode()
    signed = {**GOOD, "webhook-id": "order?1", "webhook-signature": signature}
    assert verify(BODY, signed, SECRET, now=TIME).id == "order?1"
    # Servers that read headers as UTF-8 can give letters that Latin-1 lacks: none may stand in for the question mark.
    with pytest.raises(VerificationError) as caught:
        verify(BODY, {**signed, "webhook-id": "order€1"}, SECRET, now=TIME)
    assert caught.value.code == "bad_id"


HEADERS = st.text(st.characters(codec="latin-1"), max_size=60)


@given(HEADERS, HEADERS, HEADERS | st.just(SIGNATURE), st.binary(max_size=40))
def test_nothing_but_the_truth_is_verified(message_id: str, timestamp: str, signature: str, body: bytes):
    headers = {"webhook-id": message_id, "webhook-timestamp": timestamp, "webhook-signature": signature}
    with pytest.raises(VerificationError):
        verify(body, headers, [SECRET, PUBLIC], now=TIME)


@given(st.text(max_size=40), st.integers(-400, 400), st.sampled_from([SECRET, OTHER]), st.booleans())
def test_agrees_with_the_independent_library(text: str, age: int, secret: str, change: bool):
    now = int(datetime.now(UTC).timestamp()) - age
    body = text.encode("utf-8", "replace").decode()
    headers = {"webhook-id": "evt_1", "webhook-timestamp": str(now)}
    headers["webhook-signature"] = Webhook(secret).sign("evt_1", datetime.fromtimestamp(now, UTC), body)
    body += "x" * change

    def theirs() -> bool:
        try:
            Webhook(SECRET).verify(body, headers, json_parse=False)
        except WebhookVerificationError:
            return False
        return True

    def ours() -> bool:
        try:
            verify(body.encode(), headers, SECRET)
        except VerificationError:
            return False
        return True

    # Both look at the clock themselves: a second may pass between them.
    assert ours() == theirs() or abs(abs(age) - 300) <= 2


# --- the command ------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    headers, body = tmp_path / "headers", tmp_path / "body"
    lines = [
        "POST http://localhost:9/x HTTP/1.1",
        *(f"{name.title()}: {value}" for name, value in GOOD.items()),
    ]
    headers.write_text("\r\n".join(lines), "latin-1")
    body.write_bytes(BODY)
    return str(headers), str(body)


def test_the_command_verifies(files: tuple[str, str], capsys: pytest.CaptureFixture[str]):
    options = ["--headers", files[0], "--body", files[1]]
    assert main(["--secret", OTHER, "--secret", SECRET, *options, "--any-time"]) == 0
    assert capsys.readouterr().out == f"verified: id {ID}, timestamp {TIME}\n"
    assert main(["--secret", SECRET, *options]) == 1
    assert "too_old" in capsys.readouterr().err
    assert main(["--secret", SECRET, *options, "--tolerance", "1e12"]) == 0
    assert main(["--secret", OTHER, *options, "--any-time"]) == 1
    assert main([*options, "--any-time"]) == 1
    assert main(["--secret", SECRET, "--headers", files[0], "--body", "nowhere", "--any-time"]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_the_module_runs_with_nothing_but_python(files: tuple[str, str]):
    """``-S`` and ``-I`` hide all installed packages, the server's libraries among them."""
    source = Path(__file__).parents[2] / "src"
    run = "runpy.run_module('hookline.verify', run_name='__main__')"
    code = f"import sys, runpy; sys.path.insert(0, {str(source)!r}); {run}"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, "--headers", files[0], "--body", "-", "--any-time"],
        input=BODY,
        capture_output=True,
        env={**os.environ, "HOOKLINE_WEBHOOK_SECRET": SECRET},
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == f"verified: id {ID}, timestamp {TIME}\n".encode()
