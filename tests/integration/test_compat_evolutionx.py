"""The EvolutionX API over real HTTP: webhooks, the logs, the feature and its figures, and what hostile callers get."""

from __future__ import annotations

import json
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from hookline.api import Options
from hookline.core.ids import attempt_id
from hookline.core.model import Attempt, DeliveryState, LaneState, Retention, Settled, Subscription
from hookline.ports import Record, Storage
from hookline.storage.memory import MemoryStorage
from hookline.storage.sqlite import SqliteStorage
from tests.integration.apiserver import OPERATOR, Answer, Api, api_server

V1 = "/evolutionx/api/v1"
URL = "http://127.0.0.1:49151/evox/receive"
MASK = "•••"
DAY = 86_400_000
WEBHOOK: dict[str, Any] = {
    "description": "Orders to the ERP",
    "url": URL,
    "query_parameters": {"shop": "1", "ref": "a&b=c"},
    "headers": {"Authorization": "Bearer erp-token", "X-Firewall": "pass"},
    "events": ["order.created", "order.updated"],
    "include_object_record": True,
    "method": "POST",
    "enabled": True,
    "signature_key": "a key of our own",
}


@pytest.fixture(scope="module", params=["memory", "sqlite"])
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    def make() -> Storage:
        if request.param == "memory":
            return MemoryStorage()
        return SqliteStorage(Path(tmp_path_factory.mktemp("api")) / "hookline.db")

    with api_server(make, Options(retention=Retention(events=60, attempts=60, bodies=15))) as running:
        yield running


_tenants: dict[str, str] = {}
"""Ids by key."""


def new_shop(api: Api) -> Api:
    name = f"shop-{uuid4().hex}"
    made = api.new_tenant(name, profile="evolutionx")
    _tenants[made.key] = name
    return made


@pytest.fixture
def shop(api: Api) -> Api:
    """A tenant of its own for each test."""
    return new_shop(api)


def tenant_id(shop: Api) -> str:
    return _tenants[shop.key]


def key_with(api: Api, shop: Api, *scopes: str) -> Api:
    made = shop.post("/v1/keys", {"scopes": scopes}, 201)
    return api.as_key(made["secret"])


def create(shop: Api, **fields: object) -> Any:
    return shop.post(f"{V1}/webhooks", {"url": URL, "events": ["order.created"], **fields}, 201)


def fields_of(answer: Answer) -> list[str]:
    return [fault["field"] for fault in answer.json["error"]["fields"]]


def error_of(answer: Answer) -> Any:
    """The error, after a look at its form."""
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json) == ["error"]
    error = answer.json["error"]
    assert list(error) == ["type", "message", "fields", "request_id"]
    assert error["request_id"] == answer.headers["x-request-id"]
    return error


# --- webhooks -----------------------------------------------------------------------------------------------


def test_a_webhook_has_all_fields_of_the_form(shop: Api) -> None:
    before = int(time.time())
    answer = shop.call("POST", f"{V1}/webhooks", WEBHOOK)
    made = answer.json
    assert answer.status == 201
    assert answer.headers["location"] == f"{V1}/webhooks/{made['id']}"
    assert before <= made.pop("created_at") == made.pop("updated_at") <= time.time()
    assert made == {"id": made["id"], "status": "active", **WEBHOOK}
    read = shop.get(f"{V1}/webhooks/{made['id']}")
    assert {name: read[name] for name in WEBHOOK} == WEBHOOK


def test_it_is_one_subscription_of_the_profile(shop: Api) -> None:
    made = shop.post(f"{V1}/webhooks", WEBHOOK, 201)
    native = shop.get(f"/v1/subscriptions/{made['id']}")
    assert (native["profile"], native["name"], native["url"]) == ("evolutionx", "Orders to the ERP", URL)
    assert native["profile_options"] == {"include_object_record": True}
    assert native["signing"]["scheme"] == "evolutionx"
    assert (native["signing"]["timestamp_header"], native["signing"]["signature_header"]) == (
        "EVOX-TIME",
        "EVOX-SIGNATURE",
    )
    assert native["headers"] == {}
    assert native["secret_headers"] == dict.fromkeys(WEBHOOK["headers"], MASK)
    assert native["query"] == WEBHOOK["query_parameters"]
    assert native["disable_on_gone"] is False


def test_only_url_and_events_are_needed(shop: Api) -> None:
    made = create(shop, description=None)
    assert made["description"] == ""
    assert (made["query_parameters"], made["headers"]) == ({}, {})
    assert (made["method"], made["enabled"], made["include_object_record"]) == ("POST", True, False)
    assert len(made["signature_key"]) == 64


def test_several_events_and_several_webhooks_for_the_same_events(shop: Api) -> None:
    made = [
        create(shop, events=["order.created", "user.*"], description=str(number))["id"] for number in range(5)
    ]
    found = pages(shop, f"{V1}/webhooks?limit=2")
    assert [one["id"] for one in found] == made
    assert found[0]["events"] == ["order.created", "user.*"]


def test_a_webhook_can_be_made_switched_off(shop: Api) -> None:
    made = create(shop, enabled=False)
    assert (made["enabled"], made["status"]) == (False, "paused")
    changed = shop.patch(f"{V1}/webhooks/{made['id']}", {"enabled": True})
    assert (changed["enabled"], changed["status"]) == (True, "active")
    changed = shop.patch(f"{V1}/webhooks/{made['id']}", {"enabled": False})
    assert (changed["enabled"], changed["status"]) == (False, "paused")


def test_a_change_leaves_what_it_does_not_name(shop: Api) -> None:
    made = shop.post(f"{V1}/webhooks", WEBHOOK, 201)
    patch = {
        "description": "Other",
        "query_parameters": {"shop": None, "new": "x"},
        "headers": {"X-Firewall": None, "X-More": "yes"},
        "include_object_record": None,
        "method": "GET",
    }
    changed = shop.patch(f"{V1}/webhooks/{made['id']}", patch)
    assert {name: changed[name] for name in WEBHOOK} == {
        **WEBHOOK,
        "description": "Other",
        "query_parameters": {"ref": "a&b=c", "new": "x"},
        "headers": {"Authorization": "Bearer erp-token", "X-More": "yes"},
        "include_object_record": False,
        "method": "GET",
    }


