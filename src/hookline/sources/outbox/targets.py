"""Where the relay publishes: into the log of this process, or to a server by HTTP."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Protocol, TypeVar

import msgspec
import urllib3
from msgspec import Raw, Struct

from hookline import __version__
from hookline.core.errors import (
    Fault,
    Forbidden,
    HooklineError,
    Overloaded,
    SettingsInvalid,
    StorageUnavailable,
    TooLarge,
    Unauthorized,
)
from hookline.core.model import Tenant
from hookline.engine.manage.tenants import TENANT_ID
from hookline.engine.publish import Published
from hookline.observe import log
from hookline.sources.outbox.results import STORED, Held, Later, Rejected, Result, Row, reason_of

T = TypeVar("T")
FindTenant = Callable[[str], Awaitable[Tenant | None]]

STORE_SECONDS = 45.0
"""How long a batch may take to be stored: longer than a commit may."""
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0
NO_TENANT = "the event names no tenant, and the relay has none for such events"
TOO_LARGE = "something between the relay and the server does not let a request of this size pass"
CRASHED = "the event could not be handled; the server's log has the reason"


class Target(Protocol):
    """Takes events into a log."""

    async def publish(self, rows: Sequence[Row]) -> list[Result]:
        """The result for each row, in their order. Rows of one tenant are stored in their order. Raises nothing."""
        ...

    async def close(self) -> None:
        """Give up what it holds."""
        ...


class BatchPublisher(Protocol):
    """The part of the engine's publisher that is needed here."""

    async def publish_batch(self, tenant: Tenant, items: Sequence[bytes]) -> list[Published | HooklineError]:
        """See ``Publisher.publish_batch``."""
        ...


def _by_tenant(rows: Sequence[Row]) -> dict[str, list[int]]:
    """The places of each tenant's rows."""
    groups: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        groups.setdefault(row.tenant, []).append(place)
    return groups


# --- this process


class LogTarget:
    """The publisher of this process. ``tenant`` is for rows that name none."""

    def __init__(self, publisher: BatchPublisher, find_tenant: FindTenant, tenant: str) -> None:
        self._publisher = publisher
        self._find_tenant = find_tenant
        self._tenant = tenant

    async def publish(self, rows: Sequence[Row]) -> list[Result]:
        """See ``Target``. All tenants' events are offered at once, so that they share a commit."""
        results: list[Result] = [Later("not answered")] * len(rows)

        async def store(tenant: str, places: list[int]) -> None:
            stored = await self._store(tenant or self._tenant, [rows[place].event for place in places])
            for place, result in zip(places, stored, strict=True):
                results[place] = result

        async with asyncio.TaskGroup() as tasks:
            for tenant, places in _by_tenant(rows).items():
                tasks.create_task(store(tenant, places))
        return results

    async def close(self) -> None:
        """See ``Target``: the publisher is not ours."""

    async def _store(self, tenant_id: str, events: list[bytes]) -> list[Result]:
        if not tenant_id:
            return [Held(NO_TENANT)] * len(events)
        try:
            async with asyncio.timeout(STORE_SECONDS):
                tenant = await self._find_tenant(tenant_id)
                if tenant is None:
                    return [_unknown(tenant_id)] * len(events)
                return [_result(one) for one in await self._publisher.publish_batch(tenant, events)]
        except HooklineError as error:
            return [_result(error)] * len(events)
        except TimeoutError:
            return [Later(f"not stored within {STORE_SECONDS:g} s")] * len(events)
        except Exception as error:  # noqa: BLE001 - one event must not stop all others for ever
            log.error("outbox_event_crashed", tenant=tenant_id, events=len(events), exc_info=error)
        if len(events) == 1:
            return [Rejected(HooklineError.code, CRASHED)]
        return [result for event in events for result in await self._store(tenant_id, [event])]


def _unknown(tenant: str) -> Rejected:
    return Rejected("not_found", f"there is no tenant {tenant[:80]!r}")


def _result(given: Published | HooklineError) -> Result:
    if isinstance(given, Published):
        return STORED
    if isinstance(given, Overloaded | StorageUnavailable):
        return Later(given.detail)
    if isinstance(given, Unauthorized | Forbidden):
        return Held(given.detail)
    return Rejected(given.code, reason_of(given))


# --- another process


class _Fault(Struct):
    field: str = ""
    message: str = ""


class _Problem(Struct):
    code: str = ""
    detail: str = ""
    faults: list[_Fault] = []

    @property
    def reason(self) -> str:
        faults = (f"{fault.field}: {fault.message}" for fault in self.faults)
        return "\n".join([self.detail, *(fault for fault in faults if fault != self.detail)])


class _Item(Struct):
    status: int
    error: _Problem | None = None


class _Answer(Struct):
    data: list[_Item]


_answers = msgspec.json.Decoder(_Answer)
_problems = msgspec.json.Decoder(_Problem)
_objects = msgspec.json.Decoder(dict[str, Raw])


