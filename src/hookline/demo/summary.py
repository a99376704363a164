"""The closing account, for people and for programs."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from rich.console import Console
from rich.table import Table

from hookline.demo.verdict import Report, Row
from hookline.demo.view import FULL_WIDTH, compact_table, milliseconds


def as_json(report: Report) -> str:
    """The report as one JSON object, with ``ok``."""
    fields = {"ok": report.ok, **msgspec.to_builtins(report)}
    return msgspec.json.format(msgspec.json.encode(fields), indent=2).decode()


def show(report: Report, console: Console) -> None:
    """The table, what was published, and the verdict."""
    narrow = console.width < FULL_WIDTH
    console.print(_table(report, _SHORT if narrow else _TITLES))
    if narrow:
        missing = ", ".join(title for title in _TITLES if title not in _SHORT)
        console.print(f" (no room for {missing}: widen the terminal, or use --json)")
    console.print(_facts(report))
    console.print()
    if report.ok:
        console.print(
            " Nothing lost, everything verified, no gaps, nothing out of order.", style="bold green"
        )
        console.print(" The server's log and the receivers' notes agree.", style="green")
    for fault in report.faults:
        console.print(f" FAULT {fault}", style="bold red", markup=False, highlight=False)


def _facts(report: Report) -> Table:
    """A word and a short line for each, within 80 columns."""
    steady = report.rows[0]
    facts = Table.grid(padding=(0, 2, 0, 0))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column()
    batches = f", partly in {report.batches} batches" if report.batches else ""
    facts.add_row(" published", f"{report.published} of {report.planned} events{batches}")
    facts.add_row(
        " duplicates",
        f"{report.duplicates_sent} sent twice on purpose, {report.duplicates_refused} told as duplicates",
    )
    facts.add_row(" latency", f"{_times(steady)} at {steady.name}, which is always well")
    facts.add_row("", f"{_times(report)} at all, with outage and retries")
    return facts


def _times(account: Report | Row) -> str:
    return f"p50 {milliseconds(account.p50_us)} ms, p99 {milliseconds(account.p99_us)} ms"


def _table(report: Report, titles: Sequence[str]) -> Table:
    table = compact_table(show_footer=True)
    totals: dict[str, str] = dict(zip(_TITLES, _totals(report), strict=True))
    table.add_column("receiver", footer="all", no_wrap=True)
    for title in titles:
        table.add_column(title, justify="right", footer=totals[title], no_wrap=True)
    for row in report.rows:
        figures: dict[str, str] = dict(zip(_TITLES, _figures(row), strict=True))
        table.add_row(row.name, *(figures[title] for title in titles), style="" if row.log_agrees else "red")
    return table


_TITLES = ("due", "delivered", "verified", "extra", "gaps", "swaps", "retries", "p50", "p99", "log")
_SHORT = ("due", "delivered", "verified", "gaps", "swaps", "log")
"""What says whether anything is wrong, for a narrow terminal."""


def _figures(row: Row) -> list[str]:
    counts = (row.expected, row.delivered, row.verified, row.extra, row.gaps)
    return [
        *(str(count) for count in counts),
        str(row.disordered) if row.ordered else "-",
        str(row.retries),
        milliseconds(row.p50_us),
        milliseconds(row.p99_us),
        "yes" if row.log_agrees else "NO",
    ]


def _totals(report: Report) -> list[str]:
    counts = (
        report.expected,
        report.delivered,
        report.verified,
        report.extra,
        report.gaps,
        report.disordered,
    )
    agrees = all(row.log_agrees for row in report.rows)
    return [
        *(str(count) for count in counts),
        str(report.retries),
        milliseconds(report.p50_us),
        milliseconds(report.p99_us),
        "yes" if agrees else "NO",
    ]
