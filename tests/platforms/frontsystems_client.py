"""An integration with Front Systems, as its guide "Real time integration using webhooks" describes one.

    frontsystems_client.py BASE_URL API_KEY SUBSCRIPTION_KEY EVENT

It looks the event up in the list of types, subscribes to it, and receives. Its back-end is a legacy one: every request
that it answers with 200 is booked, also if it comes twice. What it shall do comes as lines on standard input; each is
answered with one line of JSON.
"""

from __future__ import annotations

import json
import re
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit
from urllib.request import Request, urlopen

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
SECONDS = 60
PAUSE = 0.2
"""Between two looks at the list: what was resent needs a moment to arrive."""


class FrontSystems:
    """The REST API."""

    def __init__(self, base: str, api_key: str, subscription_key: str) -> None:
        self._base = base
        self._headers = {"x-api-key": api_key, "Ocp-Apim-Subscription-Key": subscription_key}

    def call(self, method: str, path: str, body: object = None) -> Any:
        """Whatever is not 2xx raises ``HTTPError``."""
        data = None if body is None else json.dumps(body).encode()
        headers = self._headers | ({} if body is None else {"Content-Type": "application/json"})
        request = Request(self._base + path, data, headers, method=method)
        with urlopen(request, timeout=SECONDS) as answer:
            return json.load(answer)

    def failed_events(self, webhook: str, since: str, until: str, *, payloads: bool = False) -> Any:
        """GetWebHooksEvents."""
        query = {"from": since, "to": until, "success": "false", "includePayload": str(payloads).lower()}
        return self.call(
            "GET", f"/api/WebhooksEvents/{webhook}?{urlencode(query | {'includeRuns': 'false'})}"
        )

    def resend(self, webhook: str, event: str) -> Any:
        """ResendWebhookEvent."""
        return self.call("POST", f"/api/WebhooksEvents/{webhook}/deliver/{event}")


class Receiver:
    """The endpoint. The token in its URL is all that tells a genuine request from others."""

    def __init__(self) -> None:
        self.token = secrets.token_urlsafe(16)
        self.booked: list[dict[str, str]] = []
        self.requests = 0
        self.strangers = 0
        self._answers: Callable[[int], int] = lambda _: 200
        self._lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = None
        self._place = socket.socket()
        """Bound and never listening: the port stays ours while we are down."""
        self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._place.bind(("127.0.0.1", 0))
        self._port: int = self._place.getsockname()[1]

    @property
    def url(self) -> str:
        """What is subscribed."""
        return f"http://127.0.0.1:{self._port}/front?token={self.token}"

    def up(self) -> None:
        """Listen, always on the same port."""
        handler = type("Handler", (_Handler,), {"receiver": self})
        self._server = _Server(("127.0.0.1", self._port), handler)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def down(self) -> None:
        """Refuse connections."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def answer(self, statuses: list[int]) -> None:
        """Give these in turn from now on."""
        self._answers = lambda number: statuses[number % len(statuses)]

    def take(self, query: str, headers: dict[str, str], body: bytes) -> int:
        """One request; the status of its answer."""
        with self._lock:
            self.requests += 1
            if parse_qs(query).get("token") != [self.token]:
                self.strangers += 1
                return 401
            status = self._answers(self.requests)
            if status == 200:
                # The pages say that a header carries the event's id, but not which one.
                event = next((value for value in headers.values() if UUID.fullmatch(value)), "")
                self.booked.append({"event": event, "body": body.decode()})
            return status


class _Server(ThreadingHTTPServer):
    request_queue_size = 512
    """Python's own value, 5, makes those wait who call while this program is not on the processor."""


class _Handler(BaseHTTPRequestHandler):
    receiver: Receiver
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status = self.receiver.take(urlsplit(self.path).query, dict(self.headers), body)
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Standard output is for answers."""


def recover(api: FrontSystems, webhook: str, since: str, until: str) -> dict[str, object]:
    """The small service of the guide: resend all failed events until there are none.

    Nothing is resent before the list shows the run of the last time: it would be booked twice.
    """
    runs: dict[str, int] = {}
    """Of each event when it was resent."""
    end = time.monotonic() + SECONDS
    while (failed := api.failed_events(webhook, since, until)) and time.monotonic() < end:
        for item in failed:
            event = item["webhookEventId"]
            if item["runsCounter"] > runs.get(event, -1):
                api.resend(webhook, event)
                runs[event] = item["runsCounter"]
        time.sleep(PAUSE)
    return {"resent": sorted(runs), "left": len(failed)}


def main(base: str, api_key: str, subscription_key: str, event: str) -> None:
    api, receiver = FrontSystems(base, api_key, subscription_key), Receiver()
    receiver.up()
    types = api.call("GET", "/api/WebhooksTypes")
    schema = api.call("GET", f"/api/WebhooksTypes/{event}/schema")
    webhook = api.call("POST", "/api/webhooks", {"event": event, "url": receiver.url})
    say({"types": [each["name"] for each in types], "schema": schema, "webhook": webhook})
    for line in sys.stdin:
        command, *words = line.split()
        match command:
            case "answer":
                say(receiver.answer([int(word) for word in words]))
            case "up":
                say(receiver.up())
            case "down":
                say(receiver.down())
            case "failed":
                say(api.failed_events(webhook["id"], *words, payloads=True))
            case "recover":
                say(recover(api, webhook["id"], *words))
            case "delete":
                say(api.call("DELETE", f"/api/Webhooks/{webhook['id']}"))
            case _:
                counts = {"requests": receiver.requests, "strangers": receiver.strangers}
                say(counts | {"booked": receiver.booked})


def say(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
