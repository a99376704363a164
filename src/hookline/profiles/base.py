"""What a profile has to say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Protocol

import msgspec
from msgspec import Struct

from hookline.core.errors import Fault, HooklineError
from hookline.core.model import (
    BreakerPolicy,
    Definition,
    Event,
    RetryPolicy,
    Sequence,
    Signing,
    Tenant,
    Timeout,
)


class Defaults(Struct, frozen=True):
    """The parts of a subscription that a platform states or implies, wherever its owner says nothing else."""

    signing: Signing = Signing()
    retry: RetryPolicy = RetryPolicy()
    timeout: Timeout = Timeout()
    breaker: BreakerPolicy = BreakerPolicy()
    disable_after: float = Definition(url="").disable_after
    disable_on_gone: bool = True


UNJUDGED = BreakerPolicy(failures=0)
"""For platforms that state when each attempt is made: no breaker puts attempts off."""


class Options(Struct, frozen=True, forbid_unknown_fields=True):
    """What a subscription may choose of a profile: texts and switches with defaults."""

    def faults(self) -> Iterator[Fault]:
        """What is wrong with the choice beyond its types. Asked when one is made, not of what is stored."""
        return iter(())


class NoOptions(Options, frozen=True):
    """A profile that leaves nothing to choose."""


class Format(Protocol):
    """How the events of one subscription are written. Everything here is a pure function of its arguments: the log
    shows the body of a request by rendering it again."""

    @property
    def content_type(self) -> str: ...

    def body(self, event: Event, sequence: Sequence) -> bytes:
        """The exact bytes that are signed and sent. The publisher's ``data`` goes in byte for byte."""
        ...

    def headers(self, event: Event) -> list[str]:
        """Header lines about the event, beside those of signing."""
        ...

    def query(self, event: Event) -> dict[str, str]:
        """What a request without a body (GET) says of the event in its URL."""
        ...


class Profile(Protocol):
    """One platform's way of speaking."""

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str: ...

    @property
    def defaults(self) -> Defaults: ...

    @property
    def options(self) -> type[Options]:
        """What a subscription may choose (``profile_options``)."""
        ...

    @property
    def headers(self) -> frozenset[str]:
        """The headers that ``Format.headers`` sets, in lower case: no custom header may have their names."""
        ...

    @property
    def uuids(self) -> bool:
        """Whether a message's id is the UUID of its delivery, not the event's own id."""
        ...

    def format(self, tenant: Tenant, options: Any) -> Format:
        """``options`` is one of ``options``."""
        ...


class Plain:
    """What formats have in common: JSON, no headers of their own."""

    content_type = "application/json"

    def headers(self, event: Event) -> list[str]:
        """See ``Format``."""
        return []

    def query(self, event: Event) -> dict[str, str]:
        """See ``Format``."""
        return {"event_id": event.id, "event_type": event.type}


def read_options(profile: Profile, given: Mapping[str, str | bool]) -> Any:
    """The options of a stored subscription. Raises ``HooklineError`` for those of another version of the profile."""
    try:
        return msgspec.convert(given, profile.options)
    except msgspec.ValidationError as error:
        raise HooklineError(f"the profile {profile.name} cannot use its options: {error}") from error


def text(value: str) -> str:
    """A text as a JSON literal."""
    return msgspec.json.encode(value).decode()


def text_or_null(value: str | None) -> str:
    """A text as a JSON literal, or null."""
    return "null" if value is None else text(value)


_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def members(data: bytes) -> dict[str, bytes] | None:
    """The members of a JSON object, each as it was written; None for anything else."""
    if not data.lstrip().startswith(b"{"):
        return None
    try:
        return {name: bytes(raw) for name, raw in _members.decode(data).items()}
    except (msgspec.DecodeError, RecursionError):
        return None


def object_of(entries: Mapping[str, bytes]) -> bytes:
    """The JSON object with these members."""
    return b"{%b}" % b",".join([b"%b:%b" % (msgspec.json.encode(name), raw) for name, raw in entries.items()])
