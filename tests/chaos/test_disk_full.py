"""A disk that takes no more: publishing says so, nothing that was accepted is lost, and it goes on by itself.

The limit on the size of files (RLIMIT_FSIZE) of the running server stands for the disk: it can be set and lifted at
any moment, and writes beyond it fail in the middle.
"""

from __future__ import annotations

import asyncio
import resource
from pathlib import Path

import pytest

from hookline.engine.record import RETRY_PAUSE
from tests.chaos.storm import BREAKER, RETRY
from tests.integration.receivers import OK, Exchange, receiver
from tests.support.load import make_event
from tests.support.receipts import assert_sequences_follow_the_log, receiving
from tests.support.server import Api, ServerProcess, running
from tests.support.waiting import eventually, never, until

ROOM = 256 * 1024


def limit_files(server: ServerProcess, size: int) -> None:
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


async def publish_in_vain(api: Api) -> None:
    """Every refusal is an honest 503 that says when to come again."""
    answer = await api.call("POST", "/v1/events", {"id": "in-vain", "type": "order:created", "data": {}})
    assert (answer.status, answer.code) == (503, "storage_unavailable")
    assert answer.headers["retry-after"].isdigit()


async def fill(api: Api, accepted: list[str]) -> None:
    """Publish until an event is refused, a large one in the end."""
    for number in range(len(accepted), 100_000):
        event = make_event(9, number)
        answer = await api.call("POST", "/v1/events", event.body)
        if answer.status != 202:
            return
        accepted.append(event.id)


@pytest.mark.timeout(400)
async def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "data")
    database = tmp_path / "data" / "hookline.db-wal"
    async with receiving(tmp_path) as receiver, running(server):
        api = await Api(server).new_tenant("shop")
        fields = {"retry": RETRY, "breaker": BREAKER, "signing": {"secret": receiver.secret}}
        await api.subscribe(receiver.url("any"), **fields)
        await api.subscribe(receiver.url("flaky", "fail=1"), **fields)
        accepted: list[str] = []
        for _ in range(2):
            limit_files(server, database.stat().st_size + ROOM)
            await fill(api, accepted)
            limit_files(server, 1)  # not even a line of the server's own log
            await publish_in_vain(api)
            assert (await api.call("GET", "/readyz")).status == 503
            assert (await api.call("GET", "/healthz")).status == 200
            limit_files(server, resource.RLIM_INFINITY)
            await eventually(
                lambda: api.call("GET", "/readyz"), lambda answer: answer.status == 200, "it is ready again"
            )
            extra = f"after-{len(accepted)}"
            await api.publish({"id": extra, "type": "order:created", "data": {}})
            accepted.append(extra)
        await receiver.receipts.complete({"any": accepted, "flaky": accepted})
        log = [event["id"] for event in reversed(await api.listing("/v1/events"))]
        assert log == accepted
        for endpoint in ("any", "flaky"):
            assert_sequences_follow_the_log(receiver.receipts.of(endpoint), log)
        assert server.complaints() == []


async def test_a_full_disk_at_the_end_of_a_life_loses_nothing(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "data")
    async with receiving(tmp_path) as receiver, running(server):
        api = await Api(server).new_tenant("shop")
        await api.subscribe(receiver.url("any"), signing={"secret": receiver.secret})
        accepted: list[str] = []
        limit_files(server, (tmp_path / "data" / "hookline.db-wal").stat().st_size + ROOM)
        await fill(api, accepted)
        server.kill()
        await server.start()
        await receiver.receipts.complete({"any": accepted})
        log = [event["id"] for event in reversed(await api.listing("/v1/events"))]
        assert log == accepted
        assert_sequences_follow_the_log(receiver.receipts.of("any"), log)


async def test_outcomes_wait_for_room_on_the_disk(tmp_path: Path) -> None:
    """What was delivered is recorded later, not sent again, though the server's log finds no room either."""
    server, full = ServerProcess(tmp_path / "data"), asyncio.Event()

    async def answer_when_full(exchange: Exchange) -> None:
        await full.wait()
        await exchange.send(OK)

    async with receiver(answer_when_full) as endpoint, running(server):
        api = await Api(server).new_tenant("shop")
        subscription = await api.subscribe(endpoint.url())
        await api.publish({"id": "e1", "type": "order:created", "data": {}})
        await until(lambda: endpoint.requests, "it is under way")
        limit_files(server, 1)
        full.set()
        await eventually(lambda: api.metric("outcomes_unrecorded"), lambda count: count == 1, "it waits")
        await never(lambda: not server.alive, "the server died", RETRY_PAUSE * 4)
        limit_files(server, resource.RLIM_INFINITY)
        await eventually(
            lambda: api.get(f"/v1/subscriptions/{subscription}/deliveries"),
            lambda page: [one["state"] for one in page["data"]] == ["succeeded"],
            "it is recorded",
        )
        await api.publish({"id": "e2", "type": "order:created", "data": {}})
        await until(lambda: len(endpoint.requests) > 1, "it goes on")
        assert [request.headers["webhook-id"] for request in endpoint.requests] == ["e1", "e2"]
        assert server.complaints() == []
