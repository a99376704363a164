"""The threads that work on the file, and the way there and back for asyncio callers."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from queue import Empty, SimpleQueue
from sqlite3 import Connection
from threading import Thread
from typing import Any, TypeVar

from hookline.core.errors import HooklineError, Overloaded, StorageUnavailable
from hookline.storage.sqlite.connection import told

T = TypeVar("T")
Work = Callable[[Connection], Any]

JOBS_PER_TRANSACTION = 500
"""Bounds how long one transaction takes, and with it how long each job waits."""

STOP_SECONDS = 30.0
"""How long closing waits for a thread to finish what it has."""


class Job:
    """Work for a thread, and the future of its result."""

    __slots__ = ("_unclaimed", "error", "future", "result", "work")

    def __init__(self, work: Work, future: asyncio.Future[Any]) -> None:
        self.work = work
        self.future = future
        self.result: Any = None
        self.error: Exception | None = None
        self._unclaimed = [None]

    def claim(self) -> bool:
        """True for the first caller only, whichever thread it is on: it decides what becomes of the job."""
        try:
            self._unclaimed.pop()  # atomic, so no lock is needed
        except IndexError:
            return False
        return True

    def attempt(self, db: Connection) -> bool:
        """Do the work; say whether it went well."""
        try:
            self.result = self.work(db)
        except Exception as error:  # noqa: BLE001  whatever it is belongs to the caller
            self.error = told(error)
        return self.error is None

    def settle(self) -> None:
        """Tell the caller. Runs on the loop's thread."""
        if self.future.done():
            return
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.error)


class Pool(ABC):
    """Threads with a connection each, and a bounded queue of jobs in front of them.

    A job that no thread has begun within ``patience`` seconds is dropped and its caller told so; one that
    has begun is waited for, because only its end says whether anything was stored.
    """

    def __init__(
        self, name: str, connect: Callable[[], Connection], threads: int, limit: int, patience: float
    ) -> None:
        self._connect = connect
        self._limit = limit
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._accepted = 0
        self._closed = False
        self._threads = [
            Thread(target=self._live, name=f"{name}-{index}", daemon=True) for index in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    async def run(self, work: Callable[[Connection], T]) -> T:
        """The result of ``work``. Raises ``Overloaded`` if the queue is full, ``StorageUnavailable``, or what
        ``work`` raises."""
        if self._closed:
            raise StorageUnavailable("the storage is closed")
        if self._accepted >= self._limit:
            raise Overloaded
        job = Job(work, self._loop.create_future())
        self._accepted += 1
        self._queue.put(job)
        timer = self._loop.call_later(self._patience, self._give_up, job)
        try:
            return await job.future
        finally:
            timer.cancel()

    def _give_up(self, job: Job) -> None:
        if job.claim():
            job.error = StorageUnavailable(f"the storage was busy for {self._patience} s; nothing was stored")
            job.settle()

    async def close(self) -> None:
        """Finish what was accepted, then end the threads."""
        self._closed = True
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join, STOP_SECONDS)
        if any(thread.is_alive() for thread in self._threads):
            raise StorageUnavailable(f"the storage did not finish within {STOP_SECONDS} s")

    # --- on the threads ------------------------------------------------------------------------------

    def _live(self) -> None:
        db: Connection | None = None
        while (jobs := self._next()) is not None:
            claimed = [job for job in jobs if job.claim()]
            try:
                db = db or self._connect()
                self._do(db, claimed)
            except Exception as error:  # noqa: BLE001  the thread must outlive any failure
                _fail(claimed, told(error))
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._deliver, jobs)
        if db is not None:
            db.close()

    @abstractmethod
    def _next(self) -> Sequence[Job] | None:
        """Wait for what is to be done next; None to end."""

    @abstractmethod
    def _do(self, db: Connection, jobs: Sequence[Job]) -> None:
        """Do it. What is raised here is the outcome of all ``jobs``."""

    def _deliver(self, jobs: Sequence[Job]) -> None:
        self._accepted -= len(jobs)
        for job in jobs:
            job.settle()


def _fail(jobs: Sequence[Job], error: Exception) -> None:
    for job in jobs:
        if not isinstance(job.error, HooklineError):  # its own reason tells its caller more
            job.error = error


class Readers(Pool):
    """Several threads, each doing one job at a time."""

    def _next(self) -> Sequence[Job] | None:
        job = self._queue.get()
        return None if job is None else (job,)

    def _do(self, db: Connection, jobs: Sequence[Job]) -> None:
        for job in jobs:
            job.attempt(db)


class Writer(Pool):
    """One thread that commits all jobs that wait together, in one transaction."""

    def __init__(
        self,
        connect: Callable[[], Connection],
        gate: AbstractContextManager[None],
        limit: int,
        patience: float,
    ) -> None:
        self._gate = gate
        self._ending = False
        super().__init__("hookline-sqlite-writer", connect, 1, limit, patience)

    def _next(self) -> Sequence[Job] | None:
        jobs: list[Job] = []
        with suppress(Empty):
            while len(jobs) < JOBS_PER_TRANSACTION and not self._ending:
                job = self._queue.get(block=not jobs)
                if job is None:
                    self._ending = True
                else:
                    jobs.append(job)
        return jobs or None

    def _do(self, db: Connection, jobs: Sequence[Job]) -> None:
        if not jobs:
            return
        with self._gate:
            db.execute("BEGIN IMMEDIATE")
            try:
                if len(jobs) > 1:
                    _run_each(db, jobs)
                    db.execute("COMMIT")
                elif jobs[0].attempt(db):
                    db.execute("COMMIT")
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")


def _run_each(db: Connection, jobs: Sequence[Job]) -> None:
    for job in jobs:
        db.execute("SAVEPOINT job")
        if not job.attempt(db):
            if not db.in_transaction:  # a full disk or a broken file ends the whole transaction
                raise job.error or StorageUnavailable
            db.execute("ROLLBACK TO job")
        db.execute("RELEASE job")
