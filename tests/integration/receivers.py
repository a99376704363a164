"""HTTP receivers on real sockets that behave, misbehave, or attack: whatever a test tells them to.

A behaviour is a coroutine function that gets each parsed request as an ``Exchange`` and may send any bytes.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import trustme

_TURNS_TO_ACCEPT = 5
"""Turns of the loop after which a connection being accepted is up: asyncio loses those of a closed server."""

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Received:
    """One request as it came over the wire."""

    connection: int
    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Exchange:
    """A request and the connection to answer it on, in whatever way."""

    request: Received
    number: int
    """The number of the request on this receiver: 1, 2, …"""
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def drip(self, data: bytes, every: float = 0.02) -> None:
        """One byte at a time, for as long as somebody listens."""
        for byte in data:
            await self.send(bytes((byte,)))
            await asyncio.sleep(every)

    def hang_up(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        """Break the connection with a TCP RST."""
        sock: socket.socket = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Behaviour = Callable[[Exchange], Awaitable[None]]


async def answer_ok(exchange: Exchange) -> None:
    await exchange.send(OK)


def answer(raw: bytes, *, close: bool = False) -> Behaviour:
    """Always send exactly these bytes, and then perhaps hang up."""

    async def behave(exchange: Exchange) -> None:
        await exchange.send(raw)
        if close:
            exchange.hang_up()

    return behave


def status(code: int, *headers: str, body: bytes = b"") -> Behaviour:
    """Always answer with this status."""
    lines = [f"HTTP/1.1 {code} Status", f"Content-Length: {len(body)}", *headers]
    return answer("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


async def stay_silent(exchange: Exchange) -> None:
    """Take the request and never answer; ends when the other side hangs up."""
    await exchange.reader.read()


@dataclass
class Receiver:
    """A running receiver: what it got, and where it is."""

    scheme: str
    host: str
    port: int
    requests: list[Received] = field(default_factory=list[Received])
    connections: int = 0

    def url(self, path: str = "/hook", host: str = "") -> str:
        return f"{self.scheme}://{host or self.host}:{self.port}{path}"


def authority() -> trustme.CA:
    """A certificate authority for one test run."""
    return trustme.CA()


def server_context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    """TLS as a receiver has it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


class _Protocol(asyncio.StreamReaderProtocol):
    """Streams, with a list of the connections that are open."""

    def __init__(self, serve: Callable[..., Awaitable[None]], live: set[asyncio.Transport]) -> None:
        super().__init__(asyncio.StreamReader(), serve)
        self._live = live
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are not subclasses
        self._live.add(self._transport)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        assert self._transport
        self._live.discard(self._transport)
        super().connection_lost(exc)


Converse = Callable[["Receiver", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def run_server(
    converse: Converse, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncGenerator[Receiver]:
    """Run a server on a free port of ``host``; all its connections are gone afterwards."""
    live: set[asyncio.Transport] = set()
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        this.connections += 1
        task = asyncio.current_task()
        assert task
        serving.add(task)
        try:
            await converse(this, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError, asyncio.CancelledError):
            pass  # the other side went away, or this receiver ends
        finally:
            serving.discard(task)
            writer.close()

    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Protocol(serve, live), host, 0, ssl=tls, backlog=1024)
    port = server.sockets[0].getsockname()[1]
    this = Receiver("https" if tls else "http", f"[{host}]" if ":" in host else host, port)
    try:
        yield this
    finally:
        for _ in range(_TURNS_TO_ACCEPT):
            await asyncio.sleep(0)
        server.close()
        for task in list(serving):
            task.cancel()
        while live or serving:
            for transport in list(live):
                transport.abort()
            await asyncio.sleep(0)


@asynccontextmanager
async def receiver(
    behave: Behaviour = answer_ok,
    *,
    tls: ssl.SSLContext | None = None,
    host: str = "127.0.0.1",
    greet: Behaviour | None = None,
) -> AsyncGenerator[Receiver]:
    """Run a receiver of HTTP/1.1.

    ``greet`` is called for each connection instead of reading requests from it (its request is empty).
    """

    async def converse(this: Receiver, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if greet:
            await greet(Exchange(Received(this.connections, "", "", {}, b""), 0, reader, writer))
        else:
            await _answer_requests(this, behave, reader, writer)

    async with run_server(converse, tls=tls, host=host) as this:
        yield this


async def _answer_requests(
    this: Receiver, behave: Behaviour, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    connection = this.connections
    while not writer.is_closing():
        request = await _read_request(connection, reader)
        this.requests.append(request)
        await behave(Exchange(request, len(this.requests), reader, writer))


async def _read_request(connection: int, reader: asyncio.StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip().split("\r\n")
    method, target, _version = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(connection, method, target, headers, body)
