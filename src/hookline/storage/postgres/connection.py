"""Connections to the server, and what their errors mean to the callers."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol, cast

import asyncpg
from msgspec import Struct

from hookline.core.errors import CommitUnknown, StorageUnavailable

Row = Sequence[Any]

IDLE_SECONDS = 5.0
"""How long a transaction may wait for its client. One that stands still must not keep its locks: others could not take
over what it held within the life of a lease."""

STATEMENTS = 200
"""Statements that a connection keeps prepared; all of ours fit."""

PLANNING = {
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}
"""Every statement has an index that gives its rows in order, a few at a time. PostgreSQL prefers other ways as long as
it has no statistics of a table, which is so with each new day's partition for its first minutes: a page of the log
would sort all that comes after it."""

UNAVAILABLE = {
    "08",  # connection exceptions
    "25",  # read-only transaction, transaction left idle
    "28",  # the user or its password is refused
    "3D",  # no such database
    "40",  # serialization failure, deadlock
    "53",  # out of disk, memory or connections
    "55",  # a lock was not to be had in time
    "57",  # shut down, cancelled, not yet started
    "58",  # the system failed
    "XX",  # the server failed
}
"""Classes of SQLSTATE that are trouble with the server, not a mistake of ours."""

FORBIDDEN = "42501"
"""The user may not do that: it does not own the schema."""

LOST = {"57P01", "57P02", "57P03", "57P05", "25P03"}
"""The server ended the session, or did not begin it."""

ROLLED_BACK = {"40001", "40P01"}
"""The server undid the transaction in favour of another; it can be tried again."""


class Connection(Protocol):
    """What statements need of a connection."""

    async def fetch(self, query: str, *args: object) -> list[Row]: ...

    async def fetchrow(self, query: str, *args: object) -> Row | None: ...

    async def fetchval(self, query: str, *args: object) -> Any: ...

    async def execute(self, query: str, *args: object) -> str:
        """The command's tag, such as ``DELETE 3``."""
        ...


class Session(Connection, Protocol):
    """A connection with its life."""

    def is_closed(self) -> bool: ...

    def is_in_transaction(self) -> bool: ...

    def get_server_pid(self) -> int: ...

    def terminate(self) -> None: ...

    async def close(self, *, timeout: float | None = None) -> None: ...

    async def add_listener(self, channel: str, callback: Callable[..., None]) -> None: ...

    def add_termination_listener(self, callback: Callable[[Any], None]) -> None: ...


class Link(Struct, frozen=True):
    """How to connect. Behind a ``pooler`` that lends a server connection for one transaction at a time, nothing may
    depend on a session: no prepared statements that outlive a transaction, no settings of the session.

    ``connect_timeout`` and ``timeout`` (of a statement) are seconds.
    """

    dsn: str
    pooler: bool = False
    connect_timeout: float = 5.0
    timeout: float = 20.0
    name: str = "hookline"
    lock_timeout: float = 0.0
    """Seconds to wait for a row that somebody else holds; 0: as long as a statement may take."""

    async def connect(self) -> Session:
        """A new connection. Raises ``StorageUnavailable``, also for an address that cannot be one."""
        try:
            async with asyncio.timeout(self.connect_timeout):
                opened = await asyncpg.connect(
                    self.dsn,
                    timeout=self.connect_timeout,
                    command_timeout=self.timeout,
                    statement_cache_size=0 if self.pooler else STATEMENTS,
                    max_cached_statement_lifetime=0,
                    server_settings=self._settings(),
                )
        except Exception as error:
            raise _unreached(error) from error
        return cast("Session", opened)

    def _settings(self) -> dict[str, str]:
        """Of the session."""
        name = {"application_name": self.name}
        return name if self.pooler else name | PLANNING | self._timeouts()

    def _timeouts(self) -> dict[str, str]:
        idle = min(IDLE_SECONDS, self.timeout)
        seconds = {
            "statement_timeout": self.timeout,
            "idle_in_transaction_session_timeout": idle,
            "lock_timeout": self.lock_timeout,
        }
        return {name: str(int(value * 1000)) for name, value in seconds.items()}

    def begin(self, mode: str) -> str:
        """What begins a transaction; behind a pooler it brings the settings with it."""
        settings = PLANNING | self._timeouts() if self.pooler else {}
        local = [f"; SET LOCAL {name} = {value}" for name, value in settings.items()]
        return f"BEGIN ISOLATION LEVEL {mode}{''.join(local)}"


