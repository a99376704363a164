"""Whether a new version of an event's schema could break receivers that were written against the old one.

The sender upgrades first, so the rule is *forward* compatibility: what is valid by the new schema must be
valid by the old one, and no property may vanish. So optional fields may be added (where the old schema
leaves the object open) and values narrowed; nothing may be removed or widened. The check is structural and
errs on one side: what it cannot decide, it reports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, final

from hookline.core.errors import Fault, InvalidInput
from hookline.core.payload import Json
from hookline.core.schema.tree import Pointer, SchemaNode, SchemaTree, load, place, subschemas
from hookline.core.schema.view import (
    ALL_TYPES,
    NUMERIC,
    Part,
    View,
    as_tight,
    element_of,
    json_key,
    limits_of,
    listed_values,
    names_in,
    node_of,
    number_of,
    parts_of,
    prefix_of,
    rest_of,
    schemas_by_name,
    schemas_in,
    show,
    types_named,
)

MAX_FAULTS: Final = 50
_MAX_STEPS: Final = 400_000
"""Of about a microsecond each. A pair of schemas that needs more counts as not decidable."""
_PER_SUBSCHEMA: Final = 20
_PER_PAIR: Final = 5
"""Steps for a subschema that is looked at, as often as it is; for two alternatives that are held against each other.
Each name and each value listed in them is a step more."""

_NAMES: Final = ("$anchor", "$id", "$schema", "id")
_PROSE: Final = ("$comment", "default", "deprecated", "description", "example", "examples", "title")
_ANNOTATIONS: Final = frozenset((*_NAMES, *_PROSE, "$defs", "definitions", "readOnly", "writeOnly"))
"""Keywords that do not say which values are valid."""


def breaking_changes(old: bytes | None, new: bytes) -> list[Fault]:
    """What in ``new`` could break receivers written for ``old``; empty if nothing could.

    Places are paths in the payload (``data.lines[*].qty``). For a rule over all versions
    (forward-transitive), ask once for each older version. Raises ``InvalidInput`` if ``new`` is no usable
    schema.
    """
    if old is None:
        return []
    new_tree = _tree(new)
    try:
        old_tree = _tree(old)
    except InvalidInput as error:
        return [Fault("data", f"the old schema cannot be compared: {error.faults[0].message}")]
    if old_tree.dialect != new_tree.dialect:
        return [Fault("data", "$schema changed; what the keywords mean in the two drafts cannot be compared")]
    return _Comparison(old_tree, new_tree).result()


def _tree(raw: bytes) -> SchemaTree:
    tree = SchemaTree(load(raw))
    faults = tree.faults()
    if faults:
        raise InvalidInput("The JSON Schema cannot be used", faults)
    return tree


class _Undecidable(Exception):
    """The comparison would take too many steps."""


# --- the comparison ---------------------------------------------------------------------------------


@final
class _Comparison:
    """One old schema against one new one."""

    def __init__(self, old: SchemaTree, new: SchemaTree) -> None:
        self._old = old
        self._new = new
        self._steps = 0
        self._under_way: set[tuple[int, ...]] = set()
        self._reduced: dict[tuple[int, str], Part] = {}
        """Parts without one keyword; kept so that each has one identity."""

    def result(self) -> list[Fault]:
        try:
            faults = self._compare(self._old.nodes[()], (self._new.nodes[()],), "data")
        except (_Undecidable, RecursionError):
            return [Fault("data", "the schemas are too entangled to compare")]
        return list(dict.fromkeys(faults))[:MAX_FAULTS]

    def _compare(self, old: SchemaNode, new: tuple[SchemaNode, ...], where: str) -> list[Fault]:
        """What ``new`` (all of it together) allows at ``where`` and ``old`` does not.

        A pair that is being compared already, further up, is taken to fit: its faults show up there.
        """
        self._spend(_PER_SUBSCHEMA * (1 + len(new)))
        pair = (id(old), *map(id, new))
        if pair in self._under_way:
            return []
        self._under_way.add(pair)
        try:
            return self._compare_parts(old, new, where)
        finally:
            self._under_way.discard(pair)

    def _spend(self, steps: int) -> None:
        self._steps += steps
        if self._steps > _MAX_STEPS:
            raise _Undecidable

    def _view(self, parts: Sequence[Part]) -> View:
        """Its answers take time with every name and value that the parts list."""
        self._spend(sum(_listed(part) for part in parts))
        return View(parts)

    def _compare_parts(self, old: SchemaNode, new: tuple[SchemaNode, ...], where: str) -> list[Fault]:
        new_parts = parts_of(self._new, new)
        if new_parts is None or not (view := self._view(new_parts)).types:
            return []
        if any(self._equal(old, node, set()) for node in new):
            return []
        old_parts = parts_of(self._old, (old,))
        if old_parts is None:
            return [Fault(where, "was never allowed before")]
        faults = [fault for part in old_parts for fault in self._part(part, view, where)]
        choice = _choice(new_parts)
        return self._by_alternative(old, new_parts, choice, where) if faults and choice else faults

    def _by_alternative(
        self, old: SchemaNode, parts: list[Part], choice: tuple[int, str], where: str
    ) -> list[Fault]:
        """Compare each alternative of the new schema by itself."""
        at, keyword = choice
        others = (*parts[:at], self._without(parts[at], keyword), *parts[at + 1 :])
        branches = schemas_in(parts[at][keyword])
        return [fault for branch in branches for fault in self._compare(old, (*others, branch), where)]

    def _without(self, part: Part, keyword: str) -> Part:
        """The part less its alternatives, and less what depends on which of them held. It only allows more."""
        name = (id(part), keyword)
        if name not in self._reduced:
            gone = (keyword, "unevaluatedProperties", "unevaluatedItems")
            self._reduced[name] = {word: value for word, value in part.items() if word not in gone}
        return self._reduced[name]

    def _part(self, part: Part, new: View, where: str) -> Iterator[Fault]:
        for types, keywords, check in _CHECKS:
            if not new.types.isdisjoint(types) and not part.keys().isdisjoint(keywords):
                yield from check(self, part, new, where)

    # checks: each says what of one kind the old part forbids and the new schema allows

    def check_type(self, part: Part, new: View, where: str) -> Iterator[Fault]:
        wider = new.types - types_named(part["type"])
        if wider:
            names = sorted("number" if name == "fraction" else name for name in wider)
            yield Fault(where, f"may now also be of type {', '.join(names)}")

    def check_listed(self, part: Part, new: View, where: str) -> Iterator[Fault]:
        allowed = {json_key(value) for value in listed_values(part) or []}
        if new.finite is None:
            yield Fault(where, "is no longer limited to the listed values")
            return
        added = [show(value) for value in new.finite if json_key(value) not in allowed]
        if added:
            yield Fault(where, f"may have new values: {', '.join(added[:10])}")

    def check_range(self, part: Part, new: View, where: str) -> Iterator[Fault]:
        for keyword, upward in (("minimum", True), ("maximum", False)):
            bounds = [limit for other in new.parts for limit in limits_of(other, keyword)]
            for old in limits_of(part, keyword):
                if not any(as_tight(bound, old, upward) for bound in bounds):
                    yield Fault(
                        where, f"may now be {'smaller' if upward else 'larger'} than the old {keyword}"
                    )

    def check_multiple(self, part: Part, new: View, where: str) -> Iterator[Fault]:
        old = part["multipleOf"]
        if not any(_is_multiple(value, old) for value in new.values("multipleOf")):
            yield Fault(where, f"need no longer be a multiple of {show(old)}")

    def check_counts(self, part: Part, new: View, where: str) -> Iterator[Fault]:
        for keyword, (kind, what, upward) in _COUNTS.items():
            old = number_of(part.get(keyword))
            if old is None or kind not in new.types:
                continue
            limits = [n for value in new.values(keyword) if (n := number_of(value)) is not None]
            if not any(as_tight((limit, False), (old, False), upward) for limit in limits):
                yield Fault(
                    where, f"may now have {'fewer' if upward else 'more'} {what} than {keyword} allowed"
                )

    def check_same_word(self, part: Part, new: View, where: str) -> Iterator[Fault]:
        for keyword in _WORDS:
            if keyword in part and json_key(part[keyword]) not in {
                json_key(value) for value in new.values(keyword)
            }:
                yield Fault(where, f"has another {keyword}; whether it only narrows cannot be decided")

    def check_unique(self, part: Part, new: View, where: str) -> Iterator[Fault]:
        if part["uniqueItems"] is True and True not in new.values("uniqueItems"):
            yield Fault(where, "may now have equal elements")

    def check_required(self, part: Part, new: View, where: str) -> Iterator[Fault]:
        required = new.required()
        for name in names_in(part["required"]):
            if name not in required:
                yield Fault(place(where, [name]), "was always there and may now be missing")

    def check_properties(self, part: Part, new: View, where: str) -> Iterator[Fault]:
        for name, old in schemas_by_name(part["properties"]).items():
            if old is False or new.declares(name):
                yield from self._compare(old, new.field(name), place(where, [name]))
            else:
                yield Fault(place(where, [name]), "was removed")

    def check_other_fields(self, part: Part, new: View, where: str) -> Iterator[Fault]:
        """What the old part says of fields that it does not declare, against all that may now be there."""
        old = node_of(part["additionalProperties"])
        if old is True:
            return
        known = schemas_by_name(part.get("properties"))
        for name in new.declared():
            if name not in known:
                yield from self._added(old, new.field(name), place(where, [name]))
        yield from self._added(old, new.other_fields(), f"{where}.*")
        same_patterns = schemas_by_name(part.get("patternProperties"))
        for value in new.values("patternProperties"):
            for pattern, node in schemas_by_name(value).items():
                if pattern not in same_patterns:
                    yield from self._added(old, (node,), f"{where}.*")

    def _added(self, old: SchemaNode, new: tuple[SchemaNode, ...], where: str) -> list[Fault]:
        faults = self._compare(old, new, where)
        if faults and old is False:
            return [Fault(where, "was added, but the old schema allows no additional fields here")]
        return faults

    def check_pattern_fields(self, part: Part, new: View, where: str) -> Iterator[Fault]:
        for pattern, old in schemas_by_name(part["patternProperties"]).items():
            nodes = tuple(
                node
                for value in new.values("patternProperties")
                for name, node in schemas_by_name(value).items()
                if name == pattern
            )
            if self._compare(old, nodes, where):
                yield Fault(where, f"fields of the form {pattern} may now be something else")

    def check_elements(self, part: Part, new: View, where: str) -> Iterator[Fault]:
        length = max(len(prefix_of(part)), new.prefix_length())
        longest = new.longest()
        for index in range(length):
            if longest is None or index < longest:
                yield from self._compare(element_of(part, index), new.element(index), f"{where}[{index}]")
        if longest is None or length < longest:
            yield from self._compare(rest_of(part), new.element(length), f"{where}[*]")

    def check_any_of(self, part: Part, new: View, where: str) -> Iterator[Fault]:
        yield from self._alternatives(schemas_in(part["anyOf"]), new, where)

    def check_one_of(self, part: Part, new: View, where: str) -> Iterator[Fault]:
        """Alternatives that cannot hold together are like those of ``anyOf``; others are left alone."""
        branches = schemas_in(part["oneOf"])
        views = [
            None if (parts := parts_of(self._old, (branch,))) is None else self._view(parts)
            for branch in branches
        ]
        for index, one in enumerate(views):
            if any(not self._apart(one, other, new.types) for other in views[:index]):
                yield Fault(
                    where, "whether exactly one of the old alternatives (oneOf) still fits cannot be decided"
                )
                return
        yield from self._alternatives(branches, new, where)

    def _alternatives(self, branches: list[SchemaNode], new: View, where: str) -> Iterator[Fault]:
        nodes = tuple(new.parts)
        if all(self._compare(branch, nodes, where) for branch in branches):
            yield Fault(where, "may now be something that none of the old alternatives allows")

    def _apart(self, one: View | None, other: View | None, types: frozenset[str]) -> bool:
        """Whether no value of these types fits both.

        Decided by type, by listed values, or by the listed values of a field that both must have.
        """
        self._spend(_PER_PAIR)
        if one is None or other is None:
            return True
        common = one.types & other.types & types
        if not common or _no_common(one, other):
            return True
        if not common <= {"object"}:
            return False
        shared = one.required() & other.required()
        return any(self._field_apart(one.field(name), other.field(name)) for name in shared)

    def _field_apart(self, one: tuple[SchemaNode, ...], other: tuple[SchemaNode, ...]) -> bool:
        parts, others = parts_of(self._old, one), parts_of(self._old, other)
        self._spend(_PER_PAIR)
        return parts is None or others is None or _no_common(self._view(parts), self._view(others))

    def check_undecided(self, part: Part, new: View, where: str) -> Iterator[Fault]:
        """Keywords that are only known to fit if they stayed as they were."""
        for group in _UNDECIDED:
            old = {word: part[word] for word in group if word in part}
            if old and not any(self._same_group(group, part, other) for other in new.parts):
                yield Fault(
                    where, f"{' and '.join(old)} changed; whether that breaks receivers cannot be decided"
                )

    def check_unevaluated(self, part: Part, new: View, where: str) -> Iterator[Fault]:
        """What these keywords mean depends on all others: only a schema that stayed the same is known to fit."""
        for word in ("unevaluatedProperties", "unevaluatedItems"):
            if part.get(word, True) is not True:
                yield Fault(where, f"with {word}, whether the change breaks receivers cannot be decided")

    def _same_group(self, group: tuple[str, ...], old: Part, new: Part) -> bool:
        narrow_old = {word: old[word] for word in group if word in old}
        narrow_new = {word: new[word] for word in group if word in new}
        return self._equal(narrow_old, narrow_new, set())

    # equality

    def _equal(self, old: SchemaNode, new: SchemaNode, seen: set[tuple[int, int]]) -> bool:
        """Whether two schemas say the same, word by word, apart from annotations; references are followed."""
        if isinstance(old, bool) or isinstance(new, bool):
            return old is new
        if (id(old), id(new)) in seen:
            return True
        seen.add((id(old), id(new)))
        inside, others = _inside(old), _inside(new)
        if inside.keys() != others.keys() or _plain(old) != _plain(new):
            return False
        return self._equal_reference(old, new, seen) and all(
            self._equal(node, others[steps], seen) for steps, node in inside.items()
        )

    def _equal_reference(self, old: Part, new: Part, seen: set[tuple[int, int]]) -> bool:
        targets = [
            None if not isinstance(word := node.get("$ref"), str) else tree.nodes[tree.target(word) or ()]
            for tree, node in ((self._old, old), (self._new, new))
        ]
        if targets[0] is None or targets[1] is None:
            return targets[0] is targets[1]
        return self._equal(targets[0], targets[1], seen)


def _listed(part: Part) -> int:
    values = (part.get(word) for word in ("enum", "required", "properties"))
    return sum(len(value) for value in values if isinstance(value, list | dict))


def _choice(parts: Sequence[Part]) -> tuple[int, str] | None:
    """The first part with alternatives, and the keyword that lists them."""
    found = (
        (at, word)
        for at, part in enumerate(parts)
        for word in ("anyOf", "oneOf")
        if schemas_in(part.get(word))
    )
    return next(found, None)


def _no_common(one: View, other: View) -> bool:
    if one.finite is None or other.finite is None:
        return False
    return {json_key(value) for value in one.finite}.isdisjoint(json_key(value) for value in other.finite)


def _inside(node: Part) -> dict[Pointer, SchemaNode]:
    return {steps: child for steps, child in subschemas(node) if steps[0] not in _ANNOTATIONS}


def _plain(node: Part) -> dict[str, object]:
    """The keywords that hold no subschemas and say something about values."""
    held = {steps[0] for steps in _inside(node)} - {"dependencies"}
    left_out = held | _ANNOTATIONS | {"$ref"}
    return {word: json_key(value) for word, value in node.items() if word not in left_out}


def _is_multiple(new: Json, old: Json) -> bool:
    if json_key(new) == json_key(old):
        return True
    return type(new) is int and type(old) is int and old != 0 and new % old == 0


_COUNTS: Final = {
    "minLength": ("string", "characters", True),
    "maxLength": ("string", "characters", False),
    "minItems": ("array", "elements", True),
    "maxItems": ("array", "elements", False),
    "minProperties": ("object", "fields", True),
    "maxProperties": ("object", "fields", False),
}

_WORDS: Final = ("pattern", "format", "contentEncoding", "contentMediaType")

_UNDECIDED: Final = (
    ("not",),
    ("if", "then", "else"),
    ("contains", "minContains", "maxContains"),
    ("propertyNames",),
    ("dependentRequired",),
    ("dependentSchemas",),
    ("dependencies",),
)

_Check = Callable[[_Comparison, Part, View, str], Iterator[Fault]]


def _check(
    types: Iterable[str], keywords: str, check: _Check
) -> tuple[frozenset[str], frozenset[str], _Check]:
    return frozenset(types), frozenset(keywords.split()), check


_CHECKS: Final = (
    _check(ALL_TYPES, "type", _Comparison.check_type),
    _check(ALL_TYPES, "enum const", _Comparison.check_listed),
    _check(NUMERIC, "minimum maximum exclusiveMinimum exclusiveMaximum", _Comparison.check_range),
    _check(NUMERIC, "multipleOf", _Comparison.check_multiple),
    _check(ALL_TYPES, " ".join(_COUNTS), _Comparison.check_counts),
    _check({"string"}, " ".join(_WORDS), _Comparison.check_same_word),
    _check({"array"}, "uniqueItems", _Comparison.check_unique),
    _check({"array"}, "items prefixItems additionalItems", _Comparison.check_elements),
    _check({"object"}, "required", _Comparison.check_required),
    _check({"object"}, "properties", _Comparison.check_properties),
    _check({"object"}, "additionalProperties", _Comparison.check_other_fields),
    _check({"object"}, "patternProperties", _Comparison.check_pattern_fields),
    _check(ALL_TYPES, "anyOf", _Comparison.check_any_of),
    _check(ALL_TYPES, "oneOf", _Comparison.check_one_of),
    _check(ALL_TYPES, " ".join(word for group in _UNDECIDED for word in group), _Comparison.check_undecided),
    _check(ALL_TYPES, "unevaluatedProperties unevaluatedItems", _Comparison.check_unevaluated),
)
"""For values of which types, and for which keywords of the old part, each check is made."""
