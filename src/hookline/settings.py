"""All settings, in one table: the fields of ``Settings``.

A field tells how its text is read, its default and its help. The environment (``HOOKLINE_<NAME>``), the TOML
file, ``hookline serve --help`` and docs/reference/settings.md all come from it. Nothing is read at import.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import ipaddress
import os
import re
import secrets
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, cast
from urllib.parse import urlsplit

from hookline import __version__
from hookline.core.errors import Fault, SettingsInvalid
from hookline.core.mail import MailServer, Originator, mail_server, originator

PREFIX = "HOOKLINE_"

OTHER_VARIABLES = {
    "HOOKLINE_CONFIG": "Path of the TOML file with settings, as `--config`.",
    "HOOKLINE_URL": "Base URL of the server that the client commands talk to, as `--url`.",
    "HOOKLINE_KEY": "API key of the client commands, as `--key`.",
    "HOOKLINE_TENANT": "Tenant that the client commands act for with an operator key, as `--tenant`.",
}
"""Variables with our prefix that are not settings of the server."""

_KUBERNETES = re.compile(r"HOOKLINE_(SERVICE_(HOST|PORT).*|PORT_\d+_(TCP|UDP|SCTP).*)")
"""Kubernetes puts these, and ``HOOKLINE_PORT=tcp://…``, into every pod beside a service called "hookline"."""

MASTER_KEY_BYTES = 32

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Role = Literal["all", "api", "delivery"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["json", "console"]
MetricsAccess = Literal["operator", "open", "off"]

T = TypeVar("T")


# --- kinds: how the text of a setting is read -----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """A way to read a value. ``parse`` raises ``ValueError`` for what is not ``accepts``."""

    accepts: str
    parse: Callable[[str], T]


_DURATION_UNITS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE_UNITS = {
    "": 1,
    "B": 1,
    "kB": 1000,
    "KiB": 1 << 10,
    "MB": 1000**2,
    "MiB": 1 << 20,
    "GB": 1000**3,
    "GiB": 1 << 30,
}
_NUMBER = re.compile(r"(\d+(?:\.\d+)?) ?([A-Za-z]*)")


def _measure(text: str, units: Mapping[str, float]) -> float:
    match = _NUMBER.fullmatch(text)
    if not match or match[2] not in units:
        raise ValueError(text)
    return float(match[1]) * units[match[2]]


def _within(value: T, fits: bool) -> T:
    if not fits:
        raise ValueError(value)
    return value


def _integer(low: int, high: int) -> Kind[int]:
    def parse(text: str) -> int:
        value = int(text)
        return _within(value, low <= value <= high)

    return Kind(f"a whole number from {low} to {high}", parse)


def _duration(low: str, high: str) -> Kind[float]:
    shortest, longest = _measure(low, _DURATION_UNITS), _measure(high, _DURATION_UNITS)

    def parse(text: str) -> float:
        value = _measure(text, _DURATION_UNITS)
        return _within(value, shortest <= value <= longest)

    return Kind(f"a duration from {low} to {high}, such as 30s, 5m or 1.5h (without unit: seconds)", parse)


def _size(low: str, high: str) -> Kind[int]:
    smallest, largest = _measure(low, _SIZE_UNITS), _measure(high, _SIZE_UNITS)

    def parse(text: str) -> int:
        value = _measure(text, _SIZE_UNITS)
        return _within(int(value), smallest <= value <= largest)

    return Kind(f"a size from {low} to {high}, such as 512KiB or 1MiB (without unit: bytes)", parse)


def _choice(*names: T) -> Kind[T]:
    known = {str(name): name for name in names}

    def parse(text: str) -> T:
        if text.lower() not in known:
            raise ValueError(text)
        return known[text.lower()]

    return Kind("one of " + ", ".join(known), parse)


def _flag(text: str) -> bool:
    answers = {
        "true": True,
        "1": True,
        "yes": True,
        "on": True,
        "false": False,
        "0": False,
        "no": False,
        "off": False,
    }
    if text.lower() not in answers:
        raise ValueError(text)
    return answers[text.lower()]


def _matching(pattern: str, accepts: str) -> Kind[str]:
    def parse(text: str) -> str:
        return _within(text, re.fullmatch(pattern, text) is not None)

    return Kind(accepts, parse)


def _url(*schemes: str) -> Kind[str]:
    def parse(text: str) -> str:
        parts = urlsplit(text)
        return _within(text, not text or (parts.scheme in schemes and bool(parts.hostname)))

    return Kind("a URL that starts with " + " or ".join(f"{scheme}://" for scheme in schemes), parse)


def _database_url(text: str) -> str:
    scheme, _, rest = text.partition("://")
    place = rest.removeprefix("/") if scheme == "sqlite" else rest
    return _within(text, scheme in ("sqlite", "postgresql", "postgres") and bool(place))


def _networks(text: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())


def _mail_server(text: str) -> MailServer | None:
    return mail_server(text) if text else None


def _originator(text: str) -> Originator | None:
    return originator(text) if text else None


def _existing_file(text: str) -> Path | None:
    path = Path(text).expanduser()
    return _within(path, path.is_file()) if text else None


def _existing_folder(text: str) -> Path | None:
    path = Path(text).expanduser()
    return _within(path, path.is_dir()) if text else None


def _master_keys(text: str) -> tuple[bytes, ...]:
    return tuple(_master_key(part.strip()) for part in text.split(",") if part.strip())


def _master_key(text: str) -> bytes:
    try:
        key = base64.b64decode(
            text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4), validate=True
        )
    except binascii.Error as error:
        raise ValueError from error
    return _within(key, len(key) == MASTER_KEY_BYTES)


