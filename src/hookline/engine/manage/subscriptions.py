"""Making, changing, stopping and starting subscriptions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from msgspec import structs

from hookline.core import ids, signing
from hookline.core.definition import Rules, check_definition, check_secrets, text_faults
from hookline.core.errors import Conflict, Fault, Forbidden, InvalidInput, Overtaken
from hookline.core.model import (
    Definition,
    DeliveryState,
    Position,
    ReplayState,
    Secrets,
    SignatureScheme,
    SigningKey,
    Subscription,
    SubscriptionState,
    Tenant,
)
from hookline.core.reading import read, refuse
from hookline.core.sharding import shard_of
from hookline.core.times import parse_rfc3339
from hookline.engine.manage.spec import Extras, SubscriptionSpec, current, drafted, merged, split
from hookline.engine.manage.turns import Turns
from hookline.ports import Clock, Storage, Vault
from hookline.profiles import PROFILES

ROTATION_OVERLAP = 86_400
"""Seconds that a rotated-out key goes on signing beside the new one: a day for receivers to take the new one in."""

SWITCHED_OFF = "webhooks are switched off for this tenant"
"""Why a subscription is paused that will run again when the tenant's webhooks are switched on."""

MAX_OVERLAP = 30 * 86_400
MAX_LIVE_KEYS = 5
REPLAYS_AT_ONCE = 100
"""The newest replay jobs of a subscription; an older one that still runs is the worker's to cancel."""


