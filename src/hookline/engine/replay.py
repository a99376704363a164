"""Replay: send settled deliveries of a range again, no faster than asked, beside the normal traffic."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from hookline.core.errors import NotFound, Overloaded, StorageUnavailable
from hookline.core.model import Replay, ReplayState, SubscriptionState
from hookline.observe import log
from hookline.ports import Clock, Storage

STEP = 200
"""Deliveries moved to the retry set at once."""
WAITING_LIMIT = 1000
"""Deliveries of a subscription that may wait before a replay pauses."""
TICK = 0.25
"""Seconds between steps of a job."""


class ReplayRunner:
    """Runs the replay jobs of one shard, step by step; each step and its progress are one transaction."""

    def __init__(self, storage: Storage, clock: Clock, requeued: Callable[[int], None]) -> None:
        self._storage = storage
        self._clock = clock
        self._requeued = requeued
        self._jobs: dict[str, Replay] = {}
        self._credit: dict[str, tuple[float, float]] = {}
        self._looks: set[int] = set()
        self._work = asyncio.Event()

    def load(self, replays: Sequence[Replay]) -> None:
        """Go on with the jobs that the last owner left."""
        self._jobs.update({replay.id: replay for replay in replays if replay.state is ReplayState.RUNNING})
        if self._jobs:
            self._work.set()

    def look(self, subscription_no: int) -> None:
        """Jobs of this subscription may be new or cancelled."""
        self._looks.add(subscription_no)
        self._work.set()

    async def run(self) -> None:
        """Step all jobs, for ever."""
        while True:
            await self._work.wait()
            try:
                await self._look()
                for replay in list(self._jobs.values()):
                    await self._step(replay)
            except (StorageUnavailable, Overloaded) as error:
                log.warning("replay_delayed", reason=error.detail)
            if self._jobs or self._looks:
                await asyncio.sleep(TICK)
            else:
                self._work.clear()

    async def _look(self) -> None:
        while self._looks:
            subscription_no = next(iter(self._looks))
            replays = await self._storage.list_replays(subscription_no, 100)
            self._looks.discard(subscription_no)
            self._jobs = {
                key: job for key, job in self._jobs.items() if job.subscription_no != subscription_no
            }
            self.load(replays)

    async def _step(self, replay: Replay) -> None:
        subscription = await self._storage.subscription_by_no(replay.subscription_no)
        if subscription.state is SubscriptionState.DELETED:  # nobody would settle what it puts back
            await self._storage.cancel_replay(replay.id, self._clock.now())
            self._forget(replay)
            return
        waiting, _ = await self._storage.waiting(replay.subscription_no)
        count = 0 if waiting >= WAITING_LIMIT else self._allowed(replay)
        if not count:
            return
        interval = 1 / replay.rate if replay.rate else 0.0
        now = self._clock.now()
        try:
            replay = await self._storage.step_replay(replay.id, count, now, interval, now)
        except NotFound:
            self._forget(replay)
            return
        self._requeued(replay.subscription_no)
        if replay.state is ReplayState.RUNNING:
            self._jobs[replay.id] = replay
        else:
            self._forget(replay)

    def _allowed(self, replay: Replay) -> int:
        """How many deliveries the rate leaves free now."""
        if not replay.rate:
            return STEP
        now = self._clock.monotonic()
        since, credit = self._credit.get(replay.id, (now, 1.0))
        credit = min(float(STEP), credit + (now - since) * replay.rate)
        count = int(credit)
        self._credit[replay.id] = (now, credit - count)
        return count

    def _forget(self, replay: Replay) -> None:
        self._jobs.pop(replay.id, None)
        self._credit.pop(replay.id, None)
