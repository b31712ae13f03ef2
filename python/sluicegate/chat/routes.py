"""Stored chat completions: listed, read, changed and deleted. Making one is chat/endpoint.py."""

import re
from typing import Any

import orjson
from starlette.routing import Route

from sluicegate import errors
from sluicegate.http.body import BodyReader
from sluicegate.http.door import Callers, Door, Visit, listed, metadata_of
from sluicegate.storage.errors import NotFoundError
from sluicegate.storage.shelf import Shelf

_PATH = "/v1/chat/completions"
_METADATA = re.compile(r"^metadata\[(.{1,64})\]$")


class StoredChatsEndpoint:
    """One application for all paths."""

    def __init__(self, door: Door, shelf: Shelf) -> None:
        self._door = door
        self._shelf = shelf

    async def __call__(self, scope: dict[str, Any], _receive: Any, _send: Any) -> None:
        visit = await self._door.enter(scope)
        match visit.path:
            case ():
                visit.require("GET, POST")
            case (_,):
                visit.require("GET, POST, DELETE")
            case (_, "messages"):
                visit.require("GET")
            case _:
                raise errors.unknown_path()
        with self._shelf.answering():
            await self._answer(visit)

    async def _answer(self, visit: Visit) -> None:
        store, owner = _store(), visit.owner
        if not visit.path:
            await self._list(visit)
            return
        ref = visit.path[0]
        if visit.method == "POST":
            metadata = metadata_of((await self._door.body(visit)).get("metadata"))
            found = await self._shelf.write(lambda view: store.set_metadata(view, owner, ref, metadata))
            await visit.answer(found.body.encode())
        elif visit.method == "DELETE":
            await self._shelf.write(lambda view: store.remove(view, owner, ref))
            await visit.answer({"object": "chat.completion.deleted", "id": ref, "deleted": True})
        else:
            found = await self._shelf.read(lambda view: store.find(view, owner, ref))
            if len(visit.path) == 1:
                await visit.answer(found.body.encode())
            else:
                await self._messages(visit, found.messages)

    async def _messages(self, visit: Visit, messages: list[dict[str, Any]]) -> None:
        ref, window = visit.path[0], visit.window()
        shown = [_message(f"{ref}-{place}", message) for place, message in enumerate(messages)]
        # The oldest first, unless asked for otherwise: this list is a conversation.
        if visit.query.get("order") == "desc":
            shown.reverse()
        ids = [message["id"] for message in shown]
        if window.after is not None and window.after not in ids:
            raise NotFoundError("message", window.after)
        rest = shown if window.after is None else shown[ids.index(window.after) + 1 :]
        await visit.answer(listed(rest[: window.limit], has_more=len(rest) > window.limit))

    async def _list(self, visit: Visit) -> None:
        # The oldest first here too, as OpenAI lists them.
        window = visit.window()._replace(newest_first=visit.query.get("order") == "desc")
        pairs = {m[1]: value for name, value in visit.query.items() if (m := _METADATA.match(name))}
        model, store = visit.query.get("model"), _store()
        found, more = await self._shelf.read(lambda view: store.page(view, visit.owner, window, model, pairs))
        await visit.answer(orjson.dumps(listed(found, has_more=more)))


def _message(ref: str, message: dict[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    parts = content if isinstance(content, list) else None
    return {**message, "id": ref, "content": content if parts is None else None, "content_parts": parts}


def _store() -> Any:
    # Here, not at the top: who needs no database must not wait for the import of SQLAlchemy.
    from sluicegate.chat import store  # noqa: PLC0415

    return store


def stored(keys: Callers, bodies: BodyReader, shelf: Shelf) -> StoredChatsEndpoint:
    """The application for every method but POST of /v1/chat/completions, and for what lies below it."""
    return StoredChatsEndpoint(Door(keys, bodies, "chat:write", _PATH), shelf)


def routes(endpoint: StoredChatsEndpoint) -> list[Route]:
    """The routes below /v1/chat/completions."""
    return [Route(_PATH + "/{rest:path}", endpoint)]
