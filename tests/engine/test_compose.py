"""What a request looks like: method, URL, headers, authentication, signatures; and what the log keeps of it."""

from __future__ import annotations

from base64 import b64decode, b64encode
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import msgspec
import pytest
from standardwebhooks import Webhook

from hookline.core.errors import InvalidInput
from hookline.core.ids import attempt_id
from hookline.core.model import Event, SigningKey, Subscription
from hookline.core.signing import public_key
from hookline.engine.compose import MASK, Composer, request_body
from hookline.ports import ErrorClass
from hookline.verify import VerificationError, verify
from tests.engine.endpoints import Arrival, Endpoint, Reply
from tests.engine.stage import HOUR, Stage

SECRET = "whsec_" + b64encode(b"s" * 32).decode()


async def sent(stage: Stage, **spec: Any) -> tuple[Subscription, Arrival]:
    """The request that one event becomes."""
    subscription, endpoint = await stage.subscribe(**spec)
    await stage.publish("order:paid", data={"n": 1}, occurred_at="2026-01-01T10:00:00.250Z")
    await stage.settled(subscription, 1)
    return subscription, endpoint.arrivals[0]


def check(arrival: Arrival, secret: str, at: float | None = None) -> None:
    """Verify as a receiver does. Raises ``VerificationError``."""
    now = float(arrival.headers["webhook-timestamp"]) if at is None else at
    verify(arrival.request.body or b"", arrival.headers, secret, now=now)


def key_of(stage: Stage, subscription: Subscription) -> SigningKey:
    return stage.secrets(subscription).keys[0]


# --- the shape -------------------------------------------------------------------------------------------


async def test_a_plain_subscription_gets_a_standard_webhook(stage: Stage):
    _, arrival = await sent(stage)
    assert (arrival.request.method, arrival.request.url) == ("POST", "https://a.example/hook")
    assert arrival.request.body == (
        b'{"type":"order:paid","timestamp":"2026-01-01T10:00:00.250Z","data":{"n":1}}'
    )
    headers = arrival.headers
    assert headers["content-type"] == "application/json"
    assert headers["user-agent"].startswith("Hookline/")
    assert headers["webhook-id"] == "e1"
    assert int(headers["webhook-timestamp"]) == arrival.millis // 1000
    assert headers["webhook-signature"].startswith("v1,")
    assert (headers["hookline-sequence"], headers["hookline-attempt"]) == ("1", "1")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
async def test_these_methods_carry_the_body(stage: Stage, method: str):
    subscription, arrival = await sent(stage, method=method)
    assert arrival.request.method == method
    assert arrival.body["data"] == {"n": 1}
    check(arrival, key_of(stage, subscription).secret)


async def test_get_leaves_the_body_out_and_signs_its_absence(stage: Stage):
    subscription, arrival = await sent(stage, method="GET")
    assert (arrival.request.method, arrival.request.body) == ("GET", None)
    assert "content-type" not in arrival.headers
    check(arrival, key_of(stage, subscription).secret)


async def test_query_parameters_are_added_behind_those_of_the_url(stage: Stage):
    stage.endpoint("a.example")
    query = {"shop": "7 & 8", "ü": "é"}
    _, arrival = await sent(stage, url="https://a.example/hook?own=1", query=query)
    path, _, text = arrival.request.url.partition("?")
    assert path == "https://a.example/hook"
    assert text.startswith("own=1&")
    assert parse_qs(text) == {"own": ["1"], "shop": ["7 & 8"], "ü": ["é"]}


async def test_custom_headers_are_sent_and_secret_ones_too(stage: Stage):
    _, arrival = await sent(stage, headers={"X-Shop": "7"}, secret_headers={"X-Token": "hush"})
    assert (arrival.headers["x-shop"], arrival.headers["x-token"]) == ("7", "hush")


