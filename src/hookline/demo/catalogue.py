"""The 63 event types of the demo: those of three real platforms, out of the catalogues that Hookline ships.

Of ShipStream's topics, those of its first reference page: the ones that came later, whose messages carry
``event_timestamp``, tell of things that do not happen in this shop.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from msgspec import Struct

Json = dict[str, Any]

PROFILES = Path(__file__).parents[1] / "profiles"
SYSTEMS = ("shipstream", "avvyr", "frontsystems")


class DemoType(Struct, frozen=True):
    """One event type with a sample payload, and the schema that it fits."""

    name: str
    system: str
    description: str
    usage: str
    schema: Json
    example: Json


@cache
def demo_types() -> dict[str, DemoType]:
    """All types by name."""
    found = (entry for system in SYSTEMS for entry in _load(system))
    return {entry.name: entry for entry in found if "event_timestamp" not in entry.example}


def _load(system: str) -> Iterator[DemoType]:
    for path in sorted((PROFILES / system / "catalogue").glob("*.json")):
        file: Json = json.loads(path.read_text("utf-8"))
        shared: Json = {"$defs": file.get("$defs", {})}
        for entry in file["types"]:
            schema: Json = {**shared, **entry["schema"]}
            yield DemoType(
                entry["name"], system, entry["description"], entry["usage"], schema, entry["example"]
            )


def sample(event_type: str, *path: str | int) -> Json:
    """A copy of the type's sample payload, or of the object at ``path`` inside it."""
    found: Any = demo_types()[event_type].example
    for step in path:
        found = found[step]
    return copy.deepcopy(found)
