"""The filter language: a condition on an event, as text that people write and read.

``docs/reference/filter-language.md`` is its reference. ``syntax`` turns text into a tree, ``values`` a
comparison into a function, ``program`` the tree into one function and into explanations.
"""

from __future__ import annotations

from hookline.core.filter.program import Filter, Reason
from hookline.core.filter.syntax import MAX_DEPTH, MAX_EACH, MAX_LIST, MAX_TERMS, MAX_TEXT, parse
from hookline.core.filter.values import MAX_VALUES

__all__ = [
    "MAX_DEPTH",
    "MAX_EACH",
    "MAX_LIST",
    "MAX_TERMS",
    "MAX_TEXT",
    "MAX_VALUES",
    "Filter",
    "Reason",
    "compile_filter",
]


def compile_filter(text: str) -> Filter:
    """Make a filter ready for use.

    Raises ``InvalidInput`` whose fault names the column, what was expected and what stands there.
    """
    return Filter(text, parse(text))
