import json
import re
import string
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookline.core.errors import InvalidInput
from hookline.core.filter import MAX_VALUES, compile_filter
from hookline.core.model import Event
from hookline.core.payload import Payload

DOC = (Path(__file__).parents[2] / "docs/reference/filter-language.md").read_text("utf-8")


def event(data: bytes = b"{}", **fields: str) -> Event:
    envelope = {"id": "evt_1", "type": "order:created", **fields}
    return Event(shard=0, position=1, tenant_no=1, data=data, occurred_at=0, received_at=0, **envelope)


def passes(text: str, data: Any, **fields: str) -> bool:
    given_event = event(json.dumps(data).encode(), **fields)
    return compile_filter(text).matches(given_event, Payload(given_event.data))


def explain(text: str, data: Any, **fields: str) -> list[tuple[str, bool, str]]:
    given_event = event(json.dumps(data).encode(), **fields)
    reasons = compile_filter(text).explain(given_event, Payload(given_event.data))
    return [(reason.rule, reason.passed, reason.detail) for reason in reasons]


def fault(text: str) -> str:
    with pytest.raises(InvalidInput) as caught:
        compile_filter(text)
    assert [one.field for one in caught.value.faults] == ["filter"]
    return caught.value.faults[0].message


# --- the documentation ------------------------------------------------------------------------------


def documented(title: str) -> list[tuple[str, str]]:
    """The rows of the tables whose second column has this title."""
    rows = []
    for table in re.findall(rf"^\| filter \| {title} \|\n\|---\|---\|\n((?:\|.*\|\n)+)", DOC, re.MULTILINE):
        rows += re.findall(r"^\| `(.*)` \| (.*) \|$", table, re.MULTILINE)
    return rows


def documented_event() -> Event:
    raw = re.search(r"```json\n(.*?)```", DOC, re.DOTALL)
    assert raw
    shown = json.loads(raw[1])
    data = raw[1].split('"data":', 1)[1].rsplit("}", 1)[0].encode()
    return event(
        data,
        id=shown["id"],
        type=shown["type"],
        key=shown["key"],
        object_type=shown["object"]["type"],
        object_id=shown["object"]["id"],
        source_application=shown["source"]["application"],
    )


def test_the_documentation_has_examples():
    assert len(documented("passes")) >= 35
    assert len(documented("error")) >= 5


@pytest.mark.parametrize(("text", "result"), documented("passes"))
def test_documented_example(text: str, result: str):
    one = documented_event()
    assert compile_filter(text).matches(one, Payload(one.data)) is (result == "yes")


@pytest.mark.parametrize(("text", "message"), documented("error"))
def test_documented_error(text: str, message: str):
    assert fault(text) == message


# --- values -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "data", "result"),
    [
        ("data == 5", 5, True),
        ("data[0] == 5", [5], True),
        ("data[0] == 5", {"0": 5}, False),
        ('data["0"] == 5', {"0": 5}, True),
        ("data.a == 1", [{"a": 1}], False),
        ("data[*].a == 1", [{"a": 1}], True),
        ("data[*][*] == 3", [[1], [2, 3]], True),
        ("data[*] exists", [], False),
        ("data[*] exists", [None], True),
        ("data.a[*] == 1", {"a": 1}, False),
        ("data.a == null", {"a": None}, True),
        ("data.a == null", {}, False),
        ("data.a == false", {"a": 0}, False),
        ("data.a == 0", {"a": False}, False),
        ("data.a in [0]", {"a": False}, False),
        ("data.a in [false]", {"a": False}, True),
        ("data.a in [false]", {"a": 0}, False),
        ('data.a in ["1"]', {"a": 1}, False),
        ("data.a in [null, 1.0]", {"a": 1}, True),
        ("data.a == -1.5e1", {"a": -15}, True),
        ("data.a < 2", {"a": True}, False),
        ("data.a < 2", {"a": "1"}, False),
        ('data.a < "2"', {"a": "10"}, True),
        ('data.a contains "b"', {"a": "abc"}, True),
        ('data.a contains "b"', {"a": {"b": 1}}, False),
        ("data.a contains 1", {"a": [True, 1.0]}, True),
        ("data.a contains null", {"a": [None]}, True),
        ('data.a prefix ""', {"a": ""}, True),
        ('data.a prefix "x"', {"a": ["x"]}, False),
        ('data["\\u00e9\\n\\"]"] == "\\ud83d\\ude00"', {'é\n"]': "😀"}, True),
        ("data.and == 1 and data.data.exists exists", {"and": 1, "data": {"exists": 0}}, True),
        ("data.a_-$ == 1", {"a_-$": 1}, True),
        ("data . a [ 0 ]\n==\t1", {"a": [1]}, True),
    ],
)
def test_values(text: str, data: Any, result: bool):
    assert passes(text, data) is result


