"""The sender of mails against real SMTP servers: good ones, strict ones, slow, broken and absent ones."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from hookline.core.address import AddressRule
from hookline.core.mail import mail_server, originator
from hookline.core.model import STANDARD_DELAYS, RetryPolicy
from hookline.core.retry import Verdict, verdict
from hookline.ports import ErrorClass, Outcome, Request, Sender
from hookline.profiles import PROFILES
from hookline.sender import CurlSender
from hookline.sender.mail import MailSender, trusted
from hookline.sender.router import RoutedSender
from tests.integration.senders import begin, until
from tests.support.mailbox import LOGIN, USER, Mailbox, mailbox, scripted
from tests.support.ports import own_port

PATIENCE = 60.0


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


@asynccontextmanager
async def sending(url: str, ca: Path | None = None, **options: Any) -> AsyncGenerator[MailSender]:
    context = trusted(ca) if ca is not None else ssl.create_default_context()
    sender = MailSender(
        mail_server(url),
        originator("Hookline <hookline@example.com>"),
        context,
        **{"interval": 0.0, **options},
    )
    try:
        yield sender
    finally:
        await sender.close()


def request(
    to: str = "mailto:ops@example.com",
    *,
    subject: str = "[shop] order:created",
    subscription: str = "sub_1",
    event: str = "evt_1",
    body: bytes | None = b"A text.\n.\nWith a dot \xc3\xbc\n",
    connect: float = 10.0,
    total: float = 15.0,
) -> Request:
    headers = [
        "User-Agent: test", f"Subject: {subject}", f"X-Hookline-Event: {event}",
        f"X-Hookline-Subscription: {subscription}", "hookline-attempt: 1",
    ]  # fmt: skip
    return Request("POST", to, headers, body, connect, total)


async def send(sender: Sender, **fields: Any) -> Outcome:
    return await asyncio.wait_for(begin(sender, request(**fields)), PATIENCE)


# --- mails that arrive ----------------------------------------------------------------------------------------


async def test_a_mail_arrives_as_it_was_written() -> None:
    async with mailbox() as box, sending(box.url()) as sender:
        outcome = await send(sender)
    assert (outcome.status, outcome.error, outcome.body) == (250, None, b"2.0.0 OK queued")
    assert 0 < outcome.connect_us <= outcome.first_byte_us <= outcome.total_us
    (mail,) = box.mails
    assert box.envelopes == [("hookline@example.com", ["ops@example.com"])]
    assert (mail["From"], mail["To"]) == ("Hookline <hookline@example.com>", "ops@example.com")
    assert (mail["Subject"], mail["Auto-Submitted"]) == ("[shop] order:created", "auto-generated")
    assert box.texts == ["A text.\n.\nWith a dot ü\n"]
    assert box.encrypted == [False]


async def test_starttls_and_login(server_tls: ssl.SSLContext, ca_file: Path) -> None:
    async with mailbox(server_tls, login=True) as box, sending(box.url(LOGIN), ca_file) as sender:
        outcome = await send(sender)
    assert (outcome.status, box.encrypted, set(box.logins)) == (250, [True], {USER})
    assert outcome.tls_us > 0


async def test_starttls_is_used_where_it_is_offered(server_tls: ssl.SSLContext, ca_file: Path) -> None:
    async with mailbox(server_tls) as box:
        async with sending(box.url(), ca_file) as sender:
            assert (await send(sender)).status == 250
        async with sending(box.url(query="?starttls=never")) as sender:
            assert (await send(sender)).status == 250
    assert box.encrypted == [True, False]


async def test_smtps(server_tls: ssl.SSLContext, ca_file: Path) -> None:
    async with (
        mailbox(server_tls, smtps=True, login=True) as box,
        sending(box.url(LOGIN, "smtps"), ca_file) as sender,
    ):
        assert (await send(sender)).status == 250
    assert (box.encrypted, set(box.logins)) == ([True], {USER})


@pytest.mark.parametrize(
    "subject", ["a\r\nBcc: v@example.org", "=?utf-8?q?=0D=0ABcc=3A_v=40e.org?=", "ü" * 300, ""]
)
@pytest.mark.parametrize(
    "body", [b".\r\n.\r\nMAIL FROM:<x@y.z>\r\n", b"\r\n.\r\nQUIT\r\n", b"\xff\x00" * 50, None]
)
async def test_hostile_texts_stay_texts(subject: str, body: bytes | None) -> None:
    async with mailbox() as box, sending(box.url()) as sender:
        assert (await send(sender, subject=subject, body=body)).status == 250
    (mail,) = box.mails
    assert box.envelopes == [("hookline@example.com", ["ops@example.com"])]
    assert {"Bcc", "Cc"}.isdisjoint(mail.keys())
    assert len(mail.get_all("To") or []) == 1


@pytest.mark.parametrize(
    "url",
    [
        "mailto:a@b.com,c@d.com", "mailto:a@b.com?bcc=c@d.com", "mailto:a@b.com>\r\nRCPT TO:<c@d.com", "mailto:",
        "mailto:-x@b.com",
    ],
)  # fmt: skip
async def test_hostile_addresses_are_not_sent_to(url: str) -> None:
    async with mailbox() as box, sending(box.url()) as sender:
        outcome = await send(sender, to=url)
    assert (outcome.status, outcome.error) == (0, ErrorClass.ADDRESS_REFUSED)
    assert (box.recipients, box.mails) == ([], [])


# --- answers of the server ------------------------------------------------------------------------------------


async def test_a_refused_mailbox_is_final_and_a_greylisted_one_is_tried_again() -> None:
    policy = PROFILES["mail"].defaults.retry
    async with mailbox() as box, sending(box.url()) as sender:
        box.answers = ["550 5.1.1 no such mailbox", "450 4.2.0 greylisted\r\n"]
        refused, greylisted, taken = [await send(sender) for _ in range(3)]
    assert (refused.status, refused.body) == (550, b"5.1.1 no such mailbox")
    assert (greylisted.status, greylisted.body) == (450, b"4.2.0 greylisted")
    assert [verdict(policy, one.status, "", gone=False) for one in (refused, greylisted, taken)] == [
        Verdict.FAILED, Verdict.RETRY, Verdict.SUCCEEDED,
    ]  # fmt: skip
    assert len(box.mails) == 1


async def test_the_answer_to_the_text_counts_too() -> None:
    async with mailbox() as box, sending(box.url()) as sender:
        box.data_answers = ["554 5.7.1 looks like spam", "451 4.3.0 later"]
        assert [(await send(sender)).status for _ in range(3)] == [554, 451, 250]


async def test_a_refused_login_is_told_without_the_password(
    server_tls: ssl.SSLContext, ca_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = "wr0ng-p4ssw0rd"
    async with mailbox(server_tls, login=True) as box, sending(box.url(f"{USER}:{wrong}"), ca_file) as sender:
        outcome = await send(sender)
    assert (outcome.error, outcome.detail) == (ErrorClass.AUTH, "the mail server refused the login (535)")
    ours = [record for record in caplog.records if not record.name.startswith("mail.")]  # aiosmtpd's own log
    assert wrong not in repr(outcome)
    assert [record for record in ours if wrong in record.getMessage()] == []
    assert verdict(PROFILES["mail"].defaults.retry, 0, str(outcome.error)) is Verdict.RETRY


async def test_a_server_that_wants_a_login_is_the_operators_to_mend(
    server_tls: ssl.SSLContext, ca_file: Path
) -> None:
    async with mailbox(server_tls, login=True) as box, sending(box.url(), ca_file) as sender:
        outcome = await send(sender)
    assert (outcome.error, outcome.detail) == (ErrorClass.AUTH, "the mail server wants another login (530)")


# --- servers in trouble ---------------------------------------------------------------------------------------


async def test_a_password_never_goes_out_without_tls() -> None:
    heard: list[bytes] = []

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hello\r\n")
        while line := await reader.readline():
            heard.append(line)
            writer.write(
                b"250-hello\r\n250 AUTH PLAIN LOGIN\r\n" if line.startswith(b"EHLO") else b"250 ok\r\n"
            )

    async with scripted(plain) as port, sending(f"smtp://{LOGIN}@127.0.0.1:{port}") as sender:
        outcome = await send(sender)
    assert (outcome.error, outcome.detail) == (ErrorClass.TLS, "the mail server does not offer STARTTLS")
    assert [line for line in heard if b"AUTH" in line] == []


async def test_a_certificate_of_somebody_else_is_refused(server_tls: ssl.SSLContext, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    async with mailbox(server_tls) as box, sending(box.url(), other) as sender:
        outcome = await send(sender)
    assert (outcome.error, box.mails) == (ErrorClass.TLS, [])
    assert "not trusted" in outcome.detail


async def test_a_certificate_for_another_name_is_refused(authority: trustme.CA, ca_file: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("mail.example").configure_cert(context)
    for smtps, scheme in ((False, "smtp"), (True, "smtps")):
        async with mailbox(context, smtps=smtps) as box, sending(box.url(scheme=scheme), ca_file) as sender:
            outcome = await send(sender)
        assert (outcome.error, box.mails) == (ErrorClass.TLS, [])
        assert "another host name" in outcome.detail


async def test_a_server_without_tls_at_an_smtps_url(ca_file: Path) -> None:
    async with mailbox() as box, sending(box.url(scheme="smtps"), ca_file) as sender:
        outcome = await send(sender)
    assert outcome.error is ErrorClass.TLS


async def test_no_server_at_all() -> None:
    async with sending(f"smtp://127.0.0.1:{own_port()}") as sender:
        outcome = await send(sender)
    assert (outcome.error, outcome.status) == (ErrorClass.CONNECT, 0)
    assert outcome.detail == "no connection to the mail server: nothing listens at its address and port"


async def test_a_server_with_no_name() -> None:
    async with sending("smtp://nowhere.invalid") as sender:
        outcome = await send(sender)
    assert (outcome.error, outcome.detail) == (
        ErrorClass.DNS,
        "the name of the mail server could not be resolved",
    )


def says(*answers: bytes) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]:
    """Greets with the first answer, gives the others one to a line, then hangs up."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            writer.write(answer)
            await writer.drain()
            await reader.readline()

    return script


