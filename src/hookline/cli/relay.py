"""The relay as a process of its own: beside the shop's database, say, with Hookline elsewhere."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter, validators

from hookline import logs
from hookline.cli.failures import Usage
from hookline.outbox.names import TABLE

if TYPE_CHECKING:
    from hookline.sources.outbox import OutboxRelay

GRACE = 10.0
"""Seconds that a batch under way has to be finished at the end."""


def relay(
    *,
    outbox: Annotated[str, Parameter(env_var="HOOKLINE_OUTBOX_URL")] = "",
    to: Annotated[str, Parameter(env_var="HOOKLINE_URL")] = "http://127.0.0.1:8480",
    key: Annotated[str, Parameter(env_var="HOOKLINE_KEY")] = "",
    tenant: Annotated[str, Parameter(env_var="HOOKLINE_TENANT")] = "",
    table: Annotated[str, Parameter(env_var="HOOKLINE_OUTBOX_TABLE")] = TABLE,
    schema: Annotated[str, Parameter(env_var="HOOKLINE_OUTBOX_SCHEMA")] = "",
    poll: Annotated[float, Parameter(validator=validators.Number(gte=0.01, lte=60))] = 0.5,
    batch: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=1000))] = 500,
    log_level: Literal["debug", "info", "warning", "error"] = "info",
    log_format: Literal["json", "console"] = "json",
) -> int:
    """Take events from a program's outbox to a server, until stopped (SIGTERM or Ctrl-C).

    Parameters
    ----------
    outbox
        Where the outbox is: postgresql://… or sqlite:///path. A password is safer in the environment.
    to
        The server.
    key
        A key of the tenant with the scope publish, or an operator's key.
    tenant
        The tenant of events that name none. Not needed with a tenant's key.
    table
        The outbox's table.
    schema
        Its schema. Default: as the search path has it.
    poll
        The longest time between two looks into an empty outbox, in seconds.
    batch
        Events that are taken at a time.
    """
    if not outbox or not key:
        missing = "--key or HOOKLINE_KEY" if outbox else "--outbox or HOOKLINE_OUTBOX_URL"
        raise Usage(f"give {missing}; see hookline relay --help")
    import uvloop

    from hookline.observe import Metrics
    from hookline.sources.outbox import HttpTarget, OutboxOptions, OutboxRelay, open_outbox

    options = OutboxOptions(
        url=outbox, table=table, schema=schema or None, tenant=tenant, poll=poll, batch=batch
    )
    opened, target = open_outbox(options), HttpTarget(to, key, tenant)
    logs.configure(log_level, log_format)
    uvloop.run(_until_stopped(OutboxRelay(options, opened, target, Metrics())))
    return 0


async def _until_stopped(relay: OutboxRelay) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(relay.run(), name="relay")
        running.add_done_callback(lambda _: stop.set())
        await stop.wait()
        await relay.stop(GRACE)
        running.cancel()
