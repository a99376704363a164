"""The parts of the command that need no Hookline server; tests/e2e/test_cli.py has the rest."""

import io
import json
import os
import re
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hookline.cli import given, output, reference
from hookline.cli.bench_receiver import Book
from hookline.cli.client import Api, path
from hookline.cli.events import BATCH_BYTES, BATCH_ITEMS, _batches
from hookline.cli.failures import ApiRefused, Unreachable, Usage
from hookline.cli.root import run
from hookline.settings import TABLE

DOCS = Path(__file__).parents[2] / "docs/reference"
SOURCE = Path(__file__).parents[2] / "src"


class Canned(ThreadingHTTPServer):
    """Gives the answers put into it, in turn, and keeps the requests."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), CannedHandler)
        self.answers: list[tuple[int, bytes]] = []
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class CannedHandler(BaseHTTPRequestHandler):
    server: Canned  # pyright: ignore[reportIncompatibleVariableOverride] - it is made by it alone

    def answer(self):
        size = int(self.headers.get("content-length", 0))
        self.server.requests.append((self.command, self.path, dict(self.headers), self.rfile.read(size)))
        status, body = self.server.answers.pop(0)
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PATCH = do_DELETE = answer  # noqa: N815 - http.server asks for these names

    def log_message(self, format, *args):
        pass


@pytest.fixture
def server():
    made = Canned()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def typed(text: bytes) -> io.TextIOWrapper:
    """Standard input with this in it."""
    return io.TextIOWrapper(io.BytesIO(text))


def answer(status, body):
    return status, json.dumps(body).encode()


# --- the client ------------------------------------------------------------------------------------------


def test_a_list_is_read_page_by_page(server):
    server.answers += [
        answer(200, {"data": [{"id": 1}, {"id": 2}], "next": "c"}),
        answer(200, {"data": [{"id": 3}], "next": None}),
    ]
    api = Api(server.url + "/", "hk_1", "shop")
    assert [item["id"] for item in api.pages(path("events"), {"type": "a b", "from": ""})] == [1, 2, 3]
    (_, first, headers, _), (_, second, _, _) = server.requests
    assert first == "/v1/events?type=a+b&limit=100"
    assert second == "/v1/events?type=a+b&limit=100&cursor=c"
    assert headers["authorization"] == "Bearer hk_1"
    assert headers["hookline-tenant"] == "shop"


def test_a_list_ends_at_its_limit(server):
    server.answers.append(answer(200, {"data": [{"id": 1}, {"id": 2}], "next": "c"}))
    assert len(list(Api(server.url).pages(path("events"), limit=2))) == 2
    assert "limit=2" in server.requests[0][1]


def test_any_text_may_be_an_id():
    assert path("event-types", "order:created") == "/v1/event-types/order:created"
    assert path("events", "../keys?x") == "/v1/events/..%2Fkeys%3Fx"


def test_a_problem_is_told_with_all_faults(server, capfd):
    faults = [{"field": "url", "message": "must be https"}, {"field": "", "message": "and\x1b[2J more"}]
    problem = {"title": "T", "status": 422, "code": "invalid_input", "detail": "2 faults", "faults": faults}
    server.answers.append(answer(422, problem))
    assert run(["tenants", "show", "x", "--url", server.url, "--key", "k"]) == 1
    told = capfd.readouterr().err
    assert told == "Error: 2 faults (422 invalid_input)\n  url: must be https\n  and�[2J more\n"


@pytest.mark.parametrize("reply", [(200, b"<html>"), (200, b""), (404, b"no"), (302, b"{}"), (500, b"[]")])
def test_what_is_not_hookline_is_told(server, reply):
    server.answers.append(reply)
    with pytest.raises(Unreachable, match="is the URL right"):
        Api(server.url).get("/v1/x")


@pytest.mark.parametrize("body", [{}, [], {"data": "x"}, 7])
def test_a_stranger_that_speaks_json_is_told(server, capfd, body):
    for command in (["events", "list"], ["keys", "list"]):
        server.answers.append(answer(200, body))
        assert run([*command, "--url", server.url, "--key", "k"]) == 3
        assert "is the URL right" in capfd.readouterr().err


def test_an_error_without_details_has_its_status(server):
    server.answers.append(answer(503, {}))
    with pytest.raises(ApiRefused, match="no reason given \\(503\\)"):
        Api(server.url).get("/v1/x")


def test_nothing_listens(server, capfd):
    server.answers.append((200, b"{}"))
    Api(server.url).get("/")
    port = server.server_port
    server.shutdown()
    server.server_close()
    assert run(["tenants", "list", "--url", f"http://127.0.0.1:{port}", "--key", "k"]) == 3
    assert "nothing listens there" in capfd.readouterr().err


@pytest.mark.parametrize(
    "url", ["localhost:8480", "ftp://h/", "", "http://", "http://h:x", "http://h:99999", "http://[::1"]
)
def test_a_url_must_be_one(url):
    with pytest.raises(Usage, match="http://"):
        Api(url)


@pytest.mark.parametrize("value", ["a\nb", "a\r", "schlüssel", "雪"])
def test_what_no_header_can_hold_is_told(value):
    with pytest.raises(Usage, match="HOOKLINE_KEY"):
        Api("http://127.0.0.1", value)
    with pytest.raises(Usage, match="HOOKLINE_TENANT"):
        Api("http://127.0.0.1", "", value)


def test_the_operator_key_of_this_machine_is_used_here_and_nowhere_else(server, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hookline-data").mkdir()
    (tmp_path / "hookline-data/operator.key").write_text("hk_of_this_machine\n")
    server.answers += [answer(200, {"data": []})]
    assert run(["tenants", "list", "--url", server.url]) == 0
    assert server.requests[0][2]["authorization"] == "Bearer hk_of_this_machine"
    assert capfd.readouterr().err == ""
    from hookline.cli.target import _local_key

    assert _local_key("http://192.0.2.1:8480") == ""


# --- publishing ------------------------------------------------------------------------------------------


def test_a_payload_is_sent_byte_for_byte(server, capfd):
    server.answers.append(answer(202, {"id": "evt_1", "duplicate": False}))
    data = '{"total": 10.00, "big": 12345678901234567890123, "e": 1E2,  "a": "\\u00e9"}'
    arguments = [
        "publish",
        "order:created",
        data,
        "--object",
        "order:4471",
        "--user",
        "eve",
        "--order-key",
        "k",
    ]
    assert run([*arguments, "--url", server.url, "--key", "k"]) == 0
    body = server.requests[0][3].decode()
    assert f'"data": {data}' in body
    sent = json.loads(body)
    del sent["data"]
    assert sent == {
        "type": "order:created",
        "object": {"type": "order", "id": "4471"},
        "source": {"user_id": "eve"},
        "key": "k",
    }
    assert capfd.readouterr().out == "evt_1\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["publish", "a", "-", "--id", "x", "--json"],
        ["event-types", "create", "a", "--json", "--example", "-"],
        ["subscriptions", "update", "a", "--spec", "-", "--json"],
    ],
)
def test_a_hyphen_is_standard_input(server, monkeypatch, arguments):
    monkeypatch.setattr(sys, "stdin", typed(b'{"n": 1.50}\n'))
    server.answers.append(answer(200, {"id": "x", "duplicate": False}))
    assert run([*arguments, "--url", server.url, "--key", "k"]) == 0
    assert b"1.5" in server.requests[0][3]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["publish", "order:created"], "TYPE and DATA"),
        (["publish", "order:created", "{", "--key", "k"], "not valid JSON"),
        (["publish", "a", "@/nowhere/file"], "cannot be read"),
        (["publish", "--file", "/nowhere/file"], "cannot be read"),
        (["publish", "a", "{}", "--file", "x"], "either"),
        (["subscriptions", "create", "--header", "x"], "name=value"),
        (["subscriptions", "create"], "needs a URL"),
        (["subscriptions", "create", "--spec", "[]"], "JSON object"),
        (["replay", "sub_1"], "--from"),
        (["tenants", "lst"], "Did you mean"),
        (["tenants", "list", "--limit", "x"], "Invalid value"),
        (["serve", "--port", "99999"], "accepted: a whole number"),
        (["tenants", "list", "extra"], "Nothing is expected where this stands: extra"),
        (["keys", "revoke"], "See hookline keys revoke --help"),
        (["publish", "a", "{}", "--object", "order"], "--object takes type:id"),
        (["publish", "a", "{}", "--object", ":4471"], "--object takes type:id"),
        (["publish", "a", "@a\0b"], "cannot be read"),
        (["listen", "--port", "99999"], "--port"),
        (["subscriptions", "update", "sub_1", "--filter", ""], "nothing is to be changed"),
        (["tenants", "update", "shop"], "nothing is to be changed"),
        (["event-types", "update", "order:created", "--force"], "nothing is to be changed"),
        (["listen", "--status", "42"], "--status"),
        (["listen", "--secret", "whsec_%"], "not base64"),
        (["listen", "--secret", "abc"], "begins with whsec_"),
    ],
)
def test_what_makes_no_sense_is_told(arguments, told, capfd):
    assert run(arguments) == 2
    error = capfd.readouterr().err
    assert told in error
    assert error.startswith("Error: ")  # all in one form, and no longer than a line
    assert "╭" not in error


def test_files_are_cut_into_batches():
    lines = [b'{"n": %d}\n' % n for n in range(BATCH_ITEMS + 1)]
    assert [len(batch) for batch in _batches(io.BytesIO(b"\r\n".join(lines)))] == [BATCH_ITEMS, 1]
    large = b"x" * (BATCH_BYTES // 2) + b"\n"
    assert [len(batch) for batch in _batches(io.BytesIO(large * 3 + b"last"))] == [1, 1, 2]
    assert list(_batches(io.BytesIO(b"a\n\n  \nb"))) == [[(1, b"a\n"), (4, b"b\n")]]  # as an editor counts


# --- the bench -------------------------------------------------------------------------------------------


def test_bench_says_what_opens_this_machine(server, capfd):
    fault = {"field": "url", "message": "is refused: 127.0.0.1 is a loopback address"}
    problem = {"detail": f"url: {fault['message']}", "code": "invalid_input", "faults": [fault]}
    server.answers.append(answer(422, problem))
    assert run(["bench", "--url", server.url, "--key", "k"]) == 1
    told = capfd.readouterr()
    assert told.out == ""
    assert "start it with HOOKLINE_ALLOW_NETWORKS=127.0.0.0/8" in told.err


def test_bench_needs_its_server_on_this_machine(capfd):
    assert run(["bench", "--url", "https://hookline.example", "--key", "k"]) == 2
    assert "not on this machine" in capfd.readouterr().err


def test_bench_ends_at_a_refusal_and_cleans_up(server, capfd):
    server.answers += [
        answer(201, {"id": "sub_1", "signing": {"secret": "whsec_AAAA"}}),
        answer(403, {"detail": "this needs the scope publish"}),
        (204, b""),
    ]
    assert run(["bench", "--concurrency", "1", "--json", "--url", server.url, "--key", "k"]) == 1
    told = capfd.readouterr()
    outcome = json.loads(told.out)
    assert (outcome["accepted"], outcome["refused"], outcome["publish_p50_ms"]) == (0, 1, None)
    assert "scope publish" in told.err
    assert [request[:2] for request in server.requests][-1] == ("DELETE", "/v1/subscriptions/sub_1")


def test_the_bench_book_counts_each_event_once():
    book = Book()
    book.arrived("a", 1, genuine=True)
    book.arrived("b", 2, genuine=False)
    assert (book.delivered, book.verified, book.duplicates, book.gaps) == (2, 1, 0, 0)
    book.arrived("b", 2, genuine=True)
    book.arrived("b", 2, genuine=True)
    book.arrived("d", 4, genuine=True)
    assert (book.delivered, book.verified, book.duplicates, book.gaps) == (3, 3, 1, 1)


# --- input and output ------------------------------------------------------------------------------------


def test_times_may_be_given_as_long_ago():
    got = datetime.fromisoformat(given.time("2h"))
    assert abs(got - (datetime.now(UTC) - timedelta(hours=2))) < timedelta(minutes=1)
    assert given.time("2026-01-31T12:00:00Z") == "2026-01-31T12:00:00Z"
    assert given.time("beginning") == "beginning"
    assert given.time("") == ""


def test_values_from_files_and_standard_input(tmp_path, monkeypatch):
    (tmp_path / "x.json").write_text('{"a": 1}\n')
    assert given.json_object(f"@{tmp_path}/x.json", "x") == {"a": 1}
    monkeypatch.setattr(sys, "stdin", typed(b"[1.0]"))
    assert given.json_text("-", "x") == "[1.0]"


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path):
    (tmp_path / "x.json").write_bytes(b"\xef\xbb\xbf{}")
    assert given.json_text(f"@{tmp_path}/x.json", "x") == "{}"


def test_what_is_not_utf8_is_told_with_its_place(tmp_path, monkeypatch):
    (tmp_path / "x.json").write_bytes(b'{"a": "Zo\xeb"}')
    with pytest.raises(Usage, match=r"x\.json is not UTF-8: byte 9 is 0xeb"):
        given.text_or_file(f"@{tmp_path}/x.json")
    monkeypatch.setattr(sys, "stdin", typed(b"\xff"))
    with pytest.raises(Usage, match="standard input is not UTF-8: byte 0"):
        given.text_or_file("-")


def test_pairs():
    assert given.pairs(("a=1", "b=c=d", "e="), "--header") == {"a": "1", "b": "c=d", "e": ""}
    with pytest.raises(Usage):
        given.pairs(("=1",), "--header")


ITEM = {
    "id": "x",
    "object": {"type": "order", "id": "1\t\x1b]0;t\x07"},
    "tags": ["a", "b"],
    "on": True,
    "none": None,
}


def test_into_a_pipe_a_list_is_tab_separated_and_harmless(capfd):
    columns = {
        "id": "id",
        "object id": "object.id",
        "tags": "tags",
        "on": "on",
        "none": "none",
        "deep": "id.x",
    }
    output.show_list([ITEM], columns, as_json=False)
    assert capfd.readouterr().out == "id\tobject id\ttags\ton\tnone\tdeep\nx\t1��]0;t�\ta, b\tyes\t\t\n"


def test_json_is_one_object_a_line(capfd):
    output.show_list([ITEM, {"a": "é"}], {"id": "id"}, as_json=True)
    first, second = capfd.readouterr().out.splitlines()
    assert json.loads(first) == ITEM
    assert second == '{"a": "é"}'


def test_on_a_terminal_a_list_is_a_table(capfd, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    output.show_list([{"id": "[red]x"}], {"id": "id", "name": "name"}, as_json=False)
    output.show_list([], {"id": "id"}, as_json=False)
    told = capfd.readouterr()
    assert "[red]x" in told.out
    assert "name" not in told.out  # a column that is empty
    assert told.err == "none\n"


WIDE = {
    "id": "sub_" + "0" * 32,
    "state": "active",
    "at": "2026-03-01T09:30:00.123Z",
    "url": "https://warehouse.example/a/long/path/to/its/hooks",
    "count": 7,
    "reason": "it answered 410",
}


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (60, ["id", "state", "url"]),
        (80, ["id", "state", "at (UTC)", "url"]),
        (160, ["id", "state", "at (UTC)", "url", "count", "reason"]),
    ],
)
def test_a_table_breaks_only_free_text_and_leaves_out_what_has_no_room(capfd, monkeypatch, width, shown):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(width))
    output.show_list([WIDE], {name: name for name in WIDE}, as_json=False)
    told = capfd.readouterr()
    heading, first, *_ = lines = re.sub("\x1b\\[[0-9;]*m", "", told.out).splitlines()
    assert re.split(" {2,}", heading.rstrip()) == shown
    assert all(len(line.rstrip()) <= width for line in lines)
    assert WIDE["id"] in first
    assert ("2026-03-01 09:30:00" in first) == ("at (UTC)" in shown)
    assert (WIDE["url"] in first) == (width == 160)
    assert ("no room for" in told.err) == (width < 160)


def test_a_stream_lines_up(capfd):
    from hookline.cli.table import Stream

    stream = Stream(["id", "state"])
    stream.add([])
    stream.add([["e1", "pending"], ["event-2", "2026-03-01T09:30:00.123Z"]])
    stream.add([["e3", "failed"]])
    assert capfd.readouterr().out.splitlines() == [
        "id       state (UTC)",
        "e1       pending",
        "event-2  2026-03-01 09:30:00",
        "e3       failed",
    ]


def test_a_stream_leaves_out_what_is_empty_or_has_no_room(capfd, monkeypatch):
    from hookline.cli.table import Stream

    monkeypatch.setenv("COLUMNS", "24")
    stream = Stream(["id", "object", "type", "url"])
    stream.add([["e1", "", "order:created", "https://x.example"]])
    stream.add([["e2", "", "order:paid", ""]])
    stream.add([["e3", "o-1", "order:created", ""]])
    told = capfd.readouterr()
    assert told.out.splitlines() == [
        "id  type",
        "e1  order:created",
        "e2  order:paid",
        "id  object",
        "e3  o-1",
    ]
    assert told.err.splitlines() == [
        "(no room for url: widen the terminal, or use --json)",
        "(no room for type, url: widen the terminal, or use --json)",
    ]


def test_what_the_server_refuses_is_said_in_the_commands_own_words(server, capfd):
    problem = {"detail": "url: has no scheme", "code": "invalid_input"}
    fault = {"field": "url", "message": "has no scheme"}
    server.answers.append(answer(422, {**problem, "faults": [fault]}))
    server.answers.append(answer(401, {"detail": "send the API key", "code": "unauthorized"}))
    tenant = {"field": "Hookline-Tenant", "message": "is required"}
    server.answers.append(answer(422, {"detail": "name it", "faults": [tenant]}))
    errors: list[str] = []
    for _ in range(3):
        assert run(["events", "list", "--url", server.url, "--key", "k"]) == 1
        told = capfd.readouterr()
        assert told.out == ""  # no heading without a list
        errors.append(told.err)
    assert errors[0] == "Error: url: has no scheme (422 invalid_input)\n"  # once is enough
    several = {"title": "Not valid", "detail": "url: has no scheme (and 1 more)", "code": "invalid_input"}
    server.answers.append(
        answer(422, several | {"faults": [fault, {"field": "name", "message": "is empty"}]})
    )
    assert run(["events", "list", "--url", server.url, "--key", "k"]) == 1
    told = capfd.readouterr().err
    assert told == "Error: Not valid (422 invalid_input)\n  url: has no scheme\n  name: is empty\n"
    assert "--key" in errors[1]
    assert "--tenant" in errors[2]


def test_an_item_is_shown_field_by_field(capfd):
    log = [{"a": 1, "bc": "x"}, {}]
    headers = [["Server", "x\x1b"], ["Date", "now"]]
    item = {
        "id": "x",
        "retry": {"kind": "list", "delays": [5.0]},
        "log": log,
        "headers": headers,
        "empty": {},
    }
    output.show_item(item, as_json=False)
    assert capfd.readouterr().out.splitlines() == [
        "id:      x",
        "retry:",
        "  kind:   list",
        "  delays: 5",
        "log:",
        "  - a:  1",
        "    bc: x",
        "  - {}",
        "headers:",
        "  - Server: x�",
        "  - Date: now",
        "empty:   -",
    ]


LATIN = {"PYTHONIOENCODING": "latin-1"}
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def command(
    *arguments: str | bytes, env: dict[str, str], redirect: str = ""
) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, through a shell that redirects its output."""
    return subprocess.run(
        ["sh", "-c", f'"$@" {redirect}', "sh", sys.executable, "-m", "hookline", *arguments],
        capture_output=True,
        text=True,
        encoding="latin-1",
        timeout=30,
        check=False,
        env=os.environ | {"PYTHONPATH": str(SOURCE)} | env,
    )


