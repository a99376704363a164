"""Subscriptions over HTTP: make, read, change, stop, start, try out."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trustme
from standardwebhooks import Webhook

from hookline.core.model import DeliveryState, SubscriptionState, Unsettled
from hookline.engine.manage import MASK
from hookline.ports import Record
from hookline.storage.memory import MemoryStorage
from tests.integration.apiserver import Api, api_server
from tests.integration.receivers import Behaviour, Receiver, answer_ok, receiver, status
from tests.unit.test_client_certificate import client_certificate

URL = "http://127.0.0.1:49151/hooks"


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    with api_server(MemoryStorage) as running:
        yield running


@pytest.fixture
def tenant(api: Api, request: pytest.FixtureRequest) -> Api:
    return api.new_tenant(f"t{abs(hash(request.node.nodeid))}")


def make(tenant: Api, **fields: object) -> Any:
    return tenant.post("/v1/subscriptions", {"url": URL, **fields}, 201)


@contextmanager
def receiving(api: Api, behave: Behaviour = answer_ok) -> Iterator[Receiver]:
    """A receiver on the server's own loop."""
    stop = asyncio.Event()
    up: list[Receiver] = []

    async def run() -> None:
        async with receiver(behave) as this:
            up.append(this)
            await stop.wait()

    async def begin() -> asyncio.Task[None]:
        task = asyncio.create_task(run())
        async with asyncio.timeout(60):
            while not up:
                await asyncio.sleep(0)
        return task

    task = api.run(begin())
    try:
        yield up[0]
    finally:

        async def end() -> None:
            stop.set()
            await task

        api.run(end())


# --- make and read -------------------------------------------------------------------------------------------


def test_the_defaults(tenant: Api) -> None:
    made = make(tenant)
    assert made["state"] == "active"
    assert made["version"] == 1
    assert made["events"] == ["*"]
    assert made["timeout"] == {"connect": 5.0, "total": 20.0}
    assert made["signing"]["secret"].startswith("whsec_")
    assert made["signing"]["public_key"] is None
    assert tenant.get(f"/v1/subscriptions/{made['id']}") == made | {
        "signing": made["signing"] | {"secret": MASK}
    }


def test_everything_that_can_be_asked_for_is_kept(tenant: Api) -> None:
    asked = {
        "url": URL,
        "events": ["order:*", "stock"],
        "name": "Orders",
        "method": "PUT",
        "headers": {"X-A": "1"},
        "query": {"q": "2"},
        "retry": {"kind": "exponential", "base": 1, "factor": 3, "cap": 60, "max_attempts": 5, "jitter": 0},
        "timeout": {"connect": 1, "total": 2},
        "rate_limit": {"count": 5, "seconds": 1, "burst": 9},
        "max_in_flight": 3,
        "order": "key",
        "filter": 'data.total > 5 and data.currency == "EUR"',
        "breaker": {"failures": 3, "cooldown": 1, "max_cooldown": 2},
        "disable_after": 60,
        "tracking_headers": False,
        "metadata": {"team": "a"},
    }
    made = make(tenant, **asked)
    for name, value in asked.items():
        if isinstance(value, dict):
            assert made[name] == made[name] | value
        else:
            assert made[name] == value


def test_a_timeout_may_be_one_number(tenant: Api) -> None:
    assert make(tenant, timeout=3)["timeout"] == {"connect": 3.0, "total": 3.0}
    assert make(tenant, timeout=60)["timeout"] == {"connect": 5.0, "total": 60.0}


def test_every_fault_is_named_at_once_of_form_and_of_rules(tenant: Api) -> None:
    problem = tenant.post(
        "/v1/subscriptions",
        {
            "url": "http://169.254.169.254/latest",
            "evnts": ["a"],
            "events": ["*a"],
            "retry": {"kind": "sometimes"},
            "timeout": 0,
            "filter": "data.total >",
            "headers": {"Content-Length": "5", "hookline-sequence": "1"},
            "auth": {"kind": "bearer"},
            "enabled": "yes",
            "from": "yesterday",
        },
        422,
    )
    assert {fault["field"] for fault in problem["faults"]} == {
        "url", "evnts", "events[0]", "retry.kind", "timeout.connect", "timeout.total", "filter",
        "headers.Content-Length", "headers.hookline-sequence", "auth.secret", "enabled",
    }  # fmt: skip
    messages = {fault["field"]: fault["message"] for fault in problem["faults"]}
    assert messages["evnts"] == "is not known; did you mean 'events'?"
    assert messages["retry.kind"] == "must be one of none, list, exponential"


