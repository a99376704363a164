"""Who acts in the world: publishers, the owners of subscriptions, and misfortune."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from random import Random

from msgspec.structs import replace

from hookline.core.errors import Conflict, HooklineError, IdConflict, NotFound, StorageUnavailable
from hookline.core.model import (
    BreakerPolicy,
    Definition,
    DeliveryState,
    Order,
    RateLimit,
    Replay,
    ReplayState,
    RetryKind,
    RetryPolicy,
    SchemaMode,
    SignatureScheme,
    Signing,
    Subscription,
    SubscriptionState,
    Tenant,
    Timeout,
)
from hookline.engine.publish import Publisher
from tests.simulation.plan import LONG
from tests.simulation.traffic import VERSION_HEADER
from tests.simulation.world import World

TYPES = ("order:created", "order:updated", "stock:adjusted", "sale", "product:x")
PATTERNS = (("*",), ("order:*",), ("order:created", "sale"), ("stock:adjusted",), ("hookline.*", "sale"))
FILTERS = (
    None, None, None, "data.n > 3", 'data.kind in ["a", "b"]', 'type prefix "order" and data.n < 8', "not data.z exists"
)  # fmt: skip
ANSWER_WAIT = 20.0
"""Seconds a publisher waits for its answer before it sends the event again, under the same id."""


class Publishers:
    """Publish, and insist until there is an answer."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._random = Random(world.random.getrandbits(64))
        self._made = 0
        self.acknowledged: dict[tuple[int, str], bytes] = {}

    async def run(self) -> None:
        """Publish batches at random times, for ever."""
        plan, random = self._world.plan, self._random
        async with asyncio.TaskGroup() as tasks:
            while True:
                await asyncio.sleep(random.expovariate(1 / plan.publish_every))
                for _ in range(random.randint(1, plan.batch)):
                    tasks.create_task(self._insist(random.choice(self._world.tenants)))

    async def _insist(self, tenant: Tenant) -> None:
        event_id, body = self._event()
        open_tenant = replace(tenant, schema_mode=SchemaMode.OFF)
        while True:
            try:
                async with asyncio.timeout(ANSWER_WAIT):
                    await self._some_api().publish(open_tenant, body)
                self.acknowledged[tenant.no, event_id] = body
                if self._random.random() > 0.05:  # some send again what was answered
                    return
            except IdConflict as error:
                self._world.witness.breaks("the same event is no conflict", event_id, error.detail)
                return
            except (HooklineError, TimeoutError):
                pass
            await asyncio.sleep(self._random.uniform(0.1, 3))

    def _some_api(self) -> Publisher:
        if not self._world.apis:
            raise StorageUnavailable("nobody listens")
        publisher = self._random.choice(self._world.apis).publisher
        assert publisher is not None
        return publisher

    def _event(self) -> tuple[str, bytes]:
        self._made += 1
        random, event_id = self._random, f"e{self._made}"
        event = {
            "id": event_id,
            "type": random.choice(TYPES),
            "data": {"n": random.randint(0, 9), "kind": random.choice("abc")},
        }
        if random.random() < 0.8:
            event["key"] = f"k{random.randrange(self._world.plan.keys)}"
        return event_id, json.dumps(event).encode()


