"""examples/outbox_shop does what its page says: exactly the orders that were taken reach the receiver."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.http import Connection
from tests.support.outbox import dead_letters, emptied
from tests.support.programs import Database, postgres_database, sqlite_database
from tests.support.receipts import assert_signed, receiving
from tests.support.relay import relay_process
from tests.support.server import ROOT, Api, ServerProcess, child_environment, running
from tests.support.waiting import until

EXAMPLE = ROOT / "examples" / "outbox_shop"
PAGE = ROOT / "docs" / "how-to" / "transactional-outbox.md"
CUSTOMERS = 6
ORDERS = 20
"""Of each customer: a few are refused by the bank, and some find nothing left."""
MUGS = 25


@asynccontextmanager
async def open_shop(folder: Path, database: Database) -> AsyncGenerator[int]:
    """The example, as its README runs it; the port."""
    url = database.sqlalchemy("pysqlite" if database.dialect == "sqlite" else "psycopg")
    log = folder / "shop.log"
    with log.open("wb") as output:
        shop = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "app:app", "--port", "0"],
            cwd=EXAMPLE, env=child_environment(SHOP_DATABASE_URL=url), stdout=output, stderr=output,
        )  # fmt: skip
    try:
        await until(
            lambda: b"Uvicorn running on" in log.read_bytes() or shop.poll() is not None, log.read_text
        )
        found = re.search(r"running on http://127\.0\.0\.1:(\d+)", log.read_text())
        assert found, log.read_text()
        yield int(found[1])
    finally:
        shop.terminate()
        shop.wait(20)


class ShopApi:
    """A client of the shop."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.refused = 0
        self.sold_out = 0

    async def place(self, order: dict[str, Any]) -> tuple[int, Any]:
        connection = await Connection.open(self._port)
        try:
            answer = await connection.request(
                "POST", "/orders", json.dumps(order).encode(), {"Content-Type": "application/json"}
            )
        finally:
            await connection.close()
        self.refused += answer.status == 402
        self.sold_out += answer.status == 409
        return answer.status, answer.json


def wish(customer: int, number: int) -> dict[str, Any]:
    """What a customer orders: mugs, of which there are too few, and shirts; some with a card that is refused."""
    card = "4000-0002" if (customer + number) % 4 == 0 else "4242-4242"
    return {"sku": "mug" if number % 2 else "tee", "quantity": 1 + number % 3, "card": card}


async def shop_around(api: ShopApi, customer: int) -> list[tuple[dict[str, Any], int]]:
    """The orders that were taken, with their ids."""
    taken: list[tuple[dict[str, Any], int]] = []
    for number in range(ORDERS):
        order = wish(customer, number)
        status, answer = await api.place(order)
        if status == 201:
            taken.append((order, answer["id"]))
        else:
            assert status == (402 if order["card"].endswith("0002") else 409) or (status, order["sku"]) == (
                409,
                "mug",
            )
    return taken


@pytest.mark.slow
@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
async def test_exactly_the_orders_that_were_taken_arrive(dialect: str, tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "data")
    made = sqlite_database(tmp_path) if dialect == "sqlite" else postgres_database()
    async with made as database, receiving(tmp_path) as receiver, running(server):
        await database.run("DROP TABLE orders")
        api = await Api(server).new_tenant("shop")
        signing = {"secret": receiver.secret}
        await api.subscribe(receiver.url("erp"), events=["order:*"], order="key", signing=signing)
        key = api.headers["Authorization"].removeprefix("Bearer ")
        url = f"sqlite:///{database.address}" if dialect == "sqlite" else database.address
        async with (
            open_shop(tmp_path, database) as port,
            relay_process(tmp_path, url, lambda: f"http://127.0.0.1:{server.port}", key) as relay,
        ):
            relay.start()
            client = ShopApi(port)
            visits = await asyncio.gather(*(shop_around(client, customer) for customer in range(CUSTOMERS)))
            taken = {f"order-{order_id}-created": order for visit in visits for order, order_id in visit}
            await receiver.receipts.complete({"erp": taken})
            await emptied(database)
            assert await relay.terminate() == 0
        receiver.receipts.read()
        assert_signed(receiver.receipts.all)
        assert receiver.receipts.accepted["erp"] == set(taken)
        assert len(receiver.receipts.all) == len(taken)
        assert client.refused >= CUSTOMERS
        assert client.sold_out >= CUSTOMERS
        assert sum(order["quantity"] for order in taken.values() if order["sku"] == "mug") <= MUGS
        booked = {f"order-{no}-created" for (no,) in await database.all("SELECT id FROM orders")}
        assert booked == set(taken)
        assert sorted(event["id"] for event in await api.listing("/v1/events")) == sorted(taken)
        assert await dead_letters(database) == []


def test_the_page_shows_the_program_as_it_is() -> None:
    programs = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert (EXAMPLE / "app.py").read_text("utf-8") in programs
