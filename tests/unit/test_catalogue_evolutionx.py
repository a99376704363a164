import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import jsonschema_rs
import pytest

from hookline.core.errors import Fault
from hookline.core.schema import compile_schema
from tests.support.schemas import grown, keywords

Json = dict[str, Any]

FILES = sorted((Path(__file__).parents[2] / "src/hookline/profiles/evolutionx/catalogue").glob("*.json"))

GROUPED = {
    "Orders": ["order.created", "order.updated", "order.status_changed"],
    "Users": ["user.created", "user.updated", "user.deleted"],
    "Newsletter": ["user.subscribed", "user.unsubscribed"],
    "Customers": ["customer.created", "customer.updated", "customer.deleted"],
    "Quotes": ["quote.created", "quote.updated"],
    "Products": ["product.created", "product.updated", "product.deleted"],
}
WITHOUT_OBJECT = {
    "user.subscribed",
    "user.unsubscribed",
    "user.deleted",
    "customer.deleted",
    "product.deleted",
}


def loaded(file: Path) -> Json:
    """A file with its ``$defs`` put into each schema."""
    found: Json = json.loads(file.read_text("utf-8"))
    for entry in found["types"]:
        entry["schema"]["$defs"] = found["$defs"]
    return found


GROUPS = [loaded(file) for file in FILES]
TYPES: dict[str, Json] = {entry["name"]: entry for group in GROUPS for entry in group["types"]}
WITH_OBJECT = [name for name in TYPES if name not in WITHOUT_OBJECT]


def faults(name: str, data: object) -> list[Fault]:
    return compile_schema(json.dumps(TYPES[name]["schema"]).encode()).faults(data)


def required(name: str, part: str) -> list[str]:
    """What must be in ``part``, by the schema itself and by the definition that it refers to."""
    schema = TYPES[name]["schema"]
    found = schema["properties"][part]
    definition = schema["$defs"][found["$ref"].rpartition("/")[2]]
    return [*definition["required"], *found.get("required", [])]


def test_the_types_are_there_in_their_groups():
    assert {group["group"]: [entry["name"] for entry in group["types"]] for group in GROUPS} == GROUPED
    assert [group["group"] for group in GROUPS] == list(GROUPED)
    assert len(TYPES) == sum(len(group["types"]) for group in GROUPS)


def test_no_type_claims_that_a_page_shows_its_payload():
    assert {entry["origin"] for entry in TYPES.values()} == {"choice"}


@pytest.mark.parametrize("name", TYPES)
def test_a_type_tells_when_it_fires_and_what_for(name):
    entry = TYPES[name]
    assert entry["description"].startswith("Fires when ")
    assert entry["description"].endswith(".")
    assert entry["usage"].endswith(".")
    assert name.partition(".")[0] == entry["object_type"]


@pytest.mark.parametrize("name", TYPES)
def test_the_example_fits_the_schema(name):
    schema, example = TYPES[name]["schema"], TYPES[name]["example"]
    assert faults(name, example) == []
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(example)
    jsonschema_rs.validator_for(schema, validate_formats=True).validate(example)


@pytest.mark.parametrize("name", TYPES)
def test_event_data_is_thin(name):
    about = TYPES[name]["example"]["event_data"]
    assert 2 <= len(about) <= 7
    assert all(value is None or isinstance(value, str | int) for value in about.values())
    assert {"user_id", "customer_id", "product_id"} & about.keys()


@pytest.mark.parametrize("name", WITH_OBJECT)
def test_the_object_record_is_full_and_may_be_left_out(name):
    example = TYPES[name]["example"]
    assert example.keys() == {"event_data", "object"}
    assert {"id", "created_at", "updated_at"} <= example["object"].keys()
    assert faults(name, {"event_data": example["event_data"]}) == []


@pytest.mark.parametrize("name", sorted(WITHOUT_OBJECT))
def test_events_without_an_object_have_event_data_only(name):
    assert TYPES[name]["example"].keys() == {"event_data"}
    assert TYPES[name]["schema"]["properties"].keys() == {"event_data"}


@pytest.mark.parametrize("name", TYPES)
def test_no_required_field_may_be_missing(name):
    example = TYPES[name]["example"]
    assert faults(name, {**example, "event_data": {}}) != []
    assert faults(name, {}) == [Fault("data.event_data", "is missing")]
    for part in example:
        for field in required(name, part):
            less = copy.deepcopy(example)
            del less[part][field]
            assert faults(name, less) == [Fault(f"data.{part}.{field}", "is missing")]


def test_times_are_unix_seconds():
    order = copy.deepcopy(TYPES["order.created"]["example"])
    order["object"]["created_at"] = "2026-03-14T09:26:53Z"
    assert [fault.field for fault in faults("order.created", order)] == ["data.object.created_at"]


@pytest.mark.parametrize("name", TYPES)
def test_new_fields_and_new_states_fit(name):
    example = grown(TYPES[name]["example"])
    if "status" in example.get("object", {}):
        example["object"]["status"] = "A new one"
    assert faults(name, example) == []
    assert keywords(TYPES[name]["schema"]).isdisjoint({"enum", "const"})
