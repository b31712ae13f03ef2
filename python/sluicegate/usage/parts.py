"""Limits and usage of one worker, put together: the shared file, the journal, the records."""

import asyncio
import os
import sqlite3
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sluicegate import engine as core
from sluicegate.clock import wall_ns
from sluicegate.telemetry.logs import Log
from sluicegate.usage.day_files import DayFiles
from sluicegate.usage.keep import Keeper
from sluicegate.usage.model import Filter, Record
from sluicegate.usage.move import Mover
from sluicegate.usage.recorder import Recorder

if TYPE_CHECKING:
    from sluicegate.storage.location import Location


class Whose(NamedTuple):
    """The field of a record, and its value."""

    subject: str
    id: str


class State(NamedTuple):
    """What the metrics show of it."""

    waiting: int
    lost: int
    moved: int
    moves_failed: int
    moved_at_ms: int
    limits_shared: bool
    limits_alone: int


class Usage:
    """What a worker counts and writes down; `location`: None where no records are kept."""

    def __init__(self, location: "Location | None", workers: int, log: Log, *, strict: bool = False) -> None:
        self._log = log
        self._location = location
        self._is_shared = location is not None or workers > 1
        self.limits = open_limits(limits_file(location, workers), workers, log)
        self.recorder: Recorder | None = None
        self._journal: core.Journal | None = None
        self._files: DayFiles | None = None
        mover = None
        if location is not None:
            location.make_data_dir()
            self._journal = core.Journal(location.journal_dir, f"worker-{os.getpid()}-{os.urandom(4).hex()}")
            self.recorder = Recorder(self._journal, strict=strict)
            self._files = DayFiles(location.usage_dir)
            mover = Mover(location.journal_dir, self._files, self._interrupted)
        self._keeper = Keeper(self.limits, mover, self._flush, log)

    def start(self) -> None:
        """Begin the background work."""
        self._keeper.start()

    async def stop(self) -> None:
        """Write what waits."""
        if self.recorder is not None:
            self.recorder.stop()
            self.recorder.note_open()
        await self._keeper.stop()

    def state(self) -> State:
        """As it is now."""
        journal, keeper = self._journal, self._keeper
        return State(
            0 if journal is None else journal.waiting,
            0 if journal is None else journal.lost,
            keeper.moved,
            keeper.failed,
            keeper.moved_at_ms,
            # One worker that keeps nothing needs no file.
            self.limits.is_shared or not self._is_shared,
            self.limits.counted_alone,
        )

    def seed(self, rules: core.LimitRules, subject: str, id: str, kinds: list[str]) -> None:
        """Tell budgets that were just made what was spent before. In a thread: it reads the records."""
        unknown = [kind for kind in kinds if (self.limits.account(rules, kind) or (0, 0, True))[2] is False]
        if unknown and self._files is not None:
            loop = asyncio.get_running_loop()
            loop.run_in_executor(None, self._seed, self._files, rules, Whose(subject, id), unknown)

    def _seed(self, files: DayFiles, rules: core.LimitRules, whose: "Whose", kinds: list[str]) -> None:
        now = wall_ns() // 1_000_000
        for kind in kinds:
            since = period_start(kind, now)
            if whose.subject == "workspace":
                wanted = Filter(since=since, workspace=whose.id)
            else:
                wanted = Filter(since=since, key=whose.id)
            try:
                hours = files.hours(wanted)
            except sqlite3.Error as error:
                self._log.warning("budget_not_read", cause=type(error).__name__)
                return
            if kind.startswith("usd"):
                spent = sum(hour.micros for hour in hours)
            else:
                spent = sum(hour.prompt_tokens + hour.completion_tokens for hour in hours)
            self.limits.seed(rules, kind, spent)

    def _flush(self) -> bool:
        return self._journal is None or self._journal.flush()

    def _interrupted(self, opened: Record, closed: Record) -> None:
        self._log.warning("request_interrupted", request_id=opened.id, key=opened.key, micros=closed.micros)


def period_start(kind: str, now_ms: int) -> int:
    """When the period of a budget began: the same calendar as the core's."""
    day = datetime.fromtimestamp(now_ms / 1000, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if kind.endswith("_week"):
        day -= timedelta(days=day.weekday())
    elif kind.endswith("_month"):
        day = day.replace(day=1)
    elif kind.endswith("_total"):
        return 0
    return int(day.timestamp() * 1000)


def limits_file(location: "Location | None", workers: int) -> Path | None:
    """Where the workers count together; None for one worker that keeps nothing: it needs no file."""
    if location is not None:
        return location.limits_file
    if workers == 1:
        return None
    # Of the main process, so that all of its workers and nobody else have the same one.
    return Path(tempfile.gettempdir()) / f"sluicegate-{os.getuid()}-{os.getppid()}" / "limits-1.map"


def open_limits(path: Path | None, workers: int, log: Log) -> core.Limits:
    """The machine's limits; where there can be no file, one share of `workers`, which is said aloud."""
    if path is None:
        return core.Limits(None, workers)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.parent.stat().st_uid != os.getuid():
            raise PermissionError(None, "the folder belongs to somebody else")
        return core.Limits(path)
    except OSError as error:
        log.warning(
            "limits_not_shared",
            cause=error.strerror or type(error).__name__,
            message=f"{path} cannot be used: each worker counts one share of {workers} of every limit.",
        )
        return core.Limits(None, workers)
