"""What was measured, in a file: ``benchmarks/run … --figures FILE`` writes it, the capacity page computes from it."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
from msgspec import Struct, field


class Row(Struct, frozen=True, kw_only=True):
    """One measurement, for each event: events/s, CPU microseconds by who used them, bytes."""

    rate: float
    cpu: dict[str, float]
    wal: float = 0.0
    disk: float = 0.0
    network: float = 0.0
    fan: int = 1
    tenants: int = 1


class Figures(Struct, kw_only=True):
    """All that one file has. ``steps``: single figures, by name."""

    machine: str = ""
    taken: str = ""
    quick: bool = False
    rows: dict[str, Row] = field(default_factory=dict[str, Row])
    steps: dict[str, float] = field(default_factory=dict[str, float])


def median(rows: Iterable[Row]) -> Row:
    """Each figure the median of that figure in ``rows``, which measured the same."""
    listed = list(rows)
    first = listed[0]
    return Row(
        rate=statistics.median(row.rate for row in listed),
        cpu={name: statistics.median(row.cpu[name] for row in listed) for name in first.cpu},
        wal=statistics.median(row.wal for row in listed),
        disk=statistics.median(row.disk for row in listed),
        network=statistics.median(row.network for row in listed),
        fan=first.fan,
        tenants=first.tenants,
    )


def describe(row: Row, floor: float = 0.0) -> str:
    """A line for people. ``floor``: CPU microseconds that the libraries alone need."""
    ours = {name: value for name, value in row.cpu.items() if name not in OTHERS}
    others = [f"{name} {value:.1f}" for name, value in row.cpu.items() if name in OTHERS]
    text = f"{sum(ours.values()):.1f} us CPU per event of ours"
    if len(ours) > 1:
        text += f" ({' + '.join(f'{name} {value:.1f}' for name, value in ours.items())})"
    if others:
        text += f", {', '.join(others)}"
    text += f"; {row.rate:,.0f} events/s"
    if row.wal:
        text += f"; bytes per event: WAL {row.wal:,.0f}, disk {row.disk:,.0f}, network {row.network:,.0f}"
    return text + (f"; floor/ours {floor / sum(ours.values()):.2f}" if floor else "")


OTHERS = frozenset({"postgres", "nats", "shop"})
"""Whose CPU is not that of our processes: the log's database, the bus, the database with the outbox."""


def save(path: Path | None, found: Figures) -> None:
    """Put what was found into the file, in place of what it has under the same names."""
    if path is None:
        return
    known = load(path) if path.exists() else Figures()
    known.machine, known.taken, known.quick = found.machine, found.taken, found.quick or known.quick
    known.rows |= {name: _rounded(row) for name, row in found.rows.items()}
    known.steps |= {name: _short(value) for name, value in found.steps.items()}
    path.write_bytes(msgspec.json.format(msgspec.json.encode(known), indent=1) + b"\n")


def load(path: Path) -> Figures:
    """Raises ``msgspec.ValidationError`` if the file is not ours."""
    return msgspec.json.decode(path.read_bytes(), type=Figures)


def _rounded(row: Row) -> Row:
    numbers = {name: _short(getattr(row, name)) for name in ("rate", "wal", "disk", "network")}
    return msgspec.structs.replace(row, cpu=_all_short(row.cpu), **numbers)


def _all_short(values: Mapping[str, float]) -> dict[str, float]:
    return {name: _short(value) for name, value in values.items()}


def _short(value: float) -> float:
    return round(value, 2) if value < 100 else float(round(value))
