"""Mail addresses: those of subscriptions (``mailto:…``), and where and as whom an installation sends its mails.

An address is taken in one narrow form: plain ASCII, one mailbox, nothing that any server on the way could read as
another address, an option or a line break.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from hookline.core.errors import AddressRefused, Fault

MAILTO: Final = "mailto:"
MAX_ADDRESS: Final = 254
"""RFC 5321 §4.5.3.1.3: 256 octets with the brackets around it."""

_LOCAL = re.compile(r"(?=[^@]{1,64}@)[A-Za-z0-9_+=~&'*^][A-Za-z0-9_+=~&'*^-]*(?:\.[A-Za-z0-9_+=~&'*^-]+)*@")
"""Dot-atoms (RFC 5322 §3.2.3) without ``! % # / ? $ { | } `` and the grave accent, which relays, URLs and shells give
a meaning to, and without a hyphen in front, which commands read as an option."""
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DOMAIN = re.compile(rf"(?:{_LABEL}\.)+(?=[^.]*[A-Za-z]){_LABEL}")
_HOST = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")
_NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f<>\"\\@,;:()\[\]\u2028\u2029]{1,100}")

StartTls = Literal["required", "offered", "never"]


def address_fault(address: str) -> str:
    """Why this is no mail address that we send to ("" if it is)."""
    if len(address) > MAX_ADDRESS:
        return f"must have at most {MAX_ADDRESS} characters in its mail address"
    if not address.isascii():
        return "must have an ASCII mail address; write an international domain in its xn-- form"
    local = _LOCAL.match(address)
    if not local:
        return "must have one plain mail address: name@domain, without %, quotes or comments"
    if not _DOMAIN.fullmatch(address, local.end()):
        return "must have a full domain name after the @ of its mail address"
    return ""


def recipient_of(url: str) -> str:
    """The mail address of a ``mailto:`` URL. Raises ``AddressRefused`` for any other URL."""
    if not url.startswith(MAILTO):
        message = "must have the form mailto:name@domain with the profile mail"
    elif "?" in url:
        message = "must have no parameters (?…) after its mail address"
    else:
        message = address_fault(url.removeprefix(MAILTO))
    if message:
        raise AddressRefused(f"The URL {message}.", [Fault("url", message)])
    return url.removeprefix(MAILTO)


# --- the operator's side --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MailServer:
    """The SMTP server of the operator. ``tls``: from the first byte on (smtps)."""

    host: str
    port: int
    tls: bool
    start_tls: StartTls
    username: str = ""
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Originator:
    """Whom mails come from. ``name`` may be empty."""

    name: str
    address: str

    @property
    def domain(self) -> str:
        return self.address.rpartition("@")[2]


def mail_server(text: str) -> MailServer:
    """Read ``smtp://user:password@host:587?starttls=required`` or ``smtps://…``. Raises ``ValueError``.

    With a password, TLS is required unless the URL says otherwise: who strips STARTTLS from the offer must not get it.
    """
    if not text.isprintable():
        raise ValueError("control characters")
    parts = urlsplit(text)
    tls, host = parts.scheme == "smtps", parts.hostname or ""
    if parts.scheme not in ("smtp", "smtps") or not _HOST.fullmatch(host) or parts.path not in ("", "/"):
        raise ValueError("no URL of an SMTP server")
    username, password = unquote(parts.username or ""), unquote(parts.password or "")
    if bool(username) != bool(password) or not (username + password).isprintable() or parts.fragment:
        raise ValueError("not a user name with a password")
    port = parts.port if parts.port is not None else (465 if tls else 587)
    if port == 0:
        raise ValueError("no port")
    return MailServer(host, port, tls, _start_tls(parts.query, tls, bool(password)), username, password)


def _start_tls(query: str, tls: bool, password: bool) -> StartTls:
    given = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=True)) if query else {}
    match given:
        case {} if not given:
            return "required" if password else "offered"
        case {"starttls": "required" | "offered" | "never" as wish} if len(given) == 1 and not tls:
            return wish
        case _:
            raise ValueError("no such parameter")


def originator(text: str) -> Originator:
    """Read ``address`` or ``Name <address>``. Raises ``ValueError``."""
    name, bracket, rest = text.rpartition("<")
    name, address = name.strip(), rest.removesuffix(">") if bracket else rest
    if bracket and (not rest.endswith(">") or not _NAME.fullmatch(name)):
        raise ValueError("no name before the address")
    if address_fault(address):
        raise ValueError("no mail address")
    return Originator(name, address)
