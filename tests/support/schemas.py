"""What the tests of the catalogues ask of payloads and schemas."""

from __future__ import annotations

from typing import Any


def grown(value: Any) -> Any:
    """The value with one more field in each of its objects."""
    if isinstance(value, dict):
        return {key: grown(part) for key, part in value.items()} | {"addedLater": "x"}
    return [grown(part) for part in value] if isinstance(value, list) else value


def keywords(node: object) -> set[str]:
    """Every name that stands anywhere in a schema."""
    if isinstance(node, dict):
        return set(node).union(*map(keywords, node.values()))
    return set().union(*map(keywords, node)) if isinstance(node, list) else set()
