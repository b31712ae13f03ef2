"""The record of a request that has ended."""

from typing import TYPE_CHECKING

import msgspec

from sluicegate.usage.model import MICROS, Record, bounded
from sluicegate.usage.tell import End

if TYPE_CHECKING:
    from sluicegate.engine import Outcome
    from sluicegate.usage.settle import Entry, Scored


def record_of(entry: "Entry", end: End, message: str | None) -> Record:
    """The request as it ended."""
    outcome = end.outcome
    used = end.used
    record = Record(
        id=entry.request_id,
        workspace=entry.workspace,
        key=entry.key,
        operation=entry.operation,
        stream=entry.stream,
        model=entry.model or "",
        assistant=entry.assistant,
        assistant_version=entry.assistant_version,
        upstream=entry.upstream,
        upstream_model=entry.upstream_model,
        status=end.status,
        code=end.code,
        error=message,
        attempts=entry.attempts,
        prompt_tokens=bounded(used.prompt),
        completion_tokens=bounded(used.completion),
        cached_tokens=bounded(used.cached),
        reasoning_tokens=bounded(used.reasoning),
        source=used.source,
        micros=end.micros,
        first_us=None if outcome is None else outcome.first_event_us,
        duration_us=int((end.closing - entry.marks.began) * MICROS),
        overhead_us=entry.overhead_us(end.closing, outcome),
        bytes_in=entry.bytes_in,
        bytes_out=_sent(entry, outcome),
        client=entry.client,
        finish=finish_of(outcome),
        conversation=entry.conversation,
        thinking=entry.thinking,
        phases=entry.marks.line(end.closing, outcome is not None),
    )
    return record if entry.scored is None else _scored(record, entry.scored)


def _scored(record: Record, found: "Scored") -> Record:
    return msgspec.structs.replace(
        record,
        score=found.score,
        failed_checks=found.failed_checks,
        score_method=found.method,
        score_reason=found.reason,
    )


def finish_of(outcome: "Outcome | None") -> str | None:
    """Why it ended."""
    return outcome.finish_reasons[0] if outcome is not None and outcome.finish_reasons else None


def _sent(entry: "Entry", outcome: "Outcome | None") -> int:
    if entry.bytes_out or outcome is None:
        return entry.bytes_out
    # The event that ends a response follows when the response is stored.
    return outcome.bytes_out + len(outcome.closing)
