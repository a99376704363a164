"""The catalogue of event types."""

from __future__ import annotations

import json

from cyclopts import App

from hookline.cli import given, output
from hookline.cli.client import path
from hookline.cli.target import Target

COLUMNS = {
    "name": "name",
    "group": "group",
    "version": "version",
    "description": "description",
    "deprecated": "deprecated_at",
}

app = App(name="event-types")


@app.command(name="list")
def list_types(*, limit: int = 0, to: Target = Target()) -> None:
    """List event types.

    Parameters
    ----------
    limit
        How many at most; 0 for all.
    """
    to.list(path("event-types"), COLUMNS, limit=limit)


@app.command
def show(name: str, /, *, to: Target = Target()) -> None:
    """Show an event type."""
    to.show(to.api.get(path("event-types", name)))


@app.command
def schema(name: str, /, *, to: Target = Target()) -> None:
    """Print the JSON Schema of an event type."""
    output.put(json.dumps(to.api.get(path("event-types", name, "schema")), ensure_ascii=False, indent=2))


@app.command
def example(name: str, /, *, to: Target = Target()) -> None:
    """Print the example payload of an event type."""
    output.put(json.dumps(to.api.get(path("event-types", name, "example")), ensure_ascii=False, indent=2))


@app.command
def create(
    name: str,
    /,
    *,
    description: str = "",
    group: str = "",
    usage: str = "",
    schema: given.Source = "",
    example: given.Source = "",
    to: Target = Target(),
) -> None:
    """Create an event type.

    Parameters
    ----------
    name
        Such as order:created.
    description
        What happened when such an event is published.
    group
        The heading it stands under.
    usage
        What receivers use it for.
    schema
        JSON Schema of the payload: JSON, @path of a file, or - for standard input.
    example
        A payload that fits the schema, likewise.
    """
    body = _body(given.kept(name=name, description=description, group=group, usage=usage), schema, example)
    to.show(to.api.send_raw("POST", path("event-types"), body))


@app.command
def update(
    name: str,
    /,
    *,
    description: str = "",
    group: str = "",
    usage: str = "",
    schema: given.Source = "",
    example: given.Source = "",
    force: bool = False,
    to: Target = Target(),
) -> None:
    """Change an event type; what is not given stays.

    Parameters
    ----------
    description
        What happened when such an event is published.
    group
        The heading it stands under.
    usage
        What receivers use it for.
    schema
        JSON Schema of the payload: JSON, @path of a file, or - for standard input.
    example
        A payload that fits the schema, likewise.
    force
        Take the new schema even if it could break receivers.
    """
    body = _body(given.kept(description=description, group=group, usage=usage), schema, example)
    query = {"force": "true"} if force else None
    to.show(to.api.send_raw("PATCH", path("event-types", name), body, query=query))


@app.command
def deprecate(name: str, /, *, undo: bool = False, to: Target = Target()) -> None:
    """Mark an event type as deprecated; events of it are still accepted.

    Parameters
    ----------
    undo
        Take the mark away.
    """
    to.show(to.api.send("POST", path("event-types", name, "deprecate"), {"deprecated": not undo}))


def _body(fields: dict[str, object], schema: str, example: str) -> bytes:
    return given.spliced(
        fields,
        schema=given.json_text(schema, "--schema") if schema else "",
        example=given.json_text(example, "--example") if example else "",
    )