def test_changes_at_the_same_time_do_not_undo_each_other(shop: Api) -> None:
    made = create(shop)["id"]

    def change(number: int) -> int:
        caller = shop.as_key(shop.key)
        return caller.call("PATCH", f"{V1}/webhooks/{made}", {"headers": {f"X-{number}": "1"}}).status

    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(change, range(3))) == [200] * 3
    assert sorted(shop.get(f"{V1}/webhooks/{made}")["headers"]) == ["X-0", "X-1", "X-2"]


def test_the_names_of_headers_have_no_case(shop: Api) -> None:
    path = f"{V1}/webhooks/{shop.post(f'{V1}/webhooks', WEBHOOK, 201)['id']}"
    changed = shop.patch(path, {"headers": {"AUTHORIZATION": MASK, "x-firewall": None}})
    assert changed["headers"] == {"AUTHORIZATION": "Bearer erp-token"}
    changed = shop.patch(path, {"headers": {"authorization": "Bearer new"}})
    assert changed["headers"] == {"authorization": "Bearer new"}


def test_headers_can_be_taken_away_altogether(shop: Api) -> None:
    made = shop.post(f"{V1}/webhooks", WEBHOOK, 201)
    changed = shop.patch(f"{V1}/webhooks/{made['id']}", {"headers": None, "query_parameters": None})
    assert (changed["headers"], changed["query_parameters"]) == ({}, {})


def test_a_replacement_puts_the_rest_back_to_its_default_but_keeps_the_key(shop: Api) -> None:
    made = shop.post(f"{V1}/webhooks", {**WEBHOOK, "enabled": False}, 201)
    whole = {
        "url": URL,
        "events": ["user.updated"],
        "headers": {"X-Firewall": "2"},
        "query_parameters": {"b": "2"},
    }
    answer = shop.call("PUT", f"{V1}/webhooks/{made['id']}", whole)
    assert answer.status == 200
    assert {name: answer.json[name] for name in WEBHOOK} == {
        **whole,
        "description": "",
        "include_object_record": False,
        "method": "POST",
        "enabled": True,
        "signature_key": "a key of our own",
    }
    bare = shop.call("PUT", f"{V1}/webhooks/{made['id']}", {"url": URL, "events": ["user.updated"]}).json
    assert (bare["headers"], bare["query_parameters"]) == ({}, {})


def test_headers_that_the_native_api_set_are_shown_and_can_be_changed(shop: Api) -> None:
    native = shop.post(
        "/v1/subscriptions",
        {
            "url": URL,
            "events": ["order.created"],
            "headers": {"X-Plain": "1"},
            "secret_headers": {"X-Secret": "2"},
        },
        201,
    )
    found = shop.get(f"{V1}/webhooks/{native['id']}")
    assert found["headers"] == {"X-Plain": "1", "X-Secret": "2"}
    changed = shop.patch(f"{V1}/webhooks/{native['id']}", {"headers": {"X-Plain": "3"}})
    assert changed["headers"] == {"X-Plain": "3", "X-Secret": "2"}


def test_deleting(shop: Api) -> None:
    made = create(shop)
    answer = shop.call("DELETE", f"{V1}/webhooks/{made['id']}")
    assert (answer.status, answer.body) == (204, b"")
    assert shop.call("GET", f"{V1}/webhooks/{made['id']}").status == 404
    assert shop.call("DELETE", f"{V1}/webhooks/{made['id']}").status == 404
    assert pages(shop, f"{V1}/webhooks") == []


def test_only_webhooks_of_this_platform_and_tenant_are_seen(api: Api, shop: Api) -> None:
    whole = {"url": URL, "events": ["a"]}
    calls = [("GET", "", None), ("PATCH", "", whole), ("PUT", "", whole), ("DELETE", "", None),
             ("POST", "/rotate-key", None), ("GET", "/requests", None)]  # fmt: skip
    own, stranger = create(shop)["id"], new_shop(api)
    foreign = [
        shop.post("/v1/subscriptions", {**whole, "profile": profile}, 201)["id"]
        for profile in ("standard", "shipstream")
    ]
    for caller, webhook in ((shop, foreign[0]), (shop, foreign[1]), (stranger, own)):
        for method, path, body in calls:
            answer = caller.call(method, f"{V1}/webhooks/{webhook}{path}", body)
            assert (answer.status, error_of(answer)["type"]) == (404, "not_found"), (method, path)
    assert [one["id"] for one in pages(shop, f"{V1}/webhooks")] == [own]
    assert pages(stranger, f"{V1}/webhooks") == []


def test_an_operator_names_the_account(api: Api, shop: Api) -> None:
    made = create(shop)
    operator = api.as_key(OPERATOR, tenant_id(shop))
    assert operator.get(f"{V1}/webhooks/{made['id']}")["signature_key"] == made["signature_key"]
    assert fields_of(api.as_key(OPERATOR).call("GET", f"{V1}/webhooks")) == ["Hookline-Tenant"]


# --- keys and scopes --------------------------------------------------------------------------------------


def test_the_key_is_shown_to_those_who_may_edit_and_masked_for_those_who_only_read(
    api: Api, shop: Api
) -> None:
    made = shop.post(f"{V1}/webhooks", WEBHOOK, 201)
    manager, reader = key_with(api, shop, "manage"), key_with(api, shop, "read")
    assert manager.get(f"{V1}/webhooks/{made['id']}")["signature_key"] == "a key of our own"
    read = reader.get(f"{V1}/webhooks/{made['id']}")
    assert read["signature_key"] == MASK
    assert read["headers"] == dict.fromkeys(WEBHOOK["headers"], MASK)
    assert reader.get(f"{V1}/webhooks")["data"] == [read]


