"""Between a subscription of Hookline and the fields that Avvyr gives it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from msgspec import UNSET, structs

from hookline.api.compat.avvyr.wire import (
    ALL_CREDENTIALS,
    CREDENTIALS,
    JSON_NAMES,
    AuthType,
    Given,
    HeaderItem,
    Settings,
    SubscriptionView,
    member,
    members,
)
from hookline.core.errors import Fault
from hookline.core.mail import MAILTO
from hookline.core.model import (
    AuthKind,
    Definition,
    RetryKind,
    RetryPolicy,
    Secrets,
    SignatureScheme,
    Subscription,
    SubscriptionState,
)
from hookline.core.times import rfc3339
from hookline.engine.manage import MASK

PROFILE = "avvyr"
ERROR_EMAIL = "avvyr.error_email"
"""Where the metadata of a subscription keeps its ``errorEmail``."""

MAX_RETRY_COUNT = 100
"""Ours: with the profile's delays, these last about four days."""

_SECRET_NAME = re.compile(
    r"auth|token|secret|passw|credential|cookie|session|signature|api[-_]?key|access[-_]?key", re.IGNORECASE
)
"""Additional headers whose values are taken to be secret: stored encrypted, shown masked."""

# --- as it is ------------------------------------------------------------------------------------------------


def settings_of(found: Subscription, secrets: Secrets) -> Settings:
    """The subscription in Avvyr's fields, secrets masked.

    What Avvyr has no word for (a subscription that the native API changed) is told in Hookline's: several types with
    commas between, the kind of authentication by its own name.
    """
    definition, auth = found.definition, secrets.auth
    kind = _auth_type(definition, secrets)
    return Settings(
        event_type=", ".join(definition.events),
        destination=definition.url,
        enabled=found.state is SubscriptionState.ACTIVE,
        auth_type=kind,
        auth_username=auth.username if kind == AuthType.BASIC else "",
        auth_password=MASK if kind == AuthType.BASIC else "",
        auth_token=MASK if kind == AuthType.BEARER else "",
        hmac_secret=MASK if kind == AuthType.HMAC else "",
        retry_enabled=definition.retry.kind is not RetryKind.NONE,
        retry_count=_retry_count(definition.retry),
        comment=definition.name,
        error_email=definition.metadata.get(ERROR_EMAIL, ""),
        additional_headers=definition.headers | dict.fromkeys(secrets.headers, MASK),
    )


def _auth_type(definition: Definition, secrets: Secrets) -> str:
    if secrets.auth.kind is not AuthKind.NONE:
        return secrets.auth.kind.value
    scheme = definition.signing.scheme
    return AuthType.HMAC.value if scheme is SignatureScheme.AVVYR else scheme.value


def _retry_count(policy: RetryPolicy) -> int:
    """Retries, not attempts. A list of delays, which only the native API sets, may end before the count does."""
    most = max(policy.max_attempts - 1, 0) if policy.max_attempts else MAX_RETRY_COUNT
    return min(most, len(policy.delays)) if policy.kind is RetryKind.LIST else most


def view_of(found: Subscription, secrets: Secrets) -> SubscriptionView:
    """What a client reads."""
    settings = settings_of(found, secrets)
    credentials = {name: getattr(settings, name) for name in CREDENTIALS.get(settings.auth_type, ())}
    return SubscriptionView(
        id=found.id,
        event_type=settings.event_type,
        destination=settings.destination,
        enabled=settings.enabled,
        auth_type=settings.auth_type,
        retry_enabled=settings.retry_enabled,
        retry_count=settings.retry_count,
        comment=settings.comment or None,
        error_email=settings.error_email or None,
        additional_headers=settings.additional_headers,
        created_at=rfc3339(found.created_at),
        updated_at=rfc3339(max(found.updated_at, found.state_at)),
        **credentials,
    )


# --- as it shall be ------------------------------------------------------------------------------------------


