"""Send one delivery and act on its outcome."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from msgspec import Struct

from hookline.core.errors import HooklineError
from hookline.core.model import OPERATIONAL_PREFIX, DeliveryState, Event, Millis, Unsettled
from hookline.core.retry import Verdict, next_due, throttles, verdict
from hookline.engine.compose import Composed
from hookline.engine.dispatch import outcomes
from hookline.engine.dispatch.lane import Job, Lane
from hookline.engine.record import Recorder
from hookline.engine.tokens import TokenCache
from hookline.observe import Metrics, log
from hookline.ports import Clock, ErrorClass, Outcome, Request, Sender

WARN_FRACTION = 0.5
"""The part of ``disable_after`` after which the warning event goes out."""
WARN_LEAD = 0.25
"""The part of ``disable_after`` that lies at least between the warning and the end, for the owner to act in. It counts
where failures are rare: then the first one after the warning is due may come long after ``disable_after``."""

NOT_COMPOSED = "the request could not be composed; the server's log has the reason"


class Chance(Struct, frozen=True):
    """Randomness, given so that a simulation can repeat it: a number in [0, 1), and random bytes."""

    fraction: Callable[[], float]
    entropy: Callable[[int], bytes]


class Deliverer:
    """Turns jobs of one shard into requests, and their outcomes into records, limits and operational events."""

    def __init__(
        self,
        sender: Sender,
        tokens: TokenCache,
        recorder: Recorder,
        finished: Callable[[Job], None],
        clock: Clock,
        chance: Chance,
        metrics: Metrics,
    ) -> None:
        self._sender = sender
        self._tokens = tokens
        self._recorder = recorder
        self._finished = finished
        self._clock = clock
        self._chance = chance
        self._metrics = metrics

    def start(self, job: Job) -> None:
        """Send the job's request; ``finished`` is called when its outcome is on the way to be recorded."""
        try:
            composer = job.lane.composer
        except HooklineError as error:
            self._unsent(job, ErrorClass.INTERNAL, error.detail)
            return
        if composer.oauth2 is None:
            self._send(job, "")
        else:
            self._tokens.get(composer.oauth2, partial(self._send_with_token, job))

    def expire(self, job: Job) -> None:
        """Settle a delivery whose event is past its retention, without sending."""
        self._metrics.expired.inc()
        now = self._clock.now()
        job.lane.settled(job, DeliveryState.EXPIRED)
        row = outcomes.settled_of(job, DeliveryState.EXPIRED, job.attempts, now, None)
        self._recorder.settle(job, None, row)

    def lost(self, lane: Lane, row: Unsettled) -> None:
        """Settle a waiting delivery whose event was removed by retention."""
        gone = Event(0, row.position, lane.subscription.tenant_no, "", "", b"", 0, 0, key=row.key)
        self.expire(Job.again(lane, gone, row, self._clock.monotonic()))

    # --- sending

    def _send_with_token(self, job: Job, token: str, error: str) -> None:
        if error:
            self._unsent(job, ErrorClass.AUTH, error)
        else:
            self._send(job, token)

    def _send(self, job: Job, token: str) -> None:
        now = self._clock.now()
        try:
            composed = job.lane.composer.compose(job.event, job.sequence, job.attempts + 1, now, token)
        except Exception as error:  # noqa: BLE001 - one event must not stop its lanes for ever
            log.error("request_not_composed", event_id=job.event.id, exc_info=error)
            self._unsent(job, ErrorClass.INTERNAL, NOT_COMPOSED)
            return
        done = partial(self._done, job, composed, now)
        self._sender.start(composed.request, partial(self._check_token, job, token, done) if token else done)

    def _unsent(self, job: Job, error: ErrorClass, detail: str) -> None:
        definition = job.lane.subscription.definition
        request = Request(definition.method, definition.url, [], None, 0.0, 0.0)
        self._done(job, Composed(request, ""), self._clock.now(), Outcome(error=error, detail=detail))

    # --- outcomes

    def _check_token(self, job: Job, token: str, done: Callable[[Outcome], None], outcome: Outcome) -> None:
        """A token that the endpoint refused is not used again."""
        if outcome.status == 401 and job.lane.composer.oauth2 is not None:
            self._tokens.forget(job.lane.composer.oauth2, token)
        done(outcome)

    def _done(self, job: Job, composed: Composed, started_at: Millis, outcome: Outcome) -> None:
        lane = job.lane
        self._metrics.attempts.inc(outcome.status)
        self._metrics.attempt_seconds.observe(outcome.total_us / 1e6)
        attempt = outcomes.attempt_of(job, composed.request, composed.masked_headers, started_at, outcome)
        now = self._clock.now()
        definition = lane.subscription.definition
        judged = verdict(
            definition.retry, outcome.status, outcome.error or "", gone=definition.disable_on_gone
        )
        if judged is Verdict.SUCCEEDED:
            self._succeeded(lane)
        else:
            self._failed(lane, outcome, started_at, now)
        due = self._due(job, outcome, started_at, now) if judged is Verdict.RETRY else None
        if due is not None:
            row = outcomes.unsettled_of(job, due, started_at, outcome)
            lane.unsettled(job, row)
            self._metrics.retried.inc()
            self._recorder.retry(job, attempt, row)
        else:
            state = DeliveryState.SUCCEEDED if judged is Verdict.SUCCEEDED else DeliveryState.FAILED
            lane.settled(job, state)
            self._count(job, state, outcome, now)
            self._recorder.settle(
                job, attempt, outcomes.settled_of(job, state, job.attempts + 1, now, outcome)
            )
        if judged is Verdict.GONE:
            self._disable(lane, "the endpoint answered 410 Gone", now)
        lane.in_flight -= 1
        self._finished(job)

    def _succeeded(self, lane: Lane) -> None:
        lane.window.succeeded()
        lane.breaker.succeeded()
        if lane.failing_since:
            lane.failing_since = lane.warned_at = 0
            self._recorder.touch(lane)

    def _failed(self, lane: Lane, outcome: Outcome, started_at: Millis, now: Millis) -> None:
        monotonic = self._clock.monotonic()
        if throttles(outcome.status):
            self._throttle(lane, outcome, monotonic, now)
        else:
            lane.window.failed()
        lane.breaker.failed(monotonic)
        if not lane.failing_since:
            lane.failing_since = started_at
            self._recorder.touch(lane)
        self._judge_health(lane, now)

    def _throttle(self, lane: Lane, outcome: Outcome, monotonic: float, now: Millis) -> None:
        lane.window.throttled()
        pause = outcomes.retry_after(outcome, now)
        if pause is not None:
            until = monotonic + min(pause, outcomes.LANE_PAUSE_CAP)
            lane.throttled_until = max(lane.throttled_until, until)

    def _judge_health(self, lane: Lane, now: Millis) -> None:
        """Warn, then disable. Starting a stopped subscription again starts the count anew."""
        limit = lane.subscription.definition.disable_after
        since = max(lane.failing_since, lane.subscription.state_at)
        failing = (now - since) / 1000
        if not limit or failing < limit * WARN_FRACTION:
            return
        reason = f"nothing but failures for {failing / 3600:.1f} hours"
        if lane.warned_at < since:
            lane.warned_at = now
            self._announce(lane, outcomes.SUBSCRIPTION_FAILING, reason, now)
            self._recorder.touch(lane)
        elif failing >= limit and (now - lane.warned_at) / 1000 >= limit * WARN_LEAD:
            self._disable(lane, reason, now)

    def _disable(self, lane: Lane, reason: str, now: Millis) -> None:
        if lane.stopped:
            return
        lane.stopped = True
        self._recorder.disable(lane, reason)
        self._announce(lane, outcomes.SUBSCRIPTION_DISABLED, reason, now)

    def _announce(self, lane: Lane, name: str, reason: str, now: Millis) -> None:
        self._recorder.announce(
            outcomes.subscription_event(
                name, lane.subscription, reason, lane.failing_since, now, self._chance.entropy(10)
            )
        )

    def _due(self, job: Job, outcome: Outcome, started_at: Millis, now: Millis) -> Millis | None:
        return next_due(
            job.lane.subscription.definition.retry,
            runs=job.runs + 1,
            first_at=job.first_at or started_at,
            now=now,
            retry_after=outcomes.retry_after(outcome, now),
            random=self._chance.fraction(),
        )

    def _count(self, job: Job, state: DeliveryState, outcome: Outcome, now: Millis) -> None:
        if state is DeliveryState.SUCCEEDED:
            self._metrics.succeeded.inc()
            return
        self._metrics.failed.inc()
        if not job.event.type.startswith(OPERATIONAL_PREFIX):
            event = outcomes.delivery_event(job, job.attempts + 1, outcome, now, self._chance.entropy(10))
            self._recorder.announce(event)
