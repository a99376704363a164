"""Finding values in an event, and testing them. Nothing here raises, whatever the payload holds."""

from __future__ import annotations

import operator
from collections.abc import Callable
from decimal import Decimal
from itertools import chain, islice
from typing import Any, Final, assert_never

from hookline.core.filter.syntax import Each, Op, Path, Scalar, Step, Term
from hookline.core.model import Event
from hookline.core.payload import MISSING, Json, Missing, Payload

MAX_VALUES: Final = 1_000
"""Values that ``[*]`` and ``contains`` look at; the rest of a longer list is passed over."""

Value = Json | Missing
Find = Callable[[Event, Payload], Value]
FindAll = Callable[[Event, Payload], list[Value]]
Test = Callable[[Value], bool]
TestAll = Callable[[list[Value]], bool]

_NUMBERS: Final = (int, Decimal)
"""Compared with ``type(x) in``: a bool is an int in Python, but not in JSON."""


# --- finding ----------------------------------------------------------------------------------------


def finder(path: Path) -> Find:
    """A function to the one value of a path without ``[*]``."""
    if path.field:
        return _envelope_finder(path.field)
    steps = path.steps
    if len(steps) == 1 and isinstance(steps[0], str):
        return _field_finder(steps[0])

    def find(_: Event, payload: Payload) -> Value:
        value = payload.value
        for step in steps:
            value = _step(value, step)
        return value

    return find


def _envelope_finder(name: str) -> Find:
    read: Callable[[Event], str | None] = operator.attrgetter(name)

    def find(event: Event, _: Payload) -> Value:
        value = read(event)
        return MISSING if value is None else value

    return find


def _field_finder(name: str) -> Find:
    def find(_: Event, payload: Payload) -> Value:
        value = payload.value
        return value.get(name, MISSING) if type(value) is dict else MISSING

    return find


def _step(value: Value, step: Step) -> Value:
    if type(value) is dict and type(step) is str:
        return value.get(step, MISSING)
    if type(value) is list and type(step) is int and step < len(value):
        return value[step]
    return MISSING


def has_each(path: Path) -> bool:
    """Whether the path can lead to several values."""
    return any(isinstance(step, Each) for step in path.steps)


def all_finder(path: Path) -> FindAll:
    """A function to the values of a path with ``[*]``, at most ``MAX_VALUES``."""
    steps = path.steps

    def find(_: Event, payload: Payload) -> list[Value]:
        values: list[Value] = [payload.value]
        for step in steps:
            values = _elements(values) if isinstance(step, Each) else _fields(values, step)
        return values

    return find


def _elements(values: list[Value]) -> list[Value]:
    lists = (value for value in values if type(value) is list)
    return list(islice(chain.from_iterable(lists), MAX_VALUES))


def _fields(values: list[Value], step: str | int) -> list[Value]:
    return [found for value in values if (found := _step(value, step)) is not MISSING]


# --- testing ----------------------------------------------------------------------------------------


def tester(term: Term) -> Test:
    """A function from a value to whether it holds. ``MISSING`` never does."""
    op = term.op
    match op:
        case Op.EXISTS:
            return lambda value: value is not MISSING
        case Op.IN:
            return _one_of(term.literals)
        case Op.EQ:
            return _equal(term.literals[0])
        case Op.NE:
            return _differs(term.literals[0])
        case Op.CONTAINS:
            return _contains(term.literals[0])
        case Op.PREFIX | Op.SUFFIX:
            return _affix(op, str(term.literals[0]))
        case Op.LT | Op.LE | Op.GT | Op.GE:
            return _ordered(op, term.literals[0])
        case _:
            assert_never(op)


def all_tester(term: Term) -> TestAll:
    """A function from the values of a path with ``[*]`` to whether it holds for one of them.

    ``contains`` looks at ``MAX_VALUES`` elements in all, not in each list: lists of lists stay cheap too.
    """
    test = tester(term)
    if term.op is not Op.CONTAINS:
        return lambda values: any(map(test, values))
    equal = _equal(term.literals[0])
    return lambda values: (
        any(test(value) for value in values if type(value) is str) or any(map(equal, _elements(values)))
    )


def _equal(literal: Scalar) -> Test:
    if literal is None or isinstance(literal, bool):
        return lambda value: value is literal
    if isinstance(literal, str):
        return lambda value: type(value) is str and value == literal
    return lambda value: type(value) in _NUMBERS and value == literal


def _differs(literal: Scalar) -> Test:
    equal = _equal(literal)
    return lambda value: value is not MISSING and not equal(value)


def _one_of(literals: tuple[Scalar, ...]) -> Test:
    texts = frozenset(literal for literal in literals if isinstance(literal, str))
    numbers = frozenset(literal for literal in literals if type(literal) in _NUMBERS)
    constants = tuple(literal for literal in literals if literal is None or isinstance(literal, bool))

    def test(value: Value) -> bool:
        if type(value) is str:
            return value in texts
        if type(value) is int or type(value) is Decimal:
            return value in numbers
        return any(value is constant for constant in constants)

    return test


def _contains(literal: Scalar) -> Test:
    equal = _equal(literal)

    def test(value: Value) -> bool:
        if type(value) is list:
            return any(equal(element) for element in islice(value, MAX_VALUES))
        return type(value) is str and isinstance(literal, str) and literal in value

    return test


def _affix(op: Op, text: str) -> Test:
    if op is Op.PREFIX:
        return lambda value: type(value) is str and value.startswith(text)
    return lambda value: type(value) is str and value.endswith(text)


_COMPARE: Final[dict[Op, Callable[[Any, Any], bool]]] = {
    Op.LT: operator.lt,
    Op.LE: operator.le,
    Op.GT: operator.gt,
    Op.GE: operator.ge,
}


def _ordered(op: Op, literal: Scalar) -> Test:
    compare = _COMPARE[op]
    if isinstance(literal, str):
        return lambda value: type(value) is str and compare(value, literal)
    return lambda value: type(value) in _NUMBERS and compare(value, literal)
