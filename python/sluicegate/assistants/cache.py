"""Assistants in use, by workspace and exact name."""

from sluicegate.assistants import store
from sluicegate.assistants.model import Assistant
from sluicegate.storage.cache import Cache
from sluicegate.storage.database import Database
from sluicegate.storage.freshness import Freshness
from sluicegate.storage.transaction import View

# In use at the same time in one worker. A system prompt may be long: 5,000 of 2 KB are 10 MB.
SIZE = 5_000
_LISTS = 500

Names = tuple[tuple[str, int], ...]


class AssistantReader:
    """The assistants of all workspaces, as one worker sees them."""

    def __init__(self, database: Database, freshness: Freshness) -> None:
        self._freshness = freshness
        self._cache: Cache[tuple[str, str], Assistant] = Cache(database, freshness, SIZE)
        self._names: Cache[str, Names] = Cache(database, freshness, _LISTS)

    def peek(self, workspace: str, name: str) -> Assistant | None:
        """One that was used before, without waiting; None: ask `find`."""
        return self._cache.peek((workspace, name)) if self._freshness.is_current else None

    async def find(self, workspace: str, name: str) -> Assistant | None:
        """The assistant of exactly this name; that there is none is remembered too.

        Raises UnavailableError.
        """

        async def load(view: View) -> tuple[str, Assistant | None]:
            return workspace, await store.find(view, workspace, name)

        return await self._cache.get((workspace, name), load)

    async def names(self, workspace: str) -> Names:
        """Name and time of making (milliseconds) of each, for lists of models. Raises UnavailableError."""

        async def load(view: View) -> tuple[str, Names]:
            return workspace, await store.names(view, workspace)

        return await self._names.get(workspace, load) or ()