class HttpTarget:
    """``POST /v1/events/batch`` of the server at ``url``, one request for each tenant in a batch.

    ``key`` is a tenant's, with the scope ``publish``, or an operator's. ``tenant`` is for rows that name none; with
    a tenant's key it can be left out. Raises ``SettingsInvalid`` for what can never work.
    """

    def __init__(self, url: str, key: str, tenant: str = "") -> None:
        _require(url.startswith(("http://", "https://")), "to", "must begin with http:// or https://")
        _require(key.isascii() and key.isprintable() and bool(key), "key", "is no API key")
        _require(not tenant or bool(TENANT_ID.fullmatch(tenant)), "tenant", "is not the id of a tenant")
        self._url = url.rstrip("/") + "/v1/events/batch"
        self._tenant = tenant
        self._headers = {
            "authorization": f"Bearer {key}",
            "content-type": "application/json",
            "user-agent": f"hookline-relay/{__version__}",
        }
        timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=ANSWER_SECONDS)
        self._pool = urllib3.PoolManager(retries=False, timeout=timeout)

    async def publish(self, rows: Sequence[Row]) -> list[Result]:
        """See ``Target``."""
        results: list[Result] = [Later("not answered")] * len(rows)
        for tenant, places in _by_tenant(rows).items():
            events = [rows[place].event for place in places]
            if tenant and not TENANT_ID.fullmatch(tenant):  # not even fit to be asked for
                stored: list[Result] = [_unknown(tenant)] * len(events)
            else:
                stored = await self._publish(tenant, events)
            for place, result in zip(places, stored, strict=True):
                results[place] = result
        return results

    async def close(self) -> None:
        """See ``Target``."""
        self._pool.clear()

    async def _publish(self, tenant: str, events: list[bytes]) -> list[Result]:
        """What is no JSON object would break the array that it stands in, so it is kept out."""
        faults = [_json_fault(event) for event in events]
        good = [event for event, fault in zip(events, faults, strict=True) if fault is None]
        results = iter(await self._send(tenant or self._tenant, good) if good else [])
        return [next(results) if fault is None else fault for fault in faults]

    async def _send(self, tenant: str, events: list[bytes]) -> list[Result]:
        try:
            status, body = await _aside(partial(self._exchange, tenant, b"[%b]" % b",".join(events)))
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            return [Later(f"no answer: {error}")] * len(events)
        if status == 200:
            return _item_results(body, len(events))
        problem = _problem(body)
        common = _common(status, problem, tenant)
        if common is not None:
            return [common] * len(events)
        if len(events) == 1:
            return [Rejected(problem.code or TooLarge.code, problem.reason or TOO_LARGE)]
        half = len(events) // 2
        return [*await self._send(tenant, events[:half]), *await self._send(tenant, events[half:])]

    def _exchange(self, tenant: str, body: bytes) -> tuple[int, bytes]:
        headers: dict[str, str] = self._headers | ({"hookline-tenant": tenant} if tenant else {})
        answer = self._pool.request("POST", self._url, body=body, headers=headers, redirect=False)
        return answer.status, answer.data


async def _aside(work: Callable[[], T]) -> T:
    """Do it in a thread that nothing waits for when the program ends: a server may be silent for longer than a relay
    has to stop."""
    outcome: Future[T] = Future()
    threading.Thread(target=_work, args=(work, outcome), name="hookline-relay-http", daemon=True).start()
    return await asyncio.wrap_future(outcome)


def _work(work: Callable[[], T], outcome: Future[T]) -> None:
    if not outcome.set_running_or_notify_cancel():
        return
    try:
        outcome.set_result(work())
    except Exception as error:  # noqa: BLE001 - whatever it is, it is raised where the result is awaited
        outcome.set_exception(error)


def _require(fine: bool, field: str, message: str) -> None:
    if not fine:
        raise SettingsInvalid("the relay cannot publish", [Fault(field, message)])


def _json_fault(event: bytes) -> Rejected | None:
    try:
        event.decode()
        _objects.decode(event)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Rejected("invalid_json", str(error))
    return None


def _item_results(body: bytes, expected: int) -> list[Result]:
    try:
        items = _answers.decode(body).data
    except (msgspec.MsgspecError, RecursionError):
        items = []
    if len(items) != expected:
        return [Later("the answer is not Hookline's; is the URL right?")] * expected
    return [_item_result(item) for item in items]


def _item_result(item: _Item) -> Result:
    if item.status < 300:
        return STORED
    problem = item.error or _Problem()
    if item.status == 503:
        return Later(problem.detail)
    return Rejected(problem.code, problem.reason)


def _problem(body: bytes) -> _Problem:
    try:
        return _problems.decode(body)
    except (msgspec.MsgspecError, RecursionError):
        return _Problem()


_UNFIT = (400, 422, 500)
"""Answers to a whole batch that one of its events can be the reason of. A 500 without a code is a proxy's. So may a 413
be: then its limit is below that of the server, and below what we send at a time."""


def _common(status: int, problem: _Problem, tenant: str) -> Result | None:
    """What an answer to a whole batch says of all its events; None if some of them may fare better alone."""
    if any(fault.field == "Hookline-Tenant" for fault in problem.faults):
        return _unknown(tenant) if tenant else Held(NO_TENANT)
    if status == 403:
        return Held(problem.detail or "the key may not publish")
    if status == TooLarge.status or (status in _UNFIT and problem.code):
        return None
    return Later(f"answer {status}: {problem.detail or 'not as Hookline answers; is the URL right?'}")
