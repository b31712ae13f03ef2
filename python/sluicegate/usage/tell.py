"""The end of a request, told to the metrics and to the traces. What fails here is never worth a request."""

from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from sluicegate.clock import monotonic
from sluicegate.engine import Marks
from sluicegate.errors import TOO_MANY
from sluicegate.telemetry.logs import Log
from sluicegate.usage.model import Source

if TYPE_CHECKING:
    from sluicegate.engine import Failure, Metrics, Outcome
    from sluicegate.errors import GatewayError
    from sluicegate.http.head import Head
    from sluicegate.telemetry.trace import Forward, Tracer
    from sluicegate.usage.settle import Entry


_FIRST_5XX = 500
# The cause of what the client itself has ended.
CLIENT_CLOSED = "client_closed"

# What became of an answer whose assistant wants a score; «flagged»: not good enough, and given all the same.
Verdict = Literal["passed", "flagged", "blocked"]


class Used(Struct, frozen=True, gc=False):
    """Tokens, and where their numbers come from."""

    prompt: int
    completion: int
    cached: int = 0
    reasoning: int = 0
    source: Source = "estimated"


class End(Struct, frozen=True, gc=False):
    """How a request has ended."""

    status: int
    code: str | None
    used: Used
    outcome: "Outcome | None"
    micros: int
    # Of the clock.
    closing: float
    # Microseconds to the first event of a stream, and of the whole call.
    first_us: int | None = None
    answer_us: int | None = None


class Teller:
    """Of one worker; `metrics` and `tracer`: None where there are none."""

    __slots__ = ("_log", "_metrics", "_tracer", "traces")

    def __init__(self, log: Log, metrics: "Metrics | None" = None, tracer: "Tracer | None" = None) -> None:
        self._log = log
        self._metrics = metrics
        self._tracer = tracer
        # Whether there are any: asked for each request.
        self.traces = tracer is not None

    def begin(self, entry: "Entry", head: "Head") -> None:
        """Somebody was let in, where there are traces."""
        if self._tracer is not None:
            try:
                entry.trace = self._tracer.begin(entry.marks.began, head.forward)
            except Exception as error:  # noqa: BLE001 (see above)
                self._failed(entry, error)

    def tell_failed_call(self, entry: "Entry", failure: "Failure") -> None:
        """A call of an upstream has failed; the next may be asked."""
        try:
            # What the client did wrong, or ended, says nothing about the upstream.
            if self._metrics is not None and (failure.status >= _FIRST_5XX or failure.status == TOO_MANY):
                self._metrics.failed(entry.upstream or "")
            if entry.trace is not None:
                entry.trace.failed(failure.cause)
        except Exception as error:  # noqa: BLE001 (see above)
            self._failed(entry, error)

    def tell(self, entry: "Entry", end: End) -> None:
        """A request has ended."""
        outcome, used = end.outcome, end.used
        try:
            if self._metrics is not None:
                self._metrics.ended(
                    entry.operation,
                    entry.workspace,
                    entry.upstream,
                    entry.upstream_model,
                    end.code,
                    end.status,
                    entry.stream,
                    (used.prompt, used.completion, used.cached, used.reasoning),
                    end.micros,
                    entry.attempts,
                    end.first_us,
                    end.answer_us,
                    entry.marks,
                    end.closing,
                )
                if outcome is not None and end.code not in (None, CLIENT_CLOSED):
                    self._metrics.failed(entry.upstream or "")
                if entry.scored is not None:
                    self._metrics.scored(
                        entry.workspace,
                        entry.model or "",
                        entry.scored.score,
                        entry.verdict,
                        entry.asked_again,
                        entry.spent_micros,
                        entry.scoring_us,
                    )
            if self._tracer is not None:
                trace = entry.trace or self._tracer.begin(entry.marks.began, ())
                trace.ended(entry, end)
        except Exception as error:  # noqa: BLE001 (see above)
            self._failed(entry, error)

    def _failed(self, entry: "Entry", error: Exception) -> None:
        self._log.error("telemetry_failed", request_id=entry.request_id, cause=type(error).__name__)

    def asked(self, entry: "Entry", origin: str, forward: "Forward") -> "Forward":
        """An upstream is about to be asked: what is passed on to it of the client's headers."""
        try:
            return forward if entry.trace is None else entry.trace.asked(entry, origin, forward)
        except Exception as error:  # noqa: BLE001 (see above)
            self._failed(entry, error)
            return forward

    def tell_refusal(self, began: float, error: "GatewayError") -> None:
        """A refusal outside of the stages of a request, such as of an unknown path."""
        if self._metrics is not None:
            self._metrics.ended(
                "other",
                "",
                None,
                None,
                error.code,
                error.status,
                False,
                (0, 0, 0, 0),
                0,
                0,
                None,
                None,
                Marks(began),
                monotonic(),
            )

    def tell_fault(self) -> None:
        """A fault of our own."""
        if self._metrics is not None:
            self._metrics.count("internal_errors", 1)


def observed(outcome: "Outcome | None") -> dict[str, object]:
    """What a log line has of an answer."""
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
