"""The settings from the environment, a TOML file and the command line."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from hookline.core.errors import Fault, SettingsInvalid
from hookline.settings.table import OTHER_VARIABLES, PREFIX, TABLE, Settings

_KUBERNETES = re.compile(r"HOOKLINE_(SERVICE_(HOST|PORT).*|PORT_\d+_(TCP|UDP|SCTP).*)")
"""Kubernetes puts these, and ``HOOKLINE_PORT=tcp://…``, into every pod beside a service called "hookline"."""


@dataclass(frozen=True, slots=True)
class _Given:
    """The text of one setting, and where it came from, in the words of the person who set it."""

    source: str
    text: str


def load(
    environ: Mapping[str, str] | None = None,
    config: Path | None = None,
    options: Mapping[str, str] | None = None,
) -> Settings:
    """Read the settings: ``options`` (of the command line) win over the environment, it over the file.

    The file is ``config`` or what ``HOOKLINE_CONFIG`` names. An empty value counts as not given. Raises
    ``SettingsInvalid`` with a fault for everything that is wrong, unknown names included.
    """
    environ = os.environ if environ is None else environ
    faults: list[Fault] = []
    path = config or environ.get(PREFIX + "CONFIG")
    given = dict(_from_file(Path(path), faults)) if path else {}
    given |= dict(_from_environment(environ, faults))
    given |= {
        name: _Given(f"--{name.replace('_', '-')}", text) for name, text in (options or {}).items() if text
    }
    values = _parsed(given, faults)
    if not faults:
        settings = Settings(**values)
        faults.extend(_contradictions(settings))
        if not faults:
            return settings
    count = f"{len(faults)} settings are" if len(faults) > 1 else "A setting is"
    raise SettingsInvalid(f"{count} not valid", faults)


def _from_environment(environ: Mapping[str, str], faults: list[Fault]) -> Iterator[tuple[str, _Given]]:
    for variable in sorted(environ):
        text, name = environ[variable], variable.removeprefix(PREFIX).lower()
        if not variable.startswith(PREFIX) or variable in OTHER_VARIABLES or _is_kubernetes(variable, text):
            continue
        if variable != PREFIX + name.upper() or name not in TABLE:
            known = [row.variable for row in TABLE.values()] + list(OTHER_VARIABLES)
            faults.append(_unknown(variable, variable.upper(), known))
        elif text:
            yield name, _Given(variable, text)


def _is_kubernetes(variable: str, text: str) -> bool:
    return bool(_KUBERNETES.fullmatch(variable)) or (
        variable == "HOOKLINE_PORT" and text.startswith("tcp://")
    )


def _from_file(path: Path, faults: list[Fault]) -> Iterator[tuple[str, _Given]]:
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        faults.append(Fault(str(path), f"the file cannot be read: {error.strerror}"))
        return
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        faults.append(Fault(str(path), f"the file is not valid TOML: {error}"))
        return
    for name, value in values.items():
        source, text = f"{name} in {path}", _as_text(value)
        if name not in TABLE:
            faults.append(_unknown(source, name, list(TABLE)))
        elif text is None:
            faults.append(
                Fault(source, f"this is a {type(value).__name__}; accepted: {TABLE[name].kind.accepts}")
            )
        elif text:
            yield name, _Given(source, text)


def _as_text(value: object) -> str | None:
    """A TOML value as the environment would have it; None for what has no such form."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        parts = [_as_text(part) for part in cast("list[object]", value)]
        return ",".join(part for part in parts if part is not None) if None not in parts else None
    return str(value) if isinstance(value, str | int | float) else None


def _unknown(source: str, name: str, known: list[str]) -> Fault:
    near = difflib.get_close_matches(name, known, 1)
    return Fault(source, "there is no such setting" + (f"; did you mean {near[0]}?" if near else ""))


def _parsed(given: Mapping[str, _Given], faults: list[Fault]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, one in given.items():
        row = TABLE[name]
        try:
            values[name] = row.kind.parse(one.text.strip())
        except ValueError:
            shown = "this value" if row.secret else repr(one.text[:80])
            faults.append(Fault(one.source, f"{shown} is not valid; accepted: {row.kind.accepts}"))
    return values


def _contradictions(settings: Settings) -> Iterator[Fault]:
    if settings.max_event_bytes > settings.max_batch_bytes:
        yield Fault(
            f"{PREFIX}MAX_EVENT_BYTES",
            f"an event may not be larger than a batch ({settings.max_batch_bytes} bytes)",
        )
    if settings.smtp_url is not None and settings.smtp_from is None:
        yield Fault(
            f"{PREFIX}SMTP_FROM", f"is needed with {PREFIX}SMTP_URL: the address that mails come from"
        )
