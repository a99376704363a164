"""Is everything in order? The settings of this machine, then the server."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, cast

import msgspec
from msgspec import Struct

from hookline.cli import EXIT_FAILED, output
from hookline.cli.failures import Unreachable
from hookline.cli.target import Target
from hookline.core.errors import SettingsInvalid
from hookline.settings import Settings, load

LATE = 300.0
"""Seconds after which a delivery that is due and not sent is a fault: longer than any breaker of the defaults waits."""
NOT_FOR_THE_KEY = (401, 403)
"""Answers to a key that is refused, which was told before, or is no operator's."""
OLDEST_SQLITE = (3, 37)
"""STRICT tables, and RETURNING before it, came by this version (sqlite.org/releaselog)."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    check: str
    ok: bool
    detail: str


def doctor(*, to: Target = Target()) -> int:
    """Check the settings of this machine and the health of a running server.

    Ends with exit code 1 if something is not in order.
    """
    findings = list(_findings(to))
    for finding in findings:
        _tell(finding, as_json=to.json)
    return 0 if all(finding.ok for finding in findings) else EXIT_FAILED


def openapi(*, to: Target = Target()) -> None:
    """Print the server's OpenAPI description (JSON)."""
    output.put_json(to.api.get("/openapi.json"), indent=2)


def _findings(to: Target) -> Iterator[Finding]:
    settings, findings = _settings()
    yield from findings
    if settings:
        yield _data_folder(settings)
        if settings.database_url.startswith("sqlite:"):
            yield _sqlite()
        yield from _sources(settings)
    if settings or (to.url and to.key):
        yield from _server(to)


def _settings() -> tuple[Settings | None, list[Finding]]:
    try:
        settings = load()
    except SettingsInvalid as error:
        return None, [Finding("settings", False, f"{fault.field}: {fault.message}") for fault in error.faults]
    return settings, [Finding("settings", True, "valid")]


def _data_folder(settings: Settings) -> Finding:
    folder = settings.data_dir.absolute()
    place = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(place, os.W_OK | os.X_OK):
        return Finding("data folder", False, f"{place} cannot be written to")
    return Finding("data folder", True, f"{folder} {'is writable' if place == folder else 'will be made'}")


def _sqlite() -> Finding:
    fits = sqlite3.sqlite_version_info >= OLDEST_SQLITE
    needed = "" if fits else f"; {'.'.join(map(str, OLDEST_SQLITE))} or newer is needed"
    return Finding("sqlite", fits, f"version {sqlite3.sqlite_version}{needed}")


def _sources(settings: Settings) -> Iterator[Finding]:
    """The bus and the outbox that the settings here name, each with what waits in it."""
    from hookline.app.sources import bus_options, outbox_options

    bus, outbox = bus_options(settings), outbox_options(settings)
    if bus is not None:
        from hookline.sources.nats import inspect_bus

        yield _look("bus", inspect_bus(bus))
    if outbox is not None:
        from hookline.sources.outbox import inspect_outbox

        yield _look("outbox", inspect_outbox(outbox))


def _look(name: str, looking: Coroutine[Any, Any, Struct]) -> Finding:
    try:
        report = asyncio.run(looking)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what the doctor was asked for
        return Finding(name, False, str(error) or type(error).__name__)
    told = msgspec.to_builtins(report)
    return Finding(name, True, ", ".join(f"{field.replace('_', ' ')} {told[field]}" for field in told))


def _server(to: Target) -> Iterator[Finding]:
    checks: dict[str, Callable[[], tuple[bool, str]]] = {
        "server": lambda: _probe(to, "/healthz"),
        "server ready": lambda: _probe(to, "/readyz"),
        "key": lambda: _key(to),
    }
    for name, check in checks.items():
        try:
            yield Finding(name, *check())
        except Unreachable as error:
            yield Finding(name, False, str(error))
            return
    yield from _nodes(to)


def _nodes(to: Target) -> Iterator[Finding]:
    """Who does the work and how far it is, as far as the key may know: an operator's may."""
    status, answer = to.api.exchange("GET", "/v1/nodes")
    if status in NOT_FOR_THE_KEY:
        return
    if status != 200:
        yield Finding("delivery", False, f"{to.api.url}/v1/nodes answers {status}: {_short(answer)}")
        return
    found = json.loads(answer)
    for node in found["nodes"]:
        text = f"{node['role']}, version {node['version']}, delivers {node['slices']}, seen {node['seen_at']}"
        yield Finding(f"node {node['id']}", True, text)
    slices = found["slices"]
    orphans = [f"{each['shard']}/{each['slice']}" for each in slices if each["owner"] is None]
    late = max((each["overdue"] for each in slices), default=0.0)
    text = (
        f"{len(slices)} slices of {len({each['shard'] for each in slices})} shards, "
        f"lag {sum(each['lag'] for each in slices)} events, {sum(each['waiting'] for each in slices)} waiting, "
        f"the oldest due for {late:.1f} s"
    )
    if orphans:
        text += f"; nobody delivers {', '.join(orphans[:10])}{' …' if len(orphans) > 10 else ''}"
    yield Finding("delivery", not orphans and late < LATE, text)


def _probe(to: Target, where: str) -> tuple[bool, str]:
    status, answer = to.api.exchange("GET", where)
    return status == 200, f"{to.api.url}{where} answers {status}: {_short(answer)}"


def _key(to: Target) -> tuple[bool, str]:
    status, answer = to.api.exchange("GET", "/v1/whoami")
    if status != 200:
        return False, f"{status}: {_short(answer)}"
    whoami = json.loads(answer)
    tenant = output.cell(whoami, "tenant.id")
    scopes, of = output.cell(whoami, "key.scopes"), f" of tenant {tenant}" if tenant else ""
    return True, f"accepted: {scopes}{of}{'' if to.key else ', from the settings or data folder here'}"


def _short(answer: bytes) -> str:
    try:
        decoded: Any = json.loads(answer)
    except ValueError:
        return answer[:100].decode("utf-8", "replace")
    if isinstance(decoded, dict):
        fields = cast("dict[str, object]", decoded)
        if "detail" in fields:  # a problem (RFC 9457)
            return str(fields["detail"])[:300]
        return ", ".join(_words(fields))[:300]
    return str(decoded)[:100]


def _words(fields: dict[str, object]) -> Iterator[str]:
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from _words(cast("dict[str, object]", value))
        else:
            yield f"{name} {output.cell(fields, name)}"


def _tell(finding: Finding, *, as_json: bool) -> None:
    if as_json:
        output.put_json(vars(finding))
    else:
        output.put(f"{'ok  ' if finding.ok else 'BAD '} {finding.check}: {finding.detail}")