@pytest.mark.parametrize(
    ("answers", "error", "words"),
    [
        ((), ErrorClass.CONNECT, "no connection"),
        ((b"554 go away\r\n",), ErrorClass.CONNECT, "(554)"),
        ((b"421 busy\r\n",), ErrorClass.CONNECT, "(421)"),
        ((b"HTTP/1.1 400 Bad Request\r\n\r\n",), ErrorClass.CONNECT, "no connection"),
        ((b"220 hi\r\n",), ErrorClass.RESET, "closed the connection"),
        ((b"220 hi\r\n", b"502 what\r\n"), ErrorClass.CONNECT, "refused to talk (502)"),
        ((b"220 hi\r\n", b"250 hi\r\n"), ErrorClass.RESET, "closed the connection"),
        (
            (b"220 hi\r\n", b"250 hi\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n"),
            ErrorClass.RESET,
            "closed",
        ),
        ((b"220 hi\r\n", b"250 hi\r\n", b"\xff\xff\xff\r\n"), ErrorClass.PROTOCOL, "valid SMTP"),
        ((b"220 hi\r\n", b"250 hi\r\n", b"999 hm\r\n"), ErrorClass.PROTOCOL, "valid SMTP"),
        ((b"220 hi\r\n", b"250 hi\r\n", b"200 ok\r\n"), ErrorClass.PROTOCOL, "(200)"),
        ((b"220 hi\r\n", b"250 hi\r\n", b"250 ok\r\n", b"200 ok\r\n"), ErrorClass.PROTOCOL, "(200)"),
        (
            (b"220 hi\r\n", b"250 hi\r\n", b"250 ok\r\n", b"250 ok\r\n", b"250 where is it?\r\n"),
            ErrorClass.PROTOCOL,
            "(250)",
        ),
        ((b"220 hi\r\n", b"250 hi\r\n", b"250-" + b"x" * 9000 + b"\r\n"), ErrorClass.PROTOCOL, "valid SMTP"),
    ],
)
async def test_a_server_that_breaks_off_or_talks_nonsense(
    answers: tuple[bytes, ...], error: ErrorClass, words: str
) -> None:
    async with scripted(says(*answers)) as port, sending(f"smtp://127.0.0.1:{port}") as sender:
        outcome = await send(sender)
    assert (outcome.error, outcome.status) == (error, 0)
    assert words in outcome.detail


