import itertools
import json
import time
from copy import deepcopy
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hookline.core.errors import Fault, InvalidInput
from hookline.core.payload import Payload
from hookline.core.schema import MAX_BYTES, MAX_FAULTS, Schema, breaking_changes, compile_schema
from hookline.core.schema.cost import positions

ORDER: dict[str, Any] = {
    "type": "object",
    "required": ["id", "lines"],
    "properties": {
        "id": {"type": "string", "minLength": 1},
        "total": {"type": "number", "minimum": 0},
        "status": {"enum": ["open", "paid"]},
        "lines": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["sku", "qty"],
                "properties": {
                    "sku": {"type": "string"},
                    "qty": {"type": "integer"},
                    "gift note": {"type": "string"},
                },
            },
        },
    },
}


def compiled(schema: Any) -> Schema:
    return compile_schema(json.dumps(schema).encode())


def refused(schema: Any) -> Fault:
    with pytest.raises(InvalidInput) as caught:
        compile_schema(schema if isinstance(schema, bytes) else json.dumps(schema).encode())
    return caught.value.faults[0]


def places(schema: Any, data: Any) -> list[str]:
    return [fault.field for fault in compiled(schema).faults(data)]


# --- payloads ---------------------------------------------------------------------------------------


def test_a_fitting_payload_has_no_faults():
    lines = [{"sku": "TEA", "qty": 2, "more": None}]
    assert compiled(ORDER).faults({"id": "1", "total": 12.5, "status": "paid", "lines": lines}) == []
    assert compiled(True).faults({"a": 1}) == []


def test_faults_name_their_place():
    lines = [{"sku": "TEA", "qty": "2"}, {"sku": "CUP"}, {"sku": "CAN", "qty": 1, "gift note": 5}]
    assert sorted(places(ORDER, {"total": -1, "status": "lost", "lines": lines})) == [
        "data.id",
        "data.lines[0].qty",
        "data.lines[1].qty",
        'data.lines[2]["gift note"]',
        "data.status",
        "data.total",
    ]
    assert places(ORDER, []) == ["data"]


def test_a_missing_field_is_named():
    assert compiled({"required": ['a "b"']}).faults({}) == [Fault('data["a "b""]', "is missing")]


def test_faults_are_few_and_short():
    faults = compiled(ORDER).faults({"id": 5, "lines": ["x" * 10_000] * 1000})
    assert len(faults) == MAX_FAULTS
    assert all(len(fault.message) < 250 for fault in faults)


def test_numbers_keep_their_digits():
    schema = compiled({"maximum": 10})
    assert schema.faults(Decimal("10.0000000000000000000000001"))
    assert schema.faults(Decimal("10.00")) == []
    assert schema.faults(10**30)


@pytest.mark.parametrize(
    "dialect",
    ["https://json-schema.org/draft/2020-12/schema", "http://json-schema.org/draft-07/schema#",
     "http://json-schema.org/draft-04/schema#"],
)  # fmt: skip
def test_dialects(dialect: str):
    assert places({"$schema": dialect, "properties": {"a": {"type": "string"}}}, {"a": 1}) == ["data.a"]


def test_references_inside_the_document_are_followed():
    schema = {
        "$id": "https://shop.example/order",
        "$defs": {"a/b~c": {"$anchor": "sku", "type": "string"}},
        "properties": {"a": {"$ref": "#/$defs/a~1b~0c"}, "b": {"$ref": "#sku"}, "c": {"$ref": "#"}},
    }
    assert places(schema, {"a": 1, "b": 2, "c": {"a": 3}}) == ["data.a", "data.b", "data.c.a"]


