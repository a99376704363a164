"""Every implementation put together, as the settings ask for: the one place that knows them all."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import msgspec
from msgspec import Struct

from hookline import __version__
from hookline.api.services import Check, Options, Services, build_services
from hookline.core.address import AddressRule
from hookline.core.definition import Rules
from hookline.core.errors import Fault, SettingsInvalid, StorageUnavailable, TokenRefused
from hookline.core.model import Auth, Millis, Retention, Secrets, Subscription, Tenant
from hookline.core.vault import AesGcmVault
from hookline.engine.catalogue import Catalogue
from hookline.engine.compose import Composer
from hookline.engine.dispatch.delivery import Chance
from hookline.engine.dispatch.shard import ShardTools
from hookline.engine.dispatch.turns import Turns
from hookline.engine.dispatch.worker import Worker, retention_days
from hookline.engine.presence import gone_after
from hookline.engine.publish import Publisher, PublishLimits
from hookline.engine.tokens import TokenCache
from hookline.engine.types import EventTypeCatalogue
from hookline.observe import Metrics, log
from hookline.ports import Bells, Sender, Storage, Vault, Wake
from hookline.profiles import PROFILES
from hookline.sender.curl import CurlSender, default_ca_file
from hookline.sender.mail import MailSender, trusted
from hookline.sender.router import RoutedSender
from hookline.settings import Settings, master_keys
from hookline.storage.move.postgres import shown
from hookline.storage.postgres import Migrated, PostgresStorage, PostgresWake, Rollout, migrate_database
from hookline.storage.postgres.connection import Link
from hookline.storage.sqlite import SqliteStorage
from hookline.storage.wake import LocalWake, SocketWake, WakeListener


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


class Wakes(Struct, frozen=True):
    """Both ends of the wake-ups. ``work`` must run all the time, if there is any; ``close`` is for the end."""

    give: Wake
    take: Bells
    work: Callable[[], Awaitable[None]] | None = None
    close: Callable[[], None] = lambda: None


class Parts(Struct, frozen=True):
    """What both roles are built from."""

    settings: Settings
    storage: Storage
    clock: SystemClock
    vault: AesGcmVault
    metrics: Metrics
    sender: Sender
    tokens: TokenCache
    wakes: Wakes


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
    """The storage that the settings name."""
    scheme, _, rest = settings.database_url.partition("://")
    if scheme != "sqlite":
        return make_postgres(settings)
    path = Path(rest.removeprefix("/")) if not rest.startswith("//") else Path(rest[1:])
    path.parent.mkdir(parents=True, exist_ok=True)
    return SqliteStorage(path)


def make_postgres(settings: Settings) -> PostgresStorage:
    """The storage of large installations."""
    return PostgresStorage(
        settings.database_url,
        shards=settings.database_shards,
        slices=settings.database_slices,
        connections=settings.database_connections,
        query_connections=settings.database_query_connections,
        replica_dsn=settings.database_replica_url or None,
        pooler=settings.database_pooler,
        queue_limit=settings.publish_queue,
    )


async def migrate_schema(settings: Settings) -> Migrated | None:
    """Bring the database's schema to this version. In PostgreSQL, the steps that nodes of another version could not
    bear are left while such nodes live; what was done and left is returned."""
    storage = make_storage(settings)
    with _named(settings):
        if isinstance(storage, PostgresStorage):
            link = Link(settings.database_direct_url or settings.database_url)
            rollout = Rollout(__version__, SystemClock().now(), gone_after(settings.lease_seconds))
            cut = settings.database_shards, settings.database_slices
            return await migrate_database(link, shards=cut[0], slices=cut[1], rollout=rollout)
        await storage.open()
        await storage.close()
    return None


@contextmanager
def _named(settings: Settings) -> Generator[None]:
    """Tell at the start which database it is that cannot be used, and where it is named."""
    try:
        yield
    except StorageUnavailable as error:
        url, why = shown(settings.database_url), error.detail.removeprefix("the storage failed: ")
        raise StorageUnavailable(f"HOOKLINE_DATABASE_URL: {url} cannot be used: {why}") from error


def make_wakes(settings: Settings, storage: Storage) -> Wakes:
    """Within this process and beyond it: by sockets in the data folder, or by the database that all nodes share."""
    delivers = settings.role != "api"
    if isinstance(storage, PostgresStorage):
        notices = PostgresWake(settings.database_direct_url or settings.database_url, listens=delivers)
        return Wakes(notices, notices, notices.run)
    bells, folder = LocalWake(), settings.data_dir / "wake"
    if delivers:
        return Wakes(bells, bells, None, WakeListener(folder, bells).close)
    knocking = SocketWake(folder)
    return Wakes(knocking, bells, None, knocking.close)


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
    with _named(settings):
        await storage.open()
    clock, metrics = SystemClock(), Metrics()
    vault = AesGcmVault(master_keys(settings), os.urandom)
    sender = make_sender(settings, own_addresses)
    wakes = make_wakes(settings, storage)
    try:
        yield Parts(settings, storage, clock, vault, metrics, sender, TokenCache(sender, clock), wakes)
    finally:
        wakes.close()
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
    return Publisher(
        parts.storage, catalogue, parts.clock, IdEntropy(), parts.wakes.give, parts.metrics, limits
    )


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
        parts.wakes.give.notify()

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
        wake=parts.wakes.give,
        checks=checks,
        options=Options(
            event_bytes=settings.max_event_bytes,
            batch_bytes=settings.max_batch_bytes,
            batch_items=settings.max_batch_items,
            metrics=settings.metrics,
            retention=_retention(settings),
            gone_after=gone_after(settings.lease_seconds),
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
        wake=parts.wakes.take,
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


def delivery_checks(worker: Worker | None) -> dict[str, Check]:
    """What ``/readyz`` says of the delivery."""
    if worker is None:
        return {}

    async def delivering() -> str:
        return f"delivers shards {worker.owned}" if worker.owned else "stands by: another worker delivers"

    return {"worker": delivering}


def _compose(vault: Vault, user_agent: str, subscription: Subscription, tenant: Tenant) -> Composer:
    plain = vault.open(subscription.sealed, subscription.id)
    return Composer(subscription, msgspec.json.decode(plain, type=Secrets), tenant, user_agent)