class Subscriptions:
    """Everything an owner does to subscriptions, except sending (see ``Trials``)."""

    def __init__(
        self, storage: Storage, clock: Clock, entropy: Callable[[int], bytes], vault: Vault, rules: Rules
    ) -> None:
        self._storage = storage
        self._clock = clock
        self._entropy = entropy
        self._vault = vault
        self._rules = rules
        self.turns = Turns(entropy)
        """For callers that read a subscription, and ``update`` it for the version that they read."""

    # --- make and change ---

    async def create(self, tenant: Tenant, body: object, known: Sequence[Fault] = ()) -> Subscription:
        """Raises ``InvalidInput`` with everything that is wrong, what the caller ``known`` found first.

        ``from`` starts it in the past ("beginning" or a time); otherwise it matches from the next event on.
        """
        require_webhooks(tenant)
        fields, extras, faults = split(body, ("enabled", "from"))
        draft = drafted({"profile": tenant.profile} | fields)
        spec = draft.spec
        secrets = spec.secrets(self._keys(spec, ()))
        refuse([*known, *faults, *_start_faults(extras), *draft.with_rules(self._faults(spec, secrets))])
        start = await self._start_after(tenant, extras)
        subscription_id = ids.time_ordered("sub", self._clock.now(), self._entropy(10))
        return await self._storage.create_subscription(
            subscription_id,
            tenant.no,
            spec.definition(),
            self._seal(subscription_id, secrets),
            self._clock.now(),
            SubscriptionState.PAUSED if extras.enabled is False else SubscriptionState.ACTIVE,
            start,
        )

    async def update(
        self,
        tenant: Tenant,
        subscription_id: str,
        body: object,
        expected: int | None = None,
        known: Sequence[Fault] = (),
    ) -> Subscription:
        """Apply a merge patch. ``expected`` (or ``version`` in the body) is the version it was made for: another
        one raises ``Overtaken``. Without it, the patch is applied to whatever is there. ``known`` as in ``create``."""
        require_webhooks(tenant)
        fields, extras, faults = split(body, ("enabled", "version"))
        refuse(faults)
        if isinstance(extras.version, int):
            expected = extras.version
        changed = await self._patch(tenant, subscription_id, fields, expected, known)
        if extras.enabled is True and changed.state is not SubscriptionState.ACTIVE:
            return await self._set(changed, SubscriptionState.ACTIVE, "")
        if extras.enabled is False and changed.state is SubscriptionState.ACTIVE:
            return await self._set(changed, SubscriptionState.PAUSED, "paused by its owner")
        return changed

    async def _patch(
        self,
        tenant: Tenant,
        subscription_id: str,
        fields: dict[str, object],
        expected: int | None,
        known: Sequence[Fault],
    ) -> Subscription:
        async def change() -> Subscription:
            found = await self._storage.get_subscription(tenant.no, subscription_id)
            if expected is not None and found.version != expected:
                raise Overtaken(
                    f"the subscription is at version {found.version}, not {expected}; read it again"
                )
            return await self._apply(found, fields, known)

        return await (change() if expected is not None else self.turns.take(subscription_id, change))

    async def _apply(
        self, found: Subscription, fields: dict[str, object], known: Sequence[Fault]
    ) -> Subscription:
        before = self.secrets(found)
        draft = merged(current(found.definition, before), fields)
        spec = draft.spec
        secrets = spec.secrets(self._keys(spec, before.keys))
        refuse([*known, *draft.with_rules(self._faults(spec, secrets))])
        return await self._store(found, spec, before, secrets)

    async def _store(
        self, found: Subscription, spec: SubscriptionSpec, before: Secrets, secrets: Secrets
    ) -> Subscription:
        definition = spec.definition()
        if definition == found.definition and secrets == before:
            return found
        sealed = self._seal(found.id, secrets)
        return await self._storage.update_subscription(
            found.no, found.version, definition, sealed, self._clock.now()
        )

    def _faults(self, spec: SubscriptionSpec, secrets: Secrets) -> list[Fault]:
        definition = spec.definition()
        return [
            *check_definition(definition, self._rules),
            *check_secrets(definition, secrets, self._rules),
            *profile_faults(definition, secrets),
        ]

    def _keys(self, spec: SubscriptionSpec, present: tuple[SigningKey, ...]) -> tuple[SigningKey, ...]:
        """The keys after a change: the given one alone, else those there are, else a new one."""
        scheme, now = spec.signing.scheme, self._clock.now()
        given = spec.signing.secret
        if given is not None and not (present and given == present[0].secret):
            return (SigningKey(given, now),)
        fitting = tuple(key for key in present if signing.secret_fault(key.secret, scheme) is None)
        if fitting or scheme is SignatureScheme.NONE:
            return fitting
        return (SigningKey(signing.new_secret(scheme, self._entropy), now),)

    async def _start_after(self, tenant: Tenant, extras: Extras) -> Position | None:
        start = extras.start
        if not isinstance(start, str) or start == "now":
            return None
        if start == "beginning":
            return 0
        shard = shard_of(tenant.no, self._storage.shards)
        return await self._storage.position_at(shard, parse_rfc3339(start))

    # --- stop and start ---

    async def delete(self, tenant: Tenant, subscription_id: str) -> None:
        """For good. What still waited ends as expired and stays visible in the log; running replays are cancelled
        first, since they would put back what was dropped."""
        found = await self._storage.get_subscription(tenant.no, subscription_id)
        await self._set(found, SubscriptionState.DELETED, "deleted by its owner")
        for replay in await self._storage.list_replays(found.no, REPLAYS_AT_ONCE):
            if replay.state is ReplayState.RUNNING:
                await self._storage.cancel_replay(replay.id, self._clock.now())
        await self._storage.drop_unsettled(found.no, self._clock.now(), DeliveryState.EXPIRED)

    async def pause(self, tenant: Tenant, subscription_id: str, reason: str) -> Subscription:
        """Stop sending and keep the place in the log. Switching webhooks on starts nothing that its owner paused.

        Raises ``InvalidInput`` for a reason that no log or database shows well.
        """
        refuse(text_faults("reason", reason))
        found = await self._storage.get_subscription(tenant.no, subscription_id)
        if found.state is SubscriptionState.PAUSED and found.state_reason != SWITCHED_OFF:
            return found
        return await self._set(found, SubscriptionState.PAUSED, reason or "paused by its owner")

    async def resume(self, tenant: Tenant, subscription_id: str, *, skip: bool) -> Subscription:
        """Start again, also after it was disabled: where it stopped, or with ``skip`` from now on.

        Skipping ends what waited as expired. It raises ``Conflict`` for a subscription that is running.
        """
        require_webhooks(tenant)
        found = await self._storage.get_subscription(tenant.no, subscription_id)
        if found.state is SubscriptionState.ACTIVE:
            if skip:
                raise Conflict("the subscription is running; pause it before it skips to now")
            return found
        if skip:
            await self._storage.drop_unsettled(found.no, self._clock.now(), DeliveryState.EXPIRED)
        return await self._set(found, SubscriptionState.ACTIVE, "", skip=skip)

    async def _set(
        self, found: Subscription, state: SubscriptionState, reason: str, *, skip: bool = False
    ) -> Subscription:
        return await self._storage.set_subscription_state(found.no, state, reason, self._clock.now(), skip)

    # --- secrets ---

    def secrets(self, subscription: Subscription) -> Secrets:
        """The secret parts, in the clear."""
        return msgspec.json.decode(self._vault.open(subscription.sealed, subscription.id), type=Secrets)

    def live_keys(self, subscription: Subscription) -> list[SigningKey]:
        """The keys that sign now, newest first."""
        now = self._clock.now()
        return [key for key in self.secrets(subscription).keys if _live(key, now)]

    async def rotate(
        self,
        tenant: Tenant,
        subscription_id: str,
        overlap: float = ROTATION_OVERLAP,
        secret: str | None = None,
    ) -> Subscription:
        """Put a new key in front; the keys there are go on signing for ``overlap`` seconds."""
        return await self.turns.take(
            subscription_id, lambda: self._rotate(tenant, subscription_id, overlap, secret)
        )

    async def _rotate(
        self, tenant: Tenant, subscription_id: str, overlap: float, secret: str | None
    ) -> Subscription:
        found = await self._storage.get_subscription(tenant.no, subscription_id)
        scheme = found.definition.signing.scheme
        refuse(_rotation_faults(scheme, overlap))
        before, now = self.secrets(found), self._clock.now()
        until = now + round(overlap * 1000)
        old = [
            structs.replace(key, expires_at=min(until, key.expires_at or until))
            for key in before.keys
            if _live(key, now) and overlap > 0
        ]
        if len(old) >= MAX_LIVE_KEYS:
            raise Conflict(f"{MAX_LIVE_KEYS} keys are live already; wait until one expires, or use overlap 0")
        new = SigningKey(secret or signing.new_secret(scheme, self._entropy), now)
        secrets = structs.replace(before, keys=(new, *old))
        refuse(check_secrets(found.definition, secrets, self._rules))
        return await self._storage.update_subscription(
            found.no, found.version, found.definition, self._seal(found.id, secrets), now
        )

    def _seal(self, subscription_id: str, secrets: Secrets) -> bytes:
        return self._vault.seal(msgspec.json.encode(secrets), subscription_id)