# --- what is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "place", "part"),
    [
        (b"{", "schema", "not valid JSON"),
        (b'"\xff"', "schema", "not valid JSON"),
        (b"[]", "schema", "must be a JSON object"),
        (b"1", "schema", "must be a JSON object"),
        (b"[" * 5000, "schema", "deep"),
        (b" " * (MAX_BYTES + 1), "schema", "at most 262144"),
        (b'{"maximum": 1e99999999999999999999}', "schema", "not valid JSON"),
        ({"type": "text"}, "schema.type", "not valid"),
        ({"properties": {"a": {"minLength": -1}}}, "schema.properties.a.minLength", "minimum"),
        ({"$schema": "https://example.com/mine"}, "schema.$schema", "must be one of"),
        ({"$ref": "https://example.com/x"}, "schema.$ref", "never fetched"),
        ({"items": {"$ref": "file:///etc/passwd"}}, "schema.items.$ref", "never fetched"),
        ({"$ref": "other.json#/x"}, "schema.$ref", "never fetched"),
        ({"$ref": "#/$defs/none"}, "schema.$ref", "must begin with #"),
        ({"$ref": "#none"}, "schema.$ref", "must begin with #"),
        ({"properties": {"a": {"$id": "b"}}}, "schema.properties.a.$id", "root"),
        ({"$dynamicRef": "#x"}, "schema.$dynamicRef", "not supported"),
        ({"$ref": "#"}, "schema", "refers to itself"),
        ({"anyOf": [{"not": {"$ref": "#"}}]}, "schema", "refers to itself"),
        ({"properties": {"a": {"pattern": "(?=x)"}}}, "schema.properties.a.pattern", "look-around"),
        ({"pattern": "(a)\\1"}, "schema.pattern", "back-references"),
        ({"pattern": "(((a{100}){100}){100}){100}"}, "schema.pattern", "too large"),
        ({"properties": {str(n): {"pattern": "a"} for n in range(201)}}, "schema", "201 patterns"),
        ({"properties": {str(n): {} for n in range(3000)}}, "schema", "more than 2000 subschemas"),
    ],
)
def test_unusable_schemas(schema: Any, place: str, part: str):
    fault = refused(schema)
    assert fault.field.startswith(place)
    assert part in fault.message


def test_deep_schemas_are_refused():
    schema: dict[str, Any] = {}
    for _ in range(40):
        schema = {"properties": {"a": schema}}
    assert "deep" in refused(schema).message


def fan_out(levels: int) -> dict[str, Any]:
    """Each level refers to the next one twice: 2 to the power of ``levels`` checks of one value."""
    two = {str(level): {"anyOf": [{"$ref": f"#/$defs/{level + 1}"}] * 2} for level in range(levels)}
    return {"$defs": {**two, str(levels): {"const": 1}}, "$ref": "#/$defs/0"}


@pytest.mark.parametrize(
    "schema",
    [
        fan_out(30),
        {"allOf": [{"properties": {"a": {"$ref": "#"}}}] * 2},
        {"properties": {"a": {"$ref": "#"}}, "patternProperties": {"a": {"$ref": "#"}}},
        {"items": {"$ref": "#"}, "contains": {"$ref": "#"}},
        {"properties": {"a": {"properties": {"a": {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}}}}},
    ],
)
def test_schemas_that_multiply_are_refused(schema: Any):
    started = time.process_time()
    assert "could apply to one place" in refused(schema).message
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    "schema",
    [
        fan_out(6),
        {"properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}},
        {"additionalProperties": {"$ref": "#"}, "items": {"$ref": "#"}},
        {"oneOf": [{"properties": {"kind": {"const": n}}, "required": ["kind"]} for n in range(100)]},
    ],
)
def test_schemas_that_branch_are_fine(schema: Any):
    assert compiled(schema)


def test_recursive_schemas_bound_the_depth_of_a_payload():
    def nested(levels: int) -> Any:
        data: Any = {}
        for _ in range(levels):
            data = {"child": data}
        return data

    tree = compiled({"properties": {"child": {"$ref": "#"}}, "additionalProperties": False})
    assert tree.faults(nested(64)) == []
    assert "more than 64 deep" in tree.faults(nested(65))[0].message
    assert compiled({"type": "object"}).faults(nested(100)) == []


def test_patterns_take_linear_time():
    schema = compiled({"pattern": "^(a|a)*$"})
    started = time.process_time()
    assert schema.faults("a" * 100_000 + "b")
    assert time.process_time() - started < 2


def array(element: bytes, count: int) -> bytes:
    return b"[" + b",".join([element] * count) + b"]"


