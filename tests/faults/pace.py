"""A clock for promises like «within a second» that stands still while the machine does."""

from __future__ import annotations

import bisect
import threading
import time
from http.client import HTTPConnection, HTTPException
from types import TracebackType
from typing import Self

# One beat: a pause, and a request to the gateway's /healthz. What a beat takes beyond the second number is
# the machine's fault: where it stalls or has too much to do, it delays the beat just as it delays the case.
PAUSE = 0.05
BEAT = 0.1
# No stall excuses more than this: then it is the gateway that stands still.
LONGEST = 15.0


class Pace:
    """Beats in a thread of its own; `seconds` is the time between two moments on its clock."""

    def __init__(self, port: int) -> None:
        self._port = port
        # Real times of the beats, and what the clock said then.
        self._real = [time.monotonic()]
        self._shown = [0.0]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="pace", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(LONGEST)

    def seconds(self, start: float, end: float) -> float:
        """Between two readings of time.monotonic(), without the time in which the machine stood still."""
        deadline = time.monotonic() + LONGEST
        while self._real[-1] < end and time.monotonic() < deadline:
            time.sleep(PAUSE / 5)
        return min(self._at(end) - self._at(start), end - start)

    def _at(self, moment: float) -> float:
        after = bisect.bisect_left(self._real, moment)
        if after == 0:
            return self._shown[0]
        before = after - 1
        if after >= len(self._shown):
            return self._shown[before] + moment - self._real[before]
        share = (moment - self._real[before]) / (self._real[after] - self._real[before])
        return self._shown[before] + share * (self._shown[after] - self._shown[before])

    def _beat(self) -> None:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=LONGEST)
        while not self._ended.wait(PAUSE):
            try:
                connection.request("GET", "/healthz")
                connection.getresponse().read()
            except (OSError, HTTPException):
                connection.close()
                continue
            now = time.monotonic()
            # The second list first: whoever looks at the first one finds its partner.
            self._shown.append(self._shown[-1] + min(now - self._real[-1], BEAT))
            self._real.append(now)
        connection.close()
