"""HTTP with nothing but Python: a few connections that are kept open, and bounded answers."""

from __future__ import annotations

import http.client
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from hookline import __version__
from hookline.client.errors import Unavailable
from hookline.client.events import header_value
from hookline.client.forks import watch

MOST_BYTES = 16 << 20
"""Of an answer: more than the results of the largest batch take."""


@dataclass(frozen=True)
class Answer:
    """What a server said. ``retry_after`` is the header as it stands."""

    status: int
    body: bytes
    retry_after: str = ""


class Endpoint:
    """One server and one key. Safe for threads; up to ``connections`` requests are under way at a time.

    ``timeout`` bounds each wait for the server (to connect, to take, to go on answering), in seconds.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        tenant: str = "",
        timeout: float = 10.0,
        connections: int = 8,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("url must be like https://hookline.example")
        self._secure = parts.scheme == "https"
        self._place = (parts.hostname, parts.port or (443 if self._secure else 80))
        self._path = parts.path.rstrip("/")
        self._timeout = timeout
        self._context = ssl_context or (ssl.create_default_context() if self._secure else None)
        self._headers = {
            "Authorization": f"Bearer {header_value(key)}",
            "User-Agent": f"hookline-python/{__version__}",
            **({"Hookline-Tenant": header_value(tenant)} if tenant else {}),
        }
        self._free = threading.BoundedSemaphore(connections)
        self._connections = connections
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()
        self._closed = False
        watch(self)

    def post(self, path: str, body: bytes, content_type: str) -> Answer:
        """Send one request. Raises ``Unavailable`` if there is no whole answer.

        What is sent here may arrive twice: the server tells events by their ids.
        """
        if not self._free.acquire(timeout=self._timeout):
            raise Unavailable(f"all {self._connections} connections are busy")
        try:
            return self._post(path, body, {**self._headers, "Content-Type": content_type})
        finally:
            self._free.release()

    def close(self) -> None:
        """Close the connections: those in use when their request has ended."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def after_fork(self) -> None:
        """See ``Forkable``. What is closed here stays open for the parent."""
        for connection in self._idle:
            connection.close()
        self._idle = []
        self._lock = threading.Lock()
        self._free = threading.BoundedSemaphore(self._connections)

    def _post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        kept = self._kept()
        if kept is not None:
            # The server may have closed it meanwhile; that is no failure yet.
            with suppress(OSError, http.client.HTTPException):
                return self._exchange(kept, path, body, headers)
        try:
            return self._exchange(self._new(), path, body, headers)
        except (OSError, http.client.HTTPException) as error:
            host, port = self._place
            reason = str(error) or type(error).__name__
            raise Unavailable(f"no answer from {host}:{port}: {reason}") from error

    def _exchange(
        self, connection: http.client.HTTPConnection, path: str, body: bytes, headers: Mapping[str, str]
    ) -> Answer:
        keep = False
        try:
            connection.request("POST", self._path + path, body, dict(headers))
            response = connection.getresponse()
            content = response.read(MOST_BYTES)
            if response.length:  # bytes that were announced and did not come, or were too many
                raise http.client.IncompleteRead(content, response.length)
            keep = response.isclosed() and not response.will_close
            return Answer(response.status, content, response.getheader("Retry-After") or "")
        finally:
            if not (keep and self._keep(connection)):
                connection.close()

    def _keep(self, connection: http.client.HTTPConnection) -> bool:
        with self._lock:
            if not self._closed:
                self._idle.append(connection)
            return not self._closed

    def _kept(self) -> http.client.HTTPConnection | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _new(self) -> http.client.HTTPConnection:
        host, port = self._place
        if self._secure:
            return http.client.HTTPSConnection(host, port, timeout=self._timeout, context=self._context)
        return http.client.HTTPConnection(host, port, timeout=self._timeout)