_PRINTABLE = r"[\x21-\x7e]"
_FLAG = Kind("true or false", _flag)
_NETWORKS = Kind(
    "networks in CIDR form without host bits, parted by commas: 127.0.0.0/8,10.1.0.0/16", _networks
)
_MASTER_KEYS = Kind(f"base64 of {MASTER_KEY_BYTES} bytes; several parted by commas", _master_keys)
_FOLDER = Kind("a path", lambda text: Path(text).expanduser())
_FILE = Kind("the path of a file that exists", _existing_file)
_EXISTING_FOLDER = Kind("the path of a folder that exists", _existing_folder)
_DATABASE = Kind("sqlite:///<path> or postgresql://<user>@<host>/<database>", _database_url)
_HOST = _matching(r"[A-Za-z0-9_.:%-]+", "a host name or an IP address")
_KEY = _matching(rf"({_PRINTABLE}{{20,200}})?", "20 to 200 printable characters without spaces")
_AGENT = _matching(rf"{_PRINTABLE}({_PRINTABLE}| ){{0,198}}", "up to 200 printable characters")
_MAIL_SERVER = Kind(
    "smtp://<user>:<password>@<host>:587 or smtps://<user>:<password>@<host>:465, with or without user and password, "
    "which are percent-encoded; after smtp://… also ?starttls=required, offered or never",
    _mail_server,
)
_ORIGINATOR = Kind("a mail address, alone or as Name <address>", _originator)
_ROLE: Kind[Role] = _choice("all", "api", "delivery")
_LOG_LEVEL: Kind[LogLevel] = _choice("debug", "info", "warning", "error")
_LOG_FORMAT: Kind[LogFormat] = _choice("json", "console")
_METRICS: Kind[MetricsAccess] = _choice("operator", "open", "off")
_DAYS = _integer(1, 3650)


# --- the table ------------------------------------------------------------------------------------------


