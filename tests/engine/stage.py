"""A stage for the engine: the real publisher, worker and management, the memory store, and scripted endpoints."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self, cast

import msgspec

from hookline.core.address import AddressRule
from hookline.core.definition import Rules
from hookline.core.errors import HooklineError, StorageUnavailable
from hookline.core.ids import delivery_id
from hookline.core.model import (
    ApiKey,
    Attempt,
    DeliveryState,
    LaneState,
    Retention,
    SchemaMode,
    Scope,
    Secrets,
    Subscription,
    Tenant,
)
from hookline.core.vault import AesGcmVault
from hookline.engine.catalogue import Catalogue
from hookline.engine.compose import Composer
from hookline.engine.dispatch.delivery import Chance
from hookline.engine.dispatch.shard import ShardTools
from hookline.engine.dispatch.turns import Turns
from hookline.engine.dispatch.worker import Part, Worker, retention_days
from hookline.engine.manage import Range, Replays, Subscriptions
from hookline.engine.publish import Published, Publisher, PublishLimits
from hookline.engine.read import Reader
from hookline.engine.tokens import TokenCache
from hookline.engine.types import EventTypeCatalogue
from hookline.observe import Metrics
from hookline.ports import Delivery, DeliveryQuery, Record, Storage
from hookline.profiles import PROFILES
from hookline.storage.memory import MemoryStorage
from hookline.storage.wake import LocalWake
from tests.engine.endpoints import Endpoint, Wire
from tests.simulation.virtual import VirtualClock

LEASE = 10.0
MINUTE = 60.0
HOUR = 3600.0
DAY = 86400.0
DEFAULT_RETENTION = Retention()
PATIENCE = 600.0
"""Virtual seconds in which something must come true."""
PLAIN = {
    "retry": {"kind": "list", "delays": [1.0] * 5, "jitter": 0.0},
    "breaker": {"failures": 0},
}
"""What a subscription of these tests asks for, unless the test says otherwise: quick retries and no breaker."""

_LANE_READ = 5
"""Arguments of a ``read_log`` for one lane; the tail is read for all tenants and has one less."""

Hook = Callable[[str, tuple[Any, ...]], Awaitable[None] | None]


class Watched:
    """One process's connection to the storage. It counts the calls, can be cut, and lets a test step in between."""

    def __init__(self, storage: MemoryStorage) -> None:
        self._storage = storage
        self.shards = storage.shards
        self.slices = storage.slices
        self.calls: Counter[str] = Counter()
        self.records: list[Record] = []
        self.alive = True
        self.down = False
        self.before: dict[str, Hook] = {}
        self.after: dict[str, Hook] = {}

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        return partial(self._call, name, getattr(self._storage, name))

    async def _call(self, name: str, method: Callable[..., Awaitable[Any]], *args: Any, **named: Any) -> Any:
        self.calls[name] += 1
        if name == "read_log" and len(args) == _LANE_READ:
            self.calls["read_page"] += 1
        if self.down:
            raise StorageUnavailable
        await self._step(self.before, name, args)
        result = await method(*args, **named)
        if name == "record":
            self.records.append(args[0])
        await self._step(self.after, name, args)
        return result

    async def _step(self, hooks: dict[str, Hook], name: str, args: tuple[Any, ...]) -> None:
        hook = hooks.get(name)
        if hook is not None:
            waiting = hook(name, args)
            if waiting is not None:
                await waiting
        if not self.alive:
            await asyncio.get_running_loop().create_future()  # the dead get no answer


class WorkerProcess:
    """A delivery worker that can die at any moment."""

    def __init__(self, stage: Stage, name: str) -> None:
        self.name = name
        self.storage = Watched(stage.storage)
        self.wire = Wire(stage.endpoints, lambda: self.storage.alive)
        self.wake = LocalWake()
        self.metrics = Metrics()
        self.turns = Turns(stage.capacity, stage.clock, self.metrics)
        tools = ShardTools(
            storage=cast("Storage", self.storage),
            sender=self.wire,
            tokens=TokenCache(self.wire, stage.clock),
            turns=self.turns,
            wake=self.wake,
            clock=stage.clock,
            chance=Chance(lambda: stage.fraction, stage.entropy),
            metrics=self.metrics,
            compose=stage.composer,
            retention_days=partial(retention_days, stage.retention),
        )
        self.worker = Worker(name, tools, stage.lease, stage.retention)
        self.task = asyncio.get_running_loop().create_task(self.worker.run(), name=name)

    @property
    def lanes(self) -> dict[int, Any]:
        """The lanes by subscription number, of all slices that it delivers."""
        return {no: lane for run in self.worker._shards.values() for no, lane in run._roster.lanes.items()}

    @property
    def parts(self) -> set[Part]:
        """The slices of shards that it has the leases of."""
        return set(self.worker._leases) if self.storage.alive else set()

    def kill(self) -> None:
        """As kill -9: from now on it hears, stores and sends nothing."""
        self.storage.alive = False
        self.task.cancel()

    def kill_at(
        self, point: str, when: Callable[[Record], bool] = lambda batch: bool(batch.attempts)
    ) -> None:
        """Die ``before`` or ``after`` the next record that ``when`` picks is written."""

        def hook(_: str, args: tuple[Any, ...]) -> None:
            if when(args[0]):
                self.kill()

        (self.storage.before if point == "before" else self.storage.after)["record"] = hook

    async def stop(self, grace: float = 5.0) -> None:
        """Stop in good order."""
        await self.worker.stop(grace)
        self.kill()