@pytest.mark.parametrize(
    ("text", "data", "result"),
    [
        ("data == 0.1", b"0.1", True),
        ("data == 0.10", b"0.1", True),
        ("data == 0.1000000000000000055511151231257827", b"0.1", False),
        ("data > 1e400", b"1e401", True),
        ("data == 1e2", b"100", True),
        ("data == 123456789012345678901234567890", b"123456789012345678901234567890", True),
        ("data < 123456789012345678901234567890.5", b"123456789012345678901234567890", True),
        ("data in [1e400, 2]", b"10e399", True),
        ("data > 0", b"1e-999999", True),
        ("data exists", b"1e9999999999999999999999", False),
        ("data exists", b"[" * 100_000, False),
        ("data exists", b'"\xff"', False),
        ("data exists", b"", False),
        ("not data exists", b"not json", True),
        ("data.a == 2", b'{"a":1,"a":2}', True),
    ],
)
def test_exact_bytes(text: str, data: bytes, result: bool):
    one = event(data)
    assert compile_filter(text).matches(one, Payload(data)) is result


@pytest.mark.parametrize("name", ["object.type", "object.id", "source.application", "source.user_id", "key"])
def test_envelope_fields(name: str):
    field = {"source.user_id": "source_user"}.get(name, name.replace(".", "_"))
    assert passes(f'{name} == "x"', {}, **{field: "x"})
    assert not passes(f"{name} exists", {})
    assert passes('correlation_id prefix "c" and id == "evt_1"', {}, correlation_id="c1")


def test_long_lists_are_looked_at_up_to_the_bound():
    values = [*range(MAX_VALUES), "last"]
    assert passes(f"data[*] == {MAX_VALUES - 1}", values)
    assert not passes('data[*] == "last"', values)
    assert not passes('data contains "last"', values)
    assert not passes("data[*][*] == 0", [[1] * MAX_VALUES, [0]])
    assert not passes("data[*] contains 0", [[1] * MAX_VALUES, [0]])
    assert passes("data[*] contains 0", [[1] * (MAX_VALUES - 1), [0]])
    assert passes('data[*] contains "b"', [[1] * MAX_VALUES, "abc"])


# --- the syntax -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "column", "part"),
    [
        ("", 1, "expected a path such as data.total or type, found the end"),
        ("   ", 4, "found the end"),
        ("data", 5, "expected ==, !=, <, <=, >, >=, in"),
        ("and", 1, "expected a path"),
        ("true == data.a", 1, "expected a path"),
        ('"x" == data.a', 1, "expected a path"),
        ("exists data.a", 1, "write exists after the path"),
        ("object == 1", 1, "object is no path"),
        ("object.size == 1", 1, "object.size is no path"),
        ("type.x == 1", 1, "type.x is no path"),
        ("data.a == data.b", 11, "expected a value"),
        ("data.a == 01", 12, "expected and, or, or the end, found 1"),
        ("data.a == 1 data.b == 2", 13, "expected and, or, or the end, found data"),
        ("data.a == 1 && data.b == 2", 13, "write and"),
        ("data.a == 1 || data.b == 2", 13, "write or"),
        ("data.a == 1 AND data.b == 2", 13, "write and in small letters"),
        ("!data.a exists", 1, "write not"),
        ("data.a < true", 10, "expected a number or text after <"),
        ("data.a prefix 1", 15, "expected a text in quotes after prefix"),
        ("data.a in 1", 11, "expected a list such as [1, 2] after in"),
        ("data.a in []", 12, "expected a value"),
        ("data.a in [1 2]", 14, "expected , or ]"),
        ("data.a in [1,]", 14, "expected a value"),
        ("data[-1] == 1", 6, "expected a list index"),
        ("data[1.0] == 1", 6, "expected a list index"),
        ("data[1234567] == 1", 6, "expected a list index"),
        ("data[x] == 1", 6, "expected a list index"),
        ("data[0 == 1", 8, "expected ]"),
        ("data. == 1", 7, "expected a field name"),
        ("data.2x == 1", 6, "expected a field name"),
        ('data.a == "open', 11, "no closing quote"),
        ('data.a == "\\x"', 11, "escape that JSON does not know"),
        ('data.a == "\\ud800"', 11, "escape that JSON does not know"),
        ('data.a == "a\nb"', 11, "no closing quote"),
        ("data.a == 1e99999999999999999999", 11, "out of range"),
        ("data.a == ☃", 11, "'☃' has no meaning here"),
        ("data.a == 1)", 12, "expected and, or, or the end, found )"),
        ("(" * 21 + "data.a exists" + ")" * 21, 21, "nested more than 20 deep"),
        ("not " * 21 + "data.a exists", 81, "nested more than 20 deep"),
        (" or ".join(["key exists"] * 101), 1401, "more than 100 comparisons"),
        (" or ".join(["data[*] == 1"] * 21), 325, "more than 20 comparisons with [*]"),
        (f"data in [{','.join('1' * 201)}]", 9, "at most 200 values"),
    ],
)
def test_faults_name_their_place(text: str, column: int, part: str):
    message = fault(text)
    assert message.startswith(f"column {column}: ")
    assert part in message


