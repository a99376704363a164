"""Locks between processes on one file, held by open file descriptions: the kernel frees them at any death."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType


class FileLock:
    """An exclusive ``flock``. Two of these on one path exclude each other, in one process too."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self.held = False

    def acquire(self) -> None:
        """Wait for it."""
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self.held = True

    def try_acquire(self) -> bool:
        """Take it if it is free; say whether it is held now."""
        with suppress(BlockingIOError):
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.held = True
        return self.held

    def release(self) -> None:
        self.held = False
        fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give it up for good."""
        self.held = False
        os.close(self._file)


class WriteGate:
    """Lets the writers of several processes take turns.

    SQLite's own wait for its write lock sleeps in growing steps, so a busy writer starves the other. Here
    a writer waits at the turnstile first and keeps it until it has the lock: one that comes back for the next
    transaction finds the turnstile taken by the one that waits, and cannot overtake it.
    """

    def __init__(self, path: Path) -> None:
        self._turnstile = FileLock(path.with_name(path.name + ".turn.lock"))
        self._lock = FileLock(path.with_name(path.name + ".write.lock"))

    def __enter__(self) -> None:
        self._turnstile.acquire()
        try:
            self._lock.acquire()
        finally:
            self._turnstile.release()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def close(self) -> None:
        self._turnstile.close()
        self._lock.close()
