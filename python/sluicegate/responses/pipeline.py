"""The stages of a response: what came before, the chat that answers it, and what is kept in the end."""

import asyncio
from copy import copy
from functools import partial
from typing import TYPE_CHECKING

import orjson
from msgspec import structs

from sluicegate import errors
from sluicegate.chat.call import Answered, Job
from sluicegate.chat.parts import Parts
from sluicegate.chat.pipeline import Pipeline
from sluicegate.chat.prepare import Ask, Rules, recipe, stated_limit
from sluicegate.chat.remember import Conversation, Further
from sluicegate.clock import wall_seconds
from sluicegate.conversations.model import Json
from sluicegate.engine import Marks
from sluicegate.errors import ClientGoneError, GatewayError, Header
from sluicegate.http.door import Owner, parsed
from sluicegate.http.exchange import JSON_HEADERS, Exchange
from sluicegate.ids import IdSource
from sluicegate.keys.model import Principal
from sluicegate.responses.form import RESPONSE_FORM
from sluicegate.responses.memory import Context, Memory, Turn
from sluicegate.responses.model import Asked, read
from sluicegate.responses.replay import follow
from sluicegate.responses.translate import (
    chat_body,
    check_calls,
    dropped_oldest,
    head,
    native_body,
    renamed,
)
from sluicegate.upstreams.model import Candidate
from sluicegate.upstreams.profile import PROFILES
from sluicegate.usage.settle import CLIENT_CLOSED, Entry

if TYPE_CHECKING:
    from sluicegate.engine import Outcome

RESPONSES = Rules("chat", "chat:write", remembers=True)
# A response in the background says so often that it is worked on, and hears that it was cancelled.
TOUCH_SECONDS = 1.0

_ids = IdSource("resp_")


