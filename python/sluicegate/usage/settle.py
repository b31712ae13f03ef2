"""The one record of each request, written when its end is known and before its last bytes leave."""

from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct
from msgspec.structs import replace

from sluicegate import errors
from sluicegate.clock import monotonic
from sluicegate.engine import Marks
from sluicegate.telemetry.logs import Log
from sluicegate.usage.bodies import Body, Copy
from sluicegate.usage.measure import Metering, is_untold
from sluicegate.usage.model import Record, bounded
from sluicegate.usage.prices import FREE, Price
from sluicegate.usage.tell import End, Teller, Used, Verdict, observed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sluicegate.engine import Failure, Outcome
    from sluicegate.errors import GatewayError, Header
    from sluicegate.http.head import Head
    from sluicegate.telemetry.trace import Forward, Trace
    from sluicegate.usage.bodies import Bodies
    from sluicegate.usage.recorder import Recorder

CLIENT_CLOSED = 499
_INTERNAL = 500
_FIRST_5XX = 500


class Held(Protocol):
    """What a request has reserved of its limits."""

    def settle(self, tokens: int, micros: int) -> None:
        """What was really used."""


class Caller(Protocol):
    """Who asks; `keys.model.Principal` is one."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def workspace(self) -> str: ...


class Scored(Protocol):
    """What was found out about the quality of an answer; `quality.model.Grade` is one."""

    @property
    def score(self) -> int | None: ...
    @property
    def failed_checks(self) -> str | None: ...
    @property
    def method(self) -> str: ...
    @property
    def reason(self) -> str | None: ...
    def line(self) -> dict[str, object]:
        """What a log line has of it."""


class Entry(Struct, gc=False):
    """What is known of a request, filled in as its stages find out."""

    request_id: str
    operation: str
    marks: Marks
    principal: str | None = None
    model: str | None = None
    upstream: str | None = None
    upstream_model: str | None = None
    stream: bool = False
    attempts: int = 0
    workspace: str = ""
    key: str = ""
    assistant: str | None = None
    assistant_version: int | None = None
    client: str | None = None
    conversation: str | None = None
    bytes_in: int = 0
    # Of a plain answer; what was made of a stream is told by its outcome.
    bytes_out: int = 0
    # Of the prompt, before an upstream has counted it.
    prompt_tokens: int = 0
    reserved_tokens: int = 0
    reserved_micros: int = 0
    # None until the request is admitted, and once it is settled.
    held: Held | None = None
    copy: Copy | None = None
    # The same of the upstream that is asked, where that has limits.
    at_upstream: Held | None = None
    price: Price = FREE
    limit_headers: "Sequence[Header]" = ()
    # The client wants to know of them.
    timed: bool = False
    trace: "Trace | None" = None
    has_ended: bool = False
    # Of the last attempt; None: its tokenizer is not known. `measured`: what was counted of which answer.
    meter: Metering | None = None
    measured: "dict[Outcome | None, Used] | None" = None
    # What the last attempt said of thinking, and whether the core looks for some in its answer.
    switch: Any = None
    looks: bool = False
    # What thinking did to the answer that is wrong.
    thinking: str | None = None
    # Scores a stream at its end.
    grade: "Callable[[Outcome], None] | None" = None
    # None: no score is asked for.
    scored: "Scored | None" = None
    # What became of the answer, how many others were asked for, and for how long, in microseconds.
    verdict: Verdict = "passed"
    asked_again: int = 0
    scoring_us: int = 0
    # Of answers that were not good enough, and that nobody got.
    spent_prompt: int = 0
    spent_completion: int = 0
    spent_micros: int = 0

    def answered(self, body: bytes) -> None:
        """The whole answer of a call that is no stream."""
        self.bytes_out = len(body)
        if self.copy is not None:
            self.copy.answered(body)

    async def measure(self, outcome: "Outcome | None") -> None:
        """Count what was used for this answer, if its upstream has not told; None: it never came."""
        meter = self.meter
        if meter is not None and (outcome is None or is_untold(outcome)):
            self.measured = {**(self.measured or {}), outcome: await meter.measure(self.prompt_tokens)}

    @property
    def measuring(self) -> "Callable[[Outcome], Awaitable[None]] | None":
        """`measure`, where there is something to be counted with."""
        return None if self.meter is None else self.measure

    def used_now(self) -> Used:
        """What is known of a call that has no end of its own."""
        if self.measured is not None and None in self.measured:
            return self.measured[None]
        meter = self.meter
        return Used(self.prompt_tokens, 0) if meter is None else meter.measure_now(self.prompt_tokens)

    def record(self) -> Record:
        """As it stands while it is under way: the prompt is sent, and of the answer nobody knows."""
        return Record(
            id=self.request_id,
            workspace=self.workspace,
            key=self.key,
            operation=self.operation,
            stream=self.stream,
            model=self.model or "",
            assistant=self.assistant,
            assistant_version=self.assistant_version,
            upstream=self.upstream,
            upstream_model=self.upstream_model,
            attempts=self.attempts,
            prompt_tokens=self.prompt_tokens,
            micros=self.price.cost(self.prompt_tokens, 0),
            bytes_in=self.bytes_in,
            client=self.client,
            conversation=self.conversation,
            reserved_tokens=self.reserved_tokens,
            reserved_micros=self.reserved_micros,
        )

    def overhead_us(self, closing: float, outcome: "Outcome | None") -> int:
        """The gateway's own part: all but the waiting for the client's body and for upstreams."""
        return self.marks.overhead_us(closing, None if outcome is None else outcome.duration_us)

    def phases_ms(self, closing: float, outcome: "Outcome | None") -> dict[str, float]:
        """Of those that it has come to, but for the last, which goes on."""
        known = self.marks.phases(closing, outcome is not None)
        return {name: took / 1000 for name, took in known[:-1]}

    def timing(self) -> "tuple[Header, ...]":
        """The phases up to the answer as `server-timing`, in milliseconds; only where the client asks."""
        if not self.timed:
            return ()
        known = self.marks.phases(monotonic(), relayed=True)
        shown = [f"{name};dur={took / 1000:g}" for name, took in known if name not in _AFTER]
        return ((b"server-timing", ", ".join(shown).encode()),)


# Not over when the headers leave.
_AFTER = ("relay", "settle")


_NOTHING = Used(0, 0)


class Ledger:
    """Takes the records: into the journal, and as log lines, of failures always, of the rest if asked for."""

    __slots__ = ("_bodies", "_log", "_teller", "open_requests", "open_streams", "recorded", "recorder")

    def __init__(
        self,
        log: Log,
        recorder: "Recorder | None" = None,
        bodies: "Bodies | None" = None,
        *,
        teller: Teller | None = None,
    ) -> None:
        """`recorder`: None where no records are kept; `bodies`: where no workspace can keep any."""
        self._log = log
        self._bodies = bodies
        self.recorder = recorder
        self._teller = teller or Teller(log)
        # Admitted ones that have not ended.
        self.open_requests = 0
        self.open_streams = 0
        # Records that were written.
        self.recorded = 0

    def identified(self, entry: Entry, caller: Caller, head: "Head") -> None:
        """Somebody was let in."""
        entry.principal = caller.name
        entry.workspace, entry.key = caller.workspace, caller.id
        entry.timed = head.timed
        entry.marks.known()
        if self._teller.traces:
            self._teller.begin(entry, head)

    def asked(self, entry: Entry, origin: str, forward: "Forward") -> "Forward":
        """An upstream is about to be asked: what is passed on to it of the client's headers."""
        return self._teller.asked(entry, origin, forward)

    def call_failed(self, entry: Entry, failure: "Failure") -> None:
        """An upstream was asked in vain."""
        self._teller.tell_failed_call(entry, failure)

    def check(self) -> None:
        """Raises 503 where no request may begin, because its record could not be kept."""
        if self.recorder is not None and self.recorder.is_blocked:
            raise errors.records_blocked()

    def opened(self, entry: Entry, held: Held) -> None:
        """The request is admitted: from here on it has a record, however it ends."""
        entry.held = held
        self.open_requests += 1
        self.open_streams += entry.stream
        if self.recorder is not None:
            self.recorder.opened(entry)

    def refused(self, entry: Entry, status: int, code: str, message: str | None = None) -> None:
        """No answer of an upstream reached the client."""
        # A client that leaves has made the upstream read its prompt.
        used = entry.used_now() if status == CLIENT_CLOSED and entry.attempts else _NOTHING
        self._close(entry, status, code, used, None, message)
        # A wrong request is the client's matter; a failed one may be the operator's.
        if self._log.access or status >= _FIRST_5XX:
            self._write(entry, status, code, None)

    def failed(self, entry: Entry, error: "GatewayError", told: "Sequence[Header]" = ()) -> None:
        """The same of an error that the envelope will show, with `told` beside its own headers."""
        error.headers += tuple(told)
        self.refused(entry, error.status, error.code, error.message)
        error.headers += entry.timing()
        error.settled = True

    def dropped(self, entry: Entry) -> None:
        """Its task ended without a word: a fault, or the end of the process."""
        self._close(entry, _INTERNAL, "internal_error", entry.used_now(), None, None)

    def settled(self, entry: Entry, outcome: "Outcome | None") -> None:
        """An answer has ended; None: its task ended in another way, and so for the client."""
        if entry.grade is not None and outcome is not None:
            entry.grade(outcome)
        failure = None if outcome is None else outcome.failure
        used = used_of(entry, outcome)
        if failure is not None and failure.cause != "client_closed":
            status = 200 if entry.stream else failure.status
            self._close(entry, status, failure.cause, used, outcome, failure.message)
            self._write(entry, status, failure.cause, outcome)
            return
        if outcome is not None and outcome.state == "finished":
            status, code = 200, None
        else:
            status, code = CLIENT_CLOSED, "client_closed"
        self._close(entry, status, code, used, outcome, None)
        if self._log.access:
            self._write(entry, status, code, outcome)

    def _close(  # noqa: PLR0913, PLR0917 (the ends of a request have so much to say)
        self,
        entry: Entry,
        status: int,
        code: str | None,
        used: Used,
        outcome: "Outcome | None",
        message: str | None,
    ) -> None:
        if entry.has_ended:
            return
        entry.has_ended = True
        held, entry.held = entry.held, None
        closing = monotonic()
        micros = entry.spent_micros
        if entry.price is not FREE:
            micros = bounded(micros + entry.price.cost(used.prompt, used.completion, used.cached))
        if entry.spent_prompt or entry.spent_completion:
            prompt, completion = used.prompt + entry.spent_prompt, used.completion + entry.spent_completion
            used = replace(used, prompt=bounded(prompt), completion=bounded(completion))
        times = (None, None) if outcome is None else (outcome.first_event_us, outcome.duration_us)
        end = End(status, code, used, outcome, micros, closing, *times)
        # None: it was never admitted.
        if held is not None:
            self._settle(entry, held, end, message)
        self._teller.tell(entry, end)

    def _settle(self, entry: Entry, held: Held, end: End, message: str | None) -> None:
        self.open_requests -= 1
        self.open_streams -= entry.stream
        tokens = end.used.prompt + end.used.completion
        held.settle(tokens, end.micros)
        if entry.at_upstream is not None:
            entry.at_upstream.settle(tokens, end.micros)
            entry.at_upstream = None
        if self.recorder is None:
            return
        if entry.copy is not None:
            self._keep(entry, entry.copy, end.outcome)
        self.recorded += 1
        self.recorder.closed(entry, end, message)

    def _keep(self, entry: Entry, copy: Copy, outcome: "Outcome | None") -> None:
        if self._bodies is None:
            return
        if outcome is not None and outcome.answer is not None:
            copy.answered(outcome.answer)
        made = Body(
            id=entry.request_id,
            workspace=entry.workspace,
            request=copy.request,
            answer=copy.answer,
            cut=copy.cut,
        )
        self._bodies.put(made)

    def _write(self, entry: Entry, status: int, code: str | None, outcome: "Outcome | None") -> None:
        ordinary = code in (None, "client_closed") or (status < _FIRST_5XX and outcome is None)
        write = self._log.info if ordinary else self._log.warning
        now = monotonic()
        write(
            "request",
            request_id=entry.request_id,
            operation=entry.operation,
            workspace=entry.workspace,
            key=entry.principal,
            assistant=entry.assistant,
            model=entry.model,
            upstream=entry.upstream,
            upstream_model=entry.upstream_model,
            stream=entry.stream,
            attempts=entry.attempts,
            status=status,
            code=code,
            ms=round((now - entry.marks.began) * 1000, 3),
            own_ms=entry.overhead_us(now, outcome) / 1000,
            phases_ms=entry.phases_ms(now, outcome),
            **({} if entry.trace is None else {"trace_id": entry.trace.id}),
            thinking=entry.thinking,
            **({} if entry.scored is None else entry.scored.line()),
            **observed(outcome),
        )


def used_of(entry: Entry, outcome: "Outcome | None") -> Used:
    """The upstream's own numbers, where it gave some that can be right; else what was counted, or seen."""
    if outcome is None:
        return entry.used_now()
    prompt, completion = outcome.prompt_tokens, outcome.completion_tokens
    if is_untold(outcome):
        if entry.measured is not None and outcome in entry.measured:
            return entry.measured[outcome]
        # An event has a token or a little more; a plain answer has four bytes a token, a vector has none.
        seen = outcome.events if entry.stream and outcome.events else outcome.bytes_in // 4
        if entry.operation == "embeddings":
            seen = 0
        return Used(entry.prompt_tokens, seen)
    cached, reasoning = outcome.cached_tokens or 0, outcome.reasoning_tokens or 0
    return Used(prompt or 0, completion or 0, cached, reasoning, "upstream")
