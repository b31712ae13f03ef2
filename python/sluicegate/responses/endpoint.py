"""/v1/responses: created, read, cancelled and deleted, and what they were asked."""

from typing import Any

import orjson
from starlette.routing import Route

from sluicegate import errors
from sluicegate.clock import wall_ns
from sluicegate.http.body import BodyReader
from sluicegate.http.door import Callers, Door, Json, Visit, listed
from sluicegate.http.exchange import exchange_of
from sluicegate.responses.pipeline import ResponsesPipeline
from sluicegate.storage.shelf import Shelf

_PATH = "/v1/responses"
# Nobody has worked on it for so long: its worker is gone.
ABANDONED_MS = 30_000


class CreateEndpoint:
    """POST /v1/responses."""

    def __init__(self, pipeline: ResponsesPipeline) -> None:
        self._pipeline = pipeline

    async def __call__(self, scope: dict[str, Any], _receive: Any, _send: Any) -> None:
        await self._pipeline.respond(exchange_of(scope))


class StoredEndpoint:
    """What is stored, by its id."""

    def __init__(self, door: Door, shelf: Shelf) -> None:
        self._door = door
        self._shelf = shelf

    async def __call__(self, scope: dict[str, Any], _receive: Any, _send: Any) -> None:
        visit = await self._door.enter(scope)
        match visit.path:
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
        if visit.query.get("stream", "false").lower() == "true":
            raise errors.bad_request(
                "unsupported_parameter",
                "A stored response cannot be streamed again. Leave 'stream' out to get all of it.",
                "stream",
            )
        store, owner = _store(), visit.owner
        kept = await self._shelf.read(lambda view: store.find(view, owner, ref))
        if kept.status == store.RUNNING and wall_ns() // 1_000_000 - kept.touched_at > ABANDONED_MS:
            gone = {"code": "server_shutdown", "message": "The worker that made this response has ended."}
            body = _ended(kept.body, "failed", gone)
            kept = await self._shelf.write(lambda view: store.end(view, owner, ref, "failed", body))
        await visit.answer(kept.body.encode())

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
            body = _ended(kept.body, "cancelled", None)
            kept = await self._shelf.write(lambda view: store.end(view, owner, ref, "cancelled", body))
        await visit.answer(kept.body.encode())


def _ended(body: str, status: str, error: Json | None) -> str:
    return orjson.dumps({**orjson.loads(body), "status": status, "error": error}).decode()


def _store() -> Any:
    # Here, not at the top: who needs no database must not wait for the import of SQLAlchemy.
    from sluicegate.responses import store  # noqa: PLC0415

    return store


def routes(pipeline: ResponsesPipeline, keys: Callers, bodies: BodyReader, shelf: Shelf) -> list[Route]:
    """The routes of this operation."""
    stored = StoredEndpoint(Door(keys, bodies, "chat:write", _PATH), shelf)
    return [
        Route("/v1/responses", CreateEndpoint(pipeline)),
        Route(_PATH + "/{rest:path}", stored),
    ]
