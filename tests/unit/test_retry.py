import math
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hookline.core.model import STANDARD_DELAYS, RetryKind, RetryPolicy
from hookline.core.retry import (
    MAX_DELAYS,
    RETRY_AFTER_CAP,
    Verdict,
    next_due,
    parse_retry_after,
    policy_faults,
    schedule,
    throttles,
    verdict,
)

NOW = 1_750_000_000_000
STANDARD = RetryPolicy()
NONE = RetryPolicy(kind=RetryKind.NONE)


def exponential(**changes: Any) -> RetryPolicy:
    return RetryPolicy(**{"kind": RetryKind.EXPONENTIAL, "max_attempts": 10, **changes})


def listed(*delays: float, **changes: Any) -> RetryPolicy:
    return RetryPolicy(**{"kind": RetryKind.LIST, "delays": delays, "jitter": 0.0, **changes})


def due(policy: RetryPolicy, runs: int, **changes: Any) -> int | None:
    return next_due(
        policy, **{"runs": runs, "first_at": NOW, "now": NOW, "retry_after": None, "random": 0.5, **changes}
    )


# --- verdicts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "status", "error", "expected"),
    [
        (STANDARD, 200, "", Verdict.SUCCEEDED),
        (STANDARD, 299, "", Verdict.SUCCEEDED),
        (NONE, 204, "", Verdict.SUCCEEDED),
        (STANDARD, 199, "", Verdict.RETRY),
        (STANDARD, 300, "", Verdict.RETRY),
        (STANDARD, 301, "", Verdict.RETRY),
        (STANDARD, 404, "", Verdict.RETRY),
        (STANDARD, 500, "", Verdict.RETRY),
        (STANDARD, 999, "", Verdict.FAILED),
        (STANDARD, 0, "timeout", Verdict.RETRY),
        (STANDARD, 410, "", Verdict.GONE),
        (NONE, 410, "", Verdict.GONE),
        (NONE, 500, "", Verdict.FAILED),
        (NONE, 0, "dns", Verdict.FAILED),
        (RetryPolicy(retry_on=("503",)), 503, "", Verdict.RETRY),
        (RetryPolicy(retry_on=("503",)), 500, "", Verdict.FAILED),
        (RetryPolicy(retry_on=("503",)), 0, "reset", Verdict.FAILED),
        (RetryPolicy(retry_on=("network",)), 0, "reset", Verdict.RETRY),
        (RetryPolicy(retry_on=("network",)), 500, "", Verdict.FAILED),
        (RetryPolicy(retry_on=("5xx", "429")), 429, "", Verdict.RETRY),
        (RetryPolicy(retry_on=()), 500, "", Verdict.FAILED),
        (RetryPolicy(retry_on=("4xx",)), 410, "", Verdict.GONE),
    ],
)
def test_verdicts(policy: RetryPolicy, status: int, error: str, expected: Verdict):
    assert verdict(policy, status, error) is expected


def test_an_error_outweighs_a_status():
    """A connection that broke within a 200 answer did not succeed."""
    assert verdict(STANDARD, 200, "reset") is Verdict.RETRY
    assert verdict(STANDARD, 410, "reset") is Verdict.RETRY


def test_throttling_answers():
    assert [status for status in range(100, 600) if throttles(status)] == [429, 502, 503, 504]


# --- schedules --------------------------------------------------------------------------------------


def test_the_standard_schedule_ends_after_75_hours_and_35_minutes():
    """Standard Webhooks 1.0.0: the last attempt of its example schedule."""
    assert schedule(STANDARD) == list(STANDARD_DELAYS)
    assert sum(schedule(STANDARD)) == 75 * 3600 + 35 * 60 + 5
    assert due(STANDARD, 9) == NOW + 86_400_000
    assert due(STANDARD, 10) is None


def test_a_list_is_used_in_turn():
    policy = listed(0, 1.5, 60)
    assert [due(policy, runs) for runs in (1, 2, 3, 4)] == [NOW, NOW + 1500, NOW + 60_000, None]


def test_an_exponential_schedule_grows_to_its_cap():
    policy = exponential(base=1.0, factor=3.0, cap=20.0, jitter=0.0, max_attempts=6)
    assert schedule(policy) == [1, 3, 9, 20, 20]
    assert due(policy, 6) is None
    assert due(exponential(max_attempts=1000, cap=50.0, factor=10.0, jitter=0.0), 999) == NOW + 50_000


