"""uvicorn over connections that send an answer in one piece."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from hookline.api.bounded import BoundedProtocol


class _Corked(asyncio.Transport):
    """A transport that sends what is written in one turn of the loop at once.

    uvicorn writes the head and the body of an answer apart, and each write is a system call that may wake the peer.
    For small answers that is as dear as all the rest of accepting an event.
    """

    def __init__(self, transport: asyncio.Transport, cork: list[_Corked]) -> None:
        super().__init__()
        self._transport = transport
        self._cork = cork
        self._parts: list[bytes | bytearray | memoryview] = []
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading
        self.is_closing = transport.is_closing
        self.get_extra_info = transport.get_extra_info
        self.get_write_buffer_size = transport.get_write_buffer_size
        self.set_protocol = transport.set_protocol

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._parts:
            if not self._cork:
                asyncio.get_running_loop().call_soon(_uncork, self._cork)
            self._cork.append(self)
        self._parts.append(data)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        for data in list_of_data:
            self.write(data)

    def flush(self) -> None:
        """Send what was written."""
        if self._parts:
            parts, self._parts = self._parts, []
            if self._transport.is_closing():  # the client has gone meanwhile; writing would raise
                return
            self._transport.write(parts[0] if len(parts) == 1 else b"".join(parts))

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def abort(self) -> None:
        self._parts.clear()
        self._transport.abort()


def _uncork(cork: list[_Corked]) -> None:
    waiting = cork.copy()
    cork.clear()
    for transport in waiting:
        transport.flush()


class _Protocol(BoundedProtocol):
    """uvicorn's HTTP/1.1 over a corked transport."""

    _cork: list[_Corked] = []  # noqa: RUF012 - shared by all connections of the process on purpose

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(_Corked(transport, self._cork))


HTTP: type[asyncio.Protocol] = _Protocol
"""What ``HttpServer`` takes as its protocol."""
