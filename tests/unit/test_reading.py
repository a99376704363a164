"""Reading JSON into Structs: every fault at once, each with its place."""

from __future__ import annotations

import time
from enum import StrEnum
from typing import Annotated, Literal

import msgspec
import pytest
from hypothesis import given, strategies
from msgspec import UNSET, Meta, Raw, Struct, UnsetType, field

from hookline.core.errors import InvalidInput, InvalidJson
from hookline.core.reading import MAX_FAULTS, parse_json, read, read_json, read_texts


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Inner(Struct, frozen=True):
    size: int
    tags: tuple[str, ...] = ()


class Outer(Struct, frozen=True):
    name: str
    inner: Inner | None = None
    colour: Colour = Colour.RED
    kind: Literal["a", "b"] = "a"
    rows: list[Inner] = field(default_factory=list[Inner])
    texts: dict[str, str] = field(default_factory=dict[str, str])
    share: Annotated[float, Meta(ge=0, le=1)] = 0
    raw: Raw | None = None
    bare: Raw | UnsetType = UNSET
    start: str = field(default="", name="from")


def faults(body: object) -> dict[str, str]:
    with pytest.raises(InvalidInput) as caught:
        read(Outer, body)
    return {fault.field: fault.message for fault in caught.value.faults}


def test_every_fault_is_named_with_its_place() -> None:
    assert faults(
        {
            "nmae": "x",
            "inner": {"size": "big", "tags": ["a", 1, None]},
            "colour": "green",
            "kind": "c",
            "rows": [{"size": 1}, {"sise": 2}],
            "texts": {"a": "b", "c": 3},
            "share": 2,
        }
    ) == {
        "nmae": "is not known; did you mean 'name'?",
        "name": "is required",
        "inner.size": "expected `int`, got `str`",
        "inner.tags[1]": "expected `str`, got `int`",
        "inner.tags[2]": "expected `str`, got `null`",
        "colour": "must be one of red, blue",
        "kind": "must be one of a, b",
        "rows[1].sise": "is not known; did you mean 'size'?",
        "rows[1].size": "is required",
        "texts.c": "expected `str`, got `int`",
        "share": "expected `float` <= 1.0",
    }


def test_a_good_value_is_read_whole() -> None:
    found = read(Outer, {"name": "n", "inner": {"size": 1, "tags": ["t"]}, "colour": "blue", "from": "x"})
    assert found == Outer("n", Inner(1, ("t",)), Colour.BLUE, start="x")


def test_raw_fields_keep_the_bytes() -> None:
    found = read_json(Outer, b'{"name": "n", "raw": {"total": 1.10}, "bare": null}')
    assert found.raw is not None
    assert bytes(found.raw) == b'{"total": 1.10}'
    assert isinstance(found.bare, Raw)
    assert bytes(found.bare) == b"null"
    assert read_json(Outer, b'{"name": "n", "raw": null}').raw is None


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"", "truncated"),
        (b"{", "truncated"),
        (b'{"a": NaN}', "malformed"),
        (b'{"a": 1e999}', "range"),
        (b'{"a": 1, "a": 2}', "'a' occurs twice"),
        (b'{"a": {"b": 1, "b": 1}}', "'b' occurs twice"),
        (b"[" * 100_000, "deep"),
        (b'{"a": "\xff"}', "utf-8"),
        (b'"\\ud800"', "JSON"),
        (b"{} x", "trailing"),
        (b"\xef\xbb\xbf{}", "malformed"),
    ],
)
def test_what_is_not_json_is_refused(body: bytes, word: str) -> None:
    with pytest.raises(InvalidJson, match=word):
        parse_json(body)


def test_a_name_that_occurs_twice_among_very_many_is_found_at_once() -> None:
    names = [f'"{number}":0' for number in range(60_000)]
    body = f'{{{",".join(names)},"x":1,"x":2}}'.encode()
    began = time.process_time()
    with pytest.raises(InvalidJson, match="'x' occurs twice"):
        parse_json(body)
    assert time.process_time() - began < 5  # looking through all names for each of them takes a minute


@pytest.mark.parametrize(
    "body",
    [
        {f"name{number}": 1 for number in range(5000)},
        {"name": "n", "inner": {f"size{number}": 1 for number in range(5000)}},
        {"name": "n", "inner": {"size": 1, "tags": [5] * 5000}},
        {"name": "n", "rows": [{}] * 5000},
        {"name": "n", "texts": dict.fromkeys(map(str, range(5000)), 5)},
    ],
)
def test_of_very_many_faults_the_first_are_named(body: object) -> None:
    named = faults(body)
    assert MAX_FAULTS <= len(named) < MAX_FAULTS + 20


def test_texts_of_a_query() -> None:
    class Query(Struct, frozen=True):
        limit: int = 50
        flag: bool = False
        states: tuple[Colour, ...] = ()

    read_query = read_texts(Query, [("limit", "5"), ("flag", "true"), ("states", "red,blue")])
    assert read_query == Query(5, True, (Colour.RED, Colour.BLUE))
    assert read_texts(Query, [("states", "")]).states == ()
    with pytest.raises(InvalidInput) as caught:
        read_texts(Query, [("limit", "x"), ("limit", "y"), ("states", "red,pink"), ("lim", "1")])
    assert {fault.field for fault in caught.value.faults} == {"limit", "states[1]", "lim"}


json_values = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers() | strategies.text(),
    lambda inner: (
        strategies.lists(inner, max_size=3) | strategies.dictionaries(strategies.text(), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(json_values)
def test_any_json_is_either_read_or_refused_with_faults(value: object) -> None:
    faulty: list[object] = []
    try:
        read_json(Outer, msgspec.json.encode(value))
    except InvalidInput as error:
        faulty.extend(error.faults)
    assert faulty or (isinstance(value, dict) and "name" in value)
