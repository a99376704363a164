"""What the event subscriptions of an account can do: create, list, search, get, update, delete, test."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any, cast

from hookline.api.compat.avvyr.error_mail import ErrorMail, address_faults, spelling_faults
from hookline.api.compat.avvyr.settings import (
    PROFILE,
    faults_of,
    patch_of,
    resolved,
    settings_of,
    spoken,
    view_of,
)
from hookline.api.compat.avvyr.wire import (
    ListQuery,
    PageView,
    SearchQuery,
    Settings,
    SubscriptionView,
    TestView,
    member,
    read_given,
)
from hookline.api.compat.base import Answer, Ask, Operation
from hookline.api.http import JSON_TYPES, media_type
from hookline.api.paging import cut, encode_cursor, place_after
from hookline.api.problems import UnsupportedMediaType
from hookline.core.errors import Conflict, Fault, Forbidden, InvalidInput, NotFound, Overtaken
from hookline.core.ids import DeliveryUuids
from hookline.core.matching import name_fault
from hookline.core.model import Event, Scope, Subscription
from hookline.core.reading import parse_json, read, read_texts, refuse, unknown
from hookline.engine.manage import Trial

PATH = "/avvyr/v1/{tenantCode}/account/event-subscriptions"
_ID = re.compile(r"sub_[0-9a-f]{32}")
_LISTING = "avvyr"
_PAGE = 200
_MEDIA_TYPES = JSON_TYPES | {b"application/merge-patch+json"}


class Permission(StrEnum):
    """The permissions of Avvyr. ``UPDATE`` covers update and test, ``READ`` get, list and search."""

    CREATE = "EVENT_SUBSCRIPTIONS.CREATE"
    READ = "EVENT_SUBSCRIPTIONS.READ"
    UPDATE = "EVENT_SUBSCRIPTIONS.UPDATE"
    DELETE = "EVENT_SUBSCRIPTIONS.DELETE"


_SCOPES = {
    Permission.CREATE: Scope.CREATE_SUBSCRIPTIONS,
    Permission.READ: Scope.READ_SUBSCRIPTIONS,
    Permission.UPDATE: Scope.UPDATE_SUBSCRIPTIONS,
    Permission.DELETE: Scope.DELETE_SUBSCRIPTIONS,
}


# --- create --------------------------------------------------------------------------------------------------


async def _create(ask: Ask) -> Answer:
    given, faults = read_given(_json(ask), None)
    wanted = resolved(given, None, whole=True)
    faults += faults_of(wanted, given, None, faults)
    faults += await _more_faults(ask, wanted, None, faults)
    mails = bool(wanted.error_email)
    body = patch_of(wanted, None, None) | {"enabled": wanted.enabled and not mails}
    made = await _told(ask.services.subscriptions.create(ask.tenant, body, faults), faults, wanted)
    if mails:
        await ErrorMail(ask.services, ask.tenant, made.id).follow(wanted.error_email)
        if wanted.enabled:
            made = await ask.services.subscriptions.resume(ask.tenant, made.id, skip=False)
    location = f"/avvyr/v1/{ask.path['tenantCode']}/account/event-subscriptions/{made.id}"
    return Answer(_view(ask, made), 201, [(b"location", location.encode())])


# --- read ----------------------------------------------------------------------------------------------------


async def _list(ask: Ask) -> Answer:
    query = read_texts(ListQuery, ask.query)
    return Answer(await _page(ask, SearchQuery(limit=query.limit, cursor=query.cursor)))


async def _search(ask: Ask) -> Answer:
    return Answer(await _page(ask, read_texts(SearchQuery, ask.query)))


async def _search_by_body(ask: Ask) -> Answer:
    body = _json(ask, empty={})
    if isinstance(body, dict):
        entries = cast("dict[str, object]", body).items()
        body = {name: value for name, value in entries if value is not None}
    return Answer(await _page(ask, read(SearchQuery, body)))


async def _page(ask: Ask, asked: SearchQuery) -> PageView:
    found: list[Subscription] = []
    after: int | None = place_after(_LISTING, asked.cursor, int, 0)
    while after is not None and len(found) <= asked.limit:
        page = await ask.services.storage.list_subscriptions(
            ask.tenant.no, after, _PAGE, asked.comment, asked.event_type, asked.destination
        )
        found += [each for each in page if _is_shown(each, asked.comment)]
        after = page[-1].no if len(page) == _PAGE else None
    shown, last = cut(found, asked.limit)
    following = None if last is None else encode_cursor(_LISTING, last.no)
    return PageView([_view(ask, each) for each in shown], following)


def _is_shown(found: Subscription, comment: str) -> bool:
    """The storage's search looks in more texts than the comment."""
    definition = found.definition
    return definition.profile == PROFILE and comment.casefold() in definition.name.casefold()


