"""A small program that receives EvolutionX's Event Driven Webhooks, written from its pages; it needs only Python.

    python evolutionx_client.py <base URL> <key>

It is a WSGI application for webhooks (so it sees the headers as the pages name them: ``HTTP_EVOX_SIGNATURE``,
``HTTP_EVOX_TIME``) and a client of the API. It reads commands from standard input, one a line, and answers each with
a line of JSON:

    subscribe [<method>]      create a webhook for this program; answers the webhook as the API shows it
    break <status>            answer each webhook so from now on
    mend                      answer as the pages say: 200 if the request is valid, 401 if not
    rotate                    take a new signature key
    report                    what arrived and what was made of it
    trace <event id>          the event, what is related to it, its requests and their payloads
    get <path>                any path of the API: its status and its JSON
    address                   where this program receives
    php                       whether PHP checks the signatures too
"""

from __future__ import annotations

import hashlib
import hmac
import json
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

TOLERANCE = 5 * 60
"""Seconds: "reject times older than about five minutes"."""
EVENTS = ["order.created", "user.updated", "user.subscribed", "user.unsubscribed"]
PASS = "let-me-through-the-firewall"
QUERY = {"integration": "erp", "note": "a b&c=d/ü"}
PHP = shutil.which("php")
"""The page shows the check in PHP; if there is one, it must agree."""
PHP_CHECK = """
$time = $_SERVER['HTTP_EVOX_TIME'];
$expected = hash_hmac('sha256', $time . '.' . file_get_contents('php://stdin'), $_SERVER['KEY']);
$fresh = abs(time() - (int) $time) <= 300;
exit($fresh && hash_equals($expected, $_SERVER['HTTP_EVOX_SIGNATURE']) ? 0 : 1);
"""


# --- the receiver -------------------------------------------------------------------------------------------


class Receiver:
    """What arrives, and what becomes of it."""

    def __init__(self) -> None:
        self.keys: dict[str, str] = {}
        """Signature keys by the path that their webhook calls."""
        self.broken = 0
        self.arrived: list[dict[str, Any]] = []
        self.refused: list[str] = []
        self.processed: list[str] = []
        self.duplicates: list[str] = []
        self.skipped: list[str] = []
        self.complaints: list[str] = []
        self.lock = threading.Lock()

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[[str, list[tuple[str, str]]], object]
    ) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        with self.lock:
            status, answer = self.receive(environ, body)
        start_response(f"{status} Whatever", [("Content-Type", "application/json")])
        return [json.dumps(answer).encode()]

    def receive(self, environ: dict[str, Any], body: bytes) -> tuple[int, object]:
        fault = self.fault_of(environ, body)
        if PHP and php_accepts(environ, body, self.keys.get(environ["PATH_INFO"], "")) is bool(fault):
            self.complaints.append(f"PHP and Python disagree about {environ['HTTP_EVOX_SIGNATURE']}")
        if fault:
            self.refused.append(fault)
            return 401, {"error": fault}
        parameters = dict(urllib.parse.parse_qsl(environ["QUERY_STRING"], keep_blank_values=True))
        event = json.loads(body) if environ["REQUEST_METHOD"] == "POST" else parameters
        self.arrived.append(
            {
                "event_id": event["event_id"],
                "time": int(environ["HTTP_EVOX_TIME"]),
                "signature": environ["HTTP_EVOX_SIGNATURE"],
                "method": environ["REQUEST_METHOD"],
                "path": environ["PATH_INFO"],
                "body": body.decode(),
                "parameters": parameters,
            }
        )
        self.look_for_the_settings(environ, parameters)
        if self.broken:
            return self.broken, {"error": "broken"}
        return 200, {"result": self.process(event)}

    def fault_of(self, environ: dict[str, Any], body: bytes) -> str:
        """The check of "Webhook Request Validation"."""
        sent, signature = environ.get("HTTP_EVOX_TIME", ""), environ.get("HTTP_EVOX_SIGNATURE", "")
        if not sent.isdigit() or abs(time.time() - int(sent)) > TOLERANCE:
            return "time"
        key = self.keys.get(environ["PATH_INFO"], "")
        expected = hmac.new(key.encode(), sent.encode() + b"." + body, hashlib.sha256).hexdigest()
        return "" if key and hmac.compare_digest(expected, signature) else "signature"

    def look_for_the_settings(self, environ: dict[str, Any], parameters: dict[str, str]) -> None:
        """The header for the firewall and the query parameters come with every request."""
        if environ.get("HTTP_X_FIREWALL_PASS") != PASS:
            self.complaints.append("the header is missing")
        if {name: parameters.get(name) for name in QUERY} != QUERY:
            self.complaints.append(f"the query parameters are {parameters}")
        if environ["REQUEST_METHOD"] == "POST" and environ["CONTENT_TYPE"] != "application/json":
            self.complaints.append(f"the body is {environ['CONTENT_TYPE']}")

    def process(self, event: dict[str, Any]) -> str:
        """Delivery is at least once, and our own API user's changes are no news to us."""
        event_id = event["event_id"]
        if event_id in self.processed or event_id in self.skipped:
            self.duplicates.append(event_id)
            return "duplicate"
        if event.get("source_user_type") == "api":
            self.skipped.append(event_id)
            return "skipped"
        self.processed.append(event_id)
        return "processed"

    def report(self) -> dict[str, Any]:
        with self.lock:
            names = ("arrived", "refused", "processed", "duplicates", "skipped", "complaints")
            return {name: list(getattr(self, name)) for name in names}