def test_the_error_shows_the_place():
    with pytest.raises(InvalidInput) as caught:
        compile_filter("data.total >\n 100 and  data.currency = 5")
    lines = caught.value.detail.splitlines()
    assert lines[1] == "  data.total >  100 and  data.currency = 5"
    assert lines[1][lines[2].index("^")] == "="


def test_bounds_are_usable_to_the_last():
    assert compile_filter("(" * 20 + "key exists" + ")" * 20)
    assert compile_filter(" or ".join(["key exists"] * 100))
    assert compile_filter(f"data in [{','.join('1' * 200)}]")
    assert compile_filter("key exists".ljust(2000))
    assert "2000 characters" in fault("key exists".ljust(2001))


# --- explanations -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "data", "expected"),
    [
        ("data.a > 100", {"a": 80}, [("data.a > 100", False, "data.a is 80, not > 100")]),
        ("data.a > 100", {"a": 120.5}, [("data.a > 100", True, "data.a is 120.5")]),
        ("data.a > 100", {}, [("data.a > 100", False, "data.a is missing")]),
        ("not data.a > 1", {"a": 2}, [("not data.a > 1", False, "data.a is 2")]),
        ("not data.a exists", {}, [("not data.a exists", True, "data.a is missing")]),
        ("data.a exists", {"a": None}, [("data.a exists", True, "data.a is null")]),
        ('data.a == "x"', {"a": {"b": 1}}, [('data.a == "x"', False, 'data.a is an object, not == "x"')]),
        (
            'data[*] in ["x"]',
            [1, True, "a", [], None, 6, 7],
            [
                (
                    'data[*] in ["x"]',
                    False,
                    'data[*] has 1, true, "a", a list of 0, null and 2 more, none in ["x"]',
                )
            ],
        ),
        ("data[*] > 5", [1, 6], [("data[*] > 5", True, "data[*] has 6")]),
        ("data[*] > 5", [], [("data[*] > 5", False, "data[*] is missing")]),
        (
            "data.a == 1 and (data.b == 1 or data.c == 1)",
            {"a": 1, "b": 2},
            [
                ("data.a == 1", True, "data.a is 1"),
                ("data.b == 1 or data.c == 1", False, "data.b is 2, not == 1; data.c is missing"),
            ],
        ),
        (
            "data.a == 1 or data.b == 1 and data.c == 1",
            {"a": 2, "b": 1},
            [
                (
                    "data.a == 1 or data.b == 1 and data.c == 1",
                    False,
                    "data.a is 2, not == 1; data.c is missing",
                )
            ],
        ),
    ],
)
def test_explanations(text: str, data: Any, expected: list[tuple[str, bool, str]]):
    assert explain(text, data) == expected


def test_an_unreadable_payload_is_named():
    one = event(b"{nonsense")
    (reason,) = compile_filter("data.a exists").explain(one, Payload(one.data))
    assert not reason.passed
    assert reason.detail.startswith("the payload is not valid JSON")
    assert Payload(b"[" * 100_000).fault == "the payload is nested too deeply"
    assert "exponent" in Payload(b"1e9999999999999999999999").fault


def test_explanations_are_short():
    ((_, _, detail),) = explain(
        f'data.a == "{"y" * 1000}" or data.b == 1', {"a": "x" * 100_000, "b": [0] * 9}
    )
    assert len(detail) < 300
    ((_, _, detail),) = explain(" or ".join(["data.a == 1"] * 99), {"a": "x" * 100})
    assert len(detail) <= 500


# --- against a plain evaluator ----------------------------------------------------------------------

NAMES = ["a", "b", "c"]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.integers(10**30, 10**30 + 1),
    st.decimals(-2, 2, places=1),
    st.text("ab", max_size=2),
)
PAYLOADS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(NAMES), inner, max_size=3)
    ),
    max_leaves=12,
)
STEPS = st.lists(st.one_of(st.sampled_from(NAMES), st.integers(0, 2), st.just("*")), max_size=3)