def sqlstate(error: BaseException) -> str:
    """The five letters that name a server's error; empty for any other error."""
    return getattr(error, "sqlstate", None) or "" if isinstance(error, asyncpg.PostgresError) else ""


def told(error: Exception) -> Exception:
    """The error as callers shall see it: trouble with the server or the way to it is ``StorageUnavailable``; an error
    of our own tree, or a mistake in our code, is itself."""
    trouble = isinstance(error, OSError | TimeoutError | asyncpg.InterfaceError | asyncpg.InternalClientError)
    mistake = isinstance(error, asyncpg.DataError)
    if sqlstate(error) == FORBIDDEN:
        return _unavailable(
            error, ": the user of the database URL must own the schema hookline and its tables"
        )
    if mistake or not (trouble or sqlstate(error)[:2] in UNAVAILABLE):
        return error
    return _unavailable(error)


def _unreached(error: Exception) -> Exception:
    """The same of an error while connecting: no statement of ours can be at fault, but what the URL asks for can."""
    at_fault = (
        isinstance(error, ValueError | asyncpg.PostgresError) and sqlstate(error)[:2] not in UNAVAILABLE
    )
    return _unavailable(error, " (look at the database URL)") if at_fault else told(error)


def _unavailable(error: Exception, hint: str = "") -> StorageUnavailable:
    reason = (
        " ".join(str(error).split()) or type(error).__name__
    )  # hints of the driver stand in lines of their own
    unavailable = StorageUnavailable(f"the storage failed: {reason}{hint}")
    unavailable.__cause__ = error
    return unavailable


def is_lost(error: BaseException | None) -> bool:
    """Whether the connection broke: what was under way on it was not answered. A time-out is none of that: trying
    again would only take as long again."""
    if isinstance(error, TimeoutError):
        return False
    state = sqlstate(error or Exception())
    return isinstance(error, OSError) or is_unsent(error) or state[:2] == "08" or state in LOST


def is_unsent(error: BaseException | None) -> bool:
    """Whether the driver found the connection broken before it sent anything."""
    unsent = isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError)
    return unsent and not isinstance(error, asyncpg.DataError)


def is_rolled_back(error: BaseException | None) -> bool:
    """Whether the server undid the transaction so that another could go on."""
    return sqlstate(error or Exception()) in ROLLED_BACK


def is_taken(error: BaseException, table: str) -> bool:
    """Whether a row of ``table`` with the same key exists."""
    return isinstance(error, asyncpg.UniqueViolationError) and error.table_name == table


def missing_day(error: BaseException | None) -> int | None:
    """The day whose partition a row did not find, if that is what went wrong."""
    if not isinstance(error, asyncpg.CheckViolationError):
        return None
    found = _FAILING_DAY.search(error.detail or "")
    return int(found[1]) if found else None


def is_unwritable(error: BaseException | None) -> bool:
    """Whether a text has letters that PostgreSQL cannot store."""
    return isinstance(error, asyncpg.CharacterNotInRepertoireError | UnicodeEncodeError | asyncpg.DataError)


def is_storable(*values: object) -> bool:
    """Whether rows can hold all texts among these. PostgreSQL refuses the others even in a question, so what they name
    is not there and must not be asked for."""
    return not any(isinstance(value, str) and _UNSTORABLE.search(value) for value in values)


async def look_up(db: Connection, query: str, *arguments: object) -> Row | None:
    """The first row, if there is one; none for a name that no row can hold."""
    return await db.fetchrow(query, *arguments) if is_storable(*arguments) else None


_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_FAILING_DAY = re.compile(r"\(day\) = \((-?\d+)\)")

COMMITTED = "READ COMMITTED"
SNAPSHOT = "REPEATABLE READ READ ONLY"
"""Modes of a transaction."""


@asynccontextmanager
async def transaction(db: Session, link: Link, mode: str = COMMITTED) -> AsyncGenerator[None]:
    """All inside happens, or nothing. Raises ``CommitUnknown`` if the answer to the commit is lost."""
    await db.execute(link.begin(mode))
    try:
        yield
    except BaseException:
        await _roll_back(db)
        raise
    try:
        await db.execute("COMMIT")
    except Exception as error:
        if is_lost(error) or isinstance(error, TimeoutError):
            raise CommitUnknown("the connection was lost; whether it was stored is not known") from error
        raise


async def _roll_back(db: Session) -> None:
    if db.is_closed() or not db.is_in_transaction():
        return
    with contextlib.suppress(Exception):  # what failed before tells more; the connection goes
        await db.execute("ROLLBACK")
        return
    db.terminate()