async def _get(ask: Ask) -> Answer:
    return Answer(_view(ask, await _found(ask)))


# --- update --------------------------------------------------------------------------------------------------


async def _replace(ask: Ask) -> Answer:
    return await _update(ask, whole=True)


async def _patch(ask: Ask) -> Answer:
    return await _update(ask, whole=False)


async def _update(ask: Ask, *, whole: bool) -> Answer:
    body = _json(ask)

    async def change() -> Subscription:
        return await _apply(ask, await _found(ask), body, whole=whole)

    turns, found = ask.services.subscriptions.turns, await _found(ask)
    return Answer(_view(ask, await turns.take(found.id, change)))


async def _apply(ask: Ask, found: Subscription, body: object, *, whole: bool) -> Subscription:
    subscriptions = ask.services.subscriptions
    secrets = subscriptions.secrets(found)
    current = settings_of(found, secrets)
    given, faults = read_given(body, found.id)
    wanted = resolved(given, current, whole=whole)
    faults += faults_of(wanted, given, current, faults)
    faults += await _more_faults(ask, wanted, current, faults)
    patch = patch_of(wanted, current, secrets)
    updated = subscriptions.update(ask.tenant, found.id, patch, found.version, faults)
    changed = await _told(updated, faults, wanted)
    if wanted.error_email or current.error_email:
        await ErrorMail(ask.services, ask.tenant, found.id).follow(wanted.error_email)
    return await _switched(ask, changed, current, wanted)


async def _switched(ask: Ask, changed: Subscription, current: Settings, wanted: Settings) -> Subscription:
    """On or off. What happens while a subscription is off matches nothing, so it begins again from now."""
    subscriptions = ask.services.subscriptions
    if wanted.enabled == current.enabled:
        return changed
    if wanted.enabled:
        try:
            return await subscriptions.resume(ask.tenant, changed.id, skip=True)
        except Conflict as error:  # somebody else switched it on
            raise Overtaken(error.detail) from error
    return await subscriptions.pause(ask.tenant, changed.id, "")


# --- delete and test -----------------------------------------------------------------------------------------


async def _delete(ask: Ask) -> Answer:
    """The companion goes first, so that none is left if this breaks off, and last, if a change brought it back."""
    found = await _found(ask)
    mails = ErrorMail(ask.services, ask.tenant, found.id)
    await mails.remove()
    await ask.services.subscriptions.delete(ask.tenant, found.id)
    await mails.remove()
    return Answer(status=204)


async def _test(ask: Ask) -> Answer:
    found = await _found(ask)
    body = _json(ask, empty={})
    if body != {}:
        refuse(
            [Fault("", "must be empty, or an object without members: the event is the catalogue's example")]
        )
    event = await _synthetic(ask, found.definition.events[0])
    return Answer(_test_view(found, event, await ask.services.trials.send(ask.tenant, found, event)))


async def _synthetic(ask: Ask, name: str) -> Event:
    """An event with the example of its type. Only the native API makes subscriptions to wildcards, and only there can
    a type vanish: then it is Hookline's own test event."""
    known = not name_fault(name) and await ask.services.types.get(ask.tenant, name)
    return await ask.services.trials.synthetic(ask.tenant, name if known else None, None)


