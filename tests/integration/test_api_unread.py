"""Answers that are not read, or slowly: they must not stay in memory for ever."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import cast

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from hookline.api import bounded
from hookline.api.bounded import BoundedProtocol
from tests.support.waiting import until

SIZE = 32 << 20
"""More than the sockets of both sides hold."""
REQUEST = b"GET / HTTP/1.1\r\nHost: hookline.test\r\n\r\n"


async def large(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Answers with ``SIZE`` bytes."""
    headers = [(b"content-length", b"%d" % SIZE)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": bytes(SIZE)})


@asynccontextmanager
async def serving() -> AsyncGenerator[tuple[uvicorn.Server, int]]:
    """The server and its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(large, http=BoundedProtocol, lifespan="off", log_config=None))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await until(lambda: server.started, lambda: "started", 10)
        yield server, cast("int", listener.getsockname()[1])
    finally:
        server.should_exit = server.force_exit = True
        await task


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "HEAD_SECONDS", 0.3)


async def test_an_answer_that_is_not_read_ends_its_connection() -> None:
    async with serving() as (server, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(REQUEST)
        await reader.readexactly(10)
        await until(
            lambda: not server.server_state.connections, lambda: "the connection was closed by the server", 10
        )
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_an_answer_that_is_read_slowly_arrives() -> None:
    async with serving() as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(REQUEST)
        await reader.readuntil(b"\r\n\r\n")
        arrived = 0
        while arrived < SIZE:
            arrived += len(await reader.readexactly(min(SIZE // 16, SIZE - arrived)))
            await asyncio.sleep(0.1)  # the slowness that this is about
        assert arrived == SIZE
        writer.close()
        await writer.wait_closed()