def _setting(kind: Kind[T], default: str, about: str, *, secret: bool = False) -> T:
    """A row: its default is given as text and read like any value."""
    row = {"kind": kind, "default": default, "help": about, "secret": secret}
    return field(default=kind.parse(default), metadata=row, repr=not secret)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one process. Durations are seconds, sizes are bytes."""

    role: Role = _setting(
        _ROLE, "all", "What this process does: accept and answer (api), deliver (delivery), or both (all)."
    )
    host: str = _setting(_HOST, "127.0.0.1", "The address to listen on. 0.0.0.0 opens it to other machines.")
    port: int = _setting(_integer(0, 65535), "8480", "The port to listen on; 0 takes a free one.")
    operator_key: str = _setting(
        _KEY,
        "",
        "The key that manages tenants. Without it, one is made and kept in the data folder: `operator.key`.",
        secret=True,
    )
    shutdown_grace: float = _setting(
        _duration("0s", "10m"),
        "30s",
        "How long running requests and deliveries may take to finish when the process is stopped.",
    )

    data_dir: Path = _setting(
        _FOLDER, "hookline-data", "The folder for the embedded database and the keys that are made here."
    )
    catalogue_dir: Path | None = _setting(
        _EXISTING_FOLDER,
        "",
        "A folder with files of event types, beside those that come with the profiles. Changes are taken up while "
        "it runs. Without it: the folder `catalogue` in the data folder, if there is one.",
    )
    database_url: str = _setting(
        _DATABASE,
        "sqlite:///{data_dir}/hookline.db",
        "Where everything is stored. `{data_dir}` stands for the data folder.",
        secret=True,
    )
    master_key: tuple[bytes, ...] = _setting(
        _MASTER_KEYS,
        "",
        "Encrypts the secrets of subscriptions at rest. The first key encrypts, the others only decrypt: put "
        "a new one in front to rotate. Without it, one is made and kept in the data folder as `master.key`.",
        secret=True,
    )

    max_event_bytes: int = _setting(_size("1KiB", "64MiB"), "1MiB", "The largest event that is accepted.")
    max_batch_items: int = _setting(_integer(1, 10_000), "1000", "The most events in one batch.")
    max_batch_bytes: int = _setting(_size("1KiB", "256MiB"), "16MiB", "The largest batch that is accepted.")
    publish_queue: int = _setting(
        _integer(1, 1_000_000),
        "10000",
        "How many events may wait for the next commit; beyond that, publishing answers 503.",
    )

    max_in_flight: int = _setting(
        _integer(1, 65_536), "1024", "The most delivery requests that this process has open at a time."
    )
    lease_seconds: float = _setting(
        _duration("1s", "5m"),
        "10s",
        "How long a worker owns a part of the log without renewing; a dead one's part is taken over then.",
    )
    allow_networks: tuple[Network, ...] = _setting(
        _NETWORKS,
        "",
        "Address ranges that endpoints may be in although they are private, loopback or reserved. All "
        "others of that kind are refused.",
    )
    allow_http: bool = _setting(
        _FLAG,
        "false",
        "Accept endpoints with plain `http://` anywhere. Otherwise plain HTTP is accepted only for addresses "
        "in `allow_networks`: elsewhere anyone on the way could read the events.",
    )
    ca_file: Path | None = _setting(
        _FILE,
        "",
        "Certificates (PEM) of authorities to trust for endpoints and the mail server, instead of the usual ones.",
    )
    proxy: str = _setting(
        _url("http", "https", "socks5h"),
        "",
        "A proxy for all deliveries. It resolves names then, so it must refuse private addresses itself.",
        secret=True,
    )
    doh_url: str = _setting(
        _url("https"), "", "Resolve the names of endpoints by DNS over HTTPS at this URL, not by the system."
    )
    http2: bool = _setting(_FLAG, "false", "Offer HTTP/2 to endpoints.")
    user_agent: str = _setting(_AGENT, f"Hookline/{__version__}", "The `User-Agent` of deliveries.")

    smtp_url: MailServer | None = _setting(
        _MAIL_SERVER,
        "",
        "The SMTP server for subscriptions whose URL is `mailto:<address>`; without it there can be none. `smtp://` "
        "uses STARTTLS if it is offered; with a password it must be, unless `?starttls=offered` or `never` is given.",
        secret=True,
    )
    smtp_from: Originator | None = _setting(
        _ORIGINATOR,
        "",
        "The address that mails come from. Mails that cannot be delivered in the end come back to it.",
    )
    mail_interval: float = _setting(
        _duration("0s", "1d"),
        "5m",
        "A subscription sends one mail to its address in this time. The others are held back and counted, and the next "
        "one tells how many. 0 sends them all.",
    )

    retention_events_days: int = _setting(
        _DAYS, "60", "How many days events are kept, unless their tenant says otherwise."
    )
    retention_attempts_days: int = _setting(_DAYS, "60", "How many days deliveries and attempts are kept.")
    retention_bodies_days: int = _setting(_DAYS, "15", "How many days the bodies of answers are kept.")

    log_level: LogLevel = _setting(_LOG_LEVEL, "info", "The least grave messages that are logged.")
    log_format: LogFormat = _setting(_LOG_FORMAT, "json", "JSON lines, or lines for people.")
    metrics: MetricsAccess = _setting(
        _METRICS,
        "operator",
        "Who may read `/metrics`: whoever sends an operator key (operator), everyone who reaches the port "
        "(open), or nobody (off).",
    )
    metrics_port: int = _setting(
        _integer(0, 65535),
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


# --- reading --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Given:
    """The text of one setting, and where it came from, in the words of the person who set it."""

    source: str
    text: str


def load(
    environ: Mapping[str, str] | None = None,
    config: Path | None = None,
    options: Mapping[str, str] | None = None,
) -> Settings:
    """Read the settings: ``options`` (of the command line) win over the environment, it over the file.

    The file is ``config`` or what ``HOOKLINE_CONFIG`` names. An empty value counts as not given. Raises
    ``SettingsInvalid`` with a fault for everything that is wrong, unknown names included.
    """
    environ = os.environ if environ is None else environ
    faults: list[Fault] = []
    path = config or environ.get(PREFIX + "CONFIG")
    given = dict(_from_file(Path(path), faults)) if path else {}
    given |= dict(_from_environment(environ, faults))
    given |= {
        name: _Given(f"--{name.replace('_', '-')}", text) for name, text in (options or {}).items() if text
    }
    values = _parsed(given, faults)
    if not faults:
        settings = Settings(**values)
        faults.extend(_contradictions(settings))
        if not faults:
            return settings
    count = f"{len(faults)} settings are" if len(faults) > 1 else "A setting is"
    raise SettingsInvalid(f"{count} not valid", faults)


def _from_environment(environ: Mapping[str, str], faults: list[Fault]) -> Iterator[tuple[str, _Given]]:
    for variable in sorted(environ):
        text, name = environ[variable], variable.removeprefix(PREFIX).lower()
        if not variable.startswith(PREFIX) or variable in OTHER_VARIABLES or _is_kubernetes(variable, text):
            continue
        if variable != PREFIX + name.upper() or name not in TABLE:
            known = [row.variable for row in TABLE.values()] + list(OTHER_VARIABLES)
            faults.append(_unknown(variable, variable.upper(), known))
        elif text:
            yield name, _Given(variable, text)


def _is_kubernetes(variable: str, text: str) -> bool:
    return bool(_KUBERNETES.fullmatch(variable)) or (
        variable == "HOOKLINE_PORT" and text.startswith("tcp://")
    )


def _from_file(path: Path, faults: list[Fault]) -> Iterator[tuple[str, _Given]]:
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        faults.append(Fault(str(path), f"the file cannot be read: {error.strerror}"))
        return
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        faults.append(Fault(str(path), f"the file is not valid TOML: {error}"))
        return
    for name, value in values.items():
        source, text = f"{name} in {path}", _as_text(value)
        if name not in TABLE:
            faults.append(_unknown(source, name, list(TABLE)))
        elif text is None:
            faults.append(
                Fault(source, f"this is a {type(value).__name__}; accepted: {TABLE[name].kind.accepts}")
            )
        elif text:
            yield name, _Given(source, text)


def _as_text(value: object) -> str | None:
    """A TOML value as the environment would have it; None for what has no such form."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        parts = [_as_text(part) for part in cast("list[object]", value)]
        return ",".join(part for part in parts if part is not None) if None not in parts else None
    return str(value) if isinstance(value, str | int | float) else None


