"""Storage in PostgreSQL: for installations of many nodes."""

from __future__ import annotations

from hookline.storage.postgres.schema import migrate_database
from hookline.storage.postgres.storage import PostgresStorage
from hookline.storage.postgres.wake import PostgresWake

__all__ = ["PostgresStorage", "PostgresWake", "migrate_database"]
