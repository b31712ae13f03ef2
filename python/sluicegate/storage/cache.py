"""Records in memory: as many as are in use, each as right as the last look at the generation."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from sluicegate.storage.database import Database
from sluicegate.storage.errors import UnavailableError
from sluicegate.storage.freshness import ANSWER_SECONDS, Freshness
from sluicegate.storage.recent import Recent
from sluicegate.storage.transaction import View

__all__ = ["Cache", "Load", "Recent"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

# The workspace whose changes put the value in doubt, and the value; None: there is none.
Load = Callable[[View], Awaitable[tuple[str, V | None]]]

# Look-ups at a time: a spray of unknown keys must not take all connections.
_PARALLEL = 4
_DOWN = "The database does not answer, and what it would say is not known."


class Cache(Generic[K, V]):
    """Records by a key that contains all that they depend on. For one event loop."""

    def __init__(self, database: Database, freshness: Freshness, size: int, absent_size: int = 2000) -> None:
        """`absent_size`: what is not there is remembered apart, so that guesses push nothing out that is
        used.
        """
        self._database = database
        self._freshness = freshness
        # Workspace, stamp, value.
        self._present: Recent[K, tuple[str, int, V]] = Recent(size)
        self._absent: Recent[K, tuple[str, int]] = Recent(absent_size)
        self._loading: dict[K, asyncio.Task[V | None]] = {}
        self._gate = asyncio.Semaphore(_PARALLEL)

    def peek(self, key: K) -> V | None:
        """What is known and right; None: ask `get`. Only while `Freshness.is_current`."""
        entry = self._present.get(key)
        if entry is None or not self._freshness.is_valid(entry[0], entry[1]):
            return None
        return entry[2]

    async def get(self, key: K, load: Load[V]) -> V | None:
        """The value, from memory or by `load`; None where there is none.

        Raises what `load` raises, and UnavailableError: what is known stays in force while the database is
        down, and nobody unknown is let in.
        """
        if not self._freshness.is_current:
            await self._freshness.refresh()
        found = self.peek(key)
        if found is not None:
            return found
        absent = self._absent.get(key)
        if absent is not None and self._freshness.is_valid(*absent):
            return None
        if self._freshness.is_failing:
            raise UnavailableError(_DOWN)
        task = self._loading.get(key)
        if task is None:
            task = self._loading[key] = asyncio.create_task(self._fetch(key, load))
            task.add_done_callback(lambda done: self._settle(key, done))
        # Shared: one that gives up must not take it from the others.
        done, _ = await asyncio.wait([task], timeout=ANSWER_SECONDS)
        if not done:
            self._freshness.note_failure()
            raise UnavailableError(_DOWN)
        return task.result()

    def __len__(self) -> int:
        return len(self._present)

    def _settle(self, key: K, task: "asyncio.Task[V | None]") -> None:
        self._loading.pop(key, None)
        if not task.cancelled():
            task.exception()

    async def _fetch(self, key: K, load: Load[V]) -> V | None:
        async with self._gate:
            # Before the query: what is committed after it has a higher one.
            stamp = self._freshness.epoch
            workspace, value = await self._read(load)
        if value is None:
            self._absent.put(key, (workspace, stamp))
        else:
            self._present.put(key, (workspace, stamp, value))
        return value

    async def _read(self, load: Load[V]) -> tuple[str, V | None]:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                try:
                    async with self._database.read() as view:
                        return await load(view)
                except UnavailableError:
                    # A server that was restarted has closed its connections: the second try gets a new one.
                    async with self._database.read() as view:
                        return await load(view)
        except TimeoutError:
            raise UnavailableError(_DOWN) from None
