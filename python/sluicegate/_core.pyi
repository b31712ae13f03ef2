"""The Rust core as Python sees it: request scan, upstream calls, the bridge of tokio and asyncio, and tokens.

`sluicegate.engine` and `sluicegate.tokens.core` are the only importers. Sizes are bytes, clocks seconds
unless the name says otherwise. A test compares this stub with the built module.
"""

from asyncio import Future
from collections.abc import Awaitable, Callable, Collection, Sequence
from collections.abc import Set as AbstractSet
from os import PathLike
from pathlib import Path
from typing import Any, Literal, Self, final

from typing_extensions import disjoint_base

__version__: str

Operation = Literal["chat", "completions", "embeddings"]
CancelCause = Literal["client_closed", "server_shutdown", "api_key_revoked", "api_key_expired"]
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
    def store(self) -> bool:
        """The answer is to be kept."""
    @property
    def thinking(self) -> str | None:
        """How much it is to think, by whichever field: `off`, `on`, `budget:N`, a level."""
    @property
    def message_count(self) -> int:
        """Messages of a chat."""
    @property
    def system_count(self) -> int:
        """Those of them whose role is `system` or `developer`."""
    @property
    def media_count(self) -> int:
        """Content parts that are no text: images, audio, files."""
    @property
    def prompt_bytes(self) -> int:
        """Bytes of what becomes the prompt, media left out: no fewer than its tokens, the template apart."""
    @property
    def input_count(self) -> int:
        """Texts in `prompt` or `input` that are answered each for itself; 1 for a chat."""
    @property
    def body(self) -> bytes:
        """As it came."""
    @property
    def size(self) -> int: ...
    def field(self, name: str) -> bytes | None:
        """The value of a top-level field, as it is written; None where there is none."""
    def messages(self) -> list[Message]:
        """The messages of a chat, in their order."""
    def inject(self, texts: list[bytes]) -> Request:
        """The request with these messages (as JSON) before its first one that is not the system's.

        Raises RequestError where it becomes one that cannot be accepted.
        """
    def compose(
        self, recipe: Recipe, model: str | None, include_usage: bool, max_tokens: int | None
    ) -> tuple[bytes, list[str]]:
        """The body as `recipe` wants it, with `model` set, usage asked for, and this limit on the answer.

        Every other byte stays as it came; a body that needs no change is returned as the same object. None
        leaves the model, or the client's own limit, alone. `include_usage` sets that stream option.
        Also returns the names of what the client gave and the upstream does not get.
        """

@final
class Message:
    """One message, as far as conversations are compared by it."""

    def __new__(cls, text: bytes) -> Self:
        """Of its JSON. Raises ValueError for what is none."""
    @property
    def role(self) -> str: ...
    @property
    def is_system(self) -> bool:
        """Of the role `system` or `developer`: not compared."""
    @property
    def start(self) -> int:
        """Where it begins in the body."""
    @property
    def end(self) -> int: ...
    @property
    def digest(self) -> bytes:
        """The same for what clients write differently and mean alike."""
    @property
    def calls(self) -> list[str]:
        """The ids of the tools that it calls."""
    @property
    def answers(self) -> str | None:
        """The call that it is the result of."""

def chain(previous: bytes, digests: list[bytes]) -> list[bytes]:
    """The digests of conversations that grow by one message each, behind the one with this digest."""

def without_thoughts(text: str) -> str:
    """The text without what a model thought in front of it (`<think>…</think>`)."""

@final
class Recipe:
    """What is done to every request for one assistant at one upstream; made once, used by many threads."""

    def __new__(
        cls,
        *,
        system_prompt: str | None = None,
        system_role: str = "system",
        replace_system: bool = False,
        fields: list[tuple[str, bytes, bool]] = ...,
        denied: list[str] = ...,
        max_tokens_field: str | None = None,
        thinking: tuple[list[tuple[str, str | None, bytes]], bool] | None = None,
    ) -> Self:
        """`fields`: (name, value as JSON, locked). A locked value replaces the client's own.

        `replace_system` takes the client's system and developer messages out; `denied` fields leave. Neither
        `fields` nor `denied` may name what the scan reads (`model`, `messages`, `stream`, `n`, limits).
        `thinking`: the fields that say how much to think, as (name, member or None, value as JSON), instead
        of all that the client says of it; and whether the client is told that its own word was dropped.
        Raises ValueError for a `max_tokens_field` that is none, and for a field that is not about thinking.
        """