async def test_a_server_that_hangs_is_given_up_in_time() -> None:
    async with mailbox() as box, sending(box.url()) as sender:
        box.hold = asyncio.Event()
        outcome = await send(sender, connect=5.0, total=0.3)
        box.hold.set()
    assert (outcome.error, outcome.detail) == (
        ErrorClass.TIMEOUT, "no complete answer of the mail server within 0.3 s",
    )  # fmt: skip
    assert 0.25e6 < outcome.total_us < 5e6


async def test_a_server_that_does_not_greet_is_given_up_in_time() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with scripted(silent) as port, sending(f"smtp://127.0.0.1:{port}") as sender:
        outcome = await send(sender, connect=0.2, total=10.0)
    assert (outcome.error, outcome.detail) == (
        ErrorClass.CONNECT_TIMEOUT, "no connection to the mail server within 0.2 s",
    )  # fmt: skip


# --- many mails -----------------------------------------------------------------------------------------------


async def test_few_connections_at_a_time_and_the_rest_waits() -> None:
    async with mailbox() as box, sending(box.url(), connections=2) as sender:
        box.hold = asyncio.Event()
        asked = [begin(sender, request(event=f"evt_{number}")) for number in range(9)]
        await until(lambda: box.open == 2)
        box.hold.set()
        outcomes = await asyncio.wait_for(asyncio.gather(*asked), PATIENCE)
    assert [one.status for one in outcomes] == [250] * 9
    assert (box.most_open, len(box.mails)) == (2, 9)


