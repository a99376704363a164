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
from hookline.profiles.catalogue import shipped
from tests.support.schemas import keywords

Json = dict[str, Any]

TESTS = Path(__file__).parents[1]
FILES = sorted((TESTS.parent / "src/hookline/profiles/shipstream/catalogue").glob("*.json"))

SAMPLES: dict[str, Json] = json.loads((TESTS / "data/shipstream_samples.json").read_text("utf-8"))
"""The bodies of the vendor's older page, "Event", whole; only the comma too many in that of track:created is gone."""

OLDER = """
order:created order:canceled order:holded order:completed order:address_validation_failed
order:status_changed product:created product:updated product:deleted product_media:created
product_media:updated product_media:deleted delivery:created delivery:canceled delivery:accepted
delivery:processed delivery:exception delivery:putaway delivery:committed delivery:status_changed
import:created import:completed inventory:adjusted track:created
""".split()
"""The 24 topics of that page, in its order."""

NEWER = """
delivery_label:created delivery_label:voided order:items_updated order:shipped order:delivered
order:address_changed order:shipments_updated order:shipping_options_changed product:sku_changed
serial_number:created serial_number:updated serial_number:checkin serial_number:checkout shipment:packed
shipment:shipped shipment:delivered shipment:reverted shipment:labels_voided package:packed
package:manifested package:shipped package:delivered tracker:updated tracker:delivered tracker:exception
manifest:sealed manifest:loaded
""".split()
"""The 27 topics that the vendor's newer page, "Topics", has besides those."""

OURS = {name for name in NEWER if name.startswith("serial_number:")} | {"order:items_updated", "test:ping"}
"""Topics whose fields the vendor does not state."""

ENTRIES: list[Json] = [entry for file in FILES for entry in json.loads(file.read_text("utf-8"))["types"]]
TYPES: dict[str, Json] = {entry["name"]: entry for entry in ENTRIES}
SHIPPED = shipped("shipstream")
SCHEMAS: dict[str, Json] = {name: json.loads(made.schema or b"") for name, made in SHIPPED.items()}


def message_of(sample: Json) -> Json:
    """What a publisher gives: Hookline counts webhook_increment_id itself."""
    return {key: value for key, value in sample["message"].items() if key != "webhook_increment_id"}


def faults(topic: str, data: object) -> list[Fault]:
    return compile_schema(json.dumps(SCHEMAS[topic]).encode()).faults(data)


def required(topic: str) -> list[str]:
    schema = SCHEMAS[topic]
    if "$ref" in schema:
        schema = schema["$defs"][schema["$ref"].rpartition("/")[2]]
    return schema["required"]


def grown(value: Any) -> Any:
    """The value with one more field in each object that has fixed fields."""
    if isinstance(value, dict):
        by_sku = any("qty_adjust" in part for part in value.values() if isinstance(part, dict))
        return {key: grown(part) for key, part in value.items()} | ({} if by_sku else {"addedLater": "x"})
    return [grown(part) for part in value] if isinstance(value, list) else value


def test_the_topics_are_those_of_the_pages_and_the_test_topic():
    assert len(OLDER) == 24
    assert len(NEWER) == 27
    assert sorted(entry["name"] for entry in ENTRIES) == sorted([*OLDER, *NEWER, "test:ping"])
    assert SHIPPED.keys() == TYPES.keys()


def test_the_older_topics_stand_in_the_order_of_their_page():
    assert list(SAMPLES) == OLDER
    assert [entry["name"] for entry in ENTRIES if entry["name"] in SAMPLES] == OLDER


@pytest.mark.parametrize("topic", TYPES)
def test_a_topic_tells_when_it_fires_and_what_for(topic: str):
    entry = TYPES[topic]
    assert entry["description"].startswith("When ")
    assert entry["description"].endswith(".")
    assert entry["usage"].startswith("To ")
    assert entry["usage"].endswith(".")
    assert entry["object_type"] == topic.partition(":")[0]
    assert entry["origin"] == ("choice" if topic in OURS else "stated")


