"""The outbox itself: a table in the user's own database, written in the user's own transaction."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast, overload

from hookline.outbox.drivers import driver_of
from hookline.outbox.errors import Fault, InvalidEvent
from hookline.outbox.event import MAX_BYTES, Defaults, Event, Source, row_of, rows_of, source_faults
from hookline.outbox.names import TABLE, Names
from hookline.outbox.schema import removal, statements

if TYPE_CHECKING:
    from sqlalchemy import MetaData, Table

T = TypeVar("T")


class _Result(Protocol):
    def fetchall(self) -> Any: ...


class AsyncConnection(Protocol):
    """``AsyncSession`` and ``AsyncConnection`` of SQLAlchemy 2, ``AsyncConnection`` of psycopg 3, those of asyncpg."""

    def execute(self, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]: ...


class SyncConnection(Protocol):
    """``Session`` and ``Connection`` of SQLAlchemy 2, ``Connection`` of psycopg 3 and sqlite3."""

    def execute(self, *args: Any, **kwargs: Any) -> _Result: ...


class Outbox:
    """One outbox table, and what its events have in common.

    ``tenant`` and ``source`` are for events that state none. ``max_bytes`` is the largest event that the server takes
    (``HOOKLINE_MAX_EVENT_BYTES``). Raises ``InvalidName`` and ``InvalidEvent`` for what can never work.
    """

    def __init__(
        self,
        *,
        table: str = TABLE,
        schema: str | None = None,
        tenant: str = "",
        source: Source | None = None,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.names = Names(table, schema)
        self._defaults = Defaults(tenant, source, max_bytes)
        faults: list[Fault] = list(source_faults(source))
        if faults:
            raise InvalidEvent(faults)

    @overload
    def publish(self, connection: AsyncConnection, event: Event) -> Coroutine[Any, Any, str]: ...

    @overload
    def publish(self, connection: SyncConnection, event: Event) -> str: ...

    def publish(
        self, connection: AsyncConnection | SyncConnection, event: Event
    ) -> str | Coroutine[Any, Any, str]:
        """Write the event in the transaction that is open on ``connection``; its id. To be awaited if that is.

        The event exists if that transaction commits, and only then. Nothing is committed here. Raises
        ``InvalidEvent``, ``UnsupportedConnection``, ``NoTransaction``, and the driver's own errors.
        """
        driver = driver_of(connection)
        row = row_of(event, self._defaults)
        return _then(driver.insert(connection, self.names, [row]), row.id)

    @overload
    def publish_batch(
        self, connection: AsyncConnection, events: Sequence[Event]
    ) -> Coroutine[Any, Any, list[str]]: ...

    @overload
    def publish_batch(self, connection: SyncConnection, events: Sequence[Event]) -> list[str]: ...

    def publish_batch(
        self, connection: AsyncConnection | SyncConnection, events: Sequence[Event]
    ) -> list[str] | Coroutine[Any, Any, list[str]]:
        """As ``publish``, for several events at once, which keep their order; their ids."""
        driver = driver_of(connection)
        rows = rows_of(events, self._defaults)
        ids = [row.id for row in rows]
        return _then(driver.insert(connection, self.names, rows), ids)

    @overload
    def create_table(self, connection: AsyncConnection) -> Coroutine[Any, Any, None]: ...

    @overload
    def create_table(self, connection: SyncConnection) -> None: ...

    def create_table(self, connection: AsyncConnection | SyncConnection) -> Coroutine[Any, Any, None] | None:
        """Make the tables where they are missing. On PostgreSQL that is a part of the open transaction."""
        driver = driver_of(connection)
        made = statements(self.names, driver.dialect(connection))
        return _then(driver.execute(connection, made), None)

    @overload
    def drop_table(self, connection: AsyncConnection) -> Coroutine[Any, Any, None]: ...

    @overload
    def drop_table(self, connection: SyncConnection) -> None: ...

    def drop_table(self, connection: AsyncConnection | SyncConnection) -> Coroutine[Any, Any, None] | None:
        """Remove the tables, with events that nobody has relayed yet: for the way back in a migration."""
        driver = driver_of(connection)
        return _then(driver.execute(connection, removal(self.names, driver.dialect(connection))), None)

    def statements(self, dialect: str) -> tuple[str, ...]:
        """The SQL of ``create_table`` for ``postgresql`` or ``sqlite``, one statement each."""
        return statements(self.names, dialect)

    def table(self, metadata: MetaData) -> Table:
        """The outbox as a table of SQLAlchemy's ``metadata``, beside the one for dead letters.

        ``metadata.create_all`` makes all of it. Alembic's autogenerate leaves the tables alone then; it does not know
        PostgreSQL's trigger, so let the migration call ``create_table(op.get_bind())``.
        """
        made = import_module("hookline.outbox.metadata").table_in(metadata, self.names)
        return cast("Table", made)


def _then(running: Coroutine[Any, Any, None] | None, value: T) -> T | Coroutine[Any, Any, T]:
    """``value``, now or after what has to be awaited."""
    return value if running is None else _after(running, value)


async def _after(running: Coroutine[Any, Any, None], value: T) -> T:
    await running
    return value


_default = Outbox()

publish = _default.publish
publish_batch = _default.publish_batch
create_table = _default.create_table
drop_table = _default.drop_table
outbox_table = _default.table
