"""The run of the demo, from the first process to the verdict."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
from msgspec import Struct
from rich.console import Console

from hookline.demo import shopfront, summary
from hookline.demo.cast import CAST
from hookline.demo.client import Client
from hookline.demo.ledger import Ledger
from hookline.demo.picture import Picture
from hookline.demo.processes import Server, running_receivers, running_server, tail
from hookline.demo.publisher import Publisher
from hookline.demo.receipts import Page, Ports
from hookline.demo.shop import PlannedEvent, plan_day
from hookline.demo.supply import SCENARIOS
from hookline.demo.verdict import Logged, Report, judge
from hookline.demo.view import View, make_view

POLL = 0.1
"""Seconds between two looks at the receivers' notes."""
AWAY_FROM = 0.4
"""The part of the day's events after which the receiver that goes away does so."""
SHORTEST_AWAY = 1.5
SETTLE = 15.0
"""Seconds that the server may take to write down what the receivers have accepted."""


class Options(Struct, frozen=True):
    """What the command line says.

    ``seconds`` is how long the day takes (0: as fast as the server can); ``drain`` is how long the last
    deliveries may take after it.
    """

    events: int = 3000
    seed: int = 7
    seconds: float = 25.0
    drain: float = 90.0
    port: int = 0
    keep: bool = False
    json: bool = False
    live: bool = True
    svg: Path | None = None


async def run(options: Options) -> int:
    """Run it all; returns the exit code. Raises ``ProcessFailed``, ``Refused`` or ``Unreachable``."""
    with TemporaryDirectory(prefix="hookline-demo-") as name:
        folder = Path(name)
        async with running_receivers(folder) as ports, running_server(folder, options.port) as server:
            return await server.during(_spend_day(options, server, ports))


async def _spend_day(options: Options, server: Server, ports: Ports) -> int:
    async with Client(server.port, server.operator_key) as operator:
        key = await shopfront.create_tenant(operator)
    async with Client(server.port, key) as client, Client(ports.control) as control:
        await shopfront.create_types(client)
        subscriptions, signing = await shopfront.create_subscriptions(client, ports)
        await control.call("PUT", "/secrets", signing)
        report = await _Day(options, server.port, key, ports.control).run(client, subscriptions)
    _show(report, options)
    if not report.ok:
        print(f"\nThe server's log ends with:\n{tail(server.log)}", file=sys.stderr)
    if options.keep:
        await _keep(server, key)
    return 0 if report.ok else 1


class _Day:
    """Publishing, collecting and comparing; each by its own connection."""

    def __init__(self, options: Options, port: int, key: str, control_port: int) -> None:
        self._options = options
        self._control_port = control_port
        yesterday = datetime.now(UTC).date() - timedelta(days=1)
        self._plan: list[PlannedEvent] = plan_day(options.seed, options.events, yesterday, SCENARIOS)
        self._ledger = Ledger(CAST)
        self._publisher = Publisher(port, key, self._ledger, options.seconds)
        self._leave = asyncio.Event()
        self._arrived = asyncio.Event()
        self._all_published = False
        self._phase = "publishing"

    async def run(self, client: Client, subscriptions: Mapping[str, str]) -> Report:
        """The whole day; returns the account."""
        with self._view() as view:
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(self._watch(view))
                leaving = group.create_task(self._send_away())
                await self._publisher.run(self._plan, self._progress)
                self._all_published = True
                self._phase = "delivering the rest"
                await leaving
                await self._drained()
                self._phase = "comparing with the server's log"
                logs = await self._settled_logs(client, subscriptions)
                watching.cancel()
            await self._collect_rest(view)
            report = judge(len(self._plan), CAST, self._ledger.book, self._ledger.receipts, logs)
            if isinstance(view, Picture):
                view.save(report)
        return report

    def _view(self) -> View:
        options, planned = self._options, len(self._plan)
        if options.svg is not None:
            return Picture(options.svg, self._ledger, planned)
        live = options.live and not options.json and sys.stdout.isatty()
        return make_view(live, self._ledger, planned)

    def _progress(self, handed_out: int) -> None:
        if handed_out >= AWAY_FROM * len(self._plan):
            self._leave.set()

    async def _send_away(self) -> None:
        await self._leave.wait()  # the plan is finite: publishing sets it, or fails and cancels this
        async with Client(self._control_port) as control:
            for role in CAST:
                if role.behaviour.away_share:
                    seconds = max(SHORTEST_AWAY, role.behaviour.away_share * self._options.seconds)
                    await control.call("POST", f"/away?name={role.name}&seconds={seconds:g}")

    async def _watch(self, view: View) -> None:
        """Read the receivers' notes as they come."""
        async with Client(self._control_port) as control:
            while True:
                await self._collect(control)
                view.update(self._phase)
                if self._all_published and self._ledger.complete:
                    self._arrived.set()
                await asyncio.sleep(POLL)

    async def _collect(self, control: Client) -> None:
        """All notes there are now."""
        while True:
            reply = await control.send("GET", f"/receipts?after={len(self._ledger.receipts)}")
            page = msgspec.json.decode(reply.body, type=Page)
            self._ledger.receive(page.receipts)
            if not page.receipts:
                return

    async def _collect_rest(self, view: View) -> None:
        async with Client(self._control_port) as control:
            await self._collect(control)
        view.update("done")

    async def _drained(self) -> None:
        """Until everything has arrived, or patience ends: then the account will say what is missing."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._options.drain):
                await self._arrived.wait()

    async def _settled_logs(
        self, client: Client, subscriptions: Mapping[str, str]
    ) -> dict[str, list[Logged]]:
        """The server's log of each subscription, once it has written all outcomes."""
        logs: dict[str, list[Logged]] = {}
        give_up = time.monotonic() + SETTLE
        for name, subscription_id in subscriptions.items():
            logs[name] = await shopfront.read_log(client, subscription_id)
            while not self._is_settled(name, logs[name]) and time.monotonic() < give_up:
                await asyncio.sleep(POLL)
                logs[name] = await shopfront.read_log(client, subscription_id)
        return logs

    def _is_settled(self, name: str, log: list[Logged]) -> bool:
        settled = sum(entry.state in ("succeeded", "failed", "expired") for entry in log)
        return settled == len(log) and settled >= len(self._ledger.tallies[name].delivered)


def _show(report: Report, options: Options) -> None:
    if options.json:
        print(summary.as_json(report), flush=True)
    else:
        summary.show(report, Console())


_KEEP = """
The server and the receivers stay until Ctrl-C; then their data go too.

  export HOOKLINE_URL=http://127.0.0.1:{port}
  export HOOKLINE_KEY={key}
  hookline subscriptions list
  hookline events list --limit 5
  curl -s -H "Authorization: Bearer $HOOKLINE_KEY" $HOOKLINE_URL/v1/subscriptions

operator key: {operator_key}
data folder:  {data_dir}
server log:   {log}
"""


async def _keep(server: Server, key: str) -> None:
    """Stay until Ctrl-C or SIGTERM."""
    print(
        _KEEP.format(
            port=server.port,
            key=key,
            operator_key=server.operator_key,
            data_dir=server.data_dir,
            log=server.log,
        ),
        file=sys.stderr,
        flush=True,
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
