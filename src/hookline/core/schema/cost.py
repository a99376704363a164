"""What checking a payload against a schema may take, known before it begins.

The validator cannot be interrupted and holds the interpreter while it works, so a payload is only given to it when the
most that it may have to do is known to be little. A step is about 0.1 µs (measured with jsonschema-rs 0.60).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Final

from msgspec import Struct

from hookline.core.payload import Json
from hookline.core.schema.tree import Pointer, SchemaNode, SchemaTree

MAX_STEPS: Final = 5_000_000
"""Steps that one payload may take: about half a second."""
NAMING_STEPS: Final = 20_000
"""Up to here all faults are named: each costs hundreds of steps, and may quote its value in full."""
_NAMING_BYTES: Final = 2_000_000

_CAP: Final = 1 << 40
_WORDS_OF_CONTEXT: Final = ("anyOf", "oneOf")
_MULTIPLE: Final = 15
_FRACTION: Final = 18
_LARGE: Final = 7
_NESTED: Final = 3
_UNIQUE: Final = 8
_PER_POSITION: Final = 20
"""Bytes that a pattern takes past one of its positions in one step."""


class Cost(Struct, frozen=True):
    """The most steps that a schema may take: for each value of a payload, and for each ``_PER_POSITION`` bytes."""

    per_value: int
    per_bytes: int
    context: bool
    """Whether its first fault carries all those of its alternatives."""

    def steps(self, text: bytes) -> int:
        """For the payload that ``text`` is."""
        return self.per_value * _values(text) + self.per_bytes * len(text) // _PER_POSITION

    def can_name_all(self, text: bytes) -> bool:
        """Whether naming all faults is cheap."""
        return self.steps(text) <= NAMING_STEPS and self.per_value * len(text) <= _NAMING_BYTES


def _values(text: bytes) -> int:
    """The most values that there can be in a JSON text."""
    return 1 + text.count(b",") + text.count(b"[") + text.count(b"{")


def cost_of(tree: SchemaTree) -> Cost:
    """The cost of a schema that has no faults."""
    nodes = tree.nodes
    context = any(
        isinstance(node, dict) and not node.keys().isdisjoint(_WORDS_OF_CONTEXT) for node in nodes.values()
    )
    values = {pointer: _value_steps(node) for pointer, node in nodes.items()}
    patterns = {pointer: _positions_in(node) for pointer, node in nodes.items()}
    return Cost(_most(tree, values), _most(tree, patterns) if any(patterns.values()) else 0, context)


def _most(tree: SchemaTree, weights: Mapping[Pointer, int]) -> int:
    return tree.applied(weights, _CAP)


# --- values -----------------------------------------------------------------------------------------


def _value_steps(node: SchemaNode) -> int:
    if isinstance(node, bool):
        return 1
    steps = 1 + _MULTIPLE * ("multipleOf" in node) + _UNIQUE * (node.get("uniqueItems") is True)
    for keyword in ("dependentRequired", "dependencies"):
        names = node.get(keyword)
        steps += len(names) if isinstance(names, dict) else 0
    return steps + _listed_steps(node.get("enum")) + _listed_steps([node.get("const")])


def _listed_steps(listed: Json) -> int:
    """Texts and small integers alone are looked up at once; in other lists, each value is compared."""
    if not isinstance(listed, list) or all(map(_is_text, listed)) or all(map(_is_small, listed)):
        return 0
    return sum(map(_compare_steps, listed))


def _is_text(value: Json) -> bool:
    return isinstance(value, str)


def _is_small(value: Json) -> bool:
    return isinstance(value, int) and abs(value) < 1 << 62


def _compare_steps(value: Json) -> int:
    if isinstance(value, Decimal):
        return _FRACTION
    if isinstance(value, dict):
        return _NESTED + sum(map(_compare_steps, value.values()))
    if isinstance(value, list):
        return _NESTED + sum(map(_compare_steps, value))
    return 1 if _is_small(value) or not isinstance(value, int) else _LARGE


# --- patterns ---------------------------------------------------------------------------------------

_PART: Final = re.compile(
    r"\\[pPxu]\{[^}]*\}|\\.|\[(?:\\.|[^\]\\])*\]|\{(?P<least>\d+)(?:,(?P<most>\d*))?\}|.", re.DOTALL
)
_MANY: Final = 1_000_000
"""More repetitions than any pattern may have."""


def _positions_in(node: SchemaNode) -> int:
    if isinstance(node, bool):
        return 0
    return sum(map(positions, _patterns(node)))


def _patterns(node: dict[str, Json]) -> Iterator[str]:
    pattern = node.get("pattern")
    if isinstance(pattern, str):
        yield pattern
    named = node.get("patternProperties")
    if isinstance(named, dict):
        yield from named


def positions(pattern: str) -> int:
    """The length of a pattern with its repetitions written out: what each letter of a text may have to be held
    against."""
    groups = [0]
    last = 0
    for part in _PART.finditer(pattern):
        if part["least"] is not None:
            times = _times(part["least"], part["most"])
            groups[-1] += last * (times - 1)
            last *= times
        elif part[0] == "(":
            groups.append(1)
        elif part[0] == ")" and len(groups) > 1:
            last = groups.pop() + 1
            groups[-1] += last
        else:
            last = last + 1 if part[0] in "*+?" else 1
            groups[-1] += 1
    return sum(groups)


def _times(least: str, most: str | None) -> int:
    return max(1, *(_MANY if len(digits) > 6 else int(digits) for digits in (least, most or "0")))
