"""Structured logs: one JSON object a line, written by a thread so that a full pipe never stops the loop."""

import logging
import os
import queue
import sys
import threading
from typing import Any, TextIO

import orjson

from sluicegate.clock import wall_ns

# About 2 MiB of lines. Beyond it lines are dropped and counted: a blocked sink must not eat the memory.
_LONGEST_QUEUE = 8192


class Log:
    """Writes records to a text stream (stderr). Fields are named one by one: no objects, no `str(exc)`."""

    def __init__(self, stream: TextIO | None = None, *, access: bool = False) -> None:
        self._stream = stream or sys.stderr
        self.access = access
        self.dropped = 0
        # Over the whole life; `dropped` begins anew when it has been said.
        self.lost = 0
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None
        self._pid = 0

    def info(self, event: str, **fields: Any) -> None:
        """Something ordinary."""
        self._write("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Something that the operator may have to act on."""
        self._write("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """A fault of the gateway itself."""
        self._write("error", event, fields)

    def close(self, timeout: float = 1.0) -> None:
        """Write what waits, as long as the sink takes it within `timeout`."""
        if self._writer is not None:
            self._queue.put(None)
            self._writer.join(timeout)
            self._writer = None

    def _write(self, level: str, event: str, fields: dict[str, Any]) -> None:
        if self._queue.qsize() >= _LONGEST_QUEUE:
            self._drop()
            return
        if self.dropped:
            fields["dropped_before"], self.dropped = self.dropped, 0
        seconds, rest = divmod(wall_ns(), 1_000_000_000)
        record = {"time": seconds + rest // 1_000_000 / 1000, "level": level, "event": event, **fields}
        # A value that JSON does not know is named by its kind only: its text might hold a secret.
        line = orjson.dumps(record, default=_kind, option=orjson.OPT_APPEND_NEWLINE)
        if self._writer is None or self._pid != os.getpid():
            # Threads do not survive a fork: each worker starts its own, and leaves the parent its lines.
            if self._pid not in (0, os.getpid()):
                self._queue = queue.SimpleQueue()
            self._pid = os.getpid()
            self._writer = threading.Thread(target=self._run, name="log", daemon=True)
            self._writer.start()
        self._queue.put(line)

    def _run(self) -> None:
        while (line := self._queue.get()) is not None:
            try:
                self._stream.write(line.decode())
                self._stream.flush()
            except (OSError, ValueError):
                self._drop()

    def _drop(self) -> None:
        self.dropped += 1
        self.lost += 1


class LibraryLines(logging.Formatter):
    """Lines of the server and of other libraries, in the form of ours. Of an exception only its kind."""

    def format(self, record: logging.LogRecord) -> str:
        """One JSON object."""
        found: dict[str, Any] = {
            "time": int(record.created * 1000) / 1000,
            "level": record.levelname.lower(),
            "event": "library",
            "logger": record.name,
            "message": record.getMessage(),
        }
        kind = record.exc_info[0] if record.exc_info else None
        if kind is not None:
            found["cause"] = kind.__name__
        return orjson.dumps(found, default=_kind).decode()


def _kind(value: object) -> str:
    return f"<{type(value).__name__}>"
