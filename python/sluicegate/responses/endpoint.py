"""/v1/responses: created, read, cancelled and deleted, and what they were asked."""

from typing import Any

import orjson
from starlette.routing import Route

from sluicegate import errors
from sluicegate.http.body import BodyReader
from sluicegate.http.door import Callers, Door, Json, Visit, listed
from sluicegate.http.exchange import exchange_of
from sluicegate.responses.memory import Memory, ended
from sluicegate.responses.pipeline import ResponsesPipeline
from sluicegate.responses.replay import follow
from sluicegate.storage.shelf import Shelf

_PATH = "/v1/responses"
_LONGEST_NUMBER = 9
_NO_COMPACTION = (
    "The gateway compacts no conversations. Send 'truncation': 'auto' with a response, which leaves out its "
    "oldest turns where they do not fit, or have a model write a summary."
)


class CreateEndpoint:
    """POST /v1/responses."""

    def __init__(self, pipeline: ResponsesPipeline) -> None:
        self._pipeline = pipeline

    async def __call__(self, scope: dict[str, Any], _receive: Any, _send: Any) -> None:
        await self._pipeline.respond(exchange_of(scope))


class CountEndpoint:
    """POST /v1/responses/input_tokens."""

    def __init__(self, pipeline: ResponsesPipeline) -> None:
        self._pipeline = pipeline

    async def __call__(self, scope: dict[str, Any], _receive: Any, _send: Any) -> None:
        await self._pipeline.count(exchange_of(scope))


class StoredEndpoint:
    """What is stored, by its id."""

    def __init__(self, door: Door, shelf: Shelf) -> None:
        self._door = door
        self._shelf = shelf
        self._memory = Memory(shelf)

    async def __call__(self, scope: dict[str, Any], _receive: Any, _send: Any) -> None:
        visit = await self._door.enter(scope)
        match visit.path:
            case ("compact",):
                raise errors.unknown_path(_NO_COMPACTION)
            case (_,):
                visit.require("GET, DELETE")
            case (_, "input_items"):
                visit.require("GET")
            case (_, "cancel"):
                visit.require("POST")
            case _:
                raise errors.unknown_path()
        with self._shelf.answering():
            await self._answer(visit)

    async def _answer(self, visit: Visit) -> None:
        store, owner, ref = _store(), visit.owner, visit.path[0]
        if visit.path[1:] == ("input_items",):
            window = visit.window()
            found, more = await self._shelf.read(lambda view: store.input_items(view, owner, ref, window))
            await visit.answer(listed(found, has_more=more))
        elif visit.path[1:] == ("cancel",):
            await self._cancel(visit, ref)
        elif visit.method == "DELETE":
            await self._shelf.write(lambda view: store.remove(view, owner, ref))
            await visit.answer({"id": ref, "object": "response", "deleted": True})
        else:
            await self._retrieve(visit, ref)

    async def _retrieve(self, visit: Visit, ref: str) -> None:
        if visit.query.get("stream", "false").lower() != "true":
            if "starting_after" in visit.query:
                message = "'starting_after' is a number in a stream. Send 'stream=true' with it."
                raise errors.bad_request("invalid_value", message, "starting_after")
            await visit.answer((await self._memory.find(visit.owner, ref)).body.encode())
            return
        after = _starting_after(visit)

        async def look() -> Json:
            shown = await self._memory.look(visit.owner, ref)
            if after is not None and not shown.get("background"):
                raise errors.bad_request(
                    "invalid_value",
                    "Only the stream of a response that was made with 'background' has the same numbers "
                    "again. Leave 'starting_after' out to get all of it.",
                    "starting_after",
                )
            return shown

        await follow(visit.exchange, look, after)

    async def _cancel(self, visit: Visit, ref: str) -> None:
        store, owner = _store(), visit.owner
        kept = await self._shelf.read(lambda view: store.find(view, owner, ref))
        if not orjson.loads(kept.body).get("background"):
            raise errors.bad_request(
                "invalid_value",
                "Only a response that was made with 'background' can be cancelled. To stop another one, "
                "close its connection.",
                "response_id",
            )
        if kept.status == store.RUNNING:
            body = ended(kept.body, "cancelled", None)
            kept = await self._shelf.write(lambda view: store.end(view, owner, ref, "cancelled", body))
        await visit.answer(kept.body.encode())


def _starting_after(visit: Visit) -> int | None:
    text = visit.query.get("starting_after")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _LONGEST_NUMBER):
        message = "'starting_after' must be the number of an event."
        raise errors.bad_request("invalid_value", message, "starting_after")
    return int(text)


def _store() -> Any:
    # Here, not at the top: who needs no database must not wait for the import of SQLAlchemy.
    from sluicegate.responses import store  # noqa: PLC0415

    return store


def routes(pipeline: ResponsesPipeline, keys: Callers, bodies: BodyReader, shelf: Shelf) -> list[Route]:
    """The routes of this operation."""
    stored = StoredEndpoint(Door(keys, bodies, "chat:write", _PATH), shelf)
    return [
        Route("/v1/responses", CreateEndpoint(pipeline)),
        Route("/v1/responses/input_tokens", CountEndpoint(pipeline)),
        Route(_PATH + "/{rest:path}", stored),
    ]
