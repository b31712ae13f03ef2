"""Conversations of an assistant: what came before goes into the request, and what is said is kept."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from sluicegate import errors
from sluicegate.chat.keep import Keeping, not_kept
from sluicegate.chat.prepare import Ask, MakeRecipe, recipe
from sluicegate.chat.window import ContextWindows
from sluicegate.engine import RequestError
from sluicegate.errors import GatewayError, Header
from sluicegate.history import merge
from sluicegate.history.expire import DAY_MS
from sluicegate.history.identify import Said, identify
from sluicegate.history.model import MAIN, New, Node, Past, Place, Scope, Spot
from sluicegate.history.recall import History, Request
from sluicegate.keys.model import Principal

if TYPE_CHECKING:
    from sluicegate.assistants.model import Assistant
    from sluicegate.engine import Outcome

# Where nobody knows the model's window: clients send as much at most.
MOST_BYTES = 4 * 1024 * 1024
# How an id of an assistant of the settings begins: the rest is its place in the file.
_OF_SETTINGS = "asst_settings_"


class Further(NamedTuple):
    """What a request says of its conversation beside its body: those of the Responses API do."""

    metadata: bytes | None
    store: bytes | None
    # The answer that it continues; then nothing else of the request names a conversation.
    at: Spot | None = None


class Found(Struct, frozen=True):
    """What there is to a request's conversation."""

    # Of the request with what came before, and how many messages that is.
    ask: Ask
    past: Past | None
    injected: int
    # The model's name as the answer has it, where the client wrote a thread behind it.
    asked: str | None
    # Whether it is kept, and with it what the model thinks.
    stored: bool
    thoughts: bool


class Conversation:
    """One request with the conversation that it belongs to."""

    def __init__(self, history: History, found: Found, kept: Keeping | None) -> None:
        """`kept`: what else is done with the answer. `ask` is the request with what came before."""
        past = found.past
        self.ask = found.ask
        # As the answer names it; None: as the plan does.
        self.model = found.asked
        self._history = history
        self._past: Past | None = past if found.stored else None
        self._place: Place | None = None
        self._kept = kept
        self._thoughts = found.thoughts
        self._branch = MAIN if past is None else past.branch
        self._injected = found.injected
        self._trimmed = 0 if past is None else past.unread + len(past.before) - found.injected
        self._id: str | None = None if past is None else _shown(past)

    async def begin(self) -> None:
        """Store what the request adds, before anybody is called. Raises 503."""
        # Both may be long, and must not stay in memory for as long as the answer streams.
        past, self._past = self._past, None
        del self.ask
        if past is not None:
            self._place = await self._history.begin(past)
            self._branch = self._place.branch
            self._id = self._id or self._place.thread

    @property
    def options(self) -> dict[str, Any]:
        """Of the call upstream."""
        options = {} if self._kept is None else self._kept.options
        if self._place is not None:
            options["keep"] = True
        if self.model is not None:
            options["public_model"] = self.model
        return options

    @property
    def injects(self) -> bool:
        """Something came before that the client has not sent."""
        return self._injected > 0

    @property
    def headers(self) -> list[Header]:
        """Which conversation it is, and what the gateway has added."""
        told = f"injected={self._injected} trimmed={self._trimmed} branch={self._branch}"
        headers = [(b"x-history", told.encode())]
        if self._id is not None:
            headers.append((b"x-conversation-id", self._id.encode()))
        return headers

    async def keep(self, answer: bytes, outcome: "Outcome | None") -> None:
        """Store a whole answer. Raises 503."""
        if self._kept is not None:
            await self._kept.keep(answer, outcome)
        await self._finish(answer, complete=True)

    async def last(self, outcome: "Outcome") -> bytes:
        """The last bytes of a stream, once it is stored; of one that broke off, what had come is."""
        answer, whole = outcome.answer, outcome.state == "finished"
        tail = outcome.tail if self._kept is None else await self._kept.last(outcome)
        if answer is None:
            return tail
        try:
            await self._finish(answer, complete=whole)
        except GatewayError as error:
            return not_kept(tail, error) if whole else tail
        return tail

    async def _finish(self, answer: bytes, *, complete: bool) -> None:
        said = self.said(answer, complete=complete)
        if said is not None:
            await self._history.finish(*said)

    def said(self, answer: bytes, *, complete: bool) -> tuple[Place, list[New]] | None:
        """What an answer adds, and where; None: nothing is kept."""
        place = self._place
        if place is None:
            return None
        return place, merge.answers_of(answer, place.parent, complete=complete, thoughts=self._thoughts)


