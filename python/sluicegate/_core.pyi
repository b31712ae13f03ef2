"""The Rust core as Python sees it: request scan, upstream calls, and the bridge between tokio and asyncio.

`sluicegate.engine` is the only importer. Sizes are bytes, clocks seconds unless the name says otherwise.
A test compares this stub with the built module.
"""

from asyncio import Future
from collections.abc import Awaitable, Callable
from os import PathLike
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
        future: Future[Reply],
        *,
        stream: bool = False,
        public_model: str | None = None,
        hide_usage: bool = False,
        choices: int = 1,
        keep_alive: float = 0.0,
        request_id: str | None = None,
        headers: list[tuple[str, str]] = ...,
        first_event_timeout: float | None = None,
        total_timeout: float | None = None,
    ) -> Call:
        """Start one call; `future` resolves to a Reply.

        `models` sends GET /models; all else POSTs `body`. `public_model` replaces `model` in the answer.
        `choices` is the request's `n`: a stream that ends with fewer is not complete.
        `hide_usage` drops what `rewrite(include_usage=True)` caused. `keep_alive` > 0: a stream without a
        first event after that many seconds resolves all the same, and comments follow at that pace.
        `request_id` goes upstream as `x-request-id`.
        """
    @property
    def open_calls(self) -> int: ...

@final
class SharedTable:
    """The mapped file of one machine's worker processes: atomics that all of them read and write.

    Safe in threads, and after a fork. The file is made with mode 0600 where it is missing, and mended in
    place where it is damaged; then its generation is one that nobody has seen.
    """

    def __new__(cls, path: str | PathLike[str]) -> Self:
        """Raises OSError for a path that cannot be opened, is no ordinary file, or is a symbolic link."""
    @property
    def generation(self) -> int:
        """What is cached under another number may be out of date. One atomic read."""
    def advance(self) -> int:
        """Something has changed and is committed. Returns the new generation."""
    def note(self, row: int) -> int:
        """The database's own generation is `row`; it counts as a change where it is not the last one noted.

        Returns the generation that is now in force.
        """
    @property
    def is_current(self) -> bool:
        """Whether the path still leads to the mapped file. Asks the file system."""
