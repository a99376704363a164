"""What an installation consists of, table by table, in a form that is the same for every engine.

What an engine derives (shards, slices, days, partitions, the table of event ids) is no part of it: a row that arrives
gets its place from its content.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

Row = tuple[Any, ...]

REPLACEMENT = "\ufffd"
"""Stands for the character NUL, which PostgreSQL cannot store in texts."""


class Column(Struct, frozen=True):
    """``kind`` is ``int``, ``real``, ``text``, ``bytes``, or ``flag`` (0 and 1 in SQLite, boolean in PostgreSQL)."""

    name: str
    kind: str


class Table(Struct, frozen=True):
    """Rows of one kind. ``sqlite`` and ``postgres`` are what to select the columns from, with all joins."""

    name: str
    columns: tuple[Column, ...]
    sqlite: str
    postgres: str
    sqlite_values: dict[str, str] = {}
    postgres_values: dict[str, str] = {}
    """Expressions for columns that are not there by their names."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    def places(self, *kinds: str) -> tuple[int, ...]:
        """Where in a row the columns of these kinds are."""
        return tuple(place for place, column in enumerate(self.columns) if column.kind in kinds)

    def select_sqlite(self) -> str:
        return f"SELECT {_values(self.names, self.sqlite_values)} FROM {self.sqlite}"

    def select_postgres(self, condition: str = "") -> str:
        """Those rows for which ``condition`` holds, or all."""
        where = f" WHERE {condition}" if condition else ""
        return f"SELECT {_values(self.names, self.postgres_values)} FROM {self.postgres}{where}"


def _values(names: Sequence[str], values: dict[str, str]) -> str:
    return ", ".join(values.get(name, f"t.{name}") for name in names)


def _table(
    name: str,
    columns: str,
    *,
    sqlite: str = "",
    postgres: str = "",
    sqlite_values: dict[str, str] | None = None,
    postgres_values: dict[str, str] | None = None,
) -> Table:
    parts = [column.split() for column in columns.split(",")]
    return Table(
        name,
        tuple(Column(column, kind) for column, kind in parts),
        sqlite or f"{name} AS t",
        postgres or f"hookline.{name} AS t",
        sqlite_values or {},
        postgres_values or {},
    )


_LAST_TENANT = "(SELECT coalesce(max(no), 0) FROM tenants)"
_LAST_SUBSCRIPTION = "(SELECT coalesce(max(no), 0) FROM subscriptions)"
_CURSOR = "CASE WHEN t.live THEN {larger}(t.cursor, s.watermark) ELSE t.cursor END"

TABLES = (
    _table(
        "config",
        "version int, tenants int, subscriptions int",
        sqlite_values={"tenants": _LAST_TENANT, "subscriptions": _LAST_SUBSCRIPTION},
    ),
    _table(
        "tenants",
        "no int, id text, name text, profile text, created_at int, schema_mode text, retention text, webhooks flag",
    ),
    _table(
        "api_keys",
        "no int, id text, tenant_no int, name text, digest bytes, hint text, scopes text, created_at int, "
        "revoked_at int, expires_at int, session_of text",
        sqlite_values={"tenant_no": "coalesce(t.tenant_no, 0)"},
    ),
    _table(
        "event_types",
        "tenant_no int, name text, description text, version int, created_at int, updated_at int, group_name text, "
        "usage text, schema bytes, example bytes, deprecated_at int",
    ),
    _table(
        "subscriptions",
        "no int, id text, tenant_no int, version int, matches_from int, definition bytes, sealed bytes, "
        "created_at int, updated_at int, state text, state_reason text, state_at int, skip_to int, start_after int, "
        "changed_at int",
    ),
    _table("definition_versions", "subscription_no int, version int, matches_from int, definition bytes"),
    _table("requeues", "subscription_no int, version int"),
    # The effective cursor: watermarks of several slices can meet in one, so a lane must not lean on its own.
    _table(
        "lanes",
        "subscription_no int, cursor int, sequence int, live flag, ahead flag, failing_since int, warned_at int",
        sqlite="lanes AS t CROSS JOIN shards AS s ON s.shard = 0",
        sqlite_values={"cursor": _CURSOR.format(larger="max")},
        postgres="hookline.lanes AS t JOIN hookline.subscriptions AS n ON n.no = t.subscription_no "
        "JOIN hookline.shard_leases AS s ON s.shard = n.shard AND s.slice = n.slice",
        postgres_values={"cursor": _CURSOR.format(larger="greatest")},
    ),
    _table(
        "unsettled",
        "subscription_no int, position int, sequence int, attempts int, due_at int, first_at int, runs int, key text, "
        "status int, error text",
    ),
    _table(
        "replays",
        "no int, id text, subscription_no int, after_position int, until_position int, states text, rate real, "
        "total int, done int, progress int, state text, created_at int, updated_at int",
    ),
    _table(
        "usage",
        "tenant_no int, day text, events int, event_bytes int, attempts int, attempt_bytes int",
        postgres="(SELECT tenant_no, day, sum(events)::bigint AS events, sum(event_bytes)::bigint AS event_bytes, "
        "sum(attempts)::bigint AS attempts, sum(attempt_bytes)::bigint AS attempt_bytes "
        "FROM hookline.usage GROUP BY tenant_no, day) AS t",
    ),
    _table(
        "events",
        "position int, tenant_no int, id text, type text, data bytes, occurred_at int, received_at int, "
        "object_type text, object_id text, source_application text, source_user text, key text, correlation_id text",
    ),
    _table("event_blocks", "tenant_no int, label text, block int"),
    _table(
        "deliveries",
        "subscription_no int, position int, sequence int, state int, attempts int, settled_at int, status int, "
        "error text",
    ),
    _table(
        "attempts",
        "tenant_no int, subscription_no int, position int, number int, version int, started_at int, method text, "
        "url text, status int, error text, detail text, address text, dns_us int, connect_us int, tls_us int, "
        "first_byte_us int, total_us int, request_headers text, request_bytes int, response_headers bytes, "
        "response_truncated flag, has_body flag",
    ),
    # SQLite leaves a body behind whose attempt was recorded anew without one.
    _table(
        "response_bodies",
        "tenant_no int, subscription_no int, position int, number int, started_at int, body bytes",
        sqlite="response_bodies AS b CROSS JOIN attempts AS t ON t.no = b.attempt_no AND t.has_body = 1",
        sqlite_values={"body": "b.body"},
    ),
)
"""In an order in which they can be filled."""

EVENT_IDS = _table("event_ids", "tenant_no int, id text, position int, day int")
"""Derived from the events, but digested on its own."""

BY_NAME = {table.name: table for table in TABLES}
EVENTS = BY_NAME["events"]


def neat(table: Table) -> Callable[[Sequence[Row]], tuple[Sequence[Row], int]]:
    """What makes rows as SQLite has them into rows for every engine: flags are booleans, and texts have no NUL. Beside
    the rows it tells how many texts had one."""
    flags, texts = table.places("flag"), table.places("text")

    def mend(row: Row) -> tuple[Row, int]:
        values = list(row)
        for place in flags:
            values[place] = bool(values[place])
        spoilt = [place for place in texts if values[place] is not None and "\0" in values[place]]
        for place in spoilt:
            values[place] = values[place].replace("\0", REPLACEMENT)
        return tuple(values), len(spoilt)

    def mend_all(rows: Sequence[Row]) -> tuple[Sequence[Row], int]:
        mended = [mend(row) for row in rows]
        return [row for row, _ in mended], sum(count for _, count in mended)

    return mend_all