MANY = [{"const": number} for number in range(450)]


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"items": {"anyOf": MANY}}, array(b"449", 300_000)),
        ({"items": {"anyOf": MANY}}, array(b"-1", 300_000)),
        ({"anyOf": [{"items": {"type": "string"}}, {"items": {"type": "null"}}]}, array(b"1", 500_000)),
        ({"items": {"type": "string"}}, array(b"1", 500_000)),
        ({"allOf": [{"type": "string"}] * 450}, array(b"1", 500_000)),
        ({"items": {"enum": [number + 0.5 for number in range(20_000)]}}, array(b"19999.5", 100_000)),
        ({"items": {"enum": [[number] for number in range(30_000)]}}, array(b"[29999]", 100_000)),
        ({"items": {"allOf": [{"multipleOf": 0.01}] * 450}}, array(b"4.5", 200_000)),
        ({"items": {"dependentRequired": {f"{n:x}": ["a"] for n in range(15_000)}}}, array(b"{}", 300_000)),
        ({"items": {"dependencies": {f"{n:x}": ["a"] for n in range(15_000)}}}, array(b"{}", 300_000)),
        ({"pattern": "[01]*1[01]{1500}[23]"}, b'"' + b"0110100110010110" * 60_000 + b'"'),
        ({"pattern": "((a?b?){9}c?){99}[xy]"}, b'"' + b"abc" * 300_000 + b'"'),
        (
            {"propertyNames": {"allOf": [{"pattern": f"[01]*1[01]{{200}}[23]{n}"} for n in range(50)]}},
            b'{"' + b"0110100110010110" * 60_000 + b'":1}',
        ),
        ({"uniqueItems": True, "items": {"$ref": "#"}}, array(array(b"1", 1000), 400)),
    ],
    ids=lambda value: str(value)[:40],
)
def test_no_schema_makes_a_payload_of_a_megabyte_take_long(schema: Any, text: bytes):
    """The validator holds up the whole process, and with it all tenants."""
    ready, data = compiled(schema), Payload(text).value
    started = time.perf_counter()
    faults = ready.faults(data, text)
    assert time.perf_counter() - started < 1
    assert all(len(fault.message) < 300 for fault in faults)


def test_what_would_take_long_is_refused_with_a_way_out():
    (fault,) = compiled({"items": {"anyOf": MANY}}).faults([1] * 300_000, array(b"1", 300_000))
    assert fault.field == "data"
    assert "at most 5000000 are allowed: send less in one event" in fault.message


def test_large_payloads_of_ordinary_types_are_checked():
    """A megabyte against a schema of the usual kind: fits, and names the place if it does not."""
    line = {
        "sku": {"type": "string", "pattern": "^[A-Z0-9-]{1,40}$"},
        "qty": {"type": "integer", "minimum": 1},
    }
    kinds = [f"kind-{number}" for number in range(300)]
    schema = compiled(
        {
            "properties": {
                "kind": {"enum": kinds},
                "lines": {"items": {"properties": line, "required": ["sku"], "additionalProperties": False}},
            }
        }
    )
    lines = [{"sku": f"TEA-{number}", "qty": 2} for number in range(30_000)]
    text = json.dumps({"kind": "kind-299", "lines": lines}).encode()
    assert schema.faults(Payload(text).value, text) == []
    wrong = text.replace(b'"TEA-777", "qty": 2', b'"TEA-777", "qty": 0')
    assert [fault.field for fault in schema.faults(Payload(wrong).value, wrong)] == ["data.lines[777].qty"]


def test_all_faults_are_named_below_some_kilobytes():
    schema, data = (
        compiled({"items": {"anyOf": [{"type": "string"}, {"type": "null"}]}}),
        [1, "a", 2, None, 3],
    )
    faults = schema.faults(data, json.dumps(data).encode())
    assert [fault.field for fault in faults] == ["data[0]", "data[2]", "data[4]"]


@pytest.mark.parametrize(
    ("pattern", "length"),
    [
        ("abc", 3), ("a{5}", 5), ("a{2,5}", 5), ("a{3,}", 3), ("(ab){10}", 40), ("(a{10}b){10}", 130),
        ("[a-z{9}]{4}", 4), (r"\p{L}{3}", 3), (r"\{9}", 3), ("a{2}{3}", 6), (r"[\]a]{7}", 7), ("a?{9}", 18),
        ("a{99999999999}", 1_000_000), ("a{", 2), ("a)", 2),
    ],
)  # fmt: skip
def test_the_length_of_a_pattern_counts_its_repetitions(pattern: str, length: int):
    assert positions(pattern) == length


