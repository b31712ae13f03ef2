"""What a response begins with and what is kept of it: chains, conversations, references to items."""

from typing import Any

import orjson
from msgspec import Struct

from sluicegate import errors
from sluicegate.conversations.model import Json
from sluicegate.errors import GatewayError
from sluicegate.http.door import Owner
from sluicegate.responses.model import Asked
from sluicegate.storage.errors import NotFoundError
from sluicegate.storage.shelf import Shelf, not_configured


class Context(Struct, frozen=True):
    """What came before, the request's own input with its references resolved, and whether it is stored."""

    before: list[Json]
    input: list[Json]
    stored: bool


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
        before = await self._before(owner, asked)
        given = asked.input
        if references:
            given = await self._resolved(owner, given, before)
        return Context(before, given, stored=asked.store is not False)

    async def _before(self, owner: Owner, asked: Asked) -> list[Json]:
        conversations, responses = _stores()
        try:
            if asked.conversation is not None:
                ref = asked.conversation
                found: list[Json] = await self._shelf.read(
                    lambda view: conversations.all_items(view, owner, ref)
                )
                return found
            if asked.previous is None:
                return []
            last, items = await self._shelf.read(lambda view: responses.chain(view, owner, asked.previous))
        except NotFoundError as error:
            raise _gone(asked, error) from None
        if last.status not in responses.USABLE:
            message = (
                f"The response in 'previous_response_id' is {last.status}: only a completed or incomplete "
                "one can be continued."
            )
            raise errors.bad_request("invalid_value", message, "previous_response_id")
        return list(items)

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

    async def keep(self, owner: Owner, asked: Asked, context: Context, answer: bytes) -> None:
        """Store a response that has ended. Raises 503."""
        await self._shelf.write(lambda view: _stores()[1].save(view, owner, turn(asked, context, answer)))

    async def settle(self, owner: Owner, asked: Asked, context: Context, answer: bytes) -> None:
        """Store how a response in the background ended. Raises 503."""
        await self._shelf.write(lambda view: _stores()[1].settle(view, owner, turn(asked, context, answer)))

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

    async def touch(self, owner: Owner, response: str) -> bool:
        """Say that a response in the background is worked on; False: nobody wants it any more."""
        _, responses = _stores()
        status = await self._shelf.write(lambda view: responses.touch(view, owner, response))
        return bool(status == responses.RUNNING)


def turn(asked: Asked, context: Context, answer: bytes) -> Any:
    """The row of a response; `answer` is the response as JSON."""
    _, responses = _stores()
    shown = orjson.loads(answer)
    kept = responses.Kept(
        id=shown["id"], status=shown["status"], body=answer.decode(), previous=asked.previous
    )
    return responses.Turn(
        kept=kept, input=context.input, output=shown["output"], conversation=asked.conversation
    )


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
