"""Schemas of the catalogue as parts of a larger document: they must mean there what they mean alone."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest

from hookline.api.schemas import embedded
from hookline.core.schema import compile_schema
from hookline.profiles.catalogue import shipped

PLACE = "#/components/schemas/x"
DIALECTS = {
    False: "https://json-schema.org/draft/2020-12/schema",
    True: "http://json-schema.org/draft-07/schema#",
}
OLD = {number: f"http://json-schema.org/draft-0{number}/schema#" for number in (4, 6, 7)}

Cases = tuple[dict[str, Any] | bool, list[Any], list[Any]]

CASES: dict[str, Cases] = {
    "true": (True, [1, {}], []),
    "false": (False, [], [1, {}]),
    "shared part": ({"$defs": {"n": {"type": "integer"}}, "items": {"$ref": "#/$defs/n"}}, [[1]], [["x"]]),
    "pointer into a property": (
        {"properties": {"a": {"type": "integer"}, "b": {"$ref": "#/properties/a"}}},
        [{"b": 1}],
        [{"b": "x"}],
    ),
    "odd names": (
        {"$defs": {"a/b ~é%": {"type": "integer"}}, "$ref": "#/$defs/a~1b%20~0%C3%A9%25"},
        [1],
        ["x"],
    ),
    "itself": (
        {"type": "object", "properties": {"child": {"$ref": "#"}}},
        [{"child": {"child": {}}}],
        [{"child": {"child": 1}}],
    ),
    "anchor": ({"$defs": {"n": {"$anchor": "num", "type": "integer"}}, "$ref": "#num"}, [1], ["x"]),
    "own id": (
        {"$id": "https://example.com/x", "$defs": {"n": {"type": "integer"}}, "$ref": "#/$defs/n"},
        [1],
        ["x"],
    ),
    "beside a reference": (
        {"$defs": {"n": {"type": "integer"}}, "$ref": "#/$defs/n", "minimum": 5, "allOf": [{"maximum": 9}]},
        [5, 9],
        [4, 10, "x"],
    ),
    "tuple": (
        {"prefixItems": [{"type": "integer"}, {"$ref": "#/prefixItems/0"}], "items": {"type": "string"}},
        [[1, 2, "x"]],
        [["x"], [1, "x"], [1, 2, 3]],
    ),
    "dependencies": (
        {"dependentRequired": {"a": ["b"]}, "dependentSchemas": {"c": {"required": ["d"]}}},
        [{"a": 1, "b": 1}, {"c": 1, "d": 1}],
        [{"a": 1}, {"c": 1}],
    ),
    "contains none or more": ({"contains": {"type": "null"}, "minContains": 0}, [[], [1]], []),
    "names like keywords": (
        {"properties": {"$ref": {"type": "integer"}, "items": {"type": "string"}, "$id": True}},
        [{"$ref": 1, "items": "x", "$id": 1}],
        [{"$ref": "x"}, {"items": 1}],
    ),
    "a list under a name that is a number": (
        {"properties": {"items": {"$ref": "#/$defs/0"}}, "$defs": {"0": {"type": "integer"}}},
        [{"items": 1}],
        [{"items": "x"}],
    ),
    "draft 4": (
        {"$schema": OLD[4], "minimum": 1, "exclusiveMinimum": True, "maximum": 9, "exclusiveMaximum": False},
        [2, 9],
        [1, 10],
    ),
    "draft 6": ({"$schema": OLD[6], "exclusiveMinimum": 1, "const": 2}, [2], [1, 3]),
    "draft 7": (
        {
            "$schema": OLD[7],
            "definitions": {"n": {"type": "integer"}},
            "items": [{"$ref": "#/definitions/n", "minimum": 5}, {"$ref": "#/items/0"}],
            "additionalItems": False,
            "dependencies": {"a": ["b"], "c": {"required": ["d"]}},
        },
        [[1, 2], {"a": 1, "b": 1}, {"c": 1, "d": 1}],
        [["x"], [1, "x"], [1, 2, 3], {"a": 1}, {"c": 1}],
    ),
    "a reference at the root of draft 7": (
        {
            "$schema": OLD[7],
            "$ref": "#/definitions/n",
            "definitions": {"n": {"type": "integer"}},
            "minimum": 5,
        },
        [1],
        ["x"],
    ),
}


def placed(schema: object, *, draft7: bool) -> Any:
    """A validator of the whole document whose root refers to the schema."""
    part = embedded(json.dumps(schema).encode(), PLACE, draft7=draft7)
    text = json.dumps(part)
    assert not any(f'"{word}":' in text for word in ("$schema", "$anchor"))
    document = {
        "$schema": DIALECTS[draft7],
        "allOf": [{"$ref": PLACE}],
        "components": {"schemas": {"x": part}},
    }
    jsonschema_rs.meta.validate(document)
    return jsonschema_rs.validator_for(document)


@pytest.mark.parametrize("draft7", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_a_schema_means_the_same_where_it_is_embedded(name: str, draft7: bool) -> None:
    schema, good, bad = CASES[name]
    compile_schema(json.dumps(schema).encode())
    found = placed(schema, draft7=draft7)
    assert [value for value in good if not found.is_valid(value)] == []
    assert [value for value in bad if found.is_valid(value)] == []


@pytest.mark.parametrize(
    ("schema", "good"),
    [
        ({"properties": {"a": True}, "unevaluatedProperties": False}, {"a": 1}),
        ({"contains": {"type": "null"}, "maxContains": 1}, [None]),
    ],
)
def test_draft_7_allows_more_where_it_has_no_word(schema: dict[str, Any], good: object) -> None:
    assert placed(schema, draft7=True).is_valid(good)


def test_the_original_is_not_touched() -> None:
    part = embedded(b'{"items":{"$ref":"#/$defs/n"},"$defs":{"n":{"type":"integer"}}}', PLACE)
    assert part == {"items": {"$ref": f"{PLACE}/$defs/n"}, "$defs": {"n": {"type": "integer"}}}


@pytest.mark.parametrize("draft7", [False, True])
@pytest.mark.parametrize("profile", ["avvyr", "evolutionx", "shipstream", "frontsystems"])
def test_what_is_shipped_can_be_embedded(profile: str, draft7: bool) -> None:
    for one in shipped(profile).values():
        found = placed(json.loads(one.schema or b"true"), draft7=draft7)
        assert found.is_valid(json.loads(one.example or b"null")), one.name