def test_masks_that_come_back_keep_what_they_stand_for(api: Api, shop: Api) -> None:
    made = shop.post(f"{V1}/webhooks", WEBHOOK, 201)
    editor = key_with(api, shop, "subscriptions:read", "subscriptions:update")
    read = editor.get(f"{V1}/webhooks/{made['id']}")
    assert read["signature_key"] == MASK
    sent = {name: read[name] for name in WEBHOOK}
    for method in ("PATCH", "PUT"):
        answer = editor.call(method, f"{V1}/webhooks/{made['id']}", {**sent, "description": method})
        assert (answer.status, answer.json["signature_key"]) == (200, MASK)
        now = shop.get(f"{V1}/webhooks/{made['id']}")
        assert {name: now[name] for name in WEBHOOK} == {**WEBHOOK, "description": method}


def test_a_new_key_is_shown_to_who_made_it_and_the_headers_stay_masked(api: Api, shop: Api) -> None:
    made = shop.post(f"{V1}/webhooks", WEBHOOK, 201)
    editor = key_with(api, shop, "subscriptions:create", "subscriptions:update")
    path, masked = f"{V1}/webhooks/{made['id']}", dict.fromkeys(WEBHOOK["headers"], MASK)
    for shown in (
        editor.post(f"{path}/rotate-key", {"signature_key": "new"}),
        editor.patch(path, {"signature_key": "newer"}),
        editor.post(f"{V1}/webhooks", WEBHOOK, 201),
    ):
        assert (shown["signature_key"] != MASK, shown["headers"]) == (True, masked)


def test_what_was_read_can_be_sent_back(shop: Api) -> None:
    made = shop.post(f"{V1}/webhooks", WEBHOOK, 201)
    path = f"{V1}/webhooks/{made['id']}"
    shop.patch(f"/v1/subscriptions/{made['id']}", {"method": "PUT"})
    for method in ("PATCH", "PUT"):
        before = shop.get(f"/v1/subscriptions/{made['id']}")
        read = shop.get(path)
        answer = shop.call(method, path, {**read, "created_at": 1, "updated_at": 1})
        assert (answer.status, answer.json) == (200, read)
        assert shop.get(f"/v1/subscriptions/{made['id']}") == before
    answer = shop.call("PUT", path, {**shop.get(path), "enabled": False})
    assert (answer.status, answer.json["status"], answer.json["method"]) == (200, "paused", "PUT")


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_what_the_server_sets_cannot_be_changed(shop: Api, method: str) -> None:
    made = create(shop)
    answer = shop.call(method, f"{V1}/webhooks/{made['id']}", {**made, "id": "sub_1", "status": "paused"})
    assert (answer.status, fields_of(answer)) == (422, ["id", "status"])
    assert fields_of(shop.call("POST", f"{V1}/webhooks", made)) == [
        "id",
        "status",
        "created_at",
        "updated_at",
    ]


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_a_mask_stands_for_nothing_but_secrets(shop: Api, method: str) -> None:
    made = create(shop)
    path, whole = f"{V1}/webhooks/{made['id']}", {"url": URL, "events": ["order.created"]}
    answer = shop.call(method, path, {**whole, "description": MASK})
    assert (answer.status, answer.json["description"]) == (200, MASK)
    assert fields_of(shop.call(method, path, {**whole, "url": MASK, "headers": MASK})) == ["headers", "url"]


