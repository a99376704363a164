"""Forks: the child starts without what the parent has under way (its threads and connections are the parent's)."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forkable(Protocol):
    """What has to begin anew in a child."""

    def after_fork(self) -> None:
        """Forget locks, threads and what waits, without touching them; let go of connections."""
        ...


_watched: weakref.WeakSet[Forkable] = weakref.WeakSet()


def watch(one: Forkable) -> None:
    """Call its ``after_fork`` in every child, for as long as it lives."""
    _watched.add(one)


def _after_fork() -> None:
    for one in tuple(_watched):
        one.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
