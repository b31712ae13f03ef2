"""Stored responses and chats end after 30 days, as OpenAI's do; conversations, as their workspace says."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType

from sluicegate.clock import wall_ns
from sluicegate.errors import GatewayError
from sluicegate.history import expire as history
from sluicegate.storage.shelf import Shelf

KEEP_MS = 30 * 86_400_000
# A year of labels is what reliability is told by.
KEEP_FEEDBACK_MS = 365 * 86_400_000
EVERY_SECONDS = 3600.0
# In one transaction, so that nobody waits long for it.
MOST = 200


class Expiry:
    """One worker's task. Several at once do no harm: each deletes what is still there."""

    def __init__(self, shelf: Shelf, retentions: Mapping[str, int] = MappingProxyType({})) -> None:
        """`retentions`: days that a workspace of the settings keeps conversations."""
        self._shelf = shelf
        self._retentions = retentions
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, when the database is open; returns at once."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def stop(self) -> None:
        """End it."""
        if self._task is not None:
            self._task.cancel()

    async def sweep(self, now_ms: int) -> None:
        """Delete everything that is too old. Raises 503."""
        # Here, not at the top: who needs no database must not wait for the import of SQLAlchemy.
        from sluicegate.chat import store as chats  # noqa: PLC0415
        from sluicegate.quality import store as feedback  # noqa: PLC0415
        from sluicegate.responses import store as responses  # noqa: PLC0415

        before = now_ms - KEEP_MS
        while await self._shelf.write(lambda view: responses.expire(view, before, MOST)) == MOST:
            pass
        while await self._shelf.write(lambda view: chats.expire(view, before, MOST)) == MOST:
            pass
        before = now_ms - KEEP_FEEDBACK_MS
        while await self._shelf.write(lambda view: feedback.expire(view, before, MOST)) == MOST:
            pass
        await history.sweep(self._shelf, now_ms, self._retentions)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            with suppress(GatewayError):
                await self.sweep(wall_ns() // 1_000_000)
