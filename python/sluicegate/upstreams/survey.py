"""Asks the upstreams of the database what they serve and how they are, by one process of each machine."""

import asyncio
import fcntl
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from sluicegate.clock import monotonic
from sluicegate.ids import PLATFORM
from sluicegate.storage.database import Database
from sluicegate.storage.errors import NotFoundError, StorageError
from sluicegate.storage.transaction import SYSTEM
from sluicegate.telemetry.logs import Log
from sluicegate.upstreams import discovery_store, store
from sluicegate.upstreams.ask import Answer, Open, ask
from sluicegate.upstreams.discovery_store import Due
from sluicegate.upstreams.keep import keep
from sluicegate.upstreams.kept import config_of
from sluicegate.upstreams.record import Discovered

if TYPE_CHECKING:
    from sluicegate.engine import Engine

# A list of models is asked for so often, and after a failure so soon again.
PERIOD_SECONDS = 300.0
RETRY_SECONDS = 30.0
# The leader looks so often whether something has changed, others whether it has died.
STEP_SECONDS = 1.0
# And so often without a change whether somebody is due.
LOOK_SECONDS = 10.0
_PARALLEL = 8
# A transaction under way takes milliseconds, unless the database says nothing.
STOP_SECONDS = 3.0
_BATCH = 200


class Survey:
    """The questions to all upstreams. Start it in each worker: the one that holds the lock file asks."""

    def __init__(
        self, database: Database, engine: "Engine", open_handle: Open, networks: tuple[str, ...], log: Log
    ) -> None:
        """`networks`: private ranges that upstreams of the database may reach."""
        self._database = database
        self._engine = engine
        self._open = open_handle
        self._networks = networks
        self._log = log
        self._task: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()
        self._asking: set[asyncio.Task[Answer]] = set()
        self._lock: int | None = None
        self._gate = asyncio.Semaphore(_PARALLEL)
        self._failing: set[str] = set()

    def start(self) -> None:
        """Begin; returns at once."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End, and let another process lead. No transaction is broken off: it would keep its locks."""
        self._stop.set()
        for task in self._asking:
            task.cancel()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=STOP_SECONDS)
            self._task.cancel()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def ask(self, workspace: str, upstream: str) -> Discovered:
        """Ask one upstream of this owner now, and give what is known of it then.

        Raises NotFoundError, SecretsError, UnavailableError.
        """
        await self._ask(Due(workspace, upstream, None))
        async with self._database.read() as view:
            return await store.discovered(view, workspace, upstream)

    async def _run(self) -> None:
        seen, looked = -1, 0.0
        while not self._stop.is_set():
            generation = self._database.shared.generation
            if (generation != seen or monotonic() - looked >= LOOK_SECONDS) and self._leads():
                seen, looked = generation, monotonic()
                try:
                    await self._round()
                except StorageError:
                    # Down, or busy: what is due stays due.
                    pass
                except Exception as error:  # noqa: BLE001 (a fault here must not end the questions for ever)
                    self._log.error("internal_error", where=f"survey: {type(error).__name__}")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), STEP_SECONDS)

    def _leads(self) -> bool:
        """Whether this process holds the lock; the kernel gives it back when the process dies, however."""
        if self._lock is None:
            path = self._database.location.data_dir / "discovery.lock"
            try:
                found = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError:
                return False
            try:
                fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(found)
                return False
            self._lock = found
        return True

    async def _round(self) -> None:
        period, retry = int(PERIOD_SECONDS * 1000), int(RETRY_SECONDS * 1000)
        async with self._database.read() as view:
            found = await discovery_store.due(view, period, retry, _BATCH)
        await asyncio.gather(*(self._ask_claimed(one) for one in found))

    async def _ask_claimed(self, due: Due) -> None:
        async with self._gate:
            if self._stop.is_set():
                return
            try:
                async with self._database.note() as view:
                    mine = await discovery_store.claim(view, due)
                if mine:
                    await self._ask(due)
            except StorageError as error:
                # Deleted meanwhile, or its secrets cannot be opened, or the database is down: next time.
                if not isinstance(error, NotFoundError):
                    self._warn(due, "storage", str(error))

    async def _ask(self, due: Due) -> None:
        async with self._database.read() as view:
            record = await store.get(view, due.workspace, due.upstream)
            credentials = await store.credentials_of(view, due.workspace, due.upstream)
            before = await store.discovered(view, due.workspace, due.upstream)
        config = config_of(record, credentials, self._networks)
        trusted = due.workspace == PLATFORM
        task = asyncio.create_task(ask(self._engine, self._open, config, trusted=trusted))
        self._asking.add(task)
        try:
            answer = await task
        except asyncio.CancelledError:
            if self._stop.is_set():
                return
            raise
        finally:
            self._asking.discard(task)
        if answer.error is not None and due.upstream not in self._failing:
            self._warn(due, answer.error, "GET /models below its base URL gave no list of models")
        (self._failing.discard if answer.error is None else self._failing.add)(due.upstream)
        await keep(self._database, SYSTEM, (due.workspace, due.upstream), before, answer)

    def _warn(self, due: Due, cause: str, message: str) -> None:
        self._log.warning(
            "discovery_failed",
            workspace=due.workspace,
            upstream_id=due.upstream,
            cause=cause,
            message=message,
        )
