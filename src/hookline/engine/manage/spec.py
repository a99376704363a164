"""A subscription as its owner writes and reads it: one JSON object, secrets included.

Changing a subscription is a JSON merge patch (RFC 7396) on that object: what is not named stays, null puts a field
back to its default, objects merge, lists are replaced.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

import msgspec
from msgspec import UNSET, Struct, UnsetType, field

from hookline.core.errors import Fault, InvalidInput
from hookline.core.model import (
    Auth,
    BreakerPolicy,
    Definition,
    Order,
    RateLimit,
    RetryPolicy,
    Secrets,
    SignatureScheme,
    Signing,
    Timeout,
)
from hookline.core.reading import read, refuse

MASK = "•••"
"""Stands for a secret that is not shown. Sent back unchanged, it keeps the secret."""


class SigningSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """``Signing`` with the secret, which is made by Hookline unless it is given."""

    scheme: SignatureScheme = SignatureScheme.V1
    id_header: str = "webhook-id"
    timestamp_header: str = "webhook-timestamp"
    signature_header: str = "webhook-signature"
    secret: str | None = None


class SubscriptionSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything a subscription is asked for. ``timeout`` may be given as one number, the total.

    ``secret_headers`` are sent like ``headers`` but stored encrypted and shown masked.
    """

    url: str
    events: tuple[str, ...] = ("*",)
    name: str = ""
    method: Literal["POST", "PUT", "PATCH", "GET"] = "POST"
    headers: dict[str, str] = field(default_factory=dict)
    secret_headers: dict[str, str] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)
    auth: Auth = Auth()
    profile: str = "standard"
    signing: SigningSpec = SigningSpec()
    retry: RetryPolicy = RetryPolicy()
    timeout: float | Timeout = Timeout()
    rate_limit: RateLimit | None = None
    max_in_flight: int = 64
    order: Order = Order.NONE
    filter: str | None = None
    breaker: BreakerPolicy = BreakerPolicy()
    disable_after: float = 432000.0
    tracking_headers: bool = True
    metadata: dict[str, str] = field(default_factory=dict)

    def definition(self) -> Definition:
        """The part without secrets."""
        signing = self.signing
        return Definition(
            **{name: getattr(self, name) for name in _PLAIN},
            signing=Signing(
                signing.scheme, signing.id_header, signing.timestamp_header, signing.signature_header
            ),
            timeout=_timeout(self.timeout),
        )


_PLAIN = tuple(
    name for name in Definition.__struct_fields__ if name not in {"signing", "timeout"}
)  # the fields that both structs have, of the same type


class Extras(Struct, frozen=True):
    """What may stand beside the spec in a request but is no part of the definition."""

    enabled: bool | UnsetType = UNSET
    version: int | UnsetType = UNSET
    start: str | UnsetType = field(default=UNSET, name="from")


def split(body: object, allowed: tuple[str, ...]) -> tuple[dict[str, Any], Extras, list[Fault]]:
    """A request's body as the spec's fields, the ``allowed`` extras, and what is wrong with those.

    Raises ``InvalidInput`` if it is no object.
    """
    if not isinstance(body, dict):
        refuse([Fault("", "must be a JSON object")])
    fields = dict(cast("dict[str, Any]", body))
    extras = {name: fields.pop(name) for name in allowed if name in fields}
    try:
        return fields, read(Extras, extras), []
    except InvalidInput as error:
        return fields, Extras(), list(error.faults)


def current(definition: Definition, secrets: Secrets) -> dict[str, Any]:
    """The stored subscription as the JSON object that a patch applies to."""
    plain = cast("dict[str, Any]", msgspec.to_builtins(definition))
    plain["auth"] = msgspec.to_builtins(secrets.auth)
    plain["secret_headers"] = dict(secrets.headers)
    return plain


class Draft(Struct, frozen=True):
    """A spec, and what is wrong with the members that could not be read: their defaults stand in for them."""

    spec: SubscriptionSpec
    faults: list[Fault]

    def with_rules(self, found: list[Fault]) -> list[Fault]:
        """All faults: those of reading, and those that the rules ``found`` in what could be read."""
        unread = {_member(fault) for fault in self.faults}
        return [*self.faults, *(fault for fault in found if _member(fault) not in unread)]


def merged(present: dict[str, Any], patch: Mapping[str, Any]) -> Draft:
    """The spec after a merge patch.

    A change of the kind of authentication starts from nothing, so that no left-over of the old kind stays.
    """
    base = dict(present)
    if _kind(patch) not in (None, _kind(base)):
        base["auth"] = {}
    return drafted(cast("dict[str, Any]", merge(base, _unmask(patch))))


def drafted(whole: dict[str, Any]) -> Draft:
    """The spec that a whole JSON object describes."""
    try:
        return Draft(read(SubscriptionSpec, whole), [])
    except InvalidInput as error:
        faults = list(error.faults)
    unread = {_member(fault) for fault in faults}
    readable = {name: value for name, value in whole.items() if name not in unread}
    return Draft(read(SubscriptionSpec, {"url": "", **readable}), faults)


def _member(fault: Fault) -> str:
    return fault.field.partition(".")[0].partition("[")[0]


def merge(target: object, patch: object) -> object:
    """RFC 7396 §2."""
    if not isinstance(patch, dict):
        return patch
    result = dict(cast("dict[str, object]", target)) if isinstance(target, dict) else {}
    for name, value in cast("dict[str, object]", patch).items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge(result.get(name), value)
    return result


def _kind(spec: Mapping[str, Any]) -> object:
    auth: object = spec.get("auth")
    return cast("dict[str, object]", auth).get("kind") if isinstance(auth, dict) else None


def _unmask(patch: Mapping[str, Any]) -> dict[str, Any]:
    """The patch without the masked secrets that a caller read and sent back."""
    result = dict(patch)
    for name in ("auth", "signing", "secret_headers"):
        part: object = result.get(name)
        if isinstance(part, dict):
            entries = cast("dict[str, object]", part)
            result[name] = {key: value for key, value in entries.items() if value != MASK}
    return result


def _timeout(given: float | Timeout) -> Timeout:
    if isinstance(given, Timeout):
        return given
    return Timeout(connect=min(Timeout().connect, given), total=given)
