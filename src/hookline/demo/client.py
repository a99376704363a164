"""A small HTTP/1.1 client: one keep-alive connection, one request at a time. The demo speaks to the server
only through it, as any user's program would."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any

import httptools
import msgspec
from msgspec import Struct

from hookline.demo.catalogue import Json


class Unreachable(Exception):
    """No connection, or it broke before the answer was complete. Whether the request counted is unknown."""


class Refused(Exception):
    """The server answered, but not with success."""

    def __init__(self, request: str, reply: Reply) -> None:
        super().__init__(f"{request}: {reply.status} {reply.body[:500].decode('utf-8', 'replace')}")
        self.status = reply.status


class Reply(Struct, frozen=True):
    """An HTTP answer."""

    status: int
    body: bytes

    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class _Answer:
    """What httptools calls while it reads an answer."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.complete = False

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete = True


class Client:
    """Requests to one address. ``timeout`` (seconds) bounds each request as a whole."""

    def __init__(self, port: int, key: str = "", timeout: float = 15.0) -> None:
        self._port = port
        self._key = key
        self._timeout = timeout
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._drop()

    async def call(self, method: str, path: str, body: Json | list[Any] | None = None) -> Any:
        """The JSON of a successful answer. Raises ``Refused`` for any other, and ``Unreachable``."""
        reply = await self.send(method, path, b"" if body is None else msgspec.json.encode(body))
        if reply.status >= 300:
            raise Refused(f"{method} {path}", reply)
        return reply.json() if reply.body else None

    async def send(self, method: str, path: str, body: bytes = b"") -> Reply:
        """Whatever the server answers. Raises ``Unreachable``."""
        try:
            async with asyncio.timeout(self._timeout):
                return await self._exchange(method, path, body)
        except (OSError, EOFError, TimeoutError, httptools.HttpParserError) as error:
            self._drop()
            raise Unreachable(f"{method} {path}: {str(error) or type(error).__name__}") from error
        except asyncio.CancelledError:
            self._drop()
            raise

    async def _exchange(self, method: str, path: str, body: bytes) -> Reply:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(self._head(method, path, len(body)) + body)
        answer = _Answer()
        parser = httptools.HttpResponseParser(answer)
        while not answer.complete:
            data = await reader.read(65536)
            if not data:
                raise EOFError("the connection was closed")
            parser.feed_data(data)
        if not parser.should_keep_alive():
            self._drop()
        return Reply(parser.get_status_code(), bytes(answer.body))

    def _head(self, method: str, path: str, length: int) -> bytes:
        lines = [
            f"{method} {path} HTTP/1.1",
            f"host: 127.0.0.1:{self._port}",
            "content-type: application/json",
            f"content-length: {length}",
        ]
        if self._key:
            lines.append(f"authorization: Bearer {self._key}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def _drop(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None
