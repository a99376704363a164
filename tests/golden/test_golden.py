"""Every request of the golden files is what is sent today; and what is sent is what each platform's pages say."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest

from hookline.profiles.catalogue import shipped
from tests.golden.requests import DATA, NOW, PLATFORMS, SECRET, SENT, all_requests, file_name

REQUESTS = dict(all_requests())
TYPES = [(profile, name) for profile in PLATFORMS for name in shipped(profile)]
each_type = pytest.mark.parametrize(("profile", "name"), TYPES, ids=[f"{p}-{n}" for p, n in TYPES])


def test_there_is_a_file_for_each_request_and_no_other():
    assert set(DATA.rglob("*.http")) == set(REQUESTS)
    assert len(TYPES) >= 20 + 6 + 24 + 27 + 1 + 19


@pytest.mark.parametrize("path", REQUESTS, ids=[str(path.relative_to(DATA)) for path in REQUESTS])
def test_what_is_sent_is_what_the_file_says(path: Path):
    assert REQUESTS[path] == path.read_bytes()


# --- the files themselves, read as the platforms' pages say ---------------------------------------------


def golden(profile: str, name: str) -> tuple[dict[str, str], bytes]:
    head, _, body = (DATA / profile / f"{file_name(name)}.http").read_bytes().partition(b"\n\n")
    lines = head.decode().splitlines()[1:]
    return dict(line.split(": ", 1) for line in lines), body


def example(profile: str, name: str) -> Any:
    return json.loads(shipped(profile)[name].example or b"")


def mac(message: bytes) -> bytes:
    return hmac.new(SECRET.encode(), message, hashlib.sha256).digest()


@each_type
def test_each_type_has_its_platforms_form(profile: str, name: str):
    headers, body = golden(profile, name)
    CHECKS[profile](name, headers, body)
    assert headers["Content-Type"] == "application/json"
    assert (headers["hookline-sequence"], headers["hookline-attempt"]) == ("41", "2")


def avvyr(name: str, headers: dict[str, str], body: bytes) -> None:
    sent = json.loads(body)
    assert sent["data"] == example("avvyr", name)
    assert list(sent["_meta"]) == ["eventType", "entityType", "tenantId", "messageId", "timestamp"]
    assert sent["_meta"]["eventType"] == headers["X-Webhook-Event"] == name
    assert sent["_meta"]["timestamp"] == "2026-01-01T10:00:00.250Z"
    assert name.startswith(sent["_meta"]["entityType"])
    assert headers["X-Webhook-Signature"] == f"sha256={mac(body).hex()}"


def evolutionx(name: str, headers: dict[str, str], body: bytes) -> None:
    sent, given = json.loads(body), example("evolutionx", name)
    assert (sent["event_type"], sent["event_time"]) == (name, NOW // 1000)
    assert (sent["source_user_type"], sent["source_user_id"]) == ("storefront", "1000")
    assert sent["event_data"] == given["event_data"]
    assert sent["data"] == given.get("object", {"type": sent["object_type"], "id": "1000"})
    assert headers["EVOX-TIME"] == str(SENT // 1000)
    assert headers["EVOX-SIGNATURE"] == mac(f"{SENT // 1000}.".encode() + body).hex()


def shipstream(name: str, headers: dict[str, str], body: bytes) -> None:
    assert json.loads(body) == {
        "topic": name,
        "message": {"webhook_increment_id": 41, **example("shipstream", name)},
    }
    assert headers["X-Plugin-Hmac-Sha256"] == base64.b64encode(mac(body)).decode()


def frontsystems(name: str, headers: dict[str, str], body: bytes) -> None:
    assert body == shipped("frontsystems")[name].example
    assert headers["X-Webhook-Event-Id"] == golden("frontsystems", "SaleCreated")[0]["X-Webhook-Event-Id"]
    assert not any("signature" in header.lower() for header in headers)


CHECKS = {"avvyr": avvyr, "evolutionx": evolutionx, "shipstream": shipstream, "frontsystems": frontsystems}
