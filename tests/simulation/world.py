"""The simulated world: processes that come and go around one storage, and the scenario they live through."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any, cast

import structlog
from msgspec import Struct

from hookline.core.model import ApiKey, Scope, Secrets, Subscription, Tenant
from hookline.engine.catalogue import Catalogue
from hookline.engine.compose import Composer
from hookline.engine.dispatch.delivery import Chance
from hookline.engine.dispatch.shard import ShardTools
from hookline.engine.dispatch.turns import Turns
from hookline.engine.dispatch.worker import RENEWALS, Worker, retention_days
from hookline.engine.publish import Publisher
from hookline.engine.tokens import TokenCache
from hookline.engine.types import EventTypeCatalogue
from hookline.observe import Metrics
from hookline.ports import Storage
from hookline.storage.memory import MemoryStorage
from hookline.storage.wake import LocalWake
from tests.simulation.network import Endpoints, Link, Wire
from tests.simulation.plan import Plan, Weather
from tests.simulation.traffic import Traffic
from tests.simulation.virtual import Process as _Process
from tests.simulation.virtual import VirtualClock, VirtualLoop
from tests.simulation.witness import Broken, Witness

RESTART = (0.2, 5.0)
"""Seconds from the death of a process to its successor."""
HEARING = 60.0
"""Seconds in which a worker must have heard of a changed configuration, although storage is down for up to 20 s."""
GRACE = 8.0
"""Seconds a worker that is asked to stop has for it."""


def _compose(subscription: Subscription, tenant: Tenant) -> Composer:
    return Composer(subscription, Secrets(), tenant)


class Process(_Process):
    """A process and what it does. Two lives of one process have nothing in common but their role."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.work: asyncio.Task[None]
        self.wake = LocalWake()
        self.worker: Worker | None = None
        self.publisher: Publisher | None = None
        self.stopping: asyncio.Task[None] | None = None
        self.successor: Callable[[], None] = lambda: None

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """What it runs, apart from what that has started in turn."""
        return [self.work] if self.stopping is None else [self.work, self.stopping]


class Report(Struct, frozen=True):
    """What a scenario amounted to."""

    seed: int
    kind: str
    hours: float
    digest: str
    counts: dict[str, int]


