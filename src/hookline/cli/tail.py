"""Following what happens."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

from hookline.cli import deliveries, events, output, table
from hookline.cli.client import PAGE, path
from hookline.cli.output import Columns
from hookline.cli.target import Target

MOST_AT_ONCE = 5_000
"""Items that one look prints at most; a note tells when more have come."""


def tail(
    *,
    subscription: str = "",
    type: str = "",
    last: int = 10,
    every: float = 1.0,
    to: Target = Target(),
) -> None:
    """Follow new events, or with --subscription its deliveries, until Ctrl-C.

    Parameters
    ----------
    subscription
        Follow the deliveries of this subscription: each is shown again when its state changes.
    type
        Only events of this type.
    last
        Begin with so many that are there already.
    every
        Seconds between two looks.
    """
    if subscription:
        where, columns = path("subscriptions", subscription, "deliveries"), deliveries.COLUMNS
        looks = _changes(to, where, last)
    else:
        columns = events.COLUMNS
        looks = _arrivals(to, path("events"), {"type": type} if type else {}, last)
    _follow(looks, columns, every, to)


def _follow(looks: Iterator[list[dict[str, Any]]], columns: Columns, every: float, to: Target) -> None:
    stream = table.Stream(list(columns)) if sys.stdout.isatty() and not to.json else None
    if not stream and not to.json:
        output.put("\t".join(columns))
    for items in looks:
        if stream:
            stream.add([[output.cell(item, path) for path in columns.values()] for item in items])
        else:
            for item in items:
                _put(item, columns, to)
        time.sleep(max(every, 0.05))


def _put(item: dict[str, Any], columns: Columns, to: Target) -> None:
    if to.json:
        to.show(item)
    else:
        output.put(output.row(item, columns))


def _arrivals(to: Target, where: str, query: dict[str, str], last: int) -> Iterator[list[dict[str, Any]]]:
    """For each look, the events above the highest position seen, oldest first."""
    newest = list(to.api.pages(where, query, max(last, 1)))
    seen = newest[0]["position"] if newest else 0
    yield newest[:last][::-1]
    while True:
        fresh: list[dict[str, Any]] = []
        for item in islice(to.api.pages(where, query, 0), MOST_AT_ONCE):
            if item["position"] <= seen:
                break
            fresh.append(item)
        if len(fresh) == MOST_AT_ONCE:
            output.note(f"more than {MOST_AT_ONCE} events came at once; some are not shown")
        seen = fresh[0]["position"] if fresh else seen
        yield fresh[::-1]


def _changes(to: Target, where: str, last: int) -> Iterator[list[dict[str, Any]]]:
    """For each look, those of the newest deliveries that are new or changed, oldest first."""
    seen: dict[str, tuple[object, ...]] = {}
    shown = last
    while True:
        page = list(to.api.pages(where, None, PAGE))
        now = {item["id"]: (item["state"], item["attempts"]) for item in page}
        changed = [item for item in page if seen.get(item["id"]) != now[item["id"]]]
        seen = now
        yield changed[:shown][::-1]
        shown = PAGE
