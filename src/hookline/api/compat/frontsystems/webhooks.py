"""Webhooks and their types. A webhook is a subscription of the profile ``frontsystems`` to one event type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated
from uuid import UUID

from msgspec import Meta, Struct

from hookline.api.compat.base import Answer, Ask
from hookline.api.compat.frontsystems.views import (
    STORE,
    STORES,
    event_of,
    store_of,
    type_view,
    webhook_view,
)
from hookline.core import ids
from hookline.core.errors import Fault, NotFound
from hookline.core.model import EventType, Subscription
from hookline.core.reading import read_json, refuse, unknown

PROFILE = "frontsystems"
NIL = str(UUID(int=0))
PAGE = 200
STORE_PATHS = ("data.storeId", "data.store.storeId", "data.registeredStoreId")
"""Where payloads name their store: most in the first way, omnichannel orders in the second, customers in the third."""


class WebhookInput(Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """A webhook as the platform's model has it. ``id`` belongs to the model, so clients may send it along."""

    event: str
    url: str
    store_id: Annotated[int, Meta(ge=STORES.start, lt=STORES.stop)] | None = None
    id: str | None = None


# --- webhooks ------------------------------------------------------------------------------------------


async def list_webhooks(ask: Ask) -> Answer:
    """All of them: as many as the delivery worker holds in memory anyway."""
    found: list[Subscription] = []
    after: int | None = 0
    while after is not None:
        page = await ask.services.storage.list_subscriptions(ask.tenant.no, after, PAGE)
        found += [one for one in page if one.definition.profile == PROFILE]
        after = page[-1].no if len(page) == PAGE else None
    return Answer([webhook_view(one) for one in found])


async def create_webhook(ask: Ask) -> Answer:
    asked = read_json(WebhookInput, ask.body)
    await _check(ask, asked)
    definition = {
        "profile": PROFILE,
        "url": asked.url,
        "events": [asked.event],
        "filter": store_filter(asked.store_id),
        "metadata": {} if asked.store_id is None else {STORE: str(asked.store_id)},
    }
    return Answer(webhook_view(await ask.services.subscriptions.create(ask.tenant, definition)))


async def get_webhook(ask: Ask) -> Answer:
    return Answer(webhook_view(await webhook_of(ask)))


async def update_webhook(ask: Ask) -> Answer:
    """Takes the place of event, URL and store; what was set by other means stays. So a client can send back what it
    read, also of a subscription with several types."""
    found = await webhook_of(ask)
    asked = read_json(WebhookInput, ask.body)
    changed = await ask.services.subscriptions.turns.take(found.id, lambda: _replace(ask, asked))
    return Answer(webhook_view(changed))


async def _replace(ask: Ask, asked: WebhookInput) -> Subscription:
    """What is left out of the patch, since the webhook has it already, holds for this version of it only."""
    found = await webhook_of(ask)
    await _check(ask, asked, found)
    patch: dict[str, object] = {"url": asked.url}
    if asked.event != event_of(found):
        patch["events"] = [asked.event]
    if asked.store_id != store_of(found):
        store = None if asked.store_id is None else str(asked.store_id)
        patch |= {"filter": _filter_with(asked.store_id, found), "metadata": {STORE: store}}
    return await ask.services.subscriptions.update(ask.tenant, found.id, patch, found.version)


async def delete_webhook(ask: Ask) -> Answer:
    """Answers with what was deleted: the platform's pages know no answer but 200."""
    found = await webhook_of(ask)
    await ask.services.subscriptions.delete(ask.tenant, found.id)
    return Answer(webhook_view(found))


async def webhook_of(ask: Ask) -> Subscription:
    """The webhook that the path names. Raises ``NotFound``, also for subscriptions of other profiles."""
    try:
        stored_id = ids.from_uuid("sub", ask.path["webhookId"])
        found = await ask.services.storage.get_subscription(ask.tenant.no, stored_id)
    except NotFound:
        found = None
    if found is None or found.definition.profile != PROFILE:
        raise NotFound("there is no such webhook", [Fault("webhookId", "names no webhook")])
    return found


def store_filter(store: int | None) -> str | None:
    """Only events whose payload names this store."""
    if store is None:
        return None
    return " or ".join(f"{path} == {store}" for path in STORE_PATHS)


def _filter_with(store: int | None, found: Subscription) -> str | None:
    """The webhook's filter for another store: what its owner set besides must go on holding."""
    wanted, present = store_filter(store), found.definition.filter
    old = store_filter(store_of(found))
    own = None if present == old else present
    tail = f") and ({old})"
    if own is not None and own.startswith("(") and own.endswith(tail):
        own = own[1 : -len(tail)]
    return f"({own}) and ({wanted})" if own and wanted else own or wanted


async def _check(ask: Ask, asked: WebhookInput, found: Subscription | None = None) -> None:
    """``found`` is the webhook that is to be changed; None for a new one. Raises ``InvalidInput``."""
    faults: list[Fault] = []
    own_id = "" if found is None else ids.uuid_of(found.id)
    if asked.id not in (None, NIL) and str(asked.id).lower() != own_id:
        faults.append(Fault("id", "cannot be changed" if own_id else "is given by the server; leave it out"))
    is_kept = found is not None and asked.event == event_of(found)
    if not is_kept and await ask.services.types.get(ask.tenant, asked.event) is None:
        faults.append(Fault("event", _unknown_type(asked.event, await _types(ask))))
    refuse(faults)


def _unknown_type(name: str, types: Mapping[str, EventType]) -> str:
    exact = next((known for known in types if known.lower() == name.lower()), None)
    if exact is not None:
        return f"is not known; did you mean {exact!r}?"
    return f"{unknown(name, types)}; GET /api/WebhooksTypes lists all"


# --- types ---------------------------------------------------------------------------------------------


async def list_types(ask: Ask) -> Answer:
    return Answer([type_view(one) for one in (await _types(ask)).values()])


async def get_schema(ask: Ask) -> Answer:
    """JSON Schema. Any payload at all is valid for a type that has none."""
    found = await ask.services.types.get(ask.tenant, ask.path["webhookType"])
    if found is None:
        raise NotFound("there is no such type", [Fault("webhookType", "names no type")])
    return Answer(raw=found.schema or b"{}")


async def _types(ask: Ask) -> dict[str, EventType]:
    found: dict[str, EventType] = {}
    after: str | None = ""
    while after is not None:
        page = await ask.services.types.list(ask.tenant, after, PAGE)
        found |= {one.name: one for one in page}
        after = page[-1].name if len(page) == PAGE else None
    return found
