"""Listening and stopping, in our own hands.

uvicorn ends the process itself if it cannot listen, and when it stops it waits for clients that will never do
anything more, up to the whole time it is given.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Generator, Sequence
from typing import cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from hookline.api.bounded import BoundedProtocol

KEEP_ALIVE = 75
"""Seconds for which an idle connection of a publisher stays open."""
BACKLOG = 2048
CLIENT_GRACE = 5.0
"""Seconds after the stop for clients that owe us the rest of a request, or do not read their answer."""
LOOK_INTERVAL = 0.05

_REASONS = {
    errno.EADDRINUSE: "another program listens there",
    errno.EADDRNOTAVAIL: "this machine does not have that address",
    errno.EACCES: "this user may not listen there (ports below 1024 are for root)",
}


class CannotListen(Exception):
    """The address is taken, or not ours. The text names it and says why."""


def bind(host: str, port: int) -> list[socket.socket]:
    """Sockets on every address of ``host``; a port of 0 takes a free one. Raises ``CannotListen``."""
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in _addresses(host, port):
            taken = sockets[0].getsockname()[1] if sockets else port
            sockets.append(_bound(family, kind, protocol, (address[0], taken, *address[2:])))
    except OSError as error:
        _close(sockets)
        raise CannotListen(f"{_shown(host, port)}: {_reason(error)}") from error
    return sockets


def _addresses(host: str, port: int) -> list[tuple[int, int, int, str, tuple[str, int]]]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys(found))  # pyright: ignore[reportReturnType] - IPv6 adds two numbers, passed through


def _bound(family: int, kind: int, protocol: int, address: tuple[str | int, ...]) -> socket.socket:
    made = socket.socket(family, kind, protocol)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.setblocking(False)
        made.bind(address)
    except OSError:
        made.close()
        raise
    return made


def _close(sockets: Sequence[socket.socket]) -> None:
    for one in sockets:
        one.close()


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _reason(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return "there is no such host name"
    return _REASONS.get(error.errno or 0, error.strerror or str(error))


class _Uvicorn(uvicorn.Server):
    """Tells when it is up; signals are the app's."""

    def __init__(self, config: uvicorn.Config, up: asyncio.Event) -> None:
        super().__init__(config)
        self._up = up

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._up.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


class HttpServer:
    """Answers on sockets from ``bind``, which it closes."""

    def __init__(
        self,
        app: ASGIApp,
        sockets: Sequence[socket.socket],
        grace: float,
        protocol: type[asyncio.Protocol] = BoundedProtocol,
    ) -> None:
        """``grace``: seconds that requests may take to finish after ``stop``."""
        self._sockets = list(sockets)
        self._grace = grace
        self._up = asyncio.Event()
        self._ended = asyncio.Event()
        config = uvicorn.Config(
            app,
            http=protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",  # what clients send wrongly they are told themselves
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE,
            backlog=BACKLOG,
            timeout_graceful_shutdown=int(grace) + 1,
        )
        self._server = _Uvicorn(config, self._up)
        logging.getLogger("uvicorn.error").addFilter(_is_ours)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the first socket."""
        host, port = self._sockets[0].getsockname()[:2]
        return host, port

    async def run(self) -> None:
        """Answer until ``stop``. Raises ``CannotListen`` if another program was faster."""
        try:
            for one in self._sockets:
                one.listen(BACKLOG)
            await self._server.serve(self._sockets)
        except OSError as error:
            raise CannotListen(f"{_shown(*self.address)}: {_reason(error)}") from error
        finally:
            _close(self._sockets)
            self._ended.set()
            self._up.set()

    async def started(self) -> None:
        """Return once requests are answered, or ``run`` has ended."""
        await self._up.wait()

    async def stop(self) -> None:
        """Take no more connections, finish the requests that have arrived, and return when ``run`` is at its end.

        Connections without a request are closed at once. Those whose client keeps us waiting are broken off after
        ``CLIENT_GRACE``, all others when the grace is over.
        """
        self._server.should_exit = True
        for listener in self._server.servers:
            listener.close()
        loop = asyncio.get_running_loop()
        began = loop.time()
        while not self._ended.is_set():
            self._end_connections(loop.time() - began)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_INTERVAL):
                    await self._ended.wait()

    def _end_connections(self, waited: float) -> None:
        """Again and again: uvicorn asks only those it knows when it begins, and a connection that was accepted at
        that moment would stay open for as long as its client likes."""
        for connection in list(self._server.server_state.connections):
            if not isinstance(connection, HttpToolsProtocol):
                continue
            connection.shutdown()
            if waited > self._grace or (waited > CLIENT_GRACE and _is_waiting(connection)):
                connection.transport.abort()


def _is_ours(record: logging.LogRecord) -> bool:
    """False for what uvicorn reports as an error of the application although it is a client that has gone, or a
    request that was ended with the process: writing to a closed connection, and being cancelled."""
    error = record.exc_info[1] if record.exc_info else None
    closed = isinstance(error, RuntimeError) and "handler is closed" in str(error)
    return not (closed or isinstance(error, asyncio.CancelledError))


def _is_waiting(connection: HttpToolsProtocol) -> bool:
    """Whether it is the client's turn: its request has not arrived whole, or it does not read."""
    cycle = cast("RequestResponseCycle | None", connection.cycle)  # None before the first request
    half_sent = cycle is not None and cycle.more_body and not cycle.response_complete
    return half_sent or connection.transport.get_write_buffer_size() > 0
