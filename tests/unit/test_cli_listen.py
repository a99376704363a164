"""The receiver for trying out, beside what tests/e2e/test_readme.py does with it."""

import socket
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from http.server import ThreadingHTTPServer
from typing import Any

import pytest

from hookline.cli.listen import _handler, listen
from hookline.cli.root import run

SECRET = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"


@pytest.fixture(params=[((), 200), ((), 500), ((SECRET,), 200)], ids=["open", "failing", "verifying"])
def receiver(
    request: pytest.FixtureRequest,
) -> Iterator[tuple[ThreadingHTTPServer, list[dict[str, Any]], int]]:
    secrets, status = request.param
    shown: list[dict[str, Any]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(secrets, status, shown.append))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server, shown, 401 if secrets else status
    server.shutdown()
    thread.join()
    server.server_close()


def test_requests_are_answered_and_shown(
    receiver: tuple[ThreadingHTTPServer, list[dict[str, Any]], int],
) -> None:
    server, shown, status = receiver
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    for method, body in (("POST", b'{"a": "\xc3\xa9"}'), ("PUT", b"\xff"), ("GET", None)):
        connection.request(method, "/any/path", body, {"Webhook-Id": "evt_1", "Hookline-Sequence": "7"})
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (status, b"")
    connection.close()
    assert [one["body"] for one in shown] == ['{"a": "é"}', "�", ""]
    assert {(one["id"], one["sequence"], one["answer"]) for one in shown} == {("evt_1", "7", status)}
    assert all(("refused" in one["signature"]) == (status == 401) for one in shown)


def test_a_port_in_use_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert run(["listen", "--port", str(other.getsockname()[1])]) == 2
    assert "cannot listen on 127.0.0.1" in capfd.readouterr().err
    assert listen.__doc__
