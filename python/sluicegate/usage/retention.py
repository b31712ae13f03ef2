"""What is too old is deleted: once an hour, by one process of a machine at a time."""

import asyncio
import fcntl
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from sluicegate.clock import wall_ns
from sluicegate.storage.errors import StorageError
from sluicegate.telemetry.logs import Log
from sluicegate.usage.logbook import Logbook
from sluicegate.usage.model import DAY_MS

# Not with the start: what a restart brings is enough.
FIRST_SECONDS = 60.0
EVERY_SECONDS = 3600.0


class Kept(Struct, frozen=True):
    """How long a workspace keeps what; `days` of its log, None: as long as everybody; 0: not at all."""

    workspace: str
    days: int | None
    body_days: int


# What each workspace says now. Raises StorageError.
Read = Callable[[], Awaitable[Sequence[Kept]]]


class Retention:
    """One worker's task. All workers have one; those that do not get the lock do nothing."""

    def __init__(self, logbook: Logbook, lock: Path, days: int, log: Log) -> None:
        """`days`: how long everybody's records are kept; 0: for ever."""
        self._logbook = logbook
        self._lock = lock
        self._days = days
        self._log = log
        self._task: asyncio.Task[None] | None = None

    def start(self, read: Read) -> None:
        """Begin, when the database is open; returns at once."""
        self._task = asyncio.get_running_loop().create_task(self._run(read))

    def stop(self) -> None:
        """End it; what a thread of it deletes is deleted."""
        if self._task is not None:
            self._task.cancel()

    async def sweep(self, read: Read, now_ms: int) -> bool:
        """Delete everything that is too old. False: another process does. Raises StorageError, OSError."""
        kept = await read()
        return await asyncio.to_thread(self._delete, kept, now_ms)

    def _delete(self, kept: Sequence[Kept], now_ms: int) -> bool:
        with _alone(self._lock) as is_alone:
            if not is_alone:
                return False
            days = self._logbook.delete_before(now_ms - self._days * DAY_MS) if self._days else 0
            records = sum(
                self._logbook.delete_of(one.workspace, now_ms - one.days * DAY_MS)
                for one in kept
                if one.days is not None and (not self._days or one.days < self._days)
            )
            # Of a workspace that is gone, or keeps none any more, all go.
            bodies = {one.workspace: now_ms - one.body_days * DAY_MS for one in kept if one.body_days}
            files = self._logbook.delete_bodies(bodies)
        if days or records or files:
            self._log.info("usage_deleted", days=days, records=records, bodies=files)
        return True

    async def _run(self, read: Read) -> None:
        await asyncio.sleep(FIRST_SECONDS)
        while True:
            try:
                await self.sweep(read, wall_ns() // 1_000_000)
            except StorageError as error:
                self._log.warning("usage_not_deleted", message=str(error))
            except OSError as error:
                self._log.warning("usage_not_deleted", cause=error.strerror or type(error).__name__)
            await asyncio.sleep(EVERY_SECONDS)


@contextmanager
def _alone(path: Path) -> Iterator[bool]:
    """Whether nobody else of this machine holds the lock; held until the block ends."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(lock)