def _test_view(found: Subscription, event: Event, trial: Trial) -> TestView:
    outcome = trial.outcome
    refused = None if trial.accepted else f"the destination answered {outcome.status}"
    return TestView(
        success=trial.accepted,
        status_code=outcome.status or None,
        error=f"{outcome.error}: {outcome.detail}" if outcome.error else refused,
        duration_ms=outcome.total_us / 1000,
        event_type=event.type,
        delivery_id=DeliveryUuids(found.id).of(event.position),
        message_id=event.id,
    )


# --- what they share -----------------------------------------------------------------------------------------


def _json(ask: Ask, empty: object = None) -> object:
    """The body; ``empty`` is what stands for none where that is allowed."""
    if not ask.body and empty is not None:
        return empty
    if media_type(ask.headers.get(b"content-type", b"")) not in _MEDIA_TYPES:
        raise UnsupportedMediaType("send the body as Content-Type: application/json")
    return parse_json(ask.body)


async def _found(ask: Ask) -> Subscription:
    """Subscriptions of other profiles are not there for this API. Raises ``NotFound``."""
    subscription_id = ask.path["id"]
    if _ID.fullmatch(subscription_id):
        found = await ask.services.storage.get_subscription(ask.tenant.no, subscription_id)
        if found.definition.profile == PROFILE:
            return found
    raise NotFound("there is no such event subscription")


def _view(ask: Ask, found: Subscription) -> SubscriptionView:
    return view_of(found, ask.services.subscriptions.secrets(found))


async def _more_faults(
    ask: Ask, wanted: Settings, current: Settings | None, known: list[Fault]
) -> list[Fault]:
    """What only the installation knows: the types of the account, and whether mail can be sent."""
    found: list[Fault] = []
    name = wanted.event_type
    if name and (current is None or name != current.event_type):
        types = ask.services.types
        if await types.get(ask.tenant, name) is None:
            names = [one.name for one in await types.list(ask.tenant, "", _PAGE)]
            found.append(Fault("eventType", unknown(name[:200], names)))
    if current is None or wanted.error_email != current.error_email:
        found += await address_faults(ask.services, ask.tenant, wanted.error_email)
    else:
        found += spelling_faults(wanted.error_email)
    silent = {member(fault) for fault in known}
    return [fault for fault in found if member(fault) not in silent]


async def _told(work: Awaitable[Subscription], known: list[Fault], wanted: Settings) -> Subscription:
    """Faults of a subscription, in Avvyr's words."""
    try:
        return await work
    except InvalidInput as error:
        refuse(spoken(error.faults, known, wanted.auth_type))
        raise


def _allowed(permission: Permission, handler: Callable[[Ask], Awaitable[Answer]]) -> Callable[[Ask], Any]:
    async def handle(ask: Ask) -> Answer:
        if _SCOPES[permission] not in ask.caller.may:
            raise Forbidden(f"this key lacks the permission {permission}")
        return await handler(ask)

    return handle


def _operation(
    method: str,
    path: str,
    handler: Callable[[Ask], Awaitable[Answer]],
    permission: Permission,
    *,
    changes: bool = False,
) -> Operation:
    """The scope is checked here, in Avvyr's spelling of it."""
    return Operation(method, path, _allowed(permission, handler), None, changes)


OPERATIONS = (
    _operation("POST", PATH, _create, Permission.CREATE, changes=True),
    _operation("GET", PATH, _list, Permission.READ),
    _operation("GET", f"{PATH}/search", _search, Permission.READ),
    _operation("POST", f"{PATH}/search", _search_by_body, Permission.READ),
    _operation("GET", f"{PATH}/{{id}}", _get, Permission.READ),
    _operation("PUT", f"{PATH}/{{id}}", _replace, Permission.UPDATE, changes=True),
    _operation("PATCH", f"{PATH}/{{id}}", _patch, Permission.UPDATE, changes=True),
    _operation("DELETE", f"{PATH}/{{id}}", _delete, Permission.DELETE, changes=True),
    _operation("POST", f"{PATH}/{{id}}/test", _test, Permission.UPDATE),
)
