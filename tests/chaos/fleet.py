"""Several tenants on a cluster under load, and what must hold of all of them whatever befell the nodes."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from tests.chaos.storm import BREAKER, EDITED, EDITS, RETRY, check_edited
from tests.support.audit import Change, Part
from tests.support.cluster import IN_FLIGHT, SLICES, Cluster, Node
from tests.support.http import Answer, Connection
from tests.support.load import PAUSE_AFTER_FAILURE, Load, Sent, make_event
from tests.support.receipts import (
    Receipt,
    Receiver,
    assert_in_order,
    assert_sequences_follow_the_log,
    assert_signed,
    duplicates,
    sequences,
)
from tests.support.server import Api
from tests.support.waiting import eventually, until

TENANTS = {1: "shop", 2: "depot", 9: "mart"}
"""By number: the first and the last of them have their logs in the same shard."""
SUBSCRIPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "any": ("", {}),
    "strict": ("fail=1", {"order": "strict"}),
    "by-key": ("fail=1", {"order": "key"}),
    "orders": ("fail=2", {"events": ["order:*"]}),
    EDITED: ("", {"events": EDITS[0]}),
}
"""Of each tenant: how its endpoint behaves, and what differs from the default in its subscription."""
SLOW = "slow"
SLOW_SECONDS = 0.08
AT_ONCE = 2
"""Requests to the slow endpoint at a time."""
BACKLOG = [f"slow-{number}" for number in range(240)]
PUBLISHERS = 2
"""Of each tenant."""
PACE = 0.06
"""Seconds between the events of one publisher."""
IN_A_ROW = 10
"""Events that a publisher sends to one node, before it goes on with another."""
PATIENCE = 3.0
"""Seconds that a publisher waits for an answer before it asks another node."""
UNRECORDED = 2 * IN_FLIGHT
"""``UNRECORDED_FACTOR`` of the engine: outcomes that may wait to be written."""

_STORED = """
SELECT s.id, e.id, d.sequence, d.state FROM hookline.subscriptions AS s
JOIN hookline.deliveries AS d ON d.subscription_no = s.no
JOIN hookline.events AS e ON e.shard = s.shard AND e.position = d.position
"""
_LOG = """
SELECT t.id, e.shard, e.position, e.id FROM hookline.events AS e JOIN hookline.tenants AS t ON t.no = e.tenant_no
ORDER BY e.shard, e.position
"""
_HEADS = "SELECT shard, head FROM hookline.shard_heads WHERE head > 0 ORDER BY shard"
_PARTS = "SELECT id, shard, slice FROM hookline.subscriptions"


def dice() -> random.Random:
    """Chance from a printed seed."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails
    return random.Random(seed)


class Publisher:
    """A client that goes to the next API node from time to time, and when one does not answer, or answers 503."""

    def __init__(self, number: int, nodes: Sequence[Node], api: Api, load: Load) -> None:
        self._number = number
        self._nodes = nodes
        self._at = number
        self._headers = api.headers
        self._load = load
        self._connection: Connection | None = None

    async def run(self, stopped: Callable[[], bool]) -> None:
        """Publish one event after the other; each until it is accepted."""
        number = 0
        try:
            while not stopped():
                await self._insist(make_event(self._number, number))
                number += 1
                if number % IN_A_ROW == 0:
                    await self._move_on()
                await asyncio.sleep(PACE)
        finally:
            await self._hang_up()

    async def _insist(self, event: Sent) -> None:
        load = self._load
        while True:
            load.at[event.id] = time.monotonic_ns()
            answer = await self._try(event)
            if answer is not None and answer.status == 202:
                assert answer.json["id"] == event.id
                load.already_stored += answer.json["duplicate"]
                load.accepted[event.id] = event
                return
            assert answer is None or answer.status == 503, answer
            load.retried += 1
            await self._move_on()
            await asyncio.sleep(PAUSE_AFTER_FAILURE)

    async def _try(self, event: Sent) -> Answer | None:
        try:
            async with asyncio.timeout(PATIENCE):
                if self._connection is None:
                    self._connection = await Connection.open(self._nodes[self._at % len(self._nodes)].port)
                return await self._connection.request("POST", "/v1/events", event.body, self._headers)
        except (OSError, TimeoutError):
            return None

    async def _move_on(self) -> None:
        await self._hang_up()
        self._at += 1

    async def _hang_up(self) -> None:
        if self._connection is not None:
            await self._connection.close()
            self._connection = None