@pytest.mark.parametrize(
    ("env", "shown"), [(LATIN, "name: Zoë \\u96ea"), (ASCII, "name: Zo\\xeb \\u96ea")], ids=["latin", "ascii"]
)
def test_what_the_locale_cannot_show_is_escaped(server, env, shown):
    server.answers += [answer(200, {"name": "Zoë 雪"})] * 2
    told = command("events", "show", "x", "--url", server.url, "--key", "k", env=env)
    assert (told.stdout.strip(), told.stderr, told.returncode) == (shown, "", 0)
    told = command("events", "show", "x", "--json", "--url", server.url, "--key", "k", env=env)
    assert json.loads(told.stdout) == {"name": "Zoë 雪"}


def test_an_argument_in_utf8_arrives_whatever_the_locale_is(server):
    server.answers.append(answer(202, {"id": "evt_1", "duplicate": False}))
    told = command("publish", "a", '{"n": "Zoë"}'.encode(), "--url", server.url, "--key", "k", env=ASCII)
    assert (told.stdout, told.stderr) == ("evt_1\n", "")
    assert '{"n": "Zoë"}'.encode() in server.requests[0][3]
    told = command("publish", "a", b'{"n": "Zo\xeb"}', "--url", server.url, "--key", "k", env={})
    assert (told.returncode, told.stdout) == (2, "")
    assert "is not UTF-8: byte 9 is 0xeb" in told.stderr


