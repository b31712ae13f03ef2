"""Metrics and traces of one worker, put together: what counts, what looks, what answers, what sends."""

import asyncio
import os
from collections.abc import Mapping

from sluicegate.engine import Metrics
from sluicegate.settings import Secret, ServerConfig, Settings, SettingsError
from sluicegate.telemetry.listener import Listener, split_address
from sluicegate.telemetry.logs import Log
from sluicegate.telemetry.metrics import exposition, open_metrics
from sluicegate.telemetry.trace import TraceError, exporter_for, open_tracer
from sluicegate.usage.tell import Teller
from sluicegate.vitals import Vitals, Watched


def key_of(server: ServerConfig, environ: Mapping[str, str] = os.environ) -> Secret | None:
    """What opens /metrics: of the file, else of the environment."""
    given = environ.get("SLUICEGATE_METRICS_KEY", "").strip()
    return server.metrics_key or (Secret(given) if given else None)


def check(settings: Settings) -> None:
    """Everything that a worker would find wrong at its start. Raises SettingsError."""
    server = settings.server
    if not server.metrics and (server.metrics_key or server.metrics_address):
        raise settings.source.error(
            ("server", "metrics"),
            "without metrics there is nothing to reach: remove metrics_key and metrics_address, or set "
            "metrics = true",
        )
    try:
        if server.metrics_address is not None:
            split_address(server.metrics_address)
    except ValueError as error:
        raise settings.source.error(("server", "metrics_address"), str(error)) from None
    try:
        exporter_for()
    except TraceError as error:
        raise SettingsError(str(error)) from None


class Observability:
    """From the making of a worker's application to its end. Raises TraceError."""

    def __init__(self, server: ServerConfig, log: Log) -> None:
        self.metrics: Metrics | None = open_metrics(server.workers, log) if server.metrics else None
        self.key = key_of(server)
        self._log = log
        self._tracer = open_tracer()
        self.teller = Teller(log, self.metrics, self._tracer)
        self._vitals: Vitals | None = None
        self._listener: Listener | None = None
        if server.metrics_address is not None:
            self._listener = Listener(server.metrics_address, self.render)

    def watch(self, watched: Watched) -> None:
        """What is to be looked at."""
        if self.metrics is not None:
            self._vitals = Vitals(self.metrics, watched)

    def render(self, accept: str) -> tuple[bytes, str]:
        """All metrics of all workers, for whoever takes `accept`."""
        return exposition([] if self.metrics is None else self.metrics.read(), accept)

    def look(self) -> None:
        """Have this worker's own figures be those of now."""
        if self._vitals is not None:
            self._vitals.look()

    def drain(self) -> None:
        """The worker is about to stop."""
        if self._vitals is not None:
            self._vitals.draining = True

    def start(self) -> None:
        """Begin to look and to answer."""
        if self._vitals is not None:
            self._vitals.start()
        if self._listener is not None:
            try:
                self._listener.start()
            except OSError as error:
                # `serve` has looked before. Whoever took the address since then must not end the gateway.
                self._listener = None
                self._log.error("metrics_address_taken", cause=error.strerror or type(error).__name__)

    async def stop(self) -> None:
        """Send what waits, and answer no more."""
        if self._vitals is not None:
            await self._vitals.stop()
        if self._listener is not None:
            await asyncio.to_thread(self._listener.stop)
        if self._tracer is not None:
            await asyncio.to_thread(self._tracer.close)
