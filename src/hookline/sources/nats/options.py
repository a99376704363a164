"""What the bus source is told. Durations are seconds, sizes are bytes; docs/how-to/use-a-bus.md states the defaults."""

from __future__ import annotations

import ssl
from pathlib import Path

from msgspec import Struct

from hookline.client.subjects import PREFIX

DAY = 86_400.0


class NatsOptions(Struct, frozen=True, kw_only=True):
    """Where the bus is, and the settings of the streams and the consumer that are made on it."""

    url: str
    """One server, or several parted by commas. A user and password, or a token, may stand in the first."""
    stream: str = "HOOKLINE_EVENTS"
    subject: str = PREFIX
    durable: str = "hookline"
    dead_stream: str = "HOOKLINE_DEAD"
    dead_subject: str = "hookline.dead"
    replicas: int = 1
    max_bytes: int = 4 << 30
    """What the stream may hold; a publisher beyond that is refused, nothing is pushed out."""
    dead_max_bytes: int = 1 << 30
    dead_max_age: float = 30 * DAY
    duplicate_window: float = 0.1
    """The shortest that a server takes. JetStream compares message ids over all tenants; the log compares ids within
    one tenant, and for as long as it keeps the event."""
    batch: int = 500
    """Events that are asked for at a time: what the publisher puts into one commit."""
    batch_bytes: int = 8 << 20
    """Never less than the largest message of the server: JetStream would not hand that out at all."""
    ack_wait: float = 60.0
    """After this time without an answer a message is delivered again. Longer than the publisher waits for a commit."""
    max_ack_pending: int = 10_000
    """Messages that all nodes together may have without having answered."""
    credentials: Path | None = None
    """A ``.creds`` file (JWT and seed); needs the library ``nkeys``."""
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    @property
    def everything(self) -> str:
        """The subject of all events."""
        return f"{self.subject}.*.>"

    def tls(self) -> ssl.SSLContext | None:
        """How to check the servers, and to say who we are. None: as the address says, by the system's authorities."""
        if self.ca_file is None and self.cert_file is None:
            return None
        context = ssl.create_default_context(cafile=None if self.ca_file is None else str(self.ca_file))
        if self.cert_file is not None:
            context.load_cert_chain(self.cert_file, self.key_file)
        return context
