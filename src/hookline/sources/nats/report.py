"""How the bus is doing, for metrics, readiness and ``hookline doctor``."""

from __future__ import annotations

from msgspec import Struct
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from hookline.sources.nats.link import connected, jetstream, where
from hookline.sources.nats.options import NatsOptions


class BusReport(Struct, frozen=True, kw_only=True):
    """The state of streams and consumer at one moment.

    ``waiting`` messages were not handed out yet, ``unacknowledged`` were and are being stored (or their node died):
    together they are the lag. ``redelivered`` of those were handed out more than once.
    """

    server: str
    messages: int
    bytes: int
    max_bytes: int
    replicas: int
    replicas_current: int
    waiting: int
    unacknowledged: int
    redelivered: int
    dead_letters: int

    @property
    def lag(self) -> int:
        """Events on the bus that are not in the log yet."""
        return self.waiting + self.unacknowledged


async def report(js: JetStreamContext, options: NatsOptions, server: str) -> BusReport:
    """Ask the servers. Raises ``nats.errors.Error``; ``NotFoundError`` if stream or consumer do not exist yet."""
    stream = await js.stream_info(options.stream)
    consumer = await js.consumer_info(options.stream, options.durable)
    peers = (stream.cluster.replicas if stream.cluster else None) or []
    return BusReport(
        server=server,
        messages=stream.state.messages,
        bytes=stream.state.bytes,
        max_bytes=stream.config.max_bytes or 0,
        replicas=stream.config.num_replicas or 1,
        replicas_current=1 + sum(bool(peer.current and not peer.offline) for peer in peers),
        waiting=consumer.num_pending or 0,
        unacknowledged=consumer.num_ack_pending or 0,
        redelivered=consumer.num_redelivered or 0,
        dead_letters=await _dead_letters(js, options),
    )


async def _dead_letters(js: JetStreamContext, options: NatsOptions) -> int:
    try:
        return (await js.stream_info(options.dead_stream)).state.messages
    except NotFoundError:
        return 0


async def inspect_bus(options: NatsOptions) -> BusReport:
    """Connect for one look. Raises ``nats.errors.Error`` if the bus cannot be reached or was not set up yet."""
    async with connected(options, "hookline-doctor") as nc:
        return await report(jetstream(nc), options, where(nc))
