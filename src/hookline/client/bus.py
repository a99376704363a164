"""``NatsHookline``: publish over NATS JetStream. Needs ``nats-py`` (the extra ``nats``).

Stored means stored here, too: the answer comes from the stream, and Hookline takes the event from there whenever it is
up. What Hookline cannot accept (a violated schema, for example) is not answered but becomes a dead letter
(docs/how-to/use-a-bus.md).
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Coroutine, Iterable, Sequence
from types import TracebackType
from typing import Any, TypedDict, TypeVar, Unpack

try:
    from nats.aio.client import Client
    from nats.errors import Error, MaxPayloadError
    from nats.js import JetStreamContext
    from nats.js.errors import APIError
except ImportError as error:  # pragma: no cover - the tests have it
    raise ImportError(
        "publishing over NATS needs nats-py: pip install nats-py, or hookline with its extra nats"
    ) from error

from hookline.client.answers import pause_before
from hookline.client.errors import Closed, PublishError, Refused, Unavailable
from hookline.client.events import Default, Event, EventFields, Published, header_value
from hookline.client.servers import split_login
from hookline.client.subjects import PREFIX, message_id_of, subject_of

T = TypeVar("T")
RETRY_CONNECT = 1.0
"""Seconds after which a failed connection is tried again."""
FULL = (
    10047,  # no storage left
    10077,  # the stream has its most bytes
    10122,  # the stream has its most messages
)
"""Codes of the server that mean "not now" (nats-server, errors.json)."""

log = logging.getLogger("hookline.client")


class NatsOptions(TypedDict, total=False):
    """Further options of the connection: those of ``nats.connect``."""

    name: str
    tls: Any
    user: str
    password: str
    token: str
    user_credentials: str
    nkeys_seed: str
    inbox_prefix: str
    connect_timeout: int
    ping_interval: int


class NatsHookline:
    """A publisher's client over NATS, for asyncio. ::

        async with NatsHookline("nats://nats.example", "shop") as hookline:
            await hookline.publish("order:created", {"number": 4471}, id="order-4471-created")

    ``url`` may name several servers, parted by commas. ``timeout`` is how long one answer of the stream may take,
    ``patience`` for how long publishing goes on trying; up to ``in_flight`` events wait for their answers at a time.
    """

    def __init__(
        self,
        url: str,
        tenant: str,
        *,
        prefix: str = PREFIX,
        patience: float = 30.0,
        timeout: float = 5.0,
        in_flight: int = 256,
        default: Default | None = None,
        **connection: Unpack[NatsOptions],
    ) -> None:
        self._servers, login = split_login(url)
        self._tenant = header_value(tenant)
        if "." in tenant:
            raise ValueError(f"tenant {tenant!r}: a tenant's id has no full stop")
        self._prefix = prefix
        self._patience = patience
        self._timeout = timeout
        self._default = default
        self._connection: NatsOptions = {**login, **connection}
        self._nc = Client()
        self._connecting = asyncio.Lock()
        self._in_flight = in_flight
        self._room = asyncio.Semaphore(in_flight)
        self._failure: tuple[Exception | None, float] = (None, 0.0)
        self._said = ""
        self._closed = False

    def event(self, type: str, data: Any, **fields: Unpack[EventFields]) -> Event:
        """See ``Hookline.event``."""
        return Event.of(type, data, fields, self._default)

    async def publish(self, type: str, data: Any, **fields: Unpack[EventFields]) -> Published:
        """Return once the stream has the event. Raises ``Unavailable``, ``Refused``, ``Closed``, and what ``event``
        raises."""
        return await self.send(self.event(type, data, **fields))

    async def send(self, event: Event) -> Published:
        """Publish an event that was made before, under its id. Raises as ``publish`` does."""
        deadline, tries = time.monotonic() + self._patience, 0
        async with self._room:
            while True:
                if time.monotonic() > deadline and self._patience > 0:
                    raise Unavailable(f"too much was under way for {self._patience:g} s", [event])
                try:
                    return await self._try(event)
                except (Error, OSError, TimeoutError) as error:
                    _raise_if_final(error, event)
                    tries += 1
                    pause = pause_before(tries)
                    if time.monotonic() + pause > deadline:
                        reason = self._said or str(error) or type(error).__name__
                        raise Unavailable(f"{reason}; tried {tries} times", [event]) from error
                    await asyncio.sleep(pause)

    async def publish_many(self, events: Iterable[Event]) -> list[Published | Refused]:
        """Publish events at the same time; the result for each, in their order.

        The stream may get them in another order. Raises ``Unavailable`` with the events of which nothing is known.
        """
        listed = list(events)
        results: list[Published | PublishError | None] = [None] * len(listed)
        waiting = iter(enumerate(listed))

        async def work() -> None:
            """One after the other, until one is not answered: then those that nobody began wait in vain."""
            for index, event in waiting:
                try:
                    results[index] = await self.send(event)
                except PublishError as error:
                    results[index] = error
                    if not isinstance(error, Refused):
                        return

        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(self._in_flight, len(listed))):
                tasks.create_task(work())
        return _sorted_out(listed, results)

    async def close(self) -> None:
        """Let go of the connection."""
        self._closed = True
        async with self._connecting:
            if self._nc.is_connected or self._nc.is_reconnecting:
                await self._nc.close()

    async def __aenter__(self) -> NatsHookline:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _try(self, event: Event) -> Published:
        js = await self._stream()
        self._said = ""
        answer = await js.publish(
            subject_of(self._tenant, event.type, self._prefix),
            event.body,
            timeout=self._timeout,
            headers={"Nats-Msg-Id": message_id_of(self._tenant, event.id)},
        )
        return Published(event.id, duplicate=bool(answer.duplicate))

    async def _stream(self) -> JetStreamContext:
        """The streams of a connection that is opened once, and by the library whenever it breaks."""
        async with self._connecting:
            if self._closed:
                raise Closed("the client was closed")
            if self._nc.is_closed or not (self._nc.is_connected or self._nc.is_reconnecting):
                await self._connect_if_due()
        return JetStreamContext(self._nc, timeout=self._timeout)

    async def _connect_if_due(self) -> None:
        """All who wait for the connection share a failure: one try for each of them would take for ever."""
        failure, since = self._failure
        if failure is not None and time.monotonic() - since < RETRY_CONNECT:
            raise failure
        try:
            await self._connect()
        except (Error, OSError, TimeoutError) as error:
            self._failure = (error, time.monotonic())
            raise

    async def _connect(self) -> None:
        """Raises ``TimeoutError``, or the library's reason, if no server answers."""
        self._nc = nc = Client()
        connecting = asyncio.create_task(
            nc.connect(
                self._servers,
                error_cb=self._hear,
                max_reconnect_attempts=-1,
                reconnect_time_wait=1,
                **self._connection,
            )
        )
        await asyncio.wait([connecting], timeout=self._timeout)
        if connecting.done():
            return connecting.result()
        while not connecting.done():  # wait_for inside the library may swallow a cancellation (Python 3.11)
            connecting.cancel()
            await asyncio.wait([connecting], timeout=1)
        reason = nc.last_error
        await nc.close()
        raise reason or TimeoutError(f"no NATS server answers within {self._timeout:g} s")

    async def _hear(self, error: Exception) -> None:
        """What a server refuses (to publish on this subject, say) it does not answer: it says so beside."""
        self._said = str(error)
        log.debug("NATS: %s", error)


