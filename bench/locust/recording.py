"""What a locust scenario keeps: exact times after a warm-up, written as one JSON file at the end.

Locust's own table rounds to milliseconds, which is more than the gateway adds to a request.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import locust

# Locust gives its event hooks no types.
EVENTS: Any = locust.events
WARMUP_SECONDS = 1.0
HEADERS = {"authorization": f"Bearer {os.environ.get('BENCH_KEY', '')}"}
PROMPT = "The quick brown fox jumps over the lazy dog. " * 4


class Record:
    """Times in milliseconds by name, and failures."""

    def __init__(self) -> None:
        self.begin = time.monotonic()
        self.times: dict[str, list[float]] = {}
        self.failures: dict[str, int] = {}

    def add(self, name: str, milliseconds: float) -> None:
        """One time, unless it is still the warm-up."""
        if time.monotonic() - self.begin >= WARMUP_SECONDS:
            self.times.setdefault(name, []).append(milliseconds)

    def fail(self, what: str) -> None:
        """One failure, whenever it happens."""
        self.failures[what] = self.failures.get(what, 0) + 1

    def figures(self) -> dict[str, float]:
        """Microseconds, and rates a second."""
        seconds = max(time.monotonic() - self.begin - WARMUP_SECONDS, 0.001)
        found = {}
        for name, times in self.times.items():
            times.sort()
            for share in (50, 99):
                value = times[round((len(times) - 1) * share / 100)]
                found[f"{name}_p{share}_us"] = round(value * 1000, 1)
        found["requests_per_s"] = round(len(self.times.get("latency", [])) / seconds, 1)
        return found


RECORD = Record()


def begin(**_: Any) -> None:
    RECORD.begin = time.monotonic()


def request(name: str, response_time: float, exception: BaseException | None, **_: Any) -> None:
    if exception is None:
        RECORD.add(name, response_time)
    else:
        RECORD.fail(f"{type(exception).__name__}: {exception}"[:120])


def end(**_: Any) -> None:
    written = {"figures": RECORD.figures(), "errors": RECORD.failures}
    Path(os.environ["BENCH_RECORD"]).write_text(json.dumps(written))


EVENTS.test_start.add_listener(begin)
EVENTS.request.add_listener(request)
EVENTS.test_stop.add_listener(end)
