"""Which lanes an event may concern, by tenant and type, at a cost that does not grow with their number."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hookline.core.model import OPERATIONAL_PREFIX
from hookline.engine.dispatch.lane import Lane

_CACHED = 20_000


class _TenantIndex:
    """The lanes of one tenant: by exact type, and by prefix."""

    __slots__ = ("exact", "prefixes")

    def __init__(self) -> None:
        self.exact: dict[str, dict[int, Lane]] = {}
        self.prefixes: dict[str, dict[int, Lane]] = {}

    def candidates(self, event_type: str) -> list[Lane]:
        found = dict(self.exact.get(event_type, {}))
        operational = event_type.startswith(OPERATIONAL_PREFIX)
        for prefix, lanes in self.prefixes.items():
            if event_type.startswith(prefix) and (not operational or prefix.startswith(OPERATIONAL_PREFIX)):
                found.update(lanes)
        return list(found.values())


class LaneIndex:
    """Finds candidates for an event; each still checks its filter and the version in force."""

    def __init__(self) -> None:
        self._tenants: dict[int, _TenantIndex] = {}
        self._places: dict[int, tuple[int, tuple[str, ...]]] = {}
        self._found: dict[tuple[int, str], Sequence[Lane]] = {}

    def put(self, lane: Lane, tenant_no: int, patterns: Iterable[str]) -> None:
        """Enter a lane under all patterns that any of its versions still in force has."""
        self.remove(lane.no)
        wanted = tuple(sorted(set(patterns)))
        tenant = self._tenants.setdefault(tenant_no, _TenantIndex())
        for pattern in wanted:
            table, name = _place(tenant, pattern)
            table.setdefault(name, {})[lane.no] = lane
        self._places[lane.no] = (tenant_no, wanted)
        self._found.clear()

    def remove(self, subscription_no: int) -> None:
        """Take a lane out; nothing happens if it is not there."""
        tenant_no, patterns = self._places.pop(subscription_no, (0, ()))
        for pattern in patterns:
            table, name = _place(self._tenants[tenant_no], pattern)
            table[name].pop(subscription_no)
            if not table[name]:
                del table[name]
        self._found.clear()

    def find(self, tenant_no: int, event_type: str) -> Sequence[Lane]:
        """The lanes that may want an event of this type."""
        found = self._found.get((tenant_no, event_type))
        if found is None:
            tenant = self._tenants.get(tenant_no)
            found = tenant.candidates(event_type) if tenant is not None else ()
            if len(self._found) >= _CACHED:
                self._found.clear()
            self._found[tenant_no, event_type] = found
        return found


def _place(tenant: _TenantIndex, pattern: str) -> tuple[dict[str, dict[int, Lane]], str]:
    if pattern.endswith("*"):
        return tenant.prefixes, pattern[:-1]
    return tenant.exact, pattern