# --- changes ----------------------------------------------------------------------------------------


def changes(old: Any, new: Any) -> list[Fault]:
    return breaking_changes(json.dumps(old).encode(), json.dumps(new).encode())


def changed(*path: str, value: Any = None) -> dict[str, Any]:
    """``ORDER`` with the value at ``path`` replaced, or removed for None."""
    schema = deepcopy(ORDER)
    node = schema
    for step in path[:-1]:
        node = node[step]
    if value is None:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return schema


LINE = ("properties", "lines", "items")


@pytest.mark.parametrize(
    "new",
    [
        ORDER,
        changed("properties", "note", value={"type": "string"}),
        changed("title", value="An order"),
        changed(*LINE, "properties", "price", value={"type": "number"}),
        changed("required", value=["id", "lines", "total"]),
        changed("additionalProperties", value=False),
        changed("properties", "total", "type", value="integer"),
        changed("properties", "total", "minimum", value=0.01),
        changed("properties", "total", "exclusiveMinimum", value=0),
        changed("properties", "total", value={"enum": [1, 2], "minimum": 1}),
        changed("properties", "status", "enum", value=["paid"]),
        changed("properties", "status", value={"const": "open"}),
        changed("properties", "id", value={"type": "string", "minLength": 2, "format": "uuid"}),
        changed("properties", "lines", "minItems", value=1),
        changed("properties", "total", value={"$ref": "#/properties/sum"})
        | {"properties": {**ORDER["properties"], "sum": {"type": "integer", "minimum": 5}}},
    ],
    ids=str,
)
def test_changes_that_break_nobody(new: Any):
    assert changes(ORDER, new) == []


@pytest.mark.parametrize(
    ("new", "place", "part"),
    [
        (changed("properties", "total"), "data.total", "was removed"),
        (changed(*LINE, "properties", "gift note"), 'data.lines[*]["gift note"]', "was removed"),
        (changed("required", value=["id"]), "data.lines", "may now be missing"),
        (changed(*LINE, "required"), "data.lines[*].sku", "may now be missing"),
        (changed("properties", "id", "type", value=["string", "null"]), "data.id", "type null"),
        (changed(*LINE, "properties", "qty", "type", value="number"), "data.lines[*].qty", "type number"),
        (changed(*LINE, "properties", "qty", "type"), "data.lines[*].qty", "may now also be of type"),
        (
            changed("properties", "status", "enum", value=["open", "paid", "lost"]),
            "data.status",
            'new values: "lost"',
        ),
        (changed("properties", "status", "enum"), "data.status", "no longer limited"),
        (changed("properties", "total", "minimum"), "data.total", "smaller than the old minimum"),
        (changed("properties", "total", "minimum", value=-1), "data.total", "smaller"),
        (changed("properties", "id", "minLength"), "data.id", "fewer characters than minLength"),
        (changed("properties", "lines", "items"), "data.lines[*]", "may now also be of type"),
        (changed("type", value=["object", "array"]), "data", "type array"),
    ],
    ids=str,
)
def test_changes_that_break_receivers(new: Any, place: str, part: str):
    faults = changes(ORDER, new)
    assert place in [fault.field for fault in faults]
    assert any(part in fault.message for fault in faults if fault.field == place)


KIND_A = {"properties": {"kind": {"const": "a"}, "x": {"type": "integer"}}, "required": ["kind"]}
KIND_B = {"properties": {"kind": {"const": "b"}}, "required": ["kind"]}
KIND_A_MORE = {"properties": {**KIND_A["properties"], "y": {"type": "string"}}, "required": ["kind"]}
KIND_C = {"properties": {"kind": {"const": "c"}}, "required": ["kind"]}
OBJECT = {"type": "object"}
TREE = {"$defs": {"n": {"properties": {"children": {"items": {"$ref": "#/$defs/n"}}}}}, "$ref": "#/$defs/n"}


