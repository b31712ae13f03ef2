"""What a store works with: a view for reading, a change for writing."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from msgspec import Struct

if TYPE_CHECKING:
    from sqlalchemy import CursorResult, Executable
    from sqlalchemy.ext.asyncio import AsyncConnection

    from sluicegate.storage.keyring import Keyring


class Actor(Struct, frozen=True):
    """Who makes a change, as the audit log names it: `key:key_…`, `user:usr_…`, `cli:root`, `system`."""

    name: str
    request_id: str | None = None


SYSTEM = Actor("system")

LastStep = Callable[["Change"], Awaitable[None]]


class View:
    """Queries of one connection. `now` is one time for all of them, in milliseconds since 1970."""

    def __init__(self, connection: "AsyncConnection", keyring: "Keyring", now: int) -> None:
        self.connection = connection
        self.keyring = keyring
        self.now = now

    async def execute(self, statement: "Executable", values: Any = None) -> "CursorResult[Any]":
        """Run one statement; with a list of values, once for each."""
        return await self.connection.execute(statement, values)

    async def seal(self, workspace: str, plain: bytes, place: str) -> bytes:
        """Encrypt for one place in one workspace."""
        return await self.keyring.seal(self.connection, workspace, plain, place)

    async def unseal(self, workspace: str, sealed: bytes, place: str) -> bytes:
        """Decrypt what belongs to that place. Raises SecretsError."""
        return await self.keyring.open(self.connection, workspace, sealed, place)


class Change(View):
    """A view that may write. All of it is committed together, or nothing."""

    def __init__(
        self, connection: "AsyncConnection", keyring: "Keyring", now: int, *, actor: Actor, generation: int
    ) -> None:
        super().__init__(connection, keyring, now)
        self.actor = actor
        # The number of this change, once it is committed.
        self.generation = generation
        self.touched: set[str] = set()
        # Run at the end, before the commit; the audit log is written by one.
        self.last_steps: list[LastStep] = []

    def touch(self, workspace: str) -> None:
        """Something of this workspace changes: what is cached of it is out of date."""
        self.touched.add(workspace)
