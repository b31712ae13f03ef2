"""One request to its upstreams, in turn: choose, prepare, ask, while nothing has reached the client."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct

from sluicegate import errors
from sluicegate.chat.parts import Parts
from sluicegate.chat.prepare import Ask, Operation, Prepared, Rules, prepare, recipe
from sluicegate.chat.scopes import enter, leave, worth_telling
from sluicegate.chat.thinking import refuses, switch_of
from sluicegate.chat.verdict import final_error, may_go_on, refuses_stream_options
from sluicegate.chat.window import ToBeCounted
from sluicegate.clock import monotonic
from sluicegate.errors import ClientGoneError, GatewayError
from sluicegate.http.exchange import Exchange
from sluicegate.http.relay import Cancellable
from sluicegate.keys.model import Principal
from sluicegate.upstreams.model import Candidate
from sluicegate.upstreams.select import select, select_other
from sluicegate.usage.settle import Entry

if TYPE_CHECKING:
    from sluicegate.engine import Failure, Reply

# A call and two more: with three dead servers a fourth is not the likely answer. Each further step of an
# assistant's models adds one, so that the last of them is asked too.
MORE_ATTEMPTS = 2


class Watch(Protocol):
    """Who waits for the answer; `http.relay.ClientWatch` is one."""

    @property
    def gone(self) -> bool: ...
    def on_gone(self, doing: Cancellable) -> None: ...
    def stop(self) -> None: ...


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
    # The events of a stream that was held back until it was known to be good enough.
    held: bytes | None = None


class Calls:
    """The calls of one operation."""

    def __init__(self, parts: Parts, rules: Rules) -> None:
        self._parts = parts
        self._rules = rules
        self._operation: Operation = rules.operation

    async def call(self, job: Job, but: Sequence[Candidate] = ()) -> Answered:
        """Stages 5 to 8: choose, prepare, ask; the next candidate only while nothing reached the client.

        `but`: they have answered, and not well enough; there must be others.
        """
        parts, plan = self._parts, job.ask.plan
        candidate = (select_other(plan.steps, but) if but else None) or select(plan.steps)
        parts.budget.deposit()
        tried: list[Candidate] = [*but]
        most = MORE_ATTEMPTS + len(plan.steps)
        refused: list[GatewayError] = []
        # All attempts share the time of the first: a failover must not make the client wait twice as long.
        deadline = 0.0
        inject = True
        while True:
            try:
                prepared = await self._prepared(job, candidate, inject)
            except GatewayError as error:
                # Too long for this model or too much for this upstream, perhaps not for the next. Nobody was
                # asked, so it costs no retry.
                refused.append(error)
                tried.append(candidate)
                other = select_other(plan.steps, tried)
                if other is None:
                    raise worth_telling(refused) from None
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
            if self._asks_again(candidate, prepared, failure):
                continue
            tried.append(candidate)
            upstream.note_failure(model, failure)
            asked = len(tried) - len(refused) - len(but)
            more = may_go_on(failure) and asked < most and monotonic() < deadline
            other = select_other(plan.steps, tried) if more else None
            # A 404 costs nobody anything, and may be the rule for as long as a model is not loaded.
            free = other is None or failure.status == errors.NOT_FOUND
            affordable = free or parts.budget.withdraw()
            if other is None or not affordable:
                raise final_error(job.ask.plan, job.principal, failure, retried=asked > 1 or not affordable)
            candidate, inject = other, True

    def _asks_again(self, candidate: Candidate, prepared: Prepared, failure: "Failure") -> bool:
        """What was refused is something that was added here: the same upstream is asked without it."""
        if prepared.switch is None or not refuses(failure, prepared.switch):
            return False
        self._parts.thinking.refused(candidate, prepared.switch)
        return True

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
        """The body for this upstream. Raises where it is too long for the model, or a limit is reached."""
        upstream, model = candidate
        leave(job.entry)
        ask, windows = job.ask, self._parts.windows
        rule = ask.plan.thinking
        # Most assistants say nothing of thinking, and most clients neither.
        is_silent = rule is None or (rule.value == "inherit" and ask.request.thinking is None)
        switch = None if is_silent else switch_of(ask, candidate)
        made = recipe(ask, upstream, self._parts.make_recipe, switch)
        limit = windows.proven_limit(ask, candidate)
        if isinstance(limit, ToBeCounted):
            limit = await windows.counted_limit(ask, candidate, made, limit)
        usage = inject and self._rules.streams and upstream.takes_stream_options(model)
        prepared = prepare(ask, candidate, made, limit, usage=usage, switch=switch)
        if upstream.limited is not None:
            await enter(self._parts.limiter, upstream.limited, job.entry)
        return prepared

    def _options(self, job: Job, prepared: Prepared, deadline: float) -> dict[str, Any]:
        request, exchange = job.ask.request, job.exchange
        # The request id is for the upstream's own log; of the client's headers only what may be passed on.
        options: dict[str, Any] = {"request_id": exchange.request_id, **job.extra}
        if exchange.head.forward:
            options["headers"] = list(exchange.head.forward)
        if prepared.thinking is not None:
            options["thinking"] = prepared.thinking
        if prepared.public_model is not None:
            options.setdefault("public_model", prepared.public_model)
        if request.stream:
            options["stream"] = True
            options["hide_usage"] = prepared.hide_usage
            options["choices"] = request.n
            options["keep_alive"] = self._parts.keep_alive
            if job.entry.copy is not None and "shape" not in options:
                options["keep"] = True
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
        if candidate is not job.ask.plan.steps[0][0]:
            entry.price = self._parts.scopes.price(candidate)
        options = self._options(job, prepared, deadline)
        if entry.trace is not None:
            forward = job.exchange.head.forward
            options["headers"] = list(self._parts.ledger.asked(entry, upstream.handle.origin, forward))
        entry.marks.asked()
        native = None if job.native is None else job.native(candidate)
        if native is None:
            entry.switch, entry.looks = prepared.switch, prepared.thinking is not None
            entry.meter = meter = self._parts.windows.meter(self._operation, candidate, prepared.body)
            if meter is not None:
                options["said"] = meter.said
            pending = self._parts.engine.start(upstream.handle, self._operation, prepared.body, **options)
        else:
            # What is said of thinking here is the client's own.
            entry.switch, entry.looks, entry.meter = None, False, None
            pending = self._parts.engine.start(upstream.handle, "responses", native, **options)
        job.watch.on_gone(pending.call)
        reply = await pending.reply()
        entry.marks.answered()
        if entry.meter is not None:
            if reply.stream is not None:
                entry.meter.begin()
            elif reply.failure is None or reply.failure.cause == "client_closed":
                await entry.measure(reply.outcome)
        if reply.failure is not None:
            self._parts.ledger.call_failed(entry, reply.failure)
        return reply
