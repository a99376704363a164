"""Storage in PostgreSQL: for installations of many nodes."""

from __future__ import annotations

from hookline.storage.postgres.schema import Migrated, Rollout, migrate_database
from hookline.storage.postgres.storage import PostgresStorage
from hookline.storage.postgres.wake import PostgresWake

__all__ = ["Migrated", "PostgresStorage", "PostgresWake", "Rollout", "migrate_database"]
