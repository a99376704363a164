"""A small HTTP/1.1 client that shows everything: one keep-alive connection, raw bytes if wanted."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PATIENCE = 90.0
_HEAD = 64 * 1024


@dataclass(frozen=True)
class Answer:
    """An answer. Header names are lower-case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The stable code of a problem."""
        return self.json["code"]


class Connection:
    """One connection to a server on loopback. Broken ones raise ``ConnectionError``."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int) -> Connection:
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=16 << 20))

    async def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        lines = [f"{method} {path} HTTP/1.1", "Host: hookline.test"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        await self.write("\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b""))
        return await self.answer()

    async def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(data)
        await self._writer.drain()

    def finish(self) -> None:
        """Close our half: nothing more will be sent, but an answer is still awaited."""
        self._writer.write_eof()

    async def answer(self) -> Answer:
        """The next answer. Raises ``ConnectionError`` if the connection ends instead."""
        try:
            async with asyncio.timeout(PATIENCE):
                head = await self._reader.readuntil(b"\r\n\r\n")
                first, *lines = head.decode("latin-1").rstrip().split("\r\n")
                pairs = (line.partition(":") for line in lines)
                headers = {name.lower(): value.strip() for name, _, value in pairs}
                body = await self._reader.readexactly(int(headers.get("content-length", "0")))
        except asyncio.IncompleteReadError as error:
            raise ConnectionResetError("the server closed the connection") from error
        return Answer(int(first.split(" ")[1]), headers, body)

    async def end(self) -> bytes:
        """Everything up to the end of the connection."""
        async with asyncio.timeout(PATIENCE):
            return await self._reader.read()

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
