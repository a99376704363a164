"""uvicorn's HTTP/1.1, with bounds on a request's head and on the time to read an answer: uvicorn itself takes a head
however large and slow it is, and keeps an answer that nobody reads."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES = 64 * 1024
"""A head that arrives in many pieces is refused beyond this; one that arrives at once may be one read larger."""
HEAD_SECONDS = 30.0
"""A head that is not complete after this (at most twice this) ends its connection, also one that never began."""
READ_BYTES = 64 * 1024
"""An answer of which less than this was read in ``HEAD_SECONDS`` (at most twice this) ends its connection."""

_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class BoundedProtocol(HttpToolsProtocol):
    """One connection. Between two requests, the keep-alive time is uvicorn's."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._in_head = True
        self._head_bytes = 0
        self._heads = 0
        self._unread = (0, 0)
        self._watch = self.loop.call_later(HEAD_SECONDS, self._look, -1)

    def connection_lost(self, exc: Exception | None) -> None:
        self._watch.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
            if self._heads == 0 or self.cycle.response_complete:
                self.transport.write(_TOO_LARGE)
            self.transport.close()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._heads += 1
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_head = True
        self._head_bytes = 0
        super().on_message_complete()

    def _look(self, seen: int) -> None:
        """``seen``: how many heads were complete at the last look, if one was under way then."""
        if self._is_unread():
            self.transport.abort()
            return
        is_open = self._in_head and (self._head_bytes > 0 or self._heads == 0)
        if is_open and self._heads in (seen, 0):
            self.transport.close()
        else:
            self._watch = self.loop.call_later(HEAD_SECONDS, self._look, self._heads if is_open else -1)

    def _is_unread(self) -> bool:
        """Whether too little of the same answer was read since the last look."""
        heads, before = self._unread
        unsent = self.transport.get_write_buffer_size()
        self._unread = (self._heads, unsent)
        return heads == self._heads and before > 0 and unsent > max(0, before - READ_BYTES)
