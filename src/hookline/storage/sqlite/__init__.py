"""Storage in one SQLite file: the embedded default."""

from __future__ import annotations

from hookline.storage.sqlite.storage import SqliteStorage

__all__ = ["SqliteStorage"]
