"""Publish: from the publisher's bytes to a place in the log.

Publishers that arrive together share one transaction (group commit): while one batch is being synced to disk,
the next one gathers. An answer is given only after the commit.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from decimal import Decimal
from typing import cast

import msgspec
from msgspec import Raw, Struct

from hookline.core.errors import (
    CommitUnknown,
    Fault,
    HooklineError,
    IdConflict,
    InvalidInput,
    InvalidJson,
    Overloaded,
    SchemaViolation,
    StorageUnavailable,
    TooLarge,
)
from hookline.core.ids import EVENT_ID, time_ordered
from hookline.core.matching import name_fault
from hookline.core.model import OPERATIONAL_PREFIX, Appended, Event, NewEvent, SchemaMode, Tenant
from hookline.core.reading import refuse
from hookline.core.sharding import shard_of
from hookline.core.times import parse_rfc3339
from hookline.engine.catalogue import Catalogue, TypeEntry
from hookline.observe import Metrics
from hookline.ports import Clock, EventLog, Wake

GATHER = 0.002
"""Seconds to let events gather before a commit, when several came at once before: a transaction costs as much as
ten to twenty of its events. A publisher on its own never waits."""
CROWD = 4
"""Events in a commit that count as several at once."""
COMMIT_SECONDS = 30.0
"""How long a publisher waits for a commit before it is told that nobody knows."""
_UNKNOWN = f"no commit within {COMMIT_SECONDS:g} s; the event may be stored: send it again under the same id"
AT_ONCE = 32 * 1024
"""Bytes of a batch that are checked before others have their turn: checking takes its time where there are schemas."""
TURNS = 4
"""Of the loop, which a small request takes from its connection to its answer."""
FIELD_LIMIT = 256
"""Letters in an object type or id, source, key or correlation id."""


class ObjectRef(Struct, frozen=True, forbid_unknown_fields=True):
    """The business object an event is about: ``{"type": "order", "id": "4471"}``."""

    type: str
    id: str


class Source(Struct, frozen=True, forbid_unknown_fields=True):
    """Which application and which of its users made the change."""

    application: str | None = None
    user_id: str | None = None


class EventInput(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """The body of ``POST /v1/events``."""

    type: str
    data: Raw
    id: str | None = None
    occurred_at: str | None = None
    object: ObjectRef | None = None
    source: Source | None = None
    key: str | None = None
    correlation_id: str | None = None


class Published(Struct, frozen=True, gc=False):
    """The answer to one event. ``duplicate``: the same event was stored before, under the same id."""

    id: str
    duplicate: bool = False


class PublishLimits(Struct, frozen=True):
    """Bounds of what is accepted: bytes of one event, events waiting for a commit, events in one commit."""

    event_bytes: int = 1 << 20
    waiting: int = 10_000
    batch: int = 500


Waiting = tuple[NewEvent, asyncio.Future[Appended]]


_decoder = msgspec.json.Decoder(EventInput)
_HALF = "a text holds half of a surrogate pair (\\ud800 to \\udfff): write both halves, or the letter itself"
_DEEP = "the JSON is nested too deeply; flatten it"


class Publisher:
    """Checks events and appends them in shared transactions. ``run`` must be running for ``publish`` to return."""

    def __init__(
        self,
        log: EventLog,
        catalogue: Catalogue,
        clock: Clock,
        entropy: Callable[[int], bytes],
        wake: Wake,
        metrics: Metrics,
        limits: PublishLimits = PublishLimits(),
    ) -> None:
        self._log = log
        self._catalogue = catalogue
        self._clock = clock
        self._entropy = entropy
        self._wake = wake
        self._metrics = metrics
        self._limits = limits
        self._waiting: deque[Waiting] = deque()
        self._arrived = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    async def publish(self, tenant: Tenant, body: bytes) -> Published:
        """Store one event given as JSON; returns once it is on disk.

        Raises ``InvalidJson``, ``InvalidInput``, ``SchemaViolation``, ``TooLarge``, ``IdConflict``, ``Overloaded``,
        ``StorageUnavailable``; in each case nothing was stored.
        """
        event = await self.check(tenant, body)
        return self._answer(event, await self._enqueue(event))

    async def publish_batch(self, tenant: Tenant, items: Sequence[bytes]) -> list[Published | HooklineError]:
        """Store each item on its own merits; the results come in the order of the items."""
        checked = [item async for item in self._check_all(tenant, items)]
        futures = [item if isinstance(item, HooklineError) else self._try_enqueue(item) for item in checked]
        return [await self._settle(item, future) for item, future in zip(checked, futures, strict=True)]

    async def check(self, tenant: Tenant, body: bytes) -> NewEvent:
        """The event that ``body`` describes. Raises as ``publish`` does."""
        if len(body) > self._limits.event_bytes:
            raise TooLarge(f"the event has {len(body)} bytes; the limit is {self._limits.event_bytes}")
        given = _decode(body)
        data = bytes(given.data)
        _check_fields(given)
        if tenant.schema_mode is not SchemaMode.OFF:
            entry = self._catalogue.peek(tenant.no, given.type)
            if entry is None:
                entry = await self._catalogue.find(tenant.no, given.type)
            self._check_schema(tenant, entry, given.type, data)
        reference, source = given.object, given.source
        return NewEvent(
            tenant.no,
            given.id or time_ordered("evt", self._clock.now(), self._entropy(10)),
            given.type,
            data,
            None if given.occurred_at is None else parse_rfc3339(given.occurred_at),
            None if reference is None else reference.type,
            None if reference is None else reference.id,
            None if source is None else source.application,
            None if source is None else source.user_id,
            given.key,
            given.correlation_id,
        )

    async def run(self) -> None:
        """Commit what is waiting, batch by batch, until cancelled; then nothing that waited is stored."""
        try:
            while True:
                await self._arrived.wait()
                self._arrived.clear()
                crowd = False
                while self._waiting:
                    if crowd and len(self._waiting) < self._limits.batch:
                        await asyncio.sleep(GATHER)
                    batch = self._take()
                    await self._commit(batch)
                    crowd = len(batch) > CROWD
                self._idle.set()
        finally:
            self._refuse(self._take_all(), StorageUnavailable("the server is shutting down"))

    async def drain(self) -> None:
        """Return once nothing waits for a commit."""
        await self._idle.wait()

    # --- checks

    async def _check_all(
        self, tenant: Tenant, items: Sequence[bytes]
    ) -> AsyncIterator[NewEvent | HooklineError]:
        size = 0
        for item in items:
            yield await self._check_item(tenant, item)
            size += len(item)
            if size > AT_ONCE:
                size = 0
                for _ in range(TURNS):
                    await asyncio.sleep(0)

    async def _check_item(self, tenant: Tenant, item: bytes) -> NewEvent | HooklineError:
        try:
            return await self.check(tenant, item)
        except HooklineError as error:
            return error

    def _check_schema(self, tenant: Tenant, entry: TypeEntry, name: str, data: bytes) -> None:
        if not entry.known and tenant.schema_mode is SchemaMode.LOG:
            return
        faults = entry.faults(name, data)
        if not faults:
            return
        self._metrics.schema_violations.inc()
        if tenant.schema_mode is SchemaMode.STRICT:
            raise SchemaViolation(f"the payload of {name!r} does not fit", faults)

    # --- commit

    def _enqueue(self, event: NewEvent) -> asyncio.Future[Appended]:
        if len(self._waiting) >= self._limits.waiting:
            self._metrics.refused.inc()
            raise Overloaded(f"{len(self._waiting)} events wait to be stored; nothing of this one was stored")
        future: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        self._waiting.append((event, future))
        self._arrived.set()
        self._idle.clear()
        return future

    def _try_enqueue(self, event: NewEvent) -> asyncio.Future[Appended] | HooklineError:
        try:
            return self._enqueue(event)
        except Overloaded as error:
            return error

    async def _settle(
        self, event: NewEvent | HooklineError, future: asyncio.Future[Appended] | HooklineError
    ) -> Published | HooklineError:
        if isinstance(event, HooklineError):
            return event
        if isinstance(future, HooklineError):
            return future
        try:
            return self._answer(event, await future)
        except HooklineError as error:
            return error

    def _take(self) -> list[Waiting]:
        waiting = self._waiting
        return [waiting.popleft() for _ in range(min(len(waiting), self._limits.batch))]

    def _take_all(self) -> list[Waiting]:
        taken = list(self._waiting)
        self._waiting.clear()
        return taken

    async def _commit(self, batch: list[Waiting]) -> None:
        try:
            async with asyncio.timeout(COMMIT_SECONDS):
                results = await self._log.append([event for event, _ in batch], self._clock.now())
        except HooklineError as error:
            self._refuse(batch, error)
            self._refuse_waiting()
            return
        except TimeoutError:
            self._refuse(batch, CommitUnknown(_UNKNOWN))
            self._refuse_waiting()
            return
        except BaseException:
            self._refuse(batch, StorageUnavailable("the commit was interrupted; send the event again"))
            raise
        self._wake.notify({shard_of(event.tenant_no, self._log.shards) for event, _ in batch})
        self._metrics.appended.inc(len(batch))
        for (_, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)

    def _refuse_waiting(self) -> None:
        """What came behind a commit that failed must not be stored before it: its publishers repeat both in order."""
        self._refuse(self._take_all(), StorageUnavailable("a commit before this one failed; send it again"))

    def _refuse(self, batch: list[Waiting], error: HooklineError) -> None:
        for _, future in batch:
            if not future.done():
                future.set_exception(error)

    def _answer(self, event: NewEvent, result: Appended) -> Published:
        if result.existing is None:
            return Published(event.id)
        if not same_content(event, result.existing):
            raise IdConflict(
                f"event {event.id!r} exists with other content; send changed facts under a new id",
                [Fault("id", "is taken by an event with other content")],
            )
        self._metrics.duplicates.inc()
        return Published(event.id, duplicate=True)


def same_content(new: NewEvent, stored: Event) -> bool:
    """Whether a publisher sent the same event again. The JSON counts by value, not by its spelling; an
    ``occurred_at`` that was not given agrees with any."""
    return (
        (new.occurred_at is None or new.occurred_at == stored.occurred_at)
        and all(getattr(new, name) == getattr(stored, name) for name in _COMPARED)
        and (new.data == stored.data or _same_json(new.data, stored.data))
    )


def _same_json(one: bytes, other: bytes) -> bool:
    try:
        return _same_value(_exact.decode(one), _exact.decode(other))
    except RecursionError:  # nested too deeply to be compared: only the same bytes are the same then
        return False


def _same_value(one: object, other: object) -> bool:
    """Equality of JSON, where True is no 1 as it is in Python."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        fields, others = cast("dict[str, object]", one), cast("dict[str, object]", other)
        return fields.keys() == others.keys() and all(
            _same_value(value, others[name]) for name, value in fields.items()
        )
    if isinstance(one, list) and isinstance(other, list):
        items, rest = cast("list[object]", one), cast("list[object]", other)
        return len(items) == len(rest) and all(map(_same_value, items, rest))
    return one == other