class World:
    """Everything in one scenario. Runs inside a ``VirtualLoop``."""

    def __init__(self, seed: int, plan: Plan, weather: Weather) -> None:
        self.seed = seed
        self.plan = plan
        self.weather = weather
        self.random = Random(seed)
        self.loop = asyncio.get_running_loop()
        self.outside = contextvars.copy_context()
        self.storage = MemoryStorage(plan.shards, plan.slices)
        self.witness = Witness(self.storage, self.loop.time, plan.retention.events)
        self.traffic = Traffic(self.witness, plan.capacity, HEARING * plan.pace, 2 * plan.skew)
        self.endpoints = Endpoints(self._fork())
        self.tenants: list[Tenant] = []
        self.workers: list[Process] = []
        self.apis: list[Process] = []
        self.processes: list[Process] = []
        self.faults = True
        self.user = self.link(Process("user"))
        self._broken = asyncio.Event()
        self.witness.on_broken = self._broken.set
        self.loop.set_exception_handler(self._on_exception)

    def _fork(self) -> Random:
        return Random(self.random.getrandbits(64))

    # --- processes

    def link(self, process: Process) -> Storage:
        """A connection to the storage."""
        made = Link(process, self.storage, self.witness, self.weather, self._fork(), self.kill)
        return cast("Storage", made)

    def start_worker(self) -> None:
        """A new delivery worker joins."""
        process = self._new_process("worker", self.workers, self.start_worker)
        random, clock, metrics = self._fork(), self._clock(), Metrics()
        wire = Wire(process, self.endpoints, self.traffic, self._fork(), self.outside)
        turns = Turns(self.plan.capacity, clock, metrics)
        turns.memory.limit = self.plan.memory
        tools = ShardTools(
            storage=self.link(process),
            sender=wire,
            tokens=TokenCache(wire, clock),
            turns=turns,
            wake=process.wake,
            clock=clock,
            chance=Chance(random.random, random.randbytes),
            metrics=metrics,
            compose=_compose,
            retention_days=lambda tenant: retention_days(self.plan.retention, tenant),
        )
        process.worker = Worker(process.name, tools, self.plan.lease, self.plan.retention)
        self._launch(process, process.worker.run())

    def start_api(self) -> None:
        """A new process that takes events in."""
        process = self._new_process("api", self.apis, self.start_api)
        storage = self.link(process)
        metrics, random = Metrics(), self._fork()
        wake = _Doorbell(self, self._fork())
        process.publisher = Publisher(
            storage, Catalogue(EventTypeCatalogue(storage)), self._clock(), random.randbytes, wake, metrics
        )
        self._launch(process, process.publisher.run())

    def _clock(self) -> VirtualClock:
        skew = self.plan.skew
        return VirtualClock(self.loop, self.random.uniform(-skew, skew) if skew else 0.0)

    def _new_process(self, role: str, group: list[Process], again: Callable[[], None]) -> Process:
        process = Process(f"{role}{len(self.processes)}")
        process.successor = again
        group.append(process)
        self.processes.append(process)
        return process

    def _launch(self, process: Process, work: Any) -> None:
        self.witness.trace.add(process.name, "starts")
        process.work = process.spawn(work, process.name)
        process.work.add_done_callback(lambda task: self._ended(process, task), context=self.outside)

    def _ended(self, process: Process, task: asyncio.Task[None]) -> None:
        if process.alive and process.stopping is None:
            reason = "cancelled" if task.cancelled() else repr(task.exception())
            self.witness.breaks("processes do not fall over", process.name, reason)

    def _on_exception(self, _: object, context: dict[str, Any]) -> None:
        self.witness.breaks("callbacks do not fail", context.get("message"), repr(context.get("exception")))

    def kill(self, process: _Process) -> None:
        """As kill -9: it sends, stores and hears nothing from now on; a successor starts a little later."""
        if not process.alive or not isinstance(process, Process):
            return
        self.witness.trace.add(process.name, "is killed")
        process.alive = False
        process.thaw()
        self.workers[:] = [each for each in self.workers if each is not process]
        self.apis[:] = [each for each in self.apis if each is not process]
        for task in process.tasks:
            task.cancel()
        pause = self.random.uniform(*RESTART)
        self.loop.call_later(pause, process.successor, context=self.outside)

    def retire(self, process: Process) -> None:
        """Ask a worker to finish what it has begun and to stop, as a rolling update does; then it is replaced."""
        if process.worker is not None and process.stopping is None:
            self.witness.trace.add(process.name, "is asked to stop")
            process.stopping = process.spawn(self._retire(process, process.worker), f"{process.name} stops")

    async def _retire(self, process: Process, worker: Worker) -> None:
        await worker.stop(GRACE)
        self.witness.trace.add(process.name, "has stopped")
        self.loop.call_soon(self.kill, process, context=self.outside)

    def freeze(self, process: Process, seconds: float) -> None:
        """Stop a process for a while; the rest of the world goes on."""
        self.witness.trace.add(process.name, "is frozen for", seconds)
        process.freeze()
        self.loop.call_later(seconds, process.thaw, context=self.outside)

    def ring(self, random: Random) -> None:
        """Wake the workers; a wake-up may be lost."""
        for process in self.workers:
            if random.random() >= self.weather.wake_lost:
                self.loop.call_soon(process.wake.notify, context=process.context)

    # --- the scenario

    async def set_up(self) -> None:
        """Tenants and the first processes."""
        for no in range(self.plan.tenants):
            key = ApiKey(f"key{no}", None, "", bytes([no]), "", (Scope.MANAGE,), self.witness.now())
            self.tenants.append(
                await self.storage.create_tenant(f"tenant{no}", "", "standard", key, self.witness.now())
            )
        for _ in range(self.plan.workers):
            self.start_worker()
        for _ in range(self.plan.apis):
            self.start_api()

    async def live(self, scenario: Any) -> None:
        """Run ``scenario`` to its end, or to the first broken promise. Raises ``Broken``."""
        work = self.loop.create_task(scenario)
        alarm = self.loop.create_task(self._broken.wait())
        try:
            await asyncio.wait((work, alarm), return_when=asyncio.FIRST_COMPLETED)
            if self.witness.broken is not None:
                raise Broken(self.witness.broken)
            await work
        finally:
            await self._bring_down(work, alarm)

    async def _bring_down(self, *tasks: asyncio.Task[Any]) -> None:
        for process in self.processes:
            process.alive = False
            process.thaw()
        everything = [*tasks, *(task for process in self.processes for task in process.tasks)]
        for task in everything:
            task.cancel()
        await asyncio.gather(*everything, return_exceptions=True)

    def heal(self) -> None:
        """All faults end; who is frozen goes on; endpoints are well."""
        self.faults = False
        self.weather.clear()
        self.endpoints.heal()
        for process in self.processes:
            process.thaw()

    def be_lazy(self) -> None:
        """Renew leases seldom: nobody will die any more."""
        for process in self.workers:
            if process.worker is not None:
                process.worker._life = max(process.worker._life, 3600.0)
                process.worker._interval = process.worker._life / RENEWALS


class _Doorbell:
    """The ``Wake`` of a process that takes events in."""

    def __init__(self, world: World, random: Random) -> None:
        self._world = world
        self._random = random

    def notify(self, shards: Collection[int] | None = None) -> None:
        self._world.ring(self._random)


@contextmanager
def quiet() -> Iterator[None]:
    """The engine's log would only slow the simulation: the trace tells more."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**before)


def run_virtual(main: Any) -> Any:
    """Run a coroutine on a loop of its own with virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
