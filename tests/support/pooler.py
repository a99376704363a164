"""A pooler that lends a server connection for one transaction at a time, and each time another one: what depends on a
session fails behind it at once."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

_VERSION = 196608
_SSL, _GSS = 80877103, 80877104
_IDLE = b"Z\x00\x00\x00\x05I"

Stream = tuple[StreamReader, StreamWriter]


def _packet(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


async def _message(reader: StreamReader) -> bytes:
    head = await reader.readexactly(5)
    return head + await reader.readexactly(struct.unpack("!I", head[1:])[0] - 4)


class Pooler:
    """Listens on 127.0.0.1; ``size`` connections to the server are lent in turn."""

    def __init__(self, socket_path: str, database: str, size: int) -> None:
        self._socket_path = socket_path
        self._database = database
        self._size = size
        self._free: asyncio.Queue[Stream] = asyncio.Queue()
        self._greeting = b""
        self._clients = set[asyncio.Task[None]]()
        self._streams: list[Stream] = []
        self.port = 0
        self.lent = 0

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{self._database}?sslmode=disable"

    async def open(self) -> asyncio.Server:
        for _ in range(self._size):
            stream = await self._connect()
            self._streams.append(stream)
            self._free.put_nowait(stream)
        server = await asyncio.start_server(self._client, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _connect(self) -> Stream:
        reader, writer = await asyncio.open_unix_connection(self._socket_path)
        parts = (b"user", b"postgres", b"database", self._database.encode(), b"")
        body = struct.pack("!I", _VERSION) + b"\0".join(parts) + b"\0"
        writer.write(struct.pack("!I", len(body) + 4) + body)
        greeting = b""
        while True:
            message = await _message(reader)
            assert message[:1] != b"E", message
            greeting += message if message[:1] in b"RS" else b""
            if message[:1] == b"Z":
                self._greeting = greeting
                return reader, writer

    async def _client(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            if await self._greet(reader, writer):
                await self._serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._clients.discard(task)
            writer.close()

    async def _greet(self, reader: StreamReader, writer: StreamWriter) -> bool:
        while True:
            length, code = struct.unpack("!II", await reader.readexactly(8))
            await reader.readexactly(length - 8)
            if code == _VERSION:
                break
            if code not in {_SSL, _GSS}:
                return False  # a request to cancel
            writer.write(b"N")
        writer.write(self._greeting + _packet(b"K", struct.pack("!II", 1, 1)) + _IDLE)
        return True

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        while (message := await _message(reader))[:1] != b"X":
            server = await self._free.get()
            self.lent += 1
            server[1].write(message)
            ahead = asyncio.create_task(_forward(reader, server[1]))
            try:
                while True:
                    answer = await _message(server[0])
                    if answer == _IDLE:
                        break
                    writer.write(answer)
            finally:
                ahead.cancel()
                with contextlib.suppress(
                    asyncio.CancelledError, asyncio.IncompleteReadError, ConnectionError
                ):
                    await ahead
            self._free.put_nowait(server)
            writer.write(_IDLE)

    async def close(self) -> None:
        for task in list(self._clients):
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        for _, writer in self._streams:
            writer.close()


async def _forward(reader: StreamReader, writer: StreamWriter) -> None:
    """What the client says during its transaction. A message is read whole or not at all: cancelling loses nothing,
    because the client waits for the end of the transaction before it says more."""
    while True:
        writer.write(await _message(reader))


@asynccontextmanager
async def pooled(socket_path: str, database: str, size: int = 3) -> AsyncGenerator[Pooler]:
    """A pooler in front of the server that listens on ``socket_path``."""
    pooler = Pooler(socket_path, database, size)
    server = await pooler.open()
    try:
        yield pooler
    finally:
        server.close()
        await pooler.close()
