"""Stored responses and chats end after 30 days, as OpenAI's do; all that is kept, as its workspace says."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from sluicegate.clock import wall_ns
from sluicegate.errors import GatewayError
from sluicegate.history import expire as history
from sluicegate.storage.shelf import Shelf

if TYPE_CHECKING:
    from sluicegate.storage.transaction import View

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
        from sluicegate.conversations import store as conversations  # noqa: PLC0415
        from sluicegate.quality import store as feedback  # noqa: PLC0415
        from sluicegate.responses import store as responses  # noqa: PLC0415

        before = now_ms - KEEP_MS
        await self._all(lambda view: responses.expire(view, before, MOST))
        await self._all(lambda view: chats.expire(view, before, MOST))
        await self._all(lambda view: feedback.expire(view, now_ms - KEEP_FEEDBACK_MS, MOST))
        for workspace, days in (await history.retentions(self._shelf, self._retentions)).items():
            rule: dict[str, Any] = {
                "before": now_ms - days * history.DAY_MS,
                "most": MOST,
                "workspace": workspace,
            }
            for expire in (responses.expire, chats.expire, conversations.expire):
                await self._all(partial(expire, **rule))
        await history.sweep(self._shelf, now_ms, self._retentions)

    async def _all(self, some: "Callable[[View], Awaitable[int]]") -> None:
        while await self._shelf.write(some) == MOST:
            pass

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            with suppress(GatewayError):
                await self.sweep(wall_ns() // 1_000_000)
