"""How the slices are shared out among the nodes that deliver: evenly, and with as few moves as that takes."""

from __future__ import annotations

from collections.abc import Sequence

from hookline.ports import Lease, Node


class Shares:
    """What one node, ``me``, sees of all nodes and leases at a time, and what it should do.

    Parts are taken slice by slice: so the slices of one shard come to several nodes.

    Every node decides alone. Each may have ``fair`` parts, and some one more where they do not come out even; whoever
    has one more keeps it unless another node has too few.
    """

    def __init__(self, me: str, nodes: Sequence[Node], leases: Sequence[Lease]) -> None:
        held = {node.id: 0 for node in nodes if node.role != "api"} | {me: 0}
        for lease in leases:
            if lease.owner in held:
                held[lease.owner] += 1
        self._me = me
        self._held = held
        self._free = sorted(
            (lease for lease in leases if not lease.owner), key=lambda lease: (lease.slice, lease.shard)
        )
        self._fair, remainder = divmod(len(leases), len(held))
        self._most = self._fair + (remainder > 0)

    @property
    def _lacking(self) -> int:
        """How many parts the other nodes need to have their fair share."""
        return sum(max(0, self._fair - count) for node, count in self._held.items() if node != self._me)

    def wanted(self, have: int) -> list[Lease]:
        """Which free leases to take while we ``have`` so many: first up to the fair share, then one more if nobody
        else needs it."""
        fair = max(0, self._fair - have)
        spare = max(0, len(self._free) - fair - self._lacking)
        most = max(0, self._most - have)
        return self._free[: min(most, fair + spare)]

    def surplus(self, have: int) -> int:
        """How many of those we ``have`` to hand over: what is beyond the most, or one if a node lacks one and we are
        among the first of those that can give."""
        if have > self._most:
            return have - self._most
        givers = sorted(node for node, count in self._held.items() if count > self._fair)
        return 1 if have > self._fair and self._me in givers[: self._lacking] else 0
