"""Publishing over HTTP: what is accepted, what comes back, and what hostile publishers get."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from hookline.api import Options
from hookline.core.errors import HooklineError, Overloaded, StorageUnavailable
from hookline.core.model import Appended, Millis, NewEvent
from hookline.ports import Storage
from hookline.storage.memory import MemoryStorage
from hookline.storage.sqlite import SqliteStorage
from tests.integration.apiserver import PATIENCE, Api, api_server


class Moody(MemoryStorage):
    """A memory store that refuses appends on request."""

    mood: HooklineError | None = None

    async def append(self, events: Sequence[NewEvent], now: Millis) -> list[Appended]:
        if self.mood is not None:
            raise self.mood
        return await super().append(events, now)


@pytest.fixture(scope="module", params=["memory", "sqlite"])
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    def make() -> Storage:
        if request.param == "memory":
            return MemoryStorage()
        return SqliteStorage(Path(tmp_path_factory.mktemp("api")) / "hookline.db")

    with api_server(make, Options(body_seconds=0.3, batch_bytes=3 << 20)) as running:
        yield running


@pytest.fixture(scope="module")
def tenant(api: Api) -> Api:
    return api.new_tenant("acme")


def refused(tenant: Api, raw: bytes, status: int, code: str, **headers: str) -> Any:
    answer = tenant.call("POST", "/v1/events", raw=raw, headers=headers)
    assert (answer.status, answer.json["code"]) == (status, code), answer.body
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"] == answer.json["request_id"]
    return answer.json


def test_an_event_is_stored_with_everything(tenant: Api) -> None:
    event = {
        "type": "order:created",
        "id": "full",
        "data": {"total": 1},
        "occurred_at": "2026-01-31T13:00:00.5+01:00",
        "object": {"type": "order", "id": "4471"},
        "key": "4471",
        "correlation_id": "c-1",
    }
    assert tenant.post("/v1/events", event, 202) == {"id": "full", "duplicate": False}
    found = tenant.get("/v1/events/full")
    assert found["occurred_at"] == "2026-01-31T12:00:00.500Z"
    assert found["object"] == {"type": "order", "id": "4471"}
    assert {name: found[name] for name in ("key", "correlation_id", "data", "type")} == {
        "key": "4471",
        "correlation_id": "c-1",
        "data": {"total": 1},
        "type": "order:created",
    }


def test_an_id_is_made_if_none_is_given(tenant: Api) -> None:
    made = tenant.post("/v1/events", {"type": "a", "data": None}, 202)
    assert made["id"].startswith("evt_")
    assert tenant.get(f"/v1/events/{made['id']}")["data"] is None


def test_the_same_event_again_is_a_duplicate_and_another_is_refused(tenant: Api) -> None:
    event = {"type": "a", "id": "again", "data": {"x": 1}}
    assert tenant.post("/v1/events", event, 202)["duplicate"] is False
    assert tenant.post("/v1/events", event, 202)["duplicate"] is True
    problem = tenant.post("/v1/events", event | {"data": {"x": 2}}, 409)
    assert problem["code"] == "event_id_conflict"


def test_the_payload_keeps_its_bytes(tenant: Api) -> None:
    data = b'{"total": 1.10, "big":123456789012345678901234567890 ,"u":"\\u00e9"}'
    tenant.call("POST", "/v1/events", raw=b'{"type":"a","id":"bytes","data":' + data + b"}")
    assert data in tenant.call("GET", "/v1/events/bytes").body


def test_the_request_id_is_the_callers_if_it_is_harmless(tenant: Api) -> None:
    body = b'{"type":"a","data":1}'
    ask = {"X-Request-Id": "trace-1"}
    assert tenant.call("POST", "/v1/events", raw=body, headers=ask).headers["x-request-id"] == "trace-1"
    made = tenant.call("POST", "/v1/events", raw=body, headers={"X-Request-Id": "a b"}).headers[
        "x-request-id"
    ]
    assert made.startswith("req_")


@pytest.mark.parametrize(
    ("raw", "status", "code"),
    [
        (b"", 400, "invalid_json"),
        (b"{", 400, "invalid_json"),
        (b"[]", 422, "invalid_input"),
        (b'{"type":"a","data":NaN}', 400, "invalid_json"),
        (b'{"type":"a","data":"\xff\xfe"}', 400, "invalid_json"),
        (b'{"type":"a","data":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "invalid_json"),
        (b'{"type":"a"}', 422, "invalid_input"),
        (b'{"type":"a","data":1,"dta":2}', 422, "invalid_input"),
        (b'{"type":"hookline.x","data":1}', 422, "invalid_input"),
        (b'{"type":"a b","data":1,"id":"a.b","occurred_at":"yesterday"}', 422, "invalid_input"),
        (b'{"type":"a","data":"' + b"x" * (1 << 20) + b'"}', 413, "too_large"),
    ],
)
def test_bad_events_are_refused_with_reasons(tenant: Api, raw: bytes, status: int, code: str) -> None:
    refused(tenant, raw, status, code)


def test_all_faults_of_an_event_are_named(tenant: Api) -> None:
    problem = refused(
        tenant, b'{"type":"a b","data":1,"id":"a.b","occurred_at":"yesterday"}', 422, "invalid_input"
    )
    assert {fault["field"] for fault in problem["faults"]} == {"type", "id", "occurred_at"}


def test_a_content_type_that_is_not_json_is_refused(tenant: Api) -> None:
    body = b'{"type":"a","data":1}'
    refused(tenant, body, 415, "unsupported_media_type", **{"Content-Type": "text/plain"})
    good = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert tenant.call("POST", "/v1/events", raw=body, headers=good).status == 202


def test_query_parameters_are_refused(tenant: Api) -> None:
    assert tenant.call("POST", "/v1/events?x=1", {"type": "a", "data": 1}).status == 422


def test_who_may_publish(api: Api, tenant: Api) -> None:
    event = {"type": "a", "data": 1}
    answer = api.as_key("").call("POST", "/v1/events", event)
    assert (answer.status, answer.headers["www-authenticate"]) == (401, 'Bearer realm="hookline"')
    for authorization in ("Bearer hk_wrong", "Basic eDp5", "Bearer", "Bearer "):
        wrong = tenant.as_key("").call("POST", "/v1/events", event, headers={"Authorization": authorization})
        assert wrong.json["code"] == "unauthorized"
    reader = tenant.post("/v1/keys", {"scopes": ["read"]}, 201)
    assert tenant.as_key(reader["secret"]).post("/v1/events", event, 403)["code"] == "forbidden"
    assert api.post("/v1/events", event, 422)["faults"][0]["field"] == "Hookline-Tenant"
    assert api.as_key(api.key, "acme").post("/v1/events", event, 202)["id"]
    assert (
        api.as_key(api.key, "nobody").post("/v1/events", event, 422)["faults"][0]["field"]
        == "Hookline-Tenant"
    )
    assert tenant.as_key(tenant.key, "other").post("/v1/events", event, 403)["code"] == "forbidden"


# --- raw sockets ---------------------------------------------------------------------------------------------


def exchange(api: Api, request: bytes) -> bytes:
    """Send bytes and read what comes back until the answer is whole."""
    with socket.create_connection(("127.0.0.1", api.port), timeout=PATIENCE) as sock:
        sock.sendall(request)
        received = b""
        while b"\r\n\r\n" not in received or not received.endswith((b"}", b"received.")):
            part = sock.recv(65536)
            if not part:
                break
            received += part
        return received


def head(tenant: Api, *lines: str) -> bytes:
    given = ["POST /v1/events HTTP/1.1", "Host: x", f"Authorization: Bearer {tenant.key}", *lines]
    return ("\r\n".join(given) + "\r\n\r\n").encode()


def test_a_length_over_the_limit_is_refused_before_the_body(tenant: Api) -> None:
    assert b"HTTP/1.1 413" in exchange(tenant, head(tenant, "Content-Length: 99999999"))


def test_an_endless_chunked_body_is_cut_off(tenant: Api) -> None:
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    request = head(tenant, "Transfer-Encoding: chunked") + chunk * 17
    assert b"HTTP/1.1 413" in exchange(tenant, request)


def test_a_body_that_does_not_arrive_is_given_up(tenant: Api) -> None:
    answer = exchange(tenant, head(tenant, "Content-Length: 100") + b'{"type"')
    assert b"408 Request Timeout" in answer
    assert b"request_timeout" in answer


def test_both_framings_at_once_are_refused(tenant: Api) -> None:
    answer = exchange(
        tenant,
        head(tenant, "Content-Length: 4", "Transfer-Encoding: chunked") + b"0\r\n\r\nGET /x HTTP/1.1\r\n\r\n",
    )
    assert answer.startswith(b"HTTP/1.1 400")


def test_a_publisher_that_hangs_up_leaves_no_trace(tenant: Api) -> None:
    with socket.create_connection(("127.0.0.1", tenant.port), timeout=PATIENCE) as sock:
        sock.sendall(head(tenant, "Content-Length: 100") + b'{"type"')
    assert tenant.get("/healthz")["status"] == "alive"


# --- batches ---------------------------------------------------------------------------------------------------


def test_a_batch_has_a_result_for_each_item(tenant: Api) -> None:
    items = [
        {"type": "a", "id": "b1", "data": 1},
        {"type": "a", "id": "b1", "data": 1},
        {"type": "a", "id": "b1", "data": 2},
        {"type": "a b", "data": 1},
        7,
        {"type": "a", "id": "b2", "data": 1},
    ]
    results = tenant.post("/v1/events/batch", items)["data"]
    assert [result["status"] for result in results] == [202, 202, 409, 422, 422, 202]
    assert results[0] == {"status": 202, "id": "b1", "duplicate": False}
    assert results[1]["duplicate"] is True
    assert results[2]["error"]["code"] == "event_id_conflict"
    assert results[3]["error"]["faults"][0]["field"] == "type"


def test_a_batch_as_ndjson_keeps_the_bytes(tenant: Api) -> None:
    raw = b'{"type":"a","id":"n1","data":{"t": 1.10}}\r\n\n{"type":"a","id":"n2","data":1}\n{oops\n'
    answer = tenant.call(
        "POST", "/v1/events/batch", raw=raw, headers={"Content-Type": "application/x-ndjson"}
    )
    assert [result["status"] for result in answer.json["data"]] == [202, 202, 400]
    assert b'{"t": 1.10}' in tenant.call("GET", "/v1/events/n1").body


def test_a_batch_array_keeps_the_bytes(tenant: Api) -> None:
    tenant.call("POST", "/v1/events/batch", raw=b'[{"type":"a","id":"n3","data":{"t": 1.10}}]')
    assert b'{"t": 1.10}' in tenant.call("GET", "/v1/events/n3").body


@pytest.mark.parametrize(
    ("raw", "status", "code"),
    [
        (b"{}", 422, "invalid_input"),
        (b"[", 400, "invalid_json"),
        (b"[1,\xff]", 400, "invalid_json"),
        (b"[" * 100_000, 400, "invalid_json"),
        (b"[" + b"1," * 1000 + b"1]", 413, "too_large"),
        (b'["' + b"x" * (3 << 20) + b'"]', 413, "too_large"),
    ],
)
def test_bad_batches_are_refused_whole(tenant: Api, raw: bytes, status: int, code: str) -> None:
    answer = tenant.call("POST", "/v1/events/batch", raw=raw)
    assert (answer.status, answer.json["code"]) == (status, code)


def test_an_empty_batch_is_no_fault(tenant: Api) -> None:
    assert tenant.post("/v1/events/batch", []) == {"data": []}


# --- trouble inside ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "retry_after"), [(Overloaded(), "1"), (StorageUnavailable("the disk is full"), "2")]
)
def test_trouble_of_the_storage_asks_to_come_back(error: HooklineError, retry_after: str) -> None:
    with api_server(Moody) as api:
        tenant = api.new_tenant("acme")
        storage = api.services.storage
        assert isinstance(storage, Moody)
        storage.mood = error
        answer = tenant.call("POST", "/v1/events", {"type": "a", "data": 1})
        assert (answer.status, answer.headers["retry-after"]) == (503, retry_after)
        assert answer.json["code"] == error.code
        results = tenant.post("/v1/events/batch", [{"type": "a", "data": 1}])["data"]
        assert results[0]["error"]["code"] == error.code


def test_a_crash_tells_the_request_id_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    with api_server(MemoryStorage) as api:
        tenant = api.new_tenant("acme")

        async def crash(*_: object) -> None:
            await asyncio.sleep(0)
            raise RuntimeError("the secret is 4711")

        monkeypatch.setattr(api.services.publisher, "publish", crash)
        monkeypatch.setattr(api.services.reader, "events", crash)
        for answer in (tenant.call("POST", "/v1/events", {}), tenant.call("GET", "/v1/events")):
            assert answer.status == 500
            assert answer.json["code"] == "internal_error"
            assert answer.json["request_id"]
            assert "4711" not in json.dumps(answer.json)
