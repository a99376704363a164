"""Wires all parts together and runs them: the one place that knows every implementation."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import socket
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import cast

import msgspec
import uvloop
from msgspec import Struct

from hookline import greeting, logs
from hookline.api.app import create_app, create_watch_app
from hookline.api.corked import HTTP
from hookline.api.keyring import follow_changes
from hookline.api.listen import CannotListen, HttpServer, bind
from hookline.api.services import Check, Options, Services, build_services
from hookline.core.address import AddressRule
from hookline.core.definition import Rules
from hookline.core.errors import Fault, HooklineError, SettingsInvalid, TokenRefused
from hookline.core.model import Auth, Millis, Retention, Secrets, Subscription, Tenant
from hookline.core.vault import AesGcmVault
from hookline.engine.catalogue import Catalogue
from hookline.engine.compose import Composer
from hookline.engine.dispatch.delivery import Chance
from hookline.engine.dispatch.shard import ShardTools
from hookline.engine.dispatch.turns import Turns
from hookline.engine.dispatch.worker import Worker, retention_days
from hookline.engine.presence import Presence
from hookline.engine.publish import Publisher, PublishLimits
from hookline.engine.tokens import TokenCache
from hookline.engine.types import EventTypeCatalogue, Shelves, follow_folder
from hookline.observe import Metrics, log
from hookline.ports import Bells, Sender, Storage, Vault, Wake
from hookline.profiles import PROFILES
from hookline.profiles.folder import CatalogueFolder
from hookline.sender.curl import CurlSender, default_ca_file
from hookline.sender.mail import MailSender, trusted
from hookline.sender.router import RoutedSender
from hookline.settings import Settings, master_keys, operator_key
from hookline.storage.sqlite import SqliteStorage
from hookline.storage.wake import LocalWake, SocketWake, WakeListener

SWITCH_INTERVAL = 0.0005
"""Seconds after which a busy thread lets another one run (Python's default is ten times that). The thread that writes
gives the interpreter up at every statement, and would wait that long to get it back while the loop is busy."""
GC_THRESHOLD = 50_000
"""New objects between looks for garbage in cycles. Nearly all of ours is freed without, and an event makes dozens."""
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


class SystemClock:
    """The machine's clocks."""

    def now(self) -> Millis:
        """See ``Clock``."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """See ``Clock``."""
        return time.monotonic()


class IdEntropy:
    """Random bytes for ids, taken from the system in one call for many. Keys and secrets take theirs directly."""

    def __init__(self) -> None:
        self._bytes = b""
        self._used = 0

    def __call__(self, count: int) -> bytes:
        """The next ``count`` bytes (up to 4,096)."""
        end = self._used + count
        if end > len(self._bytes):
            self._bytes, self._used, end = os.urandom(4096), 0, count
        taken = self._bytes[self._used : end]
        self._used = end
        return taken


class Parts(Struct, frozen=True):
    """What both roles are built from."""

    settings: Settings
    storage: Storage
    clock: SystemClock
    vault: AesGcmVault
    metrics: Metrics
    sender: Sender
    tokens: TokenCache
    wake: Wake
    bells: Bells


class _AwaitedTokens:
    """Access tokens for a caller that waits, beside the callbacks of the delivery."""

    def __init__(self, cache: TokenCache) -> None:
        self._cache = cache

    async def token(self, auth: Auth) -> str:
        """Raises ``TokenRefused`` if the token endpoint gives none."""
        answer: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()

        def done(token: str, error: str) -> None:
            if not answer.done():
                answer.set_result((token, error))

        self._cache.get(auth, done)
        token, error = await answer
        if error:
            raise TokenRefused(error)
        return token


# --- building ------------------------------------------------------------------------------------------


def make_storage(settings: Settings) -> Storage:
    """The storage that the settings name. Raises ``SettingsInvalid`` for one that is not supported."""
    scheme, _, rest = settings.database_url.partition("://")
    if scheme != "sqlite":
        raise SettingsInvalid(
            "A setting is not valid",
            [
                Fault(
                    "HOOKLINE_DATABASE_URL",
                    f"{scheme} is not supported by this version; use sqlite:///<path>",
                )
            ],
        )
    path = Path(rest.removeprefix("/")) if not rest.startswith("//") else Path(rest[1:])
    path.parent.mkdir(parents=True, exist_ok=True)
    return SqliteStorage(path)


def make_sender(settings: Settings, own_addresses: Sequence[tuple[str, int]]) -> Sender:
    """The way to endpoints and, if there is a mail server, to mailboxes."""
    mail = make_mail_sender(settings)
    http = CurlSender(
        AddressRule(settings.allow_networks, allow_http=settings.allow_http),
        ca_file=settings.ca_file,
        http2=settings.http2,
        proxy=settings.proxy,
        doh_url=settings.doh_url,
        own_addresses=own_addresses,
    )
    return RoutedSender(http, mail)


def make_mail_sender(settings: Settings) -> MailSender | None:
    """Raises ``SettingsInvalid`` if its TLS cannot be set up."""
    if settings.smtp_url is None or settings.smtp_from is None:
        return None
    try:
        context = trusted(settings.ca_file or default_ca_file())
    except OSError as error:
        fault = Fault("HOOKLINE_CA_FILE", f"the certificates cannot be read: {error}")
        raise SettingsInvalid("A setting is not valid", [fault]) from error
    return MailSender(settings.smtp_url, settings.smtp_from, context, interval=settings.mail_interval)


@asynccontextmanager
async def open_parts(settings: Settings, own_addresses: Sequence[tuple[str, int]]) -> AsyncGenerator[Parts]:
    """Open storage, sender and the rest, and close them in turn at the end. ``own_addresses`` are never called."""
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    storage = make_storage(settings)
    await storage.open()
    clock, metrics = SystemClock(), Metrics()
    vault = AesGcmVault(master_keys(settings), os.urandom)
    sender = make_sender(settings, own_addresses)
    bells, wake_path = LocalWake(), settings.data_dir / "wake"
    knocking = SocketWake(wake_path) if settings.role == "api" else None
    listener = WakeListener(wake_path, bells) if knocking is None else None
    tokens = TokenCache(sender, clock)
    try:
        yield Parts(settings, storage, clock, vault, metrics, sender, tokens, knocking or bells, bells)
    finally:
        for end in (listener, knocking):
            if end is not None:
                end.close()
        await sender.close()
        await storage.close()


async def renew_secrets(storage: Storage, vault: AesGcmVault) -> None:
    """Encrypt all secrets under the current master key.

    Raises ``SecretUnreadable`` if one cannot be read at all: better at the start than at the first delivery.
    """
    renewed = await storage.reseal(vault.reseal)
    if renewed:
        log.info("secrets_renewed", count=renewed)


def make_publisher(parts: Parts, catalogue: Catalogue) -> Publisher:
    """The way in."""
    settings = parts.settings
    limits = PublishLimits(settings.max_event_bytes, settings.publish_queue)
    return Publisher(parts.storage, catalogue, parts.clock, IdEntropy(), parts.wake, parts.metrics, limits)


def make_services(
    parts: Parts,
    types: EventTypeCatalogue,
    publisher: Publisher,
    catalogue: Catalogue,
    checks: Mapping[str, Check],
) -> Services:
    """What the API answers from."""
    settings = parts.settings

    def changed() -> None:
        catalogue.forget()
        parts.wake.notify()

    return build_services(
        storage=parts.storage,
        clock=parts.clock,
        entropy=os.urandom,
        vault=parts.vault,
        sender=parts.sender,
        tokens=_AwaitedTokens(parts.tokens),
        types=types,
        publisher=publisher,
        metrics=parts.metrics,
        rules=Rules(
            AddressRule(settings.allow_networks, allow_http=settings.allow_http),
            frozenset(PROFILES),
            mail=settings.smtp_url is not None,
        ),
        on_change=changed,
        checks=checks,
        options=Options(
            event_bytes=settings.max_event_bytes,
            batch_bytes=settings.max_batch_bytes,
            batch_items=settings.max_batch_items,
            metrics=settings.metrics,
            retention=_retention(settings),
        ),
    )


def _retention(settings: Settings) -> Retention:
    return Retention(
        settings.retention_events_days, settings.retention_attempts_days, settings.retention_bodies_days
    )


def make_worker(parts: Parts) -> Worker:
    """The way out."""
    settings = parts.settings
    retention = _retention(settings)
    turns = Turns(settings.max_in_flight, parts.clock, parts.metrics)
    tools = ShardTools(
        storage=parts.storage,
        sender=parts.sender,
        tokens=parts.tokens,
        turns=turns,
        wake=parts.bells,
        clock=parts.clock,
        chance=Chance(random.random, IdEntropy()),
        metrics=parts.metrics,
        compose=partial(_compose, parts.vault, settings.user_agent),
        retention_days=partial(retention_days, retention),
    )
    return Worker(node_name(), tools, settings.lease_seconds, retention, settings.role)


def node_name() -> str:
    """Names this process among those of the installation."""
    return f"{socket.gethostname()}:{os.getpid()}:{os.urandom(4).hex()}"


def _checks(worker: Worker | None) -> dict[str, Check]:
    """What ``/readyz`` says of the delivery."""
    if worker is None:
        return {}

    async def delivering() -> str:
        return f"delivers shards {worker.owned}" if worker.owned else "stands by: another worker delivers"

    return {"worker": delivering}


def _compose(vault: Vault, user_agent: str, subscription: Subscription, tenant: Tenant) -> Composer:
    plain = vault.open(subscription.sealed, subscription.id)
    return Composer(subscription, msgspec.json.decode(plain, type=Secrets), tenant, user_agent)


# --- running -------------------------------------------------------------------------------------------


class TaskDied(Exception):
    """A task that must run as long as the process ended before it, for the reason in ``__cause__``, or for none."""


class Started(Struct, frozen=True):
    """The server answers here. ``first``: there is no tenant yet."""

    host: str
    port: int
    first: bool


async def serve(settings: Settings, ready: Callable[[Started], None]) -> None:
    """Run the roles of ``settings`` until SIGTERM or SIGINT; then finish what was accepted and stop.

    ``ready`` is called once requests are answered. Raises ``TaskDied`` in a group.
    """
    stop = _stop_signal()
    with _bound(settings) as sockets:
        async with open_parts(settings, _own_addresses(settings, sockets)) as parts:
            folder = CatalogueFolder(settings.catalogue_dir or settings.data_dir / "catalogue")
            shelves = Shelves()
            shelves.put(await asyncio.to_thread(folder.read) or ())
            types = EventTypeCatalogue(parts.storage, shelves)
            catalogue = Catalogue(types)
            publisher = make_publisher(parts, catalogue)
            worker = make_worker(parts) if settings.role != "api" else None
            await renew_secrets(parts.storage, parts.vault)
            services = make_services(parts, types, publisher, catalogue, _checks(worker))
            await services.tenants.adopt_operator_key(operator_key(settings, services.tenants.new_secret))
            make_app = create_watch_app if settings.role == "delivery" else create_app
            server = HttpServer(make_app(services), sockets, settings.shutdown_grace, HTTP)
            work = {
                "publisher": publisher.run,
                "changes": partial(follow_changes, parts.storage, services.changed),
                "http": server.run,
            }
            if settings.role != "delivery":
                work["types"] = partial(follow_folder, folder, shelves, services.changed)
            if worker is not None:
                work["worker"] = worker.run
            else:
                work["presence"] = Presence(node_name(), settings.role, parts.storage, parts.clock).run
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(_lasting(one, stop), name=name) for name, one in work.items()]
                await server.started()
                ready(Started(*server.address, first=not await parts.storage.list_tenants("", 1)))
                await stop.wait()
                log.info("stopping")
                await _finish(server, publisher, worker, settings.shutdown_grace)
                for task in running:
                    task.cancel()


async def _lasting(work: Callable[[], Awaitable[None]], stop: asyncio.Event) -> None:
    """Do work that may end only after ``stop``, or when we are cancelled. Raises ``TaskDied`` if it ends otherwise."""
    task = cast("asyncio.Task[None]", asyncio.current_task())
    try:
        await work()
    except asyncio.CancelledError as error:
        if task.cancelling():
            raise
        raise TaskDied(task.get_name()) from error
    except Exception as error:
        raise TaskDied(task.get_name()) from error
    if not stop.is_set():
        raise TaskDied(task.get_name())


async def _finish(server: HttpServer, publisher: Publisher, worker: Worker | None, grace: float) -> None:
    """End both ways at the same time. What is accepted meanwhile is stored, and delivered after the next start."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(server.stop(), name="stop-http")
        if worker is not None:
            tasks.create_task(worker.stop(grace), name="stop-worker")
    await publisher.drain()


def _own_addresses(settings: Settings, sockets: Sequence[socket.socket]) -> list[tuple[str, int]]:
    """Where this process listens, and where the API does if that is another process."""
    bound = [one.getsockname()[:2] for one in sockets]
    return bound + [(ip, settings.port) for ip, _ in bound if settings.port]


def _stop_signal() -> asyncio.Event:
    """Set by SIGTERM and SIGINT. A second Ctrl-C ends the process at once; like kill -9, that loses nothing."""
    stop = asyncio.Event()

    def interrupted() -> None:
        if stop.is_set():
            os._exit(EXIT_INTERRUPTED)
        if sys.stderr.isatty():
            print("finishing what is under way; Ctrl-C again ends it at once", file=sys.stderr)
        stop.set()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, interrupted)
    return stop


