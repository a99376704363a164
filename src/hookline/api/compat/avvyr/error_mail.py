"""``errorEmail``: a mail for each delivery that failed for good.

The mails come from a companion: a subscription of the same tenant with the profile ``mail``, for the operational events
about deliveries of its parent. The parent's metadata says what the address is, and the companion follows it. Every step
can be repeated, so a request that broke off is made good by the next one. Until then, a new parent does not run without
its companion, and a deleted one leaves none behind.
"""

from __future__ import annotations

from typing import Any, Final, final

from hookline.api.services import Services
from hookline.core.definition import MAIL_PROFILE
from hookline.core.errors import Fault, InvalidInput, NotFound
from hookline.core.mail import MAILTO, address_fault
from hookline.core.model import Subscription, SubscriptionState, Tenant
from hookline.engine.dispatch.outcomes import DELIVERY_FAILED

COMPANION_OF: Final = "hookline.companion_of"
"""The metadata of a companion: the id of its parent."""
_PAGE: Final = 200
_ONLY_ASKED: Final = Fault("", "is not to be made")


async def address_faults(services: Services, tenant: Tenant, address: str) -> list[Fault]:
    """Why no mail can be sent there: the address, or an installation without a mail server."""
    if not address:
        return []
    try:
        await services.subscriptions.create(tenant, _spec("", address), [_ONLY_ASKED])
    except InvalidInput as error:
        return [Fault("errorEmail", fault.message) for fault in error.faults[1:2]]
    return []  # pragma: no cover - what has a known fault is never made


def spelling_faults(address: str) -> list[Fault]:
    """Why this is no address. One that is stored may be wrong too: the native API changes metadata unread."""
    message = address_fault(address) if address else ""
    return [Fault("errorEmail", message)] if message else []


@final
class ErrorMail:
    """The companion of one subscription."""

    def __init__(self, services: Services, tenant: Tenant, parent_id: str) -> None:
        self._services = services
        self._tenant = tenant
        self._parent_id = parent_id

    async def follow(self, address: str) -> None:
        """Have exactly one companion, running, for ``address``; none if that is empty. Raises ``NotFound``, and leaves
        none, if the parent was deleted meanwhile."""
        companions = await self._companions()
        if address:
            await self._keep(companions.pop(0) if companions else None, address)
        await self._delete(companions)
        try:
            await self._services.storage.get_subscription(self._tenant.no, self._parent_id)
        except NotFound:
            await self.remove()
            raise

    async def _keep(self, present: Subscription | None, address: str) -> None:
        subscriptions, spec = self._services.subscriptions, _spec(self._parent_id, address)
        if present is None:
            await subscriptions.create(self._tenant, spec)
        elif present.definition.url != spec["url"] or present.state is not SubscriptionState.ACTIVE:
            await subscriptions.update(self._tenant, present.id, spec | {"enabled": True})

    async def remove(self) -> None:
        """Have none."""
        await self._delete(await self._companions())

    async def _delete(self, companions: list[Subscription]) -> None:
        for companion in companions:
            try:
                await self._services.subscriptions.delete(self._tenant, companion.id)
            except NotFound:  # another request was quicker
                continue

    async def _companions(self) -> list[Subscription]:
        """Oldest first; more than one only where two requests made one at the same time."""
        found: list[Subscription] = []
        after: int | None = 0
        while after is not None:
            page = await self._services.storage.list_subscriptions(
                self._tenant.no, after, _PAGE, self._parent_id
            )
            found += filter(self._is_companion, page)
            after = page[-1].no if len(page) == _PAGE else None
        return found

    def _is_companion(self, found: Subscription) -> bool:
        definition = found.definition
        return definition.profile == MAIL_PROFILE and definition.metadata.get(COMPANION_OF) == self._parent_id


def _spec(parent_id: str, address: str) -> dict[str, Any]:
    return {
        "profile": MAIL_PROFILE,
        "url": f"{MAILTO}{address}",
        "events": [DELIVERY_FAILED],
        "filter": f'data.subscription_id == "{parent_id}"',
        "name": f"errorEmail of {parent_id}",
        "metadata": {COMPANION_OF: parent_id},
    }