class Stage:
    """Everything that a test of the engine needs. One tenant, ``shop``; more with ``add_tenant``."""

    def __init__(
        self,
        *,
        capacity: int = 256,
        retention: Retention = DEFAULT_RETENTION,
        limits: PublishLimits = PublishLimits(),
        shards: int = 1,
        slices: int = 1,
        lease: float = LEASE,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.clock = VirtualClock(self.loop)
        self.capacity = capacity
        self.retention = retention
        self.lease = lease
        self.fraction = 0.5
        """What chance gives; 0.5 is no jitter."""
        self.entropy = random.Random(1).randbytes
        self.storage = MemoryStorage(shards, slices)
        self.endpoints: dict[str, Endpoint] = {}
        self.workers: list[WorkerProcess] = []
        self.vault = AesGcmVault([b"k" * 32], self.entropy)
        rules = Rules(AddressRule(allow_http=True), frozenset(PROFILES))
        self.subscriptions = Subscriptions(self.storage, self.clock, self.entropy, self.vault, rules)
        self.reader = Reader(self.storage)
        self.replays = Replays(self.storage, self.clock, self.entropy, self.reader, self)
        self.log = Watched(self.storage)
        """The publisher's connection to the storage."""
        self.catalogue = Catalogue(EventTypeCatalogue(self.storage))
        self.metrics = Metrics()
        self.publisher = Publisher(
            cast("Storage", self.log), self.catalogue, self.clock, self.entropy, self, self.metrics, limits
        )
        self.publishing = self.loop.create_task(self.publisher.run(), name="publisher")
        self.shop: Tenant
        self._published = 0

    async def __aenter__(self) -> Self:
        self.shop = await self.add_tenant("shop")
        await self.start_worker()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.workers:
            process.kill()
        self.publishing.cancel()
        tasks = [self.publishing, *(process.task for process in self.workers)]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for process in self.workers:
            await process.wire.close()
        fallen = [each for each in results if each and not isinstance(each, asyncio.CancelledError)]
        assert fallen == [], "a process of the stage fell over"

    # --- processes

    @property
    def worker(self) -> WorkerProcess:
        """The newest one."""
        return self.workers[-1]

    async def start_worker(self) -> WorkerProcess:
        """Start another worker, and wait until it delivers if no other one lives."""
        alone = not any(process.storage.alive for process in self.workers)
        process = WorkerProcess(self, f"worker-{len(self.workers)}")
        self.workers.append(process)
        if alone:
            await self.until(lambda: bool(process.worker.owned))
        return process

    async def restart(self) -> WorkerProcess:
        """Kill the worker; another one takes its shard over when the lease has ended."""
        self.worker.kill()
        return await self.start_worker()

    def notify(self, shards: Collection[int] | None = None) -> None:
        """Wake the workers: the stage is its publisher's ``Wake``."""
        for process in self.workers:
            process.wake.notify(shards)

    def composer(self, subscription: Subscription, tenant: Tenant) -> Composer:
        """As the application makes them."""
        return Composer(subscription, self.secrets(subscription), tenant)

    def secrets(self, subscription: Subscription) -> Secrets:
        return self.subscriptions.secrets(subscription)

    # --- time

    async def until(self, true: Callable[[], bool], within: float = PATIENCE) -> None:
        """Let time pass until the condition holds."""
        end = self.loop.time() + within
        while not true():
            assert self.loop.time() < end, f"did not come true within {within:g} virtual seconds"
            await asyncio.sleep(0.02)

    async def pass_time(self, seconds: float) -> None:
        """Let so much virtual time go by."""
        await asyncio.sleep(seconds)

    # --- tenants and subscriptions

    async def add_tenant(self, tenant_id: str, mode: SchemaMode = SchemaMode.OFF) -> Tenant:
        key = ApiKey(f"key-{tenant_id}", None, "", tenant_id.encode(), "", (Scope.MANAGE,), self.clock.now())
        tenant = await self.storage.create_tenant(tenant_id, tenant_id, "standard", key, self.clock.now())
        return await self.storage.update_tenant(tenant.no, tenant_id, "standard", mode, None)

    def endpoint(self, host: str) -> Endpoint:
        """The endpoint at ``https://<host>/hook``, made at first sight."""
        return self.endpoints.setdefault(host, Endpoint(host))

    async def subscribe(self, host: str = "a.example", **spec: Any) -> tuple[Subscription, Endpoint]:
        """A subscription of the shop for the endpoint of ``host``; ``start`` is the API's ``from``."""
        tenant = spec.pop("tenant", self.shop)
        if "start" in spec:
            spec["from"] = spec.pop("start")
        endpoint = self.endpoint(host)
        made = await self.subscriptions.create(tenant, {"url": endpoint.url, **PLAIN, **spec})
        self.notify()
        return made, endpoint

    async def edit(self, subscription: Subscription, **patch: Any) -> Subscription:
        """Change it as its owner would."""
        changed = await self.subscriptions.update(self.shop, subscription.id, patch)
        self.notify()
        return changed

    async def pause(self, subscription: Subscription) -> None:
        await self.subscriptions.pause(self.shop, subscription.id, "")
        self.notify()

    async def resume(self, subscription: Subscription, *, skip: bool = False) -> None:
        await self.subscriptions.resume(self.shop, subscription.id, skip=skip)
        self.notify()

    async def delete(self, subscription: Subscription) -> None:
        await self.subscriptions.delete(self.shop, subscription.id)
        self.notify()

    async def now(self, subscription: Subscription) -> Subscription:
        """The subscription as it is stored."""
        return await self.storage.subscription_by_no(subscription.no)

    # --- events

    async def publish(
        self, type: str = "order:created", *, tenant: Tenant | None = None, **given: Any
    ) -> str:
        """Publish one event and return its id: ``e1``, ``e2`` … unless given."""
        answer = await self.offer(type, tenant=tenant, **given)
        return answer.id

    async def offer(
        self, type: str = "order:created", *, tenant: Tenant | None = None, **given: Any
    ) -> Published:
        """Publish one event and return the answer."""
        self._published += 1
        event = {"id": f"e{self._published}", "data": {"n": self._published}, **given, "type": type}
        return await self.publisher.publish(tenant or self.shop, msgspec.json.encode(event))

    async def publish_many(self, count: int, type: str = "order:created", **given: Any) -> list[str]:
        """Publish so many events, one after the other in the log; returns their ids."""
        numbers = range(self._published + 1, self._published + count + 1)
        self._published += count
        events = [{"id": f"e{number}", "data": {"n": number}, **given, "type": type} for number in numbers]
        results = await self.publisher.publish_batch(
            self.shop, [msgspec.json.encode(each) for each in events]
        )
        return [result.id for result in results if not isinstance(result, HooklineError)]

    # --- what became of it

    async def deliveries(self, subscription: Subscription, *states: DeliveryState) -> list[Delivery]:
        """All that is recorded, oldest first."""
        query = DeliveryQuery(subscription.no, limit=100_000, states=states)
        return (await self.storage.list_deliveries(query))[::-1]

    async def states(self, subscription: Subscription) -> list[str]:
        """The states of all that is recorded, oldest first."""
        return [each.state.value for each in await self.deliveries(subscription)]

    async def settled(
        self, subscription: Subscription, count: int, within: float = PATIENCE
    ) -> list[Delivery]:
        """Wait until so many deliveries are at their end, and return all that is recorded."""
        end, pause = self.loop.time() + within, 0.02
        while True:
            found = await self.deliveries(subscription)
            done = [each for each in found if each.state not in _WAITING]
            if len(done) >= count:
                return found
            assert self.loop.time() < end, f"{len(done)} of {count} settled within {within:g} virtual seconds"
            await asyncio.sleep(pause)
            pause = min(pause * 1.2, 1.0)

    async def attempts(self, subscription: Subscription, position: int) -> list[Attempt]:
        return await self.storage.list_attempts(subscription.no, position)

    async def lane(self, subscription: Subscription) -> LaneState:
        """The recorded state of its lane."""
        state = await self.storage.lane_state(subscription.no)
        assert state is not None
        return state

    async def resend(self, subscription: Subscription, position: int) -> None:
        await self.replays.resend(self.shop, delivery_id(subscription.no, position))
        self.notify()

    async def replay(self, subscription: Subscription, **wanted: Any) -> str:
        """Start a replay job and return its id."""
        job = await self.replays.start(subscription, Range(wanted.pop("since", 0), **wanted))
        self.notify()
        return job.id

    async def operational(self, name: str) -> list[Any]:
        """The payloads of Hookline's own events of this type, in the order of the log."""
        page = await self.storage.read_log(0, 0, 100_000, 0)
        return [msgspec.json.decode(event.data) for event in page.events if event.type == name]


_WAITING: Sequence[DeliveryState] = (DeliveryState.PENDING, DeliveryState.RETRYING)
