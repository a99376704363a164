"""The ways in beside HTTP, as the settings ask for: a bus, an outbox."""

from __future__ import annotations

from typing import Protocol

from hookline.api.services import Services
from hookline.app.parts import Parts
from hookline.engine.publish import Publisher
from hookline.settings import Settings
from hookline.sources.nats import NatsOptions, NatsSource
from hookline.sources.outbox import LogTarget, OutboxOptions, OutboxRelay, open_outbox


class Source(Protocol):
    """Feeds the log while the process runs."""

    async def run(self) -> None:
        """Until ``stop``, however often the other side goes away."""
        ...

    async def stop(self, grace: float) -> None:
        """Finish what was taken, within ``grace`` seconds."""
        ...

    async def check(self) -> str:
        """A word for ``/readyz``."""
        ...


def bus_options(settings: Settings) -> NatsOptions | None:
    """Where the bus is, if there is one."""
    if not settings.bus:
        return None
    return NatsOptions(
        url=settings.bus,
        stream=settings.bus_stream,
        durable=settings.bus_durable,
        dead_stream=settings.bus_dead_stream,
        replicas=settings.bus_replicas,
        max_bytes=settings.bus_max_bytes,
        dead_max_bytes=settings.bus_dead_max_bytes,
        dead_max_age=settings.bus_dead_max_age,
        ack_wait=settings.bus_ack_wait,
        credentials=settings.bus_credentials,
        ca_file=settings.bus_ca_file,
        cert_file=settings.bus_cert_file,
        key_file=settings.bus_key_file,
    )


def outbox_options(settings: Settings) -> OutboxOptions | None:
    """Where the outbox is, if there is one."""
    if not settings.outbox_url:
        return None
    return OutboxOptions(
        url=settings.outbox_url,
        table=settings.outbox_table,
        schema=settings.outbox_schema or None,
        tenant=settings.outbox_tenant,
    )


async def make_sources(parts: Parts, publisher: Publisher, services: Services) -> dict[str, Source]:
    """By name. Raises ``SettingsInvalid`` for settings that do not fit what is there; what is away is waited for."""
    found: dict[str, Source] = {}
    find_tenant = services.keyring.tenant
    bus, outbox = bus_options(parts.settings), outbox_options(parts.settings)
    if bus is not None:
        source = NatsSource(bus, publisher, find_tenant, parts.storage, parts.metrics)
        await source.prepare()
        found["bus"] = source
    if outbox is not None:
        target = LogTarget(publisher, find_tenant, outbox.tenant)
        found["outbox"] = OutboxRelay(outbox, open_outbox(outbox), target, parts.metrics)
    return found
