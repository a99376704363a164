"""How the text of a setting is read."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar
from urllib.parse import urlsplit

from hookline.core.mail import MailServer, Originator, mail_server, originator

MASTER_KEY_BYTES = 32

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Role = Literal["all", "api", "delivery"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["json", "console"]
MetricsAccess = Literal["operator", "open", "off"]

T = TypeVar("T")


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


def integer(low: int, high: int) -> Kind[int]:
    def parse(text: str) -> int:
        value = int(text)
        return _within(value, low <= value <= high)

    return Kind(f"a whole number from {low} to {high}", parse)


def optional(kind: Kind[T]) -> Kind[T | None]:
    return Kind(f"{kind.accepts}, or nothing", lambda text: kind.parse(text) if text else None)


def postgres_or_none() -> Kind[str]:
    def parse(text: str) -> str:
        return _within(text, not text or _is_postgres(text))

    return Kind("postgresql://<user>@<host>/<database>, or nothing", parse)


def duration(low: str, high: str) -> Kind[float]:
    shortest, longest = _measure(low, _DURATION_UNITS), _measure(high, _DURATION_UNITS)

    def parse(text: str) -> float:
        value = _measure(text, _DURATION_UNITS)
        return _within(value, shortest <= value <= longest)

    return Kind(f"a duration from {low} to {high}, such as 30s, 5m or 1.5h (without unit: seconds)", parse)


def size(low: str, high: str) -> Kind[int]:
    smallest, largest = _measure(low, _SIZE_UNITS), _measure(high, _SIZE_UNITS)

    def parse(text: str) -> int:
        value = _measure(text, _SIZE_UNITS)
        return _within(int(value), smallest <= value <= largest)

    return Kind(f"a size from {low} to {high}, such as 512KiB or 1MiB (without unit: bytes)", parse)


def choice(*names: T) -> Kind[T]:
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


def matching(pattern: str, accepts: str) -> Kind[str]:
    def parse(text: str) -> str:
        return _within(text, re.fullmatch(pattern, text) is not None)

    return Kind(accepts, parse)


def url(*schemes: str) -> Kind[str]:
    def parse(text: str) -> str:
        parts = urlsplit(text)
        return _within(text, not text or (parts.scheme in schemes and bool(parts.hostname)))

    return Kind("a URL that starts with " + " or ".join(f"{scheme}://" for scheme in schemes), parse)


def url_list(*schemes: str) -> Kind[str]:
    """URLs parted by commas, or nothing."""
    one = url(*schemes)

    def parse(text: str) -> str:
        parts = [part.strip() for part in text.split(",")] if text else []
        return ",".join(_within(one.parse(part), bool(part)) for part in parts)

    return Kind(f"{one.accepts}; several parted by commas", parse)


def outbox_or_none() -> Kind[str]:
    def parse(text: str) -> str:
        scheme = text.partition("://")[0].partition("+")[0]
        return _within(text, not text or ("://" in text and scheme in ("postgresql", "postgres", "sqlite")))

    return Kind("postgresql://<user>@<host>/<database> or sqlite:///<path>, or nothing", parse)


def _database_url(text: str) -> str:
    scheme, _, rest = text.partition("://")
    if scheme == "sqlite":
        return _within(text, bool(rest.removeprefix("/")))
    return _within(text, bool(rest) and _is_postgres(text))


def _is_postgres(text: str) -> bool:
    """Several hosts may be given, parted by commas, and each of them with its port."""
    parts = urlsplit(text)
    hosts = [host.rpartition("]")[2] for host in parts.netloc.rpartition("@")[2].split(",")]
    ports = [host.rpartition(":")[2] for host in hosts if ":" in host]
    return parts.scheme in ("postgresql", "postgres") and all(port.isdecimal() for port in ports)


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


def master_keys(text: str) -> tuple[bytes, ...]:
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
FLAG = Kind("true or false", _flag)
NETWORKS = Kind(
    "networks in CIDR form without host bits, parted by commas: 127.0.0.0/8,10.1.0.0/16", _networks
)
MASTER_KEYS = Kind(f"base64 of {MASTER_KEY_BYTES} bytes; several parted by commas", master_keys)
FOLDER = Kind("a path", lambda text: Path(text).expanduser())
FILE = Kind("the path of a file that exists", _existing_file)
EXISTING_FOLDER = Kind("the path of a folder that exists", _existing_folder)
DATABASE = Kind("sqlite:///<path> or postgresql://<user>@<host>/<database>", _database_url)
HOST = matching(r"[A-Za-z0-9_.:%-]+", "a host name or an IP address")
KEY = matching(rf"({_PRINTABLE}{{20,200}})?", "20 to 200 printable characters without spaces")
AGENT = matching(rf"{_PRINTABLE}({_PRINTABLE}| ){{0,198}}", "up to 200 printable characters")
MAIL_SERVER = Kind(
    "smtp://<user>:<password>@<host>:587 or smtps://<user>:<password>@<host>:465, with or without user and password, "
    "which are percent-encoded; after smtp://… also ?starttls=required, offered or never",
    _mail_server,
)
ORIGINATOR = Kind("a mail address, alone or as Name <address>", _originator)
ROLE: Kind[Role] = choice("all", "api", "delivery")
LOG_LEVEL: Kind[LogLevel] = choice("debug", "info", "warning", "error")
LOG_FORMAT: Kind[LogFormat] = choice("json", "console")
METRICS: Kind[MetricsAccess] = choice("operator", "open", "off")
DAYS = integer(1, 3650)
STREAM = matching(r"[A-Za-z0-9_-]{1,64}", "up to 64 letters, digits, _ and -")
TABLE_NAME = matching(r"[A-Za-z_][A-Za-z0-9_]{0,62}", "a name of up to 63 letters, digits and _")
OPTIONAL_NAME = matching(r"([A-Za-z0-9_-]{1,64})?", "a name, or nothing")
