"""The command against a real server: everything an operator and a tenant do, from the first start on."""

import io
import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest

from hookline.cli import root

SOURCE = Path(__file__).parents[2] / "src"
DEADLINE = 60.0


def environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HOOKLINE_")}
    return kept | {
        "PYTHONPATH": str(SOURCE),
        "HOOKLINE_DATA_DIR": str(folder / "data"),
        "HOOKLINE_ALLOW_NETWORKS": "127.0.0.0/8",
    }


class Receiver(ThreadingHTTPServer):
    """An endpoint that keeps what it gets and answers ``status``."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), ReceiverHandler)
        self.bodies: list[bytes] = []
        self.status = 200
        self.url = f"http://127.0.0.1:{self.server_port}/hooks"


class ReceiverHandler(BaseHTTPRequestHandler):
    server: Receiver  # pyright: ignore[reportIncompatibleVariableOverride] - it is made by it alone

    def do_POST(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(self.server.status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


class Done(NamedTuple):
    """What became of a command."""

    returncode: int
    stdout: str
    stderr: str


@dataclass
class Shop:
    """A running server, and the command pointed at it."""

    url: str
    env: dict[str, str]
    key: str = ""

    def run(self, *arguments: str, code: int = 0, text: str | None = None) -> str:
        done = self.process(*arguments, text=text)
        assert done.returncode == code, (arguments, done.stdout, done.stderr)
        return done.stdout if code == 0 else done.stderr

    def process(self, *arguments: str, text: str | None = None) -> Done:
        """The command, run inside this process: a hundred starts of Python would take most of the time."""
        env = self.env | {"HOOKLINE_URL": self.url} | ({"HOOKLINE_KEY": self.key} if self.key else {})
        out, err = io.StringIO(), io.StringIO()
        standard_input = io.TextIOWrapper(io.BytesIO((text or "").encode()))
        with (
            mock.patch.dict(os.environ, env, clear=True),
            mock.patch.object(sys, "stdin", standard_input),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            code = root.run(arguments)
        return Done(code, out.getvalue(), err.getvalue())

    def json(self, *arguments: str) -> Any:
        """The one object that a command prints."""
        return json.loads(self.run(*arguments, "--json"))

    def lines(self, *arguments: str) -> list[Any]:
        return [json.loads(line) for line in self.run(*arguments, "--json").splitlines()]


def until(condition: Callable[[], Any]) -> Any:
    """Wait for something to become true, and return it."""
    end = time.monotonic() + DEADLINE
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
    return found


class Server:
    """A `hookline serve` of its own, at the ``url`` that its greeting tells."""

    def __init__(self, env: dict[str, str]) -> None:
        command = [sys.executable, "-m", "hookline", "serve", "--port", "0"]
        self.process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
        self.lines: queue.Queue[str] = queue.Queue()
        self.reader = threading.Thread(target=self._read)
        self.reader.start()
        self.url = self._greeting()

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self.lines.put(line)
        self.lines.put("")

    def _greeting(self) -> str:
        told = ""
        while line := self.lines.get(timeout=DEADLINE):
            told += line
            if found := re.search(r"answers at (http://\S+)", line):
                return found[1]
        self.stop()
        raise AssertionError(f"the server did not start: {told}")

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(DEADLINE)
        self.reader.join(DEADLINE)
        assert self.process.stderr
        self.process.stderr.close()
        return code


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    env = environment(tmp_path_factory.mktemp("hookline"))
    running = Server(env)
    yield Shop(running.url, env)
    assert running.stop() == 0, "".join(running.lines.queue)


@pytest.fixture
def shop(server: Shop, request: pytest.FixtureRequest) -> Shop:
    """A tenant of its own for each test, with its key."""
    name = re.sub(r"\W+", "-", request.node.name)[:60].strip("-")
    return Shop(server.url, server.env, server.json("tenants", "create", name)["api_key"])


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def test_an_operator_works_without_giving_a_key_on_the_servers_own_machine(server):
    done = server.process("tenants", "create", "acme", "--name", "Acme Ltd", "--bodies-days", "3", "--json")
    assert done.stderr == ""
    assert json.loads(done.stdout)["retention"]["bodies"] == 3
    assert server.json("tenants", "update", "acme", "--name", "Acme")["name"] == "Acme"
    assert server.json("tenants", "show", "acme")["name"] == "Acme"
    assert "acme" in [tenant["id"] for tenant in server.lines("tenants", "list")]
    assert server.json("subscriptions", "create", "--tenant", "acme", "https://example.com/")["events"] == [
        "*"
    ]
    told = server.run("tenants", "create", "acme", code=1)
    assert "409 conflict" in told


def test_keys_come_and_go(shop):
    made = shop.json("keys", "create", "--name", "till", "--scope", "publish")
    assert made["scopes"] == ["publish"]
    limited = Shop(shop.url, shop.env, made["secret"])
    assert limited.run("publish", "order:created", "{}").strip()
    assert "403 forbidden" in limited.run("keys", "list", code=1)
    shop.run("keys", "revoke", made["id"])
    assert "401 unauthorized" in limited.run("publish", "order:created", "{}", code=1)
    rows = shop.run("keys", "list").splitlines()
    assert rows[0].split("\t")[:2] == ["id", "name"]
    assert len(rows) == 3


def test_from_publishing_to_the_attempt(shop, receiver):
    secret = shop.json("subscriptions", "create", receiver.url, "--event", "order:*", "--name", "books")
    assert secret["signing"]["secret"].startswith("whsec_")
    event = shop.json(
        "publish",
        "order:created",
        '{"total": 10.00}',
        "--object",
        "order:7",
        "--correlation-id",
        "c1",
        "--user",
        "eve",
    )["id"]
    until(lambda: receiver.bodies)
    assert b'"data":{"total": 10.00}' in receiver.bodies[0].replace(b'"data": ', b'"data":')

    (listed,) = shop.lines("events", "list", "--object-type", "order", "--object-id", "7", "--from", "1h")
    assert listed["id"] == event
    shown = shop.json("events", "show", event)
    assert (shown["data"], shown["source"]["user_id"]) == ({"total": 10.0}, "eve")
    until(lambda: shop.lines("deliveries", "list", secret["id"], "--state", "succeeded"))
    (outcome,) = shop.lines("events", "deliveries", event)
    assert outcome["outcome"] == "succeeded"
    delivery = outcome["delivery"]["id"]
    (attempt,) = shop.lines("attempts", "list", delivery)
    assert attempt["status"] == 200
    assert shop.json("attempts", "show", attempt["id"])["request"]["body"]
    assert "outcome" in shop.run("events", "deliveries", event)

    shop.run("deliveries", "resend", delivery)
    until(lambda: len(receiver.bodies) == 2)
    other = shop.json("publish", "order:paid", "{}", "--correlation-id", "c1")["id"]
    assert [one["id"] for one in shop.lines("events", "related", event)] == [other]
    assert sum(day["events"] for day in shop.lines("usage")) == 2


def test_publishing_a_file_tells_of_each_line(shop, tmp_path):
    lines = [{"type": "order:created", "id": f"o{n}", "data": {"n": n}} for n in range(600)]
    lines[3] = {"type": "order:created", "id": "bad.id", "data": {}}
    (tmp_path / "events").write_text("\n".join(map(json.dumps, lines)))
    done = shop.process("publish", "--file", str(tmp_path / "events"))
    assert done.returncode == 1
    assert "599 published (0 of them were there already), 1 refused" in done.stdout
    assert "line 4: id: takes" in done.stderr
    del lines[3]
    told = shop.run("publish", "--file", "-", text="\n".join(map(json.dumps, lines)))
    assert "599 published (599 of them were there already), 0 refused" in told
    assert len(shop.lines("events", "list", "--limit", "0")) == 599


def test_the_catalogue(shop, tmp_path):
    (tmp_path / "schema.json").write_text('{"type": "object", "required": ["id"]}')
    shop.run(
        *("event-types", "create", "order:created", "--schema", f"@{tmp_path}/schema.json"),
        *("--example", '{"id": 1}', "--group", "orders"),
    )
    assert json.loads(shop.run("event-types", "schema", "order:created"))["required"] == ["id"]
    assert json.loads(shop.run("event-types", "example", "order:created")) == {"id": 1}
    assert shop.lines("event-types", "list")[-1]["group"] == "orders"
    stricter = (
        "event-types",
        "update",
        "order:created",
        "--schema",
        '{"type": "object"}',
        "--description",
        "d",
    )
    refused = shop.process(*stricter)
    assert refused.returncode in (0, 1)
    assert shop.json(*stricter, "--force")["description"] == "d"
    assert shop.json("event-types", "deprecate", "order:created")["deprecated_at"]
    assert shop.json("event-types", "show", "order:created")["deprecated_at"]
    assert shop.json("event-types", "deprecate", "order:created", "--undo")["deprecated_at"] is None
    assert {"name": "orders", "types": 1} in shop.lines("event-types", "groups")
    assert [one["name"] for one in shop.lines("event-types", "list", "--group", "orders")] == [
        "order:created"
    ]
    assert shop.lines("event-types", "list", "--group", "none") == []
    assert "order.created" in json.loads(shop.run("event-types", "export"))["channels"]
    exported = json.loads(shop.run("event-types", "export", "--format", "openapi"))
    assert "order:created" in exported["webhooks"]
    (tmp_path / "one.json").write_text(
        '{"group": "", "types": [{"name": "a", "description": "", "usage": "", "schema": true, "example": 1}]}'
    )
    checked = shop.run("event-types", "check", str(tmp_path / "one.json"))
    assert checked == f"{tmp_path}/one.json: 1 event type for all profiles\n"
    complaint = shop.run(
        *("event-types", "check", str(tmp_path / "schema.json"), str(tmp_path / "none.json")), code=1
    )
    assert complaint.splitlines() == [
        f"Error: {tmp_path}/schema.json: 4 faults",
        "  type: is not known; did you mean 'types'?",
        "  required: is not known; known are $defs, group, profile, types",
        "  group: is required",
        "  types: is required",
        f"Error: {tmp_path}/none.json: cannot be read: No such file or directory",
    ]


def test_the_life_of_a_subscription(shop, receiver):
    made = shop.json(
        *(
            "subscriptions",
            "create",
            receiver.url,
            "--event",
            "a",
            "--header",
            "X-Shop=7",
            "--order",
            "key",
        ),
        *("--rate", "50", "--spec", '{"metadata": {"team": "erp"}, "order": "strict"}', "--paused"),
    )
    assert (made["state"], made["order"], made["headers"]) == ("paused", "key", {"X-Shop": "7"})
    one = made["id"]
    assert shop.json("subscriptions", "resume", one)["state"] == "active"
    changed = shop.json(
        "subscriptions", "update", one, "--event", "b", "--event", "c", "--filter", "data.n > 1"
    )
    assert (changed["events"], changed["order"]) == (["b", "c"], "key")
    assert [found["id"] for found in shop.lines("subscriptions", "list", "--search", "erp")] == [one]

    assert shop.json("subscriptions", "test", one)["accepted"]
    receiver.status = 500
    assert shop.process("subscriptions", "test", one, "--type", "b", "--data", "{}").returncode == 1
    seen = shop.json("subscriptions", "preview", one, "--spec", '{"type": "b", "data": {"n": 1}}')
    assert seen["matches"] is False

    before = shop.json("subscriptions", "secrets", one)["keys"]
    rotated = shop.json("subscriptions", "rotate-secret", one, "--overlap", "60")
    after = shop.json("subscriptions", "secrets", one)["keys"]
    assert [key["secret"] for key in after] == [rotated["signing"]["secret"], before[0]["secret"]]
    assert (
        shop.json("subscriptions", "pause", one, "--reason", "stocktaking")["state_reason"] == "stocktaking"
    )
    assert shop.json("subscriptions", "health", one)["state"] == "paused"
    shop.run("subscriptions", "delete", one)
    assert "404 not_found" in shop.run("subscriptions", "show", one, code=1)


def test_every_fault_of_a_subscription_is_told(shop):
    spec = '{"retry": {"delays": [-1]}, "timeout": {"total": 0}}'
    told = shop.run("subscriptions", "create", "ftp://x", "--spec", spec, code=1)
    assert "422 invalid_input" in told
    for place in ("url", "retry.delays", "timeout"):
        assert re.search(rf"^  {place}", told, re.MULTILINE), told


def test_a_replay_shows_its_way_and_its_end(shop, receiver):
    one = shop.json("subscriptions", "create", receiver.url)["id"]
    for _ in range(3):
        shop.run("publish", "order:created", "{}")
    until(lambda: len(shop.lines("deliveries", "list", one, "--state", "succeeded")) == 3)
    assert "3 deliveries would be sent again" in shop.run("replay", one, "--from", "1h", "--dry-run")
    assert "is done: 3 of 3" in shop.run("replay", one, "--from", "beginning", "--state", "succeeded")
    until(lambda: len(receiver.bodies) == 6)
    (job,) = shop.lines("replay", "list", one)
    assert shop.json("replay", "show", job["id"])["state"] == "done"
    assert shop.json("replay", "cancel", job["id"])["state"] == "done"


@pytest.mark.parametrize("what", ["events", "deliveries"])
def test_tail_follows(shop, receiver, what):
    one = shop.json("subscriptions", "create", receiver.url)["id"]
    first = shop.json("publish", "a", "{}")["id"]
    if what == "deliveries":
        until(lambda: shop.lines("deliveries", "list", one, "--state", "succeeded"))
    arguments = ["--subscription", one] if what == "deliveries" else []
    tail = subprocess.Popen(
        [sys.executable, "-m", "hookline", "tail", "--every", "0.05", "--json", *arguments],
        env=shop.env | {"HOOKLINE_URL": shop.url, "HOOKLINE_KEY": shop.key},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert tail.stdout
    name = "event" if what == "deliveries" else "id"
    assert json.loads(tail.stdout.readline())[name] == first
    second = shop.json("publish", "a", "{}")["id"]
    assert json.loads(tail.stdout.readline())[name] == second
    tail.send_signal(signal.SIGINT)
    assert tail.wait(DEADLINE) == 130
    tail.stdout.close()


def test_bench_counts_what_arrives_and_cleans_up(shop):
    told = shop.json("bench", "--events", "50", "--concurrency", "4")
    assert [told[name] for name in ("events", "accepted", "refused", "delivered", "verified")] == [
        50, 50, 0, 50, 50,
    ]  # fmt: skip
    assert (told["duplicates"], told["gaps"]) == (0, 0)
    assert 0 < told["publish_p50_ms"] <= told["publish_p99_ms"]
    assert 0 < told["delivery_p50_ms"] <= told["delivery_p99_ms"]
    assert told["events_per_second"] == pytest.approx(50 / told["seconds"], rel=0.1)
    assert "events per second:" in shop.run("bench", "--events", "1")
    assert shop.lines("subscriptions", "list") == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_bench_deletes_its_subscription(shop, number):
    command = [sys.executable, "-m", "hookline", "bench", "--events", "1000000"]
    env = shop.env | {"HOOKLINE_URL": shop.url, "HOOKLINE_KEY": shop.key}
    running = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until(lambda: shop.lines("events", "list"))
    running.send_signal(number)
    _, errors = running.communicate(timeout=DEADLINE)
    assert (running.returncode, errors) == (130, b"")
    assert shop.lines("subscriptions", "list") == []


def test_doctor_and_openapi(server, tmp_path):
    told = server.run("doctor")
    assert "BAD" not in told
    assert "server ready" in told
    assert "node " in told
    assert "1 slices of 1 shards" in told
    assert json.loads(server.run("openapi"))["openapi"].startswith("3.1")
    elsewhere = Shop("http://127.0.0.1:1", environment(tmp_path) | {"HOOKLINE_PROT": "1"}, "k" * 30)
    found = [json.loads(line) for line in elsewhere.process("doctor", "--json").stdout.splitlines()]
    assert [one["ok"] for one in found] == [False, False]


def hookline(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own, for what runs a loop or opens the database."""
    return subprocess.run(
        [sys.executable, "-m", "hookline", *arguments],
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


def test_migrate_makes_the_database(tmp_path):
    for _ in range(2):
        done = hookline(tmp_path, "migrate")
        assert (done.returncode, done.stdout) == (0, "")
        assert re.fullmatch(r"sqlite:///.*/hookline.db is as version \S+ needs it\n", done.stderr)
        assert (tmp_path / "data/hookline.db").stat().st_size > 0


@pytest.mark.parametrize("command", ["serve", "migrate"])
def test_a_database_that_is_not_there_is_named(tmp_path, command):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}/shop"
        done = hookline(tmp_path, command, "--database-url", f"postgresql://me:secret@{address}")
    assert done.returncode == 1
    assert f"HOOKLINE_DATABASE_URL: postgresql://me@{address} cannot be used: " in done.stderr
    assert "refused" in done.stderr
    assert "secret" not in done.stderr


def test_a_server_that_cannot_listen_says_so(server, tmp_path):
    done = hookline(tmp_path, "serve", "--port", server.url.rpartition(":")[2])
    assert done.returncode != 0
    assert "another program listens there" in done.stderr
    assert "Traceback" not in done.stderr
