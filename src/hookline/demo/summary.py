"""The closing account, for people and for programs."""

from __future__ import annotations

import msgspec
from rich.console import Console
from rich.table import Table

from hookline.demo.verdict import Report, Row
from hookline.demo.view import compact_table, milliseconds


def as_json(report: Report) -> str:
    """The report as one JSON object, with ``ok``."""
    fields = {"ok": report.ok, **msgspec.to_builtins(report)}
    return msgspec.json.format(msgspec.json.encode(fields), indent=2).decode()


def show(report: Report, console: Console) -> None:
    """The table, what was published, and the verdict."""
    console.print(_table(report))
    console.print(
        f"published {report.published} of {report.planned} events ({report.batches} batches); "
        f"{report.duplicates_sent} sent twice on purpose, {report.duplicates_refused} told as duplicates"
    )
    steady = report.rows[0]
    console.print(
        f"from publishing to receipt: {_times(steady)} at {steady.name}, which is always well; {_times(report)} "
        "at all, with outage and retries"
    )
    if report.ok:
        console.print(
            "[green]Nothing lost, everything verified, no gaps, nothing out of order; "
            "the server's log and the receivers' notes agree.[/green]"
        )
    for fault in report.faults:
        console.print(f"FAULT {fault}", style="red", markup=False)


def _times(account: Report | Row) -> str:
    return f"p50 {milliseconds(account.p50_us)} ms, p99 {milliseconds(account.p99_us)} ms"


def _table(report: Report) -> Table:
    table = compact_table(show_footer=True, caption="times from publishing to receipt, in ms")
    totals = _totals(report)
    table.add_column("receiver", footer="all", no_wrap=True)
    for title, footer in zip(_TITLES, totals, strict=True):
        table.add_column(title, justify="right", footer=footer, no_wrap=True)
    for row in report.rows:
        table.add_row(row.name, *_figures(row), style="" if row.log_agrees else "red")
    return table


_TITLES = ("due", "delivered", "verified", "extra", "gaps", "swaps", "retries", "p50", "p99", "log")


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
