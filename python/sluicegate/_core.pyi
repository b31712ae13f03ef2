"""The Rust core as Python sees it: request scan, upstream calls, and the bridge between tokio and asyncio.

`sluicegate.engine` is the only importer. Sizes are bytes, clocks seconds unless the name says otherwise.
A test compares this stub with the built module.
"""

from asyncio import Future
from collections.abc import Awaitable, Callable
from typing import Any, Literal, Self, final

__version__: str

Operation = Literal["chat", "completions", "embeddings"]
Header = tuple[bytes, bytes]
Send = Callable[[dict[str, Any]], Awaitable[None]]

class RequestError(ValueError):
    """A request body that cannot be accepted: `args` is `(code, message, param)`, the status always 400."""

@final
class Request:
    """One scanned request body: what the gateway reads of it, and the bytes as they came."""

    @property
    def model(self) -> str | None: ...
    @property
    def stream(self) -> bool: ...
    @property
    def include_usage(self) -> bool:
        """The client itself asked for `stream_options.include_usage`."""
    @property
    def max_tokens(self) -> int | None:
        """`max_completion_tokens`, else `max_tokens`, else `max_output_tokens`."""
    @property
    def n(self) -> int:
        """Choices asked for, 1 where the field is absent."""
    @property
    def size(self) -> int: ...
    def rewrite(self, model: str | None, include_usage: bool) -> bytes:
        """The body with `model` set and/or `stream_options.include_usage` true; every other byte as it came.

        `model=None` leaves the model alone. A body that needs no change is returned as the same object.
        """

def scan(operation: Operation, body: bytes) -> Request:
    """Read a request body in one pass.

    Raises RequestError with code `invalid_json`, `json_too_deep`, `duplicate_key`, `invalid_utf8`,
    `invalid_type`, `invalid_value`, `missing_required_parameter`; `param` names the field.
    """

@final
class Upstream:
    """One OpenAI-compatible server: its origin, credentials, clocks and pooled connections."""

    def __new__(
        cls,
        base_url: str,
        *,
        api_key: str | None = None,
        headers: list[tuple[str, str]] = ...,
        connect_timeout: float = 5.0,
        first_event_timeout: float = 300.0,
        idle_timeout: float = 120.0,
        total_timeout: float = 1800.0,
        pool_idle_timeout: float = 25.0,
        max_event_bytes: int = 1048576,
        max_answer_bytes: int = 67108864,
        allow_private_networks: list[str] = ...,
        ca_file: str | None = None,
        http2: bool = True,
    ) -> Self:
        """Raises ValueError with a text that names what is wrong with the base URL, header, CIDR or file.

        `base_url` ends where `/chat/completions` begins, usually in `/v1`. An address written in it (or
        `localhost`) is allowed; a name that resolves to a private one needs `allow_private_networks`.
        """
    @property
    def origin(self) -> str:
        """`scheme://host:port`, without path, user or key."""
    def connections(self) -> tuple[int, int]:
        """(idle in the pool, in use)"""

@final
class Failure:
    """Why a call failed, ready to be shown: see `Error` in rust/core/src/error.rs."""

    @property
    def cause(self) -> str:
        """The stable code of the cause (`upstream_timeout` …); for logs and metrics."""
    @property
    def status(self) -> int: ...
    @property
    def type(self) -> str: ...
    @property
    def code(self) -> str:
        """What the client sees: the upstream's own code where it sent one, else the cause."""
    @property
    def message(self) -> str: ...
    @property
    def param(self) -> str | None: ...
    @property
    def retryable(self) -> bool:
        """Another upstream may be asked, while nothing reached the client."""
    @property
    def counts_against_upstream(self) -> bool: ...
    @property
    def retry_after_ms(self) -> int | None: ...
    @property
    def should_retry(self) -> bool | None: ...

