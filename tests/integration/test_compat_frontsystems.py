"""Front Systems' API over HTTP: webhooks, types, errors, credentials."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from jsonschema_rs import validator_for

from hookline.core.ids import from_uuid
from hookline.ports import Storage
from hookline.storage.memory import MemoryStorage
from hookline.storage.sqlite import SqliteStorage
from tests.integration.apiserver import OPERATOR, Api, api_server
from tests.integration.frontsystems import ALWAYS, BASE, ORDER, URL, Shop

TYPES = {
    "SaleCreated", "CustomerCreated", "CustomerUpdated", "DeliveryItemsReceived", "DeliveryCompleted",
    "InvoiceCreated", "StockMovementCreated", "OmniChannelEndlessAisleOrderCreated", "OmniChannelOrderFulfilled",
    "OmniChannelOrderRefundUpdated", "OmniChannelOrderUpdated", "ProductTransferCreated", "ProductTransferReceived",
    "ProductTransferVirtualCreated", "ProductTransferVirtualReceived", "SaleExternalCreated",
    "StockAdjustmentCreated", "StockCountReconciled", "POSSettlementCreated",
}  # fmt: skip


@pytest.fixture(scope="module", params=["memory", "sqlite"])
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    def make() -> Storage:
        if request.param == "memory":
            return MemoryStorage()
        return SqliteStorage(Path(tmp_path_factory.mktemp("api")) / "hookline.db")

    with api_server(make) as running:
        yield running


@pytest.fixture(scope="module")
def shop(api: Api) -> Shop:
    return Shop(api)


# --- webhooks ------------------------------------------------------------------------------------------------


def test_a_webhook_is_made_as_the_page_spells_it(shop: Shop) -> None:
    answer = shop.call("POST", "/webhooks", {"event": ORDER, "url": URL})
    assert answer.status == 200
    made = answer.json
    assert made == {"id": made["id"], "storeId": None, "event": ORDER, "url": URL}
    assert str(UUID(made["id"])) == made["id"]
    assert shop.get(f"/Webhooks/{made['id']}") == made
    assert made in shop.get("/Webhooks")


def test_it_is_a_subscription_with_the_platforms_defaults(shop: Shop) -> None:
    made = shop.webhook(storeId=7)
    found = shop.native.get(f"/v1/subscriptions/{from_uuid('sub', made['id'])}")
    assert (found["profile"], found["events"], found["metadata"]) == (
        "frontsystems", [ORDER], {"storeId": "7"},
    )  # fmt: skip
    assert found["retry"]["kind"] == "none"
    assert (found["breaker"]["failures"], found["disable_after"], found["disable_on_gone"]) == (0, 0, False)
    assert (found["signing"]["scheme"], found["signing"]["id_header"]) == ("none", "X-Webhook-Event-Id")


def test_put_takes_the_place_of_the_whole_model(shop: Shop) -> None:
    made = shop.webhook(storeId=7)
    changed = {"id": made["id"], "event": "SaleCreated", "url": "https://other.example.com/", "storeId": None}
    assert shop.call("PUT", f"/Webhooks/{made['id']}", changed).json == changed
    assert shop.get(f"/Webhooks/{made['id']}") == changed
    found = shop.native.get(f"/v1/subscriptions/{from_uuid('sub', made['id'])}")
    assert (found["events"], found["filter"], found["metadata"]) == (["SaleCreated"], None, {})
    without_id = {"event": "SaleCreated", "url": URL, "storeId": -3}
    assert shop.call("PUT", f"/Webhooks/{made['id']}", without_id).json["storeId"] == -3


def test_put_leaves_what_was_set_by_other_means(shop: Shop) -> None:
    made = shop.webhook(storeId=7)
    path = f"/v1/subscriptions/{from_uuid('sub', made['id'])}"
    shop.native.patch(path, {"headers": {"X-Team": "erp"}, "filter": "data.total > 5"})
    assert shop.call("PUT", f"/Webhooks/{made['id']}", made).json == made
    found = shop.native.get(path)
    assert (found["headers"], found["filter"]) == ({"X-Team": "erp"}, "data.total > 5")


def test_a_store_that_changes_leaves_the_filter_that_was_set_besides(shop: Shop) -> None:
    made = shop.webhook("SaleCreated")
    path = f"/v1/subscriptions/{from_uuid('sub', made['id'])}"
    own = "data.total > 5 or data.total == 1"
    shop.native.patch(path, {"filter": own})

    def sent(store: int, total: int) -> bool:
        event = {"type": "SaleCreated", "data": {"storeId": store, "total": total}}
        return shop.native.post(f"{path}/preview", {"event": event})["matches"]

    for store in (7, 8):
        assert shop.call("PUT", f"/Webhooks/{made['id']}", made | {"storeId": store}).status == 200
        assert [sent(store, 1), sent(store, 6), sent(store, 2), sent(9, 6)] == [True, True, False, False]
    assert shop.call("PUT", f"/Webhooks/{made['id']}", made).json == made
    assert shop.native.get(path)["filter"] == own


def test_a_deleted_webhook_is_gone(shop: Shop) -> None:
    made = shop.webhook()
    answer = shop.call("DELETE", f"/Webhooks/{made['id']}")
    assert (answer.status, answer.json) == (200, made)
    assert made not in shop.get("/Webhooks")
    for method, path in (("GET", "/Webhooks/"), ("DELETE", "/Webhooks/"), ("GET", "/WebhooksEvents/")):
        answer = shop.call(method, f"{path}{made['id']}?{ALWAYS}")
        assert (answer.status, answer.json["errors"]) == (404, {"webhookId": ["names no webhook"]})


def test_all_webhooks_are_listed_in_one_answer(api: Api) -> None:
    shop = Shop(api)
    urls = [f"https://erp.example.com/{number}" for number in range(203)]
    for url in urls:
        shop.webhook(url=url)
    assert [found["url"] for found in shop.get("/Webhooks")] == urls


def test_the_same_event_and_url_may_be_subscribed_twice(api: Api) -> None:
    shop = Shop(api)
    assert shop.webhook()["id"] != shop.webhook()["id"]
    assert len(shop.get("/Webhooks")) == 2


@pytest.mark.parametrize("path", ["webhooks", "Webhooks", "WEBHOOKS"])
def test_paths_are_the_same_in_any_case(api: Api, shop: Shop, path: str) -> None:
    answer = api.call(
        "GET", f"/FrontSystems/RestApi/v2/API/{path}", headers={"Authorization": "", **shop.credentials}
    )
    assert answer.status == 200
    made = shop.webhook()
    assert shop.get(f"/{path}/{made['id'].upper()}") == made


@pytest.mark.parametrize(
    ("store", "data", "sent"),
    [
        (2, {"storeId": 2}, True),
        (2, {"storeId": 3}, False),
        (2, {"store": {"storeId": 2, "name": "Oslo City"}}, True),
        (2, {"registeredStoreId": 2}, True),
        (2, {"storeId": "2"}, False),
        (2, {"orderId": 2}, False),
        (-1, {"storeId": -1}, True),
        (0, {"storeId": 0}, True),
        (None, {"orderId": 2}, True),
    ],
)
def test_a_store_limits_the_webhook_to_its_events(
    shop: Shop, store: int | None, data: object, sent: bool
) -> None:
    made = shop.webhook("SaleCreated", storeId=store)
    preview = f"/v1/subscriptions/{from_uuid('sub', made['id'])}/preview"
    assert shop.native.post(preview, {"event": {"type": "SaleCreated", "data": data}})["matches"] is sent
    assert made["storeId"] == store


# --- input that is not right ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        ({"url": URL}, "event", "required"),
        ({"event": ORDER}, "url", "required"),
        ({"event": ORDER, "url": URL, "secret": "x"}, "secret", "not known"),
        ({"event": ORDER, "url": URL, "storeID": 1}, "storeID", "did you mean 'storeId'"),
        ({"event": ORDER, "url": URL, "storeId": "1"}, "storeId", "int"),
        ({"event": ORDER, "url": URL, "storeId": True}, "storeId", "int"),
        ({"event": ORDER, "url": URL, "storeId": 1.5}, "storeId", "int"),
        ({"event": ORDER, "url": URL, "storeId": 1 << 31}, "storeId", "2147483647"),
        ({"event": ORDER, "url": URL, "storeId": -(1 << 31) - 1}, "storeId", "-2147483648"),
        ({"event": 5, "url": URL}, "event", "expected `str`"),
        ({"event": ["SaleCreated"], "url": URL}, "event", "expected `str`"),
        ({"event": None, "url": URL}, "event", "expected `str`"),
        ({"event": "Salecreated", "url": URL}, "event", "did you mean 'SaleCreated'"),
        ({"event": "SaleCreatd", "url": URL}, "event", "GET /api/WebhooksTypes"),
        ({"event": "*", "url": URL}, "event", "not known"),
        ({"event": "hookline.*", "url": URL}, "event", "not known"),
        ({"event": "", "url": URL}, "event", "not known"),
        ({"event": "x" * 5000, "url": URL}, "event", "not known"),
        ({"event": ORDER, "url": ""}, "url", "full URL"),
        ({"event": ORDER, "url": "ftp://erp.example.com"}, "url", "https"),
        ({"event": ORDER, "url": "https://10.0.0.1/"}, "url", "10.0.0.1"),
        ({"event": ORDER, "url": "https://erp.example.com/" + "x" * 5000}, "url", "at most"),
        ({"event": ORDER, "url": URL, "id": "7d0f2d0e-6f0b-4a53-9f0e-2f1a4f3f9a11"}, "id", "leave it out"),
        ([], "$", "object"),
        ("text", "$", "object"),
        (None, "$", ""),
    ],
)
def test_what_is_wrong_with_a_webhook_is_named(shop: Shop, body: object, field: str, said: str) -> None:
    errors = shop.refused("POST", "/Webhooks", raw=json.dumps(body).encode())
    assert list(errors) == [field]
    assert said in errors[field][0]


def test_all_faults_are_named_at_once(shop: Shop) -> None:
    body = {"url": 5, "storeId": "x", "secret": ""}
    assert sorted(shop.refused("POST", "/Webhooks", body)) == ["event", "secret", "storeId", "url"]


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b'{"url":"a","url":"b"}', b"[" * 100_000])
def test_bodies_that_are_no_json_are_refused(shop: Shop, raw: bytes) -> None:
    answer = shop.call("POST", "/Webhooks", raw=raw)
    assert (answer.status, answer.json["status"]) == (400, 400)
    assert "JSON" in answer.json["detail"] or "nested" in answer.json["detail"]


@pytest.mark.parametrize("given", [None, str(UUID(int=0))])
def test_an_empty_id_in_the_model_is_no_fault(shop: Shop, given: str | None) -> None:
    assert shop.webhook(id=given)["id"] not in (None, given)


def test_the_id_of_a_webhook_cannot_be_changed(shop: Shop) -> None:
    made = shop.webhook()
    errors = shop.refused(
        "PUT", f"/Webhooks/{made['id']}", made | {"id": "7d0f2d0e-6f0b-4a53-9f0e-2f1a4f3f9a11"}
    )
    assert errors == {"id": ["cannot be changed"]}


UNKNOWN_IDS = [
    "1",
    "x" * 200,
    "%00",
    "7d0f2d0e-6f0b-4a53-9f0e-2f1a4f3f9a11",
    "sub_1",
    "..%2f..",
    "%C3%A4",
    "{}",
]


@pytest.mark.parametrize("text", UNKNOWN_IDS)
def test_ids_that_name_nothing_are_not_found(shop: Shop, text: str) -> None:
    made = shop.webhook()
    for path in (f"/Webhooks/{text}", f"/WebhooksEvents/{text}?{ALWAYS}"):
        answer = shop.call("GET", path)
        assert answer.status == 404, answer.body
    for method, path in (("GET", ""), ("POST", "/deliver")):
        answer = shop.call(method, f"/WebhooksEvents/{made['id']}{path}/{text}")
        assert answer.status == 404, answer.body


def test_a_problem_has_the_form_of_the_platforms_framework(shop: Shop) -> None:
    answer = shop.call("POST", "/Webhooks", {"event": ORDER}, headers={"X-Request-Id": "req-5"})
    assert answer.json == {
        "type": "urn:hookline:error:invalid_input",
        "title": "The input is not valid",
        "status": 400,
        "detail": "url: is required",
        "traceId": "req-5",
        "errors": {"url": ["is required"]},
    }
    assert shop.call("GET", "/Nothing").json["status"] == 404
    answer = shop.call("PATCH", "/Webhooks")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, POST")


# --- types ---------------------------------------------------------------------------------------------------


def test_the_types_are_those_of_the_platform(shop: Shop) -> None:
    types = {found["name"]: found for found in shop.get("/WebhooksTypes")}
    assert types.keys() >= TYPES
    sale = types["SaleCreated"]
    assert list(sale) == ["name", "group", "description", "usage"]
    assert "POS" in sale["description"]
    assert "ERP" in sale["usage"]


def test_the_schema_of_a_type_is_json_schema(shop: Shop) -> None:
    for name in sorted(TYPES):
        schema = validator_for(shop.get(f"/WebhooksTypes/{name}/schema"))
        assert schema.is_valid(shop.native.get(f"/v1/event-types/{name}/example"))
        assert not schema.is_valid({})
        assert not schema.is_valid([])


def test_new_types_appear_in_the_list_and_can_be_subscribed(api: Api) -> None:
    shop = Shop(api)
    shop.native.post("/v1/event-types", {"name": "StockReservationCreated", "description": "Reserved."}, 201)
    shop.native.post("/v1/event-types", {"name": "a/b", "schema": {"type": "array"}}, 201)
    assert {"StockReservationCreated", "a/b"} <= {found["name"] for found in shop.get("/WebhooksTypes")}
    assert shop.webhook("StockReservationCreated")["event"] == "StockReservationCreated"
    assert shop.get("/WebhooksTypes/StockReservationCreated/schema") == {}
    assert shop.get("/WebhooksTypes/a/b/schema") == {"type": "array"}


@pytest.mark.parametrize("name", ["Nope", "%00", "x" * 300, "salecreated"])
def test_there_is_no_schema_of_an_unknown_type(shop: Shop, name: str) -> None:
    answer = shop.call("GET", f"/WebhooksTypes/{name}/schema")
    assert (answer.status, list(answer.json["errors"])) == (404, ["webhookType"])


# --- credentials ---------------------------------------------------------------------------------------------


def test_a_problem_without_faults_names_none(api: Api, shop: Shop) -> None:
    """Only the framework's problems of validation have the member ``errors``."""
    for answer in (
        shop.call("GET", "/nothing"),
        shop.call("PATCH", "/Webhooks", {}),
        api.as_key("").call("GET", f"{BASE}/Webhooks"),
    ):
        assert answer.status in (401, 404, 405)
        assert sorted(answer.json) == ["detail", "status", "title", "traceId", "type"]


