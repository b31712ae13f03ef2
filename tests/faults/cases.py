"""The fault table as data: for each scenario what a client must see, streaming and not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from faults.content import TEXT
from faults.scenarios_http import BAD_STATUSES, CHUNK_SIZES, LENGTHS, REDIRECTS, STATUS_LINES
from faults.scenarios_odd import ODD_USAGE, SPELLED

FIRE = "The engine is on fire."


@dataclass(frozen=True)
class Expect:
    """One verdict."""

    # refused: an error with its status; broken: a stream with an error event; finished: a whole answer.
    kind: Literal["refused", "broken", "finished"]
    codes: tuple[str, ...] = ()
    statuses: tuple[int, ...] = ()
    # What the message must contain.
    says: str = ""
    # The text before the end; None: whatever had arrived.
    text: str | None = TEXT
    # The upstream connection must be closed within a second.
    closed: bool = False
    retry_after: tuple[int, int] | None = None
    should_retry: str | None = None
    param: str | None = None


def P(  # noqa: N802 - the letter of the fault table
    status: int | tuple[int, ...],
    code: str | tuple[str, ...],
    says: str = "",
    *,
    closed: bool = False,
    retry_after: tuple[int, int] | None = None,
    should_retry: str | None = None,
    param: str | None = None,
) -> Expect:
    """Nothing was sent yet: the true status."""
    statuses = status if isinstance(status, tuple) else (status,)
    codes = code if isinstance(code, tuple) else (code,)
    return Expect("refused", codes, statuses, says, None, closed, retry_after, should_retry, param)


def S(code: str | tuple[str, ...], says: str = "", *, text: str | None = TEXT) -> Expect:  # noqa: N802
    """The stream had begun: one error event, and nothing that looks like an end."""
    return Expect("broken", code if isinstance(code, tuple) else (code,), (200,), says, text, closed=True)


def OK(text: str | None = TEXT, *, closed: bool = False) -> Expect:  # noqa: N802
    """A whole answer."""
    return Expect("finished", (), (200,), "", text, closed)


@dataclass(frozen=True)
class Row:
    """A scenario with its verdicts; None where it makes no sense."""

    model: str
    stream: Expect | None
    plain: Expect | None
    ops: tuple[str, ...] = ("chat", "completions", "embeddings")
    # Each request names a model of its own, where the gateway remembers what one said (a rate limit).
    apart: bool = False

    def name(self, op: str, stream: bool) -> str:
        """The model to ask for; the upstream looks only at what is before the dot."""
        return f"{self.model}.{op}-{'stream' if stream else 'plain'}" if self.apart else self.model


def both(model: str, expect: Expect) -> Row:
    """The same streaming and not."""
    return Row(model, expect, expect)


def limited(model: str, expect: Expect) -> Row:
    """A rate limit: the gateway does not ask that model again for a while."""
    return Row(model, expect, expect, apart=True)


def streamed(model: str, expect: Expect) -> Row:
    """Only streams have this fault."""
    return Row(model, expect, None, ("chat", "completions"))


TIMEOUT = P(504, "upstream_timeout", closed=True)
PROTOCOL = P(502, "upstream_protocol_error", closed=True)
TRUNCATED = P(502, "upstream_truncated", closed=True)
ENCODING = P(502, "upstream_encoding_error", closed=True)
TLS = P(502, "upstream_tls_error", should_retry="false")
REDIRECT = P(502, "upstream_redirect", should_retry="false")

CONNECT_ROWS = [
    both("at-refused", P(502, "upstream_connect_error")),
    both("at-blackhole", P(504, "upstream_timeout", "connect_timeout")),
    both("at-nxdomain", P(502, "upstream_dns_error")),
    both("at-private", P(502, "upstream_address_forbidden", should_retry="false")),
    both("at-tls-good", OK()),
    both("at-tls-expired", TLS),
    both("at-tls-wrong-name", TLS),
    both("at-tls-unknown-ca", TLS),
    both("at-tls-system", TLS),
    both("at-tls-plain", TLS),
    both("at-tls-silent", TLS),
    both("at-silent", P(504, "upstream_timeout", "first_event_timeout")),
    both("at-closing", P(502, "upstream_closed")),
]

HTTP_ROWS = [
    both("ok", OK()),
    both("u8-silence", TIMEOUT),
    both("u9-close", P(502, "upstream_closed", closed=True)),
    both("u10-rst", P(502, "upstream_closed", closed=True)),
    both("u11-drip-head", TIMEOUT),
    both("u12-many-headers", PROTOCOL),
    both("u12-big-header", PROTOCOL),
    both("u12-endless-headers", PROTOCOL),
    *(both(name, PROTOCOL) for name in (*STATUS_LINES, *LENGTHS, *CHUNK_SIZES)),
    both("u15-few-interim", OK()),
    both("u15-many-interim", PROTOCOL),
    both("u15-endless-interim", PROTOCOL),
    *(both(name, REDIRECT) for name in (*REDIRECTS, "u18-redirect-metadata", "u19-redirect-loop")),
    both("u20-401", P(502, "upstream_auth_error", should_retry="false")),
    both("u20-403", P(502, "upstream_auth_error", should_retry="false")),
    both("u21-404-json", P(404, "model_not_found", "does not exist")),
    both("u21-404-html", P(404, "model_not_found")),
    limited("u22-429-seconds", P(429, "rate_limit_exceeded", "Slow down", retry_after=(7, 7))),
    limited("u22-429-date", P(429, "rate_limit_exceeded", retry_after=(25, 30))),
    limited("u22-429-huge", P(429, "rate_limit_exceeded", retry_after=(120, 120))),
    limited("u22-429-negative", P(429, "rate_limit_exceeded")),
    limited("u22-429-garbage", P(429, "rate_limit_exceeded")),
    limited("u23-429-bare", P(429, "rate_limit_exceeded")),
    limited("u23-429-quota", P(429, "insufficient_quota", should_retry="false")),
    *(both(f"u24-{status}-json", P(status, "upstream_error", FIRE)) for status in BAD_STATUSES),
    *(both(f"u24-{status}-html", P(status, "upstream_error")) for status in BAD_STATUSES),
    *(both(f"u24-{status}-empty", P(status, "upstream_error")) for status in BAD_STATUSES),
    both("u24-500-endless", P(500, "upstream_error", closed=True)),
    both("u24-500-stall", P((500, 504), ("upstream_error", "upstream_timeout"), closed=True)),
    both("u24-400-json", P(400, "bad_k", "top_k", param="top_k")),
    both("u25-html", P(502, "upstream_bad_content_type")),
    both("u26-error-object", P(502, "upstream_error", FIRE)),
    both("u26-error-text", P(502, "upstream_error", FIRE)),
    Row("u27-json-always", OK(), OK(), ("chat", "completions")),
    Row("u28-sse-always", OK(), OK(), ("chat", "completions")),
    Row("u28-sse-broken", S("upstream_truncated", text="Hello wörld"), P(502, "upstream_truncated"),
        ("chat", "completions")),
    both("u29-204", P(502, "upstream_empty")),
    both("u29-empty", P(502, "upstream_empty")),
    Row("u29-comments-only", P(502, ("upstream_empty", "upstream_truncated")),
        P(502, ("upstream_empty", "upstream_truncated")), ("chat", "completions")),
]  # fmt: skip

STREAM_ROWS = [
    Row("u30-short-length", S("upstream_truncated"), TRUNCATED),
    Row("u31-no-last-chunk", S("upstream_truncated"), TRUNCATED),
    Row("u31-half-chunk", S("upstream_truncated"), TRUNCATED),
    Row("u32-clean-eof", S("upstream_truncated"), P(502, ("upstream_truncated", "upstream_invalid_answer"))),
    Row("u32-close-eof", S("upstream_truncated"), P(502, ("upstream_truncated", "upstream_invalid_answer"))),
    streamed("u32-partial-event", S("upstream_truncated")),
    streamed("u32-finish-no-done", OK()),
    Row("u33-rst-mid", S("upstream_reset"), P(502, "upstream_reset", closed=True)),
    both("u33-rst-first", P(502, "upstream_reset", closed=True)),
    Row("u34-stall-mid", S("upstream_timeout", "idle_timeout"), TIMEOUT),
    both("u34-stall-first", TIMEOUT),
    Row("u35-slow-loris", S("upstream_timeout", "idle_timeout"), TIMEOUT),
    Row("u35-comments", S("upstream_timeout", "idle_timeout"), TIMEOUT),
    both("u35-comments-first", TIMEOUT),
    Row("u36-endless-fast", S("stream_limit", text=None), P(502, "stream_limit", closed=True)),
    Row("u36-endless-slow", S("upstream_timeout", "total_timeout", text=None), TIMEOUT),
    streamed("u37-after-done", OK(closed=True)),
    streamed("u37-after-done-open", OK(closed=True)),
    both("u37-unasked", OK(closed=True)),
    both("u38-gzip", OK()),
    both("u38-deflate", OK()),
    both("u38-gzip-flushed", OK()),
    Row("u38-br", OK(), OK(), ("chat",)),
    Row("u38-zstd", OK(), OK(), ("chat",)),
    Row("u39-gzip-bomb", P(502, ("upstream_encoding_error", "event_too_large"), closed=True),
        P(502, ("upstream_encoding_error", "stream_limit"), closed=True)),
    Row("u39-gzip-bomb-later", S(("upstream_encoding_error", "stream_limit")),
        P(502, ("upstream_encoding_error", "stream_limit"), closed=True)),
    both("u39-nested", ENCODING),
    both("u39-unknown", ENCODING),
    both("u39-corrupt", ENCODING),
    both("u40-first", P(502, "upstream_invalid_utf8")),
    streamed("u40-later", S("upstream_invalid_utf8")),
    both("u41-bytewise", OK()),
    *(streamed(f"u42-{name}", OK()) for name in SPELLED),
    streamed("u43-big-first", P(502, "event_too_large", closed=True)),
    streamed("u43-big-later", S("event_too_large")),
    streamed("u43-no-newline", S("event_too_large")),
    Row("u44-first", P(502, "upstream_invalid_event"), P(502, "upstream_invalid_answer")),
    streamed("u44-later", S("upstream_invalid_event")),
    Row("u44-not-object", P(502, "upstream_invalid_event"), P(502, "upstream_invalid_answer")),
    streamed("u45-first", P(502, "on_fire", FIRE)),
    streamed("u45-first-429", P(429, "rate_limit_exceeded", FIRE)),
    streamed("u45-later", S("on_fire", FIRE)),
    streamed("u45-event-name", S("on_fire", FIRE)),
    streamed("u45-empty-choices", S("on_fire", FIRE)),
    *(both(f"u46-{name}", OK()) for name in ODD_USAGE),
]  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One request and its verdict."""

    model: str
    op: str
    stream: bool
    expect: Expect

    @property
    def id(self) -> str:
        """For pytest: `u8-silence/chat/stream`."""
        return f"{self.model}/{self.op}/{'stream' if self.stream else 'plain'}"


def cases() -> Iterator[Case]:
    """Every row, for each API, streaming or not."""
    for row in (*CONNECT_ROWS, *HTTP_ROWS, *STREAM_ROWS):
        for op in row.ops:
            if row.stream and op != "embeddings":
                yield Case(row.name(op, True), op, True, row.stream)
            if row.plain:
                yield Case(row.name(op, False), op, False, row.plain)
