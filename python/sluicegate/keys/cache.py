"""Keys in use, by the digest of their text: who is calling, without a query."""

from sluicegate.keys import store
from sluicegate.keys.model import Grant, digest
from sluicegate.keys.secret import is_mistyped
from sluicegate.storage.cache import Cache
from sluicegate.storage.database import Database, now_ms
from sluicegate.storage.freshness import ANY, Freshness
from sluicegate.storage.transaction import View

# Keys in use at the same time in one worker; each takes about a kilobyte.
SIZE = 20_000


class KeyReader:
    """The keys of all workspaces, as one worker sees them."""

    def __init__(self, database: Database, freshness: Freshness, size: int = SIZE) -> None:
        self._database = database
        self._freshness = freshness
        self._cache: Cache[bytes, Grant] = Cache(database, freshness, size)
        self._used: set[str] = set()

    def peek(self, key: bytes) -> Grant | None:
        """What a key is worth that was used before, without waiting; None: ask `find`."""
        if not self._freshness.is_current:
            return None
        grant = self._cache.peek(digest(key))
        if grant is not None:
            self._used.add(grant.principal.secret)
        return grant

    async def find(self, key: bytes) -> Grant | None:
        """What a key is worth; None for one that nobody has. Mistyped ones are refused without a query.

        The caller looks at `refused` and `is_over`. Raises UnavailableError for a key that is not known
        here while the database is down.
        """
        try:
            text = key.decode("ascii")
        except UnicodeDecodeError:
            return None
        if is_mistyped(text):
            return None

        async def load(view: View) -> tuple[str, Grant | None]:
            found = await store.look_up(view, text)
            return (ANY if found is None else found.principal.workspace), found

        grant = await self._cache.get(digest(key), load)
        if grant is not None:
            self._used.add(grant.principal.secret)
        return grant

    async def write_used(self) -> None:
        """Write when keys were used last; for `Watcher`.

        Raises UnavailableError, and tries them again then.
        """
        used, self._used = self._used, set()
        if not used:
            return
        try:
            async with self._database.note() as view:
                await store.note_used(view, dict.fromkeys(used, now_ms()))
        except BaseException:
            self._used |= used
            raise
