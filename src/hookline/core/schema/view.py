"""What can be known of a subschema without a value: its parts side by side, and bounds on what they allow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Final, final

from hookline.core.payload import Json
from hookline.core.schema.tree import LEGACY_DRAFTS, SchemaNode, SchemaTree

Part = dict[str, Json]
Number = int | Decimal

NUMERIC: Final = frozenset({"integer", "fraction"})
ALL_TYPES: Final = frozenset({"null", "boolean", "object", "array", "string"}) | NUMERIC
"""JSON's types, with ``number`` cut into whole numbers and the rest."""


# --- JSON values ------------------------------------------------------------------------------------


def json_key(value: Json) -> object:
    """Equal keys mean equal JSON: 1 is 1.0 and not true, and the order of members does not count."""
    if isinstance(value, dict):
        return ("object", frozenset((name, json_key(member)) for name, member in value.items()))
    if isinstance(value, list):
        return ("array", tuple(json_key(element) for element in value))
    return (_type_of(value), value)


def _type_of(value: Json) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case Decimal():
            return "integer" if _is_whole(value) else "fraction"
        case str():
            return "string"
        case list():
            return "array"
        case dict():
            return "object"


def _is_whole(value: Decimal) -> bool:
    """Exact, and without writing out the digits of a number such as 1e999999."""
    _, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int) or exponent >= 0:
        return True
    return not any(digits[exponent:])


def show(value: Json) -> str:
    return f'"{value[:60]}"' if isinstance(value, str) else str(value)[:60]


def number_of(value: Json) -> Number | None:
    return value if isinstance(value, int | Decimal) and not isinstance(value, bool) else None


def names_in(value: Json) -> list[str]:
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []


def schemas_by_name(value: Json) -> dict[str, SchemaNode]:
    if not isinstance(value, dict):
        return {}
    return {name: node for name, node in value.items() if isinstance(node, dict | bool)}


def schemas_in(value: Json) -> list[SchemaNode]:
    return [node for node in value if isinstance(node, dict | bool)] if isinstance(value, list) else []


def types_named(value: Json) -> frozenset[str]:
    names = {value} if isinstance(value, str) else set(names_in(value))
    return frozenset(names - {"number"} | (NUMERIC if "number" in names else set()))


# --- what is known of one schema --------------------------------------------------------------------


@final
class View:
    """A schema as the conjunction of its parts: itself, its references and its ``allOf``, laid side by side.

    What a view answers is an upper bound: the values that the schema allows are among those.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = parts
        self.types = self._types()
        self.finite = self._finite()

    def values(self, keyword: str) -> Iterator[Json]:
        return (part[keyword] for part in self.parts if keyword in part)

    def _types(self) -> frozenset[str]:
        types = ALL_TYPES
        for part in self.parts:
            if "type" in part:
                types &= types_named(part["type"])
            if (listed := listed_values(part)) is not None:
                types &= {_type_of(value) for value in listed}
        return types

    def _finite(self) -> list[Json] | None:
        """All values that there can be, or None if there is no such list."""
        lists = [listed for part in self.parts if (listed := listed_values(part)) is not None]
        if lists:
            return min(lists, key=len)
        if self.types <= {"null", "boolean"}:
            return [value for value in (None, False, True) if _type_of(value) in self.types]
        return None

    def required(self) -> set[str]:
        return {name for value in self.values("required") for name in names_in(value)}

    def declares(self, name: str) -> bool:
        return any(name in schemas_by_name(value) for value in self.values("properties"))

    def declared(self) -> list[str]:
        return list(
            dict.fromkeys(name for value in self.values("properties") for name in schemas_by_name(value))
        )

    def field(self, name: str) -> tuple[SchemaNode, ...]:
        """What holds for a field, declared or not. Patterns are left out: that only makes it weaker."""
        found: list[SchemaNode] = []
        for part in self.parts:
            own = schemas_by_name(part.get("properties"))
            if name in own:
                found.append(own[name])
            elif "patternProperties" not in part:
                found.append(node_of(part.get("additionalProperties", True)))
        return tuple(found)

    def other_fields(self) -> tuple[SchemaNode, ...]:
        """What holds for a field that no part declares, by name or by pattern."""
        return tuple(node_of(part.get("additionalProperties", True)) for part in self.parts)

    def element(self, index: int) -> tuple[SchemaNode, ...]:
        """What holds for the element at ``index``."""
        return tuple(element_of(part, index) for part in self.parts)

    def prefix_length(self) -> int:
        return max((len(prefix_of(part)) for part in self.parts), default=0)

    def longest(self) -> Number | None:
        return min(
            (n for value in self.values("maxItems") if (n := number_of(value)) is not None), default=None
        )


def node_of(value: Json) -> SchemaNode:
    return value if isinstance(value, dict | bool) else True


def listed_values(part: Part) -> list[Json] | None:
    enum = part.get("enum")
    listed = enum if isinstance(enum, list) else None
    if "const" not in part:
        return listed
    const = part["const"]
    return [const] if listed is None or json_key(const) in map(json_key, listed) else []


def prefix_of(part: Part) -> list[SchemaNode]:
    """Schemas by position: ``prefixItems``, or a list under ``items`` in older drafts."""
    return schemas_in(part.get("prefixItems")) or schemas_in(part.get("items"))


def rest_of(part: Part) -> SchemaNode:
    """The schema of the elements behind the prefix."""
    items = part.get("items", True)
    return node_of(part.get("additionalItems", True)) if isinstance(items, list) else node_of(items)


def element_of(part: Part, index: int) -> SchemaNode:
    prefix = prefix_of(part)
    return prefix[index] if index < len(prefix) else rest_of(part)


# --- limits -----------------------------------------------------------------------------------------

Limit = tuple[Number, bool]
"""A bound, and whether it is itself excluded."""


def limits_of(part: Part, keyword: str) -> list[Limit]:
    """The bounds of ``minimum`` or ``maximum`` and its exclusive sister (a flag in draft 4)."""
    found: list[Limit] = []
    exclusive = part.get(f"exclusive{keyword.capitalize()}")
    value = number_of(part.get(keyword))
    if value is not None:
        found.append((value, exclusive is True))
    if (bound := number_of(exclusive)) is not None:
        found.append((bound, True))
    return found


def as_tight(new: Limit, old: Limit, upward: bool) -> bool:
    """Whether ``new`` lets through no more than ``old``; ``upward``: they are lower bounds."""
    if new[0] == old[0]:
        return new[1] or not old[1]
    return new[0] > old[0] if upward else new[0] < old[0]


# --- parts ---


def parts_of(tree: SchemaTree, nodes: Iterable[SchemaNode]) -> list[Part] | None:
    """The conjunction as flat parts; None if it allows nothing."""
    parts: list[Part] = []
    stack = list(nodes)
    while stack:
        node = stack.pop()
        if node is False:
            return None
        if node is True:
            continue
        parts.append(node)
        reference = node.get("$ref")
        if isinstance(reference, str):
            stack.append(tree.nodes[tree.target(reference) or ()])
            if tree.dialect in LEGACY_DRAFTS:
                parts.pop()
                continue
        stack += schemas_in(node.get("allOf"))
    return parts