@pytest.mark.parametrize("topic", OLDER)
def test_the_example_is_the_vendors_message_and_the_schema_has_its_keys_and_no_other(topic: str):
    message = message_of(SAMPLES[topic])
    assert SAMPLES[topic]["topic"] == topic
    assert TYPES[topic]["example"] == message
    assert list(SCHEMAS[topic]["properties"]) == required(topic)
    assert set(required(topic)) == set(message)


@pytest.mark.parametrize("topic", OLDER)
def test_values_have_the_kinds_of_the_vendors_message(topic: str):
    message = message_of(SAMPLES[topic])
    assert faults(topic, message) == []
    for key, value in message.items():
        other = 5 if isinstance(value, str | None) else "5"
        assert [fault.field for fault in faults(topic, message | {key: other})] == [f"data.{key}"]


@pytest.mark.parametrize("topic", ["order:status_changed", "delivery:status_changed"])
def test_a_first_status_has_none_before_it(topic: str):
    example = TYPES[topic]["example"]
    assert faults(topic, example | {"old_status": None, "old_state": None}) == []
    assert faults(topic, example | {"old_status": "new", "old_state": "new"}) == []
    assert len(faults(topic, example | {"new_status": None, "new_state": None})) == 2


def test_stock_adjustments_are_by_article_number():
    stock = {"a b/c": {"qty_adjust": 0, "qty_available": -1}, "sku-2": {"qty_adjust": 1}}
    (fault,) = faults("inventory:adjusted", {"stock_adjustments": stock})
    assert fault == Fault("data.stock_adjustments.sku-2.qty_available", "is missing")


@pytest.mark.parametrize("topic", [*NEWER, "test:ping"])
def test_a_newer_message_has_the_time_of_its_event(topic: str):
    assert "event_timestamp" in required(topic)
    assert TYPES[topic]["example"]["event_timestamp"].endswith("+00:00")


@pytest.mark.parametrize("topic", TYPES)
def test_no_message_has_the_counter_that_hookline_adds(topic: str):
    assert "webhook_increment_id" not in keywords(TYPES[topic]["schema"]) | set(TYPES[topic]["example"])


@pytest.mark.parametrize("topic", TYPES)
def test_the_example_fits_the_schema(topic: str):
    schema, example = SCHEMAS[topic], TYPES[topic]["example"]
    assert faults(topic, example) == []
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(example)
    jsonschema_rs.validator_for(schema, validate_formats=True).validate(example)


@pytest.mark.parametrize("topic", TYPES)
def test_no_required_field_may_be_missing_or_of_another_kind(topic: str):
    example = TYPES[topic]["example"]
    assert required(topic)
    for name in required(topic):
        rest = {key: value for key, value in example.items() if key != name}
        assert faults(topic, rest) == [Fault(f"data.{name}", "is missing")]
        assert faults(topic, example | {name: ["unexpected"]}), name


@pytest.mark.parametrize("topic", TYPES)
def test_new_fields_and_new_states_fit(topic: str):
    example = grown(TYPES[topic]["example"])
    example |= {key: "a_new_one" for key in example if key.endswith(("status", "state"))}
    assert faults(topic, example) == []
    assert keywords(SCHEMAS[topic]).isdisjoint({"enum", "const"})


def test_only_the_topic_that_the_vendor_gave_up_is_deprecated():
    deprecated = {name: entry["deprecated"] for name, entry in TYPES.items() if "deprecated" in entry}
    assert deprecated == {"track:created": "use shipment:packed"}


def test_the_demos_warehouse_publishes_what_the_catalogue_says():
    found = [event for event in plan_day(11, 400, date(2026, 3, 14), SCENARIOS) if event.type in TYPES]
    assert {event.type for event in found} == set(OLDER)
    assert [(event.type, wrong) for event in found if (wrong := faults(event.type, event.data))] == []