def test_output_that_goes_nowhere_is_no_crash(server):
    server.answers += [answer(200, {"data": [{"id": "x"}]})] * 3
    list_events = ("events", "list", "--url", server.url, "--key", "k")
    full = command(*list_events, env={}, redirect="> /dev/full")
    assert (full.returncode, full.stderr) == (
        1,
        "Error: the output cannot be written: No space left on device\n",
    )
    closed = command(*list_events, env={}, redirect=">&-")
    assert (closed.returncode, closed.stderr) == (0, "")
    assert command("events", "lst", env={}, redirect="2>&-").returncode == 2


# --- help and docs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "made"), [("settings.md", reference.settings_page), ("cli.md", reference.cli_page)]
)
def test_the_docs_say_what_the_code_does(name, made):
    assert (DOCS / name).read_text("utf-8") == made(), "run scripts/docs"


def test_serve_help_has_every_setting(capfd):
    assert run(["serve", "--help"]) == 0
    told = capfd.readouterr().out
    assert [row.variable for row in TABLE.values() if row.variable not in told] == []


@pytest.mark.parametrize(
    ("command", "told"), [("bench", "HOOKLINE_ALLOW_NETWORKS"), ("replay", "Ctrl-C stops the looking")]
)
def test_help_says_what_options_do_not(capfd, command, told):
    assert run([command, "--help"]) == 0
    assert told in " ".join(capfd.readouterr().out.split())


