"""What commands print: tables for people, tab-separated lines for pipes, JSON lines for programs."""

from __future__ import annotations

import codecs
import io
import json
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO, cast

from hookline.cli.failures import Failure

Item = Mapping[str, Any]

Columns = Mapping[str, str]
"""Heading -> where the value is in an item (``object.id``)."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters: what a tenant stored must not steer the terminal of whoever looks at it."""


class OutputFailed(Failure):
    """What was to be printed could not be written: a full disk behind ``>``, say."""


def prepare() -> None:
    """Make both streams take any text: where a locale lacks a letter, its escape stands for it.

    A stream that the caller has closed (``>&-``) takes everything and keeps nothing.
    """
    out, err = cast("TextIO | None", sys.stdout), cast("TextIO | None", sys.stderr)
    if out is None:
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - for the rest of the process
    elif isinstance(out, io.TextIOWrapper):
        out.reconfigure(errors="backslashreplace")
    if err is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - likewise


def give_up() -> None:
    """Let Python's flush at the end of the process succeed although the output goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def complain(message: str, faults: Iterable[tuple[str, str]] = ()) -> None:
    """Say on standard error what went wrong, one line for each fault."""
    lines = [f"Error: {message}", *(f"  {place}: {text}" if place else f"  {text}" for place, text in faults)]
    sys.stderr.write("".join(_CONTROL.sub("�", line) + "\n" for line in lines))


def note(message: str) -> None:
    """A remark beside the output."""
    text = _CONTROL.sub("�", message)
    if sys.stderr.isatty():
        text = "\n".join(
            textwrap.wrap(text, max(shutil.get_terminal_size().columns, 20), break_on_hyphens=False)
        )
    sys.stderr.write(text + "\n")


def put(line: str) -> None:
    """One line of output, at once: whoever reads a pipe should not wait."""
    try:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputFailed(f"the output cannot be written: {error.strerror}") from error


def put_json(value: object, *, indent: int | None = None) -> None:
    """A JSON text, in ASCII where the output's encoding cannot hold every letter."""
    put(json.dumps(value, ensure_ascii=not _takes_all_letters(), indent=indent))


def _takes_all_letters() -> bool:
    encoding = cast("str | None", sys.stdout.encoding)  # None: text that is kept in memory
    return encoding is None or codecs.lookup(encoding).name.startswith("utf")


def cell(item: object, path: str) -> str:
    """A value of an item as one line of text; what is missing is empty."""
    value: Any = item
    for name in path.split("."):
        value = cast("Item", value).get(name) if isinstance(value, dict) else None
    return _CONTROL.sub("�", _text(value))


def _text(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float():
            return str(int(value)) if value.is_integer() else str(value)
        case list():
            parts = cast("list[object]", value)
            plain = not any(isinstance(part, list | dict) for part in parts)
            return ", ".join(map(_text, parts)) if plain else json.dumps(parts, ensure_ascii=False)
        case dict():
            return json.dumps(value, ensure_ascii=False)
        case _:
            return str(value)


def show_list(items: Iterable[Item], columns: Columns, *, as_json: bool) -> None:
    """All items: JSON lines, a table on a terminal, or tab-separated lines with a heading."""
    if as_json:
        for item in items:
            put_json(item)
    elif sys.stdout.isatty():
        from hookline.cli import table

        table.show([[cell(item, path) for path in columns.values()] for item in items], list(columns))
    else:
        lines = (row(item, columns) for item in items)
        first = next(lines, None)  # before the heading: there may be no list but an error
        put("\t".join(columns))
        for line in () if first is None else (first, *lines):
            put(line)


def row(item: Item, columns: Columns) -> str:
    """One item as a tab-separated line."""
    return "\t".join(cell(item, path) for path in columns.values())


def show_item(item: Item, *, as_json: bool) -> None:
    """One item: a JSON line, or a line for each field, inner objects indented."""
    if as_json:
        put_json(item)
    else:
        for line in _lines(item, ""):
            put(line)


def _lines(item: Item, indent: str) -> Iterable[str]:
    width = max((len(name) for name in item), default=0)
    for name, value in item.items():
        if isinstance(value, dict) and value:
            yield f"{indent}{name}:"
            yield from _lines(cast("Item", value), indent + "  ")
        elif nested := _nested(cast("object", value)):
            yield f"{indent}{name}:"
            yield from _list_lines(nested, indent + "  ")
        else:
            shown = cell(item, name) if value not in ({}, []) else ""
            yield f"{indent}{name + ':':<{width + 1}} {shown or '-'}"


def _nested(value: object) -> list[object]:
    """The parts of a list that does not fit on a line."""
    parts = cast("list[object]", value) if isinstance(value, list) else []
    return parts if any(isinstance(part, dict | list) for part in parts) else []


def _list_lines(values: Sequence[object], indent: str) -> Iterable[str]:
    for value in values:
        for at, line in enumerate(_part_lines(value)):
            yield f"{indent}{'  ' if at else '- '}{line}"


def _part_lines(value: object) -> Iterable[str]:
    match value:
        case dict() if value:
            return _lines(cast("Item", value), "")
        case [str() as name, str() as text]:  # a header
            return [_CONTROL.sub("�", f"{name}: {text}")]
        case _:
            return [_CONTROL.sub("�", _text(value))]
