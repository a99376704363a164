"""Sending: one event or a batch, repeated under the same ids until the server has said yes or no."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from itertools import islice

from hookline.client.answers import Again, Result, batch_results, one_result, pause_before
from hookline.client.errors import Refused, Unavailable
from hookline.client.events import Event, Published
from hookline.client.http import Endpoint

BATCH_EVENTS = 500
BATCH_BYTES = 4 << 20
"""Of one request. A server's own limits are 1,000 and 16 MiB, unless it is set up otherwise."""
BLAME = (400, 413, 422)
"""Refusals of a whole batch for which one of its events may be to blame."""
EVENTS = "/v1/events"
BATCH = "/v1/events/batch"


class Sender:
    """Sends what it is given, from any thread."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def send(self, event: Event, patience: float, stop: threading.Event, waited: float = 0.0) -> Published:
        """Return once the event is stored. Raises ``Refused``, or ``Unavailable`` after ``patience`` seconds, of which
        ``waited`` are over, or when ``stop`` is set."""
        if waited >= patience > 0:
            raise Unavailable(f"too much was under way for {patience:g} s", [event])
        deadline, tries = time.monotonic() + patience - waited, 0
        while True:
            result = self._try_one(event)
            if isinstance(result, Published):
                return result
            if isinstance(result, Refused):
                raise result
            tries += 1
            pause = pause_before(tries, result.pause)
            if time.monotonic() + pause > deadline or stop.wait(pause):
                raise Unavailable(f"{result}; tried {tries} times", [event]) from result

    def send_all(
        self, events: Sequence[Event], patience: float, stop: threading.Event
    ) -> list[Published | Refused]:
        """The result for each event. Raises ``Unavailable`` with those it is not known of, once none was answered for
        ``patience`` seconds, and ``Refused`` if it is not the events' fault."""
        results: dict[int, Published | Refused] = {}
        left = deque(range(len(events)))
        deadline, tries = time.monotonic() + patience, 0
        while left:
            part = cut([events[index] for index in islice(left, BATCH_EVENTS)])
            again: list[tuple[int, Again]] = []
            for result in self.try_batch(part):
                index = left.popleft()
                if isinstance(result, Again):
                    again.append((index, result))
                else:
                    results[index] = result
            left.extendleft(index for index, _ in reversed(again))
            if len(again) < len(part):
                deadline, tries = time.monotonic() + patience, 0
            if again:
                tries += 1
                pause = pause_before(tries, max(one.pause for _, one in again))
                if time.monotonic() + pause > deadline or stop.wait(pause):
                    raise Unavailable(
                        f"{again[0][1]}; tried {tries} times", [events[index] for index in left]
                    )
        return [results[index] for index in range(len(events))]

    def try_batch(self, events: Sequence[Event]) -> list[Result]:
        """The result of each event after one try. Raises ``Refused`` if it is not the events' fault: the key, the URL.

        A batch that is refused as a whole (too large for something on the way) is tried in halves, so that in the
        end only the event that is to blame is refused.
        """
        body = b"\n".join(event.body for event in events)
        try:
            return batch_results(self._endpoint.post(BATCH, body, "application/x-ndjson"), events)
        except Unavailable as error:
            return [Again(str(error))] * len(events)
        except Again as error:
            return [error] * len(events)
        except Refused as error:
            if error.status not in BLAME:
                raise
            if len(events) == 1:
                return [Refused(error.status, error.code, error.detail, error.faults, events[0])]
            middle = len(events) // 2
            return [*self.try_batch(events[:middle]), *self.try_batch(events[middle:])]

    def _try_one(self, event: Event) -> Result:
        try:
            return one_result(self._endpoint.post(EVENTS, event.body, "application/json"), event)
        except Unavailable as error:
            return Again(str(error))


def cut(events: Sequence[Event]) -> Sequence[Event]:
    """As many of the first events as one request may carry; at least one."""
    size = 0
    for count, event in enumerate(events[:BATCH_EVENTS]):
        size += len(event.body) + 1
        if size > BATCH_BYTES and count:
            return events[:count]
    return events[:BATCH_EVENTS]
