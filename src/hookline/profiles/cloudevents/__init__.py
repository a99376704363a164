"""CloudEvents 1.0.2 over HTTP, structured or binary.

Sources: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md and …/bindings/http-protocol-binding.md;
the extensions ``partitionkey`` and ``correlationid`` are those of …/extensions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, Literal
from urllib.parse import quote

from hookline.core.errors import Fault
from hookline.core.model import Event, Sequence, Tenant
from hookline.core.times import rfc3339
from hookline.profiles.base import Defaults, Options, Plain, text

_PRINTABLE = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')
"""What a header value may hold as it is (HTTP binding, 3.1.3.2); all else is percent-encoded."""


MAX_SOURCE: Final = 2048
"""Characters: in binary mode it is a header, and servers that take larger ones are few."""

_URI_CHARACTERS = r"(?:[A-Za-z0-9._~:/?@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*"
_URI_REFERENCE = re.compile(
    r"(?:[A-Za-z][A-Za-z0-9+.-]*:|(?=[^:/?#]*(?:[/?#]|\Z)))"  # a scheme, or no colon in what could be taken for one
    r"(?://(?:[^@/?#\[\]]*@)?\[[0-9A-Fa-fv:.]+\](?=[:/?#]|\Z))?"  # the one place for brackets
    rf"{_URI_CHARACTERS}(?:\#{_URI_CHARACTERS})?"
)
"""RFC 3986, 4.1, as far as characters go."""


class CloudEventsOptions(Options, frozen=True):
    """``mode``: the whole event in the body (structured), or its attributes in headers (binary). ``source``: the URI of
    the context in which events happen; empty: ``/tenants/<tenant id>``."""

    mode: Literal["structured", "binary"] = "structured"
    source: str = ""

    def faults(self) -> Iterator[Fault]:
        """See ``Options``. ``source`` is a URI-reference (CloudEvents 1.0.2, 3.1): receivers may refuse others."""
        if len(self.source) > MAX_SOURCE:
            yield Fault("source", f"must have at most {MAX_SOURCE} characters")
        elif not _URI_REFERENCE.fullmatch(self.source):
            message = "must be a URI or a relative one, such as https://shop.example or /shop; percent-encode the rest"
            yield Fault("source", message)


class _Context(Plain):
    def __init__(self, tenant: Tenant, options: CloudEventsOptions) -> None:
        self._source = options.source or f"/tenants/{tenant.id}"

    def attributes(self, event: Event) -> dict[str, str]:
        """The attributes of the event, without ``datacontenttype``."""
        found = {
            "specversion": "1.0",
            "id": event.id,
            "source": self._source,
            "type": event.type,
            "time": rfc3339(event.occurred_at),
            "subject": _subject(event),
            "partitionkey": event.key,
            "correlationid": event.correlation_id,
        }
        return {name: value for name, value in found.items() if value}


def _subject(event: Event) -> str | None:
    return "/".join(filter(None, (event.object_type, event.object_id))) or None


class StructuredFormat(_Context):
    """Attributes and data in one JSON object."""

    content_type = "application/cloudevents+json"

    def body(self, event: Event, sequence: Sequence) -> bytes:
        """See ``Format``."""
        members = ",".join(f'"{name}":{text(value)}' for name, value in self.attributes(event).items())
        return f'{{{members},"datacontenttype":"application/json","data":'.encode() + event.data + b"}"


class BinaryFormat(_Context):
    """The publisher's data as the body; attributes as ``ce-`` headers."""

    def body(self, event: Event, sequence: Sequence) -> bytes:
        """See ``Format``."""
        return event.data

    def headers(self, event: Event) -> list[str]:
        """See ``Format``."""
        return [
            f"ce-{name}: {quote(value, safe=_PRINTABLE)}" for name, value in self.attributes(event).items()
        ]


class CloudEventsProfile:
    """See ``Profile``."""

    name = "cloudevents"
    title = "CloudEvents 1.0"
    defaults = Defaults()
    options = CloudEventsOptions
    headers = frozenset(
        f"ce-{name}" for name in "specversion id source type time subject partitionkey correlationid".split()
    )
    uuids = False

    def format(self, tenant: Tenant, options: CloudEventsOptions) -> StructuredFormat | BinaryFormat:
        """See ``Profile``."""
        form = BinaryFormat if options.mode == "binary" else StructuredFormat
        return form(tenant, options)