async def test_waiting_counts_and_the_line_has_an_end() -> None:
    async with (
        mailbox() as box,
        sending(box.url(), connections=1, max_waiting=1) as sender,
    ):
        box.hold = asyncio.Event()
        first = begin(sender, request(total=15))
        second = begin(sender, request(total=0.2))
        third = await send(sender)
        assert (third.error, third.detail) == (
            ErrorClass.INTERNAL,
            "more than 2 mails wait for the mail server",
        )
        late = await asyncio.wait_for(second, PATIENCE)
        assert (late.error, late.detail) == (
            ErrorClass.TIMEOUT, "no connection to the mail server was free within 0.2 s",
        )  # fmt: skip
        box.hold.set()
        assert (await asyncio.wait_for(first, PATIENCE)).status == 250
        assert (await send(sender)).status == 250


class Hands:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_a_flood_becomes_one_mail_and_a_count() -> None:
    clock = Hands()
    async with (
        mailbox() as box,
        sending(box.url(), interval=300.0, monotonic=clock) as sender,
    ):
        first = await send(sender)
        held = [await send(sender, event=f"evt_{number}", subject=f"order {number}") for number in range(8)]
        other = [await send(sender, subscription="sub_2"), await send(sender, to="mailto:dev@example.com")]
        clock.now += 299
        held.append(await send(sender))
        clock.now += 1
        late = await send(sender)
    assert [one.status for one in (first, *held, *other, late)] == [250] * 13
    assert {one.body for one in held} == {
        b"held back: one mail in 300 s to this address; the next one tells of this"
    }
    assert len(box.mails) == 4
    assert ["held back" in text for text in box.texts] == [False, False, False, True]
    assert "9 further mails were held back since the last one:\n- order 0\n" in box.texts[3]
    assert "- and 4 more" in box.texts[3]


