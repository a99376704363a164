"""README's "Your own first event" does what it says: its commands are run as they stand there."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from tests.e2e.test_tutorial import Reader, settled, until

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def section(title: str) -> list[str]:
    """The shell blocks of a section."""
    (text,) = re.findall(rf"^## {title}\n(.*?)(?=^## )", README, re.MULTILINE | re.DOTALL)
    return re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


async def test_the_first_event_arrives_and_is_found_again(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    port = f"export HOOKLINE_PORT={reader.ports['8480']}\n"
    serve, listen, three = section("Your own first event")
    (find,) = section("Find out why order 4471 did not arrive")
    async with reader.running(port + serve) as server:
        await until(server, "Hookline answers at")
        async with reader.running(listen.replace("listen", "listen --port 9000")) as endpoint:
            await until(endpoint, "listening")
            said = await reader.run(port + three)
            secret, event = re.findall(r"whsec_\S+|evt_\w+", said)
            arrived = await until(endpoint, event)
            assert "sequence 1, attempt 1" in arrived
            assert '"data":{"total": 54.70}' in await until(endpoint, "data")
        tenant, lookup, outcome, *_ = find.splitlines()
        assert event in await reader.run(f"{port}{tenant}\n{lookup}")
        told = await settled(reader, f"{port}{tenant}\n{outcome.replace('<event id>', event)}", "succeeded")
        assert "succeeded" in told
    assert secret.startswith("whsec_")


@pytest.mark.parametrize("with_secret", [True, False])
async def test_the_greetings_commands_work_as_printed(tmp_path: Path, with_secret: bool) -> None:
    """Whatever the port and the folder."""
    reader = Reader(tmp_path)
    serve = f"HOOKLINE_ALLOW_NETWORKS=127.0.0.0/8 hookline serve --port {reader.ports['8480']} --data-dir 'my data'"
    async with reader.running(serve) as server:
        await until(server, "Three commands")
        commands: list[str] = []
        assert server.stdout
        while "publish" not in "".join(commands):
            line = (await server.stdout.readline()).decode()
            commands.append(line.replace(f"{sys.executable} -m hookline", "hookline"))
        *before, subscribe, publish = commands
        said = await reader.run("".join([*before, subscribe]))
        (secret,) = re.findall(r"whsec_\S+", said)
        given = f"--secret {secret}" if with_secret else ""
        async with reader.running(f"hookline listen --port 9000 --json {given}") as endpoint:
            await until(endpoint, "listening")
            exports = "".join(line for line in before if "export" in line)
            event = (await reader.run(exports + publish)).strip()
            shown = json.loads(await until(endpoint, event))
    assert shown["signature"] == ("verified" if with_secret else "not checked")
    assert shown["answer"] == 200
    assert shown["sequence"] == "1"
