"""Moving an installation from one database to another: what is shown of it."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import uvloop

from hookline.cli.failures import Usage
from hookline.cli.given import text_or_file
from hookline.cli.output import note, show_list
from hookline.cli.progress import Progress
from hookline.core.vault import AesGcmVault
from hookline.engine.presence import gone_after
from hookline.settings import Settings, has_master_key, master_keys
from hookline.storage.move import Compared, Moved, MoveMismatch, Wish, move

_COLUMNS = {"TABLE": "table", "ROWS": "rows", "SOURCE": "source", "TARGET": "target", "SAME": "same"}
_SHORT = 16
"""Digits of a digest that a table shows."""


def run_move(settings: Settings, source: str, target: str, *, as_json: bool) -> int:
    """Move, and tell row counts and digests of all tables."""
    if not source or not target:
        raise Usage("--from and --to are given together")
    wish = Wish(
        text_or_file(source).strip(),
        text_or_file(target).strip(),
        settings.database_shards,
        settings.database_slices,
        gone_after(settings.lease_seconds),
    )
    vault = AesGcmVault(master_keys(settings), os.urandom) if has_master_key(settings) else None
    started = time.monotonic()
    try:
        with Progress("moving", quiet=as_json) as bar:
            moved = uvloop.run(move(wish, vault, _now, bar.reach))
    except MoveMismatch as error:
        _show(error.tables, as_json=as_json)
        raise
    _show(moved.tables, as_json=as_json)
    note(_summary(moved, time.monotonic() - started))
    return 0


def _now() -> int:
    return time.time_ns() // 1_000_000


def _show(tables: Sequence[Compared], *, as_json: bool) -> None:
    digits = None if as_json else _SHORT
    lines = [
        {
            "table": each.table,
            "rows": each.rows,
            "source": each.source[:digits],
            "target": each.target[:digits],
            "same": each.same,
        }
        for each in tables
    ]
    if lines:
        show_list(lines, _COLUMNS, as_json=as_json)


def _summary(moved: Moved, seconds: float) -> str:
    if moved.before is not None:
        at = datetime.fromtimestamp(moved.before / 1000, UTC).isoformat(" ", "seconds")
        return f"{moved.source} was moved to {moved.target} on {at}; nothing was done"
    rows = sum(each.rows for each in moved.tables)
    text = f"moved {moved.source} to {moved.target}: {rows} rows in {seconds:.1f} s, all digests are the same"
    if moved.mended:
        text += f"; {moved.mended} texts held the character NUL, which PostgreSQL cannot store: U+FFFD stands for it"
    return text