@pytest.mark.parametrize(
    "fields",
    [
        {f"topic{number}": 1 for number in range(3000)},
        {"events": [5] * 3000},
        {"retry": {f"delay{number}": 1 for number in range(3000)}},
        {"headers": {f"X-{number}": 1 for number in range(3000)}},
    ],
)
def test_of_very_many_faults_the_first_are_named(tenant: Api, fields: dict[str, object]) -> None:
    refused = tenant.call("POST", "/v1/subscriptions", {"url": "https://example.com/", **fields})
    assert refused.status == 422
    assert 100 <= len(refused.json["faults"]) < 130


@pytest.mark.parametrize("body", [b"[]", b"null", b'"x"', b"{}"])
def test_a_body_that_is_no_subscription(tenant: Api, body: bytes) -> None:
    answer = tenant.call("POST", "/v1/subscriptions", raw=body)
    assert (answer.status, answer.json["code"]) == (422, "invalid_input")


def test_a_name_twice_in_the_body_is_refused(tenant: Api) -> None:
    answer = tenant.call(
        "POST", "/v1/subscriptions", raw=b'{"url":"https://a.example","url":"https://b.example"}'
    )
    assert (answer.status, answer.json["code"]) == (400, "invalid_json")


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1/",
        "https://[::1]/",
        "https://example.com:22/",
        "https://2130706433/",
        "file:///etc/passwd",
        "x",
    ],
)
def test_targets_that_may_not_be_called(tenant: Api, url: str) -> None:
    problem = tenant.post("/v1/subscriptions", {"url": url}, 422)
    assert [fault["field"] for fault in problem["faults"]] == ["url"]
    oauth2 = {"kind": "oauth2_client_credentials", "token_url": url, "client_id": "c", "secret": "s"}
    problem = tenant.post("/v1/subscriptions", {"url": URL, "auth": oauth2}, 422)
    assert [fault["field"] for fault in problem["faults"]] == ["auth.token_url"]


