"""Storage in plain Python: the model of what every engine must do, and the one the simulation runs on.

Nothing is durable here and nothing waits: each method ends within its first step, so it is atomic on its loop.
"""

from __future__ import annotations

from hookline.storage.memory.config import MemoryConfig
from hookline.storage.memory.deliveries import MemoryDeliveries
from hookline.storage.memory.log import MemoryLog
from hookline.storage.memory.queries import MemoryQueries
from hookline.storage.memory.retention import MemoryRetention
from hookline.storage.memory.subscriptions import MemorySubscriptions

__all__ = ["MemoryStorage"]


class MemoryStorage(
    MemoryLog, MemoryDeliveries, MemoryConfig, MemorySubscriptions, MemoryQueries, MemoryRetention
):
    """All roles. Leases go by expiry alone: an owner that is started again under the same name renews.

    What is stored outlives ``close``, as it would outlive a process.
    """

    async def open(self) -> None:
        """Nothing to connect."""

    async def close(self) -> None:
        """Nothing to disconnect."""

    async def ping(self) -> None:
        """Always well."""
