"""Slices shared out among nodes that come and go, each deciding alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hookline.engine.dispatch.shares import Shares
from hookline.ports import Lease, Node

Owners = dict[int, str]


def node(name: str, role: str = "delivery") -> Node:
    return Node(name, role, "1", 0)


def leases(owners: Owners) -> list[Lease]:
    return [Lease(part, owner, 1, 0) for part, owner in owners.items()]


def step(name: str, names: list[str], owners: Owners) -> int:
    """One round of one node; how many parts changed hands."""
    shares = Shares(name, [node(each) for each in [*names, "web"]] + [node("api1", "api")], leases(owners))
    mine = [part for part, owner in owners.items() if owner == name]
    taken = shares.wanted(len(mine))
    for lease in taken:
        owners[lease.shard] = name
    mine += [lease.shard for lease in taken]
    given_up = mine[len(mine) - shares.surplus(len(mine)) :]
    for part in given_up:
        owners[part] = ""
    return len(taken) + len(given_up)


def settle(names: list[str], owners: Owners) -> int:
    """Rounds until nothing changes; how many parts changed hands."""
    moves = 0
    for _ in range(3 * len(owners) + 3):
        changed = sum(step(name, names, owners) for name in names)
        moves += changed
        if not changed:
            return moves
    raise AssertionError(f"no rest: {owners}")


def counts(names: list[str], owners: Owners) -> list[int]:
    return sorted(list(owners.values()).count(name) for name in names)


@given(st.integers(1, 70), st.integers(1, 12), st.integers(1, 12))
def test_nodes_that_come_and_go_end_with_even_shares(parts: int, before: int, after: int):
    owners = dict.fromkeys(range(parts), "")
    for count in (before, after):
        names = [f"n{number}" for number in range(count)] + ["web"]
        owners = {part: owner if owner in names else "" for part, owner in owners.items()}
        settle(names, owners)
        found = counts(names, owners)
        assert sum(found) == parts
        assert found[-1] - found[0] <= 1


@given(st.integers(1, 70), st.integers(1, 12))
def test_nothing_moves_that_need_not(parts: int, nodes: int):
    names = [f"n{number}" for number in range(nodes)] + ["web"]
    owners = dict.fromkeys(range(parts), "")
    assert settle(names, owners) <= 3 * parts
    assert settle(names, owners) == 0


def test_whoever_has_the_only_part_keeps_it():
    owners = {0: "b"}
    assert settle(["a", "b", "web"], owners) == 0
    owners[0] = ""
    settle(["a", "web"], owners)
    assert owners[0] in {"a", "web"}
