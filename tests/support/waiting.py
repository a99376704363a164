"""Waiting for what must happen, with a deadline and a name for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds after which something that must happen counts as failed. Generous: the machine may be busy."""
POLL = 0.01


async def until(
    happened: Callable[[], object], what: str | Callable[[], str], seconds: float = PATIENCE
) -> None:
    """Return once ``happened()`` is true; fail with ``what`` after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what if isinstance(what, str) else what()}")
        await asyncio.sleep(POLL)


async def eventually(ask: Callable[[], Awaitable[T]], good: Callable[[T], bool], what: str) -> T:
    """The first answer of ``ask`` that is ``good``."""
    deadline = time.monotonic() + PATIENCE
    while not good(answer := await ask()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {PATIENCE:g} s: {what}; the last answer was {answer!r}")
        await asyncio.sleep(POLL)
    return answer


async def never(happens: Callable[[], object], what: str, seconds: float) -> None:
    """Fail if ``happens()`` becomes true within ``seconds``: the only way to see that nothing comes."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert not happens(), what
        await asyncio.sleep(POLL)