@contextmanager
def _bound(settings: Settings) -> Generator[list[socket.socket]]:
    """The sockets to listen on. Raises ``SettingsInvalid``."""
    name, port = "PORT", settings.port
    if settings.role == "delivery":
        name, port = "METRICS_PORT", settings.metrics_port
    try:
        sockets = bind(settings.host, port)
    except CannotListen as error:
        raise SettingsInvalid(
            f"cannot listen on {error}; HOOKLINE_HOST and HOOKLINE_{name} say where to listen"
        ) from error
    try:
        yield sockets
    finally:
        for one in sockets:
            one.close()


def run_server(settings: Settings) -> int:
    """Run until stopped; the exit code."""
    logs.configure(settings.log_level, settings.log_format)
    sys.setswitchinterval(SWITCH_INTERVAL)
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 50)
    code = 0
    try:
        uvloop.run(serve(settings, partial(_greet, settings)))
    except* HooklineError as group:
        code = 1
        for error in _leaves(group):
            _complain(error)
    except* TaskDied as group:
        code = 1
        for death in _leaves(group):
            log.error("task_died", task=str(death), exc_info=death.__cause__)
    return code


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(cast("BaseExceptionGroup[BaseException]", error))
        else:
            yield error


def _complain(error: BaseException) -> None:
    print(f"hookline: {error}", file=sys.stderr)
    if isinstance(error, HooklineError):
        for fault in error.faults:
            print(f"  {fault.field}: {fault.message}", file=sys.stderr)


def run_migrate(settings: Settings) -> int:
    """Bring the database's schema to this version; the exit code."""

    async def migrate() -> None:
        storage = make_storage(settings)
        await storage.open()
        await storage.close()

    uvloop.run(migrate())
    return 0


def _greet(settings: Settings, start: Started) -> None:
    """Tell the log, and whoever is there to read: a person, or anyone at the first start."""
    log.info("started", role=settings.role, host=start.host, port=start.port)
    if settings.role == "delivery":
        return
    text = greeting.address(settings, start.host, start.port) if start.first or sys.stderr.isatty() else ""
    if start.first:
        text += greeting.first_steps(settings, start.host, start.port)
    print(text, end="\n" if text else "", file=sys.stderr, flush=True)
