"""The background work of one worker: dead processes give back what they held, records go to the database."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from sluicegate.clock import monotonic, wall_ns
from sluicegate.storage.errors import StorageError
from sluicegate.telemetry.logs import Log

if TYPE_CHECKING:
    from sluicegate.usage.bodies import Bodies
    from sluicegate.usage.move import Mover

TICK_SECONDS = 1.0
SILENT_SECONDS = 8.0


class Ticking(Protocol):
    """The part of the core's `Limits` that wants to be called once a second."""

    def tick(self) -> int:
        """Returns how many processes were found dead."""


class Keeper:
    """Runs from the start of a worker to its end."""

    def __init__(
        self,
        limits: Ticking,
        mover: "Mover | None",
        flush: Callable[[], bool],
        log: Log,
        bodies: "Bodies | None" = None,
    ) -> None:
        """`mover`: None where no records are kept; `flush`: write what waits for the disk."""
        self._bodies = bodies
        self._dropped = 0
        # The last round waited for a database that says nothing.
        self._is_silent = False
        self._limits = limits
        self._mover = mover
        self._flush = flush
        self._log = log
        self._task: asyncio.Task[None] | None = None
        self._moving: asyncio.Future[None] | None = None
        # For the metrics: records, failed rounds, and when a round last went well.
        self.moved = 0
        self.failed = 0
        self.moved_at_ms = 0

    def start(self) -> None:
        """Begin; returns at once."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End, after one more round: what was written is then in the database, if it answers."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        if self._mover is not None:
            if self._moving is not None:
                # A thread cannot be ended, and there is one that moves.
                await asyncio.wait([self._moving])
            if not self._is_silent:
                # Else it would be waited for once more; what the journal has is moved by the next start.
                await self._bring(self._mover)
            self._mover.release()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            dead = self._limits.tick()
            if dead:
                self._log.warning("worker_gone", processes=dead)
            self._flush()
            # Beside this: a database that says nothing must not hold up who looks for the dead.
            if self._mover is not None and (self._moving is None or self._moving.done()):
                self._moving = asyncio.create_task(self._bring(self._mover))

    async def _bring(self, mover: "Mover") -> None:
        """One round to the database."""
        await self._move(mover)
        await self._write_bodies()

    async def _write_bodies(self) -> None:
        bodies = self._bodies
        if bodies is None or bodies.is_empty:
            return
        try:
            await asyncio.to_thread(bodies.write)
        except (StorageError, OSError) as error:
            self._log.warning("bodies_not_written", cause=type(error).__name__)
        if bodies.dropped > self._dropped:
            self._log.warning("bodies_dropped", count=bodies.dropped - self._dropped)
            self._dropped = bodies.dropped

    async def _move(self, mover: "Mover") -> None:
        began, self._is_silent = monotonic(), False
        try:
            if not mover.acquire():
                return
            moved = await asyncio.to_thread(mover.move)
        except StorageError as error:
            self.failed += 1
            self._is_silent = monotonic() - began > SILENT_SECONDS
            self._log.error("usage_not_moved", message=str(error))
            return
        except OSError as error:
            self.failed += 1
            self._log.error("usage_not_moved", cause=error.strerror or type(error).__name__)
            return
        self.moved += moved.records
        self.moved_at_ms = wall_ns() // 1_000_000
        if moved.interrupted or moved.damaged:
            self._log.warning("usage_recovered", interrupted=moved.interrupted, damaged=moved.damaged)
