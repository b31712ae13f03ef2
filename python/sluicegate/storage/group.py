"""Writes of many requests in one transaction: what waits while one is committed goes along with the next."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from sluicegate.clock import monotonic
from sluicegate.storage.database import Database
from sluicegate.storage.errors import InvalidError, NotFoundError, UnavailableError
from sluicegate.storage.transaction import View

T = TypeVar("T")
Step = Callable[[View], Awaitable[Any]]

# A transaction holds SQLite's only lock: others must get their turn.
MOST = 128
# For as long as a commit took, but no longer, the others are let in. Whoever waits for SQLite's lock looks
# every 100 ms: where a disk is slow, a shorter pause would let nobody in.
LONGEST_PAUSE = 0.25
TRIES = 3
_REFUSALS = (NotFoundError, InvalidError)


class GroupWriter:
    """One process's writer.

    A commit waits for the disk, and on SQLite for all other processes: with one for each request they would
    wait for each other for seconds where a hundred of them finish at once.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[tuple[Step, asyncio.Future[Any]]] = []
        self._task: asyncio.Task[None] | None = None

    async def write(self, step: Callable[[View], Awaitable[T]]) -> T:
        """What `step` gives, once it is committed. `step` may run twice, and raises before it writes.

        Raises UnavailableError and what `step` raises.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((step, future))
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        # The write goes on when its request is cancelled: nobody knows whether it was committed.
        return await asyncio.shield(future)

    async def close(self) -> None:
        """Wait until nothing waits."""
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
            began = monotonic()
            await self._commit(batch)
            # SQLite's lock knows no queue: who takes it again at once keeps the other processes out. What
            # waits meanwhile goes along with the next transaction, so that nothing is slower for it.
            await asyncio.sleep(min(monotonic() - began, LONGEST_PAUSE))
        self._task = None

    async def _commit(self, batch: list[tuple[Step, "asyncio.Future[Any]"]], tries: int = TRIES) -> None:
        results: list[Any] = []
        try:
            async with self._database.note() as view:
                for step, _ in batch:
                    try:
                        results.append(await step(view))
                    except _REFUSALS as refusal:
                        results.append(refusal)
        except UnavailableError as error:
            # Locked by others for too long, or gone for a moment. It is the same for each of them.
            if tries > 1:
                await self._commit(batch, tries - 1)
                return
            for _, future in batch:
                _settle(future, error)
            return
        except Exception as error:  # noqa: BLE001 (each waiting request is told)
            if len(batch) == 1:
                _settle(batch[0][1], error)
                return
            # One that cannot be written must not undo the others.
            for one in batch:
                await self._commit([one])
            return
        for (_, future), result in zip(batch, results, strict=True):
            _settle(future, result)


def _settle(future: "asyncio.Future[Any]", result: Any) -> None:
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
        # Nobody may be waiting any more.
        future.exception()
    else:
        future.set_result(result)
