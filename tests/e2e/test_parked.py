"""What waits behind another delivery of its key has no time of its own: the API shows it as waiting, without one."""

from __future__ import annotations

from pathlib import Path

from tests.support.receipts import receiving
from tests.support.server import Api, ServerProcess, running
from tests.support.waiting import eventually


async def test_parked_deliveries_are_shown(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "data")
    async with receiving(tmp_path) as receiver, running(server):
        api = await Api(server).new_tenant("shop")
        subscription = await api.subscribe(
            receiver.url("any", "status=500"), order="key", signing={"secret": receiver.secret}
        )
        await api.publish({"id": "first", "type": "order:created", "key": "k", "data": {}})
        place = f"/v1/subscriptions/{subscription}"
        await eventually(
            lambda: api.get(f"{place}/health"), lambda health: health["waiting"] == 1, "it failed"
        )
        await api.publish({"id": "second", "type": "order:paid", "key": "k", "data": {}})
        health = await eventually(
            lambda: api.get(f"{place}/health"), lambda health: health["waiting"] == 2, "it is parked"
        )
        assert health["next_due_at"] is not None
        listed = {one["event"]: one for one in await api.listing(f"{place}/deliveries")}
        assert listed["first"]["due_at"] is not None
        assert (listed["second"]["due_at"], listed["second"]["attempts"]) == (None, 0)
        (story,) = (await api.get("/v1/events/second/deliveries"))["data"]
        assert story["delivery"]["due_at"] is None
