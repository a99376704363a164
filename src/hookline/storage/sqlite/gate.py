"""Locks between processes on one file, held by open file descriptions: the kernel frees them at any death."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType


class FileLock:
    """An exclusive ``flock``. Two of these on one path exclude each other, in one process too.

    As a context it waits for the lock. The writers of several processes take turns by it: SQLite's own wait for its
    write lock sleeps in growing steps, and measured with two busy writers, the longest waits were ten to twenty
    times as long.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self.held = False

    def __enter__(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self.held = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

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