@final
class Outcome:
    """How an answer ended and what was observed in it."""

    @property
    def state(self) -> Literal["finished", "failed", "cancelled"]: ...
    @property
    def failure(self) -> Failure | None: ...
    @property
    def tail(self) -> bytes:
        """The last bytes of a stream, not yet sent: they leave after the call is settled."""
    @property
    def prompt_tokens(self) -> int | None: ...
    @property
    def completion_tokens(self) -> int | None: ...
    @property
    def cached_tokens(self) -> int | None: ...
    @property
    def reasoning_tokens(self) -> int | None: ...
    @property
    def usage_suspect(self) -> bool:
        """The upstream's usage was negative, absurd, or contradicted itself."""
    @property
    def finish_reasons(self) -> list[str]: ...
    @property
    def upstream_model(self) -> str | None: ...
    @property
    def events(self) -> int: ...
    @property
    def bytes_in(self) -> int: ...
    @property
    def first_event_us(self) -> int | None: ...
    @property
    def duration_us(self) -> int: ...
    @property
    def attempts(self) -> int:
        """Connections tried: 2 where a pooled one turned out to be closed."""

@final
class Reply:
    """What a call's future resolves to; never an exception."""

    @property
    def failure(self) -> Failure | None:
        """Set: nothing else is, and nothing was sent."""
    @property
    def headers(self) -> list[Header]:
        """Allow-listed response headers, already renamed (`x-upstream-request-id` …)."""
    @property
    def body(self) -> bytes: ...
    @property
    def outcome(self) -> Outcome | None:
        """Of a plain answer."""
    @property
    def stream(self) -> Stream | None: ...

@final
class Stream:
    """A streamed answer whose first event has arrived (or whose keep-alive time has passed)."""

    def attach(self, send: Send, future: Future[Any]) -> Outcome | None:
        """From now on every batch goes to `send` as `http.response.body` with `more_body` true.

        Returns the outcome when the answer has already ended; otherwise `future` resolves either to the
        outcome, or to an awaitable: await it (a `send` that would block), then call `resume(future)`.
        """
    def resume(self, future: Future[Any]) -> Outcome | None:
        """After the awaitable that the last future resolved to: go on with a new future, as in `attach`."""
    def cancel(self, cause: Literal["client_closed", "server_shutdown"] = "client_closed") -> None:
        """Close the upstream; the outcome follows at once (`server_shutdown`: with an error event)."""

@final
class Call:
    """A call under way. Dropping it cancels the upstream call."""

    def cancel(self) -> None: ...

@final
class Bridge:
    """Completions of one event loop: watch `fileno()` with `add_reader(fd, drain)`."""

    def __init__(self) -> None: ...
    def fileno(self) -> int: ...
    def drain(self) -> None:
        """Settle everything that is ready. Never raises."""
    def cancel_all(self, cause: Literal["client_closed", "server_shutdown"] = "client_closed") -> None:
        """End every call of this loop; streams get an error event where the cause is `server_shutdown`."""
    def close(self) -> None:
        """Refuse new calls and `cancel_all("server_shutdown")`; drain until `open_calls` is 0."""
    def exchange(
        self,
        upstream: Upstream,
        operation: Operation | Literal["models"],
        body: bytes | None,
        future: Any,
        *,
        stream: bool = False,
        public_model: str | None = None,
        hide_usage: bool = False,
        choices: int = 1,
        keep_alive: float = 0.0,
        request_id: str | None = None,
        headers: list[tuple[str, str]] = ...,
        first_event_timeout: float | None = None,
        idle_timeout: float | None = None,
        total_timeout: float | None = None,
    ) -> Call:
        """Start one call; `future`, an asyncio one or what has its `done` and `set_result`, gets a Reply.

        `models` sends GET /models; all else POSTs `body`. `public_model` replaces `model` in the answer.
        `choices` is the request's `n`: a stream that ends with fewer is not complete.
        `hide_usage` drops what `rewrite(include_usage=True)` caused. `keep_alive` > 0: a stream without a
        first event after that many seconds resolves all the same, and comments follow at that pace.
        `request_id` goes upstream as `x-request-id`.
        """
    @property
    def open_calls(self) -> int: ...

@final
class Usage:
    """Token counts as a server reports them; None where it says nothing credible."""

    def __new__(
        cls,
        prompt_tokens: int | None = None,
        completion_tokens: int | None = None,
        total_tokens: int | None = None,
        cached_tokens: int | None = None,
        reasoning_tokens: int | None = None,
    ) -> Self: ...
    @property
    def prompt_tokens(self) -> int | None: ...
    @property
    def completion_tokens(self) -> int | None: ...
    @property
    def total_tokens(self) -> int | None: ...
    @property
    def cached_tokens(self) -> int | None: ...
    @property
    def reasoning_tokens(self) -> int | None: ...

