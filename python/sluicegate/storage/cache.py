"""Records in memory: as many as are in use, each as right as the last look at the generation."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from sluicegate.storage.database import Database
from sluicegate.storage.errors import UnavailableError
from sluicegate.storage.freshness import Freshness
from sluicegate.storage.transaction import View

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

# The workspace whose changes put the value in doubt, and the value; None: there is none.
Load = Callable[[View], Awaitable[tuple[str, V | None]]]

# Look-ups at a time: a spray of unknown keys must not take all connections.
_PARALLEL = 4


class Recent(Generic[K, V]):
    """At most `size` entries; what was not used for a while makes room.

    Two halves: what is used moves to the young one, and the old one is dropped as a whole when the young is
    full. A hit in the young half writes nothing, unlike a list of last uses.
    """

    __slots__ = ("_half", "_old", "_young")

    def __init__(self, size: int) -> None:
        self._half = max(size // 2, 1)
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def get(self, key: K) -> V | None:
        """The entry, if it is there."""
        found = self._young.get(key)
        if found is None:
            found = self._old.get(key)
            if found is not None:
                self.put(key, found)
        return found

    def put(self, key: K, value: V) -> None:
        """Keep an entry."""
        if len(self._young) >= self._half and key not in self._young:
            self._old = self._young
            self._young = {}
        self._young[key] = value
        self._old.pop(key, None)

    def __len__(self) -> int:
        return len(self._young) + len(self._old)


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
        task = self._loading.get(key)
        if task is None:
            task = self._loading[key] = asyncio.create_task(self._fetch(key, load))
            task.add_done_callback(lambda done: self._settle(key, done))
        # Shared: one that gives up must not take it from the others.
        return await asyncio.shield(task)

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
            async with self._database.read() as view:
                return await load(view)
        except UnavailableError:
            # A server that was restarted has closed its connections: the second try gets a new one.
            async with self._database.read() as view:
                return await load(view)