def _unknown(source: str, name: str, known: list[str]) -> Fault:
    near = difflib.get_close_matches(name, known, 1)
    return Fault(source, "there is no such setting" + (f"; did you mean {near[0]}?" if near else ""))


def _parsed(given: Mapping[str, _Given], faults: list[Fault]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, one in given.items():
        row = TABLE[name]
        try:
            values[name] = row.kind.parse(one.text.strip())
        except ValueError:
            shown = "this value" if row.secret else repr(one.text[:80])
            faults.append(Fault(one.source, f"{shown} is not valid; accepted: {row.kind.accepts}"))
    return values


def _contradictions(settings: Settings) -> Iterator[Fault]:
    if settings.max_event_bytes > settings.max_batch_bytes:
        yield Fault(
            f"{PREFIX}MAX_EVENT_BYTES",
            f"an event may not be larger than a batch ({settings.max_batch_bytes} bytes)",
        )
    if settings.smtp_url is not None and settings.smtp_from is None:
        yield Fault(
            f"{PREFIX}SMTP_FROM", f"is needed with {PREFIX}SMTP_URL: the address that mails come from"
        )


# --- keys that are made here ------------------------------------------------------------------------------


def operator_key(settings: Settings, make: Callable[[], str]) -> str:
    """The operator key: as set, or the one kept in the data folder, made with ``make`` at the first start."""
    return settings.operator_key or _kept(settings.data_dir / "operator.key", make)


def master_keys(settings: Settings) -> tuple[bytes, ...]:
    """The master keys: as set, or the one kept in the data folder, made at the first start."""
    if settings.master_key:
        return settings.master_key
    path = settings.data_dir / "master.key"
    try:
        return _master_keys(
            _kept(path, lambda: base64.b64encode(secrets.token_bytes(MASTER_KEY_BYTES)).decode())
        )
    except ValueError as error:
        raise SettingsInvalid(faults=[Fault(str(path), f"accepted: {_MASTER_KEYS.accepts}")]) from error


def _kept(path: Path, make: Callable[[], str]) -> str:
    """The text of a file for its owner alone. It appears whole or not at all, and the first writer wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(make() + "\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            path.hardlink_to(draft)
        draft.unlink()
    return path.read_text("utf-8").strip()
