"""Random walks: every engine must answer as the one in plain memory does, after any sequence of steps."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from msgspec import Struct

from hookline.core.errors import HooklineError, NotFound
from hookline.core.model import Definition, DeliveryState, Order, SubscriptionState
from hookline.ports import DeliveryQuery, EventQuery, Record, Storage
from hookline.storage.memory import MemoryStorage
from hookline.storage.sqlite import SqliteStorage
from tests.contract.make import NOW, api_key, attempt, lane, new_event, replay, settled, unsettled

IDS = st.sampled_from(["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"])
TENANTS = st.integers(1, 2)
SUBS = st.integers(1, 4)
POSITIONS = st.integers(1, 12)
STEPS = st.integers(0, 3)
FINAL = st.sampled_from([DeliveryState.SUCCEEDED, DeliveryState.FAILED, DeliveryState.EXPIRED])
ANY_STATES = st.lists(st.sampled_from(list(DeliveryState)), max_size=3, unique=True).map(tuple)
STATES = st.sampled_from(list(SubscriptionState))
DEFINITIONS = st.builds(
    Definition, url=st.just("https://example.test"), order=st.sampled_from(Order), name=IDS
)
EVENTS = st.builds(
    new_event,
    TENANTS,
    IDS,
    st.sampled_from(["x", "y"]),
    object_type=st.sampled_from([None, "o"]),
    object_id=st.sampled_from([None, "1", "2"]),
    key=st.sampled_from([None, "k", "l"]),
    correlation_id=st.sampled_from([None, "c"]),
)

MEMORY_DISK = Path("/dev/shm")  # answers are compared here, not what survives a power cut

Step = Callable[[Storage], Coroutine[Any, Any, object]]


def plain(value: object) -> object:
    """The value with its sequences as tuples, so that two answers compare whatever they were made of."""
    if isinstance(value, Struct):
        return type(value), tuple(plain(getattr(value, name)) for name in value.__struct_fields__)
    if isinstance(value, list | tuple):
        return tuple(plain(each) for each in value)
    return value


class Walk(RuleBasedStateMachine):
    """Takes each step on both and compares the answers; each wrong step must fail alike and change nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY_DISK if MEMORY_DISK.is_dir() else None))
        self.now = NOW
        self.owner = "owner-0"
        self.epoch = 0
        self.tenant_at: dict[int, int] = {}
        self.model: Storage = MemoryStorage()
        self.storage: Storage = SqliteStorage(self.folder / "hookline.db")
        self.runner.run(self.storage.open())

    def teardown(self) -> None:
        self.runner.run(self.storage.close())
        self.runner.close()
        shutil.rmtree(self.folder)

    def both(self, step: Step) -> Any:
        expected, found = (self.runner.run(_outcome(step, each)) for each in (self.model, self.storage))
        assert plain(found) == plain(expected)
        return found

    @initialize()
    def tenants(self) -> None:
        for name in ("one", "two"):
            self.both(lambda s, name=name: s.create_tenant(name, name, "standard", api_key(name), NOW))
        self.both(lambda s: s.create_subscription("s0", 1, Definition(url="https://a.test"), b"", NOW))
        self.take_over()

    # --- the log ---------------------------------------------------------------------------------------

    @rule(events=st.lists(EVENTS, max_size=5), step=STEPS)
    def append(self, events: list[Any], step: int) -> None:
        self.now += step
        answers = self.both(lambda s: s.append(events, self.now))
        self.tenant_at |= {
            answer.position: event.tenant_no for answer, event in zip(answers, events, strict=True)
        }

    def matched(self, tenant: int, positions: dict[int, Any]) -> dict[int, Any]:
        """Those of ``positions`` that hold, or held, an event of the tenant."""
        return {at: what for at, what in positions.items() if self.tenant_at.get(at) == tenant}

    @rule(
        after=st.integers(0, 12),
        limit=st.integers(1, 4),
        since=st.integers(0, 20),
        tenant=st.sampled_from([None, 1]),
    )
    def read(self, after: int, limit: int, since: int, tenant: int | None) -> None:
        self.both(lambda s: s.read_log(0, after, limit, since, tenant))

    # --- subscriptions ---------------------------------------------------------------------------------

    @rule(name=IDS, tenant=TENANTS, definition=DEFINITIONS, start=st.sampled_from([None, 0, 3]))
    def subscribe(self, name: str, tenant: int, definition: Definition, start: int | None) -> None:
        active = SubscriptionState.ACTIVE
        self.both(lambda s: s.create_subscription(name, tenant, definition, b"s", self.now, active, start))

    @rule(sub=SUBS, version=st.integers(1, 3), definition=DEFINITIONS)
    def edit(self, sub: int, version: int, definition: Definition) -> None:
        self.both(lambda s: s.update_subscription(sub, version, definition, b"t", self.now))

    @rule(sub=SUBS, state=STATES, skip=st.booleans())
    def set_state(self, sub: int, state: SubscriptionState, skip: bool) -> None:
        self.both(lambda s: s.set_subscription_state(sub, state, "why", self.now, skip))

    # --- deliveries ------------------------------------------------------------------------------------

    @rule()
    def take_over(self) -> None:
        self.now += 60_000
        self.owner = f"owner-{self.now}"
        self.epoch = self.both(lambda s: s.lease(0, self.owner, self.now, 10)).epoch

    @rule(
        sub=st.integers(1, 2),
        ends=st.dictionaries(POSITIONS, FINAL, max_size=4),
        waits=st.dictionaries(POSITIONS, st.tuples(STEPS, st.integers(0, 2)), max_size=4),
        cursor=st.integers(0, 8),
        live=st.booleans(),
        watermark=st.integers(0, 12),
        disable=st.booleans(),
        stale=st.sampled_from([0, 0, 0, 1]),
    )
    def record(
        self,
        sub: int,
        ends: dict[int, DeliveryState],
        waits: dict[int, tuple[int, int]],
        cursor: int,
        live: bool,
        watermark: int,
        disable: bool,
        stale: int,
    ) -> None:
        subscription = self.both(lambda s: s.subscription_by_no(sub))
        if subscription is NotFound:
            return
        ends, waits = (self.matched(subscription.tenant_no, places) for places in (ends, waits))
        tried = [
            attempt(sub, at, number, started_at=self.now, response_body=b"x" * (at % 3))
            for number, places in enumerate((waits, ends), 1)
            for at in places
        ]
        batch = Record(
            0,
            self.epoch - stale,
            self.now,
            watermark,
            attempts=tried,
            settled=[settled(sub, at, state, settled_at=self.now) for at, state in ends.items()],
            unsettled=[
                unsettled(sub, at, self.now + due, attempts=tries, key="kl"[at % 2])
                for at, (due, tries) in waits.items()
            ],
            lanes=[lane(sub, cursor, live=live, ahead=True)],
            disabled=[(sub, "410")] if disable else [],
            operational=[new_event(1, f"op-{self.now}")] if disable else [],
        )
        self.both(lambda s: s.record(batch))

    @rule(sub=SUBS, positions=st.lists(POSITIONS, max_size=4))
    def resend(self, sub: int, positions: list[int]) -> None:
        self.both(lambda s: s.resend(sub, positions, self.now))

    @rule(sub=st.integers(1, 2), state=FINAL)
    def drop(self, sub: int, state: DeliveryState) -> None:
        self.both(lambda s: s.drop_unsettled(sub, self.now, state))

    @rule(name=IDS, sub=SUBS, after=st.integers(0, 5), length=st.integers(1, 10), states=ANY_STATES)
    def start_replay(
        self, name: str, sub: int, after: int, length: int, states: tuple[DeliveryState, ...]
    ) -> None:
        job = replay(sub, name, after, after + length, states=states)
        self.both(lambda s: s.create_replay(job))

    @rule(name=IDS, limit=st.integers(1, 3), interval=st.sampled_from([0, 0.25]), stop=st.booleans())
    def advance_replay(self, name: str, limit: int, interval: float, stop: bool) -> None:
        if stop:
            self.both(lambda s: s.cancel_replay(name, self.now))
        else:
            self.both(lambda s: s.step_replay(name, limit, self.now, interval, self.now))

    # --- retention -------------------------------------------------------------------------------------

    @rule(tenant=TENANTS, age=st.integers(0, 200_000), until=POSITIONS, limit=st.integers(1, 3))
    def forget_events(self, tenant: int, age: int, until: int, limit: int) -> None:
        self.both(lambda s: s.remove_events(tenant, self.now - age, until, limit))

    @rule(age=st.integers(0, 200_000), bodies=st.booleans())
    def forget_attempts(self, age: int, bodies: bool) -> None:
        """Which of the old ones go first is open: all of them go, one at a step."""

        async def forget(storage: Storage) -> int:
            remove = storage.remove_bodies if bodies else storage.remove_attempts
            count = 0
            while await remove(1, self.now - age, 1):
                count += 1
            return count

        self.both(forget)

    # --- what can be asked -----------------------------------------------------------------------------

    @rule(
        tenant=TENANTS,
        before=st.integers(0, 12),
        limit=st.integers(1, 5),
        type=st.sampled_from(["", "x"]),
        object_type=st.sampled_from(["", "o"]),
        object_id=st.sampled_from(["", "1"]),
        correlation_id=st.sampled_from(["", "c"]),
        ages=st.tuples(st.integers(-5, 100_000), st.integers(-5, 100_000)),
        bounded=st.booleans(),
    )
    def list_events(self, ages: tuple[int, int], bounded: bool, tenant: int, **filters: Any) -> None:
        times: dict[str, Any] = (
            {"since": self.now - max(ages), "until": self.now - min(ages)} if bounded else {}
        )
        self.both(lambda s: s.list_events(EventQuery(tenant, **filters, **times)))

    @rule(sub=st.integers(1, 1), before=st.integers(0, 12), limit=st.integers(1, 5), states=ANY_STATES)
    def list_deliveries(self, sub: int, **query: Any) -> None:
        self.both(lambda s: s.list_deliveries(DeliveryQuery(sub, **query)))
        self.both(lambda s: s.count_settled(sub, 2, 9, query["states"]))

    @rule(sub=SUBS, position=POSITIONS, ahead=STEPS)
    def ask(self, sub: int, position: int, ahead: int) -> None:
        self.both(lambda s: s.get_delivery(sub, position))
        self.both(lambda s: s.event_deliveries(1, position))
        self.both(lambda s: s.list_attempts(sub, position))
        self.both(lambda s: s.due(sub, self.now + ahead, 3))
        self.both(lambda s: s.waiting(sub))
        self.both(lambda s: s.lane_state(sub))
        self.both(lambda s: s.list_replays(sub, 2))
        self.both(lambda s: s.definition_versions(sub))
        self.both(lambda s: s.position_at(0, self.now - ahead * 30_000))

    @invariant()
    def a_new_owner_would_start_alike(self) -> None:
        if self.epoch:
            self.both(lambda s: s.load_shard(0, self.epoch))
            self.both(lambda s: s.oldest_needed(1))
            self.both(lambda s: s.usage(1, "0", "9"))


async def _outcome(step: Step, storage: Storage) -> object:
    try:
        return await step(storage)
    except HooklineError as error:
        return type(error)


@pytest.mark.timeout(400)  # a failure is shrunk for up to five minutes
def test_sqlite_answers_as_memory_does() -> None:
    run_state_machine_as_test(
        Walk,
        settings=settings(
            max_examples=25,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