def test_both_credentials_are_needed_and_must_belong_together(api: Api, shop: Shop) -> None:
    other = Shop(api)
    key, tenant = shop.credentials.values()
    wrong: list[dict[str, str]] = [
        {},
        {"x-api-key": key},
        {"Ocp-Apim-Subscription-Key": tenant},
        {"x-api-key": key, "Ocp-Apim-Subscription-Key": other.name},
        {"x-api-key": key, "Ocp-Apim-Subscription-Key": "nobody"},
        {"x-api-key": "hk_wrong", "Ocp-Apim-Subscription-Key": tenant},
        {"x-api-key": tenant, "Ocp-Apim-Subscription-Key": key},
        {"Authorization": f"Bearer {key}", "Ocp-Apim-Subscription-Key": tenant},
    ]
    for headers in wrong:
        answer = api.as_key("").call("GET", f"{BASE}/Webhooks", headers=headers)
        assert (answer.status, answer.json["status"]) == (401, 401), headers
        assert 'name="Ocp-Apim-Subscription-Key"' in answer.headers["www-authenticate"]
        assert key not in answer.body.decode()


def test_the_subscription_key_may_stand_in_the_query(api: Api, shop: Shop) -> None:
    made, key = shop.webhook(), {"x-api-key": shop.native.key}
    anyone = api.as_key("")
    for path in ("/Webhooks?", f"/WebhooksEvents/{made['id']}?{ALWAYS}&"):
        answer = anyone.call("GET", f"{BASE}{path}subscription-key={shop.name}", headers=key)
        assert answer.status == 200, answer.body
    for query in ("subscription-key=nobody", "subscription-key=", "subscription-key=%ff", "&" * 200 + "a=b"):
        assert anyone.call("GET", f"{BASE}/Webhooks?{query}", headers=key).status == 401
    answer = anyone.call("GET", f"{BASE}/Webhooks?subscription-key={'x' * 9000}", headers=key)
    assert answer.status == 401


