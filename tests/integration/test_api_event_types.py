"""The catalogue over HTTP, and what schemas do to publishing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from hookline.storage.memory import MemoryStorage
from tests.integration.apiserver import OPERATOR, Api, api_server

SCHEMA = {
    "type": "object",
    "required": ["number"],
    "properties": {"number": {"type": "string"}, "total": {"type": "string"}},
}


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    with api_server(MemoryStorage) as running:
        yield running


@pytest.fixture
def tenant(api: Api, request: pytest.FixtureRequest) -> Api:
    return api.new_tenant(f"t{abs(hash(request.node.nodeid))}")


def make(tenant: Api, name: str = "order:created", **fields: object) -> Any:
    return tenant.post("/v1/event-types", {"name": name, **fields}, 201)


def test_a_type_is_made_and_read(tenant: Api) -> None:
    asked = {
        "name": "order:created",
        "description": "An order\nwas placed.",
        "group": "Orders",
        "usage": "For fulfilment.",
        "schema": SCHEMA,
        "example": {"number": "4471"},
    }
    made = tenant.post("/v1/event-types", asked, 201)
    assert {name: made[name] for name in asked} == asked
    assert (made["version"], made["deprecated_at"]) == (1, None)
    assert tenant.get("/v1/event-types/order:created") == made
    assert tenant.get("/v1/event-types/order:created/schema") == SCHEMA
    assert tenant.get("/v1/event-types/order:created/example") == {"number": "4471"}
    assert tenant.post("/v1/event-types", asked, 409)["code"] == "conflict"


def test_schema_and_example_keep_their_bytes(tenant: Api) -> None:
    raw = b'{"name":"a","example":{"total": 1.10}, "schema": {"type" : "object"}}'
    assert tenant.call("POST", "/v1/event-types", raw=raw).status == 201
    assert tenant.call("GET", "/v1/event-types/a/example").body == b'{"total": 1.10}'
    assert tenant.call("GET", "/v1/event-types/a/schema").body == b'{"type" : "object"}'


def test_a_name_may_have_slashes(tenant: Api) -> None:
    make(tenant, "shop/order")
    assert tenant.get("/v1/event-types/shop/order")["name"] == "shop/order"
    assert tenant.get("/v1/event-types/shop%2Forder")["name"] == "shop/order"


def test_what_is_not_there(tenant: Api) -> None:
    make(tenant, "bare")
    for path in ("none", "none/schema", "none/example", "bare/schema", "bare/example", "a b"):
        assert tenant.get(f"/v1/event-types/{path.replace(' ', '%20')}", 404)["code"] == "not_found"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": "a b"}, "name"),
        ({"name": "hookline.x"}, "name"),
        ({"name": "a", "description": "\x00"}, "description"),
        ({"name": "a", "schema": 7}, "schema"),
        ({"name": "a", "schema": {"type": "strnig"}}, "schema.type"),
        ({"name": "a", "schema": {"$ref": "https://example.com/x"}}, "schema.$ref"),
        ({"name": "a", "schema": SCHEMA, "example": {}}, "example.number"),
        ({"name": "a", "schema": SCHEMA, "example": {"number": 1}}, "example.number"),
        ({"name": "a", "example": "x" * 300_000}, "example"),
        ({"name": "a", "shcema": {}}, "shcema"),
    ],
)
def test_types_that_make_no_sense(tenant: Api, body: dict[str, object], field: str) -> None:
    problem = tenant.post("/v1/event-types", body, 422)
    assert problem["faults"][0]["field"] == field


def test_types_are_listed_in_pages(tenant: Api) -> None:
    for number in range(5):
        make(tenant, f"type{number}")
    seen: list[str] = []
    cursor = ""
    while cursor is not None:
        page = tenant.get(f"/v1/event-types?limit=2&cursor={cursor}")
        seen += [found["name"] for found in page["data"]]
        cursor = page["next"]
    assert seen == [f"type{number}" for number in range(5)]


def test_changes_that_could_break_receivers_need_force(tenant: Api) -> None:
    make(tenant, schema=SCHEMA, example={"number": "1"})
    path = "/v1/event-types/order:created"
    assert tenant.patch(path, {"description": "x"})["version"] == 1
    breaking = SCHEMA | {"required": []}
    problem = tenant.patch(path, {"schema": breaking}, 409)
    assert problem["code"] == "incompatible_schema"
    assert problem["faults"]
    assert tenant.get(path)["version"] == 1
    assert tenant.patch(f"{path}?force=true", {"schema": breaking})["version"] == 2
    assert tenant.patch(path, {"schema": None}, 409)["code"] == "incompatible_schema"
    removed = tenant.patch(f"{path}?force=true", {"schema": None, "example": None})
    assert (removed["schema"], removed["example"], removed["version"]) == (None, None, 3)
    assert tenant.patch(f"{path}?force=maybe", {}, 422)["faults"][0]["field"] == "force"
    assert tenant.patch("/v1/event-types/none", {}, 404)["code"] == "not_found"


def test_a_type_is_deprecated_and_that_is_taken_back(tenant: Api) -> None:
    make(tenant)
    path = "/v1/event-types/order:created"
    when = tenant.post(f"{path}/deprecate")["deprecated_at"]
    assert when is not None
    assert tenant.post(f"{path}/deprecate", {})["deprecated_at"] == when
    assert tenant.post("/v1/events", {"type": "order:created", "data": {}}, 202)
    assert tenant.post(f"{path}/deprecate", {"deprecated": False})["deprecated_at"] is None
    assert tenant.get("/openapi.json")["webhooks"]["order:created"]["post"]["deprecated"] is False


def test_schemas_rule_publishing_by_the_tenants_mode(api: Api, tenant: Api) -> None:
    make(tenant, schema=SCHEMA)
    name = tenant.get("/v1/whoami")["tenant"]["id"]
    bad = {"type": "order:created", "data": {"number": 4471}}
    operator = api.as_key(OPERATOR)
    assert tenant.post("/v1/events", bad, 202)
    operator.patch(f"/v1/tenants/{name}", {"schema_mode": "strict"})
    problem = tenant.post("/v1/events", bad, 422)
    assert (problem["code"], problem["faults"][0]["field"]) == ("schema_violation", "data.number")
    assert tenant.post("/v1/events", {"type": "unknown", "data": 1}, 422)["faults"][0]["field"] == "type"
    assert tenant.post("/v1/events", {"type": "order:created", "data": {"number": "1"}}, 202)
    operator.patch(f"/v1/tenants/{name}", {"schema_mode": "off"})
    assert tenant.post("/v1/events", bad, 202)