class ResponsesPipeline:
    """Answers POST /v1/responses."""

    def __init__(self, parts: Parts, memory: Memory) -> None:
        self._parts = parts
        self._chat = Pipeline(parts, RESPONSES, RESPONSE_FORM)
        self._memory = memory
        self._background: set[asyncio.Task[None]] = set()

    async def respond(self, exchange: Exchange) -> None:
        """Answer one request. Raises what the envelope turns into a response; by then it is on record."""
        entry = Entry(exchange.request_id, "responses", Marks(exchange.began), client=exchange.client)
        asked: Asked | None = None
        conversation: Conversation | None = None
        try:
            principal, body = await self._chat.enter(exchange, entry)
            asked = read(parsed(body))
            turn = await self._begin(exchange, entry, principal, asked)
            conversation = turn.conversation
            await self._chat.admit(turn.ask, principal, entry)
            if conversation is not None:
                await conversation.begin()
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
                answered = await self._chat.ask(job)
                if answered.reply.stream is None:
                    await self._answer(exchange, entry, answered, turn)
                else:
                    await self._stream(job, answered, turn)
            finally:
                watch.stop()
        except GatewayError as error:
            if asked is not None:
                renamed(error)
            self._parts.ledger.failed(entry, error, _told(conversation))
            raise
        except ClientGoneError:
            self._parts.ledger.refused(entry, CLIENT_CLOSED, "client_closed")
            raise
        finally:
            if entry.held is not None:
                self._parts.ledger.dropped(entry)

    async def count(self, exchange: Exchange) -> None:
        """Answer how many tokens the input of a response would have, with all that comes before it."""
        entry = Entry(exchange.request_id, "responses", Marks(exchange.began), client=exchange.client)
        principal, body = await self._chat.enter(exchange, entry)
        asked = read(parsed(body))
        try:
            ask = (await self._begin(exchange, entry, principal, asked)).ask
        except GatewayError as error:
            renamed(error)
            raise
        candidate = ask.plan.steps[0][0]
        made = recipe(ask, candidate[0], self._parts.make_recipe)
        found = await self._parts.windows.count(ask, candidate, made)
        how = b"exact" if found.exact else b"counted" if found.counted else b"estimated"
        body = orjson.dumps({"object": "response.input_tokens", "input_tokens": found.tokens})
        await exchange.answer(200, [*JSON_HEADERS, (b"x-token-count", how)], body)

    async def close(self) -> None:
        """The worker ends: what runs in the background is told, and kept as failed."""
        for task in self._background:
            task.cancel()
        if self._background:
            await asyncio.wait(self._background, timeout=5)

    async def _begin(self, exchange: Exchange, entry: Entry, principal: Principal, asked: Asked) -> Turn:
        """Everything else before the call."""
        entry.stream, entry.conversation = asked.relays, asked.conversation
        owner = Owner(principal.workspace, principal.id)
        context = await self._memory.recall(owner, asked)
        items = context.before + context.input
        if not items:
            raise errors.bad_request(
                "missing_required_parameter",
                "'input' is missing, and nothing came before.",
                "input",
            )
        ask = await self._planned(entry, principal, asked, items)
        conversation = await self._conversation(exchange, entry, principal, (asked, context, ask))
        if conversation is not None:
            ask = conversation.ask
        if conversation is None or not conversation.injects:
            check_calls(items)
            if asked.truncates:
                ask = await self._shortened(entry, principal, ask, (asked, items))
        if ask.plan.view.settings.retention_days == 0:
            context = _forgetting(asked, context)
        name = (conversation and conversation.model) or ask.plan.name
        shown = head(asked, (_ids.next(), wall_seconds()), name, store=context.stored)
        return Turn(owner, asked, context, ask, shown, conversation)

    async def _planned(self, entry: Entry, principal: Principal, asked: Asked, items: list[Json]) -> Ask:
        ask = await self._chat.plan(entry, principal, chat_body(asked, items))
        return ask if asked.beyond_chat is None else _natively(ask, asked.beyond_chat)

    async def _conversation(
        self, exchange: Exchange, entry: Entry, principal: Principal, what: tuple[Asked, Context, Ask]
    ) -> Conversation | None:
        """Of an assistant with chat history; None where the request's own context is all that came before.

        That is so for `conversation`, and for a response before it that was made without history: each of
        them says first what came before, and nothing is put in front of it a second time.
        """
        asked, context, ask = what
        alone = asked.previous is None or context.spot is not None
        if not ask.plan.keeps_history or asked.conversation is not None or not alone:
            return None
        if context.before:
            # What led to the response before it is in the assistant's conversation, more of it perhaps.
            ask = await self._chat.plan(entry, principal, chat_body(asked, context.input))
        metadata = orjson.dumps(asked.metadata) if asked.metadata else None
        further = Further(metadata, b"true" if context.stored else b"false", context.spot)
        return await self._parts.memory.recall(exchange.headers, ask, principal, None, further)

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
            ask = await self._planned(entry, principal, asked, items)
        return ask

    async def _answer(self, exchange: Exchange, entry: Entry, answered: Answered, turn: Turn) -> None:
        body = answered.reply.body
        entry.answered(body)
        self._chat.settle(entry, answered.candidate, answered.reply.outcome)
        if turn.context.stored:
            await self._memory.keep(turn, body)
        headers = [*self._chat.headers_of(entry, answered), *_told(turn.conversation)]
        await exchange.answer(200, headers, body if answered.held is None else answered.held)

    async def _stream(self, job: Job, answered: Answered, turn: Turn) -> None:
        exchange, entry, stream = job.exchange, job.entry, answered.reply.stream
        assert stream is not None  # noqa: S101 (the caller has looked)

        async def last(outcome: "Outcome") -> bytes:
            return await self._last(turn, outcome)

        def settle(outcome: "Outcome | None") -> None:
            self._chat.settle(entry, answered.candidate, outcome)

        headers = [*self._chat.headers_of(entry, answered), *_told(turn.conversation)]
        await self._chat.stream(exchange, stream, job.watch, headers, (settle, last, entry.measuring))

    async def _last(self, turn: Turn, outcome: "Outcome") -> bytes:
        """The last bytes: `response.completed` leaves when the response is stored, or not at all."""
        answer = outcome.answer
        if answer is None or not turn.context.stored:
            return outcome.tail + outcome.closing
        try:
            await self._memory.keep(turn, answer)
        except Exception as error:  # noqa: BLE001 (the answer has begun: whatever it is, it ends the stream)
            known = error if isinstance(error, GatewayError) else errors.internal()
            return outcome.tail + _failed_event(answer, outcome.closing, known)
        return outcome.tail + outcome.closing

    async def _send_to_background(
        self, exchange: Exchange, entry: Entry, principal: Principal, turn: Turn
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
        headers = _told(turn.conversation)
        if turn.asked.stream:
            look = partial(self._memory.look, turn.owner, turn.head["id"])
            await follow(exchange, look, headers=headers, work=task)
            return
        await exchange.answer(200, [*JSON_HEADERS, *headers], orjson.dumps(shown))

    async def _run(self, job: Job, turn: Turn) -> None:
        """One response in the background, to its end or until it is cancelled."""
        try:
            await self._run_to_its_end(job, turn)
        finally:
            job.watch.stop()
            if job.entry.held is not None:
                self._parts.ledger.dropped(job.entry)

    async def _run_to_its_end(self, job: Job, turn: Turn) -> None:
        call = asyncio.ensure_future(self._chat.ask(job))
        entry = job.entry
        try:
            while not (await asyncio.wait({call}, timeout=TOUCH_SECONDS))[0]:
                if not await self._wanted(turn):
                    # Its end first: what was answered until then, and not good enough, is on record.
                    call.cancel()
                    await asyncio.wait({call})
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
            await self._memory.settle(turn, _failed(turn.head, known))
            return
        if entry.copy is not None:
            entry.copy.answered(answered.reply.body)
        self._chat.settle(entry, answered.candidate, answered.reply.outcome)
        await self._memory.settle(turn, answered.reply.body)

    async def _wanted(self, turn: Turn) -> bool:
        try:
            return await self._memory.touch(turn.owner, turn.head["id"])
        except GatewayError:
            # The database is away for a moment: the answer may still be wanted.
            return True


_UNANSWERED: Json = {"error": None, "incomplete_details": None, "output": [], "usage": None}


def _forgetting(asked: Asked, context: Context) -> Context:
    """The same in a workspace that stores nothing. Raises 400 for what cannot be without."""
    if asked.background:
        raise errors.bad_request(
            "invalid_value",
            "A response in the background has to be stored, and this workspace stores nothing "
            "(retention_days is 0). Leave 'background' out.",
            "background",
        )
    return structs.replace(context, stored=False)


def _natively(ask: Ask, otherwise: GatewayError) -> Ask:
    """The same, asked of those upstreams alone that have the API themselves. Raises `otherwise`."""
    plan = ask.plan
    steps = [tuple(one for one in step if one[0].config.responses) for step in plan.steps]
    steps = [step for step in steps if step]
    if plan.assistant is not None or not steps:
        raise otherwise
    return structs.replace(ask, plan=structs.replace(plan, steps=tuple(steps)))


def _native(turn: Turn, candidate: Candidate) -> bytes | None:
    """None: the upstream is asked to chat. An assistant's own settings are those of a chat."""
    upstream, model = candidate
    if not upstream.config.responses or turn.ask.plan.assistant is not None:
        return None
    items = turn.context.before + turn.context.input
    if upstream.profile is PROFILES["openai"]:
        # It takes what a model thought in its own encryption alone, where it does not keep the response.
        items = [item for item in items if item["type"] != "reasoning" or item.get("encrypted_content")]
    return native_body(turn.asked, items, model, stated_limit(turn.ask))


def _options(turn: Turn) -> Json:
    # Without its last brace: the core adds what follows from the answer.
    text = orjson.dumps(turn.head)[:-1].decode()
    summary = turn.asked.reasoning.get("summary") or turn.asked.reasoning.get("generate_summary")
    return {"shape": (turn.head["id"], text, summary is not None, turn.asked.logprobs is not None)}


def _told(conversation: Conversation | None) -> tuple[Header, ...]:
    return () if conversation is None else tuple(conversation.headers)


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
