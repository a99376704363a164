"""Wires all parts together and runs them: the one place that knows every implementation."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import random
import signal
import socket
import sys
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec
import uvicorn
import uvloop
from msgspec import Struct

from hookline import logs
from hookline.api.app import create_app, create_watch_app
from hookline.api.keyring import follow_changes
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
from hookline.engine.publish import Publisher, PublishLimits
from hookline.engine.tokens import TokenCache
from hookline.observe import Metrics, log
from hookline.ports import Storage, Vault
from hookline.profiles import PROFILES
from hookline.sender.curl import CurlSender
from hookline.settings import Settings, master_keys, operator_key
from hookline.storage.sqlite import SqliteStorage
from hookline.storage.wake import LocalWake, SocketWake, WakeListener

SWITCH_INTERVAL = 0.0005
"""Seconds after which a busy thread lets another one run (Python's default is ten times that). The thread that writes
gives the interpreter up at every statement, and would wait that long to get it back while the loop is busy."""
KEEP_ALIVE = 75
"""Seconds for which an idle connection of a publisher stays open."""
BACKLOG = 2048
POLL_INTERVAL = 0.05


class SystemClock:
    """The machine's clocks."""

    def now(self) -> Millis:
        """See ``Clock``."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """See ``Clock``."""
        return time.monotonic()


class Parts(Struct, frozen=True):
    """What both roles are built from."""

    settings: Settings
    storage: Storage
    clock: SystemClock
    vault: AesGcmVault
    metrics: Metrics
    sender: CurlSender
    tokens: TokenCache
    wake: LocalWake | SocketWake


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


@asynccontextmanager
async def open_parts(settings: Settings) -> AsyncGenerator[Parts]:
    """Open storage, sender and the rest, and close them in turn at the end."""
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    storage = make_storage(settings)
    await storage.open()
    clock, metrics = SystemClock(), Metrics()
    vault = AesGcmVault(master_keys(settings), os.urandom)
    sender = CurlSender(
        AddressRule(settings.allow_networks, allow_http=settings.allow_http),
        ca_file=settings.ca_file,
        http2=settings.http2,
        proxy=settings.proxy,
        doh_url=settings.doh_url,
        own_addresses=[(settings.host, settings.port)] if settings.port else [],
    )
    local = settings.role != "api"
    wake_path = settings.data_dir / "wake"
    wake = LocalWake() if local else SocketWake(wake_path)
    listener = WakeListener(wake_path, wake) if isinstance(wake, LocalWake) else None
    try:
        yield Parts(settings, storage, clock, vault, metrics, sender, TokenCache(sender, clock), wake)
    finally:
        if listener is not None:
            listener.close()
        if isinstance(wake, SocketWake):
            wake.close()
        await sender.close()
        await storage.close()


def make_publisher(parts: Parts, catalogue: Catalogue) -> Publisher:
    """The way in."""
    settings = parts.settings
    limits = PublishLimits(settings.max_event_bytes, settings.publish_queue)
    return Publisher(parts.storage, catalogue, parts.clock, os.urandom, parts.wake, parts.metrics, limits)


def make_services(
    parts: Parts, publisher: Publisher, catalogue: Catalogue, checks: Mapping[str, Check]
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
        publisher=publisher,
        metrics=parts.metrics,
        rules=Rules(
            AddressRule(settings.allow_networks, allow_http=settings.allow_http), frozenset(PROFILES)
        ),
        on_change=changed,
        checks=checks,
        options=Options(
            event_bytes=settings.max_event_bytes,
            batch_bytes=settings.max_batch_bytes,
            batch_items=settings.max_batch_items,
        ),
    )


def make_worker(parts: Parts) -> Worker:
    """The way out."""
    settings = parts.settings
    retention = Retention(
        settings.retention_events_days, settings.retention_attempts_days, settings.retention_bodies_days
    )
    turns = Turns(settings.max_in_flight, parts.clock, parts.metrics)
    tools = ShardTools(
        storage=parts.storage,
        sender=parts.sender,
        tokens=parts.tokens,
        turns=turns,
        wake=parts.wake,
        clock=parts.clock,
        chance=Chance(random.random, os.urandom),
        metrics=parts.metrics,
        compose=partial(_compose, parts.vault, settings.user_agent),
        retention_days=partial(retention_days, retention),
    )
    owner = f"{socket.gethostname()}:{os.getpid()}:{os.urandom(4).hex()}"
    return Worker(owner, tools, settings.lease_seconds, retention)


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


class _Server(uvicorn.Server):
    """uvicorn inside our own loop: signals are ours."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


def _http_server(app: object, host: str, port: int, grace: float) -> _Server:
    config = uvicorn.Config(
        app,  # pyright: ignore[reportArgumentType] - an ASGI callable
        host=host,
        port=port,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE,
        backlog=BACKLOG,
        timeout_graceful_shutdown=max(1, int(grace)),
    )
    return _Server(config)


async def serve(settings: Settings, ready: Callable[[str, int], None] | None = None) -> None:
    """Run the roles of ``settings`` until SIGTERM or SIGINT; then finish what was accepted and stop.

    ``ready`` is called with the address once requests are answered.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with open_parts(settings) as parts:
        catalogue = Catalogue(parts.storage)
        publisher = make_publisher(parts, catalogue)
        worker = make_worker(parts) if settings.role != "api" else None
        services = make_services(parts, publisher, catalogue, _checks(worker))
        await services.tenants.adopt_operator_key(operator_key(settings, services.tenants.new_secret))
        if settings.role == "delivery":
            server = _http_server(create_watch_app(services), settings.host, settings.metrics_port, 1)
        else:
            server = _http_server(create_app(services), settings.host, settings.port, settings.shutdown_grace)
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(publisher.run(), name="publisher"),
                tasks.create_task(follow_changes(parts.storage, services.changed), name="changes"),
            ]
            if worker is not None:
                background.append(tasks.create_task(worker.run(), name="worker"))
            listening = tasks.create_task(server.serve(), name="http")
            await _until_started(server, listening)
            if ready is not None:
                ready(*_address(server))
            listening.add_done_callback(lambda _: stop.set())
            await stop.wait()
            log.info("stopping")
            server.should_exit = True
            await listening
            await publisher.drain()
            if worker is not None:
                await worker.stop(settings.shutdown_grace)
            for task in background:
                task.cancel()


async def _until_started(server: _Server, listening: asyncio.Task[None]) -> None:
    while not server.started and not listening.done():
        await asyncio.wait([listening], timeout=POLL_INTERVAL)
    if listening.done():
        raise SettingsInvalid(
            "The server could not listen",
            [Fault("HOOKLINE_PORT", "the address is in use or not of this machine")],
        )


def _address(server: _Server) -> tuple[str, int]:
    host, port = server.servers[0].sockets[0].getsockname()[:2]
    return host, port


def run_server(settings: Settings) -> int:
    """Run until stopped; the exit code."""
    logs.configure(settings.log_level, settings.log_format)
    sys.setswitchinterval(SWITCH_INTERVAL)
    failures: list[BaseException] = []
    try:
        uvloop.run(serve(settings, partial(_greet, settings)))
    except* HooklineError as group:
        failures = list(group.exceptions)
    for failure in failures:
        _complain(failure)
    return 1 if failures else 0


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


def _greet(settings: Settings, host: str, port: int) -> None:
    """What a new user reads at the first start."""
    log.info("started", role=settings.role, host=host, port=port)
    if settings.role == "delivery":
        return
    shown = "127.0.0.1" if ipaddress.ip_address(host).is_unspecified else host
    base = f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
    key_file = settings.data_dir / "operator.key"
    place = "HOOKLINE_OPERATOR_KEY" if settings.operator_key else str(key_file)
    print(
        f"""
Hookline answers at {base}
  API description  {base}/openapi.json
  Console          {base}/console (comes with a later version)
  Operator key     {place}
  Data             {settings.data_dir}

Three commands to a first delivery (in another terminal, in this folder):
  hookline tenants create shop --name "My shop"
  hookline subscriptions create --tenant shop --event 'order:*' https://your-endpoint.example/hooks
  hookline publish --tenant shop order:created '{{"order": "4471"}}'
""",
        file=sys.stderr,
        flush=True,
    )