@final
class QualityChecks:
    """Checks of whole answers of chats: what is wrong with one for certain."""

    def __new__(
        cls, *, script: str | None = None, banned: Sequence[str] = ..., required: Sequence[str] = ...
    ) -> Self:
        """`script`: of most letters; `banned` must not be in the text, `required` must, without case."""
    def check(self, request: bytes, answer: bytes, *, partial: bool = False) -> tuple[int, list[str]] | None:
        """0 to 100 and the names of the checks that failed; 100: none did. None: no answer of a chat.

        `partial`: it may go on, so that what only its end can tell is left out.
        """

def stream_of(answer: bytes, hide_usage: bool) -> bytes:
    """The events of the stream that this whole answer of a chat would have been. Raises ValueError."""

def ask_logprobs(body: bytes, tops: int) -> tuple[bytes | None, bool]:
    """A chat's body that asks for log-probabilities with `tops` alternatives, and True: its answer must lose
    them. None and False: the client asks for them itself.
    """

def certainty_values(packed: int) -> list[float]:
    """The numbers of `Outcome.certainty`, in nats: the mean log-probability, that of the weakest 8 tokens in
    a row, the mean distance of the two likeliest ones, the mean entropy.
    """

@final
class Ranks:
    """How certain the last 512 answers of each assistant and model were, in a file that all processes map."""

    def __new__(cls, path: str | PathLike[str] | None) -> Self:
        """None: memory of this process alone. Raises OSError, also for a full disk."""
    def take(self, whose: Sequence[str], packed: int, tops: bool) -> tuple[int | None, int] | None:
        """Rank an answer among those of `whose`, then remember it: better than so many of a hundred, and of
        how many. The rank is None below 200. None: there is no room for more of whom.
        """
    @property
    def is_current(self) -> bool:
        """The path still leads to this file."""

def sha256(data: bytes) -> bytes:
    """The digest of a few bytes, such as a key: `hashlib` takes most of its time to find its function."""

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
        trusted: bool = True,
        exact: bool = False,
    ) -> Self:
        """Raises ValueError with a text that names what is wrong with the base URL, header, CIDR or file.

        `base_url` ends where `/chat/completions` begins, usually in `/v1`. An address written in it (or
        `localhost`) is allowed; a name that resolves to a private one needs `allow_private_networks`.
        Without `trusted` a written address needs it too. `exact`: the base URL is the whole address.
        """
    @staticmethod
    def check_foreign(base_url: str, allow_private_networks: list[str]) -> None:
        """Raises ValueError for a base URL that only the operator may write: one with a private address.

        Names pass: they are checked when they are resolved.
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
    def answer(self) -> bytes | None:
        """A stream as one JSON object, with `keep` or `shape`. See `state`: it may have broken off."""
    @property
    def closing(self) -> bytes:
        """The event that ends a response, to be sent behind the tail; empty without `shape`."""
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
    def thinking_bytes(self) -> int:
        """Of thinking, as far as it was told apart."""
    @property
    def answer_bytes(self) -> int:
        """Of everything else that was generated."""
    @property
    def thought_unmatched(self) -> bool:
        """A closing tag came that nothing had opened: this model's template opens it."""
    @property
    def thought_missed(self) -> bool:
        """The template was said to open a thought, and did not."""
    @property
    def finish_reasons(self) -> list[str]: ...
    @property
    def finish(self) -> str | None:
        """The first of them."""
    @property
    def upstream_model(self) -> str | None: ...
    @property
    def events(self) -> int: ...
    @property
    def bytes_in(self) -> int: ...
    @property
    def bytes_out(self) -> int:
        """Made of it for the client, where it is a stream."""
    @property
    def first_event_us(self) -> int | None: ...
    @property
    def duration_us(self) -> int: ...
    @property
    def attempts(self) -> int:
        """Connections tried: 2 where a pooled one turned out to be closed."""
    @property
    def certainty(self) -> tuple[int, bool] | None:
        """With `logprobs`, of a finished answer: its numbers in one, and whether there were alternatives."""
    @property
    def uncertain(self) -> str | None:
        """With `logprobs`: why they say nothing, such as `malformed_logprobs`."""

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
    def beginning(self) -> bytes | None:
        """Before `attach`: a chat's answer as far as it has come, as one JSON object."""
    def cancel(self, cause: CancelCause = "client_closed") -> None:
        """Close the upstream; the outcome follows at once, with an error event unless the client is gone."""

