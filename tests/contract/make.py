"""Short ways to make what the storage tests store."""

from __future__ import annotations

from typing import Any

from hookline.core.model import (
    ApiKey,
    Attempt,
    Definition,
    DeliveryState,
    Event,
    LaneState,
    NewEvent,
    Replay,
    ReplayState,
    Scope,
    Settled,
    Subscription,
    SubscriptionState,
    Tenant,
    Unsettled,
)
from hookline.ports import Record, Storage

NOW = 1_750_000_000_000
DAY = 86_400_000


def api_key(name: str, tenant_no: int | None = None) -> ApiKey:
    return ApiKey(f"key_{name}", tenant_no, name, name.encode().ljust(32, b"."), "…abcd", (Scope.READ,), NOW)


def new_event(tenant_no: int, event_id: str, type: str = "order:created", **fields: Any) -> NewEvent:
    fields.setdefault("data", b'{"n":1}')
    return NewEvent(tenant_no=tenant_no, id=event_id, type=type, **fields)


def settled(
    sub: int, position: int, state: DeliveryState = DeliveryState.SUCCEEDED, **fields: Any
) -> Settled:
    values: dict[str, Any] = {"sequence": position, "attempts": 1, "settled_at": NOW, "status": 200} | fields
    return Settled(subscription_no=sub, position=position, state=state, **values)


def unsettled(sub: int, position: int, due_at: int = NOW, **fields: Any) -> Unsettled:
    values: dict[str, Any] = {
        "sequence": position,
        "attempts": 1,
        "first_at": NOW - 10,
        "runs": 1,
        "status": 500,
    } | fields
    return Unsettled(subscription_no=sub, position=position, due_at=due_at, **values)


def attempt(sub: int, position: int, number: int = 1, **fields: Any) -> Attempt:
    values: dict[str, Any] = {
        "version": 1,
        "started_at": NOW,
        "method": "POST",
        "url": "https://example.test/hook",
        "status": 200,
        "error": "",
        "detail": "",
        "address": "127.0.0.1:9",
        "dns_us": 1,
        "connect_us": 2,
        "tls_us": 3,
        "first_byte_us": 4,
        "total_us": 5,
        "request_headers": "a: b\r\n",
        "request_bytes": 10,
        "response_headers": b"c: d\r\n",
        "response_body": b"",
        "response_truncated": False,
    }
    return Attempt(subscription_no=sub, position=position, number=number, **(values | fields))


def lane(sub: int, cursor: int, **fields: Any) -> LaneState:
    values = {"sequence": cursor, "live": False} | fields
    return LaneState(subscription_no=sub, cursor=cursor, **values)


def replay(sub: int, replay_id: str = "rpl_1", after: int = 0, until: int = 100, **fields: Any) -> Replay:
    values: dict[str, Any] = {
        "states": (DeliveryState.FAILED,),
        "rate": 0.0,
        "total": 3,
        "done": 0,
        "progress": after,
        "state": ReplayState.RUNNING,
        "created_at": NOW,
        "updated_at": NOW,
    }
    return Replay(id=replay_id, subscription_no=sub, after=after, until=until, **(values | fields))


class World:
    """A storage with tenants and subscriptions, and the lease of its shard."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.epoch = 0

    async def tenant(self, name: str = "acme") -> Tenant:
        return await self.storage.create_tenant(name, name.title(), "standard", api_key(name), NOW)

    async def subscription(
        self,
        tenant: Tenant,
        name: str = "sub",
        definition: Definition | None = None,
        state: SubscriptionState = SubscriptionState.ACTIVE,
        start_after: int | None = None,
    ) -> Subscription:
        definition = definition or Definition(url="https://example.test/hook")
        return await self.storage.create_subscription(
            name, tenant.no, definition, b"sealed", NOW, state, start_after
        )

    async def publish(self, tenant: Tenant, count: int = 1, now: int = NOW, **fields: Any) -> list[int]:
        """Append events with fresh ids, one millisecond apart; their positions."""
        positions: list[int] = []
        for index in range(count):
            number = await self.storage.head(0) + 1
            event = new_event(tenant.no, f"evt-{tenant.no}-{number}", **fields)
            positions += [each.position for each in await self.storage.append([event], now + index)]
        return positions

    async def events(self) -> list[Event]:
        return list((await self.storage.read_log(0, 0, 10_000, 10**9)).events)

    async def own(self, now: int = NOW) -> int:
        lease = await self.storage.lease(0, "owner", now, 10)
        assert lease is not None
        self.epoch = lease.epoch
        return lease.epoch

    async def record(self, watermark: int = 0, now: int = NOW, **parts: Any) -> None:
        if not self.epoch:
            await self.own()
        await self.storage.record(Record(0, self.epoch, now, watermark, **parts))
