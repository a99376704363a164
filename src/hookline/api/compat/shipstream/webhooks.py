"""The methods of ``webhook``: what they do to a tenant's subscriptions of the profile ``shipstream``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from msgspec import Struct

from hookline.api.compat.shipstream import reading
from hookline.api.compat.shipstream.rpc import (
    CREATE_CRASH,
    CREATE_DATA,
    DELETE_CRASH,
    DENIED,
    INTERNAL,
    NOT_CREATED,
    NOT_DELETED,
    PARAMS,
    STATUS,
    UNKNOWN,
    RpcError,
)
from hookline.api.ingest import require
from hookline.api.keyring import Caller
from hookline.api.services import Services
from hookline.core.errors import Fault, HooklineError, InvalidInput, NotFound
from hookline.core.model import Scope, Subscription, SubscriptionState, Tenant
from hookline.engine.manage import MASK

PROFILE = "shipstream"
PING = "test:ping"
"""The topic that the platform's "Send Test Event" sends."""
_PING_DATA = b'{"text":"A test event. Nothing happened."}'
_PAGE = 200


@dataclass(frozen=True, slots=True)
class Visit:
    """One call of a known caller."""

    services: Services
    caller: Caller
    tenant: Tenant


class Webhook(Struct, frozen=True):
    """A webhook as the platform shows it. ``increment_id`` is the number of its newest message."""

    webhook_id: int
    increment_id: int
    is_active: int
    topics: str
    url: str
    extra_headers: str
    secret_key: str


class Pinged(Struct, frozen=True):
    """What became of a test event. ``status`` is 0 if the endpoint gave no answer."""

    accepted: bool
    status: int
    detail: str


async def list_webhooks(visit: Visit, arguments: Sequence[object]) -> list[Webhook]:
    """All webhooks of the tenant, oldest first."""
    reading.nothing(arguments)
    return [await _view(visit, found) async for found in _all(visit)]


async def create_webhook(visit: Visit, arguments: Sequence[object]) -> bool:
    """Make a webhook, which gets the events from now on."""
    wanted = reading.new_webhook(arguments)
    try:
        await visit.services.subscriptions.create(visit.tenant, wanted)
    except InvalidInput as error:
        faults = error.faults or (Fault("", error.detail),)
        raise RpcError.of_faults(CREATE_DATA, [reading.as_told(fault) for fault in faults]) from error
    visit.services.changed()
    return True


async def update_status(visit: Visit, arguments: Sequence[object]) -> bool:
    """Switch webhooks on or off. One that is switched on again goes on where it stopped."""
    wanted = reading.status_change(arguments)
    chosen = [found async for found in _all(visit) if _is_meant(found, wanted)]
    switched = [await _switch(visit, found, active=wanted.active) for found in chosen]
    if not any(switched):
        raise RpcError(STATUS, "there is no such webhook")
    visit.services.changed()
    return True


async def _switch(visit: Visit, found: Subscription, *, active: bool) -> bool:
    """False if the webhook was deleted meanwhile, which must not keep the others from being switched."""
    subscriptions = visit.services.subscriptions
    try:
        if active:
            await subscriptions.resume(visit.tenant, found.id, skip=False)
        else:
            await subscriptions.pause(visit.tenant, found.id, "")
    except NotFound:
        return False
    return True


async def delete_webhook(visit: Visit, arguments: Sequence[object]) -> bool:
    """Delete a webhook for good."""
    found = await _one(visit, reading.webhook_id(arguments))
    await visit.services.subscriptions.delete(visit.tenant, found.id)
    visit.services.changed()
    return True


async def ping_webhook(visit: Visit, arguments: Sequence[object]) -> Pinged:
    """Send ``test:ping`` right now, as the platform's "Send Test Event" does, and tell what came of it."""
    found = await _one(visit, reading.webhook_id(arguments))
    trials = visit.services.trials
    known = await visit.services.types.get(visit.tenant, PING)
    event = await trials.synthetic(visit.tenant, PING, None if known is not None else _PING_DATA)
    trial = await trials.send(visit.tenant, found, event)
    return Pinged(trial.accepted, trial.outcome.status, trial.outcome.detail)


class Method(Struct, frozen=True):
    """A method: what it does, the scope it needs, and the codes for a refusal and for an error of our own."""

    run: Callable[[Visit, Sequence[object]], Awaitable[object]]
    scope: Scope
    refused: int
    crashed: int = INTERNAL


METHODS = {
    "list": Method(list_webhooks, Scope.READ_SUBSCRIPTIONS, PARAMS),
    "create": Method(create_webhook, Scope.CREATE_SUBSCRIPTIONS, NOT_CREATED, CREATE_CRASH),
    "update_status": Method(update_status, Scope.UPDATE_SUBSCRIPTIONS, STATUS),
    "delete": Method(delete_webhook, Scope.DELETE_SUBSCRIPTIONS, NOT_DELETED, DELETE_CRASH),
    "test": Method(ping_webhook, Scope.UPDATE_SUBSCRIPTIONS, DENIED),
}
"""``webhook.test`` is ours; the platform has a button for it."""


async def perform(visit: Visit, method: Method, arguments: Sequence[object]) -> object:
    """The method's result. Raises ``RpcError`` for all that goes wrong, and ``Forbidden`` if the scope is missing."""
    require(visit.caller, method.scope)
    try:
        return await method.run(visit, arguments)
    except NotFound as error:
        raise RpcError(UNKNOWN) from error
    except HooklineError as error:
        code = method.refused if error.status < 500 else method.crashed
        raise RpcError(code, error.detail, error.faults) from error


# --- finding and showing -------------------------------------------------------------------------------------


async def _all(visit: Visit) -> AsyncIterator[Subscription]:
    after: int | None = 0
    while after is not None:
        page = await visit.services.storage.list_subscriptions(visit.tenant.no, after, _PAGE)
        for found in page:
            if found.definition.profile == PROFILE:
                yield found
        after = page[-1].no if len(page) == _PAGE else None


async def _one(visit: Visit, webhook_id: int) -> Subscription:
    """Raises ``NotFound``."""
    found = await visit.services.storage.subscription_by_no(webhook_id)
    mine = found.tenant_no == visit.tenant.no and found.definition.profile == PROFILE
    if not mine or found.state is SubscriptionState.DELETED:
        raise NotFound
    return found


def _is_meant(found: Subscription, wanted: reading.StatusChange) -> bool:
    """A topic means the webhooks that list it as it is written: switching off ``order:created`` leaves ``order:*``."""
    if wanted.webhook_id is not None:
        return found.no == wanted.webhook_id
    return wanted.topic is None or wanted.topic in found.definition.events


async def _view(visit: Visit, found: Subscription) -> Webhook:
    secrets = visit.services.subscriptions.secrets(found)
    shown = Scope.MANAGE in visit.caller.may
    keys = visit.services.subscriptions.live_keys(found)
    headers = {**found.definition.headers, **secrets.headers}
    lane = await visit.services.storage.lane_state(found.no)
    return Webhook(
        webhook_id=found.no,
        increment_id=0 if lane is None else lane.sequence,
        is_active=int(found.state is SubscriptionState.ACTIVE),
        topics=",".join(found.definition.events),
        url=found.definition.url,
        extra_headers="\n".join(
            f"{name}: {value if shown or name not in secrets.headers else MASK}"
            for name, value in headers.items()
        ),
        secret_key="" if not keys else keys[0].secret if shown else MASK,
    )
