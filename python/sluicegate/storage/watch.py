"""The background work of a process with a database: hears of changes, and writes what may wait."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from sluicegate.clock import monotonic
from sluicegate.storage.database import CHANNEL, CONNECT_SECONDS, Database
from sluicegate.storage.errors import StorageError
from sluicegate.storage.freshness import ANSWER_SECONDS, STOP_SECONDS, Freshness

# The net below the shared file and LISTEN: changes made on other machines, or by a process that was killed
# between its commit and its word about it.
POLL_SECONDS = 0.5
# When keys were used is written so often: it is shown to the minute.
WRITE_SECONDS = 60.0
_RECONNECT_SECONDS = 1.0

Step = Callable[[], Awaitable[None]]


class Watcher:
    """Keeps `Freshness` informed. Start it in the worker's event loop."""

    def __init__(self, database: Database, freshness: Freshness, writes: Sequence[Step] = ()) -> None:
        """`writes` are run every minute and at the end; a StorageError of theirs is tried again later."""
        self._database = database
        self._freshness = freshness
        self._writes = tuple(writes)
        self._tasks: list[asyncio.Task[None]] = []
        # Under way, also those that nobody waits for any more: each has a connection.
        self._questions: set[asyncio.Task[int]] = set()

    def start(self) -> None:
        """Begin; returns at once."""
        self._tasks = [asyncio.create_task(self._poll()), asyncio.create_task(self._write())]
        if self._database.location.is_postgresql:
            self._tasks.append(asyncio.create_task(self._listen()))

    async def stop(self) -> None:
        """End the background work, and write what waits."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        await self._write_once()
        # What comes back to a pool after it was closed is closed by nobody.
        await self._freshness.stop()
        if self._questions:
            await asyncio.wait(self._questions, timeout=STOP_SECONDS)

    async def _poll(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(POLL_SECONDS)

    async def look(self) -> None:
        """Compare the database's generation with the last one seen, and the shared file with its path."""
        if not self._database.shared.is_current:
            with suppress(StorageError):
                self._database.reopen_shared()
        question = asyncio.create_task(self._database.row_generation())
        self._questions.add(question)
        question.add_done_callback(self._questions.discard)
        # To be read, whatever comes of it: nobody may be waiting any more.
        question.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            # Not `wait_for`: breaking off a question to a server that is silent takes as long again.
            await asyncio.wait([question], timeout=ANSWER_SECONDS)
        except asyncio.CancelledError:
            question.cancel()
            raise
        if not question.done():
            question.cancel()
            self._freshness.note_failure()
            return
        try:
            row = question.result()
        except StorageError:
            self._freshness.note_failure()
            return
        self._freshness.note_contact()
        self._database.shared.note(row)

    async def _write(self) -> None:
        due = monotonic() + WRITE_SECONDS
        while True:
            await asyncio.sleep(max(due - monotonic(), 0))
            due += WRITE_SECONDS
            await self._write_once()

    async def _write_once(self) -> None:
        for step in self._writes:
            with suppress(StorageError):
                await step()

    async def _listen(self) -> None:
        """PostgreSQL's own word, some milliseconds after the commit; polling covers its gaps."""
        import psycopg  # noqa: PLC0415 (only where it is the database)

        url = self._database.location.database_url
        assert url is not None  # noqa: S101 (`start` has looked)
        while True:
            with suppress(psycopg.Error, OSError):
                connection = await psycopg.AsyncConnection.connect(
                    url.reveal(), autocommit=True, connect_timeout=CONNECT_SECONDS
                )
                async with connection:
                    await connection.execute(f"LISTEN {CHANNEL}")
                    async for notice in connection.notifies():
                        if notice.payload.isdigit():
                            self._database.shared.note(int(notice.payload))
            await asyncio.sleep(_RECONNECT_SECONDS)
