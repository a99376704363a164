"""Which events a subscription gets: by type, then by filter. A pure function of event and definition."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import final

from hookline.core.errors import Fault
from hookline.core.filter import Filter, Reason, compile_filter
from hookline.core.model import OPERATIONAL_PREFIX, Definition, Event
from hookline.core.payload import Payload

__all__ = [
    "MAX_PATTERNS",
    "Matcher",
    "Payload",
    "Reason",
    "events_faults",
    "name_fault",
    "pattern_fault",
    "type_matches",
]

MAX_PATTERNS = 200
"""Names and wildcards that one subscription may list."""

_NAME = re.compile(r"[A-Za-z0-9_.:\-/]{1,128}")
_PREFIX = re.compile(r"[A-Za-z0-9_.:\-/]{0,128}\*")


def name_fault(name: str) -> str | None:
    """What is wrong with the name of an event type, or None."""
    if _NAME.fullmatch(name):
        return None
    return "an event type is 1 to 128 letters, digits and _ . : - /"


def pattern_fault(pattern: str) -> str | None:
    """What is wrong with an exact name or prefix wildcard (``order:*``, ``*``), or None."""
    if _NAME.fullmatch(pattern) or _PREFIX.fullmatch(pattern):
        return None
    if "*" in pattern[:-1]:
        return "a * may only stand at the end, as in order:*"
    return f"{name_fault(pattern)}, or such a beginning followed by *"


def events_faults(patterns: Iterable[str]) -> list[Fault]:
    """All faults of a definition's ``events``."""
    listed = list(patterns)
    if not 1 <= len(listed) <= MAX_PATTERNS:
        return [Fault("events", f"name 1 to {MAX_PATTERNS} event types; * stands for all")]
    checked = ((f"events[{index}]", pattern_fault(pattern)) for index, pattern in enumerate(listed))
    return [Fault(place, message) for place, message in checked if message]


def type_matches(patterns: Iterable[str], name: str) -> bool:
    """Whether one of the patterns covers the event type ``name``.

    Types of Hookline's own are matched only by patterns that begin like them (``hookline.*``): ``*`` means
    all events of the shop, not the platform's.
    """
    return _Types(patterns).match(name)


@final
class _Types:
    """Patterns made ready: names in a set, and beginnings for ``str.startswith``."""

    __slots__ = ("names", "operational", "prefixes")

    def __init__(self, patterns: Iterable[str]) -> None:
        listed = tuple(patterns)
        self.names = frozenset(listed)
        self.prefixes = tuple(pattern[:-1] for pattern in listed if pattern.endswith("*"))
        self.operational = tuple(start for start in self.prefixes if start.startswith(OPERATIONAL_PREFIX))

    def match(self, name: str) -> bool:
        if name in self.names:
            return True
        return name.startswith(self.operational if name.startswith(OPERATIONAL_PREFIX) else self.prefixes)


@final
class Matcher:
    """A definition made ready to be asked about many events.

    Raises ``InvalidInput`` if the filter is not valid.
    """

    __slots__ = ("_definition", "_filter", "_names", "_operational", "_prefixes", "_types")

    def __init__(self, definition: Definition) -> None:
        self._definition = definition
        self._types = types = _Types(definition.events)
        self._names, self._prefixes, self._operational = types.names, types.prefixes, types.operational
        self._filter: Filter | None = compile_filter(definition.filter) if definition.filter else None

    def matches(self, event: Event, payload: Payload) -> bool:
        """Whether the subscription gets this event. Never raises.

        Called for each event and subscription of a tenant: ``_Types.match`` is written out here.
        """
        name = event.type
        if name not in self._names and not name.startswith(
            self._operational if name.startswith("hookline.") else self._prefixes
        ):
            return False
        return self._filter is None or self._filter.matches(event, payload)

    def explain(self, event: Event, payload: Payload) -> list[Reason]:
        """The rules in turn, each with what it found; the event matches if all passed."""
        reasons = [self._explain_type(event.type)]
        if self._filter is not None:
            reasons += self._filter.explain(event, payload)
        return reasons

    def _explain_type(self, name: str) -> Reason:
        patterns = self._definition.events
        hit = next((pattern for pattern in patterns if type_matches((pattern,), name)), None)
        if hit is not None:
            return Reason("events", True, f"type {name} is named by {hit}")
        detail = f"type {name} is not named by {', '.join(patterns[:10])}"
        if name.startswith(OPERATIONAL_PREFIX):
            detail += f"; events of Hookline's own need their name or {OPERATIONAL_PREFIX}*"
        return Reason("events", False, detail)
