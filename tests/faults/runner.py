"""Runs the table's cases side by side: most of them wait for a clock, so they may as well wait together."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass

from faults.cases import Case
from faults.client import Answer, ask, body_for
from faults.pace import LONGEST
from faults.rig import SOON, Rig

# On two cores, more at once only makes the clocks late.
SIDE_BY_SIDE = 24


@dataclass(frozen=True)
class Result:
    """What became of a case."""

    answer: Answer
    # A request to a healthy upstream, sent while the case ran, and one to the same upstream past the gateway.
    neighbour: Answer
    control: Answer
    # How many upstream connections carried the case, and whether all were closed within a second.
    connections: int
    closed: bool


class Runner:
    """An event loop in a thread, and one future for each case."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="runner", daemon=True)
        self._thread.start()
        self._slots = asyncio.Semaphore(SIDE_BY_SIDE)
        self._results: dict[Case, Future[Result]] = {}

    def submit(self, case: Case) -> None:
        """Start it as soon as there is room."""
        if case not in self._results:
            self._results[case] = asyncio.run_coroutine_threadsafe(self._run(case), self._loop)

    def result(self, case: Case, timeout: float) -> Result:
        """Wait for it."""
        return self._results[case].result(timeout)

    def close(self) -> None:
        """Stop the thread; cases that nobody waited for are cancelled."""
        asyncio.run_coroutine_threadsafe(self._cancel_all(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _cancel_all(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _run(self, case: Case) -> Result:
        async with self._slots:
            # Half of the streams ask for their usage, so that both ways through the relay are taken.
            asks_usage = case.stream and case.op == "chat"
            options = {"stream_options": {"include_usage": True}} if asks_usage else {}
            body = body_for(case.op, case.model, stream=case.stream, user=case.id, **options)
            answer, neighbour, control = await asyncio.gather(
                ask(self._rig.port, case.op, body),
                self._neighbour(self._rig.port),
                self._neighbour(self._rig.upstream.port),
            )
            return Result(answer, neighbour, control, *await self._connections(case))

    async def _neighbour(self, port: int) -> Answer:
        await asyncio.sleep(0.05)
        return await ask(port, "chat", body_for("chat", "ok-neighbour", stream=True))

    async def _connections(self, case: Case) -> tuple[int, bool]:
        ended = time.monotonic()
        while True:
            seen = self._rig.connections(case.id)
            closed = [c.closed for c in seen if c.closed is not None]
            if len(closed) == len(seen):
                took = await asyncio.to_thread(self._rig.pace.seconds, ended, max(closed, default=ended))
                return len(seen), took <= SOON
            if not case.expect.closed or time.monotonic() >= ended + LONGEST:
                return len(seen), False
            await asyncio.sleep(0.02)