async def test_the_tracking_headers_can_be_switched_off(stage: Stage):
    _, arrival = await sent(stage, tracking_headers=False)
    assert [name for name in arrival.headers if name.startswith("hookline-")] == []


async def test_timeouts_are_those_of_the_subscription(stage: Stage):
    _, arrival = await sent(stage, timeout={"connect": 2, "total": 7})
    assert (arrival.request.connect_timeout, arrival.request.total_timeout) == (2, 7)


@pytest.mark.parametrize(
    "name",
    [
        "Host", "Content-Length", "transfer-encoding", "Connection", "TE", "Content-Type", "Accept-Encoding",
        "Webhook-Id", "webhook-signature", "Hookline-Sequence", "Bad Name", "X-A\r\nX-B", "",
    ],
)  # fmt: skip
@pytest.mark.parametrize("field", ["headers", "secret_headers"])
async def test_headers_that_break_framing_or_impersonate_ours_are_refused(
    stage: Stage, field: str, name: str
):
    spec: dict[str, Any] = {field: {name: "x"}}
    with pytest.raises(InvalidInput) as refused:
        await stage.subscribe(**spec)
    assert [fault.field for fault in refused.value.faults] == [f"{field}.{name}"]


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\0b", " a", "é"])
async def test_header_values_that_could_inject_are_refused(stage: Stage, value: str):
    with pytest.raises(InvalidInput):
        await stage.subscribe(headers={"X-Shop": value})


# --- authentication --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("auth", "header", "value"),
    [
        (
            {"kind": "basic", "username": "u", "secret": "p:ä"},
            "authorization",
            f"Basic {b64encode('u:p:ä'.encode()).decode()}",
        ),
        ({"kind": "bearer", "secret": "t0k"}, "authorization", "Bearer t0k"),
        ({"kind": "api_key", "secret": "k3y"}, "x-api-key", "k3y"),
        ({"kind": "api_key", "secret": "k3y", "header": "X-Shop-Key"}, "x-shop-key", "k3y"),
    ],
)
async def test_it_authenticates_as_asked(stage: Stage, auth: dict[str, str], header: str, value: str):
    _, arrival = await sent(stage, auth=auth)
    assert arrival.headers[header] == value


async def test_without_auth_no_such_header_is_sent(stage: Stage):
    _, arrival = await sent(stage, auth={"kind": "none"})
    assert not {"authorization", "x-api-key"} & arrival.headers.keys()


OAUTH2 = {
    "kind": "oauth2_client_credentials",
    "token_url": "https://id.example/hook",
    "client_id": "me",
    "secret": "cl13nt",
    "scope": "hooks",
}


def grants(stage: Stage, *tokens: str, seconds: int = 3600) -> Endpoint:
    """The token endpoint gives these in turn."""
    issuer = stage.endpoint("id.example")
    for token in tokens:
        body = msgspec.json.encode({"access_token": token, "token_type": "Bearer", "expires_in": seconds})
        issuer.answers(Reply(200, body=body))
    return issuer


async def test_oauth2_fetches_one_token_for_many_deliveries(stage: Stage):
    issuer = grants(stage, "t1")
    subscription, endpoint = await stage.subscribe(auth=OAUTH2)
    await stage.publish_many(20)
    await stage.settled(subscription, 20)
    assert {arrival.headers["authorization"] for arrival in endpoint.arrivals} == {"Bearer t1"}
    assert len(issuer.arrivals) == 1
    asked = issuer.arrivals[0]
    assert parse_qs((asked.request.body or b"").decode()) == {
        "grant_type": ["client_credentials"],
        "scope": ["hooks"],
    }
    assert asked.headers["authorization"] == f"Basic {b64encode(b'me:cl13nt').decode()}"


async def test_oauth2_fetches_a_new_token_before_the_old_one_ends(stage: Stage):
    grants(stage, "t1", "t2", seconds=600)
    subscription, endpoint = await stage.subscribe(auth=OAUTH2)
    for _ in range(2):
        await stage.publish()
        await stage.pass_time(580)
    await stage.settled(subscription, 2)
    assert [arrival.headers["authorization"] for arrival in endpoint.arrivals] == ["Bearer t1", "Bearer t2"]


