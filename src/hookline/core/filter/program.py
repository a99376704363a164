"""A parsed filter as one function, and what it says about an event in plain words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Final, assert_never, final

import msgspec
from msgspec import Struct

from hookline.core.filter.syntax import All, AnyOf, Node, Not, Op, Term
from hookline.core.filter.values import Value, all_finder, all_tester, finder, has_each, tester
from hookline.core.model import Event
from hookline.core.payload import MISSING, Missing, Payload

_MAX_DETAIL: Final = 500
_MAX_SHOWN: Final = 60
_SHOWN_VALUES: Final = 5

Check = Callable[[Event, Payload], bool]


class Reason(Struct, frozen=True):
    """One rule, whether the event passed it, and what was found there."""

    rule: str
    passed: bool
    detail: str


@final
class Filter:
    """A condition on events. Made by ``compile_filter``."""

    __slots__ = ("_node", "matches", "text")

    def __init__(self, text: str, node: Node) -> None:
        self.text = text
        self._node = node
        self.matches: Check = _compile(node)
        """Whether an event passes. Never raises: what cannot be compared does not pass."""

    def explain(self, event: Event, payload: Payload) -> list[Reason]:
        """A reason for each part that must hold (the parts of the outermost ``and``)."""
        parts = self._node.nodes if isinstance(self._node, All) else (self._node,)
        return [_reason(part, event, payload) for part in parts]


# --- one function -----------------------------------------------------------------------------------


def _compile(node: Node) -> Check:
    match node:
        case Term():
            return _compile_term(node)
        case Not():
            inner = _compile(node.node)
            return lambda event, payload: not inner(event, payload)
        case All():
            return _compile_all([_compile(part) for part in node.nodes])
        case AnyOf():
            return _compile_any([_compile(part) for part in node.nodes])
        case _:
            assert_never(node)


def _compile_term(term: Term) -> Check:
    if has_each(term.path):
        find_all, test_all = all_finder(term.path), all_tester(term)
        return lambda event, payload: test_all(find_all(event, payload))
    find, test = finder(term.path), tester(term)
    return lambda event, payload: test(find(event, payload))


def _compile_all(checks: Sequence[Check]) -> Check:
    def check(event: Event, payload: Payload) -> bool:
        for part in checks:  # noqa: SIM110 - a plain loop is half the cost of all() over a generator
            if not part(event, payload):
                return False
        return True

    return check


def _compile_any(checks: Sequence[Check]) -> Check:
    def check(event: Event, payload: Payload) -> bool:
        for part in checks:  # noqa: SIM110 - as above
            if part(event, payload):
                return True
        return False

    return check


# --- plain words ------------------------------------------------------------------------------------


def _reason(node: Node, event: Event, payload: Payload) -> Reason:
    passed, detail = _explain(node, event, payload)
    return Reason(node.text, passed, _shorten(detail, _MAX_DETAIL))


def _explain(node: Node, event: Event, payload: Payload) -> tuple[bool, str]:
    match node:
        case Term():
            return _explain_term(node, event, payload)
        case Not():
            passed, detail = _explain(node.node, event, payload)
            return not passed, detail
        case All() | AnyOf():
            found = [_explain(part, event, payload) for part in node.nodes]
            return _join(isinstance(node, All), found)
        case _:
            assert_never(node)


def _join(every: bool, found: list[tuple[bool, str]]) -> tuple[bool, str]:
    """The parts that decided: those that failed an ``and`` or passed an ``or``, else all of them."""
    deciding = [detail for passed, detail in found if passed is not every]
    if deciding:
        return not every, "; ".join(deciding)
    return every, "; ".join(detail for _, detail in found)


def _explain_term(term: Term, event: Event, payload: Payload) -> tuple[bool, str]:
    test = tester(term)
    if has_each(term.path):
        return _explain_many(term, all_finder(term.path)(event, payload), payload)
    value = finder(term.path)(event, payload)
    passed = test(value)
    if isinstance(value, Missing):
        return (
            passed,
            payload.fault if payload.fault and not term.path.field else f"{term.path.text} is missing",
        )
    found = f"{term.path.text} is {show(value)}"
    return passed, found if passed or term.op is Op.EXISTS else f"{found}, not {_condition(term)}"


def _explain_many(term: Term, values: list[Value], payload: Payload) -> tuple[bool, str]:
    test = tester(term)
    if all_tester(term)(values):
        return True, f"{term.path.text} has {show(next(filter(test, values), MISSING))}"
    if not values:
        return False, payload.fault or f"{term.path.text} is missing"
    shown = ", ".join(show(value) for value in values[:_SHOWN_VALUES])
    more = f" and {len(values) - _SHOWN_VALUES} more" if len(values) > _SHOWN_VALUES else ""
    return False, f"{term.path.text} has {shown}{more}, none {_condition(term)}"


def _condition(term: Term) -> str:
    return f"{term.op} {_shorten(term.operand, _MAX_SHOWN)}"


def show(value: Value) -> str:
    """A value for people: short, and as JSON where it can be."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, Decimal | int) and not isinstance(value, bool):
        return _shorten(str(value), _MAX_SHOWN)
    if isinstance(value, Missing):
        return "missing"
    if isinstance(value, str):
        value = _shorten(value, _MAX_SHOWN)
    return msgspec.json.encode(value).decode()


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
