"""The Granian server, with a stop that the workers hear about."""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from granian.server.mp import MPServer, WorkerProcess

from sluicegate.app import DRAIN_SIGNAL
from sluicegate.cli.worker import STOPS

# After the drain the last streams get their error event: so long may that take before a worker is killed.
CUT_SECONDS = 3


class DrainingServer(MPServer):
    """Granian waits for open requests, but tells nobody that it does. This one announces the drain.

    A worker that knows can end its streams with an error event when the time is over, instead of being
    killed in the middle of one. A second signal ends everything at once.
    """

    def signal_handler_interrupt(self, *args: Any, **kwargs: Any) -> None:
        """SIGINT and SIGTERM, in the main process."""
        again = self.interrupt_signal
        super().signal_handler_interrupt(*args, **kwargs)  # type: ignore[no-untyped-call]
        for worker in self.wrks:
            if again:
                worker.kill()  # type: ignore[no-untyped-call]
            elif worker.inner.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(worker.inner.pid, DRAIN_SIGNAL)

    def _spawn_worker(self, *args: Any, **kwargs: Any) -> WorkerProcess:
        worker = super()._spawn_worker(*args, **kwargs)
        worker.inner.start = partial(_start, worker.inner.start)
        return worker

    def startup(self, *args: Any, **kwargs: Any) -> None:
        """Workers inherit that the signal is ignored: it must not end one that is still starting."""
        signal.signal(DRAIN_SIGNAL, signal.SIG_IGN)
        super().startup(*args, **kwargs)  # type: ignore[no-untyped-call]


def _start(start: Callable[[], None]) -> None:
    """Fork a worker that hears what ends it only once it has handlers of its own: see `worker.STOPS`."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        start()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
