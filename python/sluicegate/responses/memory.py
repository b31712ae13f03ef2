"""What a response begins with and what is kept of it: chains, conversations, references to items."""

from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
from msgspec import Struct

from sluicegate import errors
from sluicegate.chat.remember import Conversation
from sluicegate.clock import wall_ns
from sluicegate.conversations.model import Json
from sluicegate.errors import GatewayError
from sluicegate.history.model import Spot
from sluicegate.http.door import Owner
from sluicegate.responses.model import Asked
from sluicegate.responses.translate import as_chat
from sluicegate.storage.errors import NotFoundError
from sluicegate.storage.shelf import Shelf, not_configured

if TYPE_CHECKING:
    from sluicegate.chat.prepare import Ask
    from sluicegate.storage.transaction import View


# Nobody has worked on it for so long: its worker is gone.
ABANDONED_MS = 30_000


class Context(Struct, frozen=True):
    """What came before, the request's own input with its references resolved, and whether it is stored."""

    before: list[Json]
    input: list[Json]
    stored: bool
    # Where the answer of the response before it is, in a conversation of its assistant.
    spot: Spot | None = None


class Turn(NamedTuple):
    """One request with all that is known before its answer."""

    owner: Owner
    asked: Asked
    context: Context
    ask: "Ask"
    head: Json
    # Of an assistant with chat history.
    conversation: Conversation | None


class Memory:
    """Reads and keeps, where there is a database. Without one, requests stand alone."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    async def recall(self, owner: Owner, asked: Asked) -> Context:
        """Raises 400 for what is not there, and where a field needs a database that is not there; 503."""
        references = [item["id"] for item in asked.input if item["type"] == "item_reference"]
        if not self._shelf.configured:
            field = asked.stateful_field or ("input" if references else None)
            if field is not None:
                raise not_configured(field)
            return Context([], asked.input, stored=False)
        before, spot = await self._before(owner, asked)
        given = asked.input
        if references:
            given = await self._resolved(owner, given, before)
        return Context(before, given, asked.store is not False, spot)

    async def _before(self, owner: Owner, asked: Asked) -> tuple[list[Json], Spot | None]:
        conversations, responses = _stores()
        try:
            if asked.conversation is not None:
                ref = asked.conversation
                found: list[Json] = await self._shelf.read(
                    lambda view: conversations.all_items(view, owner, ref)
                )
                return found, None
            if asked.previous is None:
                return [], None
            last, items = await self._shelf.read(lambda view: responses.chain(view, owner, asked.previous))
        except NotFoundError as error:
            raise _gone(asked, error) from None
        if last.status not in responses.USABLE:
            message = (
                f"The response in 'previous_response_id' is {last.status}: only a completed or incomplete "
                "one can be continued."
            )
            raise errors.bad_request("invalid_value", message, "previous_response_id")
        return list(items), None if last.spot is None else Spot.of(last.spot)

    async def _resolved(self, owner: Owner, given: list[Json], before: list[Json]) -> list[Json]:
        """Each reference as the item that it points at; one that comes before anyway is left out."""
        conversations, _ = _stores()
        refs = [item["id"] for item in given if item["type"] == "item_reference"]
        found = await self._shelf.read(lambda view: conversations.referenced(view, owner, refs))
        there = {item["id"] for item in before}
        resolved = []
        for place, item in enumerate(given):
            if item["type"] != "item_reference":
                resolved.append(item)
            elif item["id"] in there:
                continue
            elif item["id"] in found:
                resolved.append(found[item["id"]])
            else:
                shown = errors.printable(item["id"])
                message = f"There is no item with the id `{shown}` that this API key has stored."
                raise errors.bad_request("item_not_found", message, f"input[{place}].id")
        return resolved

    async def keep(self, turn: Turn, answer: bytes) -> None:
        """Store a response that has ended, and the answer in the assistant's conversation. Raises 503."""
        await self._shelf.write(lambda view: _end(view, turn, answer, _stores()[1].save))

    async def settle(self, turn: Turn, answer: bytes) -> None:
        """Store how a response in the background ended. Raises 503."""
        await self._shelf.write(lambda view: _end(view, turn, answer, _stores()[1].settle))

    async def begin(self, owner: Owner, asked: Asked, shown: Json) -> None:
        """Store a response that begins in the background. Raises 503."""
        _, responses = _stores()
        kept = responses.Kept(
            id=shown["id"],
            status=responses.RUNNING,
            body=orjson.dumps(shown).decode(),
            previous=asked.previous,
        )
        begun = responses.Turn(kept=kept, input=[], output=[])
        await self._shelf.write(lambda view: responses.save(view, owner, begun))

    async def find(self, owner: Owner, response: str) -> Any:
        """A response as it is stored; one that nobody works on any more has failed.

        Raises NotFoundError, 503.
        """
        _, store = _stores()
        kept = await self._shelf.read(lambda view: store.find(view, owner, response))
        if kept.status == store.RUNNING and wall_ns() // 1_000_000 - kept.touched_at > ABANDONED_MS:
            gone = {"code": "server_shutdown", "message": "The worker that made this response has ended."}
            body = ended(kept.body, "failed", gone)
            kept = await self._shelf.write(lambda view: store.end(view, owner, response, "failed", body))
        return kept

    async def look(self, owner: Owner, response: str) -> Json:
        """The same as its JSON. Raises 404, 503."""
        with self._shelf.answering():
            found: Json = orjson.loads((await self.find(owner, response)).body)
        return found

    async def touch(self, owner: Owner, response: str) -> bool:
        """Say that a response in the background is worked on; False: nobody wants it any more."""
        _, responses = _stores()
        status = await self._shelf.write(lambda view: responses.touch(view, owner, response))
        return bool(status == responses.RUNNING)