def test_switching_off_counts_as_a_change(shop: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    made = create(shop)
    clock, later = shop.services.clock, shop.services.clock.now() + 5000
    monkeypatch.setattr(type(clock), "now", lambda _: later)
    changed = shop.patch(f"{V1}/webhooks/{made['id']}", {"enabled": False})
    assert changed["updated_at"] == later // 1000 > made["updated_at"]


def test_a_mail_address_is_no_url(shop: Api) -> None:
    whole = {"url": "mailto:shop@example.com", "events": ["order.created"]}
    faults = error_of(shop.call("POST", f"{V1}/webhooks", whole))["fields"]
    assert faults == [{"field": "url", "message": "must be an https:// URL"}]


def test_rotating_takes_a_new_key_at_once(shop: Api) -> None:
    made = create(shop)
    path = f"{V1}/webhooks/{made['id']}"
    keys = {made["signature_key"]} | {shop.post(f"{path}/rotate-key")["signature_key"] for _ in range(7)}
    assert len(keys) == 8
    assert shop.get(path)["signature_key"] in keys
    assert len(shop.get(f"/v1/subscriptions/{made['id']}/secret")["keys"]) == 1
    assert shop.post(f"{path}/rotate-key", {"signature_key": "mine"})["signature_key"] == "mine"
    assert shop.patch(path, {"signature_key": "changed"})["signature_key"] == "changed"


@pytest.mark.parametrize("key", ["", MASK, "x" * 257, "line\nbreak", 5])
def test_rotating_refuses_what_is_no_key(shop: Api, key: object) -> None:
    made = create(shop)
    answer = shop.call("POST", f"{V1}/webhooks/{made['id']}/rotate-key", {"signature_key": key})
    assert (answer.status, fields_of(answer)) == (422, ["signature_key"])
    assert shop.get(f"{V1}/webhooks/{made['id']}")["signature_key"] == made["signature_key"]


OPERATIONS = {
    ("GET", "/webhooks"): "subscriptions:read",
    ("GET", "/webhooks/{id}"): "subscriptions:read",
    ("POST", "/webhooks"): "subscriptions:create",
    ("PATCH", "/webhooks/{id}"): "subscriptions:update",
    ("PUT", "/webhooks/{id}"): "subscriptions:update",
    ("POST", "/webhooks/{id}/rotate-key"): "subscriptions:update",
    ("DELETE", "/webhooks/{id}"): "subscriptions:delete",
    ("GET", "/webhooks/{id}/requests"): "read",
    ("GET", "/events"): "read",
    ("GET", "/events/evt_1"): "read",
    ("GET", "/events/evt_1/related"): "read",
    ("GET", "/events/evt_1/requests"): "read",
    ("GET", "/requests/att_1-1-1"): "read",
    ("GET", "/requests/att_1-1-1/payload"): "read",
    ("GET", "/usage"): "read",
    ("GET", "/feature"): "subscriptions:read",
}


@pytest.mark.parametrize("scope", sorted({*OPERATIONS.values(), "publish", "manage"}))
def test_each_operation_needs_its_scope(api: Api, shop: Api, scope: str) -> None:
    made = create(shop)
    caller = key_with(api, shop, scope)
    covered = {"manage": set(OPERATIONS.values()), "read": {"read", "subscriptions:read"}}.get(scope, {scope})
    for (method, path), needed in OPERATIONS.items():
        answer = caller.call(method, V1 + path.format(id=made["id"]))
        assert (answer.status == 403) is (needed not in covered), (method, path, answer.body)
        if answer.status == 403:
            assert error_of(answer)["type"] == "forbidden"
            assert needed in error_of(answer)["message"]


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer wrong", "Basic abc", "Bearer " + "x" * 5000])
def test_unknown_callers_are_told_to_show_a_key(api: Api, authorization: str) -> None:
    answer = api.as_key("").call("GET", f"{V1}/webhooks", headers={"Authorization": authorization})
    assert (answer.status, error_of(answer)["type"]) == (401, "unauthorized")
    assert answer.headers["www-authenticate"] == 'Bearer realm="evolutionx"'


def test_a_key_of_another_account_is_refused(api: Api, shop: Api) -> None:
    stranger = new_shop(api)
    answer = api.as_key(stranger.key, tenant_id(shop)).call("GET", f"{V1}/webhooks")
    assert (answer.status, error_of(answer)["type"]) == (403, "forbidden")


# --- what hostile callers get -----------------------------------------------------------------------------


def test_everything_that_is_wrong_is_named_at_once(shop: Api) -> None:
    wrong = {
        "description": "x\x00",
        "url": "ftp://127.0.0.1/",
        "query_parameters": {"": "x", "ok": 5},
        "headers": {"Host": "evil", "X-Bad": "a\r\nInjected: 1", "EVOX-SIGNATURE": "forged"},
        "events": ["order.created", "two words", 7],
        "include_object_record": "yes",
        "method": "PUT",
        "enabled": 1,
        "signature_key": "",
        "taget": URL,
    }
    answer = shop.call("POST", f"{V1}/webhooks", wrong)
    assert answer.status == 422
    assert error_of(answer)["type"] == "invalid_input"
    assert {
        "description", "url", "query_parameters.ok", "headers.Host", "headers.X-Bad", "headers.EVOX-SIGNATURE",
        "events[2]", "include_object_record", "method", "enabled", "signature_key", "taget",
    } <= set(fields_of(answer))  # fmt: skip
    assert all(fault["message"] for fault in answer.json["error"]["fields"])
    assert pages(shop, f"{V1}/webhooks") == []


WRONG: dict[str, tuple[object, list[str]]] = {
    "nothing": ({}, ["url", "events"]),
    "no events": ({"url": URL}, ["events"]),
    "no events in the list": ({"url": URL, "events": []}, ["events"]),
    "events as a text": ({"url": URL, "events": "order.created"}, ["events"]),
    "events null": ({"url": URL, "events": None}, ["events"]),
    "too many events": ({"url": URL, "events": [f"e{n}" for n in range(201)]}, ["events"]),
    "a wildcard inside": ({"url": URL, "events": ["order.*.x"]}, ["events[0]"]),
    "url no text": ({"url": {"a": 1}, "events": ["a"]}, ["url"]),
    "url with credentials": ({"url": "https://a:b@example.com/", "events": ["a"]}, ["url"]),
    "url to the inside": ({"url": "http://10.0.0.1/", "events": ["a"]}, ["url"]),
    "url with a fragment": ({"url": f"{URL}#x", "events": ["a"]}, ["url"]),
    "headers as a list": ({"url": URL, "events": ["a"], "headers": ["a: b"]}, ["headers"]),
    "a header no text": ({"url": URL, "events": ["a"], "headers": {"X-A": ["b"]}}, ["headers.X-A"]),
    "a header twice": ({"url": URL, "events": ["a"], "headers": {"X-A": "1", "x-a": "2"}}, ["headers.x-a"]),
    "a header of ours": ({"url": URL, "events": ["a"], "headers": {"evox-time": "1"}}, ["headers.evox-time"]),
    "a mask as a header": ({"url": URL, "events": ["a"], "headers": {"X-A": MASK}}, ["headers.X-A"]),
    "a mask as the key": ({"url": URL, "events": ["a"], "signature_key": MASK}, ["signature_key"]),
    "a number as the key": ({"url": URL, "events": ["a"], "signature_key": 5}, ["signature_key"]),
    "query as a text": ({"url": URL, "events": ["a"], "query_parameters": "a=b"}, ["query_parameters"]),
    "record as a number": ({"url": URL, "events": ["a"], "include_object_record": 1}, ["include_object_record"]),
    "method in lower case": ({"url": URL, "events": ["a"], "method": "post"}, ["method"]),
    "method as a list": ({"url": URL, "events": ["a"], "method": ["POST"]}, ["method"]),
    "enabled as a text": ({"url": URL, "events": ["a"], "enabled": "true"}, ["enabled"]),
    "a long description": ({"url": URL, "events": ["a"], "description": "x" * 201}, ["description"]),
    "names of the engine": ({"url": URL, "events": ["a"], "name": "x", "retry": {}}, ["name", "retry"]),
    "names with dots": ({"url": URL, "events": ["a"], "a.b[0]": 1, "?0": 2, "": 3}, ["a.b[0]", "?0", ""]),
    "a list": ([], [""]),
    "a text": ("webhook", [""]),
    "null": (None, [""]),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_each_fault_is_named_with_its_field(shop: Api, case: str) -> None:
    given, expected = WRONG[case]
    answer = shop.call("POST", f"{V1}/webhooks", raw=json.dumps(given).encode())
    assert (answer.status, fields_of(answer)) == (422, expected)
    assert error_of(answer)["type"] == "invalid_input"


@pytest.mark.parametrize(
    ("patch", "expected"),
    [
        ({"events": None}, "events"),
        ({"events": []}, "events"),
        ({"url": None}, "url"),
        ({"url": "nothing"}, "url"),
        ({"headers": {"X-A": 5}}, "headers.X-A"),
        ({"headers": "X-A: 5"}, "headers"),
        ({"query_parameters": [1]}, "query_parameters"),
        ({"method": "DELETE"}, "method"),
        ({"include_object_record": "no"}, "include_object_record"),
        ({"signature_key": "x\n"}, "signature_key"),
        ({"profile": "standard"}, "profile"),
        ({"enabled": None}, "enabled"),
    ],
)
@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_a_wrong_change_changes_nothing(
    shop: Api, method: str, patch: Mapping[str, object], expected: str
) -> None:
    made = shop.post(f"{V1}/webhooks", WEBHOOK, 201)
    base = {} if method == "PATCH" else {name: WEBHOOK[name] for name in ("url", "events")}
    answer = shop.call(method, f"{V1}/webhooks/{made['id']}", {**base, **patch})
    assert (answer.status, fields_of(answer)) == (422, [expected])
    assert shop.get(f"{V1}/webhooks/{made['id']}") == made


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b'{"url": NaN}', b'{"url":1,"url":2}', b"\xff", b"url=x", b"[" * 100_000, b'"\\ud800"'],
)
def test_what_is_no_json_is_refused(shop: Api, body: bytes) -> None:
    answer = shop.call("POST", f"{V1}/webhooks", raw=body)
    assert (answer.status, error_of(answer)["type"]) == (400, "invalid_json")


