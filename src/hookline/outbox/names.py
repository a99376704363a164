"""The names of an outbox's tables, fit to stand in SQL."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hookline.outbox.errors import InvalidName

TABLE = "hookline_outbox"

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,47}", re.ASCII)
"""48 letters, so that PostgreSQL's 63 are enough for the names made from it."""


@dataclass(frozen=True, slots=True)
class Names:
    """The tables of one outbox. Without a schema they are looked for in the connection's search path.

    Raises ``InvalidName``. The properties are quoted, with their schema.
    """

    table: str = TABLE
    schema: str | None = None

    def __post_init__(self) -> None:
        for what, name in (("table", self.table), ("schema", self.schema)):
            if name is not None and not _NAME.fullmatch(name):
                raise InvalidName(
                    f"{what}: {name[:80]!r} cannot be used; take 1 to 48 letters out of A-Z a-z 0-9 _, no digit first"
                )

    @property
    def events(self) -> str:
        """The outbox itself."""
        return self._quoted(self.table)

    @property
    def dead(self) -> str:
        """Where the relay puts events that Hookline refused."""
        return self._quoted(self.dead_table)

    @property
    def stamp(self) -> str:
        """The function behind the trigger on PostgreSQL."""
        return self._quoted(self.trigger)

    @property
    def dead_table(self) -> str:
        """As ``dead``, plain."""
        return f"{self.table}_dead"

    @property
    def trigger(self) -> str:
        """The trigger on PostgreSQL, plain."""
        return f"{self.table}_stamp"

    def fill(self, statement: str) -> str:
        """Put the tables into a statement: for ``@events`` and ``@dead``."""
        return statement.replace("@events", self.events).replace("@dead", self.dead)

    def _quoted(self, name: str) -> str:
        return f'"{name}"' if self.schema is None else f'"{self.schema}"."{name}"'