def resolved(given: Given, current: Settings | None, *, whole: bool) -> Settings:
    """All fields after a request: what it does not name stays, or with ``whole`` goes back to its default. Secrets
    stay in both cases for as long as the kind of authentication does, since clients cannot read them."""
    default, base = Settings(), current or Settings()
    if whole:
        base = structs.replace(default, **{name: getattr(base, name) for name in ALL_CREDENTIALS})
    values: dict[str, Any] = {}
    for name in Settings.__struct_fields__:
        value: object = getattr(given, name)
        kept: object = getattr(base, name) if value is UNSET else getattr(default, name)
        values[name] = kept if value is UNSET or value is None else value
    values["additional_headers"] = _as_mapping(values["additional_headers"])
    wanted = CREDENTIALS.get(values["auth_type"], ())
    values |= dict.fromkeys((name for name in ALL_CREDENTIALS if name not in wanted), "")
    return Settings(**values)


def _as_mapping(headers: dict[str, str] | list[HeaderItem]) -> dict[str, str]:
    return headers if isinstance(headers, dict) else {item.name: item.value for item in headers}


def faults_of(
    wanted: Settings, given: Given, current: Settings | None, unread: Iterable[Fault]
) -> list[Fault]:
    """What is wrong by Avvyr's own words; the rules of all subscriptions are checked where it is stored. ``unread``
    are the faults of reading: nothing more is said about those fields."""
    found = [
        *_needed(wanted),
        *_auth_faults(wanted, given, current),
        *_retry_faults(wanted, current),
        *_header_faults(wanted, given, current),
    ]
    silent = members(list(unread))
    if "authType" in silent:
        silent |= {JSON_NAMES[name] for name in ALL_CREDENTIALS}
    return [fault for fault in found if member(fault) not in silent]


def _needed(wanted: Settings) -> Iterator[Fault]:
    for name in ("event_type", "destination"):
        if not getattr(wanted, name):
            yield Fault(JSON_NAMES[name], "is required")
    if wanted.destination.lower().startswith(MAILTO):
        yield Fault("destination", "must be an https:// URL; mails about failures go to errorEmail")


def _auth_faults(wanted: Settings, given: Given, current: Settings | None) -> Iterator[Fault]:
    kind = wanted.auth_type
    if kind not in CREDENTIALS:
        if current is None or kind != current.auth_type:
            yield Fault("authType", f"must be one of {', '.join(AuthType)}")
        return
    for name in ALL_CREDENTIALS:
        field = JSON_NAMES[name]
        if name not in CREDENTIALS[kind]:
            if getattr(given, name) not in (UNSET, None, "", MASK):
                yield Fault(field, f"does not belong to authType {kind}; leave it out")
        elif not getattr(wanted, name):
            yield Fault(field, f"is required for authType {kind}")
        elif getattr(wanted, name) == MASK and (current is None or getattr(current, name) != MASK):
            yield Fault(field, "stands for a secret that is not shown; send the secret itself")


def _retry_faults(wanted: Settings, current: Settings | None) -> Iterator[Fault]:
    same = current is not None and wanted.retry_count == current.retry_count
    if not same and not 0 <= wanted.retry_count <= MAX_RETRY_COUNT:
        yield Fault("retryCount", f"must be from 0 to {MAX_RETRY_COUNT}")


def _header_faults(wanted: Settings, given: Given, current: Settings | None) -> Iterator[Fault]:
    stored = current.additional_headers if current is not None else {}
    for name, value in wanted.additional_headers.items():
        if value == MASK and stored.get(name) != MASK:
            message = "stands for a secret that is not shown; send the secret itself"
            yield Fault(f"additionalHeaders.{name[:80]}", message)
    if not isinstance(given.additional_headers, list):
        return
    seen: set[str] = set()
    for number, item in enumerate(given.additional_headers):
        if item.name.lower() in seen:
            yield Fault(f"additionalHeaders[{number}].name", "occurs twice")
        seen.add(item.name.lower())


# --- from one to the other -----------------------------------------------------------------------------------