def test_attempts_and_age_end_a_schedule():
    assert schedule(listed(1, 1, 1, max_attempts=3)) == [1, 1]
    assert schedule(listed(10, 10, 10, max_age=25.0)) == [10, 10]
    assert schedule(NONE) == []
    assert len(schedule(exponential(max_attempts=1000))) == MAX_DELAYS
    policy = listed(10, max_age=25.0)
    assert due(policy, 1, first_at=NOW - 15_000) == NOW + 10_000
    assert due(policy, 1, first_at=NOW - 15_001) is None


def test_jitter_goes_both_ways():
    policy = listed(100, jitter=0.2)
    assert due(policy, 1, random=0.0) == NOW + 80_000
    assert due(policy, 1, random=0.5) == NOW + 100_000
    assert NOW + 119_000 < (due(policy, 1, random=0.999) or 0) <= NOW + 120_000


def test_retry_after_only_puts_off():
    policy = listed(100)
    assert due(policy, 1, retry_after=10.0) == NOW + 100_000
    assert due(policy, 1, retry_after=200.0) == NOW + 200_000
    assert due(policy, 1, retry_after=1e12) == NOW + RETRY_AFTER_CAP * 1000
    assert due(listed(100, max_age=150.0), 1, retry_after=200.0) is None
    assert due(policy, 2, retry_after=200.0) is None


POLICIES = st.builds(
    RetryPolicy,
    kind=st.sampled_from(RetryKind),
    delays=st.lists(st.floats(0, 604800), min_size=1, max_size=20).map(tuple),
    base=st.floats(0.001, 604800),
    factor=st.floats(1, 10),
    cap=st.floats(0.001, 604800),
    max_attempts=st.integers(1, 1000),
    max_age=st.floats(0, 5_184_000),
    jitter=st.floats(0, 1),
)
UNIT = st.floats(0, 1, exclude_max=True)
WISHES = st.none() | st.floats(0, 1e9)


@given(POLICIES, st.integers(1, 2000), st.integers(0, 10**10), WISHES, UNIT)
def test_due_times_are_bounded(policy: RetryPolicy, runs: int, age: int, wish: float | None, random: float):
    assert policy_faults(policy) == []
    when = next_due(policy, runs=runs, first_at=NOW - age, now=NOW, retry_after=wish, random=random)
    if when is None:
        return
    assert when >= NOW
    if wish is not None:
        assert when >= NOW + min(wish, RETRY_AFTER_CAP) * 1000 - 1
    longest = max(604800 * (1 + policy.jitter), RETRY_AFTER_CAP)
    assert when <= NOW + longest * 1000 + 1
    if policy.max_age:
        assert when <= NOW - age + policy.max_age * 1000
    assert runs < policy.max_attempts
    assert policy.kind is not RetryKind.NONE


@given(POLICIES, st.integers(1, 100), WISHES, WISHES, UNIT, UNIT)
def test_due_times_grow_with_wish_and_chance(
    policy: RetryPolicy, runs: int, wish: float | None, longer: float | None, random: float, higher: float
):
    assume((wish or 0) <= (longer or 0))
    assume(random <= higher)
    first = due(policy, runs, retry_after=wish, random=random)
    later = due(policy, runs, retry_after=longer, random=higher)
    if later is not None:
        assert first is not None
        assert first <= later


@given(st.floats(0.001, 1e5), st.floats(1, 10), st.floats(0.001, 604800), st.integers(1, 998))
def test_an_exponential_schedule_never_shrinks(base: float, factor: float, cap: float, runs: int):
    policy = exponential(base=base, factor=factor, cap=cap, jitter=0.0, max_attempts=1000)
    assert (due(policy, runs) or 0) <= (due(policy, runs + 1) or 0) <= NOW + cap * 1000 + 1


@given(POLICIES)
def test_the_schedule_is_what_next_due_does_without_jitter(policy: RetryPolicy):
    calm = RetryPolicy(
        kind=policy.kind, delays=policy.delays, base=policy.base, factor=policy.factor, cap=policy.cap,
        max_attempts=policy.max_attempts, jitter=0.0,
    )  # fmt: skip
    for index, delay in enumerate(schedule(calm)):
        assert due(calm, index + 1) == NOW + math.ceil(delay * 1000)


