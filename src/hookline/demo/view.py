"""The live view: a table on a terminal, a plain line every few seconds elsewhere, or nothing."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterable
from types import TracebackType
from typing import Protocol

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hookline.demo.ledger import Ledger, Tally, percentile

_BARS = "▁▂▃▄▅▆▇█"
_HISTORY = 24
_PLAIN_EVERY = 3.0


class View(Protocol):
    """Shows how the day goes."""

    def update(self, phase: str) -> None:
        """Show the present figures; ``phase`` says what is going on."""
        ...

    def __enter__(self) -> View: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def make_view(live: bool, ledger: Ledger, planned: int) -> View:
    """The table on stdout, or else plain lines on stderr."""
    return LiveView(ledger, planned) if live else PlainView(ledger, planned)


class PlainView:
    """One line every few seconds, and one whenever the phase changes."""

    def __init__(self, ledger: Ledger, planned: int) -> None:
        self._ledger = ledger
        self._planned = planned
        self._shown_at = 0.0
        self._phase = ""

    def __enter__(self) -> PlainView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def update(self, phase: str) -> None:
        """See ``View``."""
        now = time.monotonic()
        if phase == self._phase and now < self._shown_at + _PLAIN_EVERY:
            return
        self._shown_at, self._phase = now, phase
        print(line(phase, self._ledger, self._planned), file=sys.stderr, flush=True)


def line(phase: str, ledger: Ledger, planned: int) -> str:
    """The figures of all receivers together, in one line."""
    tallies = ledger.tallies.values()
    delivered = sum(len(tally.delivered) for tally in tallies)
    expected = sum(tally.expected for tally in tallies)
    waiting = ", ".join(f"{tally.role.name} {tally.backlog}" for tally in tallies if tally.backlog)
    text = f"{phase}: published {len(ledger.book.published)}/{planned}, delivered {delivered}/{expected}"
    return f"{text}, waiting: {waiting}" if waiting else text


class LiveView:
    """The table, redrawn a few times a second."""

    def __init__(self, ledger: Ledger, planned: int, console: Console | None = None) -> None:
        self._ledger = ledger
        self._planned = planned
        self._phase = ""
        self._history = {name: _Pulse() for name in ledger.tallies}
        self._console = console or Console()
        self._live = Live(console=self._console, get_renderable=self.render, refresh_per_second=8)

    def __enter__(self) -> LiveView:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def update(self, phase: str) -> None:
        """See ``View``."""
        self._phase = phase
        for name, tally in self._ledger.tallies.items():
            self._history[name].beat(len(tally.delivered))

    def render(self) -> RenderableType:
        """The view as it is now."""
        published = len(self._ledger.book.published)
        head = Text.assemble(
            ("hookline demo", "bold"), "  ", self._phase, f"  {published}/{self._planned} events"
        )
        bar = ProgressBar(total=max(1, self._planned), completed=published, width=60)
        return Group(head, bar, self._table())

    def _table(self) -> Table:
        """As many columns as fit: first the words go, then the bars, then the times."""
        width = self._console.width
        numbers = _NUMBERS if width >= FULL_WIDTH else _NUMBERS[:_COUNTS]
        table = compact_table()
        table.add_column("receiver", no_wrap=True)
        for title in numbers:
            table.add_column(title, justify="right", no_wrap=True)
        if width >= 105:
            table.add_column("deliveries", no_wrap=True)
        if width >= 160:
            table.add_column("what it does", no_wrap=True)
        for name, tally in self._ledger.tallies.items():
            bars = Text(sparkline(self._history[name].counts), style="cyan")
            cells = [*_cells(tally), bars, Text(tally.role.purpose, style="dim")]
            table.add_row(*cells[: len(table.columns)])
        return table


FULL_WIDTH = 78
"""Letters of a terminal that has room for all numbers of the day."""
_COUNTS = 5
"""Of the numbers, those that a narrower one shows."""
_NUMBERS = ("matched", "delivered", "verified", "waiting", "retries", "last", "p50", "p99")


def compact_table(show_footer: bool = False) -> Table:
    """A table whose eleven columns fit a terminal of 80."""
    return Table(header_style="bold", box=SIMPLE_HEAD, padding=0, pad_edge=False, show_footer=show_footer)


def _cells(tally: Tally) -> list[Text]:
    backlog, last = tally.backlog, tally.last_status
    return [
        Text(tally.role.name, style="red" if tally.unverified else "bold"),
        Text(str(tally.expected)),
        Text(str(len(tally.delivered)), style="green"),
        Text(str(tally.verified)),
        Text(str(backlog), style="yellow" if backlog > 20 else ""),
        Text(str(tally.retries)),
        Text(str(last or "-"), style="green" if 200 <= last < 300 else "red"),
        Text(milliseconds(percentile(tally.recent, 0.5))),
        Text(milliseconds(percentile(tally.recent, 0.99))),
    ]


def milliseconds(micros: int) -> str:
    """``12.3``; whole milliseconds from a hundred on."""
    value = micros / 1000
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


class _Pulse:
    """Deliveries in each of the last half seconds."""

    def __init__(self) -> None:
        self.counts: deque[int] = deque([0] * _HISTORY, maxlen=_HISTORY)
        self._total = 0
        self._since = time.monotonic()

    def beat(self, total: int) -> None:
        if time.monotonic() - self._since < 0.5:
            return
        self._since = time.monotonic()
        self.counts.append(total - self._total)
        self._total = total


def sparkline(counts: Iterable[int]) -> str:
    """One block for each count, the tallest for the largest."""
    heights = list(counts)
    most = max(heights, default=0) or 1
    return "".join(_BARS[round(height / most * (len(_BARS) - 1))] if height else " " for height in heights)
