"""Runs ``hookline`` with a wall clock that is wrong: ``python -m tests.support.skewed <file> <arguments of hookline>``.

The file holds the error in nanoseconds, or the time at which the clock stands; see ``SkewedClock``. It is looked at
each time the process asks for the time, so the clock can be set while the process runs. The monotonic clock and the
timers stay right.
"""

from __future__ import annotations

import mmap
import runpy
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

_SIZE = 16
_RUNS, _STANDS = 0, 1


class SkewedClock:
    """The other end: sets the clock of one process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(bytes(_SIZE))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _SIZE)

    def set(self, seconds: float) -> None:
        """From now on it is wrong by so many seconds."""
        self._map[:] = struct.pack("=qq", _RUNS, int(seconds * 1e9))

    def stop(self) -> None:
        """From now on it stands."""
        self._map[:] = struct.pack("=qq", _STANDS, time.time_ns())


def _skewed(path: str, real: Callable[[], int]) -> Callable[[], int]:
    with open(path, "rb") as file:  # noqa: PTH123 - nothing else runs yet
        shared = mmap.mmap(file.fileno(), _SIZE, access=mmap.ACCESS_READ)

    def time_ns() -> int:
        kind, nanoseconds = struct.unpack("=qq", shared[:_SIZE])
        return nanoseconds if kind == _STANDS else real() + nanoseconds

    return time_ns


def main() -> None:
    """Replace the clock, then be ``python -m hookline``."""
    path = sys.argv.pop(1)
    time.time_ns = _skewed(path, time.time_ns)
    time.time = lambda: time.time_ns() / 1e9
    runpy.run_module("hookline", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
