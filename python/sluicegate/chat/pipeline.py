"""The stages of a request, in order: who, what, where to, the call, the answer, the record."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

from sluicegate import errors
from sluicegate.chat.call import Answered, Calls, Job, Watch
from sluicegate.chat.directory import View
from sluicegate.chat.form import CHAT_FORM, Form
from sluicegate.chat.grade import Grader
from sluicegate.chat.judge import Judge
from sluicegate.chat.parts import Parts
from sluicegate.chat.prepare import Ask, Operation, Rules, check
from sluicegate.chat.remember import Conversation
from sluicegate.chat.scopes import demand
from sluicegate.chat.thinking import headers_of
from sluicegate.chat.weigh import WeighingCalls
from sluicegate.engine import Marks, RequestError
from sluicegate.errors import ClientGoneError, GatewayError
from sluicegate.http.exchange import JSON_HEADERS, Exchange
from sluicegate.http.head import require_json, require_method
from sluicegate.http.relay import ClientWatch, Last, Measure, send_stream
from sluicegate.keys.model import Principal
from sluicegate.limits.admit import NOTHING, Held, check_size, reserved
from sluicegate.upstreams.model import Candidate
from sluicegate.usage.bodies import copy_of
from sluicegate.usage.settle import CLIENT_CLOSED, Entry

if TYPE_CHECKING:
    from sluicegate.chat.keep import Keeping
    from sluicegate.engine import Outcome, Stream

# So many names are told in `x-dropped-params`; servers and clients bound the length of a header.
_MOST_DROPPED = 32

_STREAM_HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    # nginx and its like hold streams back unless told not to.
    (b"x-accel-buffering", b"no"),
)


class Pipeline:
    """Answers the requests of one operation."""

    def __init__(self, parts: Parts, rules: Rules, form: Form = CHAT_FORM) -> None:
        """`form`: of the answers of its calls."""
        self._parts = parts
        self._rules = rules
        self._operation: Operation = rules.operation
        self.calls = Calls(parts, rules)
        judge = Judge(parts, self.calls, self.admit)
        self._grader = Grader(parts, self.calls, WeighingCalls(parts, rules), judge, form)

    async def respond(self, exchange: Exchange) -> None:
        """Answer one request. Raises what the envelope turns into a response; by then it is on record."""
        entry = Entry(exchange.request_id, self._operation, Marks(exchange.began), client=exchange.client)
        conversation: Conversation | None = None
        try:
            principal, body = await self.enter(exchange, entry)
            ask = await self.plan(entry, principal, body)
            del body
            kept: Keeping | None = None
            if ask.request.store:
                kept = self._parts.chats.begin(ask, principal)
            if ask.plan.keeps_history and self._rules.remembers:
                conversation = await self._parts.memory.recall(exchange.headers, ask, principal, kept)
                if conversation is not None:
                    kept, ask = conversation, conversation.ask
            await self.admit(ask, principal, entry)
            if conversation is not None:
                await conversation.begin()
            # Only a call upstream is worth watching for: what came before has ended or failed by itself.
            watch = self._parts.watches.begin(exchange.receive, principal, exchange.began)
            try:
                extra = {} if kept is None else kept.options
                job = Job(exchange, ask, principal, entry, watch, extra)
                answered = await self.ask(job)
                answer = self._answer(exchange, entry, answered, watch, kept)
                # The prompt may be long: it must not stay in memory for as long as its answer streams.
                del ask, answered, job
                await answer
            finally:
                watch.stop()
        except GatewayError as error:
            self._parts.ledger.failed(entry, error, conversation.headers if conversation else ())
            raise
        except ClientGoneError:
            self._parts.ledger.refused(entry, CLIENT_CLOSED, "client_closed")
            raise
        finally:
            if entry.held is not None:
                # A fault of our own, or the end of the task: what was reserved is free again, and on record.
                self._parts.ledger.dropped(entry)

    async def enter(self, exchange: Exchange, entry: Entry) -> tuple[Principal, bytes]:
        """Stages 1 and 2: who it is, and what the headers alone can be refused for; then the body."""
        parts = self._parts
        head = exchange.head
        # Who comes first: without a key nobody makes us read a body, or learns which paths there are.
        credentials = head.authorization, head.other_keys
        principal = parts.keys.known(*credentials) or await parts.keys.find(*credentials)
        parts.ledger.identified(entry, principal, head)
        exchange.key_until = principal.until
        if self._rules.scope not in principal.scopes:
            raise errors.missing_scope(self._rules.scope)
        if exchange.method != "POST":
            require_method(exchange.method, "POST")
        require_json(head)
        first = parts.bodies.first(exchange.receive, head.content_length)
        body = parts.bodies.at_once(first, head.content_length)
        if body is None:
            body = await parts.bodies.rest(first, exchange.receive, head.content_length)
        entry.bytes_in = len(body)
        entry.marks.read()
        exchange.body_read = True
        return principal, body

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
        elif "@" in model and self._rules.remembers:
            model = view.without_thread(model)
        # Exact names only: `GPT-4o` and `gpt-4o` may be two models with two prices.
        plan = view.plan(model, principal)
        entry.model = plan.name
        ask = Ask(plan, self._rules, request)
        if plan.assistant is not None:
            check(ask, plan.assistant)
        entry.marks.planned()
        return ask

    async def admit(self, ask: Ask, principal: Principal, entry: Entry) -> None:
        """Stage 5: all limits at once. What is reserved is held until the answer ENDS, however it does."""
        parts, plan = self._parts, ask.plan
        if plan.assistant is not None:
            entry.assistant, entry.assistant_version = plan.assistant.id, plan.assistant.version
        limited = parts.scopes.of(plan, principal)
        if limited is not None:
            check_size(limited, entry.bytes_in)
        # The first candidate stands for all of them; what the answer costs is told by the one that gives it.
        entry.price = price = parts.scopes.price(plan.steps[0][0])
        asked = demand(ask, price)
        parts.ledger.check()
        entry.prompt_tokens = asked.prompt
        entry.reserved_tokens, entry.reserved_micros = reserve = reserved(limited, asked), asked.micros
        held: Held = NOTHING
        if limited is not None:
            held = parts.limiter.at_once(limited, *reserve) or await parts.limiter.hold(limited, *reserve)
            entry.limit_headers = held.headers
        entry.copy = copy_of(plan.view.settings.bodies, ask.request.body)
        parts.ledger.opened(entry, held)
        entry.marks.admitted()

    def ask(self, job: Job) -> Awaitable[Answered]:
        """Stages 5 to 8, scored where the assistant wants a score. Raises 422 where that is too low."""
        quality = job.ask.plan.quality
        # No stage of its own: one that does nothing costs a microsecond.
        if quality is None or self._operation != "chat":
            return self.calls.call(job)
        return self._grader.answer(job, quality)

    async def _default_model(self, view: View) -> str:
        model = await self._parts.directory.default_model(view)
        if model is None:
            raise errors.bad_request(
                "missing_required_parameter", "The request names no model, and there is no default.", "model"
            )
        return model

    def headers_of(self, entry: Entry, answered: Answered) -> "list[errors.Header]":
        """The headers of an answer."""
        reply, (upstream, model), dropped = answered.reply, answered.candidate, answered.dropped
        whole = reply.stream is None and answered.held is None
        headers = [*(JSON_HEADERS if whole else _STREAM_HEADERS), *reply.headers]
        headers += entry.limit_headers
        if model != entry.model:
            headers.append((b"x-upstream-model", errors.header_value(model)))
        if dropped:
            names = ", ".join(dropped[:_MOST_DROPPED])
            headers.append((b"x-dropped-params", errors.header_value(names)))
        if entry.timed:
            headers += entry.timing()
        if entry.switch is not None or entry.thinking is not None:
            headers += headers_of(entry, upstream, model)
        return headers

    def settle(self, entry: Entry, candidate: Candidate, outcome: "Outcome | None") -> None:
        """The record of an answer that has ended."""
        upstream, model = candidate
        upstream.note_outcome(model, outcome)
        self._parts.thinking.look(entry, candidate, outcome)
        self._parts.ledger.settled(entry, outcome)

    async def _answer(
        self, exchange: Exchange, entry: Entry, answered: Answered, watch: ClientWatch, kept: "Keeping | None"
    ) -> None:
        """Stages 9 and 10: relay, and settle before the last bytes leave."""
        reply, candidate = answered.reply, answered.candidate
        if reply.stream is None:
            entry.answered(reply.body)
            self.settle(entry, candidate, reply.outcome)
            headers = self.headers_of(entry, answered)
            if kept is not None:
                headers += kept.headers
                await kept.keep(reply.body, reply.outcome)
            await exchange.answer(200, headers, reply.body if answered.held is None else answered.held)
            return
        headers = self.headers_of(entry, answered)
        if kept is not None:
            headers += kept.headers
        settle = partial(self.settle, entry, candidate)
        last = None if kept is None else kept.last
        await self.stream(exchange, reply.stream, watch, headers, (settle, last, entry.measuring))

    async def stream(
        self,
        exchange: Exchange,
        stream: "Stream",
        watch: Watch,
        headers: "list[errors.Header]",
        end: "tuple[Callable[[Outcome | None], None], Last | None, Measure | None]",
    ) -> None:
        """Relay a stream to its end; `end`: `settle`, `last` and `measure` of `send_stream`."""
        settle, last, measure = end
        watch.on_gone(stream)
        exchange.started = True
        headers += exchange.owed_headers()
        try:
            await send_stream(exchange.send, stream, headers, settle, last, measure=measure)
        except TimeoutError:
            # A client that takes nothing for so long is gone; `settle` has been told.
            return
