"""The record of a request that has ended, into the journal."""

from typing import TYPE_CHECKING

from sluicegate.usage.model import CLOSED

if TYPE_CHECKING:
    from sluicegate.engine import Journal
    from sluicegate.usage.settle import Entry
    from sluicegate.usage.tell import End


def write(journal: "Journal", entry: "Entry", end: "End", message: str | None) -> None:
    """The request as it ended; what the client was told of a failure is `message`."""
    used, outcome, scored = end.used, end.outcome, entry.scored
    # By their places: with names the call costs a microsecond more.
    journal.close(
        CLOSED,
        entry.request_id,
        entry.workspace,
        entry.key,
        entry.operation,
        entry.stream,
        entry.model,
        entry.assistant,
        entry.assistant_version,
        entry.upstream,
        entry.upstream_model,
        end.status,
        end.code,
        message,
        entry.attempts,
        used.prompt,
        used.completion,
        used.cached,
        used.reasoning,
        used.source,
        end.micros,
        end.first_us,
        end.answer_us,
        entry.marks,
        end.closing,
        entry.bytes_in,
        # The event that ends a response follows when the response is stored.
        entry.bytes_out or (0 if outcome is None else outcome.bytes_out + len(outcome.closing)),
        entry.client,
        None if outcome is None else outcome.finish,
        entry.conversation,
        entry.thinking,
        None if scored is None else (scored.score, scored.failed_checks, scored.method, scored.reason),
    )
