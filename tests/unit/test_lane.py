import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hookline.core.lane import START_SIZE, Breaker, BreakerState, TokenBucket, Window
from hookline.core.model import BreakerPolicy, RateLimit

# --- window -----------------------------------------------------------------------------------------


def answers(window: Window, successes: int) -> None:
    for _ in range(successes):
        window.succeeded()


def test_a_window_starts_small_and_doubles_in_a_round_trip():
    window = Window(64)
    sizes = [window.size]
    for _ in range(4):
        answers(window, window.size)
        sizes.append(window.size)
    assert sizes == [START_SIZE, 16, 32, 64, 64]


def test_a_small_limit_holds_from_the_start():
    window = Window(3)
    answers(window, 100)
    assert window.size == 3
    assert Window(0).size == 1


def test_after_a_failure_it_grows_by_one_in_a_round_trip():
    window = Window(64)
    window.failed()
    assert window.size == START_SIZE // 2
    for size in range(START_SIZE // 2, 20):
        assert window.size == size
        answers(window, size)


def test_one_round_trip_of_failures_halves_once():
    window = Window(64)
    answers(window, 24)
    assert window.size == 32
    for _ in range(32):
        window.failed()
    assert window.size == 16
    window.throttled()
    assert window.size == 8


def test_the_floor_is_one():
    window = Window(64)
    for _ in range(1000):
        window.throttled()
    assert window.size == 1
    window.succeeded()
    assert window.size == 2


@given(st.integers(1, 200), st.lists(st.sampled_from(["succeeded", "failed", "throttled"]), max_size=300))
def test_a_window_stays_in_its_bounds(limit: int, outcomes: list[str]):
    window = Window(limit)
    for outcome in outcomes:
        before = window.size
        getattr(window, outcome)()
        assert 1 <= window.size <= limit
        assert window.size <= before + 1
        assert window.size >= before // 2
        if outcome != "succeeded":
            assert window.size <= before


@given(st.integers(1, 100), st.lists(st.booleans(), max_size=100))
def test_successes_bring_a_window_back_to_its_limit(limit: int, outcomes: list[bool]):
    window = Window(limit)
    for good in outcomes:
        window.succeeded() if good else window.failed()
    answers(window, limit * limit)
    assert window.size == limit


# --- rate limit -------------------------------------------------------------------------------------


def test_a_full_bucket_gives_its_burst_then_the_rate():
    bucket = TokenBucket(RateLimit(count=10, seconds=1.0, burst=3))
    for _ in range(3):
        assert bucket.wait(100.0) == 0
        bucket.take(100.0)
    assert bucket.wait(100.0) == pytest.approx(0.1)
    assert bucket.wait(100.05) == pytest.approx(0.05)
    assert bucket.wait(100.1) == 0


def test_the_burst_is_the_count_unless_it_is_given():
    bucket = TokenBucket(RateLimit(count=5, seconds=60.0))
    for _ in range(5):
        assert bucket.wait(0.0) == 0
        bucket.take(0.0)
    assert bucket.wait(0.0) == pytest.approx(12.0)


def test_rest_does_not_save_up_more_than_the_burst():
    bucket = TokenBucket(RateLimit(count=1, seconds=1.0, burst=2))
    bucket.take(0.0)
    taken = 0
    while bucket.wait(1e6) == 0:
        bucket.take(1e6)
        taken += 1
    assert taken == 2


RATES = st.builds(
    RateLimit, count=st.integers(1, 1000), seconds=st.floats(0.1, 3600), burst=st.integers(0, 1000)
)


@given(RATES, st.floats(0, 1e7), st.lists(st.floats(0, 10), max_size=60))
def test_no_stretch_of_time_gets_more_than_the_rate(rate: RateLimit, now: float, pauses: list[float]):
    bucket, times = TokenBucket(rate), list[float]()
    for pause in pauses:
        now += pause
        if bucket.wait(now) == 0:
            bucket.take(now)
            times.append(now)
    burst, speed = rate.burst or rate.count, rate.count / rate.seconds
    for first, start in enumerate(times):
        for last in range(first, len(times)):
            assert last - first + 1 <= burst + (times[last] - start) * speed + 0.01


@given(RATES, st.floats(0, 1e6), st.integers(1, 50))
def test_waiting_as_told_is_enough_and_keeps_the_rate(rate: RateLimit, start: float, count: int):
    """A lane that sleeps for what ``wait`` said gets its token, and the whole rate."""
    bucket, now = TokenBucket(rate), start
    for _ in range(count):
        now += bucket.wait(now)
        assert bucket.wait(now) == 0
        bucket.take(now)
    nominal = max(0, count - (rate.burst or rate.count)) * rate.seconds / rate.count
    assert now - start == pytest.approx(nominal, rel=1e-3, abs=1e-3)


# --- breaker ----------------------------------------------------------------------------------------

POLICY = BreakerPolicy(failures=3, cooldown=5.0, max_cooldown=15.0)


def opened(policy: BreakerPolicy = POLICY, now: float = 0.0) -> Breaker:
    breaker = Breaker(policy)
    for _ in range(policy.failures):
        breaker.started()
        breaker.failed(now)
    return breaker


def test_failures_in_a_row_open_it():
    breaker = Breaker(POLICY)
    breaker.failed(0.0)
    breaker.failed(0.0)
    breaker.succeeded()
    breaker.failed(0.0)
    breaker.failed(0.0)
    assert (breaker.state, breaker.wait(0.0)) == (BreakerState.CLOSED, 0)
    breaker.failed(0.0)
    assert (breaker.state, breaker.wait(1.0)) == (BreakerState.OPEN, 4.0)


def test_one_probe_at_a_time():
    breaker = opened()
    assert breaker.wait(5.0) == 0
    breaker.started()
    assert breaker.state is BreakerState.HALF_OPEN
    assert breaker.wait(5.0) == 5.0
    breaker.succeeded()
    assert (breaker.state, breaker.wait(5.0)) == (BreakerState.CLOSED, 0)


def test_failed_probes_double_the_cooldown_up_to_its_cap():
    breaker, now, waits = opened(), 0.0, list[float]()
    for _ in range(4):
        waits.append(breaker.wait(now))
        now += waits[-1]
        breaker.started()
        breaker.failed(now)
    assert waits == [5.0, 10.0, 15.0, 15.0]
    now += breaker.wait(now)
    breaker.started()
    breaker.succeeded()
    for _ in range(3):
        breaker.failed(now)
    assert breaker.wait(now) == 5.0


def test_late_answers():
    breaker = opened()
    breaker.failed(4.0)
    assert breaker.wait(4.0) == 1.0
    breaker.succeeded()
    assert breaker.state is BreakerState.CLOSED


def test_an_abandoned_probe_makes_room_for_another():
    breaker = opened()
    breaker.started()
    breaker.abandoned()
    assert breaker.wait(5.0) == 0
    closed = Breaker(POLICY)
    closed.started()
    closed.abandoned()
    assert closed.state is BreakerState.CLOSED


def test_zero_switches_it_off():
    breaker = Breaker(BreakerPolicy(failures=0))
    for _ in range(1000):
        breaker.failed(0.0)
    assert (breaker.state, breaker.wait(0.0)) == (BreakerState.CLOSED, 0)


class BreakerMachine(RuleBasedStateMachine):
    """A lane that does as it is told, with answers in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(POLICY)
        self.now = 0.0
        self.in_flight = 0
        self.in_a_row = 0

    @rule(seconds=st.integers(0, 20))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @precondition(lambda self: self.breaker.wait(self.now) == 0)
    @rule()
    def start(self) -> None:
        before = self.breaker.state
        self.breaker.started()
        self.in_flight += 1
        if before is BreakerState.OPEN:
            assert self.breaker.state is BreakerState.HALF_OPEN
            assert self.breaker.wait(self.now) > 0

    @precondition(lambda self: self.in_flight)
    @rule()
    def succeed(self) -> None:
        self.in_flight -= 1
        self.in_a_row = 0
        self.breaker.succeeded()
        assert self.breaker.state is BreakerState.CLOSED

    @precondition(lambda self: self.in_flight)
    @rule()
    def fail(self) -> None:
        self.in_flight -= 1
        self.in_a_row += 1
        self.breaker.failed(self.now)
        if self.in_a_row >= POLICY.failures:
            assert self.breaker.state is BreakerState.OPEN

    @invariant()
    def it_opens_again_in_time(self) -> None:
        wait = self.breaker.wait(self.now)
        assert 0 <= wait <= POLICY.max_cooldown
        assert math.isfinite(wait)
        if self.in_a_row < POLICY.failures:
            assert self.breaker.state is BreakerState.CLOSED


TestBreaker = BreakerMachine.TestCase
