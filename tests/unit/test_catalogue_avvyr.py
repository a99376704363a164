import copy
import json
from datetime import date
from pathlib import Path
from typing import Any

import jsonschema
import jsonschema_rs
import pytest

from hookline.core.errors import Fault
from hookline.core.schema import compile_schema
from hookline.demo.shop import plan_day
from hookline.demo.supply import SCENARIOS
from tests.support.schemas import grown, keywords

Json = dict[str, Any]

FILES = sorted((Path(__file__).parents[2] / "src/hookline/profiles/avvyr/catalogue").glob("*.json"))

# The page's tables, in its order.
STATED = {
    "Orders": ["orderCreated", "orderUpdated", "orderDeleted", "orderReadyForPickup"],
    "Cart": ["cartCreated", "cartUpdated", "cartDeleted", "cartFullyPaid"],
    "Products": ["productCreated", "productUpdated", "productDeleted"],
    "Transfers": ["transferCreated", "transferUpdated", "transferDeleted"],
    "Purchases": ["purchaseCreated", "purchaseUpdated", "purchaseDeleted"],
    "Fulfillment": ["fulfillmentCreated", "fulfillmentUpdated", "fulfillmentDeleted"],
}


def loaded(file: Path) -> Json:
    """A file with its ``$defs`` put into each schema."""
    found: Json = json.loads(file.read_text("utf-8"))
    for entry in found["types"]:
        entry["schema"]["$defs"] = found["$defs"]
    return found


GROUPS = [loaded(file) for file in FILES]
TYPES: dict[str, Json] = {entry["name"]: entry for group in GROUPS for entry in group["types"]}
DELETED = [name for name in TYPES if name.endswith("Deleted")]


def faults(name: str, data: object) -> list[Fault]:
    return compile_schema(json.dumps(TYPES[name]["schema"]).encode()).faults(data)


def required(schema: Json) -> list[str]:
    """What must be at the top, by the schema itself and by the definition that it refers to."""
    definition = schema["$defs"][schema["$ref"].rpartition("/")[2]]
    return [*definition["required"], *schema.get("required", [])]


def test_no_type_claims_that_a_page_shows_its_payload():
    assert {entry["origin"] for entry in TYPES.values()} == {"choice"}


def test_the_types_are_those_of_the_page():
    assert {group["group"]: [entry["name"] for entry in group["types"]] for group in GROUPS} == STATED
    assert [group["group"] for group in GROUPS] == list(STATED)
    assert len(TYPES) == sum(len(group["types"]) for group in GROUPS) == 20


@pytest.mark.parametrize("name", TYPES)
def test_a_type_tells_when_it_fires_and_what_for(name):
    entry = TYPES[name]
    assert entry["description"].startswith("Fires when ")
    assert entry["description"].endswith(".")
    assert entry["usage"].endswith(".")
    assert name.startswith(entry["object_type"])


@pytest.mark.parametrize("name", TYPES)
def test_the_example_fits_the_schema(name):
    schema, example = TYPES[name]["schema"], TYPES[name]["example"]
    assert faults(name, example) == []
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(example)
    jsonschema_rs.validator_for(schema, validate_formats=True).validate(example)


@pytest.mark.parametrize("name", TYPES)
def test_no_required_field_may_be_missing(name):
    entry = TYPES[name]
    for field in required(entry["schema"]):
        rest = {key: value for key, value in entry["example"].items() if key != field}
        assert faults(name, rest) == [Fault(f"data.{field}", "is missing")]


def test_parts_of_an_entity_are_checked_too():
    order = copy.deepcopy(TYPES["orderUpdated"]["example"])
    del order["lines"][0]["sku"], order["customer"]["email"]
    order["totals"]["grandTotal"] = "54.7"
    found = {fault.field for fault in faults("orderUpdated", order)}
    assert found == {"data.lines[0].sku", "data.customer.email", "data.totals.grandTotal"}


@pytest.mark.parametrize("name", TYPES)
def test_new_fields_and_new_states_fit(name):
    example = grown(TYPES[name]["example"])
    if "status" in example:
        example["status"] = "a_new_one"
    assert faults(name, example) == []
    assert keywords(TYPES[name]["schema"]).isdisjoint({"enum", "const"})


@pytest.mark.parametrize("name", DELETED)
def test_what_is_deleted_leaves_its_id_and_little_else(name):
    example = TYPES[name]["example"]
    assert {"id", "deletedAt"} <= example.keys()
    assert len(example) <= 4
    assert all(isinstance(value, str) for value in example.values())
    assert faults(name, example) == []


def test_six_types_are_deletions():
    assert len(DELETED) == 6


def test_the_demos_shop_publishes_what_the_catalogue_says():
    planned = plan_day(11, 400, date(2026, 3, 14), SCENARIOS)
    found = [(event.type, event.data) for event in planned if event.type in TYPES]
    assert {name for name, _ in found} == set(TYPES)
    assert [(name, data, wrong) for name, data in found if (wrong := faults(name, data))] == []
