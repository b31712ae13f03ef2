"""The stages of a request, in order: who, what, where to, the call, the answer, the record."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from msgspec import Struct

from sluicegate import errors
from sluicegate.chat.directory import Directory, View
from sluicegate.chat.keep import StoredChats
from sluicegate.chat.prepare import Ask, MakeRecipe, Operation, Prepared, Rules, check, prepare, recipe
from sluicegate.chat.scopes import Scopes, demand
from sluicegate.chat.verdict import final_error, may_go_on, refuses_stream_options
from sluicegate.chat.window import ContextWindows, ToBeCounted
from sluicegate.clock import monotonic
from sluicegate.engine import RequestError
from sluicegate.errors import ClientGoneError, GatewayError
from sluicegate.http.body import BodyReader
from sluicegate.http.exchange import JSON_HEADERS, Exchange
from sluicegate.http.head import require_json, require_method
from sluicegate.http.relay import Cancellable, ClientWatch, ClientWatches, Last, send_stream
from sluicegate.keys.authenticate import Authenticator
from sluicegate.keys.model import Principal
from sluicegate.limits.admit import Limiter, check_size
from sluicegate.upstreams.model import Candidate
from sluicegate.upstreams.select import RetryBudget, select, select_other
from sluicegate.usage.settle import CLIENT_CLOSED, Entry, Ledger

if TYPE_CHECKING:
    from sluicegate.chat.keep import Kept
    from sluicegate.engine import Engine, Outcome, Reply, Request, Stream

# A call and two more: with three dead servers a fourth is not the likely answer. Each further step of an
# assistant's models adds one, so that the last of them is asked too.
MORE_ATTEMPTS = 2
# So many names are told in `x-dropped-params`; servers and clients bound the length of a header.
_MOST_DROPPED = 32

_STREAM_HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    # nginx and its like hold streams back unless told not to.
    (b"x-accel-buffering", b"no"),
)


class Parts(NamedTuple):
    """What the stages work with; built once by the composition root."""

    keys: Authenticator
    bodies: BodyReader
    scan: "Callable[[Operation, bytes], Request]"
    engine: "Engine"
    directory: Directory
    make_recipe: MakeRecipe
    windows: ContextWindows
    budget: RetryBudget
    scopes: Scopes
    limiter: Limiter
    ledger: Ledger
    watches: ClientWatches
    keep_alive: float
    chats: StoredChats


class Watch(Protocol):
    """Who waits for the answer; `http.relay.ClientWatch` is one."""

    gone: bool

    def on_gone(self, doing: Cancellable) -> None: ...


# Structs: a NamedTuple takes four times as long to make, and each request makes some.
class Job(Struct, frozen=True):
    """One request on its way to the upstreams."""

    exchange: Exchange
    ask: Ask
    principal: Principal
    entry: Entry
    watch: Watch
    # Further options of the call.
    extra: Mapping[str, Any] = MappingProxyType({})
    # The body for an upstream that has the Responses API itself; None: it is asked as any other.
    native: "Callable[[Candidate], bytes | None] | None" = None


class Answered(Struct, frozen=True):
    """An answer that has begun, and who gives it."""

    reply: "Reply"
    candidate: Candidate
    dropped: tuple[str, ...]


class Pipeline:
    """Answers the requests of one operation."""

    def __init__(self, parts: Parts, rules: Rules) -> None:
        self._parts = parts
        self._rules = rules
        self._operation: Operation = rules.operation

    async def respond(self, exchange: Exchange) -> None:
        """Answer one request. Raises what the envelope turns into a response; by then it is on record."""
        entry = Entry(exchange.request_id, self._operation, exchange.began)
        try:
            principal = await self.identify(exchange, entry)
            ask = await self.plan(entry, principal, await self.read(exchange, entry))
            kept = self._parts.chats.begin(ask, principal)
            self.admit(ask, principal, entry)
            # Only a call upstream is worth watching for: what came before has ended or failed by itself.
            watch = self._parts.watches.begin(exchange.receive)
            try:
                extra = {} if kept is None else kept.options
                answered = await self.call(Job(exchange, ask, principal, entry, watch, extra))
                answer = self._answer(exchange, entry, answered, watch, kept)
                # The prompt may be long: it must not stay in memory for as long as its answer streams.
                del ask, answered
                await answer
            finally:
                watch.stop()
        except GatewayError as error:
            self._parts.ledger.refused(entry, error.status, error.code, error.message)
            error.headers = (*error.headers, *entry.timing())
            error.settled = True
            raise
        except ClientGoneError:
            self._parts.ledger.refused(entry, CLIENT_CLOSED, "client_closed")
            raise
        finally:
            if entry.held is not None:
                # A fault of our own, or the end of the task: what was reserved is free again, and on record.
                self._parts.ledger.dropped(entry)

    async def identify(self, exchange: Exchange, entry: Entry) -> Principal:
        """Stage 1, and what the headers alone can be refused for."""
        parts = self._parts
        head = exchange.head
        # Who comes first: without a key nobody makes us read a body, or learns which paths there are.
        credentials = head.authorization, head.other_keys
        principal = parts.keys.known(*credentials) or await parts.keys.find(*credentials)
        parts.ledger.identified(entry, principal, head)
        if self._rules.scope not in principal.scopes:
            raise errors.missing_scope(self._rules.scope)
        require_method(exchange.method, "POST")
        require_json(head)
        return principal

    async def read(self, exchange: Exchange, entry: Entry) -> bytes:
        """Stage 2."""
        body = await self._parts.bodies.read(exchange.receive, exchange.head.content_length)
        entry.bytes_in = len(body)
        entry.read_at = monotonic()
        exchange.body_read = True
        return body

    async def plan(self, entry: Entry, principal: Principal, body: bytes) -> Ask:
        """Stages 3 and 4: everything else that can be refused without asking anybody."""
        parts = self._parts
        # One pass in Rust; Python never parses a body, so nobody can read it in two ways.
        try:
            request = parts.scan(self._operation, body)
        except RequestError as error:
            code, message, param = error.args
            raise errors.bad_request(code, message, param) from None
        entry.stream = request.stream
        view = parts.directory.view(principal) or await parts.directory.load(principal)
        model = request.model
        if model is None:
            model = await self._default_model(view)
        # Exact names only: `GPT-4o` and `gpt-4o` may be two models with two prices.
        plan = view.plan(model, principal)
        entry.model = plan.name
        ask = Ask(plan, self._rules, request)
        if plan.assistant is not None:
            check(ask, plan.assistant)
        entry.planned_at = monotonic()
        return ask

    def admit(self, ask: Ask, principal: Principal, entry: Entry) -> None:
        """Stage 5: all limits at once. What is reserved is held until the answer ENDS, however it does."""
        parts, plan = self._parts, ask.plan
        if plan.assistant is not None:
            entry.assistant, entry.assistant_version = plan.assistant.id, plan.assistant.version
        scopes = parts.scopes.of(plan, principal)
        if scopes:
            check_size(scopes, entry.bytes_in)
        # The first candidate stands for all of them; what the answer costs is told by the one that gives it.
        entry.price = price = parts.scopes.price(plan.steps[0][0])
        asked = demand(ask, price)
        parts.ledger.check()
        held = parts.limiter.admit(scopes, asked)
        entry.prompt_tokens = asked.prompt
        entry.reserved_tokens, entry.reserved_micros = asked.prompt + asked.answer, asked.micros
        entry.limit_headers = held.headers
        parts.ledger.opened(entry, held)
        entry.admitted_at = monotonic()

    async def _default_model(self, view: View) -> str:
        model = await self._parts.directory.default_model(view)
        if model is None:
            raise errors.bad_request(
                "missing_required_parameter", "The request names no model, and there is no default.", "model"
            )
        return model

    async def call(self, job: Job) -> Answered:
        """Stages 5 to 8: choose, prepare, ask; the next candidate only while nothing reached the client."""
        parts, plan = self._parts, job.ask.plan
        candidate = select(plan.steps)
        parts.budget.deposit()
        tried: list[Candidate] = []
        most = MORE_ATTEMPTS + len(plan.steps)
        too_long: GatewayError | None = None
        # All attempts share the time of the first: a failover must not make the client wait twice as long.
        deadline = 0.0
        inject = True
        while True:
            try:
                prepared = await self._prepared(job, candidate, inject)
            except GatewayError as error:
                # Too long for this model, perhaps not for the next. Nobody was asked, so it costs no retry.
                too_long = too_long or error
                tried.append(candidate)
                other = select_other(plan.steps, tried)
                if other is None:
                    raise too_long from None
                candidate, inject = other, True
                continue
            reply = await self._attempt(job, candidate, prepared, deadline)
            failure = reply.failure
            if failure is None:
                return Answered(reply, candidate, prepared.dropped)
            if job.watch.gone or failure.cause == "client_closed":
                raise ClientGoneError
            upstream, model = candidate
            deadline = deadline or job.exchange.began + upstream.config.total_timeout
            if prepared.injected and refuses_stream_options(failure):
                upstream.note_refused_stream_options(model)
                inject = False
                continue
            tried.append(candidate)
            upstream.note_failure(model, failure)
            more = may_go_on(failure) and len(tried) < most and monotonic() < deadline
            other = select_other(plan.steps, tried) if more else None
            # A 404 costs nobody anything, and may be the rule for as long as a model is not loaded.
            free = other is None or failure.status == errors.NOT_FOUND
            affordable = free or parts.budget.withdraw()
            if other is None or not affordable:
                raise final_error(
                    job.ask.plan, job.principal, failure, retried=len(tried) > 1 or not affordable
                )
            candidate, inject = other, True

    async def fits(self, ask: Ask) -> bool:
        """Whether the prompt leaves room for an answer at any upstream that may be asked."""
        windows = self._parts.windows
        for candidate in (one for step in ask.plan.steps for one in step):
            limit = windows.proven_limit(ask, candidate)
            if not isinstance(limit, ToBeCounted):
                return True
            made = recipe(ask, candidate[0], self._parts.make_recipe)
            with suppress(GatewayError):
                await windows.counted_limit(ask, candidate, made, limit)
                return True
        return False

    async def _prepared(self, job: Job, candidate: Candidate, inject: bool) -> Prepared:
        """The body for this upstream. Raises 400 where the prompt is too long for this model."""
        upstream, model = candidate
        ask, windows = job.ask, self._parts.windows
        made = recipe(ask, upstream, self._parts.make_recipe)
        limit = windows.proven_limit(ask, candidate)
        if isinstance(limit, ToBeCounted):
            limit = await windows.counted_limit(ask, candidate, made, limit)
        usage = inject and self._rules.streams and upstream.takes_stream_options(model)
        return prepare(ask, candidate, made, limit, usage=usage)

    def _options(self, job: Job, prepared: Prepared, deadline: float) -> dict[str, Any]:
        request, exchange = job.ask.request, job.exchange
        # The request id is for the upstream's own log; of the client's headers only what may be passed on.
        options: dict[str, Any] = {"request_id": exchange.request_id, **job.extra}
        if exchange.head.forward:
            options["headers"] = list(exchange.head.forward)
        if prepared.public_model is not None:
            options["public_model"] = prepared.public_model
        if request.stream:
            options["stream"] = True
            options["hide_usage"] = prepared.hide_usage
            options["choices"] = request.n
            options["keep_alive"] = self._parts.keep_alive
        if deadline:
            options["total_timeout"] = max(deadline - monotonic(), 0.001)
        return options

    async def _attempt(self, job: Job, candidate: Candidate, prepared: Prepared, deadline: float) -> "Reply":
        """One call to one upstream, which ends when the client leaves."""
        upstream, model = candidate
        entry = job.entry
        entry.attempts += 1
        entry.upstream = upstream.name
        entry.upstream_model = model
        entry.price = self._parts.scopes.price(candidate)
        options = self._options(job, prepared, deadline)
        if entry.trace is not None:
            forward = job.exchange.head.forward
            options["headers"] = list(self._parts.ledger.asked(entry, upstream.handle.origin, forward))
        entry.asked_at = monotonic()
        native = None if job.native is None else job.native(candidate)
        if native is None:
            pending = self._parts.engine.start(upstream.handle, self._operation, prepared.body, **options)
        else:
            pending = self._parts.engine.start(upstream.handle, "responses", native, **options)
        job.watch.on_gone(pending.call)
        reply = await pending.reply()
        entry.answered_at = monotonic()
        entry.waited += entry.answered_at - entry.asked_at
        if reply.failure is not None:
            self._parts.ledger.call_failed(entry, reply.failure)
        return reply

    def headers_of(self, entry: Entry, answered: Answered) -> "list[errors.Header]":
        """The headers of an answer."""
        reply, (_, model), dropped = answered.reply, answered.candidate, answered.dropped
        headers = [*(JSON_HEADERS if reply.stream is None else _STREAM_HEADERS), *reply.headers]
        headers += entry.limit_headers
        if model != entry.model:
            headers.append((b"x-upstream-model", errors.header_value(model)))
        if dropped:
            names = ", ".join(dropped[:_MOST_DROPPED])
            headers.append((b"x-dropped-params", errors.header_value(names)))
        headers += entry.timing()
        return headers

    def settle(self, entry: Entry, candidate: Candidate, outcome: "Outcome | None") -> None:
        """The record of an answer that has ended."""
        upstream, model = candidate
        upstream.note_outcome(model, outcome)
        self._parts.ledger.settled(entry, outcome)

    async def _answer(
        self, exchange: Exchange, entry: Entry, answered: Answered, watch: ClientWatch, kept: "Kept | None"
    ) -> None:
        """Stages 9 and 10: relay, and settle before the last bytes leave."""
        reply, candidate = answered.reply, answered.candidate
        headers = self.headers_of(entry, answered)
        if reply.stream is None:
            self.settle(entry, candidate, reply.outcome)
            if kept is not None:
                await kept.keep(reply.body, reply.outcome)
            await exchange.answer(200, headers, reply.body)
            return
        settle = partial(self.settle, entry, candidate)
        last = None if kept is None else kept.last
        await self.stream(exchange, reply.stream, watch, headers, (settle, last))

    async def stream(
        self,
        exchange: Exchange,
        stream: "Stream",
        watch: Watch,
        headers: "list[errors.Header]",
        end: "tuple[Callable[[Outcome | None], None], Last | None]",
    ) -> None:
        """Relay a stream to its end; `end`: told how it ended, then asked for the last bytes."""
        watch.on_gone(stream)
        exchange.started = True
        headers += exchange.owed_headers()
        try:
            await send_stream(exchange.send, stream, headers, *end)
        except TimeoutError:
            # A client that takes nothing for so long is gone; `settle` has been told.
            return
