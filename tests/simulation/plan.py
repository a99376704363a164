"""What a scenario is made of, drawn from its seed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from random import Random
from unittest.mock import patch

from msgspec import Struct
from msgspec.structs import replace

from hookline.core.model import Retention
from hookline.engine import record, replay, retain
from hookline.engine.dispatch import feeder, lane, ordered, shard

LONG = "long"
STORM = "storm"


class Weather(Struct):
    """How the storage and the network behave now; ``clear`` makes all of it well."""

    refused: float = 0.0
    """Part of the storage calls that fail before anything happened."""
    unanswered: float = 0.0
    """Part of the storage calls whose answer is lost after they took effect."""
    crash: float = 0.0
    """Part of the records and appends around which the calling process dies, just before or just after."""
    latency: float = 0.0
    """Longest time a storage call takes, seconds."""
    wake_lost: float = 0.0
    """Part of the wake-ups that are lost."""
    storage_down: bool = False

    def clear(self) -> None:
        """No more faults."""
        self.refused = self.unanswered = self.crash = self.wake_lost = 0.0
        self.latency = min(self.latency, 0.005)
        self.storage_down = False


class Plan(Struct, frozen=True):
    """All choices that stand before the first event. Times are seconds; ``…_every`` is a mean."""

    kind: str
    seconds: float
    workers: int
    apis: int
    shards: int
    slices: int
    tenants: int
    subscriptions: int
    capacity: int
    lease: float
    skew: float
    publish_every: float
    batch: int
    keys: int
    operate_every: float
    mood_every: float
    kill_every: float
    freeze_every: float
    outage_every: float
    retention: Retention
    memory: int
    """Bytes of events that a worker may hold."""
    limits: dict[str, float]
    pace: float
    """By how much the engine's polls are slower than in production, so that quiet days cost little."""


LIMITS: dict[str, tuple[tuple[object, str], ...]] = {
    "queue": ((lane, "QUEUE_LIMIT"),),
    "low_water": ((lane, "LOW_WATER"),),
    "queue_bytes": ((lane, "QUEUE_BYTES"),),
    "recent": ((feeder, "RECENT"),),
    "tail_page": ((feeder, "TAIL_PAGE"),),
    "lane_page": ((feeder, "LANE_PAGE"),),
    "retry_page": ((feeder, "RETRY_PAGE"),),
    "park": ((ordered, "PARK_LIMIT"),),
    "hold": ((ordered, "HOLD_LIMIT"),),
    "waiting": ((ordered, "WAITING_LIMIT"), (feeder, "WAITING_LIMIT")),
    "gathered": ((record, "GATHERED"),),
    "replay_step": ((replay, "STEP"),),
    "replay_waiting": ((replay, "WAITING_LIMIT"),),
    "retain_step": ((retain, "STEP"),),
}
"""The engine's limits that a scenario may make small, so that a few events reach them."""

PACED: tuple[tuple[object, str], ...] = (
    (feeder, "POLL"),
    (record, "IDLE_INTERVAL"),
    (shard, "SWEEP"),
    (shard, "DETACH_AFTER"),
    (replay, "TICK"),
)


def draw(seed: int, hours: float | None = None) -> tuple[Plan, Weather]:
    """The scenario of a seed; ``hours`` overrides how long its faults go on."""
    random = Random(f"plan {seed}")
    plan = _storm(random) if random.random() < 0.6 else _long(random)
    if hours is not None:
        plan = replace(plan, seconds=hours * 3600)
    bad = random.random()
    weather = Weather(
        refused=random.choice((0, 0.002, 0.02)),
        unanswered=random.choice((0, 0.002, 0.02)),
        crash=random.choice((0, 0.0005, 0.005)) * bad,
        latency=random.choice((0, 0.01, 0.2)),
        wake_lost=random.choice((0, 0.3)),
    )
    return plan, weather


def _storm(random: Random) -> Plan:
    """Minutes, with a fault every few seconds."""
    return Plan(
        kind=STORM,
        seconds=random.uniform(60, 400),
        workers=random.choice((1, 2, 3)),
        apis=random.choice((1, 2)),
        shards=random.choice((1, 1, 2)),
        slices=random.choice((1, 1, 2)),
        tenants=random.choice((1, 2)),
        subscriptions=random.randint(2, 7),
        capacity=random.choice((4, 16, 128)),
        lease=random.choice((6.0, 10.0)),
        skew=random.choice((0.0, 0.4)),
        publish_every=random.choice((0.5, 1.0, 3.0)),
        batch=random.choice((1, 3, 12)),
        keys=random.choice((1, 4, 30)),
        operate_every=random.choice((3.0, 12.0, 60.0)),
        mood_every=random.choice((5.0, 20.0)),
        kill_every=random.choice((8.0, 25.0, 100.0)),
        freeze_every=random.choice((20.0, 60.0)),
        outage_every=random.choice((40.0, 150.0)),
        retention=Retention(),
        memory=random.choice((300, 2000, 1 << 27)),
        limits=_limits(random),
        pace=1.0,
    )


def _long(random: Random) -> Plan:
    """Days: retry schedules, retention and auto-disable come to their ends."""
    days = random.uniform(1, 12)
    seconds = days * 86400
    return Plan(
        kind=LONG,
        seconds=seconds,
        workers=random.choice((1, 2)),
        apis=1,
        shards=1,
        slices=random.choice((1, 1, 2)),
        tenants=random.choice((1, 2)),
        subscriptions=random.randint(2, 6),
        capacity=random.choice((8, 128)),
        lease=600.0,
        skew=random.choice((0.0, 0.4)),
        publish_every=seconds / random.choice((60, 150, 250)),
        batch=random.choice((1, 3)),
        keys=random.choice((1, 4, 30)),
        operate_every=seconds / random.choice((10, 40)),
        mood_every=seconds / 40,
        kill_every=seconds / random.choice((5, 30)),
        freeze_every=seconds / 10,
        outage_every=seconds / 10,
        retention=Retention(random.choice((1, 2, 60)), 60, 15),
        memory=random.choice((300, 2000, 1 << 27)),
        limits=_limits(random),
        pace=300.0,
    )


def _limits(random: Random) -> dict[str, float]:
    """Production's limits, or such small ones that a few events reach them."""
    if random.random() < 0.4:
        return {}
    page = random.choice((3, 10))
    return {
        "queue": random.choice((4, 20)),
        "low_water": random.choice((2, 4)),
        "queue_bytes": random.choice((100, 1000)),
        "recent": random.choice((1, 5, 50)),
        "tail_page": random.choice((2, 7)),
        "lane_page": page,
        "retry_page": random.choice((1, 4)),
        "park": random.choice((2, 8)),
        "hold": random.choice((2, 8)),
        "waiting": random.choice((6, 40)),
        "gathered": random.choice((2, 10)),
        "replay_step": random.choice((2, 10)),
        "replay_waiting": random.choice((5, 20)),
        "retain_step": 7,
    }


@contextmanager
def tuned(plan: Plan) -> Iterator[None]:
    """The engine's constants as the plan wants them."""
    with ExitStack() as stack:
        for name, value in plan.limits.items():
            for module, constant in LIMITS[name]:
                stack.enter_context(patch.object(module, constant, value))
        stack.enter_context(paced(plan.pace))
        yield


@contextmanager
def paced(factor: float) -> Iterator[None]:
    """The engine's polls, slower by ``factor``."""
    with ExitStack() as stack:
        for module, constant in PACED:
            stack.enter_context(patch.object(module, constant, getattr(module, constant) * factor))
        yield
