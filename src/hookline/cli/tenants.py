"""Tenants, their keys, and what they use."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from hookline.cli import given
from hookline.cli.client import path
from hookline.cli.target import Target

TENANT_COLUMNS = {
    "id": "id",
    "name": "name",
    "profile": "profile",
    "schemas": "schema_mode",
    "created": "created_at",
}
KEY_COLUMNS = {
    "id": "id",
    "name": "name",
    "begins with": "hint",
    "scopes": "scopes",
    "created": "created_at",
    "revoked": "revoked_at",
}
USAGE_COLUMNS = {
    "day": "day",
    "events": "events",
    "event bytes": "event_bytes",
    "attempts": "attempts",
    "attempt bytes": "attempt_bytes",
}

SchemaMode = Annotated[
    str, Parameter(help="Payloads that do not fit their schema: strict refuses, log logs, off ignores them.")
]
Days = Annotated[int | None, Parameter(help="Days that this is kept; by default as the server is set.")]

tenants = App(name="tenants")
keys = App(name="keys")


@tenants.command
def create(
    id: str,
    /,
    *,
    name: str = "",
    profile: str = "",
    schema_mode: SchemaMode = "",
    events_days: Days = None,
    attempts_days: Days = None,
    bodies_days: Days = None,
    to: Target = Target(),
) -> None:
    """Create a tenant and its first API key, which is shown this once.

    Parameters
    ----------
    id
        Letters, digits, _ and -.
    name
        What people call it. Default: the id.
    profile
        How its subscriptions speak unless they say otherwise. Default: standard.
    """
    retention = given.kept(events=events_days, attempts=attempts_days, bodies=bodies_days)
    body = given.kept(id=id, name=name or id, profile=profile, schema_mode=schema_mode, retention=retention)
    to.show(to.api.send("POST", path("tenants"), body))


@tenants.command(name="list")
def list_tenants(*, limit: int = 0, to: Target = Target()) -> None:
    """List tenants.

    Parameters
    ----------
    limit
        How many at most; 0 for all.
    """
    to.list(path("tenants"), TENANT_COLUMNS, limit=limit)


@tenants.command
def show(id: str, /, *, to: Target = Target()) -> None:
    """Show a tenant."""
    to.show(to.api.get(path("tenants", id)))


@tenants.command
def update(
    id: str,
    /,
    *,
    name: str = "",
    profile: str = "",
    schema_mode: SchemaMode = "",
    events_days: Days = None,
    attempts_days: Days = None,
    bodies_days: Days = None,
    to: Target = Target(),
) -> None:
    """Change a tenant; what is not given stays.

    Parameters
    ----------
    name
        What people call it.
    profile
        How its subscriptions speak unless they say otherwise.
    """
    retention = given.kept(events=events_days, attempts=attempts_days, bodies=bodies_days)
    body = given.kept(name=name, profile=profile, schema_mode=schema_mode, retention=retention)
    to.show(to.api.send("PATCH", path("tenants", id), given.change(body)))


@keys.command(name="create")
def create_key(
    *,
    name: str = "",
    scope: tuple[str, ...] = (),
    to: Target = Target(),
) -> None:
    """Create an API key, which is shown this once: of a tenant, or an operator key if --tenant is not given.

    Parameters
    ----------
    name
        What it is for.
    scope
        What it may do: publish, manage, read. Default: everything.
    """
    to.show(to.api.send("POST", path("keys"), given.kept(name=name, scopes=list(scope))))


@keys.command(name="list")
def list_keys(*, to: Target = Target()) -> None:
    """List API keys, without their secrets."""
    to.list_whole(path("keys"), KEY_COLUMNS)


@keys.command
def revoke(id: str, /, *, to: Target = Target()) -> None:
    """Revoke an API key for good."""
    to.api.send("DELETE", path("keys", id))
    to.done(f"{id} is revoked")


def usage(
    *,
    from_: Annotated[
        str,
        Parameter(name="--from", help="The first day (2026-01-31, UTC). Default: 30 days before the last."),
    ] = "",
    to_: Annotated[str, Parameter(name="--to", help="The last day. Default: today.")] = "",
    to: Target = Target(),
) -> None:
    """Show what a tenant used, day by day."""
    to.list_whole(path("usage"), USAGE_COLUMNS, given.kept(**{"from": from_, "to": to_}))
