"""The feature switch, and the figures that the feature is charged by."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta

from msgspec import Struct, field

from hookline.api.compat.base import Answer, Ask, Operation
from hookline.api.compat.evolutionx.forms import V1, NoQuery
from hookline.core.errors import Fault
from hookline.core.model import Scope, Usage
from hookline.core.reading import read_texts, refuse

DEFAULT_DAYS = 31
MOST_DAYS = 366


class UsageQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Which days (``YYYY-MM-DD``, UTC), both included."""

    since: str = field(default="", name="from")
    until: str = field(default="", name="to")


class Figures(Struct, frozen=True):
    """How much was used: events and requests, and the bytes of their payloads."""

    events: int
    event_bytes: int
    requests: int
    request_bytes: int


class DayView(Figures, frozen=True):
    """One day, UTC. Days without use are left out."""

    day: str


class UsageView(Struct, frozen=True):
    """A period, day by day and as a whole."""

    since: str = field(name="from")
    until: str = field(name="to")
    total: Figures
    days: list[DayView]


class FeatureView(Struct, frozen=True):
    """Whether the feature is switched on for this account."""

    event_driven_webhooks: bool


async def get_feature(ask: Ask) -> Answer:
    read_texts(NoQuery, ask.query)
    return Answer(FeatureView(ask.tenant.webhooks))


async def get_usage(ask: Ask) -> Answer:
    asked = read_texts(UsageQuery, ask.query)
    first, last = _period(asked, datetime.fromtimestamp(ask.services.clock.now() / 1000, UTC).date())
    found = await ask.services.reader.usage(ask.tenant, str(first), str(last))
    days = [
        DayView(used.events, used.event_bytes, used.attempts, used.attempt_bytes, used.day) for used in found
    ]
    return Answer(UsageView(str(first), str(last), _total(found), days))


def _period(asked: UsageQuery, today: date) -> tuple[date, date]:
    faults: list[Fault] = []
    last = _day("to", asked.until, faults) or today
    first = _day("from", asked.since, faults) or _before(last, DEFAULT_DAYS - 1)
    if not faults and first > last:
        faults.append(Fault("from", "must not be after to"))
    if not faults and (last - first).days >= MOST_DAYS:
        faults.append(Fault("from", f"must not be more than {MOST_DAYS} days back from to"))
    refuse(faults)
    return first, last


def _day(name: str, text: str, faults: list[Fault]) -> date | None:
    if not text:
        return None
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).date()
    except ValueError:
        faults.append(Fault(name, "must be a day like 2026-01-31"))
        return None


def _before(day: date, days: int) -> date:
    """So many days earlier, but never before the first day there is."""
    return max(day, date.min + timedelta(days)) - timedelta(days)


def _total(found: Iterable[Usage]) -> Figures:
    used = list(found)
    return Figures(
        sum(day.events for day in used),
        sum(day.event_bytes for day in used),
        sum(day.attempts for day in used),
        sum(day.attempt_bytes for day in used),
    )


OPERATIONS = (
    Operation("GET", f"{V1}/feature", get_feature, Scope.READ_SUBSCRIPTIONS),
    Operation("GET", f"{V1}/usage", get_usage),
)
