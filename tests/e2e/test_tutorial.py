"""docs/tutorial/first-delivery.md does what it says: its commands are run as they stand there."""

import asyncio
import json
import os
import re
import shlex
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from tests.support.ports import own_port

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "docs" / "tutorial" / "first-delivery.md"
PORT = re.compile(r"(127\.0\.0\.1:|127\.0\.0\.1\", |port )(8480|9000)\b")
"""The tutorial's ports where they are ports: the digits may stand in a key, an id or another port too."""
SECONDS = 60
"""For each step. A start of Python on a busy machine takes several."""

# A fresh Debian has no curl. Of the real one, the tutorial uses exactly this.
CURL = f"""#!{sys.executable}
import sys, urllib.request
headers, data, url, rest = {{}}, None, "", sys.argv[1:]
while rest:
    word = rest.pop(0)
    if word == "-H":
        name, _, value = rest.pop(0).partition(": ")
        headers[name] = value
    elif word == "--json":
        data = rest.pop(0).encode()
        headers["Content-Type"] = "application/json"
    elif word != "-s":
        url = word
with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=10) as answer:
    sys.stdout.write(answer.read().decode())
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TUTORIAL.read_text("utf-8"), re.MULTILINE | re.DOTALL)


class Reader:
    """A new user: a folder of their own, and free ports where the tutorial's may be taken."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = {"8480": str(own_port()), "9000": str(own_port())}
        (folder / "bin").mkdir()
        for name, text in {
            "curl": CURL,
            "python3": f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n',
            "hookline": f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m hookline "$@"\n',
        }.items():
            (folder / "bin" / name).write_text(text)
            (folder / "bin" / name).chmod(0o755)

    def put(self, text: str) -> str:
        """The tutorial's text for this machine: other ports, and the environment that is there already."""
        text = PORT.sub(lambda found: found[1] + self.ports[found[2]], text)
        text = text.replace("scripts/setup\n", "").replace(".venv/bin/python", "python3")
        return text.replace(".venv/bin/hookline serve", f"hookline serve --port {self.ports['8480']}")

    async def start(self, command: str, stdin: int = DEVNULL) -> Process:
        environment = {
            **os.environ,
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        return await asyncio.create_subprocess_exec(
            "bash", "-e", "-c", self.put(command), cwd=self.folder, env=environment,
            stdin=stdin, stdout=PIPE, stderr=STDOUT, process_group=0,
        )  # fmt: skip

    @asynccontextmanager
    async def running(self, command: str) -> AsyncGenerator[Process]:
        process = await self.start(command)
        try:
            yield process
        finally:
            os.killpg(process.pid, 15)
            await asyncio.wait_for(process.communicate(), SECONDS)

    async def run(self, command: str) -> str:
        process = await self.start(command)
        output, _ = await asyncio.wait_for(process.communicate(), SECONDS)
        assert process.returncode == 0, output.decode()
        return output.decode()


async def until(process: Process, text: str) -> str:
    """The first line of its output with ``text``."""
    assert process.stdout
    seen: list[str] = []
    with suppress(TimeoutError):
        async with asyncio.timeout(SECONDS):
            while line := (await process.stdout.readline()).decode():
                seen.append(line)
                if text in line:
                    return line
    raise AssertionError(f"{text!r} did not come: {''.join(seen)}")


async def test_a_new_user_gets_a_first_delivery(tmp_path: Path):
    reader = Reader(tmp_path)
    (program,) = blocks("python")
    (tmp_path / "receiver.py").write_text(reader.put(program))
    serve, tenant, key, subscribe, receive, publish, again, look = blocks("bash")
    async with reader.running(serve) as server:
        await until(server, "Hookline answers at")
        await reader.run(tenant + key + subscribe)
        known = "".join(block for block in (key, subscribe.partition("> subscription.json\n")[2]))
        async with reader.running(receive) as receiver:
            await until(receiver, "listening")
            assert json.loads(await reader.run(known + publish)) == {
                "id": "order-4471-created",
                "duplicate": False,
            }
            assert json.loads(await reader.run(known + again)) == {
                "id": "order-4471-created",
                "duplicate": True,
            }
            assert "order-4471-created: not in the mood" in await until(receiver, "order-4471")
            taken = await until(receiver, "verified")
            start, _, end = blocks("text")[0].splitlines()[1].partition("…")
            assert taken.startswith(start)
            assert taken.rstrip().endswith(end)
            found = json.loads(await settled(reader, known + look))
    (delivery,) = found["data"]
    assert (delivery["state"], delivery["attempts"], delivery["sequence"]) == ("succeeded", 2, 1)
    assert [attempt["status"] for attempt in delivery["attempt_log"]] == [500, 200]


async def settled(reader: Reader, command: str, word: str = '"succeeded"') -> str:
    """What the log says, once the outcome is in it: the receiver knows a moment earlier than the log."""
    output = ""
    with suppress(TimeoutError):
        async with asyncio.timeout(SECONDS):
            while word not in output:
                output = await reader.run(command)
    return output


def test_the_links_of_the_tutorial_lead_somewhere():
    links = re.findall(r"\]\((\.\./[^)#]+)", TUTORIAL.read_text("utf-8"))
    assert links
    assert [link for link in links if not (TUTORIAL.parent / link).exists()] == []