@final
class Call:
    """A call under way. Dropping it cancels the upstream call."""

    def cancel(self, cause: CancelCause = "client_closed") -> None:
        """End it, also its stream; the first cause stays."""

@final
class Bridge:
    """Completions of one event loop: watch `fileno()` with `add_reader(fd, drain)`.

    With `inline`, calls run on the thread of that loop, where the system allows it. Then `reactor_fileno()`
    is a descriptor to watch with `add_reader(fd, turn)`, and while calls are open `turn()` has to be called
    now and then for their clocks. Where it is None, they have a thread of their own all the same.
    """

    def __new__(cls, *, inline: bool = False) -> Self: ...
    def fileno(self) -> int: ...
    def reactor_fileno(self) -> int | None: ...
    def turn(self) -> None:
        """Let the calls of this thread go on, and settle what is ready. Never waits, never raises."""
    def drain(self) -> None:
        """Settle everything that is ready. Never raises."""
    def cancel_all(self, cause: Literal["client_closed", "server_shutdown"] = "client_closed") -> None:
        """End every call of this loop; streams get an error event where the cause is `server_shutdown`."""
    def close(self) -> None:
        """Refuse new calls and `cancel_all("server_shutdown")`; drain until `open_calls` is 0."""
    def exchange(
        self,
        upstream: Upstream,
        operation: Operation | Literal["models", "responses"],
        body: bytes | None,
        future: Any,
        *,
        stream: bool = False,
        public_model: str | None = None,
        public_id: str | None = None,
        keep: bool = False,
        shape: tuple[str, str, bool, bool] | None = None,
        thinking: tuple[str, bool] | None = None,
        logprobs: bool | None = None,
        hold_bytes: int = 0,
        said: Said | None = None,
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

        `models` sends GET /models; all else POSTs `body`. `public_model` replaces `model` in the answer,
        `public_id` its `id`. With `keep`, the outcome of a stream has the whole answer as well. `shape` makes
        a response of the Responses API of the answer to a chat: its id, its JSON without the last brace and
        without what follows from the answer, whether thoughts are shown as a summary, and whether log
        probabilities are shown.
        `thinking` is what becomes of it in a chat: `watch` changes nothing, `separate` shows it in
        `reasoning_content`, `hide` leaves it out; and whether this model's template opens the thought.
        `logprobs`: those of a chat are weighed (`Outcome.certainty`), and taken out if True.
        `hold_bytes`: a stream begins with so much text; until then it fails as a plain answer does.
        `said` gets the texts of the answer, so that their tokens can be counted.
        `choices` is the request's `n`: a stream that ends with fewer is not complete.
        `hide_usage` drops what `compose(include_usage=True)` caused. `keep_alive` > 0: a stream without a
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

@final
class LimitRules:
    """The limits of one workspace, key, assistant or upstream; immutable, made once for many requests."""

    def __new__(cls, owner: str, rules: list[tuple[str, int, int | None]]) -> Self:
        """`owner` names whose they are, such as `key:key_1`. Each rule: its kind, the most, the burst.

        Kinds: `requests_per_minute`, `requests_per_day`, `tokens_per_minute`, `tokens_per_day`,
        `concurrent_requests`, `usd_per_day|week|month`, `usd_total` (in millionths),
        `budget_tokens_per_day|week|month`, `budget_tokens_total`. Raises ValueError for another one.
        """
    def __len__(self) -> int: ...

@final
class LimitSets:
    """All limits that count for a request, put together once for many requests; immutable.

    `warn_percent`: the share of a budget from which on a request is not plain any more.
    """

    def __new__(cls, sets: list[LimitRules], warn_percent: int = 100) -> Self: ...

@final
class Admission:
    """What came of one request: what it holds until it is settled, or why it is refused.

    One that is dropped is settled as it was reserved.
    """

    @property
    def refused(self) -> tuple[int, str] | None:
        """The number of the rules and the kind of the limit that refuses; None: admitted."""
    @property
    def reason(self) -> Literal["rate", "too_large", "concurrent", "budget", "full"] | None: ...
    @property
    def retry_after_ms(self) -> int | None:
        """Who waits exactly so long gets in, if nobody else took the room."""
    @property
    def alone(self) -> bool:
        """A limit was counted in this process alone, by its share."""
    @property
    def budget(self) -> tuple[int, int] | None:
        """Of the budget that is used up furthest: used before this request, and the most."""
    @property
    def is_plain(self) -> bool:
        """Admitted, and no budget is used up as far as its `warn_percent`."""
    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """`x-ratelimit-*` of the rates with the least left."""
    def settle(self, tokens: int, micros: int) -> None:
        """The answer has ended: what was used, instead of what was reserved. Later calls do nothing."""

def rate_headers(rates: list[tuple[str, int, int, int, float]]) -> list[tuple[bytes, bytes]]:
    """`x-ratelimit-*` of the rates with the least left, where Redis counts them.

    Of each: its unit (`requests` or `tokens`), the limit, the burst, the period in microseconds, and what is
    owed: microseconds times the limit.
    """

@final
class Limits:
    """The limits of one machine in a mapped file: exact over all its processes.

    It belongs to the process that opens it: the child of a fork opens its own. A file that is missing,
    damaged, of another version or from before the machine started is made anew.
    """

    def __new__(cls, path: str | PathLike[str] | None, processes: int = 1) -> Self:
        """Without a path every limit is one share of `processes`. Raises OSError, also for a full disk."""
    def admit(self, sets: LimitSets, tokens: int, micros: int) -> Admission:
        """Reserve all or nothing: one request, tokens, and millionths of a dollar."""
    def tick(self) -> int:
        """Once a second: say that this process lives, and give back what dead ones held. Returns how many."""
    def seed(self, rules: LimitRules, kind: str, spent: int) -> None:
        """What the records say was spent in this period before the counter was made. Counts once."""
    def account(self, rules: LimitRules, kind: str) -> tuple[int, int, bool] | None:
        """Spent, held, and whether it is seeded; None where there is no such rule."""
    def correct(
        self, rules: LimitRules, opened_ms: int, charged: tuple[int, int], actual: tuple[int, int]
    ) -> None:
        """A request of a dead process: tokens and millionths of a dollar, as reserved and as used."""
    @property
    def is_current(self) -> bool:
        """Whether the path still leads to the mapped file. Asks the file system."""
    @property
    def is_shared(self) -> bool: ...
    @property
    def counted_alone(self) -> int:
        """How often a limit was counted in this process alone."""

@final
class Metrics:
    """What the worker processes of a gateway have done, in a mapped file that all of them count in.

    It belongs to the process that opens it. A file that is missing, damaged or has another `stamp` begins
    anew. What a dead process counted stays.
    """

    def __new__(cls, path: str | PathLike[str] | None = None, stamp: int = 0) -> Self:
        """Without a path: of this process alone. Raises OSError, also for a full disk."""
    def ended(
        self,
        operation: str,
        workspace: str,
        upstream: str | None,
        model: str | None,
        code: str | None,
        status: int,
        stream: bool,
        tokens: tuple[int, int, int, int],
        micros: int,
        attempts: int,
        first_us: int | None,
        answer_us: int | None,
        marks: Marks,
        closing: float,
    ) -> None:
        """A request has ended. `tokens`: prompt, completion, cached, reasoning; `micros`: of a dollar."""
    def failed(self, upstream: str) -> None:
        """A call of an upstream has failed, whatever came of its request."""
    def scored(
        self,
        workspace: str,
        assistant: str,
        score: int | None,
        verdict: Literal["passed", "flagged", "blocked"],
        again: int,
        micros: int,
        waited: int,
    ) -> None:
        """An answer was scored, 0 to 100; None: nothing can be said of it.

        `again`: further answers that were asked for; `micros`: cost of those that nobody got, in millionths;
        `waited`: for how many microseconds the client waited after the first answer was there.
        """
    def refused(self, subject: str, reason: str) -> None:
        """A limit of a workspace, key, assistant or upstream has refused a request."""
    def count(self, name: str, more: int) -> None:
        """More of a counter without labels; a name that there is none of counts nothing."""
    def lag(self, micros: int) -> None:
        """The event loop was late by so much."""
    def publish(self, name: str, value: int) -> None:
        """A gauge of this process."""
    def publish_pools(self, pools: list[tuple[str, int, int, bool]]) -> None:
        """All upstreams: name, idle connections, those in use, and whether others are asked first."""
    def tick(self) -> None:
        """Once a second: say that this process lives."""
    def read(self) -> list[tuple[str, list[str], list[int]]]:
        """Family, values of its labels, and the value; of a histogram its buckets and their sum.

        Counts over all processes, gauges of each that lives.
        """
    @staticmethod
    def bounds() -> tuple[list[int], list[int], list[int]]:
        """Upper bounds of the buckets: in microseconds of own work and of what is waited for; of scores."""

@final
class Marks:
    """When one request came through which stage: readings of `time.monotonic`, in seconds; 0: it has not."""

    def __new__(
        cls,
        began: float,
        known: float = 0.0,
        read: float = 0.0,
        planned: float = 0.0,
        admitted: float = 0.0,
        asked: float = 0.0,
        answered: float = 0.0,
        waited: float = 0.0,
    ) -> Self:
        """`waited`: seconds, for all upstreams together."""
    @property
    def began(self) -> float:
        """The request came."""
    def known(self) -> None:
        """Its caller is known now."""
    def read(self) -> None:
        """Its body is read."""
    def planned(self) -> None:
        """Its plan is made."""
    def admitted(self) -> None:
        """It is within its limits."""
    def asked(self) -> None:
        """An upstream is asked."""
    def answered(self) -> None:
        """It has answered: with the head of a stream, or all of a plain answer, or a failure."""
    def overhead_us(self, closing: float, answer_us: int | None) -> int:
        """The gateway's own part: all but the waiting for the client's body and for upstreams.

        `closing`: when the end began. `answer_us`: from the call to the end of the answer, by its own clock.
        """
    def phases(self, closing: float, relayed: bool) -> list[tuple[str, int]]:
        """Microseconds of each phase that it has come to; `relayed`: an answer was passed on."""

@final
class Journal:
    """Appends records to the segments of one process, one `write` each. Safe in threads."""

    def __new__(
        cls, folder: str | PathLike[str], name: str, segment_bytes: int = ..., most_waiting: int = ...
    ) -> Self:
        """Raises OSError where the folder cannot be made or written, ValueError for a name with a slash."""
    def append(self, kind: int, payload: bytes) -> bool:
        """False: the disk does not take it; it waits in memory, or is lost where there is no room."""
    def close(
        self,
        kind: int,
        id: str,
        workspace: str,
        key: str,
        operation: str,
        stream: bool,
        model: str | None,
        assistant: str | None,
        assistant_version: int | None,
        upstream: str | None,
        upstream_model: str | None,
        status: int,
        code: str | None,
        error: str | None,
        attempts: int,
        prompt_tokens: int,
        completion_tokens: int,
        cached_tokens: int,
        reasoning_tokens: int,
        source: str,
        micros: int,
        first_us: int | None,
        answer_us: int | None,
        marks: Marks,
        closing: float,
        bytes_in: int,
        bytes_out: int,
        client: str | None,
        finish: str | None,
        conversation: str | None,
        thinking: str | None,
        scored: tuple[int | None, str | None, str | None, str | None] | None,
    ) -> bool:
        """Append a request that has ended, as `usage.model.Record` is encoded; False: as of `append`.

        Tokens and millionths beyond 2^44 are 2^44. `answer_us`: from the call to the end of the answer; None:
        there is none. `scored`: score, failed checks, method and reason.
        """
    def flush(self) -> bool:
        """Write what waits; False: the disk still takes nothing."""
    def rotate(self) -> None:
        """Go on in a new segment, so that the last one can be removed. Raises OSError."""
    @property
    def waiting(self) -> int:
        """Records that wait in memory."""
    @property
    def lost(self) -> int: ...
    @property
    def written(self) -> int:
        """Bytes."""

@final
class JournalSegment:
    """A file of records, of this process or another."""

    @property
    def path(self) -> Path: ...
    @property
    def inode(self) -> int: ...
    @property
    def is_open(self) -> bool:
        """Its writer lives and may append."""
    def read(self, start: int, most: int) -> tuple[list[tuple[int, bytes, bytes]], int, bool, int]:
        """About `most` bytes of whole records from an offset on. Raises OSError.

        Returns them (kind, the 14 bytes of the id, the record), where the next ones begin, whether nothing
        whole follows, and how much damage was passed over: bytes, and frames that have no record in them.
        """
    def remove(self) -> bool:
        """False: it is gone already. Raises OSError."""

def journal_segments(folder: str | PathLike[str]) -> list[JournalSegment]:
    """The segments of all processes; none where there is no folder. Raises OSError."""

def record_rows(
    records: Sequence[bytes], at_once: int
) -> tuple[list[int], list[int], list[tuple[bytearray | str | int | None, ...]]]:
    """Records of the journal as parameters of `INSERT`.

    Returns the numbers of the fields in which all of them have the same value, of those in which they differ
    (the id among them; a field that no record fills is in neither), and for each statement the values: of the
    first ones once, then of the others `at_once` records after each other; the last tuple has the rest.
    Raises ValueError for what is no record.
    """

def record_sums(
    records: Sequence[bytes], dimensions: Sequence[int], summed: Sequence[int]
) -> list[tuple[str | int | None, ...]]:
    """Records of the journal by the hour and the fields `dimensions`.

    Returns for each the hour since 1970, these fields, how many records, and the totals of the fields
    `summed`. Without the GIL, but for the result. Raises ValueError for what is no record.
    """

@disjoint_base
class Tokenizer:
    """A tokenizer: a bundled encoding, or one from a `tokenizer.json`. Immutable, shared by threads.

    Special tokens in a text are text, unless a method says otherwise. Half surrogate pairs in a `str` count
    as U+FFFD. Long calls give up the GIL, and Ctrl-C ends them.
    """

    def __new__(cls, name: str, *, file: bool = False) -> Self:
        """`name` is that of an encoding, or with `file` the path of a `tokenizer.json`.

        Raises ValueError for a name that is not known or a file that cannot be used, OSError for one that
        cannot be read.
        """
    @property
    def name(self) -> str:
        """The encoding's name, or the file's path."""
    @property
    def is_file(self) -> bool:
        """It comes from a `tokenizer.json`."""
    @property
    def max_token_value(self) -> int:
        """The highest token id."""
    @property
    def n_vocab(self) -> int:
        """`max_token_value + 1`, as in tiktoken."""
    @property
    def special_tokens(self) -> dict[str, int]:
        """The special tokens and their ids."""
    def count(self, text: str) -> int:
        """The number of tokens of `text`: `len(encode_ordinary(text))`, several times faster.

        Raises ValueError where the tokenizer of a file cannot express the text.
        """
    def count_batch(self, texts: Sequence[str], *, num_threads: int | None = None) -> list[int]:
        """`count` of each text, without the GIL, on `num_threads` threads (else one a core, at most 8)."""
    def encode_ordinary(self, text: str) -> list[int]:
        """The token ids of `text`; special tokens in it are text."""
    def encode(
        self,
        text: str,
        *,
        allowed_special: Literal["all"] | AbstractSet[str] | None = None,
        disallowed_special: Literal["all"] | Collection[str] | None = None,
    ) -> list[int]:
        """The token ids of `text`.

        Special tokens in the text are text, unlike in tiktoken, which raises an error for them. Those in
        `allowed_special` (or `"all"`) become their own ids; those in `disallowed_special` raise ValueError,
        where `"all"` means all that are not allowed.
        """
    def encode_to_bytes(self, text: str) -> bytes:
        """As `encode_ordinary`, each id as 4 bytes in this machine's order, for `numpy.frombuffer`."""
    def encode_ordinary_batch(
        self, texts: Sequence[str], *, num_threads: int | None = None
    ) -> list[list[int]]:
        """`encode_ordinary` of each text, on threads as in `count_batch`."""
    def encode_batch(
        self,
        texts: Sequence[str],
        *,
        num_threads: int | None = None,
        allowed_special: Literal["all"] | AbstractSet[str] | None = None,
        disallowed_special: Literal["all"] | Collection[str] | None = None,
    ) -> list[list[int]]:
        """`encode` of each text, on threads as in `count_batch`."""
    def encode_single_token(self, text_or_bytes: str | bytes) -> int:
        """The id of the token, special or not, with exactly these bytes. Raises KeyError for none."""
    def decode(self, tokens: Sequence[int], errors: str = "replace") -> str:
        """The text of tokens; `errors` as in `bytes.decode`, for tokens that are not whole characters.

        Raises KeyError for an id that is not in the vocabulary.
        """
    def decode_bytes(self, tokens: Sequence[int]) -> bytes:
        """The bytes of tokens, joined. Raises KeyError for an id that is not in the vocabulary."""
    def decode_single_token_bytes(self, token: int) -> bytes:
        """The bytes of one token, special or not. Raises KeyError for an id that there is not."""
    def truncate(self, text: str, max_tokens: int, side: Literal["end", "start"] = "end") -> str:
        """The longest part of `text` with at most `max_tokens` tokens; `side` is the one that is cut off.

        The cut is at the end of a token and never inside a character. The result is counted again: its
        `count` is at most `max_tokens`, also where the shorter text divides into other tokens. Raises
        ValueError for another `side`, OverflowError for a negative number.
        """
    def split(self, text: str, max_tokens: int, overlap: int = 0) -> list[str]:
        """Chunks that cover `text`, each with at most `max_tokens` tokens, cut as by `truncate`.

        Each chunk begins with the last tokens of the one before it, as many as fit into `overlap` tokens.
        Without overlap the chunks joined are the text. Raises ValueError where `overlap` is not below
        `max_tokens`, or where one character alone has more tokens than that.
        """

@final
class Counter:
    """The exact count of a text that arrives in parts."""

    def __new__(cls, tokenizer: Tokenizer) -> Self:
        """Nothing was fed yet."""
    def feed(self, text: str) -> None:
        """The next part. Parts may end between any two characters."""
    @property
    def total(self) -> int:
        """The tokens of all parts joined as one text."""
    @property
    def kept_bytes(self) -> int:
        """How much text is kept: about a kilobyte, more only within a run without any break.

        Of a tokenizer from a file all text is kept, because its rules can be any.
        """

@final
class MessageCount:
    """The tokens of a chat request before its answer."""

    @property
    def tokens(self) -> int:
        """All of them."""
    @property
    def image_tokens(self) -> int:
        """Those of images, part of `tokens`."""
    @property
    def exact(self) -> bool:
        """OpenAI's published function gives this number; otherwise it is an estimate."""
    @property
    def reasons(self) -> tuple[str, ...]:
        """Codes of why it is an estimate: `unknown_tokenizer`, `unpublished_model`, `image_size` …"""

def encoding_names() -> list[str]:
    """The names of the bundled encodings."""

def encoding_name_for_model(model: str) -> str | None:
    """The encoding of an OpenAI model, as in tiktoken; None where it is not known."""

def count_chat(body: bytes, model: str, tokenizer: Tokenizer | None) -> MessageCount:
    """Count the JSON body of a chat request; without a tokenizer its bytes, as an estimate.

    Raises ValueError for what is not JSON or has no `messages`.
    """

def count_prompt(
    operation: str, body: bytes, model: str, tokenizer: Tokenizer, seconds: float
) -> MessageCount | None:
    """Count the JSON body of a request, all but of `responses`; None if it takes longer than `seconds`.

    The GIL is given up for longer bodies, and not taken before the end. Raises ValueError as `count_chat`.
    """

@final
class Said:
    """What one answer has said so far, each text of each choice by itself.

    With a bundled encoding from the start only the last kilobytes of each text are kept: the rest is counted.
    """

    def __new__(cls, tokenizer: Tokenizer | None = None) -> Self:
        """Nothing yet; without a tokenizer all text is kept until `count`."""
    @property
    def pending_bytes(self) -> int:
        """So much has still to be counted."""
    def count(self, tokenizer: Tokenizer, seconds: float) -> int | None:
        """The tokens of all texts; None if it takes longer than `seconds`.

        `tokenizer` is for an answer that began without one. The GIL is given up for long texts. Raises
        ValueError where the tokenizer of a file cannot express a text.
        """

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
