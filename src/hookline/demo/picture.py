"""A picture of a run for the docs: the live view in the middle of the day, and the closing account."""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path
from types import TracebackType

from rich.console import Console

from hookline.demo import summary
from hookline.demo.ledger import Ledger
from hookline.demo.verdict import Report
from hookline.demo.view import LiveView

WIDTH = 106
MIDDAY = 0.55
"""The part of the day's events after which the view is kept: one receiver is away then."""
_FONTS = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace"


class Picture:
    """A view (see ``View``) that is seen only once it is saved."""

    def __init__(self, path: Path, ledger: Ledger, planned: int) -> None:
        self._path = path
        self._ledger = ledger
        self._planned = planned
        self._console = Console(
            record=True, width=WIDTH, file=StringIO(), force_terminal=True, color_system="truecolor"
        )
        self._live = LiveView(ledger, planned, self._console)
        self._kept = False

    def __enter__(self) -> Picture:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def update(self, phase: str) -> None:
        """See ``View``."""
        self._live.update(phase)
        if not self._kept and len(self._ledger.book.published) >= MIDDAY * self._planned:
            self._kept = True
            self._console.print(self._live.render())

    def save(self, report: Report) -> None:
        """Add the account and write the SVG, which needs nothing from elsewhere."""
        summary.show(report, self._console)
        svg = self._console.export_svg(title="scripts/demo", unique_id="demo")
        svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
        self._path.write_text(svg.replace("Fira Code, monospace", _FONTS), "utf-8")