def write(value: Any) -> str:
    """JSON text that keeps decimals exact."""
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, list):
        return f"[{','.join(map(write, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{json.dumps(name)}:{write(member)}' for name, member in value.items())}}}"
    return json.dumps(value)


def path_text(steps: list[str | int]) -> str:
    return "data" + "".join(f".{step}" if step in NAMES else f"[{step}]" for step in steps)


def reach(value: Any, steps: list[str | int]) -> Iterator[Any]:
    if not steps:
        yield value
    elif steps[0] == "*":
        for element in value if isinstance(value, list) else ():
            yield from reach(element, steps[1:])
    elif isinstance(steps[0], int):
        if isinstance(value, list) and steps[0] < len(value):
            yield from reach(value[steps[0]], steps[1:])
    elif isinstance(value, dict) and steps[0] in value:
        yield from reach(value[steps[0]], steps[1:])


def kind(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return repr(value)
    return "number" if isinstance(value, int | Decimal) else type(value).__name__


def same(one: Any, other: Any) -> bool:
    return kind(one) == kind(other) and one == other


COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": same,
    "!=": lambda one, other: not same(one, other),
    "<": lambda one, other: kind(one) == kind(other) and one < other,
    "<=": lambda one, other: kind(one) == kind(other) and one <= other,
    ">": lambda one, other: kind(one) == kind(other) and one > other,
    ">=": lambda one, other: kind(one) == kind(other) and one >= other,
    "prefix": lambda one, other: isinstance(one, str) and one.startswith(other),
    "suffix": lambda one, other: isinstance(one, str) and one.endswith(other),
    "contains": lambda one, other: (
        any(same(element, other) for element in one)
        if isinstance(one, list)
        else isinstance(one, str) and isinstance(other, str) and other in one
    ),
}


def operand(op: str) -> st.SearchStrategy[Any]:
    if op in ("prefix", "suffix"):
        return st.text("ab", max_size=2)
    if op[0] in "<>":
        return SCALARS.filter(lambda value: kind(value) in ("number", "str"))
    return SCALARS


@st.composite
def terms(draw: st.DrawFn) -> tuple[str, Callable[[Any], bool]]:
    steps = draw(STEPS)
    op = draw(st.sampled_from([*COMPARE, "in", "exists"]))
    if op == "exists":
        return f"{path_text(steps)} exists", lambda data: any(True for _ in reach(data, steps))
    if op == "in":
        listed = draw(st.lists(SCALARS, min_size=1, max_size=3))
        return (
            f"{path_text(steps)} in {write(listed)}",
            lambda data: any(same(value, one) for value in reach(data, steps) for one in listed),
        )
    literal, compare = draw(operand(op)), COMPARE[op]
    return (
        f"{path_text(steps)} {op} {write(literal)}",
        lambda data: any(compare(value, literal) for value in reach(data, steps)),
    )


def combine(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        inner.map(lambda one: (f"not ({one[0]})", lambda data: not one[1](data))),
        st.tuples(inner, inner).map(
            lambda two: (
                (f"({two[0][0]}) and {two[1][0]}", lambda data: two[0][1](data) and two[1][1](data))
                if " or " not in two[1][0]
                else (f"({two[0][0]}) or ({two[1][0]})", lambda data: two[0][1](data) or two[1][1](data))
            )
        ),
    )


FILTERS = st.recursive(terms(), combine, max_leaves=5)


@given(FILTERS, PAYLOADS)
def test_agrees_with_a_plain_evaluator(written: tuple[str, Callable[[Any], bool]], data: Any):
    text, expected = written
    one = event(write(data).encode())
    compiled = compile_filter(text)
    assert compiled.matches(one, Payload(one.data)) is expected(data)
    assert all(reason.passed for reason in compiled.explain(one, Payload(one.data))) is expected(data)


@given(FILTERS, st.binary(max_size=40))
def test_never_raises_whatever_the_payload(written: tuple[str, object], data: bytes):
    one = event(data)
    compiled = compile_filter(written[0])
    assert compiled.matches(one, Payload(data)) in (True, False)
    assert compiled.explain(one, Payload(data))


ALPHABET = st.sampled_from(
    [*string.printable, "data", " == ", " and ", "not ", '"x"', "[*]", " in [1]", "(", ")", "é"]
)


@given(st.lists(ALPHABET, max_size=30).map("".join))
def test_any_text_is_a_filter_or_a_fault_with_its_place(text: str):
    try:
        compile_filter(text)
    except InvalidInput as error:
        column = re.match(r"column (\d+): ", error.faults[0].message)
        assert column
        assert 1 <= int(column[1]) <= len(text) + 1
