"""Answers under way whose key ends: looked for when something has changed, and cut off."""

import asyncio
from collections.abc import Collection, Iterable
from typing import Literal, Protocol

from sluicegate.clock import monotonic
from sluicegate.keys import store
from sluicegate.keys.model import Grant, Principal
from sluicegate.storage.database import Database, now_ms
from sluicegate.storage.errors import StorageError
from sluicegate.storage.freshness import ANSWER_SECONDS, Freshness

# A promise of 5 seconds, with a second for a word from another machine and three for a slow database.
LOOK_SECONDS = 1.0
# Secrets in one query.
_BATCH = 500

Cause = Literal["api_key_revoked", "api_key_expired"]


class Running(Protocol):
    """An answer that has taken a while; `http.relay.ClientWatch` is one."""

    caller: Principal
    # Before its key was looked at.
    began: float
    # The number of changes at which its key was good.
    checked: int

    def cut(self, cause: Cause) -> None:
        """End it, with an error that names the cause."""


class Cutter:
    """Looks after the running answers of one worker.

    A look costs a comparison an answer where nothing has changed, and one query after a change.
    """

    def __init__(self, database: Database, freshness: Freshness, running: Collection[Running]) -> None:
        """`running` changes as answers come and go."""
        self._database = database
        self._freshness = freshness
        self._running = running
        self._seen = -1
        # Whoever began later was let in under the number that was seen.
        self._seen_at = 0.0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; returns at once."""
        self._task = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def look(self) -> None:
        """Cut off whatever has to be; a database that does not answer is asked again with the next look."""
        generation = self._database.shared.generation
        # While the database is down, keys are let in as they were before.
        if generation != self._seen or self._freshness.is_down:
            self._seen, self._seen_at = generation, monotonic()
        suspects = self._suspects(generation)
        secrets = sorted({suspect.caller.secret for suspect in suspects})
        for first in range(0, len(secrets), _BATCH):
            some = set(secrets[first : first + _BATCH])
            found = await self._read(some)
            if found is None:
                return
            _judge([one for one in suspects if one.caller.secret in some], found, generation)

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.look()

    def _suspects(self, generation: int) -> list[Running]:
        now = now_ms()
        found = []
        for one in self._running:
            # A key of the settings has no stored secret: it holds as long as the process.
            if not one.caller.secret:
                continue
            if one.checked != generation and one.began > self._seen_at:
                one.checked = generation
            if one.checked != generation or one.caller.is_over(now):
                found.append(one)
        return found

    async def _read(self, secrets: Collection[str]) -> dict[str, Grant] | None:
        try:
            async with asyncio.timeout(ANSWER_SECONDS), self._database.read() as view:
                return await store.worth(view, secrets)
        except (StorageError, TimeoutError):
            return None


def _judge(suspects: Iterable[Running], found: dict[str, Grant], generation: int) -> None:
    now = now_ms()
    for one in suspects:
        grant = found.get(one.caller.secret)
        if grant is None or grant.refused is not None:
            one.cut("api_key_revoked")
        elif grant.principal.is_over(now):
            one.cut("api_key_expired")
        else:
            # Its end may be another one now.
            one.caller = grant.principal
        one.checked = generation
