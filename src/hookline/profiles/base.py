"""What a profile has to say."""

from __future__ import annotations

from typing import Protocol

from hookline.core.model import Event, Sequence, Tenant


class Profile(Protocol):
    """One platform's way of writing an event as a request body.

    ``body`` is a pure function: the log shows a request's body by rendering it again.
    """

    @property
    def name(self) -> str: ...

    @property
    def content_type(self) -> str: ...

    def body(self, event: Event, sequence: Sequence, tenant: Tenant) -> bytes:
        """The exact bytes that are signed and sent. The publisher's ``data`` goes in byte for byte."""
        ...