async def test_a_token_that_the_endpoint_refuses_is_fetched_anew(stage: Stage):
    grants(stage, "t1", "t2")
    subscription, endpoint = await stage.subscribe(auth=OAUTH2)
    endpoint.answers(401)
    await stage.publish()
    await stage.settled(subscription, 1)
    assert [arrival.headers["authorization"] for arrival in endpoint.arrivals] == ["Bearer t1", "Bearer t2"]


async def test_a_token_endpoint_that_fails_fails_the_attempt_and_is_tried_again(stage: Stage):
    issuer = stage.endpoint("id.example")
    issuer.answers(503)
    grants(stage, "t1")
    subscription, endpoint = await stage.subscribe(
        auth=OAUTH2, retry={"kind": "list", "delays": [5], "jitter": 0}
    )
    await stage.publish()
    await stage.settled(subscription, 1)
    assert len(endpoint.arrivals) == 1
    first, second = await stage.attempts(subscription, 1)
    assert (first.error, first.status) == (ErrorClass.AUTH, 0)
    assert "503" in first.detail
    assert second.status == 200


# --- signatures ------------------------------------------------------------------------------------------


async def test_a_v1_signature_is_the_one_of_the_reference_library(stage: Stage):
    _, arrival = await sent(stage, signing={"secret": SECRET})
    when = datetime.fromtimestamp(int(arrival.headers["webhook-timestamp"]), UTC)
    body = (arrival.request.body or b"").decode()
    assert arrival.headers["webhook-signature"] == Webhook(SECRET).sign("e1", when, body)


async def test_a_v1a_signature_is_verified_with_the_public_key_alone(stage: Stage):
    subscription, arrival = await sent(stage, signing={"scheme": "v1a"})
    assert arrival.headers["webhook-signature"].startswith("v1a,")
    check(arrival, public_key(key_of(stage, subscription).secret))
    with pytest.raises(VerificationError):
        check(arrival, SECRET)


async def test_an_unsigned_subscription_has_no_signature(stage: Stage):
    _, arrival = await sent(stage, signing={"scheme": "none"})
    assert "webhook-signature" not in arrival.headers
    assert arrival.headers["webhook-id"] == "e1"


async def test_the_names_of_the_signature_headers_can_be_chosen(stage: Stage):
    names = {"id_header": "X-Event", "timestamp_header": "X-Time", "signature_header": "X-Sign"}
    _, arrival = await sent(stage, signing={**names, "secret": SECRET})
    headers = arrival.headers
    assert [name for name in headers if name.startswith("webhook-")] == []
    when = datetime.fromtimestamp(int(headers["x-time"]), UTC)
    assert headers["x-event"] == "e1"
    assert headers["x-sign"] == Webhook(SECRET).sign("e1", when, (arrival.request.body or b"").decode())


async def test_a_retry_has_a_new_time_and_signature_and_the_same_id(stage: Stage):
    subscription, endpoint = await stage.subscribe(
        signing={"secret": SECRET}, retry={"kind": "list", "delays": [HOUR / 6], "jitter": 0}
    )
    endpoint.answers(500)
    await stage.publish()
    await stage.settled(subscription, 1, within=HOUR)
    first, second = endpoint.arrivals
    assert int(second.headers["webhook-timestamp"]) - int(first.headers["webhook-timestamp"]) == 600
    assert first.event_id == second.event_id
    for arrival in (first, second):
        check(arrival, SECRET)
    with pytest.raises(VerificationError, match="old"):
        check(first, SECRET, at=float(second.headers["webhook-timestamp"]))


