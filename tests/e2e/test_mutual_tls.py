"""An endpoint that lets in only clients with a certificate: what waited for one goes out once it is there."""

from __future__ import annotations

import asyncio
import ssl
import sys
from asyncio.subprocess import DEVNULL, PIPE
from pathlib import Path

from hookline.core.model import ClientCertificate
from tests.integration.receivers import authority, receiver, server_context
from tests.support.server import OPERATOR_KEY, ROOT, Api, ServerProcess, child_environment, running
from tests.support.waiting import eventually, until
from tests.unit.test_client_certificate import client_certificate


async def give(server: ServerProcess, subscription: str, shown: ClientCertificate, to: Path) -> str:
    """With the command, from two files."""
    (to / "shop.pem").write_text(shown.certificate)
    (to / "shop.key").write_text(shown.key)
    target = {"url": f"http://127.0.0.1:{server.port}", "key": OPERATOR_KEY, "tenant": "shop"}
    given = {f"HOOKLINE_{name.upper()}": value for name, value in target.items()}
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hookline", "subscriptions", "update", subscription, "--json",
        "--client-certificate", f"@{to / 'shop.pem'}", "--client-key", f"@{to / 'shop.key'}",
        cwd=ROOT, env=child_environment(**given), stdin=DEVNULL, stdout=PIPE, stderr=PIPE,
    )  # fmt: skip
    out, err = await program.communicate()
    assert program.returncode == 0, err.decode()
    return out.decode()


async def test_what_waited_for_a_certificate_goes_out_once_it_is_there(tmp_path: Path) -> None:
    ca = authority()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    demanding = server_context(ca.issue_cert("127.0.0.1"))
    demanding.verify_mode = ssl.CERT_REQUIRED
    ca.configure_trust(demanding)
    server = ServerProcess(tmp_path / "data", ca_file=str(tmp_path / "ca.pem"))
    async with running(server), receiver(tls=demanding) as there:
        api = await Api(server).new_tenant("shop")
        retry = {"kind": "list", "delays": [0.5] * 100, "jitter": 0}
        subscription = await api.subscribe(there.url(), retry=retry)
        event = (await api.publish({"type": "order:created", "data": {"total": 5470}}))["id"]
        path = f"/v1/subscriptions/{subscription}/deliveries"
        await eventually(
            lambda: api.listing(path),
            lambda found: [one["state"] for one in found] == ["retrying"],
            "refused",
        )
        assert there.requests == []

        good = client_certificate(ca.issue_cert("shop"))
        shown = await give(server, subscription, good, tmp_path)
        assert "PRIVATE KEY" not in shown
        await eventually(
            lambda: api.listing(path), lambda found: found[0]["state"] == "succeeded", "delivered"
        )
        assert [one.headers["webhook-id"] for one in there.requests] == [event]

        await server.terminate()
        await server.start()
        await api.publish({"type": "order:created", "data": {}})
        await until(lambda: len(there.requests) == 2, "delivered after a restart too")
    stored = b"".join(each.read_bytes() for each in (tmp_path / "data").iterdir() if each.is_file())
    assert good.certificate.splitlines()[1].encode() not in stored
    assert good.key.splitlines()[1].encode() not in stored
