"""The catalogue of event types."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from cyclopts import App

from hookline.cli import EXIT_FAILED, given, output
from hookline.cli.client import path
from hookline.cli.target import Target
from hookline.core.errors import HooklineError

COLUMNS = {
    "name": "name",
    "group": "group",
    "source": "source",
    "version": "version",
    "description": "description",
    "deprecated": "deprecated_at",
}

app = App(name="event-types")


@app.command(name="list")
def list_types(*, group: str = "", limit: int = 0, to: Target = Target()) -> None:
    """List event types.

    Parameters
    ----------
    group
        Only types of this group.
    limit
        How many at most; 0 for all.
    """
    to.list(path("event-types"), COLUMNS, {"group": group}, limit)


@app.command
def groups(*, to: Target = Target()) -> None:
    """List the groups of event types."""
    to.list_whole(path("event-type-groups"), {"group": "name", "types": "types"})


@app.command
def check(files: list[Path], /) -> int:
    """Check files with event types, before they go into the catalogue's folder. Needs no server.

    Ends with exit code 1 if one has a fault.

    Parameters
    ----------
    files
        The files to check.
    """
    from hookline.profiles.folder import read_file

    code = 0
    for file in files:
        try:
            found = read_file(file)
        except HooklineError as error:
            output.complain(error.detail, [(fault.field, fault.message) for fault in error.faults])
            code = EXIT_FAILED
        else:
            whose = f"the profile {found.profile}" if found.profile else "all profiles"
            count = len(found.types)
            output.put(f"{file}: {count} event type{'' if count == 1 else 's'} for {whose}")
    return code


@app.command
def export(*, format: Literal["asyncapi", "openapi"] = "asyncapi", to: Target = Target()) -> None:
    """Print the catalogue as a document for other tools.

    Parameters
    ----------
    format
        AsyncAPI 3.0, or the server's OpenAPI 3.1 description with its webhooks.
    """
    output.put_json(to.api.get(f"/{format}.json"), indent=2)


@app.command
def show(name: str, /, *, to: Target = Target()) -> None:
    """Show an event type."""
    to.show(to.api.get(path("event-types", name)))


@app.command
def schema(name: str, /, *, to: Target = Target()) -> None:
    """Print the JSON Schema of an event type."""
    output.put_json(to.api.get(path("event-types", name, "schema")), indent=2)


@app.command
def example(name: str, /, *, to: Target = Target()) -> None:
    """Print the example payload of an event type."""
    output.put_json(to.api.get(path("event-types", name, "example")), indent=2)


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
    fields = given.kept(description=description, group=group, usage=usage)
    given.change({**fields, "schema": schema} if schema or example else fields)
    body = _body(fields, schema, example)
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