def test_a_body_with_very_many_unknown_names_is_answered_soon(shop: Api) -> None:
    started = time.process_time()
    answer = shop.call("POST", f"{V1}/webhooks", {f"name{number}": number for number in range(50_000)})
    assert answer.status == 422
    assert 2 < len(fields_of(answer)) < 100
    assert time.process_time() - started < 5
    assert shop.call("POST", f"{V1}/webhooks", {"description": "x" * (1 << 20)}).status == 413


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "TRACE"])
def test_there_is_nothing_at_other_paths(shop: Api, method: str) -> None:
    for path in (
        "/evolutionx",
        "/evolutionx/",
        f"{V1}/",
        f"{V1}/webhook",
        f"{V1}/webhooks//",
        f"{V1}/webhooks/a/b",
    ):
        answer = shop.call(method, path)
        assert (answer.status, error_of(answer)["type"]) == (404, "not_found")


def test_a_wrong_method_names_the_right_ones(shop: Api) -> None:
    answer = shop.call("DELETE", f"{V1}/events")
    assert (answer.status, error_of(answer)["type"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "GET"
    assert shop.call("POST", f"{V1}/webhooks/x").headers["allow"] == "DELETE, GET, PATCH, PUT"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("limit=0", ["limit"]),
        ("limit=201", ["limit"]),
        ("limit=x", ["limit"]),
        ("from=yesterday", ["from"]),
        ("from=-1", ["from"]),
        ("to=99999999999999999999", ["to"]),
        ("from=2026-01-01", ["from"]),
        ("cursor=bogus", ["cursor"]),
        ("cursor=WyJ3ZWJob29rcyIsMV0", ["cursor"]),
        ("object_id=5", ["object_type"]),
        ("type=x&evnt_type=y", ["type", "evnt_type"]),
        ("event_type=a&event_type=b", ["event_type"]),
        ("limit=0&from=x&to=y&z=1", ["z", "limit", "from", "to"]),
    ],
)
def test_wrong_parameters_are_named(shop: Api, query: str, expected: list[str]) -> None:
    answer = shop.call("GET", f"{V1}/events?{query}")
    assert (answer.status, sorted(fields_of(answer))) == (422, sorted(expected))


@pytest.mark.parametrize("path", ["/webhooks", "/usage", "/feature", "/events/evt_1", "/requests/att_1-1-1"])
def test_no_list_takes_parameters_it_does_not_know(shop: Api, path: str) -> None:
    assert fields_of(shop.call("GET", f"{V1}{path}?secret=1")) == ["secret"]


@pytest.mark.parametrize("query", ["a=%ff", "&".join(["a=1"] * 200), "a=" + "x" * 9000])
def test_query_strings_that_cannot_be_read(shop: Api, query: str) -> None:
    answer = shop.call("GET", f"{V1}/webhooks?{query}")
    assert (answer.status, error_of(answer)["type"]) == (422, "invalid_input")


HOSTILE_IDS = [
    "x",
    "att_",
    "att_1-1-1-1",
    "att_zzzzzzzzzzzz-1-1",
    "att_1-1-zzzzzzzzzzzz",
    "%00",
    "a%0d%0ab",
    "'%20OR%201=1",
    "é",
]


@pytest.mark.parametrize("text", HOSTILE_IDS)
def test_ids_that_name_nothing(shop: Api, text: str) -> None:
    for path in ("/webhooks/{}", "/webhooks/{}/requests", "/events/{}", "/events/{}/related", "/events/{}/requests",
                 "/requests/{}", "/requests/{}/payload"):  # fmt: skip
        answer = shop.call("GET", V1 + path.format(text))
        assert (answer.status, error_of(answer)["type"]) == (404, "not_found"), path


# --- the logs -----------------------------------------------------------------------------------------------


def pages(shop: Api, path: str) -> list[Any]:
    """All entries of a list, page by page."""
    entries: list[Any] = []
    cursor: str | None = ""
    joint = "&" if "?" in path else "?"
    while cursor is not None:
        answer = shop.get(f"{path}{joint}cursor={cursor}")
        entries += answer["data"]
        cursor = answer["next"]
    return entries


