"""Says on stderr what is being measured, which of how many, and how long it will still take."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field


def to_stderr(line: str) -> None:
    """Unbuffered: somebody is waiting for it."""
    print(line, file=sys.stderr, flush=True)


@dataclass
class Progress:
    """A plan of `runs` that take `seconds` as planned; what they really take corrects the forecast."""

    suite: str
    runs: int
    seconds: float
    write: Callable[[str], None] = to_stderr
    now: Callable[[], float] = time.monotonic
    _done: int = field(default=0, init=False)
    _done_seconds: float = field(default=0.0, init=False)
    _current: float = field(default=0.0, init=False)
    _began: float | None = field(default=None, init=False)

    def step(self, what: str, seconds: float) -> None:
        """The next run begins; it should take so long."""
        now = self.now()
        if self._began is None:
            self._began = now
        self._done_seconds += self._current
        self._current = seconds
        # Starting processes takes time that no plan knows.
        slower = max((now - self._began) / self._done_seconds, 1.0) if self._done_seconds else 1.0
        left = max(self.seconds - self._done_seconds, seconds) * slower
        self._done += 1
        self.write(f"{self.suite} {self._done} of {self.runs}: {what} (about {clock(left)} left)")


def clock(seconds: float) -> str:
    """Minutes and seconds: 4:05."""
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02}"
