"""Tables for a terminal: what fits, unbroken; what does not fit is left out, and that is said."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence

from hookline.cli.output import note, put

GAP = 2
NARROW = 12
"""To so many letters a column of free text may shrink; all others keep what they hold in one piece."""
UNBROKEN = 40
"""What is longer, or has a space in it, may go over several lines."""

_UTC = " (UTC)"
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)\.\d{3}Z")


def show(rows: Sequence[Sequence[str]], headings: Sequence[str]) -> None:
    """Print the rows. If the terminal is narrow, columns are left out, the later ones first."""
    if not rows:
        note("none")
        return
    columns = [_Column(heading, [row[at] for row in rows]) for at, heading in enumerate(headings)]
    filled = [column for column in columns if any(column.cells)]
    width = shutil.get_terminal_size().columns
    shown = _fitting(filled, width)
    _print(shown, width)
    _tell_left_out([column.heading for column in filled if column not in shown])


class _Column:
    """A heading and its cells; times without their thousandths."""

    def __init__(self, heading: str, cells: Sequence[str]) -> None:
        self.cells = [_TIME.sub(r"\1 \2", cell) for cell in cells]
        is_time = any(shortened != cell for shortened, cell in zip(self.cells, cells, strict=True))
        self.heading = f"{heading}{_UTC}" if is_time else heading
        longest = max(self.cells, key=len)
        self.breaks = not is_time and any(len(cell) > UNBROKEN or " " in cell for cell in self.cells)
        self.least = max(len(heading), min(NARROW, len(longest))) if self.breaks else self.widest
        self.is_number = all(cell.isdecimal() for cell in self.cells if cell)

    @property
    def widest(self) -> int:
        return max(len(self.heading), *map(len, self.cells))


def _fitting(columns: list[_Column], width: int) -> list[_Column]:
    """Each that still has room beside those before it; the first in any case."""
    kept, room = columns[:1], width - columns[0].least
    for column in columns[1:]:
        if column.least + GAP <= room:
            room -= column.least + GAP
            kept.append(column)
    return kept


def _print(columns: Sequence[_Column], width: int) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(
            column.heading,
            justify="right" if column.is_number else "left",
            overflow="fold",
            no_wrap=not column.breaks,
            min_width=column.least,
        )
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*map(Text, cells))
    Console(width=width).print(table)


class Stream:
    """A table that grows while it is printed: each column is as wide as the widest cell so far.

    Columns that were empty so far, or have no room, are left out. When others are shown than before, there is a new
    heading.
    """

    def __init__(self, headings: Sequence[str]) -> None:
        self._headings = list(headings)
        self._widths = [0] * len(headings)
        self._shown: list[int] = []

    def add(self, rows: Sequence[Sequence[str]]) -> None:
        """Print rows."""
        if not rows:
            return
        lines = [self._line(row) for row in rows]
        room = shutil.get_terminal_size().columns
        filled = [at for at, width in enumerate(self._widths) if width]
        shown = self._fitting(filled, room)
        if shown != self._shown:
            self._shown = shown
            _tell_left_out([self._headings[at] for at in filled if at not in shown])
            self._put(self._headings, room)
        for line in lines:
            self._put(line, room)

    def _line(self, row: Sequence[str]) -> list[str]:
        line: list[str] = []
        for at, cell in enumerate(row):
            text = _TIME.sub(r"\1 \2", cell)
            if text != cell:
                self._headings[at] = f"{self._headings[at].removesuffix(_UTC)}{_UTC}"
            if text:
                self._widths[at] = max(self._widths[at], len(text), len(self._headings[at]))
            line.append(text)
        return line

    def _fitting(self, filled: Sequence[int], room: int) -> list[int]:
        """Each that still has room beside those before it; the first in any case."""
        shown: list[int] = []
        for at in filled:
            if not shown or self._widths[at] <= room:
                shown.append(at)
                room -= self._widths[at] + GAP
        return shown

    def _put(self, line: Sequence[str], room: int) -> None:
        cells = (line[at].ljust(self._widths[at] + GAP) for at in self._shown)
        put("".join(cells).rstrip()[:room])


def _tell_left_out(headings: Sequence[str]) -> None:
    if headings:
        note(f"(no room for {', '.join(headings)}: widen the terminal, or use --json)")
