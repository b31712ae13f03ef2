"""A core without Rust: calls answer from a script, and remember what they were asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sluicegate.engine import PendingReply


@dataclass
class FakeFailure:
    """As `_core.Failure`."""

    cause: str = "upstream_connect_error"
    status: int = 502
    type: str = "upstream_error"
    code: str = "upstream_connect_error"
    message: str = "The upstream cannot be reached."
    param: str | None = None
    retryable: bool = True
    counts_against_upstream: bool = True
    retry_after_ms: int | None = None
    should_retry: bool | None = None


def limited(after_ms: int | None) -> FakeFailure:
    """A 429."""
    return FakeFailure(
        "rate_limit_exceeded",
        429,
        "requests",
        "rate_limit_exceeded",
        "slow down",
        counts_against_upstream=False,
        retry_after_ms=after_ms,
    )


@dataclass
class FakeOutcome:
    """As `_core.Outcome`."""

    state: str = "finished"
    failure: FakeFailure | None = None
    tail: bytes = b""
    prompt_tokens: int | None = 3
    completion_tokens: int | None = 5
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    bytes_in: int = 0
    bytes_out: int = 0
    closing: bytes = b""
    usage_suspect: bool = False
    finish_reasons: list[str] = field(default_factory=lambda: ["stop"])
    events: int = 1
    answer: bytes | None = None
    first_event_us: int | None = 1500
    duration_us: int = 2000
    thinking_bytes: int = 0
    answer_bytes: int = 20
    thought_unmatched: bool = False
    thought_missed: bool = False
    certainty: tuple[int, bool] | None = None
    uncertain: str | None = None

    @property
    def finish(self) -> str | None:
        return next(iter(self.finish_reasons), None)


class FakeStream:
    """Sends its batches the moment it is attached, as `drain` does, and is over."""

    def __init__(self, batches: list[bytes], outcome: FakeOutcome) -> None:
        self.batches = batches
        self.outcome = outcome
        self.cancelled = False

    def attach(self, send: Callable[[dict[str, Any]], Any], future: asyncio.Future[Any]) -> FakeOutcome:
        for batch in self.batches:
            step = send({"type": "http.response.body", "body": batch, "more_body": True})
            try:
                step.send(None)
            except StopIteration:
                continue
            raise AssertionError("this fake has no backpressure")
        return self.outcome

    def cancel(self, cause: str = "client_closed") -> None:
        self.cancelled = True


@dataclass
class FakeReply:
    """As `_core.Reply`."""

    failure: FakeFailure | None = None
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b"{}"
    outcome: FakeOutcome | None = field(default_factory=FakeOutcome)
    stream: FakeStream | None = None


def failed(failure: FakeFailure | None = None) -> FakeReply:
    """A call that failed."""
    return FakeReply(failure or FakeFailure(), outcome=None)


def streaming(*batches: bytes, outcome: FakeOutcome | None = None) -> FakeReply:
    """A stream of these batches."""
    outcome = outcome or FakeOutcome(tail=b"data: [DONE]\n\n")
    return FakeReply(stream=FakeStream(list(batches), outcome), outcome=None)


@dataclass
class FakeCall:
    """As `_core.Call`; a cancelled one ends as the core's does."""

    future: asyncio.Future[Any]
    cancelled: bool = False

    def cancel(self, cause: str = "client_closed") -> None:
        self.cancelled = True
        if not self.future.done():
            status = 499 if cause == "client_closed" else 401
            self.future.set_result(failed(FakeFailure(cause, status, code=cause, retryable=False)))


@dataclass
class Asked:
    """One call as it reached the core."""

    upstream: Any
    operation: str
    body: bytes | None
    options: dict[str, Any]
    call: FakeCall


class FakeEngine:
    """Answers each call with `script(asked)`; None leaves it open."""

    def __init__(self, script: Callable[[Asked], FakeReply | None]) -> None:
        self.script = script
        self.asked: list[Asked] = []
        self.closed = False

    def start(self, upstream: Any, operation: str, body: bytes | None, **options: Any) -> PendingReply:
        future = asyncio.get_running_loop().create_future()
        asked = Asked(upstream, operation, body, options, FakeCall(future))
        self.asked.append(asked)
        reply = self.script(asked)
        if reply is not None:
            future.set_result(reply)
        call: Any = asked.call
        return PendingReply(call, future)

    async def call(self, upstream: Any, operation: str, body: bytes | None, **options: Any) -> Any:
        return await self.start(upstream, operation, body, **options).reply()

    async def close(self) -> None:
        self.closed = True
        for asked in self.asked:
            asked.call.cancel()


class FakeUpstream:
    """As `_core.Upstream`: remembers its settings, refuses a base URL with `bad` in it."""

    def __init__(self, base_url: str, **options: Any) -> None:
        if "bad" in base_url:
            raise ValueError("the port of the base URL is not a number")
        self.base_url = base_url
        self.options = options
        self.origin = base_url.removesuffix("/v1")

    def connections(self) -> tuple[int, int]:
        return 0, 0


class FakeRequest:
    """As `_core.Request`, by way of Python's own parser."""

    def __init__(self, operation: str, body: bytes) -> None:
        self.values = json.loads(body)
        self.model: str | None = self.values.get("model")
        self.stream: bool = self.values.get("stream", False) and operation != "embeddings"
        self.n = 1
        self.store = bool(self.values.get("store"))
        limits = ("max_completion_tokens", "max_tokens", "max_output_tokens")
        self.max_tokens: int | None = next((self.values[n] for n in limits if n in self.values), None)
        messages = self.values.get("messages", [])
        self.message_count = len(messages)
        self.system_count = sum(message["role"] in ("system", "developer") for message in messages)
        self.media_count = self.values.get("x_media", 0)
        self.input_count = 1
        self.prompt_bytes = len(json.dumps(messages)) if messages else len(body)
        self.body = body
        self.thinking: str | None = self.values.get("reasoning_effort")
        self.include_usage = bool((self.values.get("stream_options") or {}).get("include_usage"))

    def compose(
        self, recipe: FakeRecipe, model: str | None, include_usage: bool, max_tokens: int | None
    ) -> tuple[bytes, list[str]]:
        """Only what tests of Python look at; what the core does with a recipe is tested there."""
        values = {name: value for name, value in self.values.items() if name not in recipe.denied}
        for name, text, locked in recipe.fields:
            if locked or name not in values:
                values[name] = json.loads(text)
        if max_tokens is not None and max_tokens != self.max_tokens:
            values[recipe.max_tokens_field] = max_tokens
        if recipe.system_prompt is not None:
            first = {"role": recipe.system_role, "content": recipe.system_prompt}
            values["messages"] = [first, *values.get("messages", [])]
        if model is not None:
            values["model"] = model
        if include_usage:
            values["stream_options"] = {"include_usage": True}
        dropped = [name for name in recipe.denied if name in self.values]
        return (self.body if values == self.values else json.dumps(values).encode()), dropped


@dataclass
class FakeRecipe:
    """As `_core.Recipe`."""

    system_prompt: str | None = None
    system_role: str = "system"
    replace_system: bool = False
    fields: list[tuple[str, bytes, bool]] = field(default_factory=list)
    denied: list[str] = field(default_factory=list)
    max_tokens_field: str = "max_tokens"
    thinking: tuple[list[tuple[str, str | None, bytes]], bool] | None = None
