"""JSON Schemas as parts of a larger document: one dialect for all, and references that lead to where they stand now.

A schema of the catalogue is a document of its own, in any of several drafts. In OpenAPI 3.1 it must be 2020-12, in
AsyncAPI 3.0 draft 7, and ``#/$defs/line`` must become ``#/components/schemas/order.created/$defs/line``.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any, Final, cast
from urllib.parse import quote

import msgspec

from hookline.core.schema.tree import LEGACY_DRAFTS, Pointer, SchemaNode, SchemaTree, subschemas

Json = dict[str, Any]

_DROPPED: Final = ("$schema", "$id", "$anchor")
"""These name the document or places in it; there is one document now, and references are by place."""
_NEWER_THAN_7: Final = ("unevaluatedProperties", "unevaluatedItems", "minContains", "maxContains")


def embedded(schema: bytes, at: str, *, draft7: bool = False) -> Json:
    """The schema as it stands at ``at`` (``#/components/schemas/x``) of another document: 2020-12, or draft 7.

    What draft 7 has no word for is left out: such a schema allows more than the original.
    """
    document = cast("SchemaNode", msgspec.json.decode(schema))
    if isinstance(document, bool):
        return {} if document else {"not": {}}
    tree = SchemaTree(document)

    def change(node: Json) -> Json:
        changed = _modern(node, legacy=tree.dialect in LEGACY_DRAFTS)
        reference = changed.get("$ref")
        target = tree.target(reference) if isinstance(reference, str) else None
        if target is not None:
            changed["$ref"] = at + _written(target, draft7=draft7)
        return _draft7(changed) if draft7 else changed

    return _rebuilt(document, change)


def _rebuilt(node: Json, change: Callable[[Json], Json]) -> Json:
    """A copy of the schema in which every subschema is changed, the inner ones first."""
    new: Json = {keyword: copy(value) for keyword, value in node.items()}
    for (keyword, *rest), child in subschemas(node):
        changed = child if isinstance(child, bool) else _rebuilt(child, change)
        if rest:
            inside: Any = new[keyword]
            inside[int(rest[0]) if isinstance(inside, list) else rest[0]] = changed
        else:
            new[keyword] = changed
    return change(new)


def _written(target: Pointer, *, draft7: bool) -> str:
    """A pointer as text. Lists of ``items`` have another name in each draft."""
    steps = list(target)  # a number follows on the name of a list alone
    for place, following in enumerate(steps[1:]):
        if steps[place] in ("items", "prefixItems") and following.isdigit():
            steps[place] = "items" if draft7 else "prefixItems"
    escaped = (step.replace("~", "~0").replace("/", "~1") for step in steps)
    return "".join("/" + quote(step, safe="~!$&'()*+,;=:@") for step in escaped)


def _modern(node: Json, *, legacy: bool) -> Json:
    """A node of any draft in the words of 2020-12."""
    if legacy and "$ref" in node:  # what stands beside it does not count there
        return {name: node[name] for name in ("$ref", "definitions", "$defs") if name in node}
    new = {keyword: value for keyword, value in node.items() if keyword not in _DROPPED}
    if isinstance(new.get("items"), list):
        new["prefixItems"] = new.pop("items")
        if "additionalItems" in new:
            new["items"] = new.pop("additionalItems")
    for bound, limit in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(new.get(bound), bool) and new.pop(bound) and limit in new:
            new[bound] = new.pop(limit)
    for name, needed in new.pop("dependencies", {}).items():
        keyword = "dependentRequired" if isinstance(needed, list) else "dependentSchemas"
        new.setdefault(keyword, {})[name] = needed
    return new


def _draft7(node: Json) -> Json:
    """A node of 2020-12 in the words of draft 7."""
    new = {keyword: value for keyword, value in node.items() if keyword not in _NEWER_THAN_7}
    if node.get("minContains") == 0:
        new.pop("contains", None)
    if "$ref" in new and new.keys() - {"$ref", "$defs", "definitions"}:
        new["allOf"] = [*new.get("allOf", []), {"$ref": new.pop("$ref")}]
    if "prefixItems" in new:
        if "items" in new:
            new["additionalItems"] = new.pop("items")
        new["items"] = new.pop("prefixItems")
    needed = {**new.pop("dependentRequired", {}), **new.pop("dependentSchemas", {})}
    return {**new, "dependencies": needed} if needed else new