def test_listing_and_search(tenant: Api) -> None:
    made = [make(tenant, name=f"s{n}", events=[f"type{n}"], url=f"{URL}/{n}")["id"] for n in range(5)]
    seen: list[str] = []
    path = "/v1/subscriptions?limit=2"
    cursor = ""
    while True:
        page = tenant.get(path + (f"&cursor={cursor}" if cursor else ""))
        seen += [item["id"] for item in page["data"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == made
    assert [item["id"] for item in tenant.get("/v1/subscriptions?search=s3")["data"]] == [made[3]]
    assert [item["id"] for item in tenant.get("/v1/subscriptions?event=type2")["data"]] == [made[2]]
    assert [item["id"] for item in tenant.get("/v1/subscriptions?url=hooks/4")["data"]] == [made[4]]


@pytest.mark.parametrize(
    "query", ["cursor=x", "cursor=WyJldmVudHMiLDFd", "limit=0", "limit=201", "limit=x", "lim=1"]
)
def test_queries_that_make_no_sense(tenant: Api, query: str) -> None:
    answer = tenant.call("GET", f"/v1/subscriptions?{query}")
    assert (answer.status, answer.json["code"]) == (422, "invalid_input")
    assert answer.json["faults"][0]["field"] == query.partition("=")[0]


# --- secrets ---------------------------------------------------------------------------------------------------


def test_secrets_are_shown_once_and_masked_after(tenant: Api) -> None:
    auth = {"kind": "basic", "username": "u", "secret": "hunter2"}
    made = make(tenant, auth=auth, secret_headers={"X-Token": "s3cret"}, signing={"scheme": "v1a"})
    assert made["signing"]["secret"].startswith("whsk_")
    assert made["signing"]["public_key"].startswith("whpk_")
    one = tenant.call("GET", f"/v1/subscriptions/{made['id']}")
    every = tenant.call("GET", "/v1/subscriptions")
    for answer in (one, every):
        assert b"hunter2" not in answer.body
        assert b"s3cret" not in answer.body
        assert b"whsk_" not in answer.body
        assert b"whpk_" in answer.body
    assert one.json["auth"] == {"kind": "basic", "username": "u", "secret": MASK}
    assert one.json["secret_headers"] == {"X-Token": MASK}


def test_the_signing_secret_can_be_read_with_the_right_scope(tenant: Api) -> None:
    made = make(tenant)
    path = f"/v1/subscriptions/{made['id']}/secret"
    assert tenant.get(path)["keys"][0]["secret"] == made["signing"]["secret"]
    reader = tenant.as_key(tenant.post("/v1/keys", {"scopes": ["read"]}, 201)["secret"])
    assert reader.get(path, 403)["code"] == "forbidden"


def test_a_given_secret_is_used(tenant: Api) -> None:
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    assert make(tenant, signing={"secret": secret})["signing"]["secret"] == secret
    problem = tenant.post("/v1/subscriptions", {"url": URL, "signing": {"secret": "short"}}, 422)
    assert problem["faults"][0]["field"] == "signing.secret"
    assert "short" not in problem["detail"]


def test_rotation_keeps_the_old_key_for_a_while(tenant: Api) -> None:
    made = make(tenant)
    path = f"/v1/subscriptions/{made['id']}"
    rotated = tenant.post(f"{path}/rotate-secret", {"overlap": 60})
    keys = tenant.get(f"{path}/secret")["keys"]
    assert [key["secret"] for key in keys] == [rotated["signing"]["secret"], made["signing"]["secret"]]
    assert keys[0]["expires_at"] is None
    assert keys[1]["expires_at"] is not None
    tenant.post(f"{path}/rotate-secret", {"overlap": 0})
    assert len(tenant.get(f"{path}/secret")["keys"]) == 1
    assert tenant.post(f"{path}/rotate-secret", {"overlap": -1}, 422)["faults"][0]["field"] == "overlap"
    for _ in range(4):
        tenant.post(f"{path}/rotate-secret")
    assert tenant.post(f"{path}/rotate-secret", None, 409)["code"] == "conflict"
    unsigned = make(tenant, signing={"scheme": "none"})
    assert unsigned["signing"]["secret"] is None
    tenant.post(f"/v1/subscriptions/{unsigned['id']}/rotate-secret", None, 422)


# --- change ------------------------------------------------------------------------------------------------------


def test_a_change_is_a_merge_patch(tenant: Api) -> None:
    made = make(tenant, headers={"X-A": "1", "X-B": "2"}, rate_limit={"count": 5}, filter="data.a == 1")
    path = f"/v1/subscriptions/{made['id']}"
    changed = tenant.patch(
        path,
        {"headers": {"X-A": None, "X-C": "3"}, "retry": {"jitter": 0.5}, "rate_limit": None, "timeout": 7},
    )
    assert changed["headers"] == {"X-B": "2", "X-C": "3"}
    assert changed["retry"]["jitter"] == 0.5
    assert changed["retry"]["delays"] == made["retry"]["delays"]
    assert changed["rate_limit"] is None
    assert changed["filter"] == "data.a == 1"
    assert changed["timeout"]["total"] == 7
    assert changed["version"] == 2
    assert changed["signing"]["secret"] == MASK
    assert tenant.patch(path, {"filter": None})["filter"] is None


def test_what_was_read_can_be_sent_back(tenant: Api) -> None:
    auth = {"kind": "bearer", "secret": "token-1"}
    made = make(tenant, auth=auth, secret_headers={"X-T": "v"})
    path = f"/v1/subscriptions/{made['id']}"
    read = tenant.get(path)
    fields = (
        "url", "events", "name", "method", "headers", "secret_headers", "query", "auth", "profile", "retry",
        "client_certificate", "timeout", "rate_limit", "max_in_flight", "order", "filter", "breaker",
        "disable_after", "metadata",
    )  # fmt: skip
    same = tenant.patch(path, {name: read[name] for name in fields})
    assert same["version"] == 1
    found = tenant.run(tenant.services.storage.get_subscription(_no(tenant), made["id"]))
    secrets = tenant.services.subscriptions.secrets(found)
    assert secrets.auth.secret == "token-1"
    assert secrets.headers == {"X-T": "v"}


def test_a_client_certificate_keeps_its_key_to_itself(tenant: Api) -> None:
    leaf, other = (client_certificate(trustme.CA().issue_cert("shop")) for _ in range(2))
    pair = {"certificate": leaf.certificate, "key": leaf.key}
    secure = URL.replace("http:", "https:")
    made = make(tenant, url=secure, client_certificate=pair)
    path = f"/v1/subscriptions/{made['id']}"
    assert made["client_certificate"] == {"certificate": leaf.certificate, "key": MASK}
    read = tenant.call("GET", path)
    assert b"PRIVATE KEY" not in read.body
    same = tenant.patch(path, {"client_certificate": read.json["client_certificate"]})
    assert same["version"] == made["version"]
    found = tenant.run(tenant.services.storage.get_subscription(_no(tenant), made["id"]))
    assert tenant.services.subscriptions.secrets(found).client_certificate == leaf
    assert b"PRIVATE KEY" not in found.sealed
    for patch, place in (
        ({"url": URL}, "client_certificate"),
        ({"client_certificate": {"certificate": other.certificate}}, "client_certificate.key"),
        ({"client_certificate": {"key": 1}}, "client_certificate.key"),
        ({"client_certificate": {"passphrase": "x"}}, "client_certificate.passphrase"),
        ({"client_certificate": []}, "client_certificate"),
    ):
        problem = tenant.patch(path, patch, 422)
        assert [fault["field"] for fault in problem["faults"]] == [place]
    new = {"certificate": other.certificate, "key": other.key}
    assert tenant.patch(path, {"client_certificate": new})["client_certificate"] == new | {"key": MASK}
    assert tenant.patch(path, {"client_certificate": None})["client_certificate"] is None
    problem = tenant.post("/v1/subscriptions", {"url": secure, "client_certificate": {"key": leaf.key}}, 422)
    assert [fault["field"] for fault in problem["faults"]] == ["client_certificate.certificate"]


def _no(tenant: Api) -> int:
    found = tenant.run(tenant.services.storage.find_tenant(tenant.get("/v1/whoami")["tenant"]["id"]))
    assert found is not None
    return found.no


def test_another_kind_of_authentication_starts_from_nothing(tenant: Api) -> None:
    made = make(tenant, auth={"kind": "basic", "username": "u", "secret": "p"})
    path = f"/v1/subscriptions/{made['id']}"
    changed = tenant.patch(path, {"auth": {"kind": "bearer", "secret": "t"}})
    assert changed["auth"] == {"kind": "bearer", "secret": MASK}
    assert tenant.patch(path, {"auth": {"kind": "api_key"}}, 422)["faults"][0]["field"] == "auth.secret"
    assert tenant.patch(path, {"auth": None})["auth"] == {"kind": "none"}


def test_another_signature_scheme_gets_a_key_of_its_own(tenant: Api) -> None:
    made = make(tenant)
    changed = tenant.patch(f"/v1/subscriptions/{made['id']}", {"signing": {"scheme": "v1a"}})
    assert changed["signing"]["secret"].startswith("whsk_")


def test_versions_guard_against_lost_changes(tenant: Api) -> None:
    path = f"/v1/subscriptions/{make(tenant)['id']}"
    assert tenant.patch(path, {"name": "a", "version": 1})["version"] == 2
    assert tenant.patch(path, {"name": "b", "version": 1}, 409)["code"] == "conflict"
    answer = tenant.call("PATCH", path, {"name": "c"}, headers={"If-Match": '"2"'})
    assert (answer.status, answer.headers["etag"]) == (200, '"3"')
    assert tenant.call("PATCH", path, {"name": "d"}, headers={"If-Match": '"2"'}).status == 409
    assert tenant.call("PATCH", path, {"name": "d"}, headers={"If-Match": "x"}).status == 422


def test_a_change_that_breaks_a_rule_changes_nothing(tenant: Api) -> None:
    made = make(tenant)
    path = f"/v1/subscriptions/{made['id']}"
    assert tenant.patch(path, {"url": None, "nam": "x"}, 422)["faults"]
    assert tenant.patch(path, {"from": "beginning"}, 422)["faults"][0]["field"] == "from"
    assert tenant.get(path)["version"] == 1


# --- stop and start ------------------------------------------------------------------------------------------------


def test_a_reason_to_pause_is_a_text_that_can_be_kept(tenant: Api) -> None:
    path = f"/v1/subscriptions/{make(tenant)['id']}"
    answer = tenant.call("POST", f"{path}/pause", {"reason": "a\0b"})
    assert answer.status == 422
    assert answer.json["faults"] == [{"field": "reason", "message": "must not contain control characters"}]
    assert tenant.get(path)["enabled"] is True


def test_pause_and_resume(tenant: Api) -> None:
    path = f"/v1/subscriptions/{make(tenant)['id']}"
    paused = tenant.post(f"{path}/pause", {"reason": "maintenance"})
    assert (paused["state"], paused["state_reason"], paused["enabled"]) == ("paused", "maintenance", False)
    assert tenant.post(f"{path}/pause")["state_reason"] == "maintenance"
    assert tenant.post(f"{path}/resume")["state"] == "active"
    assert tenant.post(f"{path}/resume", {"from": "continue"})["state"] == "active"
    assert tenant.post(f"{path}/resume", {"from": "now"}, 409)["code"] == "conflict"
    assert tenant.patch(path, {"enabled": False})["state"] == "paused"
    assert tenant.patch(path, {"enabled": True})["state"] == "active"
    assert make(tenant, enabled=False)["state"] == "paused"


def test_resume_from_now_passes_over_what_waited(tenant: Api) -> None:
    made = make(tenant)
    path = f"/v1/subscriptions/{made['id']}"
    tenant.post("/v1/events", {"type": "a", "id": f"{made['id']}-1", "data": 1}, 202)
    found = tenant.run(tenant.services.storage.get_subscription(_no(tenant), made["id"]))
    position = tenant.get(f"/v1/events/{made['id']}-1")["position"]
    _record(tenant, found.shard, unsettled=[Unsettled(found.no, position, 1, 1, 10**13)])
    assert tenant.get(f"{path}/health")["waiting"] == 1
    tenant.post(f"{path}/pause")
    tenant.post(f"{path}/resume", {"from": "now"})
    assert tenant.get(f"{path}/health")["waiting"] == 0
    story = tenant.get(f"/v1/events/{made['id']}-1/deliveries")["data"][0]
    assert story["outcome"] == "expired"


def test_a_disabled_subscription_can_be_resumed(tenant: Api) -> None:
    made = make(tenant)
    no = _no(tenant)
    storage = tenant.services.storage
    found = tenant.run(storage.get_subscription(no, made["id"]))
    tenant.run(storage.set_subscription_state(found.no, SubscriptionState.DISABLED, "410 Gone", 1))
    path = f"/v1/subscriptions/{made['id']}"
    assert tenant.get(path)["state"] == "disabled"
    assert tenant.post(f"{path}/resume")["state"] == "active"


def test_deleting_ends_what_waited(tenant: Api) -> None:
    made = make(tenant)
    tenant.post("/v1/events", {"type": "a", "id": f"{made['id']}-1", "data": 1}, 202)
    found = tenant.run(tenant.services.storage.get_subscription(_no(tenant), made["id"]))
    position = tenant.get(f"/v1/events/{made['id']}-1")["position"]
    _record(tenant, found.shard, unsettled=[Unsettled(found.no, position, 1, 1, 10**13)])
    path = f"/v1/subscriptions/{made['id']}"
    answer = tenant.call("DELETE", path)
    assert (answer.status, answer.body) == (204, b"")
    assert tenant.get(path, 404)["code"] == "not_found"
    assert tenant.call("DELETE", path).status == 404
    story = tenant.get(f"/v1/events/{made['id']}-1/deliveries")["data"][0]
    assert story["delivery"]["state"] == DeliveryState.EXPIRED


def _record(api: Api, shard: int, **parts: Any) -> None:
    """Write outcomes as the delivery worker does."""

    async def write() -> None:
        storage = api.services.storage
        lease = await storage.lease(shard, "test", 0, 10**9)
        assert lease is not None
        head = await storage.head(shard)
        await storage.record(Record(shard, lease.epoch, api.services.clock.now(), head, **parts))

    api.run(write())


def test_a_backfill_begins_in_the_past(tenant: Api) -> None:
    tenant.post("/v1/events", {"type": "a", "id": "past", "data": 1}, 202)
    late, early = make(tenant), make(tenant, **{"from": "beginning"})
    timed = make(tenant, **{"from": "2026-01-01T00:00:00Z"})
    outcomes = {
        story["subscription"]: story["outcome"] for story in tenant.get("/v1/events/past/deliveries")["data"]
    }
    assert outcomes == {late["id"]: "before_start", early["id"]: "pending", timed["id"]: "pending"}
    assert tenant.post("/v1/subscriptions", {"url": URL, "from": "soon"}, 422)["faults"][0]["field"] == "from"


# --- try out -------------------------------------------------------------------------------------------------------


def test_a_test_send_reaches_the_endpoint_signed(tenant: Api) -> None:
    with receiving(tenant) as here:
        made = make(tenant, url=here.url(), secret_headers={"X-T": "v"})
        result = tenant.post(f"/v1/subscriptions/{made['id']}/test")
    request = here.requests[0]
    Webhook(made["signing"]["secret"]).verify(request.body, request.headers)
    assert request.headers["x-t"] == "v"
    assert result["accepted"] is True
    attempt = result["attempt"]
    assert attempt["status"] == 200
    assert attempt["response"]["body"] == "ok"
    assert attempt["address"] == f"127.0.0.1:{here.port}"
    assert attempt["timings"]["total_us"] > 0
    shown = dict(map(tuple, attempt["request"]["headers"]))
    assert (shown["X-T"], shown["webhook-signature"]) == (MASK, MASK)
    assert tenant.get("/v1/events")["data"] == []


def test_a_refused_test_send_is_an_answer_too(tenant: Api) -> None:
    with receiving(tenant, status(500, body=b"\xff")) as here:
        made = make(tenant, url=here.url())
        result = tenant.post(f"/v1/subscriptions/{made['id']}/test", {"data": {"a": 1.10}})
    assert result["accepted"] is False
    assert result["attempt"]["status"] == 500
    assert result["attempt"]["response"] | {"headers": []} == {
        "headers": [], "body": "/w==", "encoding": "base64", "truncated": False,
    }  # fmt: skip


def test_a_test_send_uses_the_example_of_a_type(tenant: Api) -> None:
    tenant.post("/v1/event-types", {"name": "order:created", "example": {"number": "4471"}}, 201)
    with receiving(tenant) as here:
        made = make(tenant, url=here.url())
        tenant.post(f"/v1/subscriptions/{made['id']}/test", {"type": "order:created"})
        tenant.post(f"/v1/subscriptions/{made['id']}/test", {"type": "no:such"}, 404)
        tenant.post(f"/v1/subscriptions/{made['id']}/test", {"type": "a b", "data": 1}, 422)
    assert b'"data":{"number": "4471"}' in here.requests[0].body


def test_a_test_send_to_a_closed_port(tenant: Api) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        made = make(tenant, url=f"http://127.0.0.1:{closed.getsockname()[1]}/")
        result = tenant.post(f"/v1/subscriptions/{made['id']}/test")
    assert (result["accepted"], result["attempt"]["error"]) == (False, "connect")


def test_a_test_send_with_oauth2(tenant: Api) -> None:
    auth = {"kind": "oauth2_client_credentials", "token_url": URL, "client_id": "c", "secret": "right"}
    with receiving(tenant) as here:
        made = make(tenant, url=here.url(), auth=auth)
        assert tenant.post(f"/v1/subscriptions/{made['id']}/test")["accepted"] is True
        assert here.requests[0].headers["authorization"] == "Bearer granted"
        tenant.patch(f"/v1/subscriptions/{made['id']}", {"auth": {"secret": "wrong"}})
        refused = tenant.post(f"/v1/subscriptions/{made['id']}/test")
    assert (refused["accepted"], refused["attempt"]["error"]) == (False, "auth")
    assert refused["attempt"]["detail"] == "invalid_client"
    assert len(here.requests) == 1


def test_a_preview_is_the_exact_request(tenant: Api) -> None:
    made = make(tenant, url=f"{URL}?a=1", query={"b": "2"}, filter="data.total > 5", headers={"X-A": "1"})
    path = f"/v1/subscriptions/{made['id']}/preview"
    tenant.post("/v1/events", {"type": "order:created", "id": "pre", "data": {"total": 6}}, 202)
    shown = tenant.post(path, {"id": "pre"})
    assert shown["matches"] is True
    assert shown["url"] == f"{URL}?a=1&b=2"
    assert ["X-A", "1"] in shown["request"]["headers"]
    assert '"data":{"total": 6}' in shown["request"]["body"]
    other = tenant.post(path, {"event": {"type": "order:created", "data": {"total": 5}}})
    assert other["matches"] is False
    assert [reason["passed"] for reason in other["reasons"]] == [True, False]
    for wrong in (
        {},
        {"id": "pre", "event": {"type": "a", "data": 1}},
        {"event": {"type": "a b", "data": 1}},
    ):
        tenant.post(path, wrong, 422)
    tenant.post(path, {"id": "no-such"}, 404)


def test_each_change_is_told_to_the_worker(tenant: Api) -> None:
    before = len(tenant.changes)
    path = f"/v1/subscriptions/{make(tenant)['id']}"
    tenant.post(f"{path}/pause")
    tenant.get(path)
    assert len(tenant.changes) == before + 2
