"""Webhooks: the fields of the Admin's form, kept as subscriptions of the profile ``evolutionx``.

Headers are what a target's authorization key travels in, so their values are stored encrypted and masked in the
native logs (``secret_headers``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any, Literal, cast

from msgspec import Struct

from hookline.api.compat.base import Answer, Ask, Operation
from hookline.api.compat.evolutionx.forms import (
    PROFILE,
    V1,
    NoQuery,
    PageQuery,
    failed,
    page,
    unix,
    webhook,
)
from hookline.api.paging import cut, place_after
from hookline.core.errors import Fault, InvalidInput
from hookline.core.model import Scope, Secrets, Subscription, SubscriptionState
from hookline.core.reading import parse_json, read, read_texts, refuse, unknown
from hookline.engine.manage import MASK
from hookline.engine.manage.tenants import SWITCHED_OFF

Handler = Callable[[Ask], Awaitable[Answer]]
Status = Literal["active", "paused", "disabled", "switched_off"]

_RENAMED = {"description": "name", "url": "url", "query_parameters": "query", "events": "events",
            "method": "method", "enabled": "enabled"}  # fmt: skip
"""Fields that a subscription has under the same or another name."""
FIELDS = (*_RENAMED, "headers", "include_object_record", "signature_key")
READ_ONLY = ("id", "status", "created_at", "updated_at")
METHODS = ("POST", "GET")

_OURS = {
    "name": "description",
    "query": "query_parameters",
    "secret_headers": "headers",
    "signing.secret": "signature_key",
    "profile_options.include_object_record": "include_object_record",
}
_SAID_OURSELVES = {
    "events": "name 1 to 200 event types in a list; * stands for all",
    "method": f"must be one of {', '.join(METHODS)}",
    "include_object_record": "must be true or false",
    "signature_key": "must be 1 to 256 printable characters, and not the mask that stands for a key",
}
MAX_UNKNOWN = 50
"""Unknown names that an answer lists."""
_UNKNOWN = "?"
_SCAN = 200


class WebhookView(Struct, frozen=True):
    """A webhook as the API shows it. Times are Unix times in UTC."""

    id: str
    description: str
    url: str
    query_parameters: dict[str, str]
    headers: dict[str, str]
    events: tuple[str, ...]
    include_object_record: bool
    method: str
    enabled: bool
    status: Status
    signature_key: str | None
    created_at: int
    updated_at: int


class RotateInput(Struct, frozen=True, forbid_unknown_fields=True):
    """The new key; one is made if none is given."""

    signature_key: str | None = None


# --- the feature switch ---------------------------------------------------------------------------------


def _if_switched_on(handler: Handler) -> Handler:
    @wraps(handler)
    async def guarded(ask: Ask) -> Answer:
        if not ask.tenant.webhooks:
            message = (
                "Event Driven Webhooks are switched off for this account: nothing is sent until the operator "
                "switches them on again, and then delivery goes on where it stopped"
            )
            return failed(403, "feature_off", message, (), ask.request_id)
        return await handler(ask)

    return guarded


# --- handlers -------------------------------------------------------------------------------------------


@_if_switched_on
async def list_webhooks(ask: Ask) -> Answer:
    asked = read_texts(PageQuery, ask.query)
    after = place_after("evolutionx-webhooks", asked.cursor, int, 0)
    found: list[Subscription] = []
    while len(found) <= asked.limit:
        scanned = await ask.services.storage.list_subscriptions(ask.tenant.no, after, _SCAN)
        found += [one for one in scanned if one.definition.profile == PROFILE]
        if len(scanned) < _SCAN:
            break
        after = scanned[-1].no
    shown, last = cut(found, asked.limit)
    views = [_view(ask, one) for one in shown]
    return page("evolutionx-webhooks", views, None if last is None else last.no)


@_if_switched_on
async def create_webhook(ask: Ask) -> Answer:
    given = _object(ask)
    with _in_our_words(given):
        named = {"events": (), **{name: value for name, value in given.items() if value is not None}}
        made = await ask.services.subscriptions.create(ask.tenant, _fields(named) | {"profile": PROFILE})
    answer = _shown(ask, made, reveal=True)
    return Answer(answer.body, 201, [(b"location", f"{V1}/webhooks/{made.id}".encode())])


@_if_switched_on
async def get_webhook(ask: Ask) -> Answer:
    read_texts(NoQuery, ask.query)
    return _shown(ask, await webhook(ask))


@_if_switched_on
async def change_webhook(ask: Ask) -> Answer:
    """PATCH: a JSON merge patch (RFC 7396)."""
    return await _update(ask, _object(ask), _patch)


@_if_switched_on
async def replace_webhook(ask: Ask) -> Answer:
    """PUT: what is not named gets its default, except the signature key, which stays."""
    return await _update(ask, _object(ask), _replacement)


@_if_switched_on
async def delete_webhook(ask: Ask) -> Answer:
    found = await webhook(ask)
    await ask.services.subscriptions.delete(ask.tenant, found.id)
    return Answer(status=204)


@_if_switched_on
async def rotate_key(ask: Ask) -> Answer:
    """At once: a request carries one signature, so there is no time in which two keys hold."""
    found = await webhook(ask)
    given = read(RotateInput, parse_json(ask.body) if ask.body else {})
    if given.signature_key in ("", MASK):
        refuse([Fault("signature_key", _SAID_OURSELVES["signature_key"])])
    with _in_our_words({}):
        rotated = await ask.services.subscriptions.rotate(ask.tenant, found.id, 0, given.signature_key)
    return _shown(ask, rotated, reveal=True)


async def _update(
    ask: Ask,
    given: Mapping[str, Any],
    patch: Callable[[Mapping[str, Any], Subscription, Secrets], dict[str, Any]],
) -> Answer:
    """The patch is made for one version, and made again if somebody else was faster."""
    subscriptions = ask.services.subscriptions

    async def change() -> Answer:
        found = await webhook(ask)
        before = subscriptions.secrets(found)
        asked = _without_read_only(given, found)
        with _in_our_words(asked):
            changed = await subscriptions.update(
                ask.tenant, found.id, patch(asked, found, before), found.version
            )
        return _shown(ask, changed, reveal=subscriptions.secrets(changed).keys != before.keys)

    return await subscriptions.turns.take((await webhook(ask)).id, change)


# --- from a webhook to a subscription ---------------------------------------------------------------------


def _object(ask: Ask) -> dict[str, Any]:
    read_texts(NoQuery, ask.query)
    body = parse_json(ask.body)
    if not isinstance(body, dict):
        raise InvalidInput("the body must be a JSON object", [Fault("", "must be a JSON object")])
    return cast("dict[str, Any]", body)


def _without_read_only(given: Mapping[str, Any], found: Subscription) -> dict[str, Any]:
    """Clients may send back what they read, with older times too. What says something else stays, to be refused."""
    known = {"id": found.id, "status": _status(found)}
    return {
        name: value
        for name, value in given.items()
        if name not in READ_ONLY or known.get(name, value) != value
    }


def _fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """The members under the engine's names, as they were given: the engine names all that is wrong with them. What
    this API does not have is passed on as something that is refused there too."""
    result: dict[str, Any] = {_RENAMED[name]: value for name, value in given.items() if name in _RENAMED}
    if "headers" in given:
        result["secret_headers"] = given["headers"]
    if "include_object_record" in given:
        result["profile_options"] = {"include_object_record": given["include_object_record"]}
    if given.get("signature_key") is not None:
        result["signing"] = {"secret": "" if given["signature_key"] == MASK else given["signature_key"]}
    if given.get("method", "POST") not in (*METHODS, None):
        result["method"] = _UNKNOWN
    return result | {f"{_UNKNOWN}{number}": True for number, _ in enumerate(_strangers(given))}


def _patch(given: Mapping[str, Any], found: Subscription, secrets: Secrets) -> dict[str, Any]:
    """``given`` as a patch of the subscription. No events at all are not the default of a subscription ("all"). A
    method that only the native API can set may stay."""
    masked = given.get("signature_key") == MASK
    fields = _fields({name: value for name, value in given.items() if name != "signature_key" or not masked})
    if "events" in given and given["events"] is None:
        fields["events"] = []
    if given.get("method") == found.definition.method:
        fields["method"] = found.definition.method
    headers: object = given.get("headers", MASK)
    if headers is None:
        fields |= _headers({}, found, secrets)
    elif isinstance(headers, dict):
        changed = cast("dict[str, Any]", headers)
        names = {name.lower() for name in changed}
        present = found.definition.headers | secrets.headers
        kept = {name: value for name, value in present.items() if name.lower() not in names}
        fields |= _headers(kept | changed, found, secrets)
    return fields


def _replacement(given: Mapping[str, Any], found: Subscription, secrets: Secrets) -> dict[str, Any]:
    """``given`` as a patch that leaves nothing of what was there but the key."""
    whole = {"enabled": True, **{name: None for name in FIELDS if name != "enabled"}, **given}
    fields = _patch(whole, found, secrets)
    query, headers = whole["query_parameters"], whole["headers"]
    if isinstance(query, dict):
        gone = dict.fromkeys(found.definition.query)
        fields["query"] = gone | cast("dict[str, Any]", query)
    if isinstance(headers, dict):
        fields |= _headers(cast("dict[str, Any]", headers), found, secrets)
    return fields


def _headers(wanted: Mapping[str, Any], found: Subscription, secrets: Secrets) -> dict[str, Any]:
    """The patch after which the headers are the wanted ones, all of them secret. A mask that comes back keeps the value
    behind it, whatever the case of the name."""
    present = {name.lower(): value for name, value in (found.definition.headers | secrets.headers).items()}
    kept = {
        name: present.get(name.lower(), value) if value == MASK else value
        for name, value in wanted.items()
        if value is not None
    }
    gone = dict.fromkeys(secrets.headers)
    return {"headers": dict.fromkeys(found.definition.headers), "secret_headers": gone | kept}


def _strangers(given: Mapping[str, Any]) -> list[str]:
    return [name for name in given if name not in FIELDS][:MAX_UNKNOWN]


@contextmanager
def _in_our_words(given: Mapping[str, Any]) -> Generator[None]:
    """Faults that the engine finds are told under the names of this API."""
    try:
        yield
    except InvalidInput as error:
        if not error.faults:
            raise
        strangers = _strangers(given)
        refuse([_told(fault, strangers) for fault in error.faults])


def _told(fault: Fault, strangers: list[str]) -> Fault:
    if fault.field.startswith(_UNKNOWN):
        name = strangers[int(fault.field.removeprefix(_UNKNOWN))]
        if name in READ_ONLY:
            return Fault(name, "is set by the server and cannot be changed; leave it out")
        return Fault(name[:80], unknown(name[:80], FIELDS))
    if fault.field == "profile":
        return Fault("url", "must be an https:// URL")
    field = _our_name(fault.field)
    return Fault(field, _SAID_OURSELVES.get(field, fault.message))


def _our_name(field: str) -> str:
    for theirs, ours in _OURS.items():
        if field == theirs or field.startswith((f"{theirs}.", f"{theirs}[")):
            return ours + field.removeprefix(theirs)
    return field


# --- from a subscription to a webhook ---------------------------------------------------------------------


def _shown(ask: Ask, found: Subscription, *, reveal: bool = False) -> Answer:
    return Answer(_view(ask, found, reveal=reveal))


def _view(ask: Ask, found: Subscription, *, reveal: bool = False) -> WebhookView:
    """The key and the headers in full for whoever may edit all, as the Admin shows them; ``reveal`` shows the key in
    the answer to the request that made it."""
    definition = found.definition
    secrets = ask.services.subscriptions.secrets(found)
    full = Scope.MANAGE in ask.caller.may
    key = secrets.keys[0].secret if secrets.keys else None
    status = _status(found)
    return WebhookView(
        id=found.id,
        description=definition.name,
        url=definition.url,
        query_parameters=definition.query,
        headers=definition.headers | (secrets.headers if full else dict.fromkeys(secrets.headers, MASK)),
        events=definition.events,
        include_object_record=definition.profile_options.get("include_object_record") is True,
        method=definition.method,
        enabled=status in ("active", "switched_off"),
        status=status,
        signature_key=key if full or reveal or key is None else MASK,
        created_at=unix(found.created_at),
        updated_at=unix(max(found.updated_at, found.state_at)),
    )


def _status(found: Subscription) -> Status:
    if found.state is SubscriptionState.ACTIVE:
        return "active"
    if found.state is SubscriptionState.PAUSED:
        return "switched_off" if found.state_reason == SWITCHED_OFF else "paused"
    return "disabled"


_ONE = f"{V1}/webhooks/{{id}}"

OPERATIONS = (
    Operation("GET", f"{V1}/webhooks", list_webhooks, Scope.READ_SUBSCRIPTIONS),
    Operation("POST", f"{V1}/webhooks", create_webhook, Scope.CREATE_SUBSCRIPTIONS, changes=True),
    Operation("GET", _ONE, get_webhook, Scope.READ_SUBSCRIPTIONS),
    Operation("PATCH", _ONE, change_webhook, Scope.UPDATE_SUBSCRIPTIONS, changes=True),
    Operation("PUT", _ONE, replace_webhook, Scope.UPDATE_SUBSCRIPTIONS, changes=True),
    Operation("DELETE", _ONE, delete_webhook, Scope.DELETE_SUBSCRIPTIONS, changes=True),
    Operation("POST", f"{_ONE}/rotate-key", rotate_key, Scope.UPDATE_SUBSCRIPTIONS, changes=True),
)
