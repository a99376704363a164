"""``AsyncHookline``: the same client for asyncio.

The same sender works in a few threads of its own: one implementation of connections, TLS and retries, and nothing to
install. A publisher waits for the network, not for the threads; who publishes thousands of events a second uses
``buffered``, which needs one.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar, Unpack

from hookline.client.buffer import Buffering, OnRefused
from hookline.client.errors import BufferFull, Closed, PublishError, Refused
from hookline.client.events import Default, Event, EventFields, Published
from hookline.client.forks import watch
from hookline.client.sync import Hookline, log

T = TypeVar("T")


class AsyncHookline:
    """``Hookline`` with coroutines; the parameters are the same. ::

        async with AsyncHookline("https://hookline.example", "hk_…") as hookline:
            await hookline.publish("order:created", {"number": 4471})

    When a task is cancelled while it waits, its event may be stored or not: publish it again under the same id.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        tenant: str = "",
        buffered: bool | Buffering = False,
        on_refused: OnRefused | None = None,
        patience: float = 30.0,
        timeout: float = 10.0,
        connections: int = 8,
        ssl_context: ssl.SSLContext | None = None,
        default: Default | None = None,
    ) -> None:
        self._inner = Hookline(
            url,
            key,
            tenant=tenant,
            buffered=buffered,
            on_refused=on_refused,
            patience=patience,
            timeout=timeout,
            connections=connections,
            ssl_context=ssl_context,
            default=default,
        )
        self._buffered = bool(buffered)
        self._connections = connections
        self._closed = False
        self.after_fork()
        watch(self)

    def event(self, type: str, data: Any, **fields: Unpack[EventFields]) -> Event:
        """See ``Hookline.event``."""
        return self._inner.event(type, data, **fields)

    async def publish(self, type: str, data: Any, **fields: Unpack[EventFields]) -> Published:
        """See ``Hookline.publish``."""
        return await self.send(self.event(type, data, **fields))

    async def send(self, event: Event) -> Published:
        """See ``Hookline.send``. With a buffer that has room, this does not wait at all."""
        if self._buffered:
            try:
                return self._inner.offer(event, 0)
            except BufferFull:
                pass
        given = time.monotonic()
        return await self._in_thread(lambda: self._inner.send_after(event, time.monotonic() - given))

    async def publish_many(self, events: Iterable[Event]) -> list[Published | Refused]:
        """See ``Hookline.publish_many``."""
        listed = list(events)
        return await self._in_thread(lambda: self._inner.publish_many(listed))

    @property
    def pending(self) -> int:
        """See ``Hookline.pending``."""
        return self._inner.pending

    async def flush(self, timeout: float = 30.0) -> None:
        """See ``Hookline.flush``."""
        await _aside(lambda: self._inner.flush(timeout))

    async def close(self, timeout: float = 30.0) -> None:
        """See ``Hookline.close``."""
        try:
            await _aside(lambda: self._inner.close(timeout))
        finally:
            self._closed = True
            self._threads.shutdown(wait=False)

    def after_fork(self) -> None:
        """See ``Forkable``."""
        self._threads = ThreadPoolExecutor(self._connections, thread_name_prefix="hookline-client")

    async def __aenter__(self) -> AsyncHookline:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """See ``Hookline.__exit__``."""
        trouble = await self._close_quietly()
        if trouble is not None and error is None:
            raise trouble
        if trouble is not None:
            log.error("closing failed: %s", trouble)

    async def _close_quietly(self) -> PublishError | None:
        try:
            await self.close()
        except PublishError as trouble:
            return trouble
        return None

    async def _in_thread(self, work: Callable[[], T]) -> T:
        if self._closed:
            raise Closed("the client was closed")
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


async def _aside(work: Callable[[], T]) -> T:
    """Do it in a thread of its own: the client's may all be waiting for the server."""
    thread = ThreadPoolExecutor(1, thread_name_prefix="hookline-client-end")
    try:
        return await asyncio.get_running_loop().run_in_executor(thread, work)
    finally:
        thread.shutdown(wait=False)
