"""Requests and sums as the management API, the command line and exports show them."""

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from sluicegate.usage.model import MICROS, PHASES, Record, Source, Sum, id_bytes, time_of

_THOUSAND = 1000


class RequestLine(Struct, frozen=True, kw_only=True):
    """One request in the log."""

    id: str
    # When it came: milliseconds since 1970.
    at: int
    workspace: str
    key: Annotated[str, Meta(description="The id of the client's key.")]
    operation: str
    stream: bool
    model: Annotated[str, Meta(description="The name that was asked for.")]
    assistant: str | None
    assistant_version: int | None
    upstream: str | None
    upstream_model: str | None
    status: int
    code: Annotated[str | None, Meta(description="Of the error; null for a success.")]
    error: Annotated[str | None, Meta(description="What the client was told.")]
    attempts: Annotated[int, Meta(description="Calls to upstreams.")]
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    source: Annotated[Source, Meta(description="Where the numbers of tokens come from.")]
    cost_usd: float
    first_ms: Annotated[float | None, Meta(description="Until the upstream's first event.")]
    duration_ms: float
    overhead_ms: Annotated[float, Meta(description="The gateway's own part of it.")]
    bytes_in: int
    bytes_out: int
    client: str | None
    finish: str | None
    conversation: str | None
    score: Annotated[int | None, Meta(description="0 to 100; null: none was asked for, or there is none.")]
    score_method: Annotated[str | None, Meta(description="What the score comes from, such as `L0+L1`.")]
    score_reason: Annotated[str | None, Meta(description="Why there is no score.")]
    failed_checks: Annotated[str | None, Meta(description="What was found in the answer, with commas.")]
    thinking: Annotated[str | None, Meta(description="What it did that is wrong: `not_off` or `ate_all`.")]


class Phases(Struct, frozen=True, kw_only=True):
    """Where the time of a request went, in milliseconds; null where it did not come so far."""

    authenticate: float | None = None
    read: Annotated[float | None, Meta(description="The client's body, as the client sends it.")] = None
    resolve: float | None = None
    admit: float | None = None
    prepare: float | None = None
    upstream: Annotated[float | None, Meta(description="The waiting for all that were asked.")] = None
    relay: float | None = None
    # Until its record was made.
    settle: float | None = None

    # Everything of the gateway's own.
    gateway: float
    # From the call of the upstream to its first event; null where it never came.
    first_event: float | None
    # From there to the end of the answer, which the client's pace is a part of.
    answer: float | None


class FeedbackLine(Struct, frozen=True, kw_only=True):
    """What one key said of the answer."""

    key: str
    score: int
    at: int


class RequestDetail(RequestLine, Struct, frozen=True, kw_only=True):
    """One request in full."""

    phases: Phases
    feedback: tuple[FeedbackLine, ...]


class UsageRow(Struct, frozen=True, kw_only=True):
    """Sums of the requests that have in common what is named; what was not asked for is left out."""

    at: Annotated[int, Meta(description="When the hour or day (UTC) began.")] | UnsetType = UNSET
    workspace: str | UnsetType = UNSET
    key: str | UnsetType = UNSET
    assistant: str | UnsetType | None = UNSET
    model: str | UnsetType = UNSET
    upstream: str | UnsetType | None = UNSET
    status: int | UnsetType = UNSET
    code: str | UnsetType | None = UNSET
    requests: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    total_tokens: int
    cost_usd: float
    average_ms: Annotated[float, Meta(description="Of their duration.")]


_SAME = tuple(name for name in RequestLine.__struct_fields__ if name in frozenset(Record.__struct_fields__))


def line_of(record: Record) -> RequestLine:
    """One line of the log."""
    return RequestLine(**_values(record))


def detail_of(record: Record, feedback: tuple[FeedbackLine, ...] = ()) -> RequestDetail:
    """One request in full."""
    first = record.first_us
    upstream = record.duration_us - record.overhead_us
    phases = Phases(
        gateway=record.overhead_us / _THOUSAND,
        first_event=None if first is None else first / _THOUSAND,
        answer=None if first is None else max(upstream - first, 0) / _THOUSAND,
        **_kept_phases(record.phases),
    )
    return RequestDetail(**_values(record), phases=phases, feedback=feedback)


def _kept_phases(line: str | None) -> dict[str, float]:
    if line is None:
        return {}
    # A newer version may know more of them.
    pairs = zip(PHASES, line.split(","), strict=False)
    return {name: int(took) / _THOUSAND for name, took in pairs if took.isdecimal()}


def row_of(found: Sum, by: tuple[str, ...] = ()) -> UsageRow:
    """Sums, with the names of what they have in common."""
    named: dict[str, Any] = dict(zip(by, found.of, strict=True))
    if found.at is not None:
        named["at"] = found.at
    return UsageRow(
        **named,
        requests=found.requests,
        failed=found.failed,
        prompt_tokens=found.prompt_tokens,
        completion_tokens=found.completion_tokens,
        cached_tokens=found.cached_tokens,
        reasoning_tokens=found.reasoning_tokens,
        total_tokens=found.prompt_tokens + found.completion_tokens,
        cost_usd=found.micros / MICROS,
        average_ms=round(found.duration_us / max(found.requests, 1) / _THOUSAND, 3),
    )


def _values(record: Record) -> dict[str, Any]:
    values = {name: getattr(record, name) for name in _SAME}
    values["at"] = time_of(id_bytes(record.id))
    values["cost_usd"] = record.micros / MICROS
    values["first_ms"] = None if record.first_us is None else record.first_us / _THOUSAND
    values["duration_ms"] = record.duration_us / _THOUSAND
    values["overhead_ms"] = record.overhead_us / _THOUSAND
    return values


encode = msgspec.json.Encoder().encode
