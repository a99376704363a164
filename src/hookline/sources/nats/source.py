"""From the bus into the log: take a batch, store it with the others in one commit, then acknowledge.

Acknowledgements are sent without waiting for their arrival. One that gets lost makes the message come again, and then
the log answers that it has the event: waiting for each would buy nothing but latency.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Protocol

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error
from nats.js import JetStreamContext

from hookline.core.errors import (
    Fault,
    HooklineError,
    NotFound,
    Overloaded,
    SettingsInvalid,
    StorageUnavailable,
)
from hookline.core.model import Tenant
from hookline.engine.publish import Published
from hookline.observe import Counter, Gauge, log
from hookline.sources.nats.deadletters import DeadLetters
from hookline.sources.nats.intake import Intake, Interrupted
from hookline.sources.nats.link import connected, jetstream, where
from hookline.sources.nats.messages import Incoming, place_of, read
from hookline.sources.nats.options import NatsOptions
from hookline.sources.nats.report import BusReport, report
from hookline.sources.nats.streams import prepare

Result = Published | HooklineError
FindTenant = Callable[[str], Awaitable[Tenant | None]]

STORE_SECONDS = 45.0
"""How long a batch may take to be stored: longer than a commit may, shorter than ``NatsOptions.ack_wait``."""
PAUSE = 0.5
LONGEST_PAUSE = 15.0
"""Seconds between tries while the storage, or the bus, is away: doubled from the first to the second."""
BREATH = 0.02
"""Seconds between two requests if the first brought nothing: that may be at once, when other nodes take it all."""
PING_SECONDS = 10.0
"""How long the storage may take to say that it is back."""
EARLY = 0.8
"""The part of a pause after which the server may hand out again what was given back: before we ask for the next, so
that it comes first, in its order."""
BURY_AGAIN = 5.0
"""Seconds until a dead letter that could not be written is tried again."""
WATCH_SECONDS = 5.0
TELL_SECONDS = 60.0
"""The most often that dead letters get a line in the log."""


class BatchPublisher(Protocol):
    """The part of the engine's publisher that is needed here."""

    async def publish_batch(self, tenant: Tenant, items: Sequence[bytes]) -> list[Published | HooklineError]:
        """See ``Publisher.publish_batch``."""
        ...


class Pingable(Protocol):
    """The part of the storage that is needed here."""

    async def ping(self) -> None:
        """See ``Storage.ping``."""
        ...


class BusMetrics(Protocol):
    """What is counted of the bus."""

    bus_received: Counter
    bus_redelivered: Counter
    bus_dead_letters: Counter
    bus_returned: Counter
    bus_lag: Gauge
    bus_unacknowledged: Gauge
    bus_connected: Gauge


