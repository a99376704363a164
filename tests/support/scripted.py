"""An HTTP server that does what a test tells it to: answer, be slow, hang up. It remembers what it stored."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Behaviour = Callable[["Handler"], None]


@dataclass
class Script:
    """``steps`` are used up one for each request; then ``always``."""

    always: Behaviour
    steps: list[Behaviour] = field(default_factory=list[Behaviour])
    stored: dict[str, Any] = field(default_factory=dict[str, Any])
    """Events by id."""
    arrivals: list[str] = field(default_factory=list[str])
    """Ids as they came, those that came again included."""
    requests: list[tuple[float, str, int]] = field(default_factory=list[tuple[float, str, int]])
    """When, path, and how many events."""
    headers: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def behaviour(self) -> Behaviour:
        return self.steps.pop(0) if self.steps else self.always


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    script: Script
    events: list[Any]
    batch: bool

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.batch = self.path.endswith("/batch")
        self.events = [json.loads(line) for line in body.split(b"\n")]
        self.script.requests.append((time.monotonic(), self.path, len(self.events)))
        self.script.headers.append(dict(self.headers.items()))
        self.script.arrivals += [event["id"] for event in self.events]
        self.script.behaviour()(self)

    def answer(self, status: int, document: Any, **headers: str) -> None:
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""

    def store(self) -> list[dict[str, Any]]:
        results: list[dict[str, Any]] = []
        for event in self.events:
            duplicate = self.script.stored.setdefault(event["id"], event) is not event
            results.append({"status": 202, "id": event["id"], "duplicate": duplicate})
        return results


def accept(handler: Handler) -> None:
    """Store everything and say so."""
    results = handler.store()
    if handler.batch:
        handler.answer(200, {"data": results})
    else:
        handler.answer(202, results[0])


def refuse(code: str, status: int = 422, *faults: tuple[str, str]) -> Behaviour:
    """Say no to each event."""
    problem = {"status": status, "code": code, "detail": f"{code}!"}
    problem["faults"] = [{"field": place, "message": message} for place, message in faults]

    def behave(handler: Handler) -> None:
        if handler.batch:
            handler.answer(200, {"data": [{"status": status, "error": problem} for _ in handler.events]})
        else:
            handler.answer(status, problem)

    return behave


def answer(status: int, body: Any = b"", **headers: str) -> Behaviour:
    """Say the same whatever came."""
    return lambda handler: handler.answer(status, body, **headers)


def hang_up(handler: Handler) -> None:
    """Close without an answer, and without having stored."""
    handler.hang_up()


def store_and_hang_up(handler: Handler) -> None:
    """The worst moment: stored, and the answer lost."""
    handler.store()
    handler.hang_up()


def slow(seconds: threading.Event, then: Behaviour = accept) -> Behaviour:
    """Do nothing until ``seconds`` is set."""

    def behave(handler: Handler) -> None:
        seconds.wait(20)
        then(handler)

    return behave


class _Server(ThreadingHTTPServer):
    daemon_threads = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that gave up is no error here."""


@contextmanager
def scripted(always: Behaviour = accept, *steps: Behaviour) -> Iterator[Script]:
    """The server, gone afterwards."""
    script = Script(always, list(steps))
    handler = type("Bound", (Handler,), {"script": script, "timeout": 20})
    server = _Server(("127.0.0.1", 0), handler)
    script.port = server.server_address[1]
    thread = threading.Thread(target=lambda: server.serve_forever(0.01))
    thread.start()
    try:
        yield script
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()
