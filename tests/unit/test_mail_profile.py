"""What a mail says, how it looks on the wire, and how many of them a mailbox gets."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookline.core.mail import Originator
from hookline.core.model import Event, Secrets, Subscription, Tenant
from hookline.engine.compose import Composer
from hookline.engine.manage.spec import drafted
from hookline.ports import Request
from hookline.profiles import PROFILES
from hookline.profiles.mail import MOST_DATA, MailFormat
from hookline.sender.flood import FloodGuard
from hookline.sender.message import mail_of, message_id, write

NOW = 1_767_261_600_250  # 2026-01-01T10:00:00.250Z
WHEN = datetime(2026, 1, 1, 10, tzinfo=UTC)
SHOP = Tenant(3, "shop", "The shop", "standard", 0)
US = Originator("Hookline", "hookline@example.com")
FORMAT = MailFormat(SHOP)


def event(event_type: str, data: object, **fields: Any) -> Event:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return Event(
        shard=0, position=1, tenant_no=3, id="evt_1", type=event_type, data=raw, occurred_at=NOW, received_at=NOW,
        **fields,
    )  # fmt: skip


def text_of(event_type: str, data: object, **fields: Any) -> str:
    return FORMAT.body(event(event_type, data, **fields), 1).decode()


def subject_of(event_type: str, data: object, **fields: Any) -> str:
    line = FORMAT.headers(event(event_type, data, **fields))[0]
    assert line.startswith("Subject: ")
    return line.removeprefix("Subject: ")


# --- words --------------------------------------------------------------------------------------------------

FAILED = {
    "delivery_id": "dlv_7",
    "subscription_id": "sub_4",
    "event_id": "order-4471",
    "event_type": "order:created",
    "sequence": 12,
    "attempts": 10,
    "reason": "answered 503",
}


def test_a_failed_delivery_is_told_in_words() -> None:
    text = text_of("hookline.delivery.failed", FAILED, object_type="subscription", object_id="sub_4")
    assert text == (
        "An event could not be delivered. Hookline gave up after 10 attempts.\n"
        "\n"
        "Subscription:  sub_4\n"
        "Event:         order-4471 (order:created)\n"
        "Delivery:      dlv_7\n"
        "Reason:        answered 503\n"
        "Time:          2026-01-01T10:00:00.250Z\n"
        "\n"
        "What to do:\n"
        "1. Find out from the reason why the endpoint did not take it, and mend that.\n"
        "2. Send it again:  POST /v1/deliveries/dlv_7/resend\n"
        "   All that failed:  POST /v1/subscriptions/sub_4/replay\n"
        "\n"
        "Tenant: shop\n"
    )
    assert subject_of("hookline.delivery.failed", FAILED) == "[shop] Delivery of order:created failed"
    assert "after 1 attempt." in text_of("hookline.delivery.failed", {**FAILED, "attempts": 1})


@pytest.mark.parametrize(
    ("name", "subject", "words"),
    [
        ("failing", "[shop] Subscription sub_4 is failing", ["will disable it", "/sub_4/deliveries"]),
        ("disabled", "[shop] Subscription sub_4 was disabled", ["nothing more is sent", "/sub_4/resume"]),
    ],
)  # fmt: skip
def test_an_unwell_subscription_is_told_in_words(name: str, subject: str, words: list[str]) -> None:
    data = {
        "subscription_id": "sub_4", "name": "ERP", "url": "https://erp.example/?key=s3cr3t", "reason": "failures",
        "failing_since": "2026-01-01T08:00:00.000Z",
    }  # fmt: skip
    event_type = f"hookline.subscription.{name}"
    text = text_of(event_type, data)
    assert subject_of(event_type, data) == subject
    for word in ["sub_4", "ERP", "failures", "2026-01-01T08:00:00.000Z", *words]:
        assert word in text
    assert "s3cr3t" not in text
    assert "Failing since" not in text_of(event_type, {**data, "failing_since": None})


def test_any_other_event_is_shown_with_its_data_laid_out() -> None:
    order = event(
        "order:created", {"total": "54.70", "name": "Müller"}, object_type="order", object_id="4471"
    )
    assert FORMAT.body(order, 1).decode() == (
        "Event type:    order:created\n"
        "Time:          2026-01-01T10:00:00.250Z\n"
        "Object:        order 4471\n"
        "Event:         evt_1\n"
        "\n"
        '{\n  "total": "54.70",\n  "name": "M\\u00fcller"\n}\n'
        "\n"
        "Tenant: shop\n"
    )
    assert FORMAT.headers(order) == [
        "Subject: [shop] order:created (order 4471)",
        "X-Hookline-Event: evt_1",
        "X-Hookline-Event-Type: order:created",
        "X-Hookline-Tenant: shop",
    ]


@pytest.mark.parametrize("data", [{}, {"subscription_id": 4}, [], b"nonsense"])
def test_an_operational_event_of_another_form_is_shown_like_any_other(data: object) -> None:
    assert "Event type:    hookline.delivery.failed" in text_of("hookline.delivery.failed", data)
    assert "Event type:    hookline.later" in text_of("hookline.later", data)


def test_long_data_is_cut_with_a_note() -> None:
    for data in (
        json.dumps({"a": "ü" * MOST_DATA}, ensure_ascii=False).encode(),
        b"[" + b"1," * 20_000 + b"1]",
    ):
        text = text_of("order:created", data)
        assert len(text.encode()) < MOST_DATA + 500
        assert f"the data has {len(data)} bytes" in text
    deep = b"[" * 30_000 + b"]" * 30_000
    assert deep.decode() in text_of("order:created", deep)


@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=60))
def test_no_text_of_others_makes_a_line_or_header_of_its_own(reason: str, kind: str, name: str) -> None:
    failed = event(
        "hookline.delivery.failed", {**FAILED, "reason": reason, "event_type": name}, object_type=kind, object_id=name
    )  # fmt: skip
    other = event(
        "order:created", {}, object_type=kind, object_id=name, source_application=reason, correlation_id=kind
    )
    assert FORMAT.body(failed, 1).decode().count("\n") == 14
    for one in (failed, other):
        for line in FORMAT.headers(one):
            assert line.isascii()
            assert line.isprintable()
        assert FORMAT.body(one, 1) == MailFormat(SHOP).body(one, 1)


# --- on the wire --------------------------------------------------------------------------------------------


def composed(of: Event, attempt: int = 1, url: str = "mailto:ops@example.com") -> Request:
    definition = drafted({"url": url, "profile": "mail"}).spec.definition()
    subscription = Subscription(9, "sub_mail", 3, 0, 1, 1, definition, b"", 0, 0)
    return Composer(subscription, Secrets(), SHOP).compose(of, 12, attempt, NOW).request


def parsed(raw: bytes) -> EmailMessage:
    message = BytesParser(policy=default).parsebytes(raw)
    assert isinstance(message, EmailMessage)
    return message


def test_a_mail_has_the_headers_that_mailboxes_look_at() -> None:
    mail = mail_of(composed(event("order:created", {"name": "Müller 🍺"}), attempt=2))
    message = parsed(write(mail, US, WHEN))
    assert dict(message.items()) == {
        "From": "Hookline <hookline@example.com>",
        "To": "ops@example.com",
        "Subject": "[shop] order:created",
        "Date": "Thu, 01 Jan 2026 10:00:00 +0000",
        "Message-ID": message_id(mail, "example.com"),
        "Auto-Submitted": "auto-generated",
        "X-Auto-Response-Suppress": "All",
        "X-Hookline-Subscription": "sub_mail",
        "X-Hookline-Event": "evt_1",
        "X-Hookline-Event-Type": "order:created",
        "X-Hookline-Tenant": "shop",
        "X-Hookline-Sequence": "12",
        "X-Hookline-Attempt": "2",
        "Content-Type": 'text/plain; charset="utf-8"',
        "Content-Transfer-Encoding": "quoted-printable",
        "MIME-Version": "1.0",
    }
    assert message.get_content().replace("\r\n", "\n") == mail.text


def test_the_message_id_is_that_of_the_event_at_its_subscription() -> None:
    of = event("order:created", {})
    ids = [message_id(mail_of(composed(of, attempt)), "example.com") for attempt in (1, 2)]
    assert ids[0] == ids[1]
    elsewhere = mail_of(composed(of, url="mailto:dev@example.com"))
    assert message_id(elsewhere, "example.com") != ids[0]


HOSTILE = "a\r\nBcc: victim@example.org\n\n<b>\x00\x1b[0m\u2028\u2029\x85 Ü \ud800"


def hostile_request(value: str, body: bytes | None) -> Request:
    headers = [f"Subject: {value}", f"X-Hookline-Event: {value}", f"X-Other: {value}", value]
    return Request("POST", "mailto:ops@example.com", headers, body, 5, 20)


@pytest.mark.parametrize(
    "value",
    [
        HOSTILE,
        "=?utf-8?q?=0D=0ABcc=3A_v=40e.org?=",
        "==??utf-8?b?DQpCY2M6IHg=?=",
        "x" * 5000,
        "",
        ":",
        "ü" * 400,
    ],
)
def test_nothing_in_a_request_adds_a_header(value: str) -> None:
    raw = write(mail_of(hostile_request(value, None)), US, WHEN)
    message = parsed(raw)
    assert {"Bcc", "X-Other", "Cc"}.isdisjoint(message.keys())
    assert (message["To"], message.get_all("Subject") or []) == ("ops@example.com", [message["Subject"]])
    head = raw.partition(b"\r\n\r\n")[0]
    assert b"\nBcc" not in head
    assert head.isascii()
    assert max(len(line) for line in raw.splitlines()) <= 998


@given(st.text(max_size=300), st.binary(max_size=300))
def test_any_subject_and_body_make_one_well_formed_mail(value: str, body: bytes) -> None:
    raw = write(mail_of(hostile_request(value, body)), US, WHEN, note="1 further")
    message = parsed(raw)
    assert raw.isascii()
    assert message.defects == []
    assert len(message.get_all("Subject") or []) == 1
    assert message.get_content().endswith("\r\n\r\n1 further\r\n")
    assert raw.count(b"\n") == raw.count(b"\r\n")


# --- the flood ----------------------------------------------------------------------------------------------

KEY = ("ops@example.com", "sub_1")


def test_one_mail_goes_out_in_an_interval_and_the_next_one_tells() -> None:
    guard = FloodGuard(300)
    assert guard.wait(KEY, 1000) == 0
    guard.sent(KEY, 1000)
    assert guard.wait(KEY, 1000) == 300
    assert guard.wait(("ops@example.com", "sub_2"), 1000) == 0
    for number in range(7):
        guard.hold(KEY, f"order {number}")
    assert guard.wait(KEY, 1299.5) == 0.5
    assert guard.wait(KEY, 1300) == 0
    assert guard.held(KEY).note() == (
        "7 further mails were held back since the last one:\n"
        "- order 0\n- order 1\n- order 2\n- order 3\n- order 4\n- and 2 more\n"
    )
    guard.sent(KEY, 1300)
    assert guard.held(KEY).note() == ""
    guard.hold(KEY, "x")
    assert guard.held(KEY).note().startswith("1 further mail was held back")


def test_an_interval_of_nothing_holds_nothing_back() -> None:
    guard = FloodGuard(0)
    guard.sent(KEY, 5)
    assert guard.wait(KEY, 5) == 0


def test_the_guard_forgets_the_mailbox_that_had_no_mail_for_longest() -> None:
    guard = FloodGuard(300, most_keys=2)
    keys = [("ops@example.com", f"sub_{number}") for number in range(3)]
    guard.sent(keys[0], 0)
    guard.sent(keys[1], 1)
    guard.sent(keys[0], 2)
    guard.sent(keys[2], 3)
    assert [guard.wait(key, 3) > 0 for key in keys] == [True, False, True]
    guard.hold(keys[1], "forgotten")
    assert guard.held(keys[1]).count == 0


def test_only_this_profile_is_named_mail() -> None:
    assert PROFILES["mail"].name == "mail"
