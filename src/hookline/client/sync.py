"""``Hookline``: publish over HTTP, each event for itself or through a buffer."""

from __future__ import annotations

import atexit
import logging
import ssl
import threading
from collections.abc import Callable, Iterable
from functools import partial
from types import TracebackType
from typing import Any, Unpack

from hookline.client.buffer import Buffer, Buffering, OnRefused
from hookline.client.errors import Closed, PublishError, Refused
from hookline.client.events import Default, Event, EventFields, Published
from hookline.client.http import Endpoint
from hookline.client.sender import Sender

EXIT_SECONDS = 10.0
"""How long the end of the program waits for a buffer that was not closed."""

log = logging.getLogger("hookline.client")


class Hookline:
    """A publisher's client. Safe for threads, and in children after a fork. ::

        with Hookline("https://hookline.example", "hk_…") as hookline:
            hookline.publish("order:created", {"number": 4471}, id="order-4471-created")

    ``tenant`` is for operator keys only. ``patience`` is for how many seconds ``publish`` goes on trying, ``timeout``
    how long each wait for the server may be. ``default`` makes JSON of what is none (see ``json.dumps``).

    With ``buffered``, ``publish`` returns once the event is in memory, and a thread sends batches: more than ten times
    the speed, and what waits is lost if the program is killed. ``on_refused`` is called from that thread for each event
    that the server will never take; without it, ``flush`` and ``close`` raise ``SomeRefused``.
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
        self._endpoint = Endpoint(
            url, key, tenant=tenant, timeout=timeout, connections=connections, ssl_context=ssl_context
        )
        self._sender = Sender(self._endpoint)
        self._patience = patience
        self._default = default
        self._closed = threading.Event()
        self._buffer: Buffer | None = None
        if buffered:
            bounds = Buffering() if buffered is True else buffered
            self._full_timeout = bounds.full_timeout
            self._buffer = Buffer(self._sender.try_batch, bounds, on_refused)
            self._at_exit = partial(_close_at_exit, self._buffer, self._endpoint)
            atexit.register(self._at_exit)

    def event(self, type: str, data: Any, **fields: Unpack[EventFields]) -> Event:
        """An event to be published, later or with others. Raises ``ValueError`` or ``TypeError``."""
        return Event.of(type, data, fields, self._default)

    def publish(self, type: str, data: Any, **fields: Unpack[EventFields]) -> Published:
        """Return once the event is stored (buffered: once it waits in the buffer).

        Raises ``Refused``, ``Unavailable`` (buffered: ``BufferFull``), ``Closed``, and what ``event`` raises.
        """
        return self.send(self.event(type, data, **fields))

    def send(self, event: Event) -> Published:
        """Publish an event that was made before, under its id. Raises as ``publish`` does."""
        return self.send_after(event, 0.0)

    def send_after(self, event: Event, waited: float) -> Published:
        """``send`` for an event that had to wait for its turn: ``waited`` seconds of the patience are over."""
        if self._buffer is not None:
            return self.offer(event, self._full_timeout)
        if self._closed.is_set():
            raise Closed("the client was closed")
        return self._sender.send(event, self._patience, self._closed, waited)

    def offer(self, event: Event, timeout: float) -> Published:
        """Put an event into the buffer, waiting for room for ``timeout`` seconds at most. Raises ``BufferFull``."""
        if self._buffer is None:
            raise TypeError("this client has no buffer: Hookline(…, buffered=True)")
        self._buffer.put(event, timeout)
        return Published(event.id, None)

    def publish_many(self, events: Iterable[Event]) -> list[Published | Refused]:
        """Send events at once, in batches, past the buffer; the result for each, in their order.

        Raises ``Unavailable`` with the events of which nothing is known, ``Refused`` if the key or the URL is at fault.
        """
        if self._closed.is_set():
            raise Closed("the client was closed")
        return self._sender.send_all(list(events), self._patience, self._closed)

    @property
    def pending(self) -> int:
        """Events in the buffer that the server has not confirmed."""
        return 0 if self._buffer is None else len(self._buffer)

    def flush(self, timeout: float = 30.0) -> None:
        """Return once everything buffered is stored. Raises ``SomeRefused``; ``NotSent`` after ``timeout`` seconds."""
        if self._buffer is not None:
            self._buffer.flush(timeout)

    def close(self, timeout: float = 30.0) -> None:
        """Flush, then let go of threads and connections. Raises as ``flush`` does; what ``NotSent`` has is given up."""
        if self._buffer is not None:
            atexit.unregister(self._at_exit)
        try:
            if self._buffer is not None and not self._closed.is_set():
                self._buffer.close(timeout)
        finally:
            self._closed.set()
            self._endpoint.close()

    def __enter__(self) -> Hookline:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close. An error that is on its way already is not hidden by one of ours, which is logged then."""
        trouble = _trouble_of(self.close)
        if trouble is not None and error is None:
            raise trouble
        if trouble is not None:
            log.error("closing failed: %s", trouble)


def _close_at_exit(buffer: Buffer, endpoint: Endpoint) -> None:
    trouble = _trouble_of(partial(buffer.close, EXIT_SECONDS))
    endpoint.close()
    if trouble is not None:
        log.error("at the end of the program: %s", trouble)


def _trouble_of(close: Callable[[], None]) -> PublishError | None:
    try:
        close()
    except PublishError as trouble:
        return trouble
    return None
