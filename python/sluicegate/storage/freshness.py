"""What of the cached records is still right: one comparison a request, one query after a change.

A number in the shared file says that something changed; the database says in which workspaces. So a change
in one workspace costs the others nothing but that one query in each process.
"""

import asyncio
from typing import Any

from sqlalchemy import select

from sluicegate.clock import monotonic
from sluicegate.ids import PLATFORM
from sluicegate.storage import schema
from sluicegate.storage.database import Database
from sluicegate.storage.errors import UnavailableError

# While the database is down, what is known stays in force for so long; then nobody is let in.
GRACE_SECONDS = 60.0
# And it is asked again so often.
RETRY_SECONDS = 1.0
# A server that takes the connection and says nothing is down as well, after so long.
ANSWER_SECONDS = 3.0
# What is broken off at the end gives its connection back within a moment, unless the server is silent.
STOP_SECONDS = 1.0
# While it is down, nobody waits longer than this to learn whether it is back.
_PATIENCE_SECONDS = 0.2
_TOO_LONG = "The database has been down for too long; keys cannot be checked."
# Changed workspaces that are remembered one by one; beyond that everything is read anew.
_MOST_CHANGED = 10_000

# The workspace of what belongs to none, such as a key that nobody has: any change puts it in doubt.
ANY = ""


class Freshness:
    """The judge over the cached records of one process."""

    def __init__(self, database: Database, grace: float = GRACE_SECONDS) -> None:
        self._database = database
        self._grace = grace
        self._seen = -1
        self._row = -1
        # Counts the refreshes that found changes; an entry is stamped with the one before its query.
        self.epoch = 0
        self._floor = 0
        self._changed: dict[str, int] = {}
        self._failing_since: float | None = None
        # The number that could not be looked into, and until when it is not tried again.
        self._failed = -1
        self._retry_at = 0.0
        self._running: asyncio.Task[None] | None = None

    @property
    def is_current(self) -> bool:
        """Whether nothing has changed since the last `refresh`. On the path of every request."""
        generation = self._database.shared.generation
        if self._failing_since is None:
            return generation == self._seen
        return generation == self._failed and self._is_in_grace and monotonic() < self._retry_at

    @property
    def is_failing(self) -> bool:
        """The database did not answer the last time, and is not due to be asked again."""
        return self._failing_since is not None and monotonic() < self._retry_at

    @property
    def is_down(self) -> bool:
        """The database did not answer the last time."""
        return self._failing_since is not None

    def is_valid(self, workspace: str, stamp: int) -> bool:
        """Whether what was read of this workspace at `stamp` is unchanged, as of the last `refresh`."""
        if workspace == ANY:
            return stamp == self.epoch
        return stamp >= self._floor and stamp >= self._changed.get(workspace, 0)

    async def refresh(self) -> None:
        """Find out what has changed. Callers at the same time share one query.

        Raises UnavailableError when the database has been down for longer than the grace period.
        """
        if self._failing_since is not None and not self._is_in_grace and monotonic() < self._retry_at:
            raise UnavailableError(_TOO_LONG)
        if self._running is None:
            self._running = asyncio.create_task(self._refresh())
            self._running.add_done_callback(self._forget_task)
        running = self._running
        known = self._failing_since is not None and self._database.shared.generation == self._failed
        limit = _PATIENCE_SECONDS if known and self._is_in_grace else ANSWER_SECONDS
        done, _ = await asyncio.wait([running], timeout=limit)
        if done:
            # What it raised, too.
            return running.result()
        self.note_failure()
        if not self._is_in_grace:
            raise UnavailableError(_TOO_LONG)
        return None

    async def stop(self) -> None:
        """Break off the query that is under way."""
        running = self._running
        if running is not None:
            running.cancel()
            await asyncio.wait([running], timeout=STOP_SECONDS)

    def note_contact(self) -> None:
        """The database has answered."""
        self._failing_since = None

    def note_failure(self) -> None:
        """The database did not answer: what is known stays in force for the grace period."""
        now = monotonic()
        if self._failing_since is None:
            self._failing_since = now
        self._failed = self._database.shared.generation
        self._retry_at = now + RETRY_SECONDS

    @property
    def _is_in_grace(self) -> bool:
        return self._failing_since is None or monotonic() - self._failing_since < self._grace

    def _forget_task(self, task: "asyncio.Task[None]") -> None:
        self._running = None
        if not task.cancelled():
            task.exception()

    async def _refresh(self) -> None:
        # Read before the query: a change that is committed later has a later number.
        seen = self._database.shared.generation
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                row, changed = await self._query()
        except (UnavailableError, TimeoutError) as error:
            # What is missed now is found by the next one that succeeds: `_seen` stays behind.
            self.note_failure()
            if not self._is_in_grace:
                raise UnavailableError(_TOO_LONG) from error
            return
        self.note_contact()
        if row != self._row or changed:
            self._apply(row, changed)
        self._seen = seen

    async def _query(self) -> tuple[int, list[str]]:
        table = schema.workspaces
        async with self._database.read() as view:
            row: int = (await view.execute(select(schema.generation.c.value))).scalar_one()
            query: Any = select(table.c.id).where(table.c.generation > self._row).limit(_MOST_CHANGED + 1)
            return row, list((await view.execute(query)).scalars())

    def _apply(self, row: int, changed: list[str]) -> None:
        self.epoch += 1
        # A smaller number is a restored backup.
        everything = row < self._row or self._row < 0 or PLATFORM in changed
        if everything or len(changed) + len(self._changed) > _MOST_CHANGED:
            self._floor = self.epoch
            self._changed.clear()
        else:
            self._changed.update(dict.fromkeys(changed, self.epoch))
        self._row = row
