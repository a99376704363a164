"""The API against its own description: a public validator, and thousands of requests made from it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from openapi_spec_validator import OpenAPIV31SpecValidator
from schemathesis.specs.openapi.checks import positive_data_acceptance

from hookline.api.messages import OPERATIONAL
from hookline.api.openapi import document
from hookline.api.table import ROUTES
from hookline.storage.memory import MemoryStorage
from tests.integration.apiserver import Api, api_server

FUZZED = "fuzz"


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    with api_server(MemoryStorage) as running:
        yield running


@pytest.fixture(scope="module")
def tenant(api: Api) -> Api:
    """Nobody changes it."""
    return furnished(api, "reads")


@pytest.fixture(scope="module")
def fuzzed_tenant(api: Api) -> Api:
    """It gets whatever comes to the fuzzer's mind."""
    return furnished(api, FUZZED)


def furnished(api: Api, name: str) -> Api:
    made = api.new_tenant(name)
    made.post(
        "/v1/event-types",
        {
            "name": "order:created",
            "description": "An order was placed.",
            "schema": {"$defs": {"n": {"type": "string"}}, "properties": {"number": {"$ref": "#/$defs/n"}}},
            "example": {"number": "4471"},
        },
        201,
    )
    made.post("/v1/subscriptions", {"url": "http://127.0.0.1:49151/closed"}, 201)
    made.post("/v1/events", {"type": "order:created", "id": "one", "data": {}}, 202)
    return made


def test_the_document_is_valid_openapi(tenant: Api) -> None:
    served = tenant.get("/openapi.json")
    assert served["openapi"] == "3.1.0"
    assert [str(error) for error in OpenAPIV31SpecValidator(served).iter_errors()] == []


def test_the_document_covers_the_whole_route_table(api: Api) -> None:
    paths = api.as_key("").get("/openapi.json")["paths"]
    described = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    assert described == {(route.method, route.path.replace(":path}", "}")) for route in ROUTES}
    operations = [operation["operationId"] for methods in paths.values() for operation in methods.values()]
    assert len(set(operations)) == len(operations)


def test_webhooks_are_those_of_the_callers_catalogue(api: Api, tenant: Api) -> None:
    own = set(OPERATIONAL)
    assert set(api.as_key("").get("/openapi.json")["webhooks"]) == own
    webhooks = tenant.get("/openapi.json")["webhooks"]
    assert set(webhooks) == {*own, "order:created"}
    schema = webhooks["order:created"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert schema["properties"]["data"] == {"$ref": "#/components/schemas/event.order.created"}
    assert schema["examples"][0]["data"] == {"number": "4471"}


def test_every_reference_leads_somewhere() -> None:
    text = json.dumps(document(ROUTES))
    components = document(ROUTES)["components"]["schemas"]
    used = {part.partition('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert used <= set(components)


def _ndjson(_: object, value: Any) -> bytes:
    items = value if isinstance(value, list) else [value]
    return b"\n".join(json.dumps(item).encode() for item in items)


schemathesis.serializer("application/x-ndjson")(_ndjson)
fuzzed = schemathesis.openapi.from_dict(json.loads(msgspec.json.encode(document(ROUTES))))


@pytest.mark.slow
@pytest.mark.timeout(400)
@fuzzed.parametrize()
@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow]
)
def test_nothing_made_from_the_document_breaks_the_api(case: Any, api: Api, fuzzed_tenant: Api) -> None:
    case.call_and_validate(
        base_url=f"http://127.0.0.1:{api.port}",
        headers={"Authorization": f"Bearer {api.key}", "Hookline-Tenant": FUZZED},
        # Rules beyond JSON Schema (an address that may be called, a filter that compiles) refuse bodies that fit it.
        excluded_checks=[positive_data_acceptance],
    )
