"""The one record of each request, written when its end is known and before its last bytes leave."""

from typing import TYPE_CHECKING

from msgspec import Struct

from sluicegate.clock import monotonic
from sluicegate.telemetry.logs import Log

if TYPE_CHECKING:
    from sluicegate.engine import Outcome

CLIENT_CLOSED = 499
_FIRST_5XX = 500


class Entry(Struct, gc=False):
    """What is known of a request, filled in as its stages find out."""

    request_id: str
    operation: str
    began: float
    principal: str | None = None
    model: str | None = None
    upstream: str | None = None
    upstream_model: str | None = None
    stream: bool = False
    attempts: int = 0


class Ledger:
    """Takes the records. For now they are log lines: of failures always, of the rest with the access log."""

    __slots__ = ("_log",)

    def __init__(self, log: Log) -> None:
        self._log = log

    def refused(self, entry: Entry, status: int, code: str) -> None:
        """No answer of an upstream reached the client."""
        # A wrong request is the client's matter; a failed one may be the operator's.
        if self._log.access or status >= _FIRST_5XX:
            self._write(entry, status, code, None)

    def settled(self, entry: Entry, outcome: "Outcome | None") -> None:
        """An answer has ended; None: its task ended in another way, and so for the client."""
        failure = None if outcome is None else outcome.failure
        if failure is not None and failure.cause != "client_closed":
            self._write(entry, 200 if entry.stream else failure.status, failure.cause, outcome)
        elif self._log.access and outcome is not None and outcome.state == "finished":
            self._write(entry, 200, None, outcome)
        elif self._log.access:
            self._write(entry, CLIENT_CLOSED, "client_closed", outcome)

    def _write(self, entry: Entry, status: int, code: str | None, outcome: "Outcome | None") -> None:
        ordinary = code in (None, "client_closed") or (status < _FIRST_5XX and outcome is None)
        write = self._log.info if ordinary else self._log.warning
        write(
            "request",
            request_id=entry.request_id,
            operation=entry.operation,
            key=entry.principal,
            model=entry.model,
            upstream=entry.upstream,
            upstream_model=entry.upstream_model,
            stream=entry.stream,
            attempts=entry.attempts,
            status=status,
            code=code,
            ms=round((monotonic() - entry.began) * 1000, 3),
            **_observed(outcome),
        )


def _observed(outcome: "Outcome | None") -> dict[str, object]:
    if outcome is None:
        return {}
    first = outcome.first_event_us
    return {
        "first_event_ms": None if first is None else first / 1000,
        "prompt_tokens": outcome.prompt_tokens,
        "completion_tokens": outcome.completion_tokens,
        "usage_suspect": outcome.usage_suspect,
        "finish": outcome.finish_reasons,
        "events": outcome.events,
    }
