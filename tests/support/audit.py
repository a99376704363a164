"""What every write to the leases was, and whose: kept by the database itself, in a schema beside the product's.

Each node of a test connects under a role of its own, so a row tells which process wrote it, whatever it believed that
it owns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

Part = tuple[int, int]
"""A shard and a slice."""

INSTALL = """
CREATE SCHEMA chaos;
CREATE TABLE chaos.leases (
    no bigserial PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    xid bigint NOT NULL DEFAULT mod(pg_current_xact_id()::text::numeric, 4294967296)::bigint,
    writer text NOT NULL DEFAULT session_user,
    shard integer, slice integer,
    was_owner text, owner text, was_epoch bigint, epoch bigint,
    was_recorded bigint, recorded bigint, was_watermark bigint, watermark bigint
);
CREATE FUNCTION chaos.note() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    INSERT INTO chaos.leases (shard, slice, was_owner, owner, was_epoch, epoch, was_recorded, recorded, was_watermark,
        watermark)
    VALUES (new.shard, new.slice, old.owner, new.owner, old.epoch, new.epoch, old.recorded, new.recorded,
        old.watermark, new.watermark);
    RETURN NULL;
END $$;
CREATE TRIGGER chaos AFTER UPDATE ON hookline.shard_leases FOR EACH ROW EXECUTE FUNCTION chaos.note();
"""
READ = """
SELECT shard, slice, (extract(epoch FROM at) * 1e9)::bigint, writer, was_owner, owner, was_epoch, epoch, was_recorded,
    recorded, was_watermark, watermark
FROM chaos.leases WHERE no > $1 ORDER BY shard, slice, no
"""
STRAY = """
SELECT count(*) FROM {table} AS d JOIN hookline.subscriptions AS s ON s.no = d.subscription_no
WHERE NOT EXISTS (
    SELECT FROM chaos.leases AS l
    WHERE l.xid = d.xmin::text::bigint AND l.shard = s.shard AND l.slice = s.slice AND l.recorded > l.was_recorded
)
"""
"""Rows that no transaction wrote in which the part's epoch was in force."""
RECORDED = ("hookline.attempts", "hookline.deliveries")


@dataclass(frozen=True, slots=True)
class Change:
    """One write to a lease. ``at`` is the wall clock of the database in nanoseconds."""

    part: Part
    at: int
    writer: str
    was_owner: str | None
    owner: str | None
    was_epoch: int
    epoch: int
    was_recorded: int
    recorded: int
    was_watermark: int
    watermark: int

    @property
    def is_take(self) -> bool:
        return self.epoch != self.was_epoch

    @property
    def is_forced(self) -> bool:
        """Whether the part was taken from an owner that had not given it back."""
        return self.is_take and self.was_owner is not None

    @property
    def is_release(self) -> bool:
        return self.owner is None and self.was_owner is not None

    @property
    def is_record(self) -> bool:
        return not self.is_take and (
            self.recorded != self.was_recorded or self.watermark != self.was_watermark
        )


def changes(rows: Sequence[Sequence[Any]]) -> list[Change]:
    """From rows of ``READ``."""
    return [Change((row[0], row[1]), *row[2:]) for row in rows]


def assert_fenced(history: Sequence[Change]) -> None:
    """In each part one node records at a time: the one that took the epoch, each batch once, none left out."""
    for part, members in groupby(history, key=lambda change: change.part):
        taker = ""
        for change in members:
            assert change.watermark >= change.was_watermark, f"the watermark of {part} went back: {change}"
            if change.is_take:
                assert change.epoch == change.was_epoch + 1, change
                assert change.recorded == 0, change
                taker = change.writer
            elif change.is_record:
                assert change.writer == taker, (
                    f"{change.writer} recorded in {part}, which {taker} has: {change}"
                )
                assert change.recorded == change.was_recorded + 1, change
            else:
                assert change.writer == taker, f"{change.writer} wrote the lease of {taker}: {change}"