class Log:
    """Events of one shop, and attempts as the worker records them."""

    def __init__(self, api: Api, shop: Api) -> None:
        self.api, self.shop = api, shop
        self.positions: dict[str, int] = {}

    def publish(self, event_id: str, **fields: object) -> None:
        self.shop.post("/v1/events", {"id": event_id, "type": "order.created", "data": {}, **fields}, 202)
        self.positions[event_id] = self.shop.get(f"/v1/events/{event_id}")["position"]

    def record(self, webhook: str, event: str, *attempts: Mapping[str, Any]) -> list[str]:
        """Record the delivery of an event with these attempts; returns their ids."""
        return self.api.run(self._record(webhook, self.positions[event], attempts))

    async def _record(self, webhook: str, position: int, given: tuple[Mapping[str, Any], ...]) -> list[str]:
        storage, now = self.api.services.storage, self.api.services.clock.now()
        tenant = await storage.find_tenant(tenant_id(self.shop))
        assert tenant is not None
        found = await storage.get_subscription(tenant.no, webhook)
        lease = await storage.lease(found.shard, "test", now, 3600)
        assert lease is not None
        made = [self._attempt(found, position, number, now, each) for number, each in enumerate(given, 1)]
        state = DeliveryState.SUCCEEDED if made else DeliveryState.EXPIRED
        settled = Settled(found.no, position, position, state, len(made), now, 200, "")
        lane = LaneState(found.no, position, position, live=False)
        await storage.record(
            Record(found.shard, lease.epoch, now, 0, attempts=made, settled=[settled], lanes=[lane])
        )
        return [attempt_id(found.no, position, attempt.number) for attempt in made]

    @staticmethod
    def _attempt(
        found: Subscription, position: int, number: int, now: int, given: Mapping[str, Any]
    ) -> Attempt:
        definition = found.definition
        fields: dict[str, Any] = {
            "started_at": now, "method": definition.method, "url": f"{definition.url}?shop=1", "status": 200,
            "error": "", "response_body": b'{"ok": true}', "response_truncated": False,
        } | dict(given)  # fmt: skip
        return Attempt(
            subscription_no=found.no, position=position, number=number, version=found.version, detail="",
            address="127.0.0.1:49151", dns_us=1, connect_us=2, tls_us=3, first_byte_us=4, total_us=5_250,
            request_headers="Content-Type: application/json", request_bytes=10, response_headers=b"", **fields,
        )  # fmt: skip


@pytest.fixture
def log(api: Api, shop: Api) -> Log:
    return Log(api, shop)


def test_an_event_has_what_the_event_log_states(log: Log) -> None:
    before = int(time.time())
    log.publish(
        "evt_one",
        occurred_at="2026-01-31T12:00:00.900Z",
        object={"type": "order", "id": "1000"},
        source={"application": "storefront", "user_id": "1000"},
    )
    entry = log.shop.get(f"{V1}/events/evt_one")
    assert before <= entry.pop("received_at") <= time.time()
    assert entry == {
        "event_id": "evt_one",
        "event_type": "order.created",
        "object_type": "order",
        "object_id": "1000",
        "event_time": 1_769_860_800,
        "source_user_type": "storefront",
        "source_user_id": "1000",
    }
    assert [one["event_id"] for one in pages(log.shop, f"{V1}/events")] == ["evt_one"]


def test_an_event_without_object_and_source_has_nulls(log: Log) -> None:
    log.publish("evt_bare")
    entry = log.shop.get(f"{V1}/events/evt_bare")
    names = ("object_type", "object_id", "source_user_type", "source_user_id")
    assert [entry[name] for name in names] == [None] * 4