class Owners:
    """Make and change subscriptions, and have deliveries sent again."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._random = Random(world.random.getrandbits(64))
        self._steps: tuple[Callable[[], Awaitable[None]], ...] = (
            self._edit, self._edit, self._edit, self._pause, self._resume, self._resume, self._resend, self._resend,
            self._replay, self._cancel_replay, self._create, self._delete,
        )  # fmt: skip

    async def begin(self) -> None:
        """The first subscriptions."""
        while len(self._world.witness.books) < self._world.plan.subscriptions:
            await self._try(self._create)

    async def run(self) -> None:
        """Do something now and then, for ever."""
        while True:
            await asyncio.sleep(self._random.expovariate(1 / self._world.plan.operate_every))
            await self._try(self._random.choice(self._steps))
            self._world.ring(self._random)

    async def resume_all(self) -> None:
        """Start everything that stands."""
        for subscription in self._living():
            if subscription.state is not SubscriptionState.ACTIVE:
                await self._world.user.set_subscription_state(
                    subscription.no, SubscriptionState.ACTIVE, "", self._world.witness.now()
                )

    async def _try(self, step: Callable[[], Awaitable[None]]) -> None:
        """They may try again later; whether it took effect although there was an error, the witness saw."""
        with contextlib.suppress(StorageUnavailable, Conflict, NotFound):
            await step()

    def _living(self) -> list[Subscription]:
        found = self._world.storage._subscriptions.values()
        return [each for each in found if each.state is not SubscriptionState.DELETED]

    def _pick(self) -> Subscription:
        living = self._living()
        if not living:
            raise NotFound
        return self._random.choice(living)

    # --- definitions

    def _definition(self, number: str) -> Definition:
        random = self._random
        return Definition(
            url=f"http://e{random.randrange(self._world.plan.subscriptions)}.test/hook",
            events=random.choice(PATTERNS),
            filter=random.choice(FILTERS),
            headers={VERSION_HEADER: number},
            signing=Signing(scheme=SignatureScheme.NONE),
            retry=self._retry(),
            timeout=Timeout(1.0, random.choice((2.0, 20.0))),
            rate_limit=random.choice((None, None, RateLimit(2, 1.0), RateLimit(30, 60.0, burst=1))),
            max_in_flight=random.choice((1, 3, 64)),
            order=random.choice(tuple(Order)),
            breaker=random.choice((BreakerPolicy(), BreakerPolicy(3, 2.0, 20.0), BreakerPolicy(0))),
            disable_after=random.choice((432000.0, 3600.0, 90.0, 0.0)),
        )

    def _retry(self) -> RetryPolicy:
        random = self._random
        long = self._world.plan.kind == LONG
        return random.choice(
            (
                RetryPolicy() if long else RetryPolicy(delays=(1, 5, 20, 60)),
                RetryPolicy(delays=(0.1, 0.5)),
                RetryPolicy(kind=RetryKind.NONE),
                RetryPolicy(
                    kind=RetryKind.EXPONENTIAL,
                    base=0.5,
                    factor=3,
                    cap=3600.0 if long else 30.0,
                    max_attempts=12,
                ),
                RetryPolicy(kind=RetryKind.EXPONENTIAL, base=1, max_age=86400.0 if long else 120.0),
                RetryPolicy(delays=(2,) * 6, retry_on=("network", "5xx", "429")),
            )
        )

    async def _create(self) -> None:
        random, tenant = self._random, self._random.choice(self._world.tenants)
        number = len(self._world.storage._subscriptions) + 1
        head = len(self._world.witness.log[tenant.no % self._world.plan.shards])
        start = random.randint(0, head) if random.random() < 0.3 else None
        state = SubscriptionState.PAUSED if random.random() < 0.1 else SubscriptionState.ACTIVE
        await self._world.user.create_subscription(
            f"sub{number}",
            tenant.no,
            self._definition(f"{number}.1"),
            b"",
            self._world.witness.now(),
            state,
            start,
        )

    async def _edit(self) -> None:
        old = self._pick()
        new = self._definition(f"{old.no}.{old.version + 1}")
        kept = self._random.choice(
            (("order",), ("url", "breaker", "rate_limit"), ("events", "filter"), ("events", "order"), ())
        )
        new = replace(new, **{name: getattr(old.definition, name) for name in kept})
        await self._world.user.update_subscription(old.no, old.version, new, b"", self._world.witness.now())

    # --- states

    async def _pause(self) -> None:
        found = self._pick()
        state = self._random.choice((SubscriptionState.PAUSED, SubscriptionState.DISABLED))
        await self._world.user.set_subscription_state(found.no, state, "", self._world.witness.now())

    async def _resume(self) -> None:
        stopped = [each for each in self._living() if each.state is not SubscriptionState.ACTIVE]
        if not stopped:
            return
        found = self._random.choice(stopped)
        skip = self._random.random() < 0.3
        user, now = self._world.user, self._world.witness.now
        if skip:
            await user.drop_unsettled(found.no, now(), DeliveryState.EXPIRED)
        await user.set_subscription_state(found.no, SubscriptionState.ACTIVE, "", now(), skip)

    async def _delete(self) -> None:
        if len(self._living()) < 2:
            return
        found = self._pick()
        user, now = self._world.user, self._world.witness.now
        await user.set_subscription_state(found.no, SubscriptionState.DELETED, "", now())
        await user.drop_unsettled(found.no, now(), DeliveryState.EXPIRED)

    # --- sending again

    async def _resend(self) -> None:
        found = self._pick()
        recorded = [
            trail.position for trail in self._world.witness.books[found.no].trails.values() if trail.state
        ]
        if recorded:
            chosen = self._random.sample(recorded, min(len(recorded), self._random.choice((1, 1, 4))))
            await self._world.user.resend(found.no, chosen, self._world.witness.now())

    async def _replay(self) -> None:
        found, now = self._pick(), self._world.witness.now()
        head = len(self._world.witness.log[found.shard])
        after = self._random.randint(0, head)
        states = self._random.choice(
            ((DeliveryState.FAILED,), (DeliveryState.SUCCEEDED, DeliveryState.FAILED, DeliveryState.EXPIRED))
        )
        replay = Replay(
            id=f"rpl{len(self._world.storage._replays)}",
            subscription_no=found.no,
            after=after,
            until=min(head, after + self._random.choice((3, 40))),
            states=states,
            rate=self._random.choice((0.0, 2.0, 50.0)),
            total=0,
            done=0,
            progress=after,
            state=ReplayState.RUNNING,
            created_at=now,
            updated_at=now,
        )
        await self._world.user.create_replay(replay)

    async def _cancel_replay(self) -> None:
        running = [
            replay.id
            for replay in self._world.storage._replays.values()
            if replay.state is ReplayState.RUNNING
        ]
        if running:
            await self._world.user.cancel_replay(self._random.choice(running), self._world.witness.now())


class Misfortune:
    """Kills, freezes, outages and moods, each at its own random times."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._random = Random(world.random.getrandbits(64))

    async def run(self) -> None:
        """For ever."""
        plan = self._world.plan
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._now_and_then(plan.kill_every, self._kill))
            tasks.create_task(self._now_and_then(plan.freeze_every, self._freeze))
            tasks.create_task(self._now_and_then(plan.outage_every, self._outage))
            tasks.create_task(self._now_and_then(plan.mood_every, self._mood))

    async def _now_and_then(self, every: float, step: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(self._random.expovariate(1 / every))
            await step()

    async def _kill(self) -> None:
        running = self._world.workers + self._world.apis
        if running:
            chosen = self._random.choice(running)
            if self._random.random() < 0.25:
                self._world.retire(chosen)
            else:
                self._world.kill(chosen)

    async def _freeze(self) -> None:
        running = [each for each in self._world.workers + self._world.apis if not each.frozen]
        if running:
            lease = self._world.plan.lease
            seconds = self._random.choice((0.05, lease * 0.5, lease * 1.5, lease * 4))
            self._world.freeze(self._random.choice(running), seconds)

    async def _outage(self) -> None:
        self._world.weather.storage_down = True
        self._world.witness.trace.add("storage", "goes down")
        await asyncio.sleep(self._random.choice((0.3, 3.0, 20.0)))
        self._world.weather.storage_down = False
        self._world.witness.trace.add("storage", "is back")

    async def _mood(self) -> None:
        if self._world.endpoints.moods:
            self._world.witness.trace.add("receiver", self._world.endpoints.change())