@final
class ToolCallDelta:
    """A fragment of a tool call; fragments with one `index` belong together."""

    def __new__(
        cls, index: int | None = None, id: str | None = None, name: str | None = None, arguments: str = ...
    ) -> Self: ...
    @property
    def index(self) -> int | None: ...
    @property
    def id(self) -> str | None: ...
    @property
    def name(self) -> str | None: ...
    @property
    def arguments(self) -> str: ...

@final
class Chunk:
    """One chunk of a streamed answer. Texts are empty, and the rest is None, where it says nothing of it."""

    def __new__(
        cls,
        content: str | None = None,
        *,
        thinking: str | None = None,
        refusal: str | None = None,
        tool_calls: tuple[ToolCallDelta, ...] | None = None,
        finish_reason: str | None = None,
        usage: Usage | None = None,
        index: int = 0,
    ) -> Self: ...
    @property
    def content(self) -> str: ...
    @property
    def thinking(self) -> str: ...
    @property
    def refusal(self) -> str: ...
    @property
    def tool_calls(self) -> tuple[ToolCallDelta, ...]: ...
    @property
    def finish_reason(self) -> str | None: ...
    @property
    def usage(self) -> Usage | None: ...
    @property
    def index(self) -> int:
        """Of the choice; 0 unless `n` was asked for."""

@final
class Chunks:
    """A streamed chat answer that is read here instead of being sent on. Dropping it cancels the upstream
    call.

    What has come is also kept joined, for the choice 0.
    """

    def __new__(cls, stream: Stream) -> Self:
        """Raises ValueError for a stream that has not begun. It must not be attached."""
    def take(self) -> list[Chunk]:
        """All chunks that are ready. Empty: the answer is over if `outcome` is set; else `wait`."""
    def wait(self, future: Any) -> None:
        """Settle `future`, by `set_result(None)`, when there is something to take; only after an empty
        `take`, and one at a time.
        """
    def cancel(self) -> None:
        """Close the upstream; the outcome follows at once."""
    @property
    def outcome(self) -> Outcome | None: ...
    @property
    def content(self) -> str: ...
    @property
    def thinking(self) -> str: ...
    @property
    def refusal(self) -> str: ...
    @property
    def finish_reason(self) -> str | None: ...
    @property
    def usage(self) -> Usage | None: ...
    @property
    def tool_calls(self) -> tuple[ToolCallDelta, ...]: ...

class EventTooLargeError(ValueError):
    """One event is larger than the decoder's limit; the decoder is of no further use."""

@final
class Event:
    """One server-sent event, immutable.

    `event` is its type, `id` the last event id that is in force, `retry` the milliseconds that this event
    asks the client to wait before it reconnects.
    """

    def __new__(cls, data: str, *, event: str = "message", id: str = "", retry: int | None = None) -> Self:
        """Raises ValueError for a line break in `event` or `id`, or a NUL in `id`: they cannot be sent."""
    @property
    def data(self) -> str: ...
    @property
    def event(self) -> str: ...
    @property
    def id(self) -> str: ...
    @property
    def retry(self) -> int | None: ...
    def encode(self) -> bytes:
        """The bytes of this event alone."""

@final
class EventDecoder:
    """The incremental decoder of one stream of server-sent events. Any split of the bytes gives the same
    events.
    """

    def __new__(cls, max_event_bytes: int = 1048576) -> Self: ...
    def feed(self, data: bytes | bytearray | memoryview) -> list[Event]:
        """The events that these bytes complete.

        Raises EventTooLargeError for an event of more than `max_event_bytes`, in the call after the one
        that gives the events before it; ValueError after `close`; TypeError for what is not bytes.
        """
    def close(self) -> None:
        """The stream has ended: what it cut off is no event. Raises EventTooLargeError where `feed` has yet
        to.
        """
    @property
    def pending(self) -> int:
        """Bytes of an event that is not complete."""
    @property
    def retry(self) -> int | None:
        """The milliseconds that the stream asked for last."""

@final
class EventEncoder:
    """Writes the events of one stream, each id only where it changes."""

    def __new__(cls) -> Self: ...
    def encode(self, event: Event) -> bytes: ...
    def comment(self, text: str) -> bytes:
        """A comment, which every client skips; it keeps a silent connection alive."""