@dataclass
class Tenant:
    """One tenant, what was accepted of it, and its subscriptions' ids by the names of their endpoints."""

    name: str
    api: Api
    load: Load = field(default_factory=Load)
    ids: dict[str, str] = field(default_factory=dict[str, str])
    edits: int = 0

    def endpoint(self, kind: str) -> str:
        return f"{self.name}-{kind}"

    async def edit(self) -> None:
        """Let the edited subscription ask for other events from now on."""
        self.edits += 1
        await self.api.patch(
            f"/v1/subscriptions/{self.ids[EDITED]}", {"events": EDITS[self.edits % len(EDITS)]}
        )

    async def check_answers_to_repeats(self, count: int = 20) -> None:
        """Publishing again is recognised, and other content under the same id refused."""
        events = list(self.load.accepted.values())
        for event in events[:: max(1, len(events) // count)]:
            again = await self.api.call("POST", "/v1/events", event.body)
            assert (again.status, again.json) == (202, {"id": event.id, "duplicate": True})
            other = await self.api.call("POST", "/v1/events", event.body.replace(b"12.50", b"99.99"))
            assert (other.status, other.code) == (409, "event_id_conflict")

    def matching(self, kind: str, events: Sequence[str]) -> list[str]:
        """Those of some events that a subscription asks for which is never edited."""
        accepted = self.load.accepted
        return [event for event in events if kind != "orders" or accepted[event].type.startswith("order:")]


@dataclass
class Verdict:
    """The figures of a run in which all promises held."""

    events: int
    requests: int
    duplicates: list[Receipt]
    retried: int
    already_stored: int
    history: list[Change]

    @property
    def forced(self) -> list[Change]:
        """Parts that were taken from an owner that had not given them back."""
        return [change for change in self.history if change.is_forced]

    def take_over_seconds(self, *, forced: bool, since: int = 0) -> float:
        """The longest time between the last word of a part's owner and the next one's taking it, of those taken
        ``since`` a time (nanoseconds of the wall clock)."""
        pairs = [(one, next_one) for one, next_one in pairwise(self.history) if one.part == next_one.part]
        taken = [
            (next_one.at - one.at) / 1e9 for one, next_one in pairs
            if next_one.is_take and next_one.at > since and (next_one.is_forced if forced else one.is_release)
        ]  # fmt: skip
        return max(taken, default=0.0)

    def tell(self, **more: object) -> None:
        """Print the figures."""
        takes = sum(change.is_take for change in self.history)
        told = {
            "events": self.events, "requests": self.requests, "duplicates": len(self.duplicates),
            "publishes repeated": self.retried, "stored without an answer": self.already_stored,
            "parts taken": takes, "of them by force": len(self.forced),
            "slowest take-over from the dead": f"{self.take_over_seconds(forced=True):.1f} s",
            "slowest hand-over": f"{self.take_over_seconds(forced=False):.1f} s", **more,
        }  # fmt: skip
        print(", ".join(f"{name} {value}" for name, value in told.items()))  # noqa: T201


class Fleet:
    """All tenants on a cluster."""

    def __init__(self, cluster: Cluster, receiver: Receiver) -> None:
        self.cluster = cluster
        self.receiver = receiver
        self.tenants: list[Tenant] = []
        self.quiet: list[Api] = []

    async def prepare(self) -> None:
        """Make the tenants and their subscriptions; numbers that are not among ``TENANTS`` are left quiet."""
        operator, receiver = self.cluster.api, self.receiver
        for number in range(1, max(TENANTS) + 1):
            name = TENANTS.get(number, f"quiet-{number}")
            api = await operator.new_tenant(name)
            if number in TENANTS:
                self.tenants.append(Tenant(name, api))
            else:
                self.quiet.append(api)
        for tenant in self.tenants:
            for kind, (behaviour, fields) in SUBSCRIPTIONS.items():
                tenant.ids[kind] = await tenant.api.subscribe(
                    receiver.url(tenant.endpoint(kind), behaviour),
                    **{"retry": RETRY, "breaker": BREAKER, "signing": {"secret": receiver.secret}, **fields},
                )

    async def make_backlog(self, node: Node | None = None) -> Node:
        """Give a node, or any one, a long queue in its memory: a quiet tenant's, for the endpoint ``SLOW``."""
        api, owner = await self._find_place(node)
        events = [{"id": event, "type": "order:created", "data": {}} for event in BACKLOG]
        await api.post("/v1/events/batch", events)
        await until(lambda: self.receiver.receipts.count(SLOW) > AT_ONCE, "the slow endpoint gets some")
        return owner

    async def _find_place(self, node: Node | None) -> tuple[Api, Node]:
        receiver = self.receiver
        for api in self.quiet:
            for _ in range(SLICES):
                made = await api.subscribe(
                    receiver.url(SLOW, f"delay={SLOW_SECONDS}"),
                    max_in_flight=AT_ONCE,
                    signing={"secret": receiver.secret},
                )
                owner = await self.cluster.owner(made)
                if node in (None, owner):
                    return api, owner
                await api.call("DELETE", f"/v1/subscriptions/{made}")
        raise AssertionError(f"{node} has no part that a quiet tenant is in")

    def check_backlog(self, most: int) -> int:
        """It has arrived, and no more than ``most`` of it twice; how many did."""
        slow = self.receiver.receipts.of(SLOW)
        assert_sequences_follow_the_log(slow, BACKLOG)
        twice = len(duplicates(slow))
        assert twice <= most
        return twice

    # --- load

    @asynccontextmanager
    async def publishing(self) -> AsyncGenerator[None]:
        """Publishers at work; at the end each finishes its last event."""
        stopped = asyncio.Event()
        nodes = list(self.cluster.apis)
        async with asyncio.TaskGroup() as tasks:
            for tenant in self.tenants:
                for number in range(PUBLISHERS):
                    publisher = Publisher(number, nodes, tenant.api, tenant.load)
                    tasks.create_task(publisher.run(stopped.is_set), name=f"publisher-{tenant.name}-{number}")
            try:
                yield
            finally:
                stopped.set()

    async def more(self, count: int) -> None:
        """Return once each tenant has so many more accepted events."""
        await asyncio.gather(*(tenant.load.more(count) for tenant in self.tenants))

    @property
    def accepted(self) -> int:
        return sum(len(tenant.load.accepted) for tenant in self.tenants)

    @property
    def retried(self) -> int:
        return sum(tenant.load.retried for tenant in self.tenants)

    async def flowing(self, count: int = 5) -> None:
        """Return once every endpoint has accepted so many more events, whoever delivers to it."""
        receipts = self.receiver.receipts
        kinds = [kind for kind in SUBSCRIPTIONS if kind != EDITED]
        endpoints = [tenant.endpoint(kind) for tenant in self.tenants for kind in kinds]
        wanted = {endpoint: receipts.count(endpoint) + count for endpoint in endpoints}

        def waiting() -> list[str]:
            receipts.read()
            return [endpoint for endpoint in endpoints if len(receipts.accepted[endpoint]) < wanted[endpoint]]

        await until(lambda: not waiting(), lambda: f"{waiting()} go on")

    # --- the end

    async def settle(self) -> None:
        """Return once everything that was accepted has arrived and is recorded."""
        expected = {
            tenant.endpoint(kind): tenant.matching(kind, list(tenant.load.accepted))
            for tenant in self.tenants
            for kind in SUBSCRIPTIONS
            if kind != EDITED
        }
        if self.receiver.receipts.count(SLOW):
            expected[SLOW] = BACKLOG
        await self.receiver.receipts.complete(expected)
        for tenant in self.tenants:
            for subscription in tenant.ids.values():
                await eventually(
                    lambda api=tenant.api, one=subscription: api.get(f"/v1/subscriptions/{one}/health"),
                    lambda health: health["lag"] == 0 and health["waiting"] == 0,
                    f"{subscription} of {tenant.name} has settled",
                )
        self.receiver.receipts.read()

    async def examine(self) -> Verdict:
        """Settle; then all promises of the design that receivers, publishers, the API and the log can show."""
        await self.settle()
        receipts = self.receiver.receipts
        assert_signed(receipts.all)
        logs = await self._check_log()
        for tenant in self.tenants:
            await self._check_tenant(tenant, logs[tenant.name])
        await self._check_records()
        history = await self.cluster.check_fencing()
        again = await self._check_duplicates(history)
        assert self.cluster.complaints() == {}
        return Verdict(
            self.accepted,
            len(receipts.all),
            again,
            self.retried,
            sum(tenant.load.already_stored for tenant in self.tenants),
            history,
        )

    async def _check_log(self) -> dict[str, list[str]]:
        """Each accepted event once, nothing else, at dense positions of its shard; the ids of each tenant in order."""
        logs: dict[str, list[str]] = {tenant.name: [] for tenant in self.tenants}
        heads: Counter[int] = Counter()
        for tenant, shard, position, event in await self.cluster.fetch(_LOG):
            heads[shard] += 1
            assert position == heads[shard], f"a hole before {position} of shard {shard}"
            logs.setdefault(tenant, []).append(event)
        assert dict(await self.cluster.fetch(_HEADS)) == heads
        for tenant in self.tenants:
            assert sorted(logs[tenant.name]) == sorted(tenant.load.accepted)
        return logs

    async def _check_tenant(self, tenant: Tenant, log: Sequence[str]) -> None:
        receipts, accepted = self.receiver.receipts, tenant.load.accepted
        listed = await tenant.api.listing("/v1/events")
        assert [event["id"] for event in reversed(listed)] == log
        for kind in SUBSCRIPTIONS:
            got = receipts.of(tenant.endpoint(kind))
            events = tenant.matching(kind, log)
            if kind == EDITED:
                events = check_edited({one.event for one in got}, log, tenant.load, tenant.edits)
            assert_sequences_follow_the_log(got, events)
        assert_in_order(receipts.of(tenant.endpoint("strict")), lambda _: "all")
        assert_in_order(receipts.of(tenant.endpoint("by-key")), lambda receipt: accepted[receipt.event].key)

    async def _check_records(self) -> None:
        """The database tells the same story as the receiver: each delivery once, succeeded, with this sequence."""
        stored: dict[str, dict[str, int]] = {}
        for subscription, event, sequence, state in await self.cluster.fetch(_STORED):
            known = stored.setdefault(subscription, {})
            assert (event in known, state) == (False, 1), (subscription, event, sequence, state)
            known[event] = sequence
        for tenant in self.tenants:
            for kind, subscription in tenant.ids.items():
                assert stored[subscription] == sequences(self.receiver.receipts.of(tenant.endpoint(kind)))

    async def _check_duplicates(self, history: Sequence[Change]) -> list[Receipt]:
        """Nothing comes twice but from a part that was taken by force before, and no more than can be under way.

        Returns what came twice. Endpoints that are not the fleet's own are not looked at.
        """
        part_of = await self.parts()
        again = [one for one in duplicates(self.receiver.receipts.all) if one.endpoint in part_of]
        offset = time.time_ns() - time.monotonic_ns()
        forced: dict[Part, list[int]] = {}
        for change in history:
            if change.is_forced:
                forced.setdefault(change.part, []).append(change.at - offset)
        for receipt in again:
            times = forced.get(part_of[receipt.endpoint], [])
            assert any(at < receipt.at for at in times), f"{receipt} came twice, and nobody lost its part"
        nodes = {change.was_owner for change in history if change.is_forced}
        assert len(again) <= len(nodes) * (IN_FLIGHT + UNRECORDED)
        return again

    async def parts(self) -> dict[str, Part]:
        """In which part each endpoint's subscription is."""
        place = {row[0]: (row[1], row[2]) for row in await self.cluster.fetch(_PARTS)}
        return {
            tenant.endpoint(kind): place[no] for tenant in self.tenants for kind, no in tenant.ids.items()
        }


@asynccontextmanager
async def fleet(cluster: Cluster, receiver: Receiver) -> AsyncGenerator[Fleet]:
    """The tenants of a cluster, under load until the end of the block."""
    this = Fleet(cluster, receiver)
    await this.prepare()
    async with this.publishing():
        yield this
