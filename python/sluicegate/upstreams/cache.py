"""The upstreams that a workspace may call, as they are in use."""

from msgspec import Struct

from sluicegate.storage.cache import Cache
from sluicegate.storage.database import Database
from sluicegate.storage.freshness import Freshness
from sluicegate.storage.transaction import View
from sluicegate.upstreams import store
from sluicegate.upstreams.record import Credentials, Discovered, UpstreamRecord

# Workspaces in use at the same time in one worker.
SIZE = 2_000


class Usable(Struct, frozen=True):
    """One upstream with what is needed to call it. `credentials` never print."""

    record: UpstreamRecord
    credentials: Credentials
    # As of the time when it was read: a new discovery alone does not renew it.
    discovered: Discovered


class UpstreamReader:
    """The upstreams of all workspaces, as one worker sees them."""

    def __init__(self, database: Database, freshness: Freshness) -> None:
        self._freshness = freshness
        self._cache: Cache[str, tuple[Usable, ...]] = Cache(database, freshness, SIZE)

    def peek(self, workspace: str) -> tuple[Usable, ...] | None:
        """What is known of a workspace, without waiting; None: ask `find`."""
        return self._cache.peek(workspace) if self._freshness.is_current else None

    async def find(self, workspace: str) -> tuple[Usable, ...]:
        """All that the workspace may call, its own first. Raises UnavailableError, SecretsError."""

        async def load(view: View) -> tuple[str, tuple[Usable, ...]]:
            found = []
            for record in await store.usable(view, workspace):
                credentials = await store.credentials_of(view, workspace, record.id)
                found.append(Usable(record, credentials, await store.discovered(view, workspace, record.id)))
            return workspace, tuple(found)

        return await self._cache.get(workspace, load) or ()