def test_help_imports_neither_server_nor_client():
    code = (
        "import sys; from hookline.cli.root import run; run(['--help']);"
        "sys.exit(str([name for name in ('starlette', 'pycurl', 'urllib3', 'hookline.app') if name in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
    )
    assert done.stderr == "[]\n"
    assert "subscriptions" in done.stdout


# --- doctor --------------------------------------------------------------------------------------------

_FINE = (200, b'{"status":"alive"}')
_OPERATOR = (200, b'{"key":{"scopes":["operator"]},"tenant":null}')


def _doctor(server, *answers: tuple[int, bytes]) -> tuple[int, dict[str, dict[str, object]]]:
    """Its exit code, and its findings by check."""
    server.answers += answers
    arguments = ("doctor", "--json", "--url", server.url, "--key", "k" * 30)
    done = subprocess.run(
        [sys.executable, "-m", "hookline", *arguments], capture_output=True, text=True, timeout=60, check=False,
        env={name: value for name, value in os.environ.items() if not name.startswith("HOOKLINE_")},
    )  # fmt: skip
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return done.returncode, {each["check"]: each for each in found}


def test_a_doctor_that_cannot_see_the_nodes_says_so(server):
    problem = json.dumps({"title": "The storage is not available", "detail": "the storage failed: refused"})
    code, found = _doctor(server, _FINE, (503, problem.encode()), _OPERATOR, (503, problem.encode()))
    assert code == 1
    assert found["server ready"]["detail"] == f"{server.url}/readyz answers 503: the storage failed: refused"
    assert found["delivery"]["ok"] is False
    assert "answers 503: the storage failed: refused" in str(found["delivery"]["detail"])


def test_a_doctor_with_a_tenants_key_leaves_the_nodes_out(server):
    code, found = _doctor(server, _FINE, _FINE, (200, b'{"key":{"scopes":["publish"]}}'), (403, b"{}"))
    assert code == 0
    assert "delivery" not in found
