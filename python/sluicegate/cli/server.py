"""The Granian server, with a stop that the workers hear about."""

import os
import signal
from contextlib import suppress
from typing import Any

from granian.server.mp import MPServer

from sluicegate.app import DRAIN_SIGNAL

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

    def startup(self, *args: Any, **kwargs: Any) -> None:
        """Workers inherit that the signal is ignored: it must not end one that is still starting."""
        signal.signal(DRAIN_SIGNAL, signal.SIG_IGN)
        super().startup(*args, **kwargs)  # type: ignore[no-untyped-call]