class SyncNatsHookline:
    """``NatsHookline`` for programs without asyncio: the same on a loop in a thread. Safe for threads, not for forks:
    make it in the child."""

    def __init__(
        self,
        url: str,
        tenant: str,
        *,
        prefix: str = PREFIX,
        patience: float = 30.0,
        timeout: float = 5.0,
        in_flight: int = 256,
        default: Default | None = None,
        **connection: Unpack[NatsOptions],
    ) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="hookline-nats", daemon=True)
        self._thread.start()
        self._patience = patience + 4 * timeout
        self._in_flight = in_flight
        self._closed = False

        async def make() -> NatsHookline:
            return NatsHookline(
                url, tenant, prefix=prefix, patience=patience, timeout=timeout, in_flight=in_flight,
                default=default, **connection,
            )  # fmt: skip

        try:
            self._inner = self._run(make())
        except BaseException:
            self._end()
            raise

    def event(self, type: str, data: Any, **fields: Unpack[EventFields]) -> Event:
        """See ``Hookline.event``."""
        return self._inner.event(type, data, **fields)

    def publish(self, type: str, data: Any, **fields: Unpack[EventFields]) -> Published:
        """See ``NatsHookline.publish``."""
        return self._run(self._inner.publish(type, data, **fields))

    def send(self, event: Event) -> Published:
        """See ``NatsHookline.send``."""
        return self._run(self._inner.send(event))

    def publish_many(self, events: Iterable[Event]) -> list[Published | Refused]:
        """See ``NatsHookline.publish_many``."""
        listed = list(events)
        return self._run(self._inner.publish_many(listed), 1 + len(listed) // self._in_flight)

    def close(self) -> None:
        """Let go of connection and thread."""
        if not self._closed:
            try:
                self._run(self._inner.close())
            finally:
                self._closed = True
                self._end()

    def __enter__(self) -> SyncNatsHookline:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self, work: Coroutine[Any, Any, T], rounds: int = 1) -> T:
        """Wait for the work. Its own patience ends it; ours is for a loop that is gone: in the child after a fork."""
        if self._closed:
            work.close()
            raise Closed("the client was closed")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        patience = self._patience * rounds
        try:
            return future.result(patience)
        except TimeoutError:
            future.cancel()
            raise Unavailable(f"no end within {patience:g} s") from None

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


def _raise_if_final(error: Exception, event: Event) -> None:
    """Raises ``Refused`` for what the stream will not take at another time either."""
    if isinstance(error, MaxPayloadError):
        raise Refused(413, "too_large", "the event is larger than a message may be", (), event) from error
    if isinstance(error, APIError) and error.code in range(400, 500) and error.err_code not in FULL:
        raise Refused(error.code or 400, "refused_by_stream", str(error.description), (), event) from error


def _sorted_out(
    events: Sequence[Event], results: Sequence[Published | PublishError | None]
) -> list[Published | Refused]:
    sorted_out: list[Published | Refused] = []
    unknown: list[Event] = []
    reason = ""
    for event, result in zip(events, results, strict=True):
        if isinstance(result, (Published, Refused)):
            sorted_out.append(result)
        elif result is None or isinstance(result, Unavailable):
            unknown.append(event)
            reason = reason if result is None else str(result)
        else:
            raise result
    if unknown:
        raise Unavailable(reason, unknown)
    return sorted_out
