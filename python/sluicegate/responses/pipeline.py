"""The stages of a response: what came before, the chat that answers it, and what is kept in the end."""

import asyncio
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import orjson

from sluicegate import errors
from sluicegate.chat.call import Answered, Job
from sluicegate.chat.parts import Parts
from sluicegate.chat.pipeline import Pipeline
from sluicegate.chat.prepare import Ask, Rules, stated_limit
from sluicegate.clock import wall_seconds
from sluicegate.conversations.model import Json
from sluicegate.engine import Marks
from sluicegate.errors import ClientGoneError, GatewayError
from sluicegate.http.door import Owner, parsed
from sluicegate.http.exchange import JSON_HEADERS, Exchange
from sluicegate.ids import IdSource
from sluicegate.keys.model import Principal
from sluicegate.responses.memory import Context, Memory
from sluicegate.responses.model import Asked, read
from sluicegate.responses.translate import chat_body, dropped_oldest, head, native_body, renamed
from sluicegate.upstreams.model import Candidate
from sluicegate.usage.settle import CLIENT_CLOSED, Entry

if TYPE_CHECKING:
    from sluicegate.engine import Outcome

RESPONSES = Rules("chat", "chat:write")
# A response in the background says so often that it is worked on, and hears that it was cancelled.
TOUCH_SECONDS = 1.0

_ids = IdSource("resp_")


class _Turn(NamedTuple):
    """One request with all that is known before its answer."""

    owner: Owner
    asked: Asked
    context: Context
    ask: Ask
    head: Json


