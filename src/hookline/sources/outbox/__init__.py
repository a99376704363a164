"""The relay: takes events from the outboxes of the users' own programs (``hookline.outbox``) into the log."""

from __future__ import annotations

from hookline.sources.outbox.options import OutboxOptions
from hookline.sources.outbox.relay import OutboxMetrics, OutboxRelay
from hookline.sources.outbox.results import Outbox, OutboxDown, OutboxReport
from hookline.sources.outbox.targets import BatchPublisher, FindTenant, HttpTarget, LogTarget, Target

__all__ = [
    "OutboxOptions",
    "OutboxRelay",
    "OutboxMetrics",
    "LogTarget",
    "HttpTarget",
    "Target",
    "BatchPublisher",
    "FindTenant",
    "Outbox",
    "OutboxDown",
    "OutboxReport",
    "open_outbox",
    "inspect_outbox",
]


def open_outbox(options: OutboxOptions) -> Outbox:
    """The outbox that the options name, not connected yet. Raises ``SettingsInvalid``."""
    if options.kind == "sqlite":
        from hookline.sources.outbox.sqlite import SqliteOutbox  # noqa: PLC0415 - only what is used

        return SqliteOutbox(options)
    from hookline.sources.outbox.postgres import PostgresOutbox  # noqa: PLC0415 - asyncpg only where it is used

    return PostgresOutbox(options)


async def inspect_outbox(options: OutboxOptions) -> OutboxReport:
    """Connect for one look, for ``hookline doctor``. Raises ``OutboxDown`` and ``SettingsInvalid``."""
    outbox = open_outbox(options)
    try:
        await outbox.open()
        return await outbox.report()
    finally:
        await outbox.close()