class ChatMemory:
    """Finds the conversation of a request, and puts as much of it into the request as fits."""

    def __init__(
        self, history: History, windows: ContextWindows, make_recipe: MakeRecipe, headers: Iterable[str]
    ) -> None:
        """`headers`: others that name a conversation, in their order."""
        self._history = history
        self._windows = windows
        self._make_recipe = make_recipe
        self._aliases = {name.lower().encode(): order for order, name in enumerate(headers, 1)}

    async def recall(
        self,
        headers: Iterable[tuple[bytes, bytes]],
        ask: Ask,
        principal: Principal,
        kept: Keeping | None,
        further: Further | None = None,
    ) -> Conversation | None:
        """Raises 400 for a name that cannot be, and for results of tools that nobody waits for; 503.

        None: the answer that the request continues is not kept any more.
        """
        plan, request = ask.plan, ask.request
        assistant = plan.assistant
        assert assistant is not None  # noqa: S101 (nothing else keeps conversations)
        if not self._history.configured:
            raise _no_database(assistant.name)
        thread = None
        if request.model is not None and request.model != plan.name:
            thread = request.model[len(plan.name) + 1 :]
        days = plan.view.settings.retention_days
        told = further or Further(request.field("metadata"), request.field("store"))
        said = Said(headers, thread, told.metadata, request.field("user"), request.field("safety_identifier"))
        spec = assistant.spec
        wanted = Request(
            Scope(principal.workspace, principal.id, _stable(assistant)),
            None if told.at else identify(said, self._aliases, default_thread=spec.default_thread),
            request.messages(),
            request.body,
            None if days is None else days * DAY_MS,
            thoughts=not spec.disables_thinking,
            at=told.at,
        )
        past = await self._history.recall(wanted)
        if past is None and told.at is not None:
            return None
        injected = [] if past is None else await self._fitting(ask, past)
        if injected:
            ask = _with(ask, injected)
        found = Found(
            ask,
            past,
            len(injected),
            request.model if thread is not None else None,
            stored=days != 0 and told.store != b"false",
            thoughts=wanted.thoughts,
        )
        return Conversation(self._history, found, kept)

    async def _fitting(self, ask: Ask, past: Past) -> list[Node]:
        """What came before, without as many of its oldest turns as the model has no room for."""
        turns = merge.whole_turns(past.before)
        if turns and past.unread and turns[0][0].role != "user":
            # The rest of a turn whose beginning was not read.
            del turns[0]
        size = sum(len(node.body) for turn in turns for node in turn)
        while turns and size > MOST_BYTES:
            size -= sum(len(node.body) for node in turns.pop(0))
        low, high = 0, len(turns)
        # The fewest turns to leave out: the first look mostly tells that it is none.
        middle = 0
        while low < high:
            if await self._fits(_with(ask, _flat(turns[middle:]))):
                high = middle
            else:
                low = middle + 1
            middle = (low + high) // 2
        return _flat(turns[low:])

    async def _fits(self, ask: Ask) -> bool:
        """Whether one of those that are asked first has room for it, and for an answer."""
        for candidate in ask.plan.steps[0]:
            made = recipe(ask, candidate[0], self._make_recipe)
            if await self._windows.leaves_room(ask, candidate, made):
                return True
        return False


def _with(ask: Ask, before: list[Node]) -> Ask:
    try:
        return replace(ask, request=ask.request.inject([node.body.encode() for node in before]))
    except RequestError as error:
        code, message, param = error.args
        raise errors.bad_request(code, message, param) from None


def _flat(turns: list[list[Node]]) -> list[Node]:
    return [node for turn in turns for node in turn]


def _stable(assistant: "Assistant") -> str:
    """What its conversations belong to: of one in the settings the name, for its id is its place in them."""
    return f"settings:{assistant.name}" if assistant.id.startswith(_OF_SETTINGS) else assistant.id


def _shown(past: Past) -> str | None:
    """What a client can name the conversation by, in a header; None: by the id that it will get."""
    names = (past.name and past.name.shown, past.thread and past.thread.id)
    return next((name for name in names if name and name.isascii()), None)


def _no_database(name: str) -> GatewayError:
    return errors.bad_request(
        "storage_not_configured",
        f"The assistant `{errors.printable(name)}` keeps conversations (chat_history), which needs the "
        "gateway's database, and this gateway has none. Set its chat_history to off, or start the gateway "
        "with --data-dir or SLUICEGATE_DATABASE_URL.",
        "model",
    )
