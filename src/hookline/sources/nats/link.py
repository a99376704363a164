"""The connection to the servers: kept up for as long as the source lives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error, NoServersError, SlowConsumerError
from nats.js import JetStreamContext

from hookline.client.servers import split_login
from hookline.observe import log
from hookline.sources.nats.options import NatsOptions

CONNECT_SECONDS = 5.0
CLOSE_SECONDS = 5.0
API_SECONDS = 3.0
"""How long an answer of the servers' management may take."""
PING_SECONDS = 10
"""A server that does not answer two of them is left for another one: half a minute, not the library's four."""
PENDING_BYTES = 16 << 20
"""What may wait to be sent while there is no connection: acknowledgements, in the main."""


class _Client(Client):
    """The library's client, for messages that anybody may have published.

    A server takes any bytes as a subject and as headers. The library breaks the connection over what it cannot read,
    and then over the same message again, for ever: one publisher could stop the bus for all.
    """

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Msg:
        """Bytes that are not UTF-8 are written with a backslash. No tenant and no type has one, so the message
        ends as a dead letter."""
        readable = subject.decode(errors="backslashreplace").encode()
        return super()._build_message(sid, readable, reply, data, headers)

    async def _process_headers(self, headers: bytes) -> dict[str, str] | None:
        try:
            return await super()._process_headers(headers)  # pyright: ignore[reportUnknownMemberType] - untyped there
        except (ValueError, IndexError):  # they do not even begin as headers do
            return None


@asynccontextmanager
async def connected(options: NatsOptions, name: str) -> AsyncGenerator[Client]:
    """A client that connects again whenever the connection breaks, for ever.

    Raises ``nats.errors.Error`` with the reason if the first connection is not there within ``CONNECT_SECONDS``.
    """
    nc = _Client()
    try:
        await _connect(nc, options, name)
        yield nc
    finally:
        with suppress(Error, OSError, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await nc.close()


async def _connect(nc: Client, options: NatsOptions, name: str) -> None:
    last: list[Exception] = []

    async def failed(error: Exception) -> None:
        last[:] = [error]
        if isinstance(error, SlowConsumerError):
            log.warning("bus_messages_dropped", error=str(error))
        else:
            log.debug("bus_error", error=str(error) or repr(error))

    async def lost() -> None:
        if not nc.is_closed:  # by ourselves
            log.warning("bus_disconnected")

    async def back() -> None:
        log.info("bus_reconnected", server=where(nc))

    servers, login = split_login(options.url)
    connecting = asyncio.create_task(
        nc.connect(
            servers,
            **login,
            name=name,
            error_cb=failed,
            disconnected_cb=lost,
            reconnected_cb=back,
            connect_timeout=2,
            reconnect_time_wait=1,
            max_reconnect_attempts=-1,
            ping_interval=PING_SECONDS,
            pending_size=PENDING_BYTES,
            flush_timeout=CLOSE_SECONDS,
            tls=options.tls(),
            user_credentials=None if options.credentials is None else str(options.credentials),
        )
    )
    if not await _finished(connecting, CONNECT_SECONDS):
        raise last[0] if last and isinstance(last[0], Error) else NoServersError from (
            last[0] if last else None
        )


async def _finished(task: asyncio.Task[None], seconds: float) -> bool:
    """Wait for a task, then end it whatever it takes: ``wait_for`` inside the library may swallow a cancellation
    (Python 3.11). Raises what the task raised."""
    try:
        await asyncio.wait([task], timeout=seconds)
        if task.done():
            await task
            return True
        return False
    finally:
        while not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=1)


def jetstream(nc: Client) -> JetStreamContext:
    """The streams behind a connection."""
    return JetStreamContext(nc, timeout=API_SECONDS)


def where(nc: Client) -> str:
    """The server we are connected to, without its password."""
    url = nc.connected_url
    return "" if url is None else f"{url.hostname}:{url.port}"
