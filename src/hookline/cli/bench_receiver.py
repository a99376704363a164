"""The endpoint of ``hookline bench``: verifies, and notes when what arrived."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from hookline.verify import VerificationError, verify

IDLE_SECONDS = 30.0
BACKLOG = 512


class Book:
    """What the receiver knows. ``begun`` is filled by the publishers: when each event's request began."""

    def __init__(self) -> None:
        self.secret = ""
        self.begun: dict[str, float] = {}
        self.took: list[float] = []
        self.duplicates = 0
        self.last = 0.0
        self._arrived: set[str] = set()
        self._verified: set[str] = set()
        self._sequences: set[int] = set()
        self._lock = threading.Lock()

    @property
    def delivered(self) -> int:
        """Different events that arrived."""
        return len(self._arrived)

    @property
    def verified(self) -> int:
        """Of those, with a good signature."""
        return len(self._verified)

    @property
    def gaps(self) -> int:
        """Numbers below the highest that arrived that did not."""
        return max(self._sequences, default=0) - len(self._sequences)

    def arrived(self, event: str, sequence: int, *, genuine: bool) -> None:
        """Note a request."""
        now = time.monotonic()
        with self._lock:
            self._arrived.add(event)
            self.last = now
            if not genuine:  # it was refused, and comes again
                return
            if event in self._verified:
                self.duplicates += 1
                return
            self._verified.add(event)
            self._sequences.add(sequence)
            self.took.append(now - self.begun.get(event, now))


class _Server(ThreadingHTTPServer):
    request_queue_size = BACKLOG
    daemon_threads = True


@contextmanager
def listening(book: Book) -> Generator[str]:
    """The URL of a receiver at 127.0.0.1, on a free port, until the block ends."""
    with _Server(("127.0.0.1", 0), _handler(book)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/bench"
        finally:
            server.shutdown()
            thread.join()


def _handler(book: Book) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = IDLE_SECONDS
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            genuine = _is_genuine(body, dict(self.headers), book.secret)
            sequence = int(self.headers.get("hookline-sequence") or 0)
            book.arrived(self.headers.get("webhook-id") or "", sequence, genuine=genuine)
            self.send_response(200 if genuine else 401)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the account at the end says it."""

    return Handler


def _is_genuine(body: bytes, headers: dict[str, str], secret: str) -> bool:
    try:
        verify(body, headers, secret)
    except VerificationError:
        return False
    return True