async def test_during_a_rotation_both_keys_sign_the_new_one_first(stage: Stage):
    subscription, endpoint = await stage.subscribe(signing={"secret": SECRET})
    rotated = await stage.subscriptions.rotate(stage.shop, subscription.id, overlap=HOUR)
    stage.notify()
    new = key_of(stage, rotated).secret
    await stage.publish()
    await stage.settled(subscription, 1)
    both = endpoint.arrivals[0]
    assert len(both.headers["webhook-signature"].split(" ")) == 2
    for secret in (SECRET, new):
        check(both, secret)
    alone = replace_signatures(both, both.headers["webhook-signature"].split(" ")[:1])
    check(alone, new)


def replace_signatures(arrival: Arrival, signatures: list[str]) -> Arrival:
    """The request with these signatures only."""
    lines = [line for line in arrival.request.headers if not line.lower().startswith("webhook-signature")]
    lines.append(f"webhook-signature: {' '.join(signatures)}")
    return Arrival(arrival.at, msgspec.structs.replace(arrival.request, headers=lines))


async def test_after_the_overlap_the_old_key_signs_no_longer(stage: Stage):
    subscription, endpoint = await stage.subscribe(signing={"secret": SECRET})
    rotated = await stage.subscriptions.rotate(stage.shop, subscription.id, overlap=60)
    await stage.pass_time(61)
    await stage.publish()
    await stage.settled(subscription, 1)
    check(endpoint.arrivals[0], key_of(stage, rotated).secret)
    with pytest.raises(VerificationError):
        check(endpoint.arrivals[0], SECRET)


async def test_a_rotation_without_overlap_replaces_the_key_at_once(stage: Stage):
    subscription, endpoint = await stage.subscribe(signing={"secret": SECRET})
    await stage.subscriptions.rotate(stage.shop, subscription.id, overlap=0)
    stage.notify()
    await stage.publish()
    await stage.settled(subscription, 1)
    assert len(endpoint.arrivals[0].headers["webhook-signature"].split(" ")) == 1
    with pytest.raises(VerificationError):
        check(endpoint.arrivals[0], SECRET)


# --- the log of attempts ---------------------------------------------------------------------------------


async def test_every_attempt_is_logged_with_all_that_was_sent_and_answered(stage: Stage):
    subscription, endpoint = await stage.subscribe(headers={"X-Shop": "7"})
    endpoint.answers(Reply(503, {"X-Why": "busy"}, body=b"try later", after=0.25))
    await stage.publish()
    await stage.settled(subscription, 1)
    first, second = await stage.attempts(subscription, 1)
    assert (first.number, first.position, first.subscription_no) == (1, 1, subscription.no)
    assert first.started_at == endpoint.arrivals[0].millis
    assert (first.method, first.url, first.address) == ("POST", endpoint.url, "192.0.2.1:443")
    assert (first.status, first.error, first.total_us) == (503, "", 250_000)
    assert "X-Shop: 7" in first.request_headers.splitlines()
    assert "webhook-id: e1" in first.request_headers.splitlines()
    assert b"X-Why: busy" in first.response_headers
    assert (first.response_body, first.response_truncated) == (b"try later", False)
    assert first.request_bytes == len(endpoint.arrivals[0].request.body or b"")
    assert (second.number, second.status) == (2, 200)


async def test_an_attempt_without_an_answer_is_logged_with_its_class_of_error(stage: Stage):
    subscription, endpoint = await stage.subscribe(timeout=3)
    endpoint.answers(Reply(error=ErrorClass.DNS), Reply(after=99))
    await stage.publish()
    await stage.settled(subscription, 1)
    attempts = await stage.attempts(subscription, 1)
    assert [(each.status, each.error) for each in attempts] == [(0, "dns"), (0, "timeout"), (200, "")]
    assert attempts[0].detail == "as the script says"


