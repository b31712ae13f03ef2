"""The stages of a request, in order: who, what, where to, the call, the answer, the record."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from sluicegate import errors
from sluicegate.chat.prepare import Prepared
from sluicegate.clock import monotonic
from sluicegate.engine import RequestError
from sluicegate.errors import ClientGoneError, GatewayError
from sluicegate.http.body import BodyReader
from sluicegate.http.exchange import JSON_HEADERS, Exchange
from sluicegate.http.head import require_json, require_method
from sluicegate.http.relay import ClientWatch, ClientWatches, send_stream
from sluicegate.keys.authenticate import Authenticator
from sluicegate.models.catalog import Catalog, Route
from sluicegate.upstreams.discover import Discovery
from sluicegate.upstreams.model import Candidate, Upstream
from sluicegate.upstreams.select import RetryBudget, select, select_other, shortest_wait_ms
from sluicegate.usage.settle import CLIENT_CLOSED, Entry, Ledger

if TYPE_CHECKING:
    from sluicegate.engine import Engine, Failure, Outcome, Reply, Request

Operation = Literal["chat", "completions", "embeddings"]
Prepare = Callable[["Request", bytes, str, str, bool], Prepared]

# One call and two more: with three dead servers a fourth is not the likely answer.
MOST_ATTEMPTS = 3

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
    catalog: Catalog[Upstream]
    discovery: Discovery
    budget: RetryBudget
    ledger: Ledger
    watches: ClientWatches
    keep_alive: float


class _Job(NamedTuple):
    exchange: Exchange
    request: "Request"
    body: bytes
    route: Route[Upstream]
    entry: Entry


class Pipeline:
    """Answers the requests of one operation."""

    def __init__(self, parts: Parts, operation: Operation, prepare: Prepare) -> None:
        self._parts = parts
        self._operation: Operation = operation
        self._prepare = prepare

    async def respond(self, exchange: Exchange) -> None:
        """Answer one request. Raises what the envelope turns into a response; by then it is on record."""
        entry = Entry(exchange.request_id, self._operation, exchange.began)
        try:
            job = await self._accept(exchange, entry)
            # Only a call upstream is worth watching for: what came before has ended or failed by itself.
            watch = self._parts.watches.begin(exchange.receive)
            try:
                reply, candidate = await self._call(job, watch)
                answer = self._answer(exchange, entry, candidate, reply, watch)
                # The prompt may be long: it must not stay in memory for as long as its answer streams.
                del job
                await answer
            finally:
                watch.stop()
        except GatewayError as error:
            self._parts.ledger.refused(entry, error.status, error.code)
            error.settled = True
            raise
        except ClientGoneError:
            self._parts.ledger.refused(entry, CLIENT_CLOSED, "client_closed")
            raise

    async def _accept(self, exchange: Exchange, entry: Entry) -> _Job:
        """Stages 1 to 3: everything that can be refused without asking anybody."""
        parts = self._parts
        head = exchange.head
        # Who comes first: without a key nobody makes us read a body, or learns which paths there are.
        entry.principal = parts.keys.authenticate(head.authorization, head.other_keys).name
        require_method(exchange.method, "POST")
        require_json(head)
        body = await parts.bodies.read(exchange.receive, head.content_length)
        exchange.body_read = True
        # One pass in Rust; Python never parses a body, so nobody can read it in two ways.
        try:
            request = parts.scan(self._operation, body)
        except RequestError as error:
            code, message, param = error.args
            raise errors.bad_request(code, message, param) from None
        entry.stream = request.stream
        # Exact names only: `GPT-4o` and `gpt-4o` may be two models with two prices.
        model = request.model
        route = parts.catalog.resolve(await self._default_model() if model is None else model)
        entry.model = route.model
        return _Job(exchange, request, body, route, entry)

    async def _default_model(self) -> str:
        catalog = self._parts.catalog
        if not catalog.has_known_default:
            await self._parts.discovery.settle()
        model = catalog.default
        if model is None:
            raise errors.bad_request(
                "missing_required_parameter", "The request names no model, and there is no default.", "model"
            )
        return model

    async def _call(self, job: _Job, watch: ClientWatch) -> "tuple[Reply, Candidate]":
        """Stages 4 to 6: choose, prepare, ask; the next candidate only while nothing reached the client."""
        parts = self._parts
        candidates = job.route.candidates
        candidate = select(candidates)
        parts.budget.deposit()
        tried: list[Candidate] = []
        # All attempts share the time of the first: a failover must not make the client wait twice as long.
        deadline = 0.0
        inject = True
        while True:
            prepared, options = self._prepared(job, candidate, inject, deadline)
            reply = await self._attempt(job, candidate, watch, prepared.body, options)
            failure = reply.failure
            if failure is None:
                return reply, candidate
            if watch.gone or failure.cause == "client_closed":
                raise ClientGoneError
            upstream, model = candidate
            deadline = deadline or job.exchange.began + upstream.config.total_timeout
            if prepared.injected and _refuses_stream_options(failure):
                upstream.note_refused_stream_options(model)
                inject = False
                continue
            tried.append(candidate)
            upstream.note_failure(model, failure)
            more = failure.retryable and len(tried) < MOST_ATTEMPTS and monotonic() < deadline
            other = select_other(candidates, tried) if more else None
            affordable = other is None or parts.budget.withdraw()
            if other is None or not affordable:
                wait = shortest_wait_ms(candidates) if failure.status == errors.TOO_MANY else None
                retried = len(tried) > 1 or not affordable
                raise errors.from_failure(failure, retried=retried, retry_after_ms=wait)
            candidate, inject = other, True

    def _prepared(
        self, job: _Job, candidate: Candidate, inject: bool, deadline: float
    ) -> tuple[Prepared, dict[str, Any]]:
        """The body for this upstream, and the options of the call."""
        upstream, model = candidate
        request, exchange = job.request, job.exchange
        inject = inject and upstream.takes_stream_options(model)
        prepared = self._prepare(request, job.body, job.route.model, model, inject)
        # The request id is for the upstream's own log; of the client's headers only what may be passed on.
        options: dict[str, Any] = {"request_id": exchange.request_id}
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
        return prepared, options

    async def _attempt(
        self, job: _Job, candidate: Candidate, watch: ClientWatch, body: bytes, options: dict[str, Any]
    ) -> "Reply":
        """One call to one upstream, which ends when the client leaves."""
        upstream, model = candidate
        entry = job.entry
        entry.attempts += 1
        entry.upstream = upstream.name
        entry.upstream_model = model
        pending = self._parts.engine.start(upstream.handle, self._operation, body, **options)
        watch.on_gone(pending.call)
        return await pending.reply()

    async def _answer(
        self, exchange: Exchange, entry: Entry, candidate: Candidate, reply: "Reply", watch: ClientWatch
    ) -> None:
        """Stages 7 and 8: relay, and settle before the last bytes leave."""
        upstream, model = candidate
        headers = [*(JSON_HEADERS if reply.stream is None else _STREAM_HEADERS), *reply.headers]
        if model != entry.model:
            headers.append((b"x-upstream-model", errors.header_value(model)))

        def settle(outcome: "Outcome | None") -> None:
            upstream.note_outcome(model, outcome)
            self._parts.ledger.settled(entry, outcome)

        if reply.stream is None:
            settle(reply.outcome)
            await exchange.answer(200, headers, reply.body)
            return
        watch.on_gone(reply.stream)
        exchange.started = True
        headers += exchange.owed_headers()
        try:
            await send_stream(exchange.send, reply.stream, headers, settle)
        except TimeoutError:
            # A client that takes nothing for so long is gone; `settle` has been told.
            return


def _refuses_stream_options(failure: "Failure") -> bool:
    """The server does not know what we have added to the request: ask again without it."""
    return failure.status in (400, 422) and "stream_options" in f"{failure.param} {failure.message}"
