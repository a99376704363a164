"""The subschemas of a JSON Schema: where they are, where their references lead, what they may cost."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from graphlib import CycleError, TopologicalSorter
from itertools import islice, takewhile
from typing import Final, NoReturn, cast, final
from urllib.parse import unquote

import msgspec

from hookline.core.errors import Fault, InvalidInput
from hookline.core.payload import Json

MAX_BYTES: Final = 256 * 1024
MAX_DEPTH: Final = 64
MAX_SUBSCHEMAS: Final = 2_000
MAX_RECURSION: Final = 64
"""How deep a payload may be nested if its schema refers to itself."""
MAX_APPLIED: Final = 500
"""Subschemas that may have to look at one and the same place of a payload."""

DEFAULT_DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"
LEGACY_DRAFTS: Final = frozenset(f"http://json-schema.org/draft-0{number}/schema" for number in (4, 6, 7))
"""In these, keywords beside ``$ref`` are ignored."""
DRAFTS: Final = LEGACY_DRAFTS | {DEFAULT_DRAFT, "https://json-schema.org/draft/2019-09/schema"}

_decoder: Final[msgspec.json.Decoder[Json]] = msgspec.json.Decoder(float_hook=Decimal)

Pointer = tuple[str, ...]
SchemaNode = dict[str, Json] | bool

_SAME_PLACE_ONE: Final = ("not", "if", "then", "else")
_SAME_PLACE_LISTS: Final = ("allOf", "anyOf", "oneOf")
_SAME_PLACE_MAPS: Final = ("dependentSchemas", "dependencies")
_DEFINITIONS: Final = ("$defs", "definitions")
_REFUSED: Final = ("$dynamicRef", "$recursiveRef", "$vocabulary")
_NAME: Final = re.compile(r"[A-Za-z_$][A-Za-z0-9_$\-]*")


def place(root: str, path: Sequence[str | int]) -> str:
    """A path for people: ``data.lines[2]["odd key"]``."""
    return root + "".join(_step(step) for step in path)


def _step(step: str | int) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    return f".{step}" if _NAME.fullmatch(step) else f'["{step}"]'


def subschemas(node: SchemaNode) -> Iterator[tuple[Pointer, SchemaNode]]:
    """The schemas directly inside ``node``, with the steps to each."""
    if isinstance(node, bool):
        return
    for keyword, value in node.items():
        if keyword in _SINGLE and isinstance(value, dict | bool):
            yield (keyword,), value
        elif keyword in _LISTS and isinstance(value, list):
            for index, part in enumerate(value):
                if isinstance(part, dict | bool):
                    yield (keyword, str(index)), part
        elif keyword in _MAPS and isinstance(value, dict):
            for name, part in value.items():
                if isinstance(part, dict | bool):
                    yield (keyword, name), part


_FOR_FIELDS: Final = ("additionalProperties", "unevaluatedProperties", "propertyNames")
_FOR_ELEMENTS: Final = ("items", "additionalItems", "unevaluatedItems", "contains")
_SINGLE: Final = frozenset((*_SAME_PLACE_ONE, *_FOR_FIELDS, *_FOR_ELEMENTS, "contentSchema"))
_LISTS: Final = frozenset((*_SAME_PLACE_LISTS, "prefixItems", "items"))
_MAPS: Final = frozenset((*_SAME_PLACE_MAPS, *_DEFINITIONS, "properties", "patternProperties"))


def load(raw: bytes) -> SchemaNode:
    """The document of a schema. Raises ``InvalidInput`` if it is no schema, too large or too deep."""
    if len(raw) > MAX_BYTES:
        refuse("schema", f"has {len(raw)} bytes, at most {MAX_BYTES} are allowed")
    try:
        document = _decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, ArithmeticError) as error:
        refuse("schema", f"is not valid JSON: {error}")
    except RecursionError:
        refuse("schema", f"is nested more than {MAX_DEPTH} deep")
    if not isinstance(document, dict | bool):
        refuse("schema", "must be a JSON object")
    if deeper_than(document, MAX_DEPTH):
        refuse("schema", f"is nested more than {MAX_DEPTH} deep")
    return document


def refuse(where: str, message: str) -> NoReturn:
    """Raise that the document cannot be used as a schema."""
    raise InvalidInput("The JSON Schema cannot be used", [Fault(where, message)]) from None


def deeper_than(data: object, limit: int) -> bool:
    """Whether a decoded JSON value has lists and objects nested more than ``limit`` deep."""
    level: Sequence[object] = [data]
    for _ in range(limit + 1):
        level = [child for value in level for child in _children(value)]
        if not level:
            return False
    return True


def _children(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return cast("dict[str, object]", value).values()
    return cast("list[object]", value) if isinstance(value, list) else ()


@final
class SchemaTree:
    """All subschemas by their pointer. ``recursive`` is known once ``faults`` was called."""

    def __init__(self, document: SchemaNode) -> None:
        self.nodes: dict[Pointer, SchemaNode] = {}
        self._anchors: dict[str, Pointer] = {}
        self._children: dict[Pointer, list[Pointer]] = {}
        self._order: dict[Pointer, tuple[list[Pointer], _Below]] = {}
        self._depth = 0
        self.patterns = 0
        self.recursive = False
        dialect = document.get("$schema", DEFAULT_DRAFT) if isinstance(document, dict) else DEFAULT_DRAFT
        self.dialect = dialect.rstrip("#") if isinstance(dialect, str) else ""
        self._collect(document)

    def _collect(self, document: SchemaNode) -> None:
        stack: list[tuple[Pointer, SchemaNode]] = [((), document)]
        while stack and len(self.nodes) <= MAX_SUBSCHEMAS:
            pointer, node = stack.pop()
            self.nodes[pointer] = node
            inside = [((*pointer, *steps), child) for steps, child in subschemas(node)]
            self._children[pointer] = [child_pointer for child_pointer, _ in inside]
            stack += inside
            if isinstance(node, dict):
                self._note(pointer, node)

    def _note(self, pointer: Pointer, node: dict[str, Json]) -> None:
        anchor = node.get("$anchor")
        if isinstance(anchor, str):
            self._anchors[anchor] = pointer
        matched = node.get("patternProperties")
        self.patterns += ("pattern" in node) + (len(matched) if isinstance(matched, dict) else 0)

    def target(self, reference: str) -> Pointer | None:
        """Where a ``$ref`` leads, or None if that is not a subschema of this document."""
        if not reference.startswith("#"):
            return None
        fragment = unquote(reference[1:])
        if fragment and not fragment.startswith("/"):
            return self._anchors.get(fragment)
        steps = (step.replace("~1", "/").replace("~0", "~") for step in fragment.split("/")[1:])
        pointer = tuple(steps)
        return pointer if pointer in self.nodes else None

    # faults

    def faults(self) -> list[Fault]:
        """Why the document cannot be used as a schema here."""
        if len(self.nodes) > MAX_SUBSCHEMAS:
            return [Fault("schema", f"has more than {MAX_SUBSCHEMAS} subschemas")]
        if self.dialect not in DRAFTS:
            return [Fault("schema.$schema", f"must be one of {', '.join(sorted(DRAFTS))}")]
        faults = [fault for pointer, node in self.nodes.items() for fault in self._node_faults(pointer, node)]
        return faults or self._cost_faults()

    def _node_faults(self, pointer: Pointer, node: SchemaNode) -> Iterator[Fault]:
        if isinstance(node, bool):
            return
        where = place("schema", pointer)
        reference = node.get("$ref")
        if isinstance(reference, str) and self.target(reference) is None:
            message = "must begin with # and lead to a schema in this document; others are never fetched"
            yield Fault(f"{where}.$ref", message)
        if pointer and isinstance(node.get("$id"), str):
            yield Fault(f"{where}.$id", "may only stand at the root")
        for keyword in _REFUSED:
            if keyword in node:
                yield Fault(f"{where}.{keyword}", "is not supported")

    def _cost_faults(self) -> list[Fault]:
        same = {pointer: self._same_place(pointer) for pointer in self.nodes}
        try:
            order = list(TopologicalSorter(same).static_order())
        except CycleError as error:
            cycle: list[Pointer] = error.args[1]
            message = "refers to itself without going deeper into the payload"
            return [Fault(place("schema", cycle[0]), message)]
        self._order = {
            pointer: (same[pointer], _Below(self._children[pointer], len(pointer))) for pointer in order
        }
        applied = list(takewhile(bool, self._levels(dict.fromkeys(self.nodes, 1), MAX_APPLIED + 1)))
        self._depth = len(applied)
        self.recursive = self._depth > MAX_RECURSION
        if max(applied) > MAX_APPLIED:
            message = f"more than {MAX_APPLIED} subschemas could apply to one place of a payload"
            return [Fault("schema", f"{message}: use fewer alternatives, or no references that fan out")]
        return []

    def _same_place(self, pointer: Pointer) -> list[Pointer]:
        """The subschemas that look at the same value as this one."""
        node = self.nodes[pointer]
        depth = len(pointer)
        found = [
            child
            for child in self._children[pointer]
            if child[depth] in _SAME_PLACE_ONE
            or child[depth] in _SAME_PLACE_LISTS
            or child[depth] in _SAME_PLACE_MAPS
        ]
        reference = node.get("$ref") if isinstance(node, dict) else None
        target = self.target(reference) if isinstance(reference, str) else None
        return found if target is None else [*found, target]

    def applied(self, weights: Mapping[Pointer, int], most: int) -> int:
        """The largest sum of ``weights`` of the subschemas that can apply to one value, at any depth of a payload, or
        ``most`` if that is less. Only for a schema without faults."""
        return max(islice(self._levels(weights, most), self._depth))

    def _levels(self, weights: Mapping[Pointer, int], most: int) -> Iterator[int]:
        """That sum for the values at each depth of a payload.

        What is applied ``d`` below a subschema is what its parts for the same place apply there, and what its
        parts for the children apply ``d - 1`` below.
        """
        level: dict[Pointer, int] = {}
        settled = False
        for depth in range(MAX_RECURSION + 1):
            if not settled:
                above, level = level, {}
                for pointer, (same, below) in self._order.items():
                    own = below.count(above) if depth else weights[pointer]
                    level[pointer] = min(own + sum(level[part] for part in same), most)
                settled = level == above
            yield level[()]


@final
class _Below:
    """The subschemas for the children of a value, by what can apply to one child together."""

    __slots__ = ("elements", "elements_also", "fields", "fields_also")

    def __init__(self, children: list[Pointer], depth: int) -> None:
        self.fields = _of(children, depth, "properties", "additionalProperties")
        self.fields_also = _of(children, depth, "patternProperties", "unevaluatedProperties", "propertyNames")
        self.elements = _of(children, depth, "items", "prefixItems", "additionalItems")
        self.elements_also = _of(children, depth, "contains", "unevaluatedItems")

    def count(self, above: dict[Pointer, int]) -> int:
        fields = _most(self.fields, above) + sum(above[part] for part in self.fields_also)
        elements = _most(self.elements, above) + sum(above[part] for part in self.elements_also)
        return max(fields, elements)


def _of(children: list[Pointer], depth: int, *keywords: str) -> list[Pointer]:
    return [child for child in children if child[depth] in keywords]


def _most(parts: list[Pointer], above: dict[Pointer, int]) -> int:
    return max((above[part] for part in parts), default=0)
