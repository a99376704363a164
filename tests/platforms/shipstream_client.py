"""A merchant's integration, written from ShipStream's pages "API Basics", "Webhook" and "Event" alone.

It knows nothing of the server behind the URL and uses the standard library only (and PHP, if there is one: the page
shows in PHP how a receiver checks a request). It takes commands from its standard input, one JSON array a line, and
answers each with one line of JSON:

    ["call", style, method, arguments]   one call; style is "session" or "basic"
    ["await", hook, count]               the first `count` good requests at a hook, in the order of their arrival
    ["refused", hook, count]             wait until that many requests were refused there
    ["break"] and ["mend"]               answer 503 from now on, and no longer

Environment: SHIPSTREAM_URL (the endpoint), SHIPSTREAM_USER, SHIPSTREAM_KEY, SHIPSTREAM_SECRET, and SHIPSTREAM_SESSION
for one that is kept from an earlier run.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import shutil
import subprocess
import sys
import threading
import urllib.request
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PATIENCE = 60.0
SESSION_EXPIRED = 5
PHP = shutil.which("php")

# As on the page, except that the command line has the body on its standard input and ends with an exit code.
PHP_CHECK = """
$json = file_get_contents('php://stdin');
$webhookSecretKey = $_SERVER['SHIPSTREAM_SECRET'];
$headerValue = $_SERVER['HTTP_X_PLUGIN_HMAC_SHA256'];
$expectedValue = base64_encode(hash_hmac('sha256', $json, $webhookSecretKey, TRUE));
if ($headerValue !== $expectedValue) {
    exit(1);
}
"""


class ApiError(Exception):
    """The code as the pages count it."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["message"])
        self.code = error["code"] * -1 - 32000 if error["code"] > -32600 else error["code"]


class SessionClient:
    """As the vendor's own client speaks: `login` first, version and id as texts, the session in each call, and a new
    session when it has expired."""

    def __init__(self, url: str, user: str, key: str, session: str) -> None:
        self.url, self.user, self.key = url, user, key
        self.session = session

    def call(self, method: str, arguments: list[Any], again: bool = True) -> Any:
        if not self.session:
            self.session = self._ask("login", [self.user, self.key])
        try:
            return self._ask("call", [self.session, method, arguments])
        except ApiError as error:
            if error.code != SESSION_EXPIRED or not again:
                raise
            self.session = ""
            return self.call(method, arguments, again=False)

    def _ask(self, procedure: str, params: list[Any]) -> Any:
        asked = {"jsonrpc": "2.0", "id": uuid.uuid4().hex[:13], "method": procedure, "params": params}
        answer = post(self.url, asked, {"Content-Type": "application/json", "Accept": "application/json"})
        assert answer["id"] == asked["id"]
        return result_of(answer)


class BasicClient:
    """As the pages' examples are written: HTTP Basic, the session null, the version a number."""

    def __init__(self, url: str, user: str, key: str) -> None:
        self.url = url
        self.authorization = "Basic " + base64.b64encode(f"{user}:{key}".encode()).decode()

    def call(self, method: str, arguments: list[Any]) -> Any:
        asked = {"jsonrpc": 2.0, "id": 1234, "method": "call", "params": [None, method, arguments]}
        answer = post(self.url, asked, {"Authorization": self.authorization})
        assert answer["id"] == 1234
        return result_of(answer)


def post(url: str, body: object, headers: dict[str, str]) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), headers, method="POST")
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return json.load(answer)


def result_of(answer: dict[str, Any]) -> Any:
    if answer.get("error") is not None:
        raise ApiError(answer["error"])
    return answer["result"]


# --- the receiver -----------------------------------------------------------------------------------------


def is_genuine(body: bytes, signature: str, secret: str) -> bool:
    expected = base64.b64encode(hmac.new(secret.encode(), body, hashlib.sha256).digest()).decode()
    return hmac.compare_digest(signature, expected)


