"""Files with event types: what is read from them, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookline.core.errors import HooklineError, InvalidInput
from hookline.core.model import EventType, TypeSource
from hookline.profiles import PROFILES
from hookline.profiles.catalogue import MAX_FILE_BYTES, MAX_TYPES, TypeFile, read_types, shipped

ENTRY: dict[str, Any] = {
    "name": "order:created",
    "description": "An order was placed.",
    "usage": "Reserve stock.",
    "schema": {"type": "object", "properties": {"total": {"$ref": "#/$defs/money"}}},
    "example": {"total": {"amount": "1.10"}},
}
DEFS = {
    "money": {"type": "object", "properties": {"amount": {"$ref": "#/$defs/amount"}}},
    "amount": {"type": "string"},
    "unused": {"type": "null"},
}


def entry(**changes: Any) -> dict[str, Any]:
    return ENTRY | changes


def file_of(*entries: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"group": "Orders", "$defs": DEFS, "types": list(entries), **changes}


def read(document: object) -> TypeFile:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    return read_types(text, "orders.json", TypeSource.FILE, 1000)


def only(document: object) -> EventType:
    (found,) = read(document).types.values()
    return found


def refused(document: object) -> dict[str, str]:
    with pytest.raises(InvalidInput) as caught:
        read(document)
    assert caught.value.detail.startswith("orders.json: ")
    return {fault.field: fault.message for fault in caught.value.faults}


# --- what is read ------------------------------------------------------------------------------------------


def test_a_type_has_all_that_its_file_says() -> None:
    given = entry(object_type="order", origin="choice", deprecated="use order:placed", order=7)
    assert only(file_of(given)) == EventType(
        tenant_no=0,
        name="order:created",
        description="An order was placed.",
        version=1,
        created_at=1000,
        updated_at=1000,
        group="Orders",
        usage="Reserve stock.",
        schema=(
            b'{"type":"object","properties":{"total":{"$ref":"#/$defs/money"}},"$defs":{"amount":{"type":"string"},'
            b'"money":{"type":"object","properties":{"amount":{"$ref":"#/$defs/amount"}}}}}'
        ),
        example=b'{"total":{"amount":"1.10"}}',
        deprecated_at=1000,
        source=TypeSource.FILE,
        object_type="order",
        origin="choice",
        deprecation="use order:placed",
        order=7,
    )


def test_a_type_needs_no_more_than_the_five_fields() -> None:
    found = only({"group": "", "types": [entry(schema={}, example=1)]})
    assert (found.deprecated_at, found.object_type, found.origin, found.order) == (None, "", "", 0)
    assert (found.schema, found.example) == (b"{}", b"1")


def test_a_file_may_be_for_one_profile() -> None:
    assert read(file_of(ENTRY)).profile == ""
    assert read(file_of(ENTRY, profile="shipstream")).profile == "shipstream"


def test_numbers_keep_their_digits() -> None:
    text = json.dumps(file_of(entry(example=0))).replace(
        '"example": 0', '"example": {"total": {}, "n": 1.10}'
    )
    found = only(
        text.replace('"amount": {"type": "string"}', '"amount": {"type": "string", "x": 2.50}').encode()
    )
    assert found.example == b'{"total":{},"n":1.10}'
    assert b'"x":2.50' in (found.schema or b"")


@pytest.mark.parametrize(
    ("schema", "example", "parts"),
    [
        ({"$ref": "#/$defs/money"}, {}, {"money", "amount"}),
        ({"$ref": "#/$defs/money/properties/amount"}, "1", {"money", "amount"}),
        ({"allOf": [{"items": {"$ref": "#/$defs/amount"}}]}, ["1"], {"amount"}),
        ({"$defs": {"own": {"$ref": "#/$defs/amount"}}, "$ref": "#/$defs/own"}, "1", {"own", "amount"}),
        ({"properties": {"$ref": {"type": "string"}}}, {}, None),
        ({"const": {"$ref": "#/$defs/money"}}, {"$ref": "#/$defs/money"}, None),
        (True, {}, None),
    ],
)
def test_a_schema_gets_the_shared_parts_that_it_reaches(
    schema: object, example: object, parts: set[str] | None
) -> None:
    found = json.loads(only(file_of(entry(schema=schema, example=example))).schema or b"")
    assert (set(found["$defs"]) if parts else found) == (parts or schema)


def test_parts_with_odd_names_are_found() -> None:
    document = file_of(entry(schema={"$ref": "#/$defs/a~1b%20~0c"}, example=1))
    document["$defs"] = {"a/b ~c": {"type": "integer"}}
    assert json.loads(only(document).schema or b"")["$defs"] == {"a/b ~c": {"type": "integer"}}


def test_parts_that_refer_to_each_other_are_copied_once() -> None:
    document = file_of(entry(schema={"$ref": "#/$defs/tree"}, example={"children": [{}]}))
    document["$defs"] = {
        "tree": {"type": "object", "properties": {"children": {"$ref": "#/$defs/trees"}}},
        "trees": {"type": "array", "items": {"$ref": "#/$defs/tree"}},
    }
    assert set(json.loads(only(document).schema or b"")["$defs"]) == {"tree", "trees"}


# --- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "place", "message"),
    [
        (b"", "", "not valid JSON"),
        (b"\xff", "", "not valid JSON"),
        (b"[" * 100_000, "", "nested too deeply"),
        (b'{"types": [], "types": []}', "", "occurs twice"),
        ([], "", "expected `object`"),
        ({}, "group", "is required"),
        ({"group": "", "types": [], "tpyes": 1}, "tpyes", "did you mean 'types'?"),
        ({"group": 1, "types": []}, "group", "expected `str`"),
        (file_of(profile="shipsteam"), "profile", "did you mean 'shipstream'?"),
        (file_of({}), "types[0].name", "is required"),
        (file_of(entry(exmaple=1)), "types[0].exmaple", "did you mean 'example'?"),
        (file_of(entry(origin="guess")), "types[0].origin", "must be one of , stated, choice"),
        (file_of(entry(name="a b")), "types[0] (a b) name", "an event type is"),
        (file_of(entry(name="hookline.x")), "types[0] (hookline.x) name", "Hookline's own"),
        (file_of(ENTRY, ENTRY), "types[1] (order:created) name", "occurs twice in this file"),
        (file_of(entry(description="\x00")), "types[0] (order:created) description", "control characters"),
        (file_of(ENTRY, group="x" * 201), "types[0] (order:created) group", "at most 200"),
        (file_of(entry(schema=7)), "types[0] (order:created) schema", "must be a JSON object"),
        (file_of(entry(schema={"type": "x"})), "types[0] (order:created) schema.type", "is not valid"),
        (
            file_of(entry(schema={"$ref": "#/$defs/monye"})),
            "types[0] (order:created) schema.$ref",
            "lead to a schema in this document",
        ),
        (
            file_of(entry(schema={"$ref": "https://example.com/x"})),
            "types[0] (order:created) schema.$ref",
            "never fetched",
        ),
        (
            file_of(entry(schema={"$defs": {"money": {}}})),
            "types[0] (order:created) schema.$defs.money",
            "the whole file shares",
        ),
        (
            file_of(entry(example={"total": {"amount": 1}})),
            "types[0] (order:created) example.total.amount",
            "is not of type",
        ),
        (
            file_of(entry(schema={}, example=json.loads("[" * 66 + "]" * 66))),
            "types[0] (order:created) example",
            "nested more than 64 deep",
        ),
    ],
)
def test_a_fault_is_told_with_its_place(document: object, place: str, message: str) -> None:
    with pytest.raises(HooklineError) as caught:
        read(document)
    told = {fault.field: fault.message for fault in caught.value.faults} or {"": caught.value.detail}
    assert message in told[place], told


def test_all_faults_are_told_at_once() -> None:
    faults = refused(file_of(entry(name="a b"), entry(example={"total": 1}), entry(name="c", schema=[])))
    assert [field.partition(" ")[0] for field in faults] == ["types[0]", "types[1]", "types[2]"]


def test_a_file_has_bounds() -> None:
    assert "may have" in refused(b" " * (MAX_FILE_BYTES + 1)).get("", "a file may have")
    many = file_of(
        *({"schema": {}, "example": 1} | entry(name=f"t{n}", schema={}) for n in range(MAX_TYPES + 1))
    )
    assert refused(many) == {"types": f"a file may have {MAX_TYPES} types; this one has {MAX_TYPES + 1}"}


def test_a_shared_part_cannot_make_a_schema_larger_than_schemas_may_be() -> None:
    document = file_of(entry(schema={"$ref": "#/$defs/big"}, example=1))
    document["$defs"] = {"big": {"description": "x" * 300_000}}
    assert "at most 262144 are allowed" in refused(document)["types[0] (order:created) schema"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.binary(max_size=60))
def test_whatever_is_in_a_file_is_read_or_refused(text: bytes) -> None:
    with pytest.raises(HooklineError):
        read(text)


@given(
    st.sampled_from(["name", "description", "schema", "example", "origin", "order", "deprecated"]),
    json_values,
)
def test_whatever_stands_in_a_field_is_read_or_refused(field: str, value: object) -> None:
    try:
        found = only(file_of(entry(**{field: value})))
    except InvalidInput:
        return
    check = jsonschema_rs.validator_for(json.loads(found.schema or b""))
    assert check.is_valid(json.loads(found.example or b""))


def test_the_file_in_the_guide_is_one() -> None:
    page = Path(__file__).parents[2] / "docs/how-to/add-event-types.md"
    (text,) = re.findall(r"^```json\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert only(text.encode()).name == "loyalty:earned"


# --- what is shipped ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("profile", "least"),
    [("avvyr", 20), ("evolutionx", 5), ("shipstream", 24), ("frontsystems", 19), ("standard", 0)],
)
def test_profiles_bring_their_platforms_types(profile: str, least: int) -> None:
    types = shipped(profile)
    assert len(types) >= least
    for name, found in types.items():
        assert (found.name, found.source, found.tenant_no) == (name, TypeSource.SHIPPED, 0)
        assert found.group
        assert found.description
        assert found.schema
        assert found.example


def test_there_is_nothing_for_an_unknown_profile() -> None:
    assert shipped("../demo") == {}
    assert set(PROFILES) >= {"standard", "cloudevents", "avvyr", "evolutionx", "shipstream", "frontsystems"}
