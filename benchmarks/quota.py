"""A share of a core for a process, kept to by the kernel: so a small machine shows how more processes scale, although
it cannot give a core to each."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

PERIOD = 20_000
"""Microseconds over which the share holds: short, so that a process never stands still for long."""
_GROUPS = Path("/sys/fs/cgroup")


class NoQuota(Exception):
    """The kernel does not let us (it takes root and a ``cpu`` control group)."""


@contextmanager
def limited(pids: Sequence[int], cores: float) -> Generator[None]:
    """Each of these processes gets up to so much of a core. Raises ``NoQuota``."""
    groups: list[Path] = []
    try:
        for pid in pids:
            groups.append(_make(f"hookline-bench-{os.getpid()}-{pid}", cores))
            (groups[-1] / "cgroup.procs").write_text(str(pid))
        yield
    except OSError as error:
        raise NoQuota(str(error)) from error
    finally:
        for group in groups:
            _remove(group)


def _make(name: str, cores: float) -> Path:
    first = _GROUPS / "cpu"
    group = (first if first.is_dir() else _GROUPS) / name
    group.mkdir()
    quota = int(cores * PERIOD)
    if first.is_dir():
        (group / "cpu.cfs_period_us").write_text(str(PERIOD))
        (group / "cpu.cfs_quota_us").write_text(str(quota))
    else:
        (group / "cpu.max").write_text(f"{quota} {PERIOD}")
    return group


def _remove(group: Path) -> None:
    """Whoever is left goes back to the group above."""
    for pid in (group / "cgroup.procs").read_text().split():
        (group.parent / "cgroup.procs").write_text(pid)
    group.rmdir()
