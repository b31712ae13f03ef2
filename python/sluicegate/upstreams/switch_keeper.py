"""Keeps what one worker has seen of thinking switches, for the others and for people to read."""

import asyncio
from typing import TYPE_CHECKING

from sluicegate.storage.errors import StorageError
from sluicegate.upstreams.model import Upstream
from sluicegate.upstreams.thinking import LearnedSwitch

if TYPE_CHECKING:
    from sluicegate.storage.database import Database

# News is rare; where it is not, the database is slow, and what is dropped is seen again after a restart.
_MOST_WAITING = 100


class SwitchKeeper:
    """Writes in the background. Of an upstream of the settings file each worker remembers for itself."""

    def __init__(self) -> None:
        # None until it has answered.
        self.database: Database | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def save(self, upstream: Upstream, learned: LearnedSwitch) -> None:
        """Returns at once."""
        if self.database is None or upstream.stored is None or len(self._tasks) >= _MOST_WAITING:
            return
        task = asyncio.create_task(self._write(self.database, *upstream.stored, learned))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """What is being written is written, unless the database says nothing."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=3)
        for task in self._tasks:
            task.cancel()

    async def _write(self, database: "Database", upstream: str, owner: str, learned: LearnedSwitch) -> None:
        # Only where there is a database: importing the stores takes half a second.
        from sluicegate.storage.transaction import SYSTEM  # noqa: PLC0415
        from sluicegate.upstreams.discovery_store import note_switch  # noqa: PLC0415

        try:
            # No configuration, so no audit; but what workers have in memory is out of date.
            async with database.change(SYSTEM) as change:
                await note_switch(change, upstream, learned)
                change.touch(owner)
        except StorageError:
            # It is seen again.
            return