def php_accepts(environ: dict[str, Any], body: bytes, key: str) -> bool:
    headers = {name: environ[name] for name in ("HTTP_EVOX_TIME", "HTTP_EVOX_SIGNATURE")}
    command = [PHP or "", "-n", "-d", "variables_order=EGPCS", "-r", PHP_CHECK]
    return (
        subprocess.run(command, input=body, env={**headers, "KEY": key}, timeout=30, check=False).returncode
        == 0
    )


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 512
    """Python's own value, 5, makes those wait who call while this program is not on the processor."""


class Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        """Standard error is for complaints."""


# --- the API ------------------------------------------------------------------------------------------------


class Api:
    def __init__(self, base: str, key: str) -> None:
        self.base = f"{base}/evolutionx/api/v1"
        self.key = key

    def call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        request = urllib.request.Request(
            self.base + path,
            None if body is None else json.dumps(body).encode(),
            {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return response.status, json.loads(response.read() or b"null")
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())

    def good(self, method: str, path: str, body: object = None) -> Any:
        status, answer = self.call(method, path, body)
        if status >= 300:
            raise SystemExit(f"{method} {path}: {status} {answer}")
        return answer

    def everything(self, path: str) -> list[Any]:
        """A list, page by page."""
        found: list[Any] = []
        cursor = ""
        while cursor is not None:
            page = self.good("GET", f"{path}?limit=2&cursor={cursor}")
            found += page["data"]
            cursor = page["next"]
        return found


class Client:
    def __init__(self, api: Api, receiver: Receiver, address: str) -> None:
        self.api = api
        self.receiver = receiver
        self.address = address
        self.webhook = ""

    def subscribe(self, method: str = "POST") -> Any:
        path = f"/{method.lower()}/receive"
        status, webhook = self.api.call(
            "POST",
            "/webhooks",
            {
                "description": f"Everything to the ERP ({method})",
                "url": self.address + path,
                "query_parameters": QUERY,
                "headers": {"X-Firewall-Pass": PASS},
                "events": EVENTS,
                "include_object_record": True,
                "method": method,
            },
        )
        if status != 201:
            return {"status": status, **webhook}
        # The key is shown when the webhook is edited.
        self.webhook = webhook["id"]
        read = self.api.good("GET", f"/webhooks/{self.webhook}")
        self.receiver.keys[path] = read["signature_key"]
        return read

    def rotate(self) -> Any:
        rotated = self.api.good("POST", f"/webhooks/{self.webhook}/rotate-key")
        with self.receiver.lock:
            self.receiver.keys["/post/receive"] = rotated["signature_key"]
        return rotated["id"]

    def trace(self, event_id: str) -> Any:
        """What the Admin's Developer tools show: event, related events, requests."""
        requests = self.api.everything(f"/events/{event_id}/requests")
        return {
            "event": self.api.good("GET", f"/events/{event_id}"),
            "related": self.api.everything(f"/events/{event_id}/related"),
            "requests": requests,
            "payloads": [
                self.api.good("GET", f"/requests/{each['request_id']}/payload") for each in requests
            ],
        }

    def get(self, path: str) -> Any:
        status, answer = self.api.call("GET", path)
        return {"status": status, "json": answer}

    def do(self, command: str, *arguments: str) -> Any:
        if command == "break":
            self.receiver.broken = int(arguments[0])
        elif command == "mend":
            self.receiver.broken = 0
        elif command == "report":
            return self.receiver.report()
        elif command == "address":
            return self.address
        elif command == "php":
            return PHP is not None
        else:
            return getattr(self, command)(*arguments)
        return command


def main(base: str, key: str) -> None:
    receiver = Receiver()
    server = make_server("127.0.0.1", 0, receiver, Server, Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    client = Client(Api(base, key), receiver, f"http://127.0.0.1:{server.server_port}")
    for line in sys.stdin:
        print(json.dumps(client.do(*line.split())), flush=True)  # noqa: T201 - the answer
    server.shutdown()
    server.server_close()


if __name__ == "__main__":
    main(*sys.argv[1:])
