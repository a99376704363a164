"""The tables of docs/scale.md: what so many events a second would need, computed from what was measured.

``python -m benchmarks.capacity`` prints them, ``--write`` puts them into the page. ``--figures`` takes the file of
another machine, ``--cores`` and ``--wal`` tell of another database server.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import ceil
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from benchmarks.figures import OTHERS, Figures, load

ROOT = Path(__file__).parent.parent
FIGURES = ROOT / "docs" / "figures" / "scale.json"
PAGE = ROOT / "docs" / "scale.md"

RATES = (1_000, 100_000, 1_000_000)
FANS = (1, 3, 10)
LATENCIES = (10, 50, 200, 1_000)
"""Milliseconds that an endpoint takes to answer."""
WINDOWS = (64, 1_000)
"""Requests in flight of a subscription: the default of ``max_in_flight``, and the most it can be."""
SLICES = (1, 2, 4, 16, 64)
DAY = 86_400
APPENDS = "4 at once to 64 shards, events/s"
"""What all appends together come to if each goes to every shard."""
ONE_SHARD = "4 at once to one shard, events/s"


class Assumed(Struct, frozen=True, kw_only=True):
    """What was not measured: one database server, and how far anything is loaded."""

    cores: int = 32
    wal: float = 300e6
    """Bytes of WAL a second that it writes and its standbys follow."""
    load: float = 0.6
    """The part of a core, or of the WAL, that is planned with; the rest is for bursts, take-overs and maintenance."""


class Need(Struct, frozen=True):
    """For one rate and fan-out: cores that are busy, and bytes a second."""

    api: float
    delivery: float
    database: float
    wal: float
    disk: float
    network: float


def need(figures: Figures, rate: float, fan: int) -> Need:
    """``rate`` events a second, each to ``fan`` endpoints."""
    row = figures.rows[f"fan-out {fan}"]
    return Need(
        api=rate * figures.rows["api + delivery"].cpu["api"] / 1e6,
        delivery=rate * row.cpu["delivery"] / 1e6,
        database=rate * row.cpu["postgres"] / 1e6,
        wal=rate * row.wal,
        disk=rate * row.disk,
        network=rate * row.network,
    )


def most(figures: Figures, fan: int, assumed: Assumed) -> dict[str, float]:
    """Events a second that one database server carries, by what would end it; the least of them counts."""
    row = figures.rows[f"fan-out {fan}"]
    return {
        "cores": assumed.cores * assumed.load / row.cpu["postgres"] * 1e6,
        "WAL": assumed.wal * assumed.load / row.wal,
        "appends": figures.steps[APPENDS] * assumed.load,
    }


# --- tables ------------------------------------------------------------------------------------------------


def _table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _round(value: float) -> str:
    """Two digits that mean something; from a hundred on, whole numbers with three."""
    if value >= 100:
        digits = len(str(int(value))) - 3
        return f"{round(value, -digits):,.0f}"
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def _scaled(value: float, *units: str) -> str:
    """In the largest unit, a thousand apart, in which it is at least 1."""
    place = 0
    while value >= 1000 and place < len(units) - 1:
        value, place = value / 1000, place + 1
    return f"{_round(value)} {units[place]}"


def measured(figures: Figures, _: Assumed) -> str:
    """Every row, as it was measured."""

    def lines() -> Iterator[Sequence[str]]:
        for name, row in figures.rows.items():
            ours = {who: value for who, value in row.cpu.items() if who not in OTHERS}
            text = f"{sum(ours.values()):.0f}"
            if len(ours) > 1:
                text += f" ({' + '.join(f'{who} {value:.0f}' for who, value in ours.items())})"
            theirs = ", ".join(f"{who} {value:.0f}" for who, value in row.cpu.items() if who in OTHERS)
            sizes = [f"{value:,.0f}" if value else "" for value in (row.wal, row.disk, row.network)]
            yield name, text, theirs, f"{row.rate:,.0f}", *sizes

    head = ("row", "our CPU, µs", "others' CPU, µs", "per second", "WAL, B", "disk, B", "network, B")
    return _table(head, lines())


def steps(figures: Figures, _: Assumed) -> str:
    """Every single figure."""
    return _table(("step", "figure"), ((name, _figure(value)) for name, value in figures.steps.items()))


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def needs(figures: Figures, assumed: Assumed) -> str:
    """What each rate needs."""

    def lines() -> Iterator[Sequence[str]]:
        for rate in RATES:
            for fan in FANS:
                found = need(figures, rate, fan)
                yield (
                    f"{rate:,}", str(fan), _round(found.api), _round(found.delivery), _round(found.database),
                    _scaled(found.wal, "B/s", "kB/s", "MB/s", "GB/s"),
                    _scaled(found.disk * DAY, "B", "kB", "MB", "GB", "TB"),
                    _scaled(found.network * 8, "bit/s", "kbit/s", "Mbit/s", "Gbit/s"),
                )  # fmt: skip

    head = (
        "events/s",
        "fan-out",
        "API cores",
        "delivery cores",
        "PostgreSQL cores",
        "WAL",
        "disk a day",
        "network",
    )
    return _table(head, lines())


def provided(figures: Figures, assumed: Assumed) -> str:
    """The same as processes and servers, with room."""

    def lines() -> Iterator[Sequence[str]]:
        for rate in RATES:
            for fan in FANS:
                found, carried = need(figures, rate, fan), most(figures, fan, assumed)
                processes = [max(1, ceil(cores / assumed.load)) for cores in (found.api, found.delivery)]
                end = min(carried, key=lambda name: carried[name])
                clusters = f"{ceil(rate / carried[end]):,}"
                yield f"{rate:,}", str(fan), *(f"{count:,}" for count in processes), clusters, end

    head = (
        "events/s",
        "fan-out",
        "API processes",
        "delivery processes",
        "PostgreSQL clusters",
        "the first limit",
    )
    return _table(head, lines())


def limits(figures: Figures, assumed: Assumed) -> str:
    """Where one of a kind ends, loaded to the full."""

    def lines() -> Iterator[Sequence[str]]:
        full = replace(assumed, load=1.0)
        for fan in FANS:
            carried = most(figures, fan, full)
            yield (
                f"one PostgreSQL server's cores, fan-out {fan}",
                "cores ÷ its CPU",
                _per_second(carried["cores"]),
            )
            yield f"one PostgreSQL server's WAL, fan-out {fan}", "WAL/s ÷ WAL", _per_second(carried["WAL"])
        for name, kind in ((APPENDS, "appends that go to all shards"), (ONE_SHARD, "appends to one shard")):
            yield kind, "as measured", _per_second(figures.steps[name])
        yield from _processes(figures)

    return _table(("one", "formula, for an event", "at most"), lines())


def _per_second(value: float, what: str = "events") -> str:
    return f"{_round(value)} {what}/s"


def _processes(figures: Figures) -> Iterator[Sequence[str]]:
    formula = "one core ÷ its CPU"
    rows = figures.rows
    yield "API process, single POSTs", formula, _per_second(1e6 / rows["api + delivery"].cpu["api"])
    for fan in FANS:
        carried = fan * 1e6 / rows[f"fan-out {fan}"].cpu["delivery"]
        yield (
            f"delivery process, so also one slice, fan-out {fan}",
            formula,
            _per_second(carried, "deliveries"),
        )
    for way in ("bus", "outbox"):
        carried = 1e6 / rows[f"{way}, into the log"].cpu["api"]
        yield f"process that takes events from the {way}", formula, _per_second(carried)


def lanes(_: Figures, __: Assumed) -> str:
    """How fast one subscription can be."""
    head = ("the endpoint answers after", *(f"{size:,} in flight" for size in WINDOWS), "in strict order")
    return _table(
        head,
        (
            (f"{latency:,} ms", *(f"{_round(size / latency * 1000)}/s" for size in (*WINDOWS, 1)))
            for latency in LATENCIES
        ),
    )


def slices(figures: Figures, _: Assumed) -> str:
    """What it costs that the owner of each slice reads the shard's log for itself."""
    ours, theirs = figures.steps["read, our us"], figures.steps["read, server us"]
    row = figures.rows["fan-out 1"]
    whole = row.cpu["delivery"] + row.cpu["postgres"]

    def lines() -> Iterator[Sequence[str]]:
        for count in SLICES:
            more = [(count - 1) * part for part in (ours, theirs)]
            yield f"{count}", *(f"{value:.0f} µs" for value in more), f"{1 + sum(more) / whole:.1f}"

    head = ("slices of the shard", "more delivery CPU per event", "more PostgreSQL CPU per event", "times")
    return _table(head, lines())