class NatsSource:
    """Feeds the log from the bus. Any number of nodes can run one: they share the consumer."""

    def __init__(
        self,
        options: NatsOptions,
        publisher: BatchPublisher,
        find_tenant: FindTenant,
        storage: Pingable,
        metrics: BusMetrics,
    ) -> None:
        self._options = options
        self._storage = storage
        self._publisher = publisher
        self._find_tenant = find_tenant
        self._metrics = metrics
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()
        self._intake: Intake | None = None
        self._nc: Client | None = None
        self._report: BusReport | None = None
        self._trouble = "not connected yet"
        self._trouble_pause = 0.0
        self._told_at = 0.0

    # --- life

    async def prepare(self) -> None:
        """Make or check streams and consumer before the start, so that wrong settings show at once.

        Raises ``SettingsInvalid`` for those. A bus that does not answer is no reason not to start.
        """
        try:
            async with connected(self._options, "hookline") as nc:
                await prepare(jetstream(nc), self._options)
        except (Error, OSError) as error:
            log.warning("bus_unreachable", error=_reason(error))

    async def run(self) -> None:
        """Feed the log until ``stop``, however often the bus goes away."""
        try:
            while not self._stopping.is_set():
                try:
                    async with connected(self._options, "hookline") as nc:
                        await self._serve(nc)
                except (Error, OSError, TimeoutError, SettingsInvalid, Interrupted) as error:
                    await self._recover(error)
                except Exception as error:  # noqa: BLE001 - whatever the library comes up with, the API goes on
                    log.error("bus_crashed", exc_info=error)
                    await self._recover(error)
        finally:
            self._metrics.bus_connected.set(0)
            self._ended.set()

    async def _recover(self, error: Exception) -> None:
        self._trouble = _reason(error)
        self._trouble_pause = min(2 * self._trouble_pause or PAUSE, LONGEST_PAUSE)
        log.warning("bus_interrupted", error=self._trouble, pause=self._trouble_pause)
        await self._pause(self._trouble_pause)

    async def stop(self, grace: float) -> None:
        """Take nothing more, store and acknowledge what was handed out, and end ``run``.

        Returns after ``grace`` seconds at the latest; what is not stored by then will be handed out again.
        """
        self._stopping.set()
        if self._intake is not None:
            self._intake.interrupt()
        try:
            async with asyncio.timeout(grace):
                await self._ended.wait()
        except TimeoutError:
            log.warning("bus_stop_cut_short", grace=grace)

    async def check(self) -> str:
        """A word for ``/readyz``. Never raises: while the bus is away, publishing by HTTP goes on."""
        if self._nc is None or not self._nc.is_connected:
            return f"not connected: {self._trouble}"
        last = self._report
        return f"connected to {where(self._nc)}" + ("" if last is None else f", {last.lag} events behind")

    @property
    def last_report(self) -> BusReport | None:
        """The newest look at the streams, a few seconds old; None before the first."""
        return self._report

    # --- one connection

    async def _serve(self, nc: Client) -> None:
        js = jetstream(nc)
        await prepare(js, self._options)
        dead = DeadLetters(js, self._options, nc.max_payload)
        self._nc, self._trouble_pause, self._trouble = nc, 0.0, "the connection is lost"
        log.info("bus_connected", server=where(nc), stream=self._options.stream)
        watching = asyncio.create_task(self._watch(nc, js), name="bus-watch")
        try:
            while not self._stopping.is_set():
                await self._feed(nc, dead)
        finally:
            self._nc = None
            watching.cancel()
            await asyncio.wait([watching])

    async def _feed(self, nc: Client, dead: DeadLetters) -> None:
        """Batch after batch. Raises ``Interrupted`` if the consumer has to be looked at again."""
        self._intake = intake = Intake(nc, self._options)
        await intake.open()
        try:
            await self._take_turns(intake, dead)
        except Exception:
            with suppress(Error, OSError):  # it may be the connection that failed
                for msg in await intake.leave():
                    await msg.nak(PAUSE)
            raise
        finally:
            self._intake = None
        rest = await intake.leave()
        if rest:
            await self._handle(rest, dead, PAUSE)

    async def _take_turns(self, intake: Intake, dead: DeadLetters) -> None:
        pause = 0.0
        while not self._stopping.is_set():
            await intake.ask()
            batch = await intake.take()
            if not batch:
                await self._pause(BREATH)
                continue
            await intake.ask()
            longer = min(2 * pause or PAUSE, LONGEST_PAUSE)
            if await self._handle(batch, dead, longer * EARLY):
                pause = 0.0
                continue
            self._metrics.bus_returned.inc(await intake.give_back(longer * EARLY))
            pause = await self._wait_for_storage(longer)

    async def _wait_for_storage(self, pause: float) -> float:
        """Fetch nothing for ``pause`` seconds, and then until the storage can be written to; how long the last pause
        was. It is asked without an event: one that failed again would end up behind all that were given back."""
        while True:
            await self._pause(pause)
            if self._stopping.is_set():
                return pause
            try:
                async with asyncio.timeout(PING_SECONDS):
                    await self._storage.ping()
            except (HooklineError, TimeoutError) as error:
                self._trouble = _reason(error)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                return pause

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    # --- one batch

    async def _handle(self, batch: Sequence[Msg], dead: DeadLetters, delay: float) -> bool:
        """Store, then answer for each message. False if something has to be tried again after ``delay``."""
        self._metrics.bus_received.inc(len(batch))
        self._metrics.bus_redelivered.inc(sum(place_of(msg).delivered > 1 for msg in batch))
        results = await self._store(batch)
        refused: list[tuple[Msg, HooklineError]] = []
        returned = 0
        for msg, result in zip(batch, results, strict=True):
            if not isinstance(result, HooklineError):
                await msg.ack()
            elif _passes(result):
                await msg.nak(delay)
                returned += 1
            else:
                refused.append((msg, result))
        buried = await asyncio.gather(*(self._bury(msg, error, dead) for msg, error in refused))
        self._metrics.bus_returned.inc(returned + buried.count(False))
        if returned:
            self._tell_returned(returned, results)
        return not returned

    async def _store(self, batch: Sequence[Msg]) -> list[Result]:
        """The result for each message. All tenants' events are offered at once, so that they share a commit."""
        results: list[Result | None] = [None] * len(batch)
        groups: dict[str, list[tuple[int, Incoming]]] = {}
        for index, msg in enumerate(batch):
            try:
                incoming = read(msg, self._options.subject)
            except HooklineError as error:
                results[index] = error
            else:
                groups.setdefault(incoming.tenant, []).append((index, incoming))

        async def store(tenant: str, group: list[tuple[int, Incoming]]) -> None:
            stored = await self._publish(tenant, [incoming.body for _, incoming in group])
            for (index, _), result in zip(group, stored, strict=True):
                results[index] = result

        async with asyncio.TaskGroup() as tasks:
            for tenant, group in groups.items():
                tasks.create_task(store(tenant, group))
        return [result for result in results if result is not None]

    async def _publish(self, tenant_id: str, bodies: list[bytes]) -> list[Result]:
        try:
            async with asyncio.timeout(STORE_SECONDS):
                tenant = await self._find_tenant(tenant_id)
                if tenant is None:
                    fault = Fault("subject", "names no tenant")
                    return [NotFound(f"there is no tenant {tenant_id!r}", [fault])] * len(bodies)
                return await self._publisher.publish_batch(tenant, bodies)
        except HooklineError as error:
            return [error] * len(bodies)
        except TimeoutError:
            return [StorageUnavailable(f"not stored within {STORE_SECONDS:g} s")] * len(bodies)
        except Exception as error:  # noqa: BLE001 - one message must not stop all others for ever
            log.error("bus_event_crashed", tenant=tenant_id, events=len(bodies), exc_info=error)
            if len(bodies) == 1:
                return [HooklineError("the event could not be handled; the server's log has the reason")]
            return [result for body in bodies for result in await self._publish(tenant_id, [body])]

    async def _bury(self, msg: Msg, error: HooklineError, dead: DeadLetters) -> bool:
        """Write the dead letter, and only then end the message. False if that has to be tried again: it holds up
        nobody else."""
        try:
            await dead.write(msg, error)
        except (Error, OSError, SettingsInvalid) as failure:
            log.warning("bus_dead_letter_failed", error=_reason(failure))
            await msg.nak(BURY_AGAIN)
            return False
        await msg.term()
        self._metrics.bus_dead_letters.inc()
        now = asyncio.get_running_loop().time()
        if now - self._told_at > TELL_SECONDS or not self._told_at:
            self._told_at = now
            log.warning("bus_dead_letter", subject=msg.subject, code=error.code, detail=error.detail)
        return True

    def _tell_returned(self, returned: int, results: Sequence[Result]) -> None:
        reasons = {
            result.detail for result in results if isinstance(result, HooklineError) and _passes(result)
        }
        log.warning("bus_events_returned", count=returned, reasons=sorted(reasons)[:3])

    # --- looking

    async def _watch(self, nc: Client, js: JetStreamContext) -> None:
        """Look every few seconds while this is our connection. The condition is needed beside the cancellation:
        ``wait_for`` inside the library may swallow that (Python 3.11)."""
        while self._nc is nc:
            self._metrics.bus_connected.set(1 if nc.is_connected else 0)
            try:
                self._report = found = await report(js, self._options, where(nc))
            except (Error, OSError) as error:
                log.debug("bus_report_failed", error=_reason(error))
            else:
                self._metrics.bus_lag.set(found.lag)
                self._metrics.bus_unacknowledged.set(found.unacknowledged)
            await asyncio.sleep(WATCH_SECONDS)


def _passes(error: HooklineError) -> bool:
    """Whether the same event may be accepted later."""
    return isinstance(error, (Overloaded, StorageUnavailable))


def _reason(error: Exception) -> str:
    if isinstance(error, SettingsInvalid):
        return "; ".join(f"{fault.field}: {fault.message}" for fault in error.faults)
    return str(error) or type(error).__name__
