"""What the relay is told. Durations are seconds, sizes are bytes."""

from __future__ import annotations

from msgspec import Struct

from hookline.core.errors import Fault, SettingsInvalid
from hookline.outbox.errors import InvalidName
from hookline.outbox.names import TABLE, Names


class OutboxOptions(Struct, frozen=True, kw_only=True):
    """Where the outbox is, and how fast it is emptied.

    ``url`` is ``postgresql://…`` or ``sqlite:///path``; the name of a driver in it (``postgresql+asyncpg``) is
    left out. ``tenant`` is for events that name none.
    """

    url: str
    table: str = TABLE
    schema: str | None = None
    tenant: str = ""
    batch: int = 500
    """Rows that are read at a time: what the publisher puts into one commit."""
    batch_bytes: int = 4 << 20
    """A batch ends with the event that reaches it."""
    poll: float = 0.5
    """The longest time between two looks into an empty outbox."""

    @property
    def kind(self) -> str:
        """``postgresql`` or ``sqlite``. Raises ``SettingsInvalid`` for anything else."""
        scheme, mark, _ = self.url.partition("://")
        kind = scheme.partition("+")[0]
        if mark and kind in ("postgresql", "postgres"):
            return "postgresql"
        if mark and kind == "sqlite":
            return "sqlite"
        raise _invalid("must begin with postgresql:// or sqlite:///")

    @property
    def address(self) -> str:
        """The URL without the name of a driver; of SQLite, the path."""
        scheme, _, rest = self.url.partition("://")
        if self.kind == "sqlite":
            return rest.removeprefix("/")
        return f"{scheme.partition('+')[0]}://{rest}"

    @property
    def names(self) -> Names:
        """The tables. Raises ``SettingsInvalid``."""
        try:
            return Names(self.table, self.schema or None)
        except InvalidName as error:
            raise _invalid(str(error)) from error


def _invalid(message: str) -> SettingsInvalid:
    return SettingsInvalid("the outbox cannot be used", [Fault("outbox", message)])
