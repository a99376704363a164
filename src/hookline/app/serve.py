"""Running: the roles of a process, from its start to an orderly end."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import cast

import uvloop
from msgspec import Struct

from hookline import __version__, greeting, logs
from hookline.api.app import create_app, create_watch_app
from hookline.api.corked import HTTP
from hookline.api.keyring import follow_changes
from hookline.api.listen import CannotListen, HttpServer, bind
from hookline.app.parts import (
    delivery_checks,
    make_publisher,
    make_services,
    make_worker,
    migrate_schema,
    node_name,
    open_parts,
    renew_secrets,
)
from hookline.app.sources import Source, make_sources
from hookline.core.errors import HooklineError, SettingsInvalid
from hookline.engine.catalogue import Catalogue
from hookline.engine.dispatch.worker import Worker
from hookline.engine.presence import Presence
from hookline.engine.publish import Publisher
from hookline.engine.types import EventTypeCatalogue, Shelves, follow_folder
from hookline.observe import log
from hookline.profiles.folder import CatalogueFolder
from hookline.settings import Settings, operator_key
from hookline.storage.move.postgres import shown

SWITCH_INTERVAL = 0.0005
"""Seconds after which a busy thread lets another one run (Python's default is ten times that). The thread that writes
gives the interpreter up at every statement, and would wait that long to get it back while the loop is busy."""
GC_THRESHOLD = 50_000
"""New objects between looks for garbage in cycles. Nearly all of ours is freed without, and an event makes dozens."""
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


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
            checks = dict(delivery_checks(worker))
            services = make_services(parts, types, publisher, catalogue, checks)
            sources = await make_sources(parts, publisher, services) if settings.role != "delivery" else {}
            checks |= {name: source.check for name, source in sources.items()}
            await services.tenants.adopt_operator_key(operator_key(settings, services.tenants.new_secret))
            make_app = create_watch_app if settings.role == "delivery" else create_app
            server = HttpServer(make_app(services), sockets, settings.shutdown_grace, HTTP)
            work: dict[str, Callable[[], Awaitable[None]]] = {
                "publisher": publisher.run,
                "changes": partial(follow_changes, parts.storage, services.changed),
                "http": server.run,
            }
            if settings.role != "delivery":
                work["types"] = partial(follow_folder, folder, shelves, services.changed)
            if worker is not None:
                work["worker"] = worker.run
            else:
                work["presence"] = Presence(
                    node_name(), settings.role, parts.storage, parts.clock, settings.lease_seconds
                ).run
            work |= {name: source.run for name, source in sources.items()}
            if parts.wakes.work is not None:
                work["wakes"] = parts.wakes.work
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(_lasting(one, stop), name=name) for name, one in work.items()]
                await server.started()
                ready(Started(*server.address, first=not await parts.storage.list_tenants("", 1)))
                await stop.wait()
                log.info("stopping")
                await _finish(server, publisher, worker, sources.values(), settings.shutdown_grace)
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


async def _finish(
    server: HttpServer, publisher: Publisher, worker: Worker | None, sources: Iterable[Source], grace: float
) -> None:
    """End both ways at the same time. What is accepted meanwhile is stored, and delivered after the next start."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(server.stop(), name="stop-http")
        if worker is not None:
            tasks.create_task(worker.stop(grace), name="stop-worker")
        for source in sources:
            tasks.create_task(source.stop(grace), name="stop-source")
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
    """Bring the database's schema to this version, and tell what was done; the exit code."""
    done = uvloop.run(migrate_schema(settings))
    if done is not None:
        applied, left = (", ".join(step.name for step in steps) for steps in (done.applied, done.left))
        print(f"applied: {applied or 'nothing, all is there'}", file=sys.stderr)
        if left:
            print(
                f"left: {left}, as long as nodes of another version run; run hookline migrate again when all are "
                "replaced",
                file=sys.stderr,
            )
    print(f"{shown(settings.database_url)} is as version {__version__} needs it", file=sys.stderr)
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