# --- Retry-After ------------------------------------------------------------------------------------

SUN = 784_111_777_000  # Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 120 ", 120.0),
        ("1.5", 1.5),
        ("007", 7.0),
        ("86401", RETRY_AFTER_CAP),
        ("9" * 32, RETRY_AFTER_CAP),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 30.0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 30.0),
        ("Sun Nov  6 08:49:37 1994", 30.0),
        ("sun, 06 nov 1994 08:49:37 gmt", 30.0),
        ("Sun, 06 Nov 1994 08:49:60 GMT", 52.0),
        ("Sun, 06 Nov 1994 08:49:00 GMT", 0.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", RETRY_AFTER_CAP),
        ("Sunday, 06-Nov-45 08:49:37 GMT", 0.0),
        ("Sunday, 06-Nov-44 08:49:37 GMT", RETRY_AFTER_CAP),
    ],
)
def test_retry_after(value: str, seconds: float):
    assert parse_retry_after(value, SUN - 30_000) == seconds


@pytest.mark.parametrize(
    "value",
    ["", " ", "-1", "+1", "1e9", "nan", "inf", "0x10", "1,5", "1 2", "soon", "٣", "9" * 5000, "1." + "0" * 50,
     "Sun, 06 Nov 1994 08:49:37 CET", "Sun, 06 Nov 1994 25:49:37 GMT", "Sun, 31 Feb 1994 08:49:37 GMT",
     "Sun, 06 Foo 1994 08:49:37 GMT", "Sun, 06 Nov 0000 08:49:37 GMT", "1994-11-06T08:49:37Z",
     "Sun Nov 6 08:49:37 1994"],
)  # fmt: skip
def test_what_is_no_retry_after(value: str):
    assert parse_retry_after(value, SUN) is None


@given(st.text(max_size=60), st.integers(0, 4_000_000_000_000))
def test_any_text_is_bounded_or_none(value: str, now: int):
    seconds = parse_retry_after(value, now)
    assert seconds is None or 0 <= seconds <= RETRY_AFTER_CAP


@given(st.integers(0, 4_000_000_000), st.integers(0, 86_400))
def test_dates_of_the_standard_library_are_read(now: int, ahead: int):
    text = format_datetime(datetime.fromtimestamp(now + ahead, UTC), usegmt=True)
    assert parse_retry_after(text, now * 1000) == ahead


# --- checking ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "fields"),
    [
        (STANDARD, []),
        (NONE, []),
        (exponential(), []),
        (exponential(max_attempts=0, max_age=3600.0), []),
        (exponential(max_attempts=0), ["retry.max_attempts"]),
        (RetryPolicy(delays=()), ["retry.delays"]),
        (RetryPolicy(delays=(1.0,) * 100), []),
        (RetryPolicy(delays=(1.0,) * 101), ["retry.delays"]),
        (
            RetryPolicy(delays=(0.0, -1.0, 604800.0, 604801.0, math.nan)),
            [f"retry.delays[{i}]" for i in (1, 3, 4)],
        ),
        (RetryPolicy(base=0.0, factor=0.5, cap=math.inf), ["retry.base", "retry.factor", "retry.cap"]),
        (RetryPolicy(factor=10.1), ["retry.factor"]),
        (RetryPolicy(max_attempts=-1, max_age=-1.0), ["retry.max_attempts", "retry.max_age"]),
        (RetryPolicy(max_attempts=1001, max_age=1e9), ["retry.max_attempts", "retry.max_age"]),
        (RetryPolicy(jitter=1.1), ["retry.jitter"]),
        (RetryPolicy(jitter=math.nan), ["retry.jitter"]),
        (RetryPolicy(retry_on=("network", "1xx", "3xx", "429", "599")), []),
        (
            RetryPolicy(retry_on=("2xx", "204", "6xx", "5XX", "99", "", "503 ")),
            [f"retry.retry_on[{i}]" for i in range(7)],
        ),
        (RetryPolicy(retry_on=("410",)), ["retry.retry_on[0]"]),
        (RetryPolicy(retry_on=("500",) * 101), ["retry.retry_on"]),
    ],
)
def test_faults_name_their_place(policy: RetryPolicy, fields: list[str]):
    assert [fault.field for fault in policy_faults(policy)] == fields
