"""From a request for a ``mailto:`` URL to the bytes of a mail. Nothing in a request can add a header or a recipient."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from typing import Final

from msgspec import Struct

from hookline.core.mail import Originator, recipient_of
from hookline.ports import Request

_PASSED_ON: Final = "x-hookline-"
_TRACKING: Final = {"hookline-sequence": "X-Hookline-Sequence", "hookline-attempt": "X-Hookline-Attempt"}
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_LONGEST: Final = 500
"""Characters of a header."""


class Mail(Struct, frozen=True):
    """What a request says, taken apart. ``headers`` are those of ours that a mail carries too."""

    recipient: str
    subscription: str
    subject: str
    headers: dict[str, str]
    text: str


def mail_of(request: Request) -> Mail:
    """Raises ``AddressRefused`` if the URL is not that of one mailbox."""
    recipient = recipient_of(request.url)
    subject, headers = "", dict[str, str]()
    for line in request.headers:
        name, _, value = line.partition(":")
        lower = name.strip().lower()
        value = _clean(value)
        if lower == "subject":
            subject = value
        elif lower.startswith(_PASSED_ON):
            headers[name.strip()] = value
        elif lower in _TRACKING:
            headers[_TRACKING[lower]] = value
    text = (request.body or b"").decode("utf-8", "replace")
    return Mail(recipient, headers.get("X-Hookline-Subscription", ""), subject or "Hookline", headers, text)


def write(mail: Mail, sender: Originator, now: datetime, note: str = "") -> bytes:
    """The mail as it goes over the wire; ``note`` stands below its text.

    Its ``Message-ID`` is the same for each attempt, so that mailboxes can drop one that comes twice.
    """
    message = EmailMessage(SMTP)
    message["From"] = Address(sender.name, addr_spec=sender.address)
    message["To"] = Address(addr_spec=mail.recipient)
    message["Subject"] = mail.subject
    message["Date"] = now.astimezone(UTC)
    message["Message-ID"] = message_id(mail, sender.domain)
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no mailbox answers it by itself
    message["X-Auto-Response-Suppress"] = "All"  # the same for Exchange
    for name, value in mail.headers.items():
        message[name] = value
    message.set_content(f"{mail.text.rstrip()}\n\n{note}" if note else mail.text, cte="quoted-printable")
    return message.as_bytes()


def message_id(mail: Mail, domain: str) -> str:
    """From event, subscription and recipient: any other letters than digits in it would have to be escaped."""
    parts = (mail.headers.get("X-Hookline-Event", mail.text), mail.subscription, mail.recipient)
    return f"<{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:40]}@{domain}>"


def _clean(value: str) -> str:
    """One line, and no encoded word (RFC 2047): the email package would decode it, line breaks in it included."""
    return " ".join(_UNSAFE.sub(" ", value).split())[:_LONGEST].replace("=?", "= ?")