def assumptions(_: Figures, assumed: Assumed) -> str:
    """What the tables take for granted."""
    rows = (
        ("cores of one PostgreSQL server", f"{assumed.cores}"),
        ("WAL that it can write", _scaled(assumed.wal, "B/s", "kB/s", "MB/s", "GB/s")),
        ("load that is planned with", f"{assumed.load:.0%}"),
    )
    return _table(("assumed, not measured", ""), iter(rows))


TABLES: Mapping[str, Callable[[Figures, Assumed], str]] = {
    "measured": measured,
    "steps": steps,
    "assumptions": assumptions,
    "needs": needs,
    "provided": provided,
    "limits": limits,
    "lanes": lanes,
    "slices": slices,
}


# --- the page ----------------------------------------------------------------------------------------------


def tables(figures: Figures, assumed: Assumed) -> dict[str, str]:
    """All of them, by name."""
    return {name: make(figures, assumed) for name, make in TABLES.items()}


def filled(page: str, made: Mapping[str, str]) -> str:
    """The page with the tables between their marks: ``<!-- table: name -->`` and ``<!-- end -->``."""

    def table(found: re.Match[str]) -> str:
        return f"{found[1]}\n{made[found[2]]}\n<!-- end -->"

    return re.sub(r"(<!-- table: (\w+) -->)\n.*?<!-- end -->", table, page, flags=re.DOTALL)


def main() -> None:
    """Print the tables, or put them into the page."""
    assumed = Assumed()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--figures", type=Path, default=FIGURES, metavar="FILE")
    parser.add_argument("--cores", type=int, default=assumed.cores, help="of one PostgreSQL server")
    parser.add_argument(
        "--wal", type=float, default=assumed.wal / 1e6, help="MB of WAL a second that it can write"
    )
    parser.add_argument(
        "--load", type=float, default=assumed.load, help="the part of it that is planned with"
    )
    parser.add_argument("--write", action="store_true", help="put them into docs/scale.md")
    options = parser.parse_args()
    given = Assumed(cores=options.cores, wal=options.wal * 1e6, load=options.load)
    made = tables(load(options.figures), given)
    if options.write:
        PAGE.write_text(filled(PAGE.read_text("utf-8"), made), "utf-8")
    else:
        print("\n\n".join(f"{name}\n\n{text}" for name, text in made.items()))


if __name__ == "__main__":
    main()