def php_agrees(php: str, body: bytes, signature: str, secret: str) -> bool:
    """Whether the page's own check says the same of a request."""
    environment = {"HTTP_X_PLUGIN_HMAC_SHA256": signature, "SHIPSTREAM_SECRET": secret}
    ran = subprocess.run(
        [php, "-n", "-r", PHP_CHECK], input=body, env=environment, timeout=PATIENCE, check=False
    )
    return (ran.returncode == 0) is is_genuine(body, signature, secret)


class Log:
    """What came in at each hook (a path), and what was answered."""

    def __init__(self) -> None:
        self.broken = False
        self.good: dict[str, list[dict[str, Any]]] = {}
        self.refused: dict[str, int] = {}
        self.judged: list[tuple[bytes, str]] = []
        """Bodies and signatures for PHP, which is not asked while the sender waits: that waits for 5 s at most."""
        self.changed = threading.Condition()

    def wait(self, happened: Any, what: str) -> None:
        with self.changed:
            if not self.changed.wait_for(happened, PATIENCE):
                raise TimeoutError(what)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512
    """Python's own value, 5, makes those wait who call while this program is not on the processor: 3 s are enough."""


class Hook(BaseHTTPRequestHandler):
    log: Log
    secret: str
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status = self.judge(body)
        with self.log.changed:
            if status == 200:
                self.log.good.setdefault(self.path, []).append(self.told(body))
            else:
                self.log.refused[self.path] = self.log.refused.get(self.path, 0) + 1
            self.log.changed.notify_all()
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def judge(self, body: bytes) -> int:
        """As the vendor's receiver does: 401 for a wrong signature, 400 without topic and message."""
        if self.log.broken:
            return 503
        signature = self.headers.get("X-Plugin-Hmac-Sha256", "")
        self.log.judged.append((body, signature))
        if not is_genuine(body, signature, self.secret):
            return 401
        data = json.loads(body)
        return 200 if data.get("topic") and data.get("message") else 400

    def told(self, body: bytes) -> dict[str, Any]:
        return {
            "body": json.loads(body),
            "headers": {name.lower(): value for name, value in self.headers.items()},
        }

    def log_message(self, format: str, *args: Any) -> None:
        pass


# --- commands ---------------------------------------------------------------------------------------------


def say(answer: object) -> None:
    print(json.dumps(answer), flush=True)  # noqa: T201 - what the other side waits for


class Program:
    def __init__(self) -> None:
        url, user, key, session = (
            os.environ[f"SHIPSTREAM_{name}"] for name in ("URL", "USER", "KEY", "SESSION")
        )
        self.clients = {
            "session": SessionClient(url, user, key, session),
            "basic": BasicClient(url, user, key),
        }
        self.log = Log()
        self.secret = os.environ["SHIPSTREAM_SECRET"]
        hook = type("ThisHook", (Hook,), {"log": self.log, "secret": self.secret})
        self.server = Server(("127.0.0.1", 0), hook)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def obey(self, command: list[Any]) -> Any:
        match command:
            case ["call", style, method, arguments]:
                return self.clients[style].call(method, arguments)
            case ["await", hook, count]:
                self.log.wait(
                    lambda: len(self.log.good.get(hook, [])) >= count, f"{count} at {hook}: {self.log.good}"
                )
                self.ask_php()
                return self.log.good.get(hook, [])
            case ["refused", hook, count]:
                self.log.wait(lambda: self.log.refused.get(hook, 0) >= count, f"{count} refused at {hook}")
                self.ask_php()
                return True
            case ["break" | "mend" as how]:
                self.log.broken = how == "break"
                return True
            case _:
                raise ValueError(f"no such command: {command}")

    def ask_php(self) -> None:
        while PHP is not None and self.log.judged:
            body, signature = self.log.judged.pop()
            assert php_agrees(PHP, body, signature, self.secret), "PHP and Python disagree"

    def run(self) -> None:
        say({"port": self.server.server_address[1], "php": PHP is not None})
        for line in sys.stdin:
            try:
                answer = {"result": self.obey(json.loads(line))}
            except ApiError as error:
                answer = {"error": {"code": error.code, "message": str(error)}}
            say(answer)
        self.server.shutdown()
        self.server.server_close()


if __name__ == "__main__":
    Program().run()
