"""The query of the list of events, strictly read: a parameter that is overlooked would resend what arrived."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from msgspec import Struct

from hookline.api.compat.frontsystems.views import EXPIRED, NO_ANSWER, PENDING, REASONS
from hookline.core.errors import Fault, NotFound
from hookline.core.ids import DeliveryUuids
from hookline.core.model import DeliveryState, Millis, Position
from hookline.core.reading import refuse, unknown

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_DAY: Millis = 86_400_000
_TIME = re.compile(
    r"\d{4}-\d\d-\d\d(?P<clock>[ T]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:Z|[+-]\d\d:\d\d)?)?",
    re.ASCII | re.IGNORECASE,
)
_TIME_FAULT = (
    "must be a date like 2021-12-01, or a time like 2021-12-01 08:30:00.0 or 2021-12-01T08:30:00Z "
    "(in a URL, + is written %2B)"
)
_NAMES = {
    name.lower(): name
    for name in ("from", "to", "success", "statuses", "includePayload", "includeRuns", "subscription-key")
}
_SWITCHES = {"true": True, "false": False}

# --- what a status text means ----------------------------------------------------------------------------

_SUCCEEDED = frozenset({DeliveryState.SUCCEEDED})
_FAILED = frozenset({DeliveryState.FAILED})
_UNSUCCESSFUL = frozenset(DeliveryState) - _SUCCEEDED


def plain(text: str) -> str:
    """A status text as it is compared: ``Not found``, ``NotFound`` and ``not-found`` are the same."""
    return re.sub(r"[\W_]", "", text.casefold())


def _states_of(code: int) -> frozenset[DeliveryState]:
    return _SUCCEEDED if 200 <= code < 300 else _FAILED


_STATES: Mapping[str, frozenset[DeliveryState]] = {
    **{str(code): _states_of(code) for code in range(100, 600)},
    **{f"status{code}": _states_of(code) for code in range(100, 600)},
    **{plain(text): _states_of(code) for code, text in REASONS.items()},
    **{plain(text): _FAILED for text in NO_ANSWER.values()},
    plain(PENDING): frozenset({DeliveryState.PENDING, DeliveryState.RETRYING}),
    plain(EXPIRED): frozenset({DeliveryState.EXPIRED}),
}
"""The states of deliveries by the texts and codes that they may have."""


# --- reading ---------------------------------------------------------------------------------------------


class Listing(Struct, frozen=True):
    """Which events, received at ``since`` or later, and before ``until`` or at positions < ``before`` (0: no bound). No
    ``statuses`` means any; no ``states`` means that there can be none."""

    since: Millis
    until: Millis
    before: Position
    states: frozenset[DeliveryState]
    statuses: frozenset[str]
    payloads: bool
    runs: bool


def read_listing(pairs: Iterable[tuple[str, str]], events: DeliveryUuids) -> Listing:
    """``events`` are those of the webhook. Raises ``InvalidInput`` that names every parameter at fault."""
    faults: list[Fault] = []
    given = _by_name(pairs, faults)
    since, _ = _moment("from", given, faults)
    until, before = _end(given, since, events, faults)
    statuses = _statuses(given.get("statuses", ()), faults)
    states = _wanted(_switch("success", given, faults)).intersection(
        frozenset[DeliveryState]().union(*(_STATES[text] for text in statuses)) if statuses else DeliveryState
    )
    payloads = _switch("includePayload", given, faults)
    runs = _switch("includeRuns", given, faults)
    refuse(faults)
    return Listing(max(0, since), until, before, states, statuses, payloads is True, runs is True)


def _by_name(pairs: Iterable[tuple[str, str]], faults: list[Fault]) -> dict[str, list[str]]:
    given: dict[str, list[str]] = {}
    for name, text in pairs:
        known = _NAMES.get(name.lower())
        if known is None:
            faults.append(Fault(name[:80], unknown(name[:80], _NAMES.values())))
        elif known in given and known != "statuses":
            faults.append(Fault(known, "is given twice"))
        else:
            given.setdefault(known, []).append(text)
    return given


def _moment(name: str, given: Mapping[str, Sequence[str]], faults: list[Fault]) -> tuple[Millis, bool]:
    """A time, and whether it is the beginning of a day that was given as a date. Without an offset it is UTC; parts of
    a millisecond are rounded up, since events have none."""
    if name not in given:
        faults.append(Fault(name, "is required"))
        return 0, False
    text = given[name][0].strip()
    form = _TIME.fullmatch(text)
    try:
        moment = datetime.fromisoformat(text.upper()) if form else None
    except ValueError:
        moment = None
    if form is None or moment is None:
        faults.append(Fault(name, _TIME_FAULT))
        return 0, False
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return -((_EPOCH - moment) // _MILLISECOND), form["clock"] is None


def _end(
    given: Mapping[str, Sequence[str]], since: Millis, events: DeliveryUuids, faults: list[Fault]
) -> tuple[Millis, Position]:
    """Where the list ends: a time, or an event of the webhook. Only an event can tell apart those of one moment, and
    those whose time is gone with them."""
    try:
        before = events.position(given.get("to", [""])[0].strip())
    except NotFound:
        before = 0
    if before:
        return 0, before
    until, is_day = _moment("to", given, faults)
    until += _DAY if is_day else 0
    if not faults and (since > until or (is_day and since == until)):
        faults.append(Fault("to", "must not be before from"))
    return max(1, until), 0  # 0 would mean "no bound" to the storage; there is nothing before 1970


def _switch(name: str, given: Mapping[str, Sequence[str]], faults: list[Fault]) -> bool | None:
    if name not in given:
        return None
    value = _SWITCHES.get(given[name][0].strip().lower())
    if value is None:
        faults.append(Fault(name, "must be true or false"))
    return value


def _wanted(success: bool | None) -> frozenset[DeliveryState]:
    if success is None:
        return frozenset(DeliveryState)
    return _SUCCEEDED if success else _UNSUCCESSFUL


def _statuses(texts: Sequence[str], faults: list[Fault]) -> frozenset[str]:
    found: set[str] = set()
    for text in (part.strip() for several in texts for part in several.split(",")):
        if plain(text) in _STATES:
            found.add(plain(text))
        elif text:
            faults.append(
                Fault("statuses", f"{text[:80]!r} is no status text, such as OK, Not found or Timed out")
            )
    return frozenset(found)
