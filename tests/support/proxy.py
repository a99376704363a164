"""A line between two programs that can be cut: a TCP proxy that stops passing bytes, and tells nobody."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

_CHUNK = 64 * 1024


class Line:
    """Listens on ``port`` of 127.0.0.1, or on a socket that is given, and passes everything on to a port of 127.0.0.1.

    While it is cut, connections stay open, new ones are accepted, and nothing arrives on either side.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._tasks = set[asyncio.Task[None]]()
        self._whole = asyncio.Event()
        self._whole.set()
        self.port = 0

    async def open(self, listener: socket.socket | None = None) -> asyncio.Server:
        if listener is None:
            server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        else:
            server = await asyncio.start_server(self._connected, sock=listener)
        self.port = server.sockets[0].getsockname()[1]
        return server

    def cut(self) -> None:
        """Pass nothing on from now on."""
        self._whole.clear()

    def mend(self, *, lost: bool) -> None:
        """Pass bytes on again. What was held back is ``lost`` if the connections have been given up meanwhile."""
        if lost:
            for task in self._tasks:
                task.cancel()
        self._whole.set()

    async def _connected(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._join(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # the test ends it, or one side did
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _join(self, reader: StreamReader, writer: StreamWriter) -> None:
        await self._whole.wait()
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            ways = [
                asyncio.create_task(self._pass(reader, back)),
                asyncio.create_task(self._pass(there, writer)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        finally:
            back.transport.abort()

    async def _pass(self, reader: StreamReader, writer: StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            await self._whole.wait()
            writer.write(data)
            await writer.drain()
        await self._whole.wait()

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def line_to(target: int, listener: socket.socket | None = None) -> AsyncGenerator[Line]:
    """A line to a port of 127.0.0.1."""
    line = Line(target)
    server = await line.open(listener)
    try:
        yield line
    finally:
        server.close()
        await line.close()
