"""The log of a webhook: which events were sent, what came of each, and sending one again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import final

import msgspec

from hookline.api.compat.base import Answer, Ask
from hookline.api.compat.frontsystems.asked import Listing, plain, read_listing
from hookline.api.compat.frontsystems.views import Views, result_of
from hookline.api.compat.frontsystems.webhooks import webhook_of
from hookline.core import ids
from hookline.core.errors import Fault, InvalidInput, NotFound
from hookline.core.model import Event, Position, Subscription
from hookline.engine.manage.subscriptions import require_webhooks
from hookline.ports import Delivery, DeliveryQuery

MAX_ITEMS = 10_000
MAX_BYTES = 16 << 20
"""The platform's list has no pages: an answer ends at the first of these two."""
NEXT_TO = b"hookline-next-to"
"""The header of an answer that ended early: with this as ``to``, a further request lists what is left. It is the
oldest listed event, not its time: more events than an answer holds may have come in the same moment."""
MAX_SCAN = 100_000
"""Deliveries that are looked through for a status text before the request is refused."""
SCAN_PAGE = 1000
EVENT_PAGE = 50
"""Events read at once, each of which may have a payload of a megabyte."""


async def list_events(ask: Ask) -> Answer:
    """Oldest first, so that who resends them in turn keeps their order; the newest if there are too many."""
    found = await webhook_of(ask)
    asked = read_listing(ask.query, ids.DeliveryUuids(found.id))
    views, answer = Views(found), _Listed()
    async for delivery, event in _recorded(ask, found, asked):
        if answer.is_full:
            answer.more = True
            break
        runs = await ask.services.storage.list_attempts(found.no, delivery.position) if asked.runs else ()
        item = views.item(delivery, event, runs, payload=asked.payloads)
        answer.add(msgspec.json.encode(item), item.webhook_event_id)
    return answer.answer()


async def get_event(ask: Ask) -> Answer:
    found = await webhook_of(ask)
    position = _position(found, ask.path["webhookEventId"])
    delivery = await ask.services.storage.get_delivery(found.no, position)
    if delivery is None:
        raise _unknown()
    events = await ask.services.storage.read_events(found.shard, [position])
    return Answer(Views(found).detail(delivery, events[0] if events else None))


async def resend_event(ask: Ask) -> Answer:
    """Answers at once, before the event is sent. Doing so again while it waits changes nothing."""
    require_webhooks(ask.tenant)
    found = await webhook_of(ask)
    position = _position(found, ask.path["webhookEventId"])
    try:
        item = await ask.services.replays.resend(ask.tenant, ids.delivery_id(found.no, position))
    except NotFound:
        raise _unknown() from None
    return Answer(Views(found).detail(item.delivery, item.event))


def _position(found: Subscription, webhook_event_id: str) -> Position:
    try:
        return ids.DeliveryUuids(found.id).position(webhook_event_id)
    except NotFound:
        raise _unknown() from None


def _unknown() -> NotFound:
    return NotFound(
        "this webhook has no such event: it is not sent yet, or past its retention",
        [Fault("webhookEventId", "names no event of this webhook")],
    )


# --- the list --------------------------------------------------------------------------------------------


@final
class _Listed:
    """An answer that grows from its end, within its bounds."""

    def __init__(self) -> None:
        self._items: list[bytes] = []
        self._bytes = 0
        self._next_to = ""
        self.more = False

    @property
    def is_full(self) -> bool:
        return len(self._items) >= MAX_ITEMS or self._bytes >= MAX_BYTES

    def add(self, item: bytes, next_to: str) -> None:
        self._items.append(item)
        self._bytes += len(item)
        self._next_to = next_to

    def answer(self) -> Answer:
        headers = [(NEXT_TO, self._next_to.encode())] if self.more else []
        return Answer(raw=b"[%b]" % b",".join(reversed(self._items)), headers=headers)


async def _recorded(
    ask: Ask, found: Subscription, asked: Listing
) -> AsyncIterator[tuple[Delivery, Event | None]]:
    """What fits, newest first, read in pages."""
    storage = ask.services.storage
    async for page in _scanned(ask, found, asked):
        for start in range(0, len(page), EVENT_PAGE):
            chunk = page[start : start + EVENT_PAGE]
            events = await storage.read_events(found.shard, [delivery.position for delivery in chunk])
            by_position = {event.position: event for event in events}
            for delivery in chunk:
                yield delivery, by_position.get(delivery.position)


async def _scanned(ask: Ask, found: Subscription, asked: Listing) -> AsyncIterator[list[Delivery]]:
    """Page for page. Raises ``InvalidInput`` if too many do not have the asked status texts."""
    before, passed = asked.before, 0
    while asked.states:
        query = DeliveryQuery(
            found.no, before, SCAN_PAGE, tuple(sorted(asked.states)), asked.since, asked.until
        )
        page = await ask.services.storage.list_deliveries(query)
        kept = [delivery for delivery in page if _has_status(asked, delivery)]
        yield kept
        if len(page) < SCAN_PAGE:
            return
        passed += len(page) - len(kept)
        if passed > MAX_SCAN:
            message = f"spans more than {MAX_SCAN} events of other statuses; ask for a shorter time"
            raise InvalidInput(f"the range {message}", [Fault("from", message)])
        before = page[-1].position


def _has_status(asked: Listing, delivery: Delivery) -> bool:
    if not asked.statuses:
        return True
    text, code = result_of(delivery)
    return not asked.statuses.isdisjoint((plain(text), str(code)))
