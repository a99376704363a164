"""A receiver that speaks HTTP/2 over TLS, made of the ``h2`` state machine."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import trustme

from tests.integration.receivers import Received, Receiver, run_server, server_context

Connection = h2.connection.H2Connection
Answer = Callable[[Connection, int, Received], None]
"""Called with the connection, the stream and the request once it is complete."""


def answer_ok(connection: Connection, stream: int, _request: Received) -> None:
    connection.send_headers(stream, [(":status", "200"), ("content-length", "2"), ("x-a", "b")])
    connection.send_data(stream, b"ok", end_stream=True)


@dataclass
class _Session:
    """One connection: events come in, finished requests go to the answer."""

    this: Receiver
    answer: Answer
    number: int
    connection: Connection = field(
        default_factory=lambda: Connection(h2.config.H2Configuration(client_side=False))
    )
    heads: dict[int, dict[str, str]] = field(default_factory=dict[int, dict[str, str]])
    bodies: dict[int, bytes] = field(default_factory=dict[int, bytes])

    def take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            self.heads[event.stream_id] = {_text(name): _text(value) for name, value in event.headers}
            self.bodies[event.stream_id] = b""
        elif isinstance(event, h2.events.DataReceived):
            self.bodies[event.stream_id] += event.data
            self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            self.finish(event.stream_id)

    def finish(self, stream: int) -> None:
        head = self.heads.pop(stream)
        request = Received(self.number, head[":method"], head[":path"], head, self.bodies.pop(stream))
        self.this.requests.append(request)
        self.answer(self.connection, stream, request)

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connection.initiate_connection()
        writer.write(self.connection.data_to_send())
        while data := await reader.read(65536):
            for event in self.connection.receive_data(data):
                self.take(event)
            writer.write(self.connection.data_to_send())
            await writer.drain()


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


@asynccontextmanager
async def http2_receiver(
    certificate: trustme.LeafCert, answer: Answer = answer_ok
) -> AsyncGenerator[Receiver]:
    """Run it on a free port of 127.0.0.1."""
    tls: ssl.SSLContext = server_context(certificate)
    tls.set_alpn_protocols(["h2"])

    async def converse(this: Receiver, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _Session(this, answer, this.connections).run(reader, writer)

    async with run_server(converse, tls=tls) as this:
        yield this
