"""Dead letters: what cannot be accepted, as it came, with the reason in its headers."""

from __future__ import annotations

import json
from collections.abc import Mapping

import msgspec
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.errors import NoStreamResponseError

from hookline.core.errors import HooklineError
from hookline.sources.nats.messages import MESSAGE_ID, Place, place_of
from hookline.sources.nats.options import NatsOptions
from hookline.sources.nats.streams import prepare_dead

CODE = "Hookline-Code"
DETAIL = "Hookline-Detail"
FAULTS = "Hookline-Faults"
SUBJECT = "Hookline-Subject"
STREAM = "Hookline-Stream"
SEQUENCE = "Hookline-Sequence"
ORIGINAL_ID = "Hookline-Message-Id"
TRUNCATED = "Hookline-Truncated"

DETAIL_LETTERS = 1000
FAULTS_BYTES = 8192
MOST_FAULTS = 50
PUBLISH_SECONDS = 10.0
_OVERHEAD = 64
"""Bytes of a header block beside names and values, rounded up."""


class DeadLetters:
    """Writes dead letters. The same message is written once, even if its answer got lost."""

    def __init__(self, js: JetStreamContext, options: NatsOptions, max_payload: int) -> None:
        self._js = js
        self._options = options
        self._max_payload = max_payload

    async def write(self, msg: Msg, error: HooklineError) -> None:
        """Return once the stream has it, which is made again if it was removed. Raises ``nats.errors.Error`` if it has
        not, ``SettingsInvalid`` if it cannot be made."""
        place = place_of(msg)
        headers = _headers(msg, place, error)
        room = self._max_payload - _size(headers)
        if room < len(msg.data):
            headers.pop(FAULTS, None)
            room = self._max_payload - _size(headers)
        if room < len(msg.data):
            headers[TRUNCATED] = str(len(msg.data))
            room = self._max_payload - _size(headers)
        payload = msg.data[: max(0, room)] if room < len(msg.data) else msg.data
        try:
            await self._publish(self._tenant(msg), payload, headers)
        except NoStreamResponseError:
            await prepare_dead(self._js, self._options)
            await self._publish(self._tenant(msg), payload, headers)

    async def _publish(self, tenant: str, payload: bytes, headers: dict[str, str]) -> None:
        await self._js.publish(
            f"{self._options.dead_subject}.{tenant}",
            payload,
            timeout=PUBLISH_SECONDS,
            stream=self._options.dead_stream,
            headers=headers,
        )

    def _tenant(self, msg: Msg) -> str:
        return msg.subject[len(self._options.subject) + 1 :].partition(".")[0]


def _headers(msg: Msg, place: Place, error: HooklineError) -> dict[str, str]:
    headers = {
        CODE: error.code,
        DETAIL: _ascii(error.detail, DETAIL_LETTERS),
        SUBJECT: msg.subject,
        STREAM: place.stream,
        SEQUENCE: str(place.sequence),
        MESSAGE_ID: f"{place.stream}/{place.sequence}/{place.stored_at}",
    }
    if error.faults:
        headers[FAULTS] = _faults(error)
    given = (msg.headers or {}).get(MESSAGE_ID)
    if given:
        headers[ORIGINAL_ID] = _ascii(given, DETAIL_LETTERS)
    return headers


def _faults(error: HooklineError) -> str:
    """A JSON array of ``{field, message}``, as many as fit."""
    listed = [msgspec.to_builtins(fault) for fault in error.faults[:MOST_FAULTS]]
    while len(text := json.dumps(listed)) > FAULTS_BYTES:
        listed.pop()
    return text


def _ascii(text: str, most: int) -> str:
    """One line of ASCII: what a header can carry through every client."""
    return " ".join(text[:most].split()).encode("ascii", "backslashreplace").decode()


def _size(headers: Mapping[str, str]) -> int:
    """More than what the server counts of the headers into the size of a message."""
    return _OVERHEAD + sum(len(name) + len(value) + 4 for name, value in headers.items())