@pytest.mark.parametrize(
    ("old", "new", "breaks"),
    [
        ({}, {"type": "string"}, False),
        (True, ORDER, False),
        (ORDER, False, False),
        (ORDER, True, True),
        (False, {}, True),
        (False, {"enum": []}, False),
        ({"const": 1}, {"const": 1.0}, False),
        ({"const": 1}, {"const": True}, True),
        ({"const": {"a": [1]}}, {"enum": [{"a": [1.0]}]}, False),
        ({"enum": [1, 2], "const": 1}, {"enum": [1, 2]}, True),
        ({"enum": [None, True, False]}, {"type": ["boolean", "null"]}, False),
        ({"type": "integer"}, {"const": 5.0}, False),
        ({"type": "integer"}, {"const": 5.5}, True),
        ({"multipleOf": 5}, {"multipleOf": 10}, False),
        ({"multipleOf": 5}, {"multipleOf": 12}, True),
        ({"multipleOf": 0.1}, {"multipleOf": 0.2}, True),
        ({"multipleOf": 0.1}, {"multipleOf": 0.1, "minimum": 3}, False),
        ({"exclusiveMaximum": 5}, {"maximum": 5}, True),
        ({"maximum": 5}, {"exclusiveMaximum": 5}, False),
        ({"maximum": 5}, {"type": "string"}, False),
        ({"pattern": "^a"}, {"pattern": "^a", "maxLength": 5}, False),
        ({"pattern": "^a"}, {"pattern": "^ab"}, True),
        ({"format": "date"}, {}, True),
        ({"uniqueItems": True}, {"uniqueItems": True, "maxItems": 3}, False),
        ({"uniqueItems": True}, {"maxItems": 3}, True),
        ({"uniqueItems": False}, {}, False),
        ({"prefixItems": [{"type": "string"}]}, {"prefixItems": [{"const": "x"}, {"const": 2}]}, False),
        ({"prefixItems": [{"type": "string"}], "items": False}, {"prefixItems": [{"const": "x"}, {"const": 2}]}, True),
        ({"prefixItems": [{"type": "string"}]}, {"maxItems": 0}, False),
        ({"properties": {"a": {}}, "additionalProperties": False}, {"properties": {"a": {}}}, True),
        (
            {"properties": {"a": {}}, "additionalProperties": False},
            {"properties": {"a": {}, "b": {}}, "additionalProperties": False},
            True,
        ),
        ({"additionalProperties": {"type": "string"}}, {"properties": {"a": {"type": "integer"}}}, True),
        (
            {"additionalProperties": {"type": "string"}},
            {"properties": {"a": {"const": "x"}}, "additionalProperties": {"enum": ["y"]}},
            False,
        ),
        (
            {"patternProperties": {"^x-": {"type": "string"}}, "additionalProperties": False},
            {"patternProperties": {"^x-": {"const": "1"}}, "additionalProperties": False, "minProperties": 1},
            False,
        ),
        (
            {"patternProperties": {"^x-": {"type": "string"}}, "additionalProperties": False},
            {"patternProperties": {"^y-": {"type": "string"}}, "additionalProperties": False},
            True,
        ),
        ({"allOf": [{"type": "string"}, {"minLength": 2}]}, {"type": "string", "minLength": 3}, False),
        ({"type": "string", "minLength": 2}, {"allOf": [{"type": "string"}, {"minLength": 3}]}, False),
        ({"allOf": [{"type": "string"}, {"minLength": 2}]}, {"type": "string"}, True),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, {"type": "string"}, False),
        ({"type": ["string", "null"]}, {"anyOf": [{"type": "string"}, {"type": "null"}]}, False),
        ({"type": "string"}, {"anyOf": [{"type": "string"}, {"type": "null"}]}, True),
        ({"oneOf": [KIND_A, KIND_B], **OBJECT}, {"oneOf": [KIND_A_MORE, KIND_B], **OBJECT}, False),
        ({"oneOf": [KIND_A, KIND_B], **OBJECT}, {"oneOf": [KIND_A], **OBJECT}, False),
        ({"oneOf": [KIND_A, KIND_B], **OBJECT}, {"oneOf": [KIND_A, KIND_B, KIND_C], **OBJECT}, True),
        ({"oneOf": [{"minimum": 1}, {"maximum": 9}]}, {"oneOf": [{"minimum": 2}, {"maximum": 9}]}, True),
        ({"not": {"const": 1}}, {"not": {"const": 1}, "type": "integer"}, False),
        ({"not": {"const": 1}}, {"not": {"enum": [1, 2]}}, True),
        ({"if": {"const": 1}, "then": False}, {"if": {"const": 1}, "then": False, "minimum": 0}, False),
        ({"if": {"const": 1}, "then": False}, {"if": {"const": 1}}, True),
        ({"dependentRequired": {"a": ["b"]}}, {"dependentRequired": {"a": ["b"]}, "required": ["a"]}, False),
        ({"contains": {"const": 1}}, {"contains": {"const": 1}, "minContains": 2}, True),
        (
            {"properties": {"a": {}}, "unevaluatedProperties": False},
            {"properties": {"a": {}, "b": {}}, "unevaluatedProperties": False},
            True,
        ),
        (
            {"unevaluatedProperties": False},
            {"anyOf": [{"properties": {"a": {}}}], "unevaluatedProperties": False},
            True,
        ),
        (TREE, TREE, False),
        (TREE, {**TREE, "$defs": {"n": {"properties": {**TREE["$defs"]["n"]["properties"], "x": {}}}}}, False),
        (TREE, {"$defs": {"n": {"properties": {"children": {}}}}, "$ref": "#/$defs/n"}, True),
        ({"$defs": {"a": {"not": {"type": "null"}}}, "not": {"$ref": "#/$defs/a"}},
         {"$defs": {"a": {"not": {"type": "string"}}}, "not": {"$ref": "#/$defs/a"}}, True),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, {}, True),
        ({"description": "x", "properties": {"title": {"type": "string"}}}, {"properties": {"title": {}}}, True),
    ],
    ids=str,
)  # fmt: skip
def test_single_rules(old: Any, new: Any, breaks: bool):
    assert bool(changes(old, new)) is breaks


