"""A small HTTP/1.1 server for the receivers: one handler a port, late answers, and a door that can close."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from urllib.parse import parse_qsl

import httptools
from msgspec import Struct

_REASONS = {200: "OK", 204: "No Content", 401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests"}


class Call(Struct, frozen=True):
    """One request. Header names are lower-case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


class Answer(Struct, frozen=True):
    """What to send back, after ``delay`` seconds; ``sent`` is called when it goes out, and only then."""

    status: int = 204
    body: bytes = b""
    headers: dict[str, str] = {}
    delay: float = 0.0
    sent: Callable[[], None] = lambda: None


Handler = Callable[[Call], Answer]


class _Connection(asyncio.Protocol):
    """One client's connection. Requests are answered one after the other (no pipelining)."""

    def __init__(self, handler: Handler, peers: set[_Connection]) -> None:
        self._handler = handler
        self._peers = peers
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body = bytearray()
        self._keep_alive = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  # a TCP server gives nothing else
        self._transport = transport
        self._peers.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._peers.discard(self)
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.cut()

    def cut(self) -> None:
        """Close at once, with whatever is still unanswered."""
        if self._transport is not None:
            self._transport.abort()

    # What the parser calls.

    def on_message_begin(self) -> None:
        self._url, self._headers, self._body = b"", {}, bytearray()

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self._keep_alive = self._parser.should_keep_alive()
        answer = self._handler(self._call())
        if answer.delay:
            self._timer = asyncio.get_running_loop().call_later(answer.delay, self._send, answer)
        else:
            self._send(answer)

    def _call(self) -> Call:
        parsed = httptools.parse_url(self._url)
        query = dict(parse_qsl((parsed.query or b"").decode("latin-1")))
        method = self._parser.get_method().decode()
        return Call(method, (parsed.path or b"/").decode(), query, self._headers, bytes(self._body))

    def _send(self, answer: Answer) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        lines = [f"HTTP/1.1 {answer.status} {_REASONS.get(answer.status, 'Status')}"]
        lines += [f"{name}: {value}" for name, value in answer.headers.items()]
        if answer.status != 204:
            lines.append(f"content-length: {len(answer.body)}")
        head = "\r\n".join(lines).encode("latin-1")
        self._transport.write(head + b"\r\n\r\n" + answer.body)
        answer.sent()
        if not self._keep_alive:
            self._transport.close()


class Listener:
    """A port on loopback with one handler."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None
        self._placeholder: socket.socket | None = None
        self.port = 0

    async def open(self) -> None:
        """Begin to listen: on a free port the first time, on the same one after ``close_door``."""
        door = self._placeholder or _bound(0)
        self._placeholder = None
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Connection(self._handler, self._connections), sock=door, backlog=512
        )
        self.port = int(door.getsockname()[1])

    def close_door(self) -> None:
        """From now on connections are refused; open ones are cut. The port stays ours."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        self._placeholder = _bound(self.port)  # bound but not listening: nobody else gets the port
        for connection in tuple(self._connections):
            connection.cut()

    def close(self) -> None:
        self.close_door()
        if self._placeholder is not None:
            self._placeholder.close()
            self._placeholder = None


def _bound(port: int) -> socket.socket:
    door = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    door.bind(("127.0.0.1", port))
    return door
