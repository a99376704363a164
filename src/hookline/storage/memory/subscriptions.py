"""Subscriptions in memory."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from msgspec.structs import replace

from hookline.core.errors import Conflict, NotFound, Overtaken
from hookline.core.model import (
    Definition,
    DefinitionVersion,
    Millis,
    Position,
    Subscription,
    SubscriptionState,
)
from hookline.storage.common import shown
from hookline.storage.memory.state import MemoryState


class MemorySubscriptions(MemoryState):
    """Fills the part of ``ConfigStore`` about subscriptions."""

    async def create_subscription(
        self,
        subscription_id: str,
        tenant_no: int,
        definition: Definition,
        sealed: bytes,
        now: Millis,
        state: SubscriptionState = SubscriptionState.ACTIVE,
        start_after: Position | None = None,
    ) -> Subscription:
        if tenant_no not in self._tenants:
            raise NotFound("there is no such tenant")
        same = (each for each in self._subscriptions.values() if each.id == subscription_id)
        if any(each.tenant_no == tenant_no for each in same):
            raise Conflict("a subscription with this id exists")
        shard = self._shard_of(tenant_no)
        start = shard.head if start_after is None else min(start_after, shard.head)
        subscription = Subscription(
            no=len(self._subscriptions) + 1,
            id=subscription_id,
            tenant_no=tenant_no,
            shard=shard.no,
            version=1,
            matches_from=start + 1,
            definition=definition,
            sealed=sealed,
            created_at=now,
            updated_at=now,
            state=state,
            state_at=now,
            start_after=start,
        )
        return self._store_version(subscription)

    def _store_version(self, subscription: Subscription) -> Subscription:
        version = DefinitionVersion(
            subscription.no, subscription.version, subscription.matches_from, subscription.definition
        )
        self._definitions.setdefault(subscription.no, []).append(version)
        return self._change(subscription)

    def _kept(self, subscription_no: int) -> Subscription:
        subscription = self._subscription(subscription_no)
        if subscription.state is SubscriptionState.DELETED:
            raise NotFound("this subscription is deleted")
        return subscription

    async def update_subscription(
        self, subscription_no: int, expected_version: int, definition: Definition, sealed: bytes, now: Millis
    ) -> Subscription:
        subscription = self._kept(subscription_no)
        if subscription.version != expected_version:
            raise Overtaken("the subscription was changed by someone else meanwhile")
        return self._store_version(
            replace(
                subscription,
                version=expected_version + 1,
                matches_from=self._shards[subscription.shard].head + 1,
                definition=definition,
                sealed=sealed,
                updated_at=now,
            )
        )

    async def set_subscription_state(
        self, subscription_no: int, state: SubscriptionState, reason: str, now: Millis, skip: bool = False
    ) -> Subscription:
        subscription = self._kept(subscription_no)
        skip_to = self._shards[subscription.shard].head if skip else subscription.skip_to
        return self._change(
            replace(
                subscription,
                state=state,
                state_reason=reason,
                state_at=now,
                updated_at=now,
                skip_to=skip_to,
            )
        )

    async def get_subscription(self, tenant_no: int, subscription_id: str) -> Subscription:
        for each in self._subscriptions.values():
            if (each.tenant_no, each.id) == (tenant_no, subscription_id):
                return self._kept(each.no)
        raise NotFound("there is no such subscription")

    async def subscription_by_no(self, subscription_no: int) -> Subscription:
        return self._subscription(subscription_no)

    async def list_subscriptions(
        self, tenant_no: int, after: int, limit: int, search: str = "", event: str = "", url: str = ""
    ) -> list[Subscription]:
        mine = (
            each
            for each in self._subscriptions.values()
            if each.tenant_no == tenant_no
            and each.no > after
            and each.state is not SubscriptionState.DELETED
            and shown(each.definition, search, event, url)
        )
        return list(islice(mine, limit))

    async def definition_versions(self, subscription_no: int) -> list[DefinitionVersion]:
        return list(self._definitions.get(subscription_no, ()))

    async def reseal(self, reseal: Callable[[bytes, str], bytes]) -> int:
        changed = [
            replace(each, sealed=sealed)
            for each in self._subscriptions.values()
            if (sealed := reseal(each.sealed, each.id)) != each.sealed
        ]
        for subscription in changed:
            self._change(subscription)
        return len(changed)
