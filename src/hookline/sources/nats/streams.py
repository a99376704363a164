"""The streams and the consumer on the server: made as the options say, or checked if others made them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import product

from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    ConsumerInfo,
    DeliverPolicy,
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
    StreamInfo,
)
from nats.js.errors import APIError, NotFoundError

from hookline.core.errors import Fault, SettingsInvalid
from hookline.observe import log
from hookline.sources.nats.options import NatsOptions

MADE_BY_US = "made by Hookline"
"""The description of what we make. What has another one belongs to someone else, and is used as it is or not at all."""
DEAD_WINDOW = 120.0
"""For so long a dead letter that is written again (its answer was lost) is the same one."""


_Check = Callable[[StreamConfig, StreamConfig], Iterable[str]]
_Change = Awaitable[StreamInfo | ConsumerInfo]
_Faults = Iterable[str]


def events_config(options: NatsOptions) -> StreamConfig:
    """The stream of events: a queue on disk that keeps each message until we have it, and refuses what does not fit."""
    return StreamConfig(
        name=options.stream,
        description=MADE_BY_US,
        subjects=[options.everything],
        retention=RetentionPolicy.WORK_QUEUE,
        storage=StorageType.FILE,
        discard=DiscardPolicy.NEW,
        num_replicas=options.replicas,
        max_bytes=options.max_bytes,
        duplicate_window=options.duplicate_window,
    )


def dead_config(options: NatsOptions) -> StreamConfig:
    """The stream of dead letters: for people to look at, so the oldest go when it is full."""
    return StreamConfig(
        name=options.dead_stream,
        description=MADE_BY_US,
        subjects=[f"{options.dead_subject}.*"],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        discard=DiscardPolicy.OLD,
        num_replicas=options.replicas,
        max_bytes=options.dead_max_bytes,
        max_age=options.dead_max_age,
        duplicate_window=min(DEAD_WINDOW, options.dead_max_age),
    )


def consumer_config(options: NatsOptions) -> ConsumerConfig:
    """The consumer, shared by all nodes: it hands out each message until one of them acknowledges it."""
    return ConsumerConfig(
        durable_name=options.durable,
        description=MADE_BY_US,
        deliver_policy=DeliverPolicy.ALL,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=options.ack_wait,
        max_deliver=-1,
        max_ack_pending=options.max_ack_pending,
        filter_subject=options.everything,
    )


async def prepare(js: JetStreamContext, options: NatsOptions) -> None:
    """Make what is missing, bring what is ours up to date, check the rest.

    Raises ``SettingsInvalid`` if a stream or the consumer cannot be used as it is, ``nats.errors.Error`` if the server
    does not answer.
    """
    await _stream(js, events_config(options), "BUS_STREAM", _events_faults)
    await prepare_dead(js, options)
    await _consumer(js, options)


async def prepare_dead(js: JetStreamContext, options: NatsOptions) -> None:
    """The part of ``prepare`` that concerns dead letters."""
    await _stream(js, dead_config(options), "BUS_DEAD_STREAM", _dead_faults)


async def _stream(js: JetStreamContext, wanted: StreamConfig, setting: str, check: _Check) -> None:
    name = str(wanted.name)
    try:
        found = (await js.stream_info(name)).config
    except NotFoundError:
        await _refusable(_make(js, wanted), setting, f"the stream {name} cannot be made")
        log.info("bus_stream_made", stream=name, replicas=wanted.num_replicas)
        return
    if found.description == MADE_BY_US:
        if _differs(found, wanted, _STREAM_SETTINGS):
            await _refusable(_update(js, wanted), setting, f"the stream {name} cannot be changed")
            log.info("bus_stream_updated", stream=name)
        return
    _refuse(setting, f"the stream {name} exists", check(found, wanted))
    for caution in _cautions(found):
        log.warning("bus_stream_differs", stream=name, caution=caution)


async def _consumer(js: JetStreamContext, options: NatsOptions) -> None:
    wanted = consumer_config(options)
    try:
        found = await js.consumer_info(options.stream, options.durable)
    except NotFoundError:
        await _refusable(_put(js, options.stream, wanted), "BUS_STREAM", "the consumer cannot be made")
        return
    if found.config.description != MADE_BY_US:
        _refuse("BUS_DURABLE", f"the consumer {options.durable} exists", _consumer_faults(found))
    elif _differs(found.config, wanted, _CONSUMER_SETTINGS):
        await _refusable(_put(js, options.stream, wanted), "BUS_DURABLE", "the consumer cannot be changed")


_STREAM_SETTINGS = (
    "subjects", "retention", "discard", "no_ack", "num_replicas", "max_bytes", "max_age", "max_msgs",
    "max_msgs_per_subject", "max_msg_size", "duplicate_window",
)  # fmt: skip
_CONSUMER_SETTINGS = (
    "ack_policy", "ack_wait", "max_deliver", "backoff", "max_ack_pending", "filter_subject", "filter_subjects",
    "headers_only", "inactive_threshold",
)  # fmt: skip
"""What has to be as we made it. Anybody can edit a stream of ours, and let it drop events by that."""
_UNSET: tuple[object, ...] = (None, False, -1, [])
"""How the server and the library write a setting that has no value."""


def _differs(
    found: StreamConfig | ConsumerConfig, wanted: StreamConfig | ConsumerConfig, names: Sequence[str]
) -> bool:
    return any(_set(getattr(found, name)) != _set(getattr(wanted, name)) for name in names)


def _set(value: object) -> object:
    return 0 if value in _UNSET else value


def _events_faults(found: StreamConfig, wanted: StreamConfig) -> Iterator[str]:
    """Why events could get lost in a stream that others made."""
    if not _overlaps(found, wanted):
        yield f"its subjects {found.subjects} do not include {wanted.subjects}"
    if found.retention == RetentionPolicy.INTEREST:
        yield "its retention is interest: it drops what comes while there is no consumer; use workqueue or limits"
    if found.no_ack:
        yield "it answers nothing (no_ack), so publishers cannot know what is stored"
    if found.mirror is not None or found.sealed:
        yield "it is a mirror or sealed and takes no messages"


def _dead_faults(found: StreamConfig, wanted: StreamConfig) -> Iterator[str]:
    if not _overlaps(found, wanted):
        yield f"its subjects {found.subjects} do not include {wanted.subjects}"
    if found.no_ack or found.sealed or found.mirror is not None:
        yield "it does not take messages, or does not answer"


def _overlaps(found: StreamConfig, wanted: StreamConfig) -> bool:
    """Whether one of the subjects covers what we want, or a part of it (some tenants only)."""
    pairs = product(found.subjects or (), wanted.subjects or ())
    return any(_meets(one.split("."), other.split(".")) for one, other in pairs)


def _meets(one: list[str], other: list[str]) -> bool:
    for left, right in zip(one, other, strict=False):
        if ">" in (left, right):
            return True
        if "*" not in (left, right) and left != right:
            return False
    return len(one) == len(other)


def _cautions(found: StreamConfig) -> Iterator[str]:
    if found.retention == RetentionPolicy.LIMITS and (found.discard == DiscardPolicy.OLD or found.max_age):
        yield "its limits may push out events before they are read: use retention workqueue, discard new, no max_age"
    if found.storage == StorageType.MEMORY:
        yield "it is kept in memory: a restart loses what was not read"


def _consumer_faults(found: ConsumerInfo) -> Iterator[str]:
    if found.config.deliver_subject is not None:
        yield "it pushes; a pull consumer is needed"
    if found.config.ack_policy != AckPolicy.EXPLICIT:
        yield "its ack policy must be explicit"
    if found.config.max_deliver not in (None, -1):
        yield "its max_deliver must be -1: what could not be stored yet would be dropped"
    if found.config.headers_only:
        yield "it hands out headers only; the payloads are needed"


def _make(js: JetStreamContext, wanted: StreamConfig) -> Awaitable[StreamInfo]:
    return js.add_stream(wanted)  # pyright: ignore[reportUnknownMemberType] - the library leaves **params untyped


def _update(js: JetStreamContext, wanted: StreamConfig) -> Awaitable[StreamInfo]:
    return js.update_stream(wanted)  # pyright: ignore[reportUnknownMemberType] - the library leaves **params untyped


def _put(js: JetStreamContext, stream: str, wanted: ConsumerConfig) -> Awaitable[ConsumerInfo]:
    return js.add_consumer(stream, wanted)  # pyright: ignore[reportUnknownMemberType] - as above


async def _refusable(change: _Change, setting: str, what: str) -> None:
    """Raises ``SettingsInvalid`` for what the server does not allow, and its own error if it could not do it now."""
    try:
        await change
    except APIError as error:
        if error.code is not None and (error.code < 500 or error.err_code in _WRONG):
            _refuse(setting, what, [f"{error.description}{_WAY_OUT.get(error.err_code or 0, '')}"])
        raise


_WRONG = (
    10052,  # invalid stream configuration
    10047,  # not enough storage left for max_bytes
    10074,  # replicas > 1 without a cluster
)
"""Codes of the server for settings that will be refused next time, too (nats-server, errors.json)."""


_NO_ROOM = (
    "; the server must have room for HOOKLINE_BUS_MAX_BYTES and HOOKLINE_BUS_DEAD_MAX_BYTES together: "
    "lower them, or raise its max_file_store"
)
_WAY_OUT = {10047: _NO_ROOM}


def _refuse(setting: str, what: str, faults: _Faults) -> None:
    listed = [Fault(f"HOOKLINE_{setting}", f"{what}: {fault}") for fault in faults]
    if listed:
        raise SettingsInvalid("The bus cannot be used as it is", listed)