class ResponsesPipeline:
    """Answers POST /v1/responses."""

    def __init__(self, parts: Parts, memory: Memory) -> None:
        self._parts = parts
        self._chat = Pipeline(parts, RESPONSES)
        self._memory = memory
        self._background: set[asyncio.Task[None]] = set()

    async def respond(self, exchange: Exchange) -> None:
        """Answer one request. Raises what the envelope turns into a response; by then it is on record."""
        entry = Entry(exchange.request_id, "responses", Marks(exchange.began), client=exchange.client)
        asked: Asked | None = None
        try:
            principal, body = await self._chat.enter(exchange, entry)
            asked = read(parsed(body))
            turn = await self._begin(entry, principal, asked)
            await self._chat.admit(turn.ask, principal, entry)
            if entry.copy is not None:
                # Not the chat that was made of it.
                entry.copy.asked(body)
            del body
            if turn.asked.background:
                await self._send_to_background(exchange, entry, principal, turn)
                return
            watch = self._parts.watches.begin(exchange.receive, principal, exchange.began)
            try:
                job = Job(exchange, turn.ask, principal, entry, watch, _options(turn), partial(_native, turn))
                answered = await self._chat.calls.call(job)
                if answered.reply.stream is None:
                    await self._answer(exchange, entry, answered, turn)
                else:
                    await self._stream(job, answered, turn)
            finally:
                watch.stop()
        except GatewayError as error:
            if asked is not None:
                renamed(error)
            self._parts.ledger.refused(entry, error.status, error.code, error.message)
            error.headers = (*error.headers, *entry.timing())
            error.settled = True
            raise
        except ClientGoneError:
            self._parts.ledger.refused(entry, CLIENT_CLOSED, "client_closed")
            raise
        finally:
            if entry.held is not None:
                self._parts.ledger.dropped(entry)

    async def close(self) -> None:
        """The worker ends: what runs in the background is told, and kept as failed."""
        for task in self._background:
            task.cancel()
        if self._background:
            await asyncio.wait(self._background, timeout=5)

    async def _begin(self, entry: Entry, principal: Principal, asked: Asked) -> _Turn:
        """Everything else before the call."""
        entry.stream, entry.conversation = asked.stream, asked.conversation
        owner = Owner(principal.workspace, principal.id)
        context = await self._memory.recall(owner, asked)
        items = context.before + context.input
        if not items:
            raise errors.bad_request(
                "missing_required_parameter",
                "'input' is missing, and nothing came before.",
                "input",
            )
        ask = await self._chat.plan(entry, principal, chat_body(asked, items))
        if asked.truncates:
            ask = await self._shortened(entry, principal, ask, (asked, items))
        identity = (_ids.next(), wall_seconds())
        return _Turn(owner, asked, context, ask, head(asked, identity, ask.plan.name, store=context.stored))

    async def _shortened(
        self, entry: Entry, principal: Principal, ask: Ask, what: tuple[Asked, list[Json]]
    ) -> Ask:
        """The chat without its oldest turns, where it is too long for every model that may be asked."""
        asked, items = what
        while not await self._chat.calls.fits(ask):
            shorter = dropped_oldest(items)
            if shorter is None:
                return ask
            items = shorter
            ask = await self._chat.plan(entry, principal, chat_body(asked, items))
        return ask

    async def _answer(self, exchange: Exchange, entry: Entry, answered: Answered, turn: _Turn) -> None:
        body = answered.reply.body
        entry.answered(body)
        self._chat.settle(entry, answered.candidate, answered.reply.outcome)
        if turn.context.stored:
            await self._memory.keep(turn.owner, turn.asked, turn.context, body)
        await exchange.answer(200, self._chat.headers_of(entry, answered), body)

    async def _stream(self, job: Job, answered: Answered, turn: _Turn) -> None:
        exchange, entry, stream = job.exchange, job.entry, answered.reply.stream
        assert stream is not None  # noqa: S101 (the caller has looked)

        async def last(outcome: "Outcome") -> bytes:
            return await self._last(turn, outcome)

        def settle(outcome: "Outcome | None") -> None:
            self._chat.settle(entry, answered.candidate, outcome)

        headers = self._chat.headers_of(entry, answered)
        await self._chat.stream(exchange, stream, job.watch, headers, (settle, last, entry.measuring))

    async def _last(self, turn: _Turn, outcome: "Outcome") -> bytes:
        """The last bytes: `response.completed` leaves when the response is stored, or not at all."""
        answer = outcome.answer
        if answer is None or not turn.context.stored:
            return outcome.tail + outcome.closing
        try:
            await self._memory.keep(turn.owner, turn.asked, turn.context, answer)
        except Exception as error:  # noqa: BLE001 (the answer has begun: whatever it is, it ends the stream)
            known = error if isinstance(error, GatewayError) else errors.internal()
            return outcome.tail + _failed_event(answer, outcome.closing, known)
        return outcome.tail + outcome.closing

    async def _send_to_background(
        self, exchange: Exchange, entry: Entry, principal: Principal, turn: _Turn
    ) -> None:
        """Answer at once; a task of this worker goes on."""
        shown = {**turn.head, **_UNANSWERED, "status": "queued"}
        await self._memory.begin(turn.owner, turn.asked, {**shown, "status": "in_progress"})
        # What the request holds goes with the task, which has its record too.
        behind, entry.held = copy(entry), None
        watch = self._parts.watches.unattended(principal, exchange.began)
        job = Job(exchange, turn.ask, principal, behind, watch, _options(turn), partial(_native, turn))
        task = asyncio.create_task(self._run(job, turn))
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        await exchange.answer(200, JSON_HEADERS, orjson.dumps(shown))

    async def _run(self, job: Job, turn: _Turn) -> None:
        """One response in the background, to its end or until it is cancelled."""
        try:
            await self._run_to_its_end(job, turn)
        finally:
            job.watch.stop()
            if job.entry.held is not None:
                self._parts.ledger.dropped(job.entry)

    async def _run_to_its_end(self, job: Job, turn: _Turn) -> None:
        call = asyncio.create_task(self._chat.calls.call(job))
        entry = job.entry
        try:
            while not (await asyncio.wait({call}, timeout=TOUCH_SECONDS))[0]:
                if not await self._wanted(turn):
                    call.cancel()
                    self._parts.ledger.refused(entry, CLIENT_CLOSED, "client_closed")
                    return
            answered = call.result()
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 (nobody else would be told)
            call.cancel()
            if isinstance(error, GatewayError):
                known = renamed(error)
            else:
                known = errors.not_ready("The worker ended.") if call.cancelled() else errors.internal()
            self._parts.ledger.refused(entry, known.status, known.code, known.message)
            await self._memory.settle(turn.owner, turn.asked, turn.context, _failed(turn.head, known))
            return
        if entry.copy is not None:
            entry.copy.answered(answered.reply.body)
        self._chat.settle(entry, answered.candidate, answered.reply.outcome)
        await self._memory.settle(turn.owner, turn.asked, turn.context, answered.reply.body)

    async def _wanted(self, turn: _Turn) -> bool:
        try:
            return await self._memory.touch(turn.owner, turn.head["id"])
        except GatewayError:
            # The database is away for a moment: the answer may still be wanted.
            return True


_UNANSWERED: Json = {"error": None, "incomplete_details": None, "output": [], "usage": None}


def _native(turn: _Turn, candidate: Candidate) -> bytes | None:
    """None: the upstream is asked to chat. An assistant's own settings are those of a chat."""
    upstream, model = candidate
    if not upstream.config.responses or turn.ask.plan.assistant is not None:
        return None
    items = turn.context.before + turn.context.input
    return native_body(turn.asked, items, model, stated_limit(turn.ask))


def _options(turn: _Turn) -> Json:
    # Without its last brace: the core adds what follows from the answer.
    text = orjson.dumps(turn.head)[:-1].decode()
    summary = turn.asked.reasoning.get("summary") or turn.asked.reasoning.get("generate_summary")
    return {"shape": (turn.head["id"], text, summary is not None)}


def _failed(shown: Json, error: GatewayError) -> bytes:
    said = {"code": error.code, "message": error.message}
    return orjson.dumps({**_UNANSWERED, **shown, "status": "failed", "error": said})


def _failed_event(answer: bytes, closing: bytes, error: GatewayError) -> bytes:
    """Instead of `closing`: what the client was told so far stands, and it never was complete."""
    if not closing:
        return b""
    event = orjson.loads(closing.partition(b"\ndata: ")[2])
    event |= {"type": "response.failed", "response": orjson.loads(_failed(orjson.loads(answer), error))}
    return b"event: response.failed\ndata: " + orjson.dumps(event) + b"\n\n"
