"""The two roles as processes of their own, on one data folder."""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.receipts import Receiver, assert_sequences_follow_the_log, duplicates, receiving
from tests.support.server import Api, ServerProcess, running
from tests.support.waiting import eventually

POLL = 1.0
"""The engine looks at the log this often even without a wake-up (``feeder.POLL``)."""
AWAKE = POLL / 5
"""A median below this shows that wake-ups arrive: polling alone would take half of ``POLL``."""
SAMPLES = 15


@asynccontextmanager
async def shop(api: ServerProcess, receiver: Receiver) -> AsyncGenerator[Api]:
    """A tenant with one subscription."""
    tenant = await Api(api).new_tenant("shop")
    await tenant.subscribe(receiver.url("any"), signing={"secret": receiver.secret})
    yield tenant


async def publish(api: Api, first: int, count: int) -> list[str]:
    events = [f"e{number}" for number in range(first, first + count)]
    for event in events:
        await api.publish({"id": event, "type": "order:created", "data": {}})
    return events


async def latencies(api: Api, receiver: Receiver, first: int) -> list[float]:
    """Seconds from each publish to its receipt, one after the other, as an idle system has them."""
    times: list[float] = []
    for number in range(first, first + SAMPLES):
        began = time.monotonic_ns()
        (event,) = await publish(api, number, 1)
        await receiver.receipts.complete({"any": [event]})
        times.append((receiver.receipts.all[-1].at - began) / 1e9)
    return times


async def test_an_event_wakes_the_other_process(tmp_path: Path) -> None:
    api, delivery = (ServerProcess(tmp_path / "data", role) for role in ("api", "delivery"))
    async with receiving(tmp_path) as receiver, running(api, delivery), shop(api, receiver) as tenant:
        await receiver.receipts.complete({"any": await publish(tenant, 0, 1)})
        times = await latencies(tenant, receiver, 1)
        print(f"publish to receipt: median {statistics.median(times) * 1000:.1f} ms")  # noqa: T201 - a figure
        assert statistics.median(times) < AWAKE


@pytest.mark.parametrize("ends", ["none", "standby", "owner"])
async def test_wake_ups_survive_a_second_delivery_process(tmp_path: Path, ends: str) -> None:
    """One waits, or has gone again, or follows the first: events wake whoever delivers."""
    api, owner = (ServerProcess(tmp_path / "data", role) for role in ("api", "delivery"))
    standby = ServerProcess(tmp_path / "data", "delivery", lease_seconds="1s")
    async with receiving(tmp_path) as receiver, running(api, owner), shop(api, receiver) as tenant:
        await receiver.receipts.complete({"any": await publish(tenant, 0, 1)})
        async with running(standby):
            if ends != "none":
                assert await (standby if ends == "standby" else owner).terminate() == 0
            await receiver.receipts.complete({"any": await publish(tenant, 1, 1)})
            times = await latencies(tenant, receiver, 2)
            assert statistics.median(times) < AWAKE


async def test_delivery_that_starts_later_catches_up(tmp_path: Path) -> None:
    api, delivery = (ServerProcess(tmp_path / "data", role) for role in ("api", "delivery"))
    async with receiving(tmp_path) as receiver, running(api), shop(api, receiver) as tenant:
        events = await publish(tenant, 0, 300)
        async with running(delivery):
            await receiver.receipts.complete({"any": events})
            events += await publish(tenant, 300, 50)
            await receiver.receipts.complete({"any": events})
        assert_sequences_follow_the_log(receiver.receipts.of("any"), events)
        assert duplicates(receiver.receipts.all) == []


async def test_publishing_goes_on_without_delivery(tmp_path: Path) -> None:
    api, delivery = (ServerProcess(tmp_path / "data", role) for role in ("api", "delivery"))
    async with receiving(tmp_path) as receiver, running(api, delivery), shop(api, receiver) as tenant:
        events = await publish(tenant, 0, 20)
        await receiver.receipts.complete({"any": events})
        assert await delivery.terminate() == 0
        events += await publish(tenant, 20, 20)
        assert receiver.receipts.count("any") == 20
        await delivery.start()
        await receiver.receipts.complete({"any": events})
        assert_sequences_follow_the_log(receiver.receipts.of("any"), events)
        assert duplicates(receiver.receipts.all) == []


async def test_changes_of_a_subscription_reach_the_other_process(tmp_path: Path) -> None:
    api, delivery = (ServerProcess(tmp_path / "data", role) for role in ("api", "delivery"))
    async with receiving(tmp_path) as receiver, running(api, delivery), shop(api, receiver) as tenant:
        receipts = receiver.receipts
        (subscription,) = (one["id"] for one in await tenant.listing("/v1/subscriptions"))
        await tenant.post(f"/v1/subscriptions/{subscription}/pause", {})
        paused = await publish(tenant, 0, 5)
        await tenant.patch(f"/v1/subscriptions/{subscription}", {"url": receiver.url("moved")})
        await tenant.post(f"/v1/subscriptions/{subscription}/resume", {})
        await receipts.complete({"moved": paused})
        assert receipts.count("any") == 0


async def test_each_process_answers_for_itself(tmp_path: Path) -> None:
    api, delivery = (ServerProcess(tmp_path / "data", role) for role in ("api", "delivery"))
    async with receiving(tmp_path) as receiver, running(api, delivery), shop(api, receiver) as tenant:
        await receiver.receipts.complete({"any": await publish(tenant, 0, 7)})
        watch = Api(delivery)
        assert (await watch.call("GET", "/healthz")).status == 200
        assert (await watch.call("GET", "/readyz")).status == 200
        await eventually(
            lambda: watch.metric("deliveries_succeeded_total"), lambda count: count == 7, "counted there"
        )
        assert await watch.metric("events_appended_total") == 0
        assert await tenant.metric("events_appended_total") == 7
        assert await tenant.metric("deliveries_succeeded_total") == 0
        assert (await watch.call("POST", "/v1/events", {})).status == 404


async def test_two_api_processes_share_a_log(tmp_path: Path) -> None:
    first, second, delivery = (ServerProcess(tmp_path / "data", role) for role in ("api", "api", "delivery"))
    async with receiving(tmp_path) as receiver, running(first, second, delivery):
        async with shop(first, receiver) as tenant:
            other = Api(second, tenant="shop")
            events: list[str] = []
            for number in range(0, 40, 2):
                events += await publish(tenant, number, 1)
                events += await publish(other, number + 1, 1)
            again = await other.publish({"id": "e0", "type": "order:created", "data": {}})
            assert again == {"id": "e0", "duplicate": True}
            await receiver.receipts.complete({"any": events})
        assert_sequences_follow_the_log(receiver.receipts.of("any"), events)


async def test_a_data_folder_may_have_a_long_path(tmp_path: Path) -> None:
    """Longer than the address of a local socket may be."""
    folder = tmp_path / "-".join(["long"] * 24)
    folder.mkdir()
    api, delivery = (ServerProcess(folder / "data", role) for role in ("api", "delivery"))
    async with receiving(tmp_path) as receiver, running(api, delivery), shop(api, receiver) as tenant:
        await receiver.receipts.complete({"any": await publish(tenant, 0, 1)})
        assert statistics.median(await latencies(tenant, receiver, 1)) < AWAKE


async def test_what_killed_processes_leave_is_cleared_away(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "data")
    async with running(server):
        for _ in range(3):
            server.kill()
            await server.start()
        assert len(list((tmp_path / "data" / "wake").iterdir())) == 1
        assert await server.terminate() == 0
        assert list((tmp_path / "data" / "wake").iterdir()) == []