def patch_of(wanted: Settings, current: Settings | None, secrets: Secrets | None) -> dict[str, Any]:
    """The merge patch on a native subscription that makes it so, or a new one if there is none (``current`` of None).
    What Avvyr has no field for stays."""

    def differs(*names: str) -> bool:
        return current is None or any(getattr(wanted, name) != getattr(current, name) for name in names)

    patch: dict[str, Any] = {"profile": PROFILE} if current is None else {}
    if differs("event_type"):
        patch["events"] = [wanted.event_type]
    if differs("destination"):
        patch["url"] = wanted.destination
    if differs("comment"):
        patch["name"] = wanted.comment
    if differs("auth_type", *ALL_CREDENTIALS):
        patch |= _auth_patch(wanted)
    if differs("retry_enabled", "retry_count"):
        patch["retry"] = _retry_patch(wanted, current)
    if wanted.error_email != (current.error_email if current is not None else ""):
        patch["metadata"] = {ERROR_EMAIL: wanted.error_email or None}
    if differs("additional_headers"):
        patch |= _header_patch(wanted.additional_headers, current, secrets or Secrets())
    return patch


def _auth_patch(wanted: Settings) -> dict[str, Any]:
    auth: dict[str, str] = {"kind": AuthKind.NONE.value}
    signing: dict[str, str] = {"scheme": SignatureScheme.NONE.value}
    match wanted.auth_type:
        case AuthType.BASIC:
            auth = {"kind": "basic", "username": wanted.auth_username, "secret": wanted.auth_password}
        case AuthType.BEARER:
            auth = {"kind": "bearer", "secret": wanted.auth_token}
        case AuthType.HMAC:
            signing = {"scheme": SignatureScheme.AVVYR.value, "secret": wanted.hmac_secret}
        case _:
            pass
    return {"auth": auth, "signing": signing}


def _retry_patch(wanted: Settings, current: Settings | None) -> dict[str, Any]:
    patch: dict[str, Any] = {"max_attempts": wanted.retry_count + 1}
    if not wanted.retry_enabled:
        patch["kind"] = RetryKind.NONE.value
    elif current is None or not current.retry_enabled:
        patch["kind"] = RetryKind.EXPONENTIAL.value
    return patch


def _header_patch(
    wanted: Mapping[str, str], current: Settings | None, secrets: Secrets
) -> dict[str, dict[str, str | None]]:
    """The additional headers as a whole: those that are not named any more go."""
    before = current.additional_headers if current is not None else {}
    plain: dict[str, str | None] = dict.fromkeys(name for name in before if name not in secrets.headers)
    secret: dict[str, str | None] = dict.fromkeys(secrets.headers)
    for name, value in wanted.items():
        (secret if value == MASK or _SECRET_NAME.search(name) else plain)[name] = value
    return {"headers": plain, "secret_headers": secret}


_FIELDS = {
    "url": "destination",
    "events": "eventType",
    "name": "comment",
    "auth.username": "authUsername",
    "signing.secret": "hmacSecret",
    "retry.max_attempts": "retryCount",
    "metadata": "errorEmail",
    "profile": "destination",
}


def spoken(faults: Iterable[Fault], known: list[Fault], auth_type: str) -> list[Fault]:
    """The faults of a native subscription in Avvyr's words, behind the ``known`` ones that it was given; fields that
    are known to be wrong are not named again."""
    native = [Fault(_field(fault.field, auth_type), fault.message) for fault in list(faults)[len(known) :]]
    silent = members(known)
    return [*known, *(fault for fault in native if member(fault) not in silent)]


def _field(native: str, auth_type: str) -> str:
    if native == "auth.secret":
        return "authToken" if auth_type == AuthType.BEARER else "authPassword"
    head, _, rest = native.partition(".")
    if head in ("headers", "secret_headers"):
        return f"additionalHeaders.{rest}" if rest else "additionalHeaders"
    return _FIELDS.get(native) or _FIELDS.get(head.partition("[")[0], native)
