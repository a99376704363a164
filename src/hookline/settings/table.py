"""All settings, in one table: the fields of ``Settings``.

A field tells how its text is read, its default and its help. The environment (``HOOKLINE_<NAME>``), the TOML
file, ``hookline serve --help`` and docs/reference/settings.md all come from it. Nothing is read at import.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from hookline import __version__
from hookline.core.mail import MailServer, Originator
from hookline.settings import kinds
from hookline.settings.kinds import Kind, LogFormat, LogLevel, MetricsAccess, Network, Role

PREFIX = "HOOKLINE_"

OTHER_VARIABLES = {
    "HOOKLINE_CONFIG": "Path of the TOML file with settings, as `--config`.",
    "HOOKLINE_URL": "Base URL of the server that the client commands talk to, as `--url`.",
    "HOOKLINE_KEY": "API key of the client commands, as `--key`.",
    "HOOKLINE_TENANT": "Tenant that the client commands act for with an operator key, as `--tenant`.",
}
"""Variables with our prefix that are not settings of the server."""

T = TypeVar("T")


def _setting(kind: Kind[T], default: str, about: str, *, secret: bool = False) -> T:
    """A row: its default is given as text and read like any value."""
    row = {"kind": kind, "default": default, "help": about, "secret": secret}
    return field(default=kind.parse(default), metadata=row, repr=not secret)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one process. Durations are seconds, sizes are bytes."""

    role: Role = _setting(
        kinds.ROLE,
        "all",
        "What this process does: accept and answer (api), deliver (delivery), or both (all).",
    )
    host: str = _setting(
        kinds.HOST, "127.0.0.1", "The address to listen on. 0.0.0.0 opens it to other machines."
    )
    port: int = _setting(kinds.integer(0, 65535), "8480", "The port to listen on; 0 takes a free one.")
    operator_key: str = _setting(
        kinds.KEY,
        "",
        "The key that manages tenants. Without it, one is made and kept in the data folder: `operator.key`.",
        secret=True,
    )
    shutdown_grace: float = _setting(
        kinds.duration("0s", "10m"),
        "30s",
        "How long running requests and deliveries may take to finish when the process is stopped.",
    )

    data_dir: Path = _setting(
        kinds.FOLDER, "hookline-data", "The folder for the embedded database and the keys that are made here."
    )
    catalogue_dir: Path | None = _setting(
        kinds.EXISTING_FOLDER,
        "",
        "A folder with files of event types, beside those that come with the profiles. Changes are taken up while "
        "it runs. Without it: the folder `catalogue` in the data folder, if there is one.",
    )
    database_url: str = _setting(
        kinds.DATABASE,
        "sqlite:///{data_dir}/hookline.db",
        "Where everything is stored. `{data_dir}` stands for the data folder.",
        secret=True,
    )
    database_shards: int | None = _setting(
        kinds.optional(kinds.integer(1, 4096)),
        "",
        "PostgreSQL: into how many shards a new database cuts the log; 64 unless given. It cannot be changed later.",
    )
    database_slices: int | None = _setting(
        kinds.optional(kinds.integer(1, 64)),
        "",
        "PostgreSQL: into how many slices a new database cuts the subscriptions of a shard, 1 unless given. The "
        "subscriptions of one tenant can be delivered by as many nodes. It cannot be changed later.",
    )
    database_connections: int = _setting(
        kinds.integer(1, 500),
        "8",
        "PostgreSQL: connections of a process for publishing and delivering. It has a few more, for lists, leases and "
        "wake-ups.",
    )
    database_query_connections: int = _setting(
        kinds.integer(1, 500), "4", "PostgreSQL: connections of a process for lists and looks from outside."
    )
    database_pooler: bool = _setting(
        kinds.FLAG,
        "false",
        "PostgreSQL: whether `database_url` leads to a pooler that lends connections for one transaction at a time.",
    )
    database_direct_url: str = _setting(
        kinds.postgres_or_none(),
        "",
        "PostgreSQL: the server itself, where `database_url` leads to a pooler: wake-ups between nodes cannot pass "
        "that. Without it they use `database_url`.",
        secret=True,
    )
    database_replica_url: str = _setting(
        kinds.postgres_or_none(),
        "",
        "PostgreSQL: a read replica, for lists of events, deliveries and usage.",
        secret=True,
    )
    master_key: tuple[bytes, ...] = _setting(
        kinds.MASTER_KEYS,
        "",
        "Encrypts the secrets of subscriptions at rest. The first key encrypts, the others only decrypt: put "
        "a new one in front to rotate. Without it, one is made and kept in the data folder as `master.key`.",
        secret=True,
    )

    max_event_bytes: int = _setting(
        kinds.size("1KiB", "64MiB"), "1MiB", "The largest event that is accepted."
    )
    max_batch_items: int = _setting(kinds.integer(1, 10_000), "1000", "The most events in one batch.")
    max_batch_bytes: int = _setting(
        kinds.size("1KiB", "256MiB"), "16MiB", "The largest batch that is accepted."
    )
    publish_queue: int = _setting(
        kinds.integer(1, 1_000_000),
        "10000",
        "How many events may wait for the next commit; beyond that, publishing answers 503.",
    )

    bus: str = _setting(
        kinds.url_list("nats", "tls"),
        "",
        "A NATS server with JetStream, or several parted by commas: events are taken from there into the log. With "
        "none, nothing is.",
        secret=True,
    )
    bus_stream: str = _setting(kinds.STREAM, "HOOKLINE_EVENTS", "The stream of events.")
    bus_durable: str = _setting(kinds.STREAM, "hookline", "The durable consumer that all nodes share.")
    bus_dead_stream: str = _setting(
        kinds.STREAM, "HOOKLINE_DEAD", "The stream of messages that could not be accepted."
    )
    bus_replicas: int = _setting(
        kinds.integer(1, 5), "1", "On how many servers a stream that is made is kept."
    )
    bus_max_bytes: int = _setting(
        kinds.size("1MiB", "16384GiB"),
        "4GiB",
        "What the stream of events may hold; beyond that its publishers are refused.",
    )
    bus_dead_max_bytes: int = _setting(
        kinds.size("1MiB", "16384GiB"),
        "1GiB",
        "What the stream of dead letters may hold; then the oldest go.",
    )
    bus_dead_max_age: float = _setting(
        kinds.duration("1m", "3650d"), "30d", "How long dead letters are kept."
    )
    bus_ack_wait: float = _setting(
        kinds.duration("1s", "1h"),
        "1m",
        "After this time a message that was taken and not acknowledged comes again: to another node, if the first "
        "one died. Longer than a commit may take.",
    )
    bus_credentials: Path | None = _setting(
        kinds.FILE, "", "A `.creds` file for the bus; needs the package `nkeys`."
    )
    bus_ca_file: Path | None = _setting(
        kinds.FILE, "", "Certificates (PEM) of authorities to trust for the bus."
    )
    bus_cert_file: Path | None = _setting(
        kinds.FILE, "", "A certificate (PEM) that says to the bus who we are."
    )
    bus_key_file: Path | None = _setting(kinds.FILE, "", "The key (PEM) of `bus_cert_file`.")

    outbox_url: str = _setting(
        kinds.outbox_or_none(),
        "",
        "The database of a program that writes events with `hookline.outbox`: they are taken from there into the log.",
        secret=True,
    )
    outbox_table: str = _setting(kinds.TABLE_NAME, "hookline_outbox", "The outbox's table.")
    outbox_schema: str = _setting(
        kinds.OPTIONAL_NAME, "", "Its schema; without it as the search path has it."
    )
    outbox_tenant: str = _setting(kinds.OPTIONAL_NAME, "", "The tenant of events that name none.")

    max_in_flight: int = _setting(
        kinds.integer(1, 65_536), "1024", "The most delivery requests that this process has open at a time."
    )
    lease_seconds: float = _setting(
        kinds.duration("1s", "5m"),
        "10s",
        "Within what time after its last sign of life a dead node's parts of the log are taken over by others.",
    )
    allow_networks: tuple[Network, ...] = _setting(
        kinds.NETWORKS,
        "",
        "Address ranges that endpoints may be in although they are private, loopback or reserved. All "
        "others of that kind are refused.",
    )
    allow_http: bool = _setting(
        kinds.FLAG,
        "false",
        "Accept endpoints with plain `http://` anywhere. Otherwise plain HTTP is accepted only for addresses "
        "in `allow_networks`: elsewhere anyone on the way could read the events.",
    )
    ca_file: Path | None = _setting(
        kinds.FILE,
        "",
        "Certificates (PEM) of authorities to trust for endpoints and the mail server, instead of the usual ones.",
    )
    proxy: str = _setting(
        kinds.url("http", "https", "socks5h"),
        "",
        "A proxy for all deliveries. It resolves names then, so it must refuse private addresses itself.",
        secret=True,
    )
    doh_url: str = _setting(
        kinds.url("https"),
        "",
        "Resolve the names of endpoints by DNS over HTTPS at this URL, not by the system.",
    )
    http2: bool = _setting(kinds.FLAG, "false", "Offer HTTP/2 to endpoints.")
    user_agent: str = _setting(kinds.AGENT, f"Hookline/{__version__}", "The `User-Agent` of deliveries.")

    smtp_url: MailServer | None = _setting(
        kinds.MAIL_SERVER,
        "",
        "The SMTP server for subscriptions whose URL is `mailto:<address>`; without it there can be none. `smtp://` "
        "uses STARTTLS if it is offered; with a password it must be, unless `?starttls=offered` or `never` is given.",
        secret=True,
    )
    smtp_from: Originator | None = _setting(
        kinds.ORIGINATOR,
        "",
        "The address that mails come from. Mails that cannot be delivered in the end come back to it.",
    )
    mail_interval: float = _setting(
        kinds.duration("0s", "1d"),
        "5m",
        "A subscription sends one mail to its address in this time. The others are held back and counted, and the next "
        "one tells how many. 0 sends them all.",
    )

    retention_events_days: int = _setting(
        kinds.DAYS, "60", "How many days events are kept, unless their tenant says otherwise."
    )
    retention_attempts_days: int = _setting(
        kinds.DAYS, "60", "How many days deliveries and attempts are kept."
    )
    retention_bodies_days: int = _setting(kinds.DAYS, "15", "How many days the bodies of answers are kept.")

    log_level: LogLevel = _setting(kinds.LOG_LEVEL, "info", "The least grave messages that are logged.")
    log_format: LogFormat = _setting(kinds.LOG_FORMAT, "json", "JSON lines, or lines for people.")
    metrics: MetricsAccess = _setting(
        kinds.METRICS,
        "operator",
        "Who may read `/metrics`: whoever sends an operator key (operator), everyone who reaches the port "
        "(open), or nobody (off).",
    )
    metrics_port: int = _setting(
        kinds.integer(0, 65535),
        "8481",
        "The port for `/metrics` and `/healthz` of a process whose role is delivery; 0 takes a free one.",
    )

    def __post_init__(self) -> None:
        url = self.database_url.replace("{data_dir}", str(self.data_dir))
        object.__setattr__(self, "database_url", url)


SECTIONS = {
    "role": "The process",
    "data_dir": "Storage",
    "max_event_bytes": "Publishing",
    "bus": "Bus",
    "outbox_url": "Outbox",
    "max_in_flight": "Delivery",
    "smtp_url": "Mail",
    "retention_events_days": "Retention",
    "log_level": "Watching",
}
"""The name of a setting -> the heading above it."""


@dataclass(frozen=True, slots=True)
class Row:
    """One setting, as help and docs show it."""

    name: str
    kind: Kind[Any]
    default: str
    help: str
    secret: bool

    @property
    def variable(self) -> str:
        """Its name in the environment."""
        return PREFIX + self.name.upper()


TABLE = {item.name: Row(item.name, **item.metadata) for item in fields(Settings)}
"""Every setting by name, in the order of the docs."""