def test_the_first_schema_breaks_nobody():
    assert breaking_changes(None, b"{}") == []


def test_an_unusable_new_schema_is_refused_and_an_old_one_reported():
    with pytest.raises(InvalidInput):
        breaking_changes(b"{}", b'{"$ref": "https://example.com"}')
    (fault,) = breaking_changes(b'{"$ref": "https://example.com"}', b"{}")
    assert "old schema cannot be compared" in fault.message


def test_long_chains_are_given_up_rather_than_followed():
    def chain(last: Any) -> dict[str, Any]:
        links = {str(n): {"properties": {"a": {"$ref": f"#/$defs/{n + 1}"}}} for n in range(600)}
        return {"$defs": {**links, "600": last}, "$ref": "#/$defs/0"}

    assert changes(chain({"type": "string"}), chain({"type": "integer"}))


def test_alternatives_that_multiply_are_given_up():
    def wide(last: int) -> dict[str, Any]:
        branches = [{"anyOf": [{"minimum": n}, {"minLength": n}]} for n in range(2, 16)]
        return {"allOf": [*branches, {"maximum": last}]}

    started = time.process_time()
    assert changes(wide(5), wide(6))
    assert time.process_time() - started < 5


NAMES = ["a", "b"]
LEAVES = [None, True, False, 0, 1, 2, 1.5, "", "a", "bb"]
OBJECTS = [
    {name: value for name, value in zip(NAMES, pair, strict=True) if value != "-"}
    for pair in itertools.product(["-", None, 1, 1.5, "a", {}, {"a": 1}, [1]], repeat=2)
]
ARRAYS = [[], *([x] for x in LEAVES), *([x, y] for x in LEAVES[3:] for y in ("a", 1)), [{"a": 1}], [1, 1, 1]]
VALUES = [*LEAVES, *OBJECTS, *ARRAYS, {"x-a": 1}, {"a": 1, "c": "a"}]

TYPES = st.sampled_from(["null", "boolean", "integer", "number", "string", "array", "object"])
SMALL = st.integers(0, 2)


