"""Making senders and waiting for what they answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_network
from typing import Any

from hookline.core.address import AddressRule
from hookline.ports import Outcome, Request, Sender
from hookline.sender import CurlSender

LOOPBACK = AddressRule([ip_network("127.0.0.0/8")])
PATIENCE = 60.0


@asynccontextmanager
async def open_sender(rule: AddressRule = LOOPBACK, **options: Any) -> AsyncGenerator[CurlSender]:
    """A sender that may reach 127.0.0.0/8, closed at the end."""
    sender = CurlSender(rule, **options)
    try:
        yield sender
    finally:
        await sender.close()


def request(
    url: str,
    *,
    method: str = "POST",
    headers: Sequence[str] = ("user-agent: test", "content-type: application/json"),
    body: bytes | None = b'{"a": 1}',
    connect: float = 5.0,
    total: float = 10.0,
) -> Request:
    return Request(method, url, list(headers), body, connect, total)


def begin(sender: Sender, what: Request) -> asyncio.Future[Outcome]:
    """Start a request; a second call of ``done`` would raise in the loop and fail the test."""
    future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    sender.start(what, future.set_result)
    return future


async def until(holds: Callable[[], bool]) -> None:
    """Wait for a condition that no event tells of."""
    async with asyncio.timeout(PATIENCE):
        while not holds():
            await asyncio.sleep(0.001)


async def send(sender: Sender, url: str, **fields: Any) -> Outcome:
    return await asyncio.wait_for(begin(sender, request(url, **fields)), PATIENCE)
