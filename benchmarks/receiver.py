"""A lean endpoint: answers 200 at once; with a second argument it also writes how long each event took to arrive.

An event that is to be timed carries ``"sent": <nanoseconds>`` in its data; the times go to the file, one a line, in
microseconds.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from io import TextIOWrapper
from pathlib import Path
from typing import cast

import uvloop

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
_SENT = re.compile(rb'"sent": ?(\d+)')
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class Endpoint(asyncio.Protocol):
    """One connection: whole requests in, answers out."""

    def __init__(self, times: TextIOWrapper | None) -> None:
        self._times = times
        self._buffer = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(
            "asyncio.Transport", transport
        )  # uvloop's is one without being derived from it

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._buffer, 0, end)
            size = end + 4 + (int(length[1]) if length else 0)
            if len(self._buffer) < size:
                return
            self._note(self._buffer[end + 4 : size])
            self._buffer = self._buffer[size:]
            self._transport.write(_ANSWER)

    def _note(self, body: bytes) -> None:
        sent = _SENT.search(body) if self._times else None
        if sent and self._times:
            self._times.write(f"{(time.time_ns() - int(sent[1])) // 1000}\n")


async def main(port: int, path: str | None) -> None:
    """Serve until stopped."""
    times = Path(path).open("w", buffering=1) if path else None  # noqa: ASYNC230, SIM115 - for the whole run
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Endpoint(times), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None))
