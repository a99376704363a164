"""Between milliseconds since the epoch and RFC 3339 text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache

from hookline.core.model import Millis

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_END = datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
"""An offset can lead beyond it, to a time that RFC 3339 has no text for."""
_MILLISECOND = timedelta(milliseconds=1)


def rfc3339(time: Millis) -> str:
    """``2026-03-01T09:30:00.250Z``; always UTC with three decimals."""
    return f"{_second(time // 1000)}.{time % 1000:03d}Z"


@lru_cache(maxsize=1024)
def _second(seconds: int) -> str:
    """Events come in time order, so the same second is written many times in a row."""
    return (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")


def parse_rfc3339(text: str) -> Millis:
    """The time as milliseconds; a date alone is its midnight in UTC, a time without offset is UTC.

    Raises ``ValueError`` for anything that is no time, lies before 1970 or, in UTC, after the year 9999.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    time = (moment - _EPOCH) // _MILLISECOND
    if time < 0:
        raise ValueError("lies before 1970")
    if moment > _END:
        raise ValueError("lies after the year 9999")
    return time