def ended(body: str, status: str, error: Json | None) -> str:
    """A response that did not come to its own end."""
    return orjson.dumps({**orjson.loads(body), "status": status, "error": error}).decode()


async def _end(view: "View", turn: Turn, answer: bytes, write: Any) -> None:
    """`write` the row of a response; `answer` is the response as JSON."""
    from sluicegate.history import store as history  # noqa: PLC0415 (imports SQLAlchemy)

    _, responses = _stores()
    shown, asked, spot = orjson.loads(answer), turn.asked, None
    whole = shown["status"] in responses.USABLE
    said = turn.conversation and turn.conversation.said(as_chat(shown["output"]), complete=whole)
    if said and await history.finish(view, *said) and said[1] and said[1][0].complete:
        spot = Spot(said[0].thread, said[1][0].chain).text()
    kept = responses.Kept(
        id=shown["id"], status=shown["status"], body=answer.decode(), previous=asked.previous, spot=spot
    )
    made = responses.Turn(
        kept=kept, input=turn.context.input, output=shown["output"], conversation=asked.conversation
    )
    await write(view, turn.owner, made)


def _gone(asked: Asked, error: NotFoundError) -> GatewayError:
    ref = errors.printable(error.ref)
    if asked.conversation is not None:
        return errors.bad_request(
            "conversation_not_found",
            f"There is no conversation with the id `{ref}` of this API key. Create one, or leave it out.",
            "conversation",
        )
    what = "before it, which was deleted" if error.ref != asked.previous else "that this API key has stored"
    return errors.bad_request(
        "previous_response_not_found",
        f"The conversation cannot be continued: there is no response `{ref}` {what}. Send the whole "
        "conversation in 'input' instead.",
        "previous_response_id",
    )


def _stores() -> Any:
    # Here, not at the top: who needs no database must not wait for the import of SQLAlchemy.
    from sluicegate.conversations import store as conversations  # noqa: PLC0415
    from sluicegate.responses import store as responses  # noqa: PLC0415

    return conversations, responses