@pytest.mark.parametrize(
    "spec",
    [
        {"auth": {"kind": "basic", "username": "u", "secret": "hushhush"}},
        {"auth": {"kind": "bearer", "secret": "hushhush"}},
        {"auth": {"kind": "api_key", "secret": "hushhush"}},
        {"auth": OAUTH2},
        {"secret_headers": {"X-Token": "hushhush"}},
        {"signing": {"scheme": "v1a"}},
    ],
)
async def test_secrets_are_masked_in_the_log(stage: Stage, spec: dict[str, Any]):
    grants(stage, "hushhush")
    subscription, arrival = await sent(stage, **spec)
    logged = (await stage.attempts(subscription, 1))[0].request_headers
    names = [line.partition(":")[0] for line in logged.splitlines()]
    assert sorted(names) == sorted(line.partition(":")[0] for line in arrival.request.headers)
    for line in arrival.request.headers:
        name, _, value = line.partition(": ")
        secret = "hush" in value or name in {"webhook-signature", "Authorization"}
        assert (f"{name}: {MASK}" in logged or f"{name}: Bearer {MASK}" in logged) is secret
    assert "hushhush" not in logged
    assert b64encode(b"u:hushhush").decode() not in logged
    assert arrival.headers.get("webhook-signature", "?") not in logged


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_the_body_that_the_log_shows_is_the_one_that_was_sent(stage: Stage, method: str):
    subscription, arrival = await sent(stage, method=method)
    event = await stage.reader.event(stage.shop, "e1")
    shown = request_body(subscription.definition, event, 1, stage.shop)
    assert shown == (arrival.request.body or b"")
    _, _, logged = await stage.reader.attempt(stage.shop, attempt_id(subscription.no, 1, 1))
    assert logged.body == shown


async def test_the_log_shows_the_body_of_the_version_that_sent_it(stage: Stage):
    subscription, arrival = await sent(stage)
    await stage.edit(subscription, method="GET")
    _, _, logged = await stage.reader.attempt(stage.shop, attempt_id(subscription.no, 1, 1))
    assert logged.body == arrival.request.body


async def test_secrets_are_sealed_in_the_storage(stage: Stage):
    subscription, _ = await stage.subscribe(
        auth={"kind": "bearer", "secret": "hushhush"}, signing={"secret": SECRET}
    )
    stored = msgspec.json.encode(await stage.now(subscription))
    sealed = b64decode(msgspec.json.decode(stored)["sealed"])
    for secret in (b"hushhush", SECRET.encode()):
        assert secret not in stored
        assert secret not in sealed


async def test_an_expired_key_is_not_used_even_if_the_worker_has_run_for_long(stage: Stage):
    subscription, endpoint = await stage.subscribe(signing={"secret": SECRET})
    await stage.subscriptions.rotate(stage.shop, subscription.id, overlap=30)
    stage.notify()
    for pause in (10, 40):
        await stage.publish()
        await stage.pass_time(pause)
    assert [len(arrival.headers["webhook-signature"].split(" ")) for arrival in endpoint.arrivals] == [2, 2]
    await stage.publish()
    await stage.settled(subscription, 3)
    assert len(endpoint.arrivals[2].headers["webhook-signature"].split(" ")) == 1


# --- what cannot be composed -----------------------------------------------------------------------------


async def test_an_event_that_makes_no_request_fails_alone(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    whole = Composer.body

    def broken(composer: Composer, event: Event, sequence: int) -> bytes:
        if event.id == "e2":
            raise OverflowError("date value out of range")
        return whole(composer, event, sequence)

    monkeypatch.setattr(Composer, "body", broken)
    subscription, endpoint = await stage.subscribe(retry={"kind": "none"})
    for _ in range(3):
        await stage.publish()
    await stage.settled(subscription, 3)
    assert await stage.states(subscription) == ["succeeded", "failed", "succeeded"]
    assert [arrival.headers["webhook-id"] for arrival in endpoint.arrivals] == ["e1", "e3"]
    (attempt,) = await stage.attempts(subscription, 2)
    assert attempt.error == ErrorClass.INTERNAL