def keyword_values(inner: st.SearchStrategy[Any]) -> dict[str, st.SearchStrategy[Any]]:
    some = st.lists(inner, min_size=1, max_size=2)
    return {
        "type": TYPES | st.lists(TYPES, min_size=1, max_size=3, unique=True),
        "enum": st.lists(st.sampled_from(LEAVES), min_size=1, max_size=4),
        "const": st.sampled_from(VALUES),
        "minimum": SMALL,
        "exclusiveMaximum": SMALL,
        "multipleOf": st.sampled_from([1, 2, 0.5]),
        "maxLength": SMALL,
        "pattern": st.sampled_from(["^a", "b$"]),
        "minItems": SMALL,
        "maxItems": SMALL,
        "uniqueItems": st.booleans(),
        "items": inner,
        "prefixItems": some,
        "contains": inner,
        "required": st.lists(st.sampled_from(NAMES), max_size=2, unique=True),
        "properties": st.dictionaries(st.sampled_from(NAMES), inner, max_size=2),
        "patternProperties": st.dictionaries(st.sampled_from(["^a", "^x"]), inner, max_size=1),
        "additionalProperties": inner,
        "unevaluatedProperties": st.booleans(),
        "propertyNames": st.just({"maxLength": 1}),
        "minProperties": SMALL,
        "maxProperties": SMALL,
        "allOf": some,
        "anyOf": some,
        "oneOf": some,
        "not": inner,
        "if": inner,
        "then": inner,
        "else": inner,
        "$ref": st.just("#/$defs/d"),
    }


@st.composite
def schemas(draw: st.DrawFn, depth: int) -> Any:
    """A schema of up to three keywords, ``depth`` levels deep."""
    values = keyword_values(schemas(depth - 1) if depth else st.booleans())
    chosen = draw(st.lists(st.sampled_from(sorted(values)), max_size=3, unique=True))
    return deepcopy({name: draw(values[name]) for name in chosen})


def subschemas(node: Any) -> list[dict[str, Any]]:
    """The objects in a schema, itself included. (Some hold properties: then new ones appear there.)"""
    parts = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    found = [part for inside in parts for part in subschemas(inside)]
    return [node, *found] if isinstance(node, dict) else found


@st.composite
def versions(draw: st.DrawFn) -> tuple[Any, Any]:
    """A schema, and one that differs from it here and there."""
    old = draw(schemas(2))
    new = deepcopy(old)
    for _ in range(draw(st.integers(1, 3))):
        node = draw(st.sampled_from(subschemas(new)))
        if node and draw(st.booleans()):
            del node[draw(st.sampled_from(sorted(node)))]
        else:
            node.update(draw(schemas(1)))
    types = draw(TYPES), draw(TYPES)
    return {**old, "$defs": {"d": {"type": types[0]}}}, {**new, "$defs": {"d": {"type": types[1]}}}


@settings(max_examples=150, deadline=None)
@given(versions() | st.tuples(schemas(1), schemas(1)))
def test_what_is_let_through_is_valid_for_the_old_schema(pair: tuple[Any, Any]):
    try:
        old, new = (compiled(schema) for schema in pair)
    except InvalidInput:
        return
    if changes(*pair) == []:
        wrong = [value for value in VALUES if new.faults(value) == [] and old.faults(value) != []]
        assert wrong == []


@settings(deadline=None)
@given(versions())
def test_a_schema_never_breaks_itself(pair: tuple[Any, Any]):
    try:
        compiled(pair[0])
    except InvalidInput:
        return
    assert changes(pair[0], pair[0]) == []


def variants(count: int, listed: int, first: int = 0) -> dict[str, Any]:
    """Alternatives that differ by the values of one field."""
    values = [
        list(range(first + number * listed, first + number * listed + listed)) for number in range(count)
    ]
    return {
        "oneOf": [
            {"type": "object", "required": ["z"], "properties": {"z": {"enum": each}}} for each in values
        ]
    }


def referring(**more: object) -> dict[str, Any]:
    """Many fields that share one long list of values."""
    fields = {f"p{number}": {"$ref": "#/$defs/one", **more} for number in range(500)}
    return {"$defs": {"one": {"enum": list(range(30_000))}}, "properties": fields}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (referring(), referring(maximum=99_999)),
        (variants(240, 150), variants(240, 150, first=1)),
        (
            {"oneOf": [{"type": "object", "required": [*map(str, range(60)), "z"], "properties": {"z": {"const": n}}}
                       for n in range(400)]},
            {"type": "object"},
        ),
        ({"required": [*map(str, range(20_000))]}, {"required": [*map(str, range(20_000))], "maximum": 1}),
    ],
    ids=["long-list", "long-alternatives", "many-alternatives", "many-names"],
)  # fmt: skip
def test_no_change_takes_long_to_look_at(old: Any, new: Any):
    started = time.perf_counter()
    changes(old, new)
    assert time.perf_counter() - started < 4