def test_the_event_log_is_filtered_and_paged_newest_first(log: Log) -> None:
    for number in range(12):
        log.publish(
            f"evt_{number}",
            type=("order.created", "user.updated")[number % 2],
            object={"type": ("order", "user")[number % 2], "id": str(number // 4)},
        )

    def ids(query: str = "") -> list[str]:
        return [one["event_id"] for one in pages(log.shop, f"{V1}/events?limit=5{query}")]

    everything = [f"evt_{number}" for number in reversed(range(12))]
    assert ids() == everything
    assert ids("&event_type=user.updated") == everything[::2]
    assert ids("&object_type=order") == everything[1::2]
    assert ids("&object_type=order&object_id=1") == ["evt_6", "evt_4"]
    assert ids("&object_type=order&object_id=1&event_type=user.updated") == []
    now = int(time.time())
    assert ids(f"&from={now - 600}&to={now + 600}") == everything
    assert ids(f"&from={now + 600}") == ids(f"&to={now - 600}") == []


def test_related_events_share_the_object_or_the_action(log: Log) -> None:
    log.publish("evt_a", object={"type": "user", "id": "7"}, correlation_id="act-1", type="user.updated")
    log.publish(
        "evt_b", object={"type": "newsletter", "id": "9"}, correlation_id="act-1", type="user.subscribed"
    )
    log.publish("evt_c", object={"type": "user", "id": "7"}, correlation_id="act-2", type="user.updated")
    log.publish("evt_d", object={"type": "user", "id": "8"}, correlation_id="act-3", type="user.updated")
    related = [one["event_id"] for one in pages(log.shop, f"{V1}/events/evt_a/related?limit=1")]
    assert related == ["evt_c", "evt_b"]
    assert pages(log.shop, f"{V1}/events/evt_d/related") == []


def test_a_request_has_what_the_header_log_states(log: Log) -> None:
    made = create(log.shop, query_parameters={"shop": "1"})
    log.publish("evt_one")
    (request,) = log.record(made["id"], "evt_one", {"started_at": 1_769_860_800_999})
    expected = {
        "request_id": request,
        "webhook_id": made["id"],
        "event_id": "evt_one",
        "attempt": 1,
        "request_time": 1_769_860_800,
        "request_method": "POST",
        "request_uri": "127.0.0.1:49151/evox/receive",
        "response_status": 200,
        "response_time_ms": 5.25,
        "error": None,
    }
    assert log.shop.get(f"{V1}/requests/{request}") == expected
    assert pages(log.shop, f"{V1}/webhooks/{made['id']}/requests") == [expected]
    assert pages(log.shop, f"{V1}/events/evt_one/requests") == [expected]


def test_a_request_without_an_answer_says_why(log: Log) -> None:
    made = create(log.shop)
    log.publish("evt_one")
    (request,) = log.record(made["id"], "evt_one", {"status": 0, "error": "timeout", "response_body": b""})
    entry = log.shop.get(f"{V1}/requests/{request}")
    assert (entry["response_status"], entry["error"]) == (None, "timeout")
    payload = log.shop.get(f"{V1}/requests/{request}/payload")
    assert (payload["response_json"], payload["response_text"]) == (None, None)


def test_the_request_log_is_paged_newest_first(log: Log) -> None:
    one, two = create(log.shop)["id"], create(log.shop)["id"]
    wanted: list[str] = []
    for number in range(9):
        log.publish(f"evt_{number}")
        attempts = [{"status": 500}] * (number % 4)
        wanted = log.record(one, f"evt_{number}", *attempts)[::-1] + wanted
        log.record(two, f"evt_{number}", {}, {})
    for limit in (1, 2, 3, 200):
        found = pages(log.shop, f"{V1}/webhooks/{one}/requests?limit={limit}")
        assert [entry["request_id"] for entry in found] == wanted
    both = [
        [entry["webhook_id"], entry["attempt"]]
        for entry in pages(log.shop, f"{V1}/events/evt_3/requests?limit=1")
    ]
    assert both == [[one, 3], [one, 2], [one, 1], [two, 2], [two, 1]]
    now = int(time.time())
    assert pages(log.shop, f"{V1}/webhooks/{one}/requests?from={now + 600}") == []
    assert len(pages(log.shop, f"{V1}/webhooks/{one}/requests?to={now + 600}")) == len(wanted)


def test_a_page_does_not_look_for_requests_without_end(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hookline.api.compat.evolutionx.logs._BATCH", 2)
    monkeypatch.setattr("hookline.api.compat.evolutionx.logs._MOST_SCANNED", 4)
    made = create(log.shop)["id"]
    log.publish("evt_sent")
    (request,) = log.record(made, "evt_sent", {})
    for number in range(9):
        log.publish(f"evt_{number}")
        log.record(made, f"evt_{number}")
    first = log.shop.get(f"{V1}/webhooks/{made}/requests")
    assert first["data"] == []
    assert first["next"] is not None
    assert [entry["request_id"] for entry in pages(log.shop, f"{V1}/webhooks/{made}/requests")] == [request]


def test_requests_of_deleted_webhooks_are_found_by_their_event(log: Log) -> None:
    made = create(log.shop)["id"]
    log.publish("evt_one")
    (request,) = log.record(made, "evt_one", {})
    assert log.shop.call("DELETE", f"{V1}/webhooks/{made}").status == 204
    assert [entry["request_id"] for entry in pages(log.shop, f"{V1}/events/evt_one/requests")] == [request]
    assert log.shop.get(f"{V1}/requests/{request}")["webhook_id"] == made


def test_the_logs_show_no_other_profile_and_no_other_tenant(api: Api, log: Log) -> None:
    made = create(log.shop)["id"]
    other = log.shop.post("/v1/subscriptions", {"url": URL, "profile": "standard", "events": ["*"]}, 201)[
        "id"
    ]
    log.publish("evt_one")
    (ours,) = log.record(made, "evt_one", {})
    (native,) = log.record(other, "evt_one", {})
    assert [entry["request_id"] for entry in pages(log.shop, f"{V1}/events/evt_one/requests")] == [ours]
    stranger = new_shop(api)
    for caller, request in ((log.shop, native), (stranger, ours)):
        for path in (f"/requests/{request}", f"/requests/{request}/payload"):
            assert caller.call("GET", V1 + path).status == 404
    for path in ("/events/evt_one", "/events/evt_one/related", "/events/evt_one/requests"):
        assert stranger.call("GET", V1 + path).status == 404
    assert pages(stranger, f"{V1}/events") == []


# --- the payload log ----------------------------------------------------------------------------------------


def test_the_payload_log_has_request_and_response_json(log: Log) -> None:
    made = create(log.shop, include_object_record=True)["id"]
    data = '{"event_data":{"customer_id":"7","n":1.50},"object":{"id":1000,"total":54.70}}'
    event = '{"id":"evt_one","type":"order.created","data":' + data + "}"
    assert log.shop.call("POST", "/v1/events", raw=event.encode()).status == 202
    log.positions["evt_one"] = log.shop.get("/v1/events/evt_one")["position"]
    (request,) = log.record(made, "evt_one", {"response_body": b' {"stored": [1, 2.50, "\xc3\xbc"]}\n'})
    answer = log.shop.call("GET", f"{V1}/requests/{request}/payload")
    found = answer.json
    assert found["request_json"]["event_id"] == "evt_one"
    assert b'"event_data":{"customer_id":"7","n":1.50},"data":{"id":1000,"total":54.70}' in answer.body
    assert found["response_json"] == {"stored": [1, 2.5, "ü"]}
    assert found["request_id"] == request
    assert (found["response_text"], found["response_encoding"], found["response_truncated"]) == (
        None,
        None,
        False,
    )


@pytest.mark.parametrize(
    ("body", "text", "encoding"),
    [
        (b"thank you", "thank you", "utf-8"),
        (b'{"cut": [1, 2', '{"cut": [1, 2', "utf-8"),
        (b'"\xff\xfe"', "Iv/+Ig==", "base64"),
        (b"<html>\x00</html>", "<html>\x00</html>", "utf-8"),
        (b"[" * 60_000, "[" * 60_000, "utf-8"),
        (b"NaN", "NaN", "utf-8"),
        (b"1} , {", "1} , {", "utf-8"),
        ("<p>Störung 雨".encode()[:-1], "<p>Störung ", "utf-8"),
        (
            "<p>Störung 雨".encode()[:-1] + b"<",
            b64encode("<p>Störung 雨".encode()[:-1] + b"<").decode(),
            "base64",
        ),
    ],
)
def test_an_answer_that_is_no_json_is_shown_as_text(log: Log, body: bytes, text: str, encoding: str) -> None:
    made = create(log.shop)["id"]
    log.publish("evt_one")
    (request,) = log.record(made, "evt_one", {"response_body": body, "response_truncated": True})
    found = log.shop.get(f"{V1}/requests/{request}/payload")
    assert found["response_json"] is None
    assert (found["response_text"], found["response_encoding"]) == (text, encoding)
    assert found["response_truncated"] is True


def test_the_payload_of_a_get_is_its_query(log: Log) -> None:
    made = create(log.shop, method="GET")["id"]
    log.publish("evt_one")
    url = f"{URL}?shop=1&tag=a&tag=b&event_id=evt_one&note=%C3%BC%26"
    (request,) = log.record(made, "evt_one", {"url": url})
    found = log.shop.get(f"{V1}/requests/{request}/payload")
    assert found["request_json"] == {"shop": "1", "tag": ["a", "b"], "event_id": "evt_one", "note": "ü&"}
    assert log.shop.get(f"{V1}/requests/{request}")["request_method"] == "GET"


@pytest.mark.parametrize("kept", [None, 3])
def test_the_payload_is_gone_after_its_retention_and_the_header_log_is_still_there(
    api: Api, log: Log, kept: int | None
) -> None:
    if kept is not None:
        change = {"retention": {"events": 60, "attempts": 60, "bodies": kept}}
        api.patch(f"/v1/tenants/{tenant_id(log.shop)}", change)
    days, now = kept or 15, api.services.clock.now()
    made = create(log.shop)["id"]
    log.publish("evt_one")
    young, old = log.record(
        made, "evt_one", {"started_at": now - days * DAY + 60_000}, {"started_at": now - days * DAY - 1}
    )
    assert log.shop.get(f"{V1}/requests/{young}/payload")["response_json"] == {"ok": True}
    answer = log.shop.call("GET", f"{V1}/requests/{old}/payload")
    assert (answer.status, error_of(answer)["type"]) == (410, "past_retention")
    assert f"{days} days" in error_of(answer)["message"]
    assert log.shop.get(f"{V1}/requests/{old}")["response_status"] == 200


def test_a_request_outlives_its_event(api: Api, log: Log) -> None:
    made = create(log.shop)["id"]
    log.publish("evt_one")
    (request,) = log.record(made, "evt_one", {})

    async def remove() -> int:
        tenant = await api.services.storage.find_tenant(tenant_id(log.shop))
        assert tenant is not None
        later = api.services.clock.now() + DAY
        return await api.services.storage.remove_events(tenant.no, later, log.positions["evt_one"], 10)

    assert api.run(remove()) == 1
    assert log.shop.get(f"{V1}/requests/{request}")["event_id"] is None
    assert [entry["event_id"] for entry in pages(log.shop, f"{V1}/webhooks/{made}/requests")] == [None]
    assert log.shop.call("GET", f"{V1}/requests/{request}/payload").status == 410


# --- the feature and its figures ----------------------------------------------------------------------------


def test_the_operator_switches_the_feature(api: Api, log: Log) -> None:
    shop, tenant = log.shop, f"/v1/tenants/{tenant_id(log.shop)}"
    made, resting = create(shop)["id"], create(shop, enabled=False)["id"]
    log.publish("evt_one")
    (request,) = log.record(made, "evt_one", {})
    assert shop.get(f"{V1}/feature") == {"event_driven_webhooks": True}
    assert shop.call("PATCH", tenant, {"webhooks": False}).status == 403
    api.patch(tenant, {"webhooks": False})
    assert shop.get(f"{V1}/feature") == {"event_driven_webhooks": False}
    for method, path in OPERATIONS:
        if path.startswith("/webhooks") and not path.endswith("/requests"):
            answer = shop.call(method, V1 + path.format(id=made), WEBHOOK if method == "POST" else None)
            assert (answer.status, error_of(answer)["type"]) == (403, "feature_off"), (method, path)
            assert "switched off" in error_of(answer)["message"]
    assert [one["event_id"] for one in pages(shop, f"{V1}/events")] == ["evt_one"]
    assert [one["request_id"] for one in pages(shop, f"{V1}/webhooks/{made}/requests")] == [request]
    assert shop.get(f"{V1}/requests/{request}/payload")["response_json"] == {"ok": True}
    assert shop.get(f"/v1/subscriptions/{made}")["state"] == "paused"
    api.patch(tenant, {"webhooks": True})
    states = {one["id"]: one["status"] for one in pages(shop, f"{V1}/webhooks")}
    assert states == {made: "active", resting: "paused"}


def test_a_webhook_says_what_holds_it_back(api: Api, shop: Api) -> None:
    made = create(shop)["id"]
    api.patch(f"/v1/tenants/{tenant_id(shop)}", {"webhooks": False})
    subscription = shop.get(f"/v1/subscriptions/{made}")
    assert (subscription["enabled"], subscription["state_reason"]) == (
        False,
        "webhooks are switched off for this tenant",
    )


def today() -> str:
    return time.strftime("%Y-%m-%d", time.gmtime())


def test_usage_counts_what_the_feature_is_charged_by(log: Log) -> None:
    began = today()
    made = create(log.shop)["id"]
    for number in range(3):
        log.publish(f"evt_{number}", data={"n": number})
        log.record(made, f"evt_{number}", {}, {})
    found = log.shop.get(f"{V1}/usage")
    days = sorted({began, today()})  # two if midnight was in between
    assert found["to"] in days
    assert {day["day"] for day in found["days"]} <= set(days)
    used = {"events": 3, "event_bytes": 24, "requests": 6, "request_bytes": 60}
    assert found["total"] == used
    assert {name: sum(day[name] for day in found["days"]) for name in used} == used
    earlier = log.shop.get(f"{V1}/usage?from=2025-01-01&to=2025-12-31")
    assert (earlier["from"], earlier["to"], earlier["days"]) == ("2025-01-01", "2025-12-31", [])
    assert earlier["total"] == dict.fromkeys(used, 0)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("from=x", ["from"]),
        ("from=x&to=2026-02-30", ["from", "to"]),
        ("from=2026-02-02&to=2026-02-01", ["from"]),
        ("from=2024-01-01&to=2026-01-01", ["from"]),
        ("from=1700000000", ["from"]),
        ("to=0001-01-01&from=0001-01-02", ["from"]),
    ],
)
def test_wrong_periods_are_named(shop: Api, query: str, expected: list[str]) -> None:
    answer = shop.call("GET", f"{V1}/usage?{query}")
    assert (answer.status, sorted(fields_of(answer))) == (422, expected)


def test_the_first_day_of_all_is_a_day(shop: Api) -> None:
    assert shop.get(f"{V1}/usage?to=0001-01-01")["from"] == "0001-01-01"
