"""Mails out of the running server: about a broken endpoint, over a restart, in a flood, and where there are none."""

from __future__ import annotations

from pathlib import Path

from tests.support.mailbox import PASSWORD, Mailbox, mailbox
from tests.support.receipts import receiving
from tests.support.server import Api, ServerProcess, running
from tests.support.waiting import eventually, until

QUICK = {"kind": "list", "delays": [0.2] * 50, "jitter": 0.0}


def server_of(folder: Path, box: Mailbox | None, **settings: str) -> ServerProcess:
    if box is not None:
        settings = {"smtp_url": box.url(), "smtp_from": "Hookline <hookline@example.com>", **settings}
    return ServerProcess(folder / "data", **settings)


async def mail_subscription(api: Api, *events: str, **fields: object) -> str:
    return await api.subscribe("mailto:ops@example.com", profile="mail", events=list(events), **fields)


async def test_a_broken_endpoint_makes_a_mail_that_says_what_and_why(tmp_path: Path) -> None:
    async with mailbox() as box, receiving(tmp_path) as receiver:
        server = server_of(tmp_path, box)
        async with running(server):
            api = await Api(server).new_tenant("shop")
            broken = await api.subscribe(
                receiver.url("broken", "status=503"), events=["order:*"], retry={"kind": "none"}
            )
            fine = await api.subscribe(receiver.url("fine"), events=["order:*"])
            mails = await mail_subscription(
                api, "hookline.delivery.failed",
                filter=f'data.subscription_id == "{broken}"', metadata={"hookline.companion_of": broken},
            )  # fmt: skip
            await api.publish({"id": "order-4471", "type": "order:created", "data": {"total": "54.70"}})
            await until(lambda: box.mails, lambda: f"a mail came\n{server.tail()}")
            (delivery,) = await eventually(
                lambda: api.listing(f"/v1/subscriptions/{mails}/deliveries?include=attempts"),
                lambda listed: bool(listed) and listed[0]["state"] == "succeeded",
                "the mail is in the log",
            )
            (failed,) = await api.listing(f"/v1/subscriptions/{broken}/deliveries")
            assert server.complaints() == []
    (mail,), (text,) = box.mails, box.texts
    assert mail["Subject"] == "[shop] Delivery of order:created failed"
    assert (mail["X-Hookline-Subscription"], mail["To"]) == (mails, "ops@example.com")
    for word in (
        broken,
        "order-4471 (order:created)",
        "answered 503",
        "after 1 attempt",
        f"{failed['id']}/resend",
    ):
        assert word in text
    assert fine not in text
    (attempt,) = delivery["attempt_log"]
    assert (attempt["status"], attempt["url"]) == (250, "mailto:ops@example.com")


async def test_a_greylisted_mail_survives_the_death_of_the_server(tmp_path: Path) -> None:
    async with mailbox() as box:
        box.answers = ["450 4.2.0 greylisted"] * 3
        server = server_of(tmp_path, box)
        async with running(server):
            api = await Api(server).new_tenant("shop")
            await mail_subscription(
                api, "order:created", retry={"kind": "list", "delays": [1, 1, 1, 1, 1, 1], "jitter": 0}
            )
            await api.publish({"id": "order-1", "type": "order:created", "data": {"name": "Müller"}})
            await until(lambda: box.recipients, "the first try")
            assert box.mails == []
            server.kill()
            await server.start()
            await until(lambda: box.mails, lambda: f"the mail came\n{server.tail()}")
    (text,) = box.texts
    assert "Event:         order-1" in text
    assert '"name": "M' in text


async def test_one_mail_tells_of_a_flood_and_a_refused_one_ends(tmp_path: Path) -> None:
    async with mailbox() as box:
        server = server_of(tmp_path, box, mail_interval="1h")
        async with running(server):
            api = await Api(server).new_tenant("shop")
            mails = await mail_subscription(api, "order:*", retry=QUICK)
            box.answers = ["550 5.1.1 no such mailbox"]
            await api.publish({"id": "refused", "type": "order:created", "data": {}})
            place = f"/v1/subscriptions/{mails}/deliveries"
            (refused,) = await eventually(
                lambda: api.listing(place),
                lambda listed: [one["state"] for one in listed] == ["failed"],
                "refused",
            )
            assert refused["attempts"] == 1
            for number in range(20):
                await api.publish({"id": f"order-{number}", "type": "order:created", "data": {}})
            listed = await eventually(
                lambda: api.listing(place),
                lambda listed: sum(one["state"] == "succeeded" for one in listed) == 20,
                "all are settled",
            )
            assert [one["event"] for one in listed if one["state"] == "failed"] == ["refused"]
            assert len(box.mails) == 1


async def test_without_a_mail_server_no_such_subscription_is_made(tmp_path: Path) -> None:
    server = server_of(tmp_path, None)
    async with running(server):
        api = await Api(server).new_tenant("shop")
        answer = await api.call(
            "POST", "/v1/subscriptions", {"url": "mailto:ops@example.com", "profile": "mail"}
        )
        assert (answer.status, b"HOOKLINE_SMTP_URL" in answer.body) == (422, True)
        answer = await Api(server).call("POST", "/v1/tenants", {"id": "t", "name": "t", "profile": "mail"})
        assert answer.status == 422


async def test_the_password_is_in_no_log_and_no_answer(tmp_path: Path) -> None:
    async with mailbox() as box:
        server = server_of(
            tmp_path, box, smtp_url=box.url(f"mailer:{PASSWORD.replace('/', '%2F').replace('@', '%40')}")
        )
        async with running(server):
            api = await Api(server).new_tenant("shop")
            mails = await mail_subscription(api, "order:*")
            trial = await api.post(f"/v1/subscriptions/{mails}/test", {})
            assert trial["attempt"]["error"] == "tls"
            assert "does not offer STARTTLS" in str(trial)
        assert server.complaints() == []
        for text in (str(trial), server.log.read_text("utf-8")):
            assert PASSWORD not in text
            assert "operator%" not in text
    assert box.mails == []
