"""The 63 event types of the demo: what three real platforms say about themselves, as files in ``data/``.

ShipStream's samples are those of its own reference page, key by key. The vendors publish no full samples for
the others: those entities are ours, with the fields that their public models name.
"""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

from msgspec import Struct

Json = dict[str, Any]

DATA = Path(__file__).parent / "data"
SYSTEMS = ("shipstream", "avvyr", "frontsystems")

_BY_SKU = frozenset({"stock_adjustments"})
"""Objects whose names are data (article numbers), not fields."""


class DemoType(Struct, frozen=True):
    """One event type with a sample payload."""

    name: str
    system: str
    description: str
    example: Json


@cache
def demo_types() -> dict[str, DemoType]:
    """All types by name."""
    return {entry.name: entry for system in SYSTEMS for entry in _load(system)}


def _load(system: str) -> list[DemoType]:
    entries: dict[str, Json] = json.loads((DATA / f"{system}.json").read_text("utf-8"))
    return [DemoType(name, system, entry["description"], entry["example"]) for name, entry in entries.items()]


def sample(event_type: str, *path: str | int) -> Json:
    """A copy of the type's sample payload, or of the object at ``path`` inside it."""
    found: Any = demo_types()[event_type].example
    for step in path:
        found = found[step]
    return copy.deepcopy(found)


def schema_of(example: Json) -> Json:
    """A JSON Schema that the sample fits, and every payload with the same fields and kinds of values."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_schema("", example)}


def _schema(name: str, value: Any) -> Json:
    match value:
        case dict():
            return _object_schema(name, value)  # pyright: ignore[reportUnknownArgumentType]  # JSON
        case list():
            return {"type": "array", "items": _schema("", value[0])} if value else {"type": "array"}
        case bool():
            return {"type": "boolean"}
        case int():
            return {"type": "integer"}
        case float():
            return {"type": "number"}
        case str():
            return {"type": "string"}
        case _:
            return {}


def _object_schema(name: str, fields: Json) -> Json:
    if name in _BY_SKU:
        return {"type": "object", "additionalProperties": _schema("", next(iter(fields.values())))}
    return {
        "type": "object",
        "required": list(fields),
        "properties": {key: _schema(key, value) for key, value in fields.items()},
    }
