"""Publishing and looking at events."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from cyclopts import App, Parameter

from hookline.cli import EXIT_FAILED, given, output
from hookline.cli.client import path
from hookline.cli.failures import Usage, told
from hookline.cli.target import Target

BATCH_ITEMS = 500
BATCH_BYTES = 4 << 20
"""Half of what the server takes by default in items, a quarter in bytes: room for servers that take less."""

COLUMNS = {
    "id": "id",
    "type": "type",
    "object": "object.type",
    "object id": "object.id",
    "occurred": "occurred_at",
    "correlation": "correlation_id",
}

app = App(name="events")


@app.command(name="list")
def list_events(
    *,
    type: str = "",
    object_type: str = "",
    object_id: str = "",
    correlation_id: str = "",
    from_: Annotated[str, Parameter(name="--from")] = "",
    to_: Annotated[str, Parameter(name="--to")] = "",
    payload: bool = False,
    limit: int = 50,
    to: Target = Target(),
) -> None:
    """List events, newest first.

    Parameters
    ----------
    type
        Only this event type.
    object_type
        Only events about objects of this type.
    object_id
        Only events about the object with this id; needs --object-type.
    correlation_id
        Only events with this correlation id.
    from_
        Only events received since then (a time, or 2h for two hours ago).
    to_
        Only events received before then.
    payload
        With what was published (seen with --json).
    limit
        How many at most; 0 for all.
    """
    query = given.kept(
        type=type,
        object_type=object_type,
        object_id=object_id,
        correlation_id=correlation_id,
        to=given.time(to_),
        include="payload" if payload else "",
    )
    query |= given.kept(**{"from": given.time(from_)})
    to.list(path("events"), COLUMNS, query, limit)


@app.command
def show(event: str, /, *, to: Target = Target()) -> None:
    """Show an event with its payload."""
    to.show(to.api.get(path("events", event)))


@app.command
def deliveries(event: str, /, *, to: Target = Target()) -> None:
    """Tell what became of an event for each subscription, and why."""
    columns = {"subscription": "subscription", "name": "name", "outcome": "outcome", "reason": "reason"}
    to.list_whole(path("events", event, "deliveries"), columns)


@app.command
def related(event: str, /, *, limit: int = 50, to: Target = Target()) -> None:
    """List events about the same object, or with the same correlation id.

    Parameters
    ----------
    limit
        How many at most; 0 for all.
    """
    to.list(path("events", event, "related"), COLUMNS, limit=limit)


def publish(
    type: str = "",
    data: given.Source = "",
    /,
    *,
    id: str = "",
    object: str = "",
    order_key: str = "",
    correlation_id: str = "",
    occurred_at: str = "",
    application: str = "",
    user: str = "",
    file: given.Source = "",
    to: Target = Target(),
) -> int:
    """Publish one event (TYPE and DATA), or every line of a file (--file).

    Parameters
    ----------
    type
        The event type, such as order:created.
    data
        The payload as JSON, @path of a file with it, or - for standard input. It is sent byte for byte.
    id
        The event's id; publishing the same event again under it changes nothing. Default: one is made.
    object
        What the event is about, as type:id.
    order_key
        Deliveries with the same key keep their order, where a subscription asks for it.
    correlation_id
        Ties events of one business process together.
    occurred_at
        When it happened: a time, or 2h for two hours ago. Default: now.
    application
        The application that made the change.
    user
        The user of it who made the change.
    file
        A file with one event in each line (JSON as for POST /v1/events), or - for standard input.
    """
    if file:
        if type or data:
            raise Usage("give either TYPE and DATA, or --file")
        return _publish_file(file, to)
    if not type or not data:
        raise Usage("an event needs TYPE and DATA; see hookline publish --help")
    envelope = given.kept(
        type=type,
        id=id,
        occurred_at=given.time(occurred_at),
        object=_object(object) if object else None,
        source=given.kept(application=application, user_id=user),
        key=order_key,
        correlation_id=correlation_id,
    )
    answer = to.api.send_raw(
        "POST", path("events"), given.spliced(envelope, data=given.json_text(data, "DATA"))
    )
    if to.json:
        to.show(answer)
    else:
        output.put(f"{answer['id']}{' (a duplicate: it was there already)' if answer['duplicate'] else ''}")
    return 0


def _object(text: str) -> dict[str, str]:
    kind, _, name = text.partition(":")
    if not kind or not name:
        raise Usage(f"--object takes type:id, such as order:4471, not {text!r}")
    return {"type": kind, "id": name}


def _publish_file(name: str, to: Target) -> int:
    try:
        source = sys.stdin.buffer if name == "-" else Path(name).expanduser().open("rb")
    except (OSError, ValueError) as error:
        raise Usage(f"{name} cannot be read: {given.reason(error)}") from error
    with source:
        return _publish_lines(source, to)


def _publish_lines(source: BinaryIO, to: Target) -> int:
    from hookline.cli.progress import Progress

    stored = refused = duplicates = 0
    with Progress("publishing", quiet=to.json) as progress:
        for batch in _batches(source):
            body = b"".join(text for _, text in batch)
            answer = to.api.send_raw(
                "POST", path("events", "batch"), body, content_type="application/x-ndjson"
            )
            for (line, _), item in zip(batch, answer["data"], strict=True):
                _tell(item, line, to)
                refused += item["status"] >= 400
                stored += item["status"] < 400
                duplicates += bool(item.get("duplicate"))
            progress.advance(len(batch))
    to.done(f"{stored} published ({duplicates} of them were there already), {refused} refused")
    return EXIT_FAILED if refused else 0


def _tell(item: dict[str, Any], line: int, to: Target) -> None:
    if to.json:
        to.show(item)
    elif item["status"] >= 400:
        problem: dict[str, Any] = item.get("error") or {}
        text, faults = told(problem)
        output.complain(f"line {line}: {text or item['status']}", faults)


def _batches(source: BinaryIO) -> Iterator[list[tuple[int, bytes]]]:
    """The lines that are not blank with their numbers, in batches bounded in number and bytes."""
    batch: list[tuple[int, bytes]] = []
    size = 0
    for number, line in enumerate(source, 1):
        if not line.strip():
            continue
        if batch and (len(batch) == BATCH_ITEMS or size + len(line) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append((number, line.rstrip(b"\r\n") + b"\n"))
        size += len(line)
    if batch:
        yield batch
