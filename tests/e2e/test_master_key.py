"""The master key: rotated by a restart, and missed at the start rather than at the first delivery."""

from __future__ import annotations

import base64
from pathlib import Path

from tests.support.receipts import receiving
from tests.support.server import Api, ServerProcess, running

OLD, NEW, OTHER = (base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2, 3))


async def test_a_new_key_in_front_takes_over_all_secrets(tmp_path: Path) -> None:
    async with receiving(tmp_path) as receiver:
        first = ServerProcess(tmp_path / "data", master_key=OLD)
        async with running(first):
            tenant = await Api(first).new_tenant("shop")
            await tenant.subscribe(receiver.url("any"), signing={"secret": receiver.secret})
        async with running(ServerProcess(tmp_path / "data", master_key=f"{NEW},{OLD}")):
            pass
        last = ServerProcess(tmp_path / "data", master_key=NEW)
        async with running(last):
            tenant.server = last
            await tenant.publish({"id": "e1", "type": "order:created", "data": {}})
            await receiver.receipts.complete({"any": ["e1"]})


async def test_without_the_key_the_server_does_not_start(tmp_path: Path) -> None:
    first = ServerProcess(tmp_path / "data", master_key=OLD)
    async with running(first):
        tenant = await Api(first).new_tenant("shop")
        await tenant.subscribe("http://127.0.0.1:9000/hooks")
    wrong = ServerProcess(tmp_path / "data", master_key=OTHER)
    try:
        await wrong.start()
    except AssertionError:
        assert wrong.process.returncode == 1
        assert "HOOKLINE_MASTER_KEY" in wrong.tail()
    else:
        raise AssertionError("it started with a key that opens none of its secrets")
