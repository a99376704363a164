"""A delivery process that sleeps past its lease: on one SQLite file, nobody else delivers while it lives.

The lease goes with a lock that the kernel holds for the process, so a suspended owner keeps its shard, and a dead
one loses it at once: both are safer than a time, which a suspended process cannot watch.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.receipts import Receiver, assert_sequences_follow_the_log, duplicates, receiving
from tests.support.server import Api, ServerProcess, running
from tests.support.waiting import eventually, never, until

LEASE = 1.0
EVENTS = 20


@dataclass
class Scene:
    """An API, an owner of the shard, and a second delivery process that waits for it."""

    api: Api
    owner: ServerProcess
    heir: ServerProcess
    receiver: Receiver
    published: int = 0

    async def publish(self) -> list[str]:
        """Publish some events; the ids of all so far."""
        for _ in range(EVENTS):
            await self.api.publish({"id": f"e{self.published}", "type": "order:created", "data": {}})
            self.published += 1
        return [f"e{number}" for number in range(self.published)]

    async def suspend(self) -> None:
        """Stop the owner."""
        await suspend(self.owner, self.api)

    async def leases(self, server: ServerProcess) -> float:
        return await Api(server).metric("leases_taken_total")


async def suspend(server: ServerProcess, other: Api) -> None:
    """Stop a process, but not while it holds the lock for writing, which would stop the other one as well."""
    while True:
        server.signal(signal.SIGSTOP)
        try:
            await other.call("GET", "/readyz", patience=2)
        except TimeoutError:
            server.signal(signal.SIGCONT)
        else:
            return


@asynccontextmanager
async def scene(folder: Path) -> AsyncGenerator[Scene]:
    """Everything running, the owner caught up and idle."""
    api = ServerProcess(folder / "data", "api", lease_seconds=f"{LEASE:g}s")
    owner = ServerProcess(folder / "data", "delivery", lease_seconds=f"{LEASE:g}s")
    heir = ServerProcess(folder / "data", "delivery", lease_seconds=f"{LEASE:g}s")
    async with receiving(folder) as receiver, running(api, owner):
        this = Scene(await Api(api).new_tenant("shop"), owner, heir, receiver)
        subscription = await this.api.subscribe(receiver.url("any"), signing={"secret": receiver.secret})
        await receiver.receipts.complete({"any": await this.publish()})
        await eventually(
            lambda: this.api.get(f"/v1/subscriptions/{subscription}/health"),
            lambda health: health["lag"] == 0 and health["waiting"] == 0,
            "all outcomes are recorded",
        )
        async with running(heir):
            yield this


async def test_a_suspended_owner_keeps_its_shard_and_goes_on(tmp_path: Path) -> None:
    async with scene(tmp_path) as this:
        receipts = this.receiver.receipts
        await this.suspend()
        events = await this.publish()
        await never(lambda: receipts.count("any") > EVENTS, "somebody else delivered", 3 * LEASE)
        assert await this.leases(this.heir) == 0
        this.owner.signal(signal.SIGCONT)
        await receipts.complete({"any": events})
        assert await this.leases(this.heir) == 0
        assert_sequences_follow_the_log(receipts.of("any"), events)
        assert duplicates(receipts.all) == []


async def test_a_dead_owner_is_followed_at_once(tmp_path: Path) -> None:
    async with scene(tmp_path) as this:
        receipts = this.receiver.receipts
        await this.suspend()
        events = await this.publish()
        this.owner.kill()
        await receipts.complete({"any": events}, seconds=10 * LEASE)
        assert await this.leases(this.heir) == 1
        assert_sequences_follow_the_log(receipts.of("any"), events)
        assert len(duplicates(receipts.all)) == 0  # the first one was idle when it died
        await this.owner.start()
        await receipts.complete({"any": await this.publish()})
        assert await this.leases(this.owner) == 0  # now it is the one that waits


async def test_a_stopped_owner_hands_over(tmp_path: Path) -> None:
    async with scene(tmp_path) as this:
        receipts = this.receiver.receipts
        assert await this.owner.terminate() == 0
        await eventually(lambda: this.leases(this.heir), lambda taken: taken == 1, "the other takes over")
        events = await this.publish()
        await receipts.complete({"any": events})
        assert_sequences_follow_the_log(receipts.of("any"), events)
        assert duplicates(receipts.all) == []


async def test_a_suspended_api_process_does_not_stop_delivery(tmp_path: Path) -> None:
    async with scene(tmp_path) as this:
        receipts = this.receiver.receipts
        second = ServerProcess(tmp_path / "data", "api")
        async with running(second):
            other = Api(second, tenant="shop")
            await suspend(this.api.server, other)
            await other.publish({"id": "from-the-other", "type": "order:created", "data": {}})
            await until(lambda: receipts.count("any") == EVENTS + 1, "it arrives")
            this.api.server.signal(signal.SIGCONT)
            assert (await this.api.get("/v1/events/from-the-other"))["position"] == EVENTS + 1
