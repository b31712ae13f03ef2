"""Workspaces in use, by id."""

from sluicegate.storage.cache import Cache
from sluicegate.storage.database import Database
from sluicegate.storage.freshness import Freshness
from sluicegate.storage.transaction import View
from sluicegate.workspaces import store
from sluicegate.workspaces.model import Workspace

SIZE = 10_000


class WorkspaceReader:
    """The workspaces, as one worker sees them."""

    def __init__(self, database: Database, freshness: Freshness) -> None:
        self._freshness = freshness
        self._cache: Cache[str, Workspace] = Cache(database, freshness, SIZE)

    def peek(self, workspace: str) -> Workspace | None:
        """One that was used before, without waiting; None: ask `find`."""
        return self._cache.peek(workspace) if self._freshness.is_current else None

    async def find(self, workspace: str) -> Workspace | None:
        """One workspace, if it is there. Raises UnavailableError."""

        async def load(view: View) -> tuple[str, Workspace | None]:
            return workspace, await store.find(view, workspace)

        return await self._cache.get(workspace, load)
