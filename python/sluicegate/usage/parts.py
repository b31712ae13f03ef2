"""Limits and usage of one worker, put together: the shared file, the journal, the records."""

import asyncio
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from sluicegate import engine as core
from sluicegate.clock import wall_ns
from sluicegate.limits.admit import Scope
from sluicegate.limits.counted import spent_key
from sluicegate.limits.model import BUDGETS, Subject
from sluicegate.storage.errors import StorageError
from sluicegate.telemetry.logs import Log
from sluicegate.usage.bodies import Bodies
from sluicegate.usage.keep import Keeper
from sluicegate.usage.logbook import Logbook, open_logbook
from sluicegate.usage.model import Filter, Record, id_bytes, time_of
from sluicegate.usage.move import Mover
from sluicegate.usage.recorder import Recorder
from sluicegate.usage.retention import Read, Retention

if TYPE_CHECKING:
    from sluicegate.storage.location import Location


class Sharing(Protocol):
    """Where several machines count; `limits.shared.SharedLimits` is one."""

    @property
    def is_shared(self) -> bool:
        """Whether they count together at the moment."""

    @property
    def counted_alone(self) -> int:
        """How often a request was decided by the share of this process."""

    def seed(self, scope: Scope, kind: str, spent: int) -> None:
        """What was spent of a budget, by the records."""

    def correct(self, key: str, every: str, difference: int, opened_us: int) -> None:
        """A request of a dead process has used so much more than it had reserved."""


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

    def __init__(
        self,
        location: "Location | None",
        workers: int,
        log: Log,
        *,
        days: int = 0,
        strict: bool = False,
    ) -> None:
        """`days`: how long records are kept; 0: for ever."""
        self._log = log
        self._location = location
        self._is_shared = location is not None or workers > 1
        limits = limits_file(location, workers)
        self.limits = open_limits(limits, workers, log)
        # How certain answers were is kept beside the limits.
        self.ranks_file = None if limits is None else limits.with_name("ranks-1.map")
        # None: this machine counts for itself.
        self.sharing: Sharing | None = None
        self.recorder: Recorder | None = None
        self.bodies: Bodies | None = None
        self._retention: Retention | None = None
        self._journal: core.Journal | None = None
        self._logbook: Logbook | None = None
        mover = None
        if location is not None:
            location.make_data_dir()
            self._journal = core.Journal(location.journal_dir, f"worker-{os.getpid()}-{os.urandom(4).hex()}")
            self.recorder = Recorder(self._journal, strict=strict)
            self._logbook = open_logbook(location)
            self.bodies = Bodies(self._logbook.keep)
            self._retention = Retention(self._logbook, location.journal_dir / "retention.lock", days, log)
            mover = Mover(location.journal_dir, self._logbook, self._interrupted)
        self._keeper = Keeper(self.limits, mover, self._flush, log, self.bodies)

    @property
    def logbook(self) -> Logbook | None:
        """The log of requests; None where none is kept."""
        return self._logbook

    def start(self) -> None:
        """Begin the background work."""
        self._keeper.start()

    def retain(self, read: Read) -> None:
        """Begin to delete what is too old; `read`: what each workspace says of it."""
        if self._retention is not None:
            self._retention.start(read)

    async def stop(self) -> None:
        """Write what waits."""
        if self._retention is not None:
            self._retention.stop()
        if self.recorder is not None:
            self.recorder.stop()
            self.recorder.note_open()
        await self._keeper.stop()
        if self._logbook is not None:
            self._logbook.close()

    @property
    def source(self) -> str:
        """Names the records that budgets are read from, also after the machine has got another name."""
        if self._logbook is None or self._location is None:
            return ""
        if self._location.database_url is not None:
            # All machines have the same records.
            return "database"
        file = self._location.data_dir / "usage-source"
        made = file.with_name(f"{file.name}-{os.urandom(8).hex()}")
        try:
            if not file.exists():
                # Whole or not at all, and that of whoever comes first.
                made.write_text(os.urandom(8).hex())
                with suppress(FileExistsError):
                    file.hardlink_to(made)
                made.unlink()
            return file.read_text()
        except OSError:
            return ""

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
            self.counts_together or (self.sharing is None and not self._is_shared),
            self.counted_alone,
        )

    def seed(self, scope: Scope, kinds: list[str]) -> None:
        """Tell budgets that were just made what was spent before. In a thread: it reads the records."""
        loop, sharing = asyncio.get_running_loop(), self.sharing

        def tell(kind: str, spent: int) -> None:
            if sharing is None:
                self.limits.seed(scope.rules, kind, spent)
            else:
                loop.call_soon_threadsafe(sharing.seed, scope, kind, spent)

        if sharing is None:
            account = self.limits.account
            kinds = [kind for kind in kinds if (account(scope.rules, kind) or (0, 0, True))[2] is False]
        if kinds and self._logbook is not None:
            loop.run_in_executor(None, self._read_spent, self._logbook, scope, kinds, tell)

    def _read_spent(
        self, logbook: Logbook, scope: Scope, kinds: list[str], tell: Callable[[str, int], None]
    ) -> None:
        now = wall_ns() // 1_000_000
        for kind in kinds:
            since = period_start(kind, now)
            if scope.subject == "workspace":
                wanted = Filter(since=since, workspace=scope.id)
            else:
                wanted = Filter(since=since, key=scope.id)
            try:
                hours = logbook.hours(wanted)
            except StorageError as error:
                self._log.warning("budget_not_read", cause=type(error).__name__)
                return
            if kind.startswith("usd"):
                spent = sum(hour.micros for hour in hours)
            else:
                spent = sum(hour.prompt_tokens + hour.completion_tokens for hour in hours)
            tell(kind, spent)

    @property
    def counts_together(self) -> bool:
        """Whether this process counts with the others at the moment: of the machine, or of all machines."""
        return self.limits.is_shared if self.sharing is None else self.sharing.is_shared

    @property
    def counted_alone(self) -> int:
        """How often limits were counted in this process alone, by its share."""
        alone = self.limits.counted_alone
        return alone if self.sharing is None else alone + self.sharing.counted_alone

    def _flush(self) -> bool:
        return self._journal is None or self._journal.flush()

    def _interrupted(self, opened: Record, closed: Record) -> None:
        """A process died during a request: budgets were charged what it had reserved. In a thread."""
        self._log.warning("request_interrupted", request_id=opened.id, key=opened.key, micros=closed.micros)
        charged = opened.reserved_tokens, opened.reserved_micros
        actual = closed.prompt_tokens + closed.completion_tokens, closed.micros
        at = time_of(id_bytes(opened.id))
        if self.sharing is None and at > _started_ms():
            # The charge comes first, whoever has found the process dead.
            self.limits.tick()
        owners: list[tuple[Subject, str]] = [("workspace", opened.workspace), ("key", opened.key)]
        for subject, id in owners:
            for kind in BUDGETS:
                unit = 1 if kind.startswith("usd") else 0
                if self.sharing is not None:
                    key, every = spent_key(subject, id, kind), kind.rpartition("_")[2]
                    self.sharing.correct(key, every, actual[unit] - charged[unit], at * 1000)
                elif at > _started_ms():
                    self._correct(
                        core.LimitRules(f"{subject}:{id}", [(kind, 1, None)]), kind, at, (charged, actual)
                    )

    def _correct(
        self, rules: core.LimitRules, kind: str, at: int, what: tuple[tuple[int, int], tuple[int, int]]
    ) -> None:
        """One budget of this machine, if there is one that was charged so much."""
        charged, actual = what
        account = self.limits.account(rules, kind)
        if account is not None and account[0] >= max(charged[1 if kind.startswith("usd") else 0], 1):
            self.limits.correct(rules, at, charged, actual)


def _started_ms() -> int:
    """When the machine started: the file of the limits is not older, and has no charge from before."""
    return (wall_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)) // 1_000_000


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
