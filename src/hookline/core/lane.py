"""How fast a lane may go: window, rate limit and breaker, as state machines.

``now`` is a monotonic time in seconds. Nothing here reads a clock, so a simulation can bend time.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, final

from hookline.core.model import BreakerPolicy, RateLimit

START_SIZE: Final = 8
"""Requests in flight that a lane starts with (or its limit, if that is smaller)."""


@final
class Window:
    """How many requests may be in flight, adapting to how the endpoint answers.

    Each success adds one until the first failure (slow start: the window doubles in a round trip); after
    that a whole window of successes adds one. A failure halves the window, once in a round trip: the answers
    of requests that were in flight when it was halved say nothing about the smaller size, so as many answers
    as the window had places pass before it can be halved again.
    """

    __slots__ = ("_credit", "_deaf", "_slow_start", "limit", "size")

    def __init__(self, limit: int) -> None:
        self.limit = max(1, limit)
        self.size = min(START_SIZE, self.limit)
        self._slow_start = True
        self._credit = 0
        self._deaf = 0

    def succeeded(self) -> None:
        """A request got its 2xx."""
        if self._deaf:
            self._deaf -= 1
        if self.size < self.limit:
            self._credit += 1
            if self._slow_start or self._credit >= self.size:
                self.size += 1
                self._credit = 0

    def failed(self) -> None:
        """A request failed: no answer, or one that is not 2xx."""
        if self._deaf:
            self._deaf -= 1
            return
        self._slow_start = False
        self._credit = 0
        self._deaf = self.size - 1
        self.size = max(1, self.size // 2)

    def throttled(self) -> None:
        """The endpoint asked us to slow down (429, 503 …)."""
        self.failed()


@final
class TokenBucket:
    """A rate limit: in any stretch of t seconds at most ``burst + t * count / seconds`` tokens are taken.

    Kept as one number, the time at which the bucket would be full again (GCRA), so a lane at rest costs
    nothing.
    """

    __slots__ = ("_full_at", "_interval", "_slack")

    def __init__(self, rate: RateLimit) -> None:
        self._interval = rate.seconds / rate.count
        self._slack = self._interval * ((rate.burst or rate.count) - 1)
        self._full_at = float("-inf")

    def wait(self, now: float) -> float:
        """Seconds until a token is there; 0 if there is one. Differences under a microsecond count as 0."""
        seconds = self._full_at - self._slack - now
        return seconds if seconds > 1e-6 else 0.0

    def take(self, now: float) -> None:
        """Take a token; only after ``wait`` said 0."""
        self._full_at = max(self._full_at, now) + self._interval


class BreakerState(StrEnum):
    """``half_open``: one probe is out, and its outcome decides."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@final
class Breaker:
    """Stops a lane whose endpoint keeps failing, and probes it with single requests.

    Call ``started`` for each request and then one of ``succeeded``, ``failed`` or ``abandoned``. Late
    answers of requests from before the breaker opened count too: a success closes it, a failure changes
    nothing while it is open.
    """

    __slots__ = ("_cooldown", "_failures", "_opens_at", "_policy", "_retry_at", "state")

    def __init__(self, policy: BreakerPolicy) -> None:
        self._policy = policy
        self._opens_at = policy.failures or float("inf")
        self._failures = 0
        self._cooldown = policy.cooldown
        self._retry_at = 0.0
        self.state = BreakerState.CLOSED

    def wait(self, now: float) -> float:
        """Seconds until a request may start; 0: now.

        While a probe is out this is the cooldown: ask again when the probe is answered.
        """
        if self.state is BreakerState.CLOSED:
            return 0.0
        if self.state is BreakerState.HALF_OPEN:
            return self._cooldown
        return max(0.0, self._retry_at - now)

    def started(self) -> None:
        """A request started, after ``wait`` said 0; if the breaker is open, it is the probe."""
        if self.state is BreakerState.OPEN:
            self.state = BreakerState.HALF_OPEN

    def succeeded(self) -> None:
        """The endpoint answered well: closed, and all is forgotten."""
        if self._failures:
            self._failures = 0
            self._cooldown = self._policy.cooldown
            self.state = BreakerState.CLOSED

    def failed(self, now: float) -> None:
        """A request failed; opens the breaker if it was one too many, or the probe."""
        if self.state is BreakerState.OPEN:
            return
        self._failures += 1
        if self.state is BreakerState.HALF_OPEN:
            self._cooldown = min(self._cooldown * 2, self._policy.max_cooldown)
            self._open(now)
        elif self._failures >= self._opens_at:
            self._open(now)

    def abandoned(self) -> None:
        """A request was given up without an outcome; if it was the probe, another one may start."""
        if self.state is BreakerState.HALF_OPEN:
            self.state = BreakerState.OPEN

    def _open(self, now: float) -> None:
        self.state = BreakerState.OPEN
        self._retry_at = now + self._cooldown
