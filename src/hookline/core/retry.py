"""When a failed attempt is tried again: pure decisions, with time and randomness given."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from hookline.core.errors import Fault
from hookline.core.model import Millis, RetryKind, RetryPolicy

DAY: Final = 86_400.0

RETRY_AFTER_CAP: Final = DAY
"""Seconds for which a receiver may ask us to wait; longer wishes count as this."""

MAX_DELAYS: Final = 100
MAX_DELAY: Final = 7 * DAY
MAX_FACTOR: Final = 10.0
MAX_ATTEMPTS: Final = 1_000
MAX_AGE: Final = 60 * DAY
"""Events are kept for 60 days: a later attempt would have nothing to send."""

_GONE: Final = 410
_THROTTLING: Final = frozenset({429, 502, 503, 504})
_RETRY_ON: Final = re.compile(r"network|[1345]xx|[1345][0-9]{2}")


class Verdict(StrEnum):
    """What an attempt means for its delivery; ``gone`` also disables the subscription."""

    SUCCEEDED = "succeeded"
    RETRY = "retry"
    FAILED = "failed"
    GONE = "gone"


def verdict(policy: RetryPolicy, status: int, error: str, *, gone: bool = True) -> Verdict:
    """Judge one attempt by its HTTP status, or by ``error`` if it got no answer (status 0).

    Only 200 to 299 succeed, and 410 ends the subscription (Standard Webhooks 1.0.0), unless it is not ``gone``.
    """
    if not error and 200 <= status <= 299:
        return Verdict.SUCCEEDED
    if not error and status == _GONE and gone:
        return Verdict.GONE
    names = {"network"} if error or not status else {str(status), f"{status // 100}xx"}
    if policy.kind is RetryKind.NONE or names.isdisjoint(policy.retry_on):
        return Verdict.FAILED
    return Verdict.RETRY


def throttles(status: int) -> bool:
    """Whether the answer asks us to slow down: 429, 502, 504 (Standard Webhooks) and 503 (RFC 9110)."""
    return status in _THROTTLING


def next_due(
    policy: RetryPolicy,
    *,
    runs: int,
    first_at: Millis,
    now: Millis,
    retry_after: float | None,
    random: float,
) -> Millis | None:
    """When to try again after ``runs`` (1, 2, …) attempts, or None if the schedule is at its end.

    ``random`` in [0, 1) picks the jitter. ``retry_after`` (seconds) can only put the attempt off, by up to
    ``RETRY_AFTER_CAP``, and never past the policy's ``max_age``.
    """
    delay = _nominal(policy, runs)
    if delay is None:
        return None
    delay *= 1 + policy.jitter * (2 * random - 1)
    if retry_after is not None:
        delay = max(delay, min(retry_after, RETRY_AFTER_CAP))
    due = now + math.ceil(delay * 1000)
    if policy.max_age and due > first_at + policy.max_age * 1000:
        return None
    return due


def _nominal(policy: RetryPolicy, runs: int) -> float | None:
    """Seconds to wait after ``runs`` attempts, before jitter; None at the end of the schedule."""
    if policy.kind is RetryKind.NONE or (policy.max_attempts and runs >= policy.max_attempts):
        return None
    if policy.kind is RetryKind.LIST:
        return policy.delays[runs - 1] if runs <= len(policy.delays) else None
    try:
        return min(policy.cap, policy.base * policy.factor ** (runs - 1))
    except OverflowError:
        return policy.cap


def schedule(policy: RetryPolicy) -> list[float]:
    """The nominal delays in turn, without jitter, for people to read; at most ``MAX_DELAYS``."""
    delays: list[float] = []
    while len(delays) < MAX_DELAYS:
        delay = _nominal(policy, len(delays) + 1)
        if delay is None or (policy.max_age and sum(delays) + delay > policy.max_age):
            break
        delays.append(delay)
    return delays


# --- Retry-After ------------------------------------------------------------------------------------

_SECONDS: Final = re.compile(r"[0-9]{1,32}(?:\.[0-9]{1,9})?")
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_CLOCK: Final = r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_DATES: Final = (
    re.compile(rf"[a-z]{{3}}, (?P<day>[0-9]{{2}}) (?P<month>[a-z]{{3}}) (?P<year>[0-9]{{4}}) {_CLOCK} gmt"),
    re.compile(rf"[a-z]{{6,9}}, (?P<day>[0-9]{{2}})-(?P<month>[a-z]{{3}})-(?P<year>[0-9]{{2}}) {_CLOCK} gmt"),
    re.compile(rf"[a-z]{{3}} (?P<month>[a-z]{{3}}) (?P<day>[ 0-9][0-9]) {_CLOCK} (?P<year>[0-9]{{4}})"),
)
"""The three forms of an HTTP date (RFC 9110, 5.6.7), lower case: IMF-fixdate, RFC 850, asctime."""


def parse_retry_after(value: str, now: Millis) -> float | None:
    """Seconds to wait from ``now``, 0 to ``RETRY_AFTER_CAP``.

    None for what is neither a number of seconds nor an HTTP date.
    """
    text = value.strip().lower()
    if _SECONDS.fullmatch(text):
        return min(float(text), RETRY_AFTER_CAP)
    date = _http_date(text, now)
    if date is None:
        return None
    return min(max((date - now) / 1000, 0.0), RETRY_AFTER_CAP)


def _http_date(text: str, now: Millis) -> Millis | None:
    found = next((match for form in _DATES if (match := form.fullmatch(text))), None)
    if found is None or found["month"] not in _MONTHS:
        return None
    year = int(found["year"])
    if len(found["year"]) == 2:
        year = _full_year(year, now)
    month, day = _MONTHS.index(found["month"]) + 1, int(found["day"])
    second = min(int(found["second"]), 59)  # 60 is a leap second
    try:
        date = datetime(year, month, day, int(found["hour"]), int(found["minute"]), second, tzinfo=UTC)
    except ValueError:
        return None
    return int(date.timestamp()) * 1000


def _full_year(two_digits: int, now: Millis) -> int:
    """RFC 9110: a year that seems more than 50 years ahead is the past year with the same digits."""
    latest = datetime.fromtimestamp(now / 1000, UTC).year + 50
    return latest - (latest - two_digits) % 100


# --- checking ---------------------------------------------------------------------------------------


def policy_faults(policy: RetryPolicy) -> list[Fault]:
    """Everything that is wrong with a policy; an empty list means that the rest of this module can use it."""
    faults = [
        Fault(f"retry.{name}", f"must be from {low:g} to {high:g}")
        for name, value, low, high in (
            ("base", policy.base, 0.001, MAX_DELAY),
            ("factor", policy.factor, 1.0, MAX_FACTOR),
            ("cap", policy.cap, 0.001, MAX_DELAY),
            ("max_attempts", policy.max_attempts, 0, MAX_ATTEMPTS),
            ("max_age", policy.max_age, 0.0, MAX_AGE),
            ("jitter", policy.jitter, 0.0, 1.0),
        )
        if not low <= value <= high  # also true for NaN
    ]
    return faults + _delay_faults(policy) + _retry_on_faults(policy.retry_on)


def _delay_faults(policy: RetryPolicy) -> list[Fault]:
    if policy.kind is RetryKind.EXPONENTIAL and not (policy.max_attempts or policy.max_age):
        return [Fault("retry.max_attempts", "an exponential schedule needs max_attempts or max_age to end")]
    if policy.kind is not RetryKind.LIST:
        return []
    if not 1 <= len(policy.delays) <= MAX_DELAYS:
        return [Fault("retry.delays", f"must list 1 to {MAX_DELAYS} delays; use kind none for no retries")]
    return [
        Fault(f"retry.delays[{index}]", f"must be from 0 to {MAX_DELAY:g} seconds")
        for index, delay in enumerate(policy.delays)
        if not 0 <= delay <= MAX_DELAY
    ]


def _retry_on_faults(names: tuple[str, ...]) -> list[Fault]:
    if len(names) > MAX_DELAYS:
        return [Fault("retry.retry_on", f"must list at most {MAX_DELAYS} answers")]
    faults: list[Fault] = []
    for index, name in enumerate(names):
        if name == str(_GONE):
            faults.append(Fault(f"retry.retry_on[{index}]", "410 always ends the subscription; leave it out"))
        elif not _RETRY_ON.fullmatch(name):
            message = 'must be a status such as "503", a class such as "5xx" (not 2xx), or "network"'
            faults.append(Fault(f"retry.retry_on[{index}]", message))
    return faults
