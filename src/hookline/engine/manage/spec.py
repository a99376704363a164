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
    ClientCertificate,
    Definition,
    Order,
    RateLimit,
    RetryPolicy,
    Secrets,
    SignatureScheme,
    Signing,
    SigningKey,
    Timeout,
)
from hookline.core.reading import MAX_FAULTS, read, refuse
from hookline.core.signing import signing_of
from hookline.profiles import PROFILES

MASK = "•••"
"""Stands for a secret that is not shown. Sent back unchanged, it keeps the secret."""


class SigningSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """``Signing`` with the secret, which is made by Hookline unless it is given."""

    scheme: SignatureScheme = SignatureScheme.V1
    id_header: str = "webhook-id"
    timestamp_header: str = "webhook-timestamp"
    signature_header: str = "webhook-signature"
    secret: str | None = None

    def signing(self) -> Signing:
        """The part without the secret."""
        return Signing(self.scheme, self.id_header, self.timestamp_header, self.signature_header)


class SubscriptionSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything a subscription is asked for. ``timeout`` may be given as one number, the total.

    The defaults here are those of the profile ``standard``; ``drafted`` puts in those of the others.
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
    client_certificate: ClientCertificate | None = None
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
    disable_on_gone: bool = True
    tracking_headers: bool = True
    profile_options: dict[str, str | bool] = field(default_factory=dict[str, str | bool])
    metadata: dict[str, str] = field(default_factory=dict)

    def secrets(self, keys: tuple[SigningKey, ...]) -> Secrets:
        """The secret part, with the signing ``keys``."""
        return Secrets(self.auth, keys, self.secret_headers, self.client_certificate)

    def definition(self) -> Definition:
        """The part without secrets."""
        return Definition(
            **{name: getattr(self, name) for name in _PLAIN},
            signing=self.signing.signing(),
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
    plain["client_certificate"] = msgspec.to_builtins(secrets.client_certificate)
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

    A change of the kind of authentication starts from nothing, so that no left-over of the old kind stays. With another
    profile or signature scheme, what was its default gives way to the new one's.
    """
    base = dict(present)
    if _kind(patch) not in (None, _kind(base)):
        base["auth"] = {}
    if patch.get("profile", base["profile"]) != base["profile"]:
        base = without_defaults(base)
        base["profile_options"] = {}
    elif _scheme(patch) not in (None, _scheme(base)):
        base["signing"] = without_defaults(base)["signing"]
    return drafted(cast("dict[str, Any]", merge(base, _unmask(patch))))


def drafted(given: dict[str, Any]) -> Draft:
    """The spec that a JSON object describes, on the defaults of its profile."""
    whole = with_defaults(given)
    try:
        return Draft(read(SubscriptionSpec, whole), [])
    except InvalidInput as error:
        if len(error.faults) >= MAX_FAULTS:  # and not all are known: what is readable cannot be told
            raise
        faults = list(error.faults)
    readable = {
        name: value for name, value in whole.items() if not any(_is_about(fault, name) for fault in faults)
    }
    return Draft(read(SubscriptionSpec, {"url": "", **readable}), faults)


# --- defaults of the profiles ---------------------------------------------------------------------------


def with_defaults(given: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON object with what its profile and signature scheme say where it says nothing."""
    result = dict(given)
    for name, default in _defaults(given).items():
        value: object = result.get(name, {})
        if name not in result or not isinstance(default, dict):
            result.setdefault(name, default)
        elif isinstance(value, dict):
            result[name] = {**default, **cast("dict[str, Any]", value)}
    return result


def without_defaults(whole: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON object without what its profile and signature scheme say anyway."""
    result = dict(whole)
    for name, default in _defaults(whole).items():
        if isinstance(default, dict):
            standard = cast("dict[str, object]", default)
            own = cast("dict[str, object]", result[name])
            result[name] = {key: value for key, value in own.items() if value != standard.get(key, UNSET)}
        elif result[name] == default:
            del result[name]
    return result


def _defaults(spec: Mapping[str, Any]) -> dict[str, Any]:
    """By field. A profile that does not exist has those of ``standard``; the rules name that fault."""
    defaults = PROFILES.get(str(spec.get("profile")), PROFILES["standard"]).defaults
    plain = _plain(defaults)
    scheme = _scheme(spec)
    if scheme in _SCHEMES and scheme not in (SignatureScheme.NONE, defaults.signing.scheme):
        plain["signing"] = _plain(signing_of(SignatureScheme(scheme)))
    return plain


def _plain(struct: Struct) -> dict[str, Any]:
    return cast("dict[str, Any]", msgspec.to_builtins(struct))


_SCHEMES = frozenset(scheme.value for scheme in SignatureScheme)


def _scheme(spec: Mapping[str, Any]) -> str | None:
    signing: object = spec.get("signing")
    found = cast("dict[str, object]", signing).get("scheme") if isinstance(signing, dict) else None
    return found if isinstance(found, str) else None


# --- reading --------------------------------------------------------------------------------------------


def _is_about(fault: Fault, name: str) -> bool:
    """A name may have full stops itself."""
    return fault.field == name or fault.field.startswith((f"{name}.", f"{name}["))


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
    for name in ("auth", "client_certificate", "signing", "secret_headers"):
        part: object = result.get(name)
        if isinstance(part, dict):
            entries = cast("dict[str, object]", part)
            result[name] = {key: value for key, value in entries.items() if value != MASK}
    return result


def _timeout(given: float | Timeout) -> Timeout:
    if isinstance(given, Timeout):
        return given
    return Timeout(connect=min(Timeout().connect, given), total=given)