_exact = msgspec.json.Decoder(float_hook=Decimal)
"""Keeps the digits that a float would drop: they may be all that differs."""


_COMPARED = (
    "type", "object_type", "object_id", "source_application", "source_user", "key", "correlation_id",
)  # fmt: skip


def _decode(body: bytes) -> EventInput:
    try:
        given = _decoder.decode(body)
        body.decode()
    except msgspec.ValidationError as error:
        fault = _fault(str(error))
        raise InvalidInput(f"{fault.field}: {fault.message}", [fault]) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidJson(_broken(body, str(error))) from error
    except RecursionError as error:
        raise InvalidJson(_DEEP) from error
    return given


def _broken(body: bytes, message: str) -> str:
    """msgspec takes half of a surrogate pair for the end of the text."""
    return _HALF if "truncated" in message and body.rstrip().endswith(b"}") else message


def _fault(message: str) -> Fault:
    """msgspec ends its message with the place: ``Expected `str`, got `int` - at `$.type```."""
    text, _, place = message.rpartition(" - at `$")
    return Fault(place.strip(".`") or "body", text) if text else Fault("body", message)


def _check_fields(given: EventInput) -> None:
    refuse(_field_faults(given))


def _field_faults(given: EventInput) -> list[Fault]:
    faults: list[Fault] = []
    wrong = name_fault(given.type)
    if wrong is not None:
        faults.append(Fault("type", wrong))
    if given.type.startswith(OPERATIONAL_PREFIX):
        faults.append(Fault("type", f"names that begin with {OPERATIONAL_PREFIX!r} are Hookline's own"))
    if given.id is not None and not EVENT_ID.fullmatch(given.id):
        faults.append(Fault("id", "takes 1 to 128 letters out of A-Z a-z 0-9 _ : -"))
    if given.occurred_at is not None:
        faults += _time_faults(given.occurred_at)
    for name, value in _texts(given):
        if not (0 < len(value) <= FIELD_LIMIT and value.isprintable()):
            faults.append(Fault(name, f"takes 1 to {FIELD_LIMIT} printable letters"))
    return faults


def _time_faults(text: str) -> list[Fault]:
    try:
        parse_rfc3339(text)
    except (ValueError, OverflowError) as error:
        return [Fault("occurred_at", f"is not an RFC 3339 time such as 2026-03-01T09:30:00Z: {error}")]
    return []


def _texts(given: EventInput) -> Iterator[tuple[str, str]]:
    """The free texts that were given, by their place."""
    if given.key is not None:
        yield "key", given.key
    if given.correlation_id is not None:
        yield "correlation_id", given.correlation_id
    if given.object is not None:
        yield "object.type", given.object.type
        yield "object.id", given.object.id
    if given.source is not None:
        if given.source.application is not None:
            yield "source.application", given.source.application
        if given.source.user_id is not None:
            yield "source.user_id", given.source.user_id
