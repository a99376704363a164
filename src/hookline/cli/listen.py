"""A receiver for trying out: shows what arrives, and checks the signature if it knows the secret."""

from __future__ import annotations

import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Annotated

from cyclopts import Parameter, validators

from hookline.cli import output
from hookline.cli.failures import Usage
from hookline.verify import VerificationError, verify

LARGEST = 64 << 20
"""Bytes that a request may have, as the server's own upper limit for events."""
IDLE_SECONDS = 90.0


def listen(
    *,
    port: Annotated[int, Parameter(validator=validators.Number(gte=0, lte=65535))] = 9000,
    secret: tuple[str, ...] = (),
    status: Annotated[int, Parameter(validator=validators.Number(gte=200, lte=599))] = 200,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> None:
    """Receive webhooks on this machine and show them, until Ctrl-C: for trying out.

    Parameters
    ----------
    port
        The port to listen on, at 127.0.0.1.
    secret
        Check signatures with this whsec_… or whpk_… key, and answer 401 if none fits; may be repeated.
    status
        What to answer: 200 accepts, 500 asks for a retry.
    as_json
        Print JSON lines.
    """
    for one in secret:
        _check(one)
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), _handler(secret, status, _shown(as_json=as_json)))
    except OSError as error:
        raise Usage(f"cannot listen on 127.0.0.1:{port}: {error.strerror}") from error
    output.note(f"listening on http://127.0.0.1:{server.server_port}/ (any path)")
    with server:
        server.serve_forever()


def _handler(
    secrets: tuple[str, ...], status: int, show: Callable[[dict[str, object]], None]
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = IDLE_SECONDS

        def _receive(self) -> None:
            body = self.rfile.read(min(int(self.headers.get("content-length") or 0), LARGEST))
            signed = _verdict(body, dict(self.headers), secrets)
            answer = status if signed in ("verified", "not checked") else 401
            show({
                "id": self.headers.get("webhook-id", ""),
                "sequence": self.headers.get("hookline-sequence", ""),
                "attempt": self.headers.get("hookline-attempt", ""),
                "signature": signed,
                "answer": answer,
                "body": body.decode("utf-8", "replace"),
            })  # fmt: skip
            self.send_response(answer)
            self.send_header("content-length", "0")
            self.end_headers()

        do_POST = do_PUT = do_PATCH = do_GET = _receive  # noqa: N815 - named by http.server

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: each request is shown already."""

    return Handler


def _check(secret: str) -> None:
    """Find a secret that can never fit before the first request comes."""
    headers = {"webhook-id": "-", "webhook-timestamp": str(int(time.time())), "webhook-signature": "v1,AAAA"}
    try:
        verify(b"", headers, secret)
    except VerificationError as error:
        if error.code == "bad_secret":
            raise Usage(f"--secret: {error}; `hookline subscriptions secrets <id>` shows it") from error


def _verdict(body: bytes, headers: dict[str, str], secrets: tuple[str, ...]) -> str:
    if not secrets:
        return "not checked"
    try:
        verify(body, headers, secrets)
    except VerificationError as error:
        return f"refused: {error}"
    return "verified"


def _shown(*, as_json: bool) -> Callable[[dict[str, object]], None]:
    def show(request: dict[str, object]) -> None:
        if as_json:
            output.put_json(request)
        else:
            words = [f"{name} {output.cell(request, name)}" for name in ("sequence", "attempt", "signature")]
            output.put(f"{output.cell(request, 'id')}  {', '.join(words)}, answered {request['answer']}")
            output.put(f"  {output.cell(request, 'body')}")

    return show
