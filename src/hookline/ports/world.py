"""What the engine needs from the world around it: time, requests, secrets, hints."""

from __future__ import annotations

from collections.abc import Callable, Collection
from enum import StrEnum
from typing import Protocol

from msgspec import Struct

from hookline.core.model import ClientCertificate, Micros, Millis

# --- clock and randomness ----------------------------------------------------------------------------


class Clock(Protocol):
    """Time, given so that a simulation can bend it."""

    def now(self) -> Millis:
        """Wall-clock time in milliseconds, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back, for intervals."""
        ...


# --- sending -----------------------------------------------------------------------------------------


class ErrorClass(StrEnum):
    """Why a request got no answer, or none that counts."""

    DNS = "dns"
    ADDRESS_REFUSED = "address_refused"
    CONNECT = "connect"
    CONNECT_TIMEOUT = "connect_timeout"
    TLS = "tls"
    TIMEOUT = "timeout"
    RESET = "reset"
    PROTOCOL = "protocol"
    AUTH = "auth"
    INTERNAL = "internal"


class Request(Struct, frozen=True, gc=False):
    """One HTTP request, ready to be sent. ``headers`` are full lines (``name: value``), already checked.

    ``client_certificate`` is shown to an endpoint that asks for one (mutual TLS).
    """

    method: str
    url: str
    headers: list[str]
    body: bytes | None
    connect_timeout: float
    total_timeout: float
    client_certificate: ClientCertificate | None = None


class Outcome(Struct, frozen=True, gc=False):
    """What became of a request. Exactly one of ``status`` (> 0) and ``error`` is set.

    Times are microseconds since the start of the request's own phase: ``dns``, ``connect`` (TCP) and ``tls`` are
    the length of each phase, ``first_byte`` and ``total`` count from the start. ``address`` is ``ip:port``.
    """

    status: int = 0
    error: ErrorClass | None = None
    detail: str = ""
    address: str = ""
    dns_us: Micros = 0
    connect_us: Micros = 0
    tls_us: Micros = 0
    first_byte_us: Micros = 0
    total_us: Micros = 0
    headers: bytes = b""
    body: bytes = b""
    truncated: bool = False


class Sender(Protocol):
    """Sends HTTP requests. Never follows redirects, never decompresses, never raises for what a peer does."""

    def start(self, request: Request, done: Callable[[Outcome], None]) -> None:
        """Send; ``done`` is called once, later, on the event loop's thread."""
        ...

    async def close(self) -> None:
        """Give up what is in flight (its ``done`` is not called) and free all sockets."""
        ...


class Vault(Protocol):
    """Encrypts secrets at rest. ``context`` binds a sealed value to its place."""

    def seal(self, plain: bytes, context: str) -> bytes: ...

    def open(self, sealed: bytes, context: str) -> bytes:
        """Raises ``HooklineError`` if the value was changed, moved, or sealed with an unknown key."""
        ...


class Wake(Protocol):
    """Gives a hint that there is something new in some shards; it may be lost, so everyone polls as well."""

    def notify(self, shards: Collection[int] | None = None) -> None:
        """``shards`` of None means all of them."""
        ...


class Bell(Protocol):
    """Where the hints about one shard arrive. One that came between two waits ends the second at once."""

    async def wait(self, seconds: float) -> None:
        """Return when notified, or after ``seconds``."""
        ...

    def close(self) -> None:
        """Hints are wanted no more."""
        ...


class Bells(Wake, Protocol):
    """Both ends of the hints, for a process that delivers."""

    def listen(self, shard: int) -> Bell: ...