def test_an_operator_acts_for_the_tenant_of_the_subscription_key(api: Api, shop: Shop) -> None:
    headers = {"x-api-key": OPERATOR, "Ocp-Apim-Subscription-Key": shop.name}
    assert api.as_key("").call("GET", f"{BASE}/Webhooks", headers=headers).status == 200


def test_a_key_may_do_what_its_scopes_say(api: Api) -> None:
    shop = Shop(api)
    made = shop.webhook()
    issued = shop.native.post("/v1/keys", {"name": "reader", "scopes": ["read"]}, 201)
    reader = {"x-api-key": issued["secret"]}
    assert shop.call("GET", "/Webhooks", headers=reader).status == 200
    assert shop.call("GET", f"/WebhooksEvents/{made['id']}?{ALWAYS}", headers=reader).status == 200
    for method, path in (
        ("POST", "/Webhooks"), ("PUT", f"/Webhooks/{made['id']}"), ("DELETE", f"/Webhooks/{made['id']}"),
        ("POST", f"/WebhooksEvents/{made['id']}/deliver/{uuid4()}"),
    ):  # fmt: skip
        answer = shop.call(method, path, made, headers=reader)
        assert (answer.status, answer.json["status"]) == (403, 403), answer.body


def test_without_the_feature_webhooks_can_only_be_seen_and_deleted(api: Api) -> None:
    shop = Shop(api)
    made = shop.webhook()
    api.patch(f"/v1/tenants/{shop.name}", {"webhooks": False})
    for method, path in (("POST", "/Webhooks"), ("PUT", f"/Webhooks/{made['id']}")):
        answer = shop.call(method, path, {"event": ORDER, "url": URL})
        assert (answer.status, "switched off" in answer.json["detail"]) == (403, True)
    assert shop.get("/Webhooks") == [made]
    assert shop.call("DELETE", f"/Webhooks/{made['id']}").status == 200