async def test_a_mail_that_did_not_go_out_holds_nothing_back() -> None:
    async with mailbox() as box, sending(box.url(), interval=300.0) as sender:
        box.answers = ["450 later"]
        assert [(await send(sender)).status for _ in range(3)] == [450, 250, 250]
    assert len(box.mails) == 1


@pytest.mark.parametrize(
    ("answer", "status", "texts"), [("250 OK", 250, [b"held back"] * 3), ("450 no", 450, [b"no"] * 3)]
)
async def test_mails_for_a_mailbox_under_way_share_the_fate_of_the_first(
    answer: str, status: int, texts: list[bytes]
) -> None:
    async with mailbox() as box, sending(box.url(), interval=300.0) as sender:
        box.hold, box.data_answers = asyncio.Event(), [answer]
        asked = [begin(sender, request(event=f"evt_{number}")) for number in range(4)]
        await until(lambda: box.open == 1)
        box.hold.set()
        first, *others = await asyncio.wait_for(asyncio.gather(*asked), PATIENCE)
    assert {one.status for one in (first, *others)} == {status}
    assert [one.body[: len(text)] for one, text in zip(others, texts, strict=True)] == texts
    assert box.most_open == 1


async def test_after_a_restart_the_next_mail_goes_out_at_once() -> None:
    async with mailbox() as box:
        for _ in range(2):
            async with sending(box.url(), interval=300.0) as sender:
                assert [(await send(sender)).status for _ in range(2)] == [250, 250]
    assert len(box.mails) == 2
    assert box.mails[0]["Message-ID"] == box.mails[1]["Message-ID"]
    assert "held back" not in box.texts[1]


# --- its life -------------------------------------------------------------------------------------------------


async def test_closing_gives_up_what_is_in_flight() -> None:
    answered: list[Outcome] = []
    async with mailbox() as box:
        box.hold = asyncio.Event()
        async with sending(box.url(), connections=1) as sender:
            for _ in range(3):
                sender.start(request(), answered.append)
            await until(lambda: box.open == 1)
        with pytest.raises(RuntimeError, match="closed"):
            sender.start(request(), answered.append)
        box.hold.set()
    assert answered == []


async def test_a_receiver_that_fails_does_not_stop_the_others() -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))

    def broken(_: Outcome) -> None:
        raise ZeroDivisionError

    async with mailbox() as box, sending(box.url()) as sender:
        sender.start(request(), broken)
        assert (await send(sender)).status == 250
        await until(lambda: len(complaints) == 1)
    assert isinstance(complaints[0]["exception"], ZeroDivisionError)


async def routed(box: Mailbox | None, url: str) -> Outcome:
    mail = None
    if box is not None:
        server = mail_server(box.url())
        mail = MailSender(server, originator("hookline@example.com"), None)
    sender = RoutedSender(CurlSender(AddressRule()), mail)
    try:
        return await send(sender, to=url)
    finally:
        await sender.close()


async def test_the_scheme_of_the_url_decides_who_sends() -> None:
    async with mailbox() as box:
        assert (await routed(box, "mailto:ops@example.com")).status == 250
        refused = await routed(box, f"http://127.0.0.1:{box.port}/")
    assert refused.error is ErrorClass.ADDRESS_REFUSED
    assert len(box.mails) == 1
    nobody = await routed(None, "mailto:ops@example.com")
    assert (nobody.error, "HOOKLINE_SMTP_URL" in nobody.detail) == (ErrorClass.INTERNAL, True)
    assert verdict(RetryPolicy(delays=STANDARD_DELAYS), 0, str(nobody.error)) is Verdict.RETRY
