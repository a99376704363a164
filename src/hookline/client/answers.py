"""What an answer means for an event: stored, refused, or to be sent again."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from typing import Any, cast

from hookline.client.errors import Fault, NotAllowed, Refused
from hookline.client.events import Event, Published
from hookline.client.http import Answer

FIRST_PAUSE = 0.25
LONGEST_PAUSE = 15.0
"""Seconds between tries: doubled from the first to the second, each shortened by up to a half at random."""
LONGEST_RETRY_AFTER = 120.0
AGAIN = (408, 425, 429)
NOT_ALLOWED = (401, 403)


class Again(Exception):
    """The same may be accepted later, after ``pause`` seconds at the earliest (0: the server does not say)."""

    def __init__(self, reason: str, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.pause = pause


Result = Published | Refused | Again


def pause_before(tries: int, asked: float = 0.0) -> float:
    """Seconds to wait before the next try, after ``tries`` of them; never less than the server asked for."""
    backoff = min(FIRST_PAUSE * 2 ** min(tries - 1, 16), LONGEST_PAUSE)
    return max(asked, backoff * random.uniform(0.5, 1.0))


def passes(status: int) -> bool:
    """Whether another try may end differently."""
    return status in AGAIN or status >= 500


def one_result(answer: Answer, event: Event) -> Result:
    """The answer to a single event."""
    document = _document(answer.body)
    if answer.status in range(200, 300):
        return _published(document, event)
    return _failed(answer.status, document, answer, event)


def batch_results(answer: Answer, events: Sequence[Event]) -> list[Result]:
    """The answer to each event of a batch. Raises ``Again`` or ``Refused`` if there is just one for all of them."""
    document = _document(answer.body)
    if answer.status not in range(200, 300):
        raise _failed(answer.status, document, answer, None)
    items = document.get("data")
    if not isinstance(items, list) or len(cast("list[Any]", items)) != len(events):
        raise Again("the answer has not one result for each event")
    pairs = zip(cast("list[Any]", items), events, strict=True)
    return [_item(item, event) for item, event in pairs]


def _item(item: Any, event: Event) -> Result:
    fields = _fields(item)
    status = fields.get("status")
    if status == 202:
        return _published(fields, event)
    number = status if isinstance(status, int) else 500
    return _failed(number, _fields(fields.get("error")), None, event)


def _published(fields: dict[str, Any], event: Event) -> Result:
    if fields.get("id") != event.id:
        return Again("the answer is not that of a Hookline server: it does not name the event")
    return Published(event.id, duplicate=fields.get("duplicate") is True)


def _failed(
    status: int, fields: dict[str, Any], answer: Answer | None, event: Event | None
) -> Refused | Again:
    detail = str(fields.get("detail") or _text(answer) or "no reason given")
    if passes(status):
        return Again(
            f"the server answers {status}: {detail}",
            retry_after("" if answer is None else answer.retry_after),
        )
    listed = fields.get("faults")
    faults = [_fault(one) for one in cast("list[Any]", listed)] if isinstance(listed, list) else []
    kind = NotAllowed if status in NOT_ALLOWED else Refused
    return kind(status, str(fields.get("code") or "unknown"), detail, faults, event)


def retry_after(text: str) -> float:
    """Seconds, from a number of them or from a date; 0 for nothing and nonsense."""
    try:
        seconds = (
            float(text) if text.strip().isdigit() else parsedate_to_datetime(text).timestamp() - time.time()
        )
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return min(max(0.0, seconds), LONGEST_RETRY_AFTER)


def _document(body: bytes) -> dict[str, Any]:
    try:
        return _fields(json.loads(body))
    except (ValueError, RecursionError):
        return {}


def _fields(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _fault(value: Any) -> Fault:
    fields = _fields(value)
    return Fault(str(fields.get("field", "")), str(fields.get("message", "")))


def _text(answer: Answer | None) -> str:
    """The beginning of an answer that is no problem document: that of a proxy, for the most part."""
    return "" if answer is None else " ".join(answer.body[:200].decode("utf-8", "replace").split())
