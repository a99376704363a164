"""A bounded pool of connections, and the ways to run work on one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import TypeVar

from hookline.core.errors import HooklineError, Overloaded, StorageUnavailable
from hookline.storage.postgres.connection import (
    SNAPSHOT,
    CommitUnknown,
    Connection,
    Link,
    Session,
    is_lost,
    is_rolled_back,
    is_unsent,
    missing_day,
    sqlstate,
    told,
    transaction,
)

T = TypeVar("T")
Work = Callable[[Connection], Awaitable[T]]

TRIES = 4
"""How often work is tried that the server undid in favour of other work."""
PAUSE = 0.01
"""Seconds before such a try; more before each further one."""


class Pool:
    """Up to ``size`` connections, made when they are needed.

    At most ``limit`` callers wait for one, else ``Overloaded`` is raised; a wait that lasts ``patience`` seconds ends
    with ``StorageUnavailable``. A connection on which anything went wrong that the server did not answer is thrown
    away. ``mend`` makes the partition of a day that was missing, before work is tried again.
    """

    def __init__(
        self,
        link: Link,
        *,
        size: int,
        limit: int,
        patience: float,
        mend: Callable[[int], Awaitable[None]] | None = None,
    ) -> None:
        self._link = link
        self._limit = limit
        self._patience = patience
        self._mend = mend
        self._free = asyncio.Semaphore(size)
        self._size = size
        self._idle: list[Session] = []
        self._waiting = 0
        self._closed = False

    # --- work ----------------------------------------------------------------------------------------

    async def read(self, work: Work[T]) -> T:
        """Statements that change nothing: tried once more if a connection breaks."""
        return await self._again(self._in_transaction if self._link.pooler else self._plainly, work, is_lost)

    async def snapshot(self, work: Work[T]) -> T:
        """The same, all on one state of the data."""
        return await self._again(self._in_snapshot, work, is_lost)

    async def write(self, work: Work[T], *, repeatable: bool = False) -> T:
        """One transaction. Tried once more if the connection breaks before the commit; if it breaks during the commit,
        ``StorageUnavailable`` says that nobody knows, unless it is ``repeatable`` without harm."""
        return await self._again(self._in_transaction, work, _lost_or_unknown if repeatable else is_lost)

    async def call(self, work: Work[T], *, repeatable: bool = False) -> T:
        """One statement that is a transaction of its own. What becomes of it if the connection breaks is not known, so
        it is repeated only if that does no harm."""
        return await self._again(self._plainly, work, is_lost if repeatable else _never)

    async def _plainly(self, work: Work[T]) -> T:
        async with self.connection() as db:
            return await work(db)

    async def _in_transaction(self, work: Work[T]) -> T:
        async with self.connection() as db, transaction(db, self._link):
            return await work(db)

    async def _in_snapshot(self, work: Work[T]) -> T:
        async with self.connection() as db, transaction(db, self._link, SNAPSHOT):
            return await work(db)

    async def _again(
        self,
        way: Callable[[Work[T]], Awaitable[T]],
        work: Work[T],
        harmless: Callable[[BaseException | None], bool],
    ) -> T:
        """Do it, and do it again where that is safe and may help."""
        losses, days = 0, set[int]()
        for attempt in count(1):
            try:
                return await way(work)
            except Exception as error:  # noqa: BLE001  all but what may be mended is told
                day = missing_day(error)
                if day is not None and self._mend is not None and day not in days:
                    days.add(day)
                    await self._mend(day)
                elif is_rolled_back(error) and attempt < TRIES:
                    await asyncio.sleep(PAUSE * attempt)
                elif (harmless(error) or is_unsent(error)) and not losses:
                    losses += 1
                else:
                    raise told(error) from error.__cause__
        raise AssertionError

    # --- connections ---------------------------------------------------------------------------------

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[Session]:
        """A connection for the time being."""
        await self._wait()
        db: Session | None = None
        try:
            db = self._take() or await self._link.connect()
            yield db
        except BaseException as error:
            if db is not None and not _clean(error):
                db.terminate()
            if is_lost(error):
                self._distrust()
            raise
        finally:
            if db is not None:
                self._give_back(db)
            self._free.release()

    async def _wait(self) -> None:
        if self._closed:
            raise StorageUnavailable("the storage is not open")
        if self._free.locked() and self._waiting >= self._limit:
            raise Overloaded
        self._waiting += 1
        try:
            async with asyncio.timeout(self._patience):
                await self._free.acquire()
        except TimeoutError:
            reason = f"no connection was free within {self._patience:g} s; nothing was stored"
            raise StorageUnavailable(reason) from None
        finally:
            self._waiting -= 1

    def _take(self) -> Session | None:
        while self._idle:
            db = self._idle.pop()
            if not db.is_closed():
                return db
        return None

    def _distrust(self) -> None:
        """One connection broke: the idle ones may be broken too, whether they know it or not."""
        idle, self._idle = self._idle, []
        for db in idle:
            db.terminate()

    def _give_back(self, db: Session) -> None:
        if db.is_closed():
            return
        if self._closed or db.is_in_transaction():
            db.terminate()
        else:
            self._idle.append(db)

    async def close(self) -> None:
        """Wait up to ``patience`` seconds for what is under way, then disconnect."""
        self._closed = True
        try:
            async with asyncio.timeout(self._patience):
                for _ in range(self._size):
                    await self._free.acquire()
        except TimeoutError:
            raise StorageUnavailable(f"the storage did not finish within {self._patience:g} s") from None
        finally:
            idle, self._idle = self._idle, []
            for db in idle:
                db.terminate() if db.is_closed() else await db.close(timeout=self._patience)


def _clean(error: BaseException) -> bool:
    """Whether the connection can be used after this error: the server's own answers leave it well, and so do errors of
    our own rules."""
    return not isinstance(error, CommitUnknown) and (
        isinstance(error, HooklineError) or (bool(sqlstate(error)) and not is_lost(error))
    )


def _lost_or_unknown(error: BaseException | None) -> bool:
    return is_lost(error) or isinstance(error, CommitUnknown)


def _never(_: BaseException | None) -> bool:
    return False
