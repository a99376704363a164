"""The tests of the engine run on virtual time: waiting costs nothing, and every run takes the same steps."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.engine.stage import Stage
from tests.simulation.virtual import VirtualLoop


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Callable[[], Any]]:
    return {"virtual": VirtualLoop}


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """One worker, one publisher, one tenant."""
    async with Stage() as stage:
        yield stage