def require_webhooks(tenant: Tenant) -> None:
    """What is switched off cannot be used, only tidied up."""
    if not tenant.webhooks:
        raise Forbidden("webhooks are switched off for this tenant; the operator can switch them on")


def profile_faults(definition: Definition, secrets: Secrets) -> list[Fault]:
    """What does not go with the profile: options that it does not have, headers that it sets itself."""
    profile = PROFILES.get(definition.profile)
    if profile is None:
        return []
    try:
        found = list(read(profile.options, definition.profile_options).faults())
    except InvalidInput as error:
        found = error.faults
    faults = [Fault(f"profile_options.{fault.field}".rstrip("."), fault.message) for fault in found]
    signing = definition.signing
    names = {
        f"signing.{field}": getattr(signing, field)
        for field in ("id_header", "timestamp_header", "signature_header")
    }
    for field, headers in (("headers", definition.headers), ("secret_headers", secrets.headers)):
        names |= {f"{field}.{name}": name for name in headers}
    message = f"is a header that the profile {profile.name} sets; choose another name"
    return faults + [
        Fault(place, message) for place, name in names.items() if name.lower() in profile.headers
    ]


def _start_faults(extras: Extras) -> list[Fault]:
    if isinstance(extras.start, str) and extras.start not in ("now", "beginning"):
        try:
            parse_rfc3339(extras.start)
        except (ValueError, OverflowError):
            return [Fault("from", 'must be "beginning", "now" or a time like 2026-01-31T12:00:00Z')]
    return []


def _live(key: SigningKey, now: int) -> bool:
    return key.expires_at is None or key.expires_at > now


def _rotation_faults(scheme: SignatureScheme, overlap: float) -> list[Fault]:
    faults: list[Fault] = []
    if scheme is SignatureScheme.NONE:
        faults.append(Fault("", "the subscription is not signed, so it has no secret to rotate"))
    if not 0 <= overlap <= MAX_OVERLAP:
        faults.append(Fault("overlap", f"must be between 0 and {MAX_OVERLAP} seconds"))
    return faults
