"""What comes from where to where: positions stay, shards and slices are those of the target."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from hookline.core.errors import HooklineError
from hookline.core.model import Millis, Position
from hookline.core.sharding import shard_of


class MoveRefused(HooklineError):
    """An installation cannot be moved as it is asked for; nothing was changed."""

    code = "move_refused"
    status = 409
    title = "The installation cannot be moved"


class Cut(Struct, frozen=True):
    """Into how many shards a log is cut, and a shard's subscriptions into how many slices."""

    shards: int
    slices: int


class End(Struct, frozen=True):
    """Where a shard stands. ``watermark`` is the lowest of its slices."""

    shard: int
    head: Position
    last_received: Millis
    watermark: Position


class Secret(Struct, frozen=True):
    """A subscription with what is sealed for it."""

    no: int
    id: str
    tenant_no: int
    sealed: bytes


class Facts(Struct, frozen=True):
    """What is known of the source before its tables are read.

    ``identity`` is the installation's own and never changes; ``state`` changes whenever it did anything. ``days`` are
    those (counted from 1970-01-01) on which something was received, attempted or settled.
    """

    identity: str
    state: str
    cut: Cut
    ends: Sequence[End]
    tenants: Sequence[int]
    subscriptions: Sequence[Secret]
    days: Sequence[int]


def origins(facts: Facts, cut: Cut) -> dict[int, int]:
    """The source's shard of each shard of the target that tenants come to.

    Raises ``MoveRefused`` where two meet: their positions would collide. That cannot happen if the source has one
    shard, or the target a multiple of the source's.
    """
    found: dict[int, int] = {}
    for tenant_no in facts.tenants:
        origin, place = shard_of(tenant_no, facts.cut.shards), shard_of(tenant_no, cut.shards)
        other = found.setdefault(place, origin)
        if other != origin:
            raise MoveRefused(
                f"with {cut.shards} shards, the shards {other} and {origin} of the source would become one, and the "
                f"positions of their events would collide; a multiple of {facts.cut.shards} shards always works"
            )
    return found


def planned_ends(facts: Facts, cut: Cut) -> list[End]:
    """The ends of all shards of the target. A shard that no tenant comes to begins at 0."""
    known = {end.shard: end for end in facts.ends}
    sources = origins(facts, cut)
    ends: list[End] = []
    for shard in range(cut.shards):
        source = known[sources[shard]] if shard in sources else End(shard, 0, 0, 0)
        ends.append(End(shard, source.head, source.last_received, source.watermark))
    return ends
