"""The pulse of one worker: how late its loop is, what it has open, and how what it depends on is doing."""

import asyncio
import os
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sluicegate.clock import monotonic
from sluicegate.engine import Metrics
from sluicegate.telemetry.logs import Log
from sluicegate.telemetry.run_folder import touch_run_folder
from sluicegate.upstreams.model import Upstream
from sluicegate.usage.parts import Usage
from sluicegate.usage.settle import Ledger

if TYPE_CHECKING:
    from sluicegate.records import Records

# The loop is looked at so often; everything else every fourth time.
BEAT_SECONDS = 0.25
_BEATS = 4
# Counting files takes a microsecond for each.
_FILES_SECONDS = 15.0
_OPENING_SECONDS = 5.0
_PAGE = resource.getpagesize()
# In one worker; a thousand of them take a millisecond each second.
_MOST_UPSTREAMS = 1024


class Watched(NamedTuple):
    """What is looked at."""

    ledger: Ledger
    usage: Usage
    log: Log
    # None: the settings are all there is.
    records: "Callable[[], Records | None] | None"
    upstreams: Callable[[], Iterable[Upstream]]


class Vitals:
    """Runs from the start of a worker to its end."""

    def __init__(self, metrics: Metrics, watched: Watched) -> None:
        self._metrics = metrics
        self._watched = watched
        self._task: asyncio.Task[None] | None = None
        # What was counted when it was looked at last.
        self._seen: dict[str, int] = {}
        self._files_at = 0.0
        self._began = monotonic()
        self.draining = False

    def start(self) -> None:
        """Begin; returns at once."""
        self.look()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End, after one more look."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
            self.look()

    async def _run(self) -> None:
        beat = 0
        while True:
            due = monotonic() + BEAT_SECONDS
            await asyncio.sleep(BEAT_SECONDS)
            self._metrics.lag(max(int((monotonic() - due) * 1e6), 0))
            beat = (beat + 1) % _BEATS
            if beat == 0:
                try:
                    self._metrics.tick()
                    self.look()
                except Exception as error:  # noqa: BLE001 (a figure is missing; the gateway goes on)
                    self._watched.log.warning("vitals_not_read", cause=type(error).__name__)

    def look(self) -> None:
        """Publish everything as it is now."""
        watched, publish = self._watched, self._metrics.publish
        publish("open_requests", watched.ledger.open_requests)
        publish("open_streams", watched.ledger.open_streams)
        publish("resident_bytes", _resident_bytes())
        publish("cpu_us", time.process_time_ns() // 1000)
        publish("draining", int(self.draining))
        usage = watched.usage.state()
        publish("records_waiting", usage.waiting)
        publish("moved_at_ms", usage.moved_at_ms)
        publish("limits_not_shared", int(not usage.limits_shared))
        if watched.records is not None:
            records = watched.records()
            # At the start it has a moment to answer.
            late = monotonic() > self._began + _OPENING_SECONDS
            is_down = late if records is None else records.freshness.is_down
            publish("database_down", int(is_down))
        for name, value in (
            ("records_written", watched.ledger.recorded),
            ("records_lost", usage.lost),
            ("records_moved", usage.moved),
            ("moves_failed", usage.moves_failed),
            ("limits_alone", usage.limits_alone),
            ("log_lines_dropped", watched.log.lost),
        ):
            self._metrics.count(name, max(value - self._seen.get(name, 0), 0))
            self._seen[name] = value
        now = monotonic()
        self._metrics.publish_pools(_pools(watched.upstreams(), now))
        if now >= self._files_at:
            self._files_at = now + _FILES_SECONDS
            publish("open_files", _open_files())
            touch_run_folder(os.getppid())


def _pools(upstreams: Iterable[Upstream], now: float) -> list[tuple[str, int, int, bool]]:
    """By name: workspaces may have upstreams of one name."""
    idle: dict[str, int] = defaultdict(int)
    in_use: dict[str, int] = defaultdict(int)
    avoided: dict[str, bool] = defaultdict(bool)
    for _, upstream in zip(range(_MOST_UPSTREAMS), upstreams, strict=False):
        waiting, working = upstream.handle.connections()
        idle[upstream.name] += waiting
        in_use[upstream.name] += working
        avoided[upstream.name] |= upstream.health.is_open(now)
    return [(name, idle[name], in_use[name], avoided[name]) for name in idle]


def _resident_bytes() -> int:
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * _PAGE
    # The most it ever was, in kilobytes but on macOS.
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _open_files() -> int:
    for folder in ("/proc/self/fd", "/dev/fd"):
        with suppress(OSError):
            return len(os.listdir(folder))  # noqa: PTH208 (names only: there may be thousands)
    return 0
