"""/v1/conversations: made, read, changed and deleted, and their items."""

from typing import Any

from starlette.routing import Route

from sluicegate import errors
from sluicegate.conversations.model import MOST_ITEMS_AT_ONCE, read_items
from sluicegate.http.body import BodyReader
from sluicegate.http.door import Callers, Door, Visit, listed, metadata_of
from sluicegate.storage.shelf import Shelf

_PATH = "/v1/conversations"
_ITEMS = "items"


class ConversationsEndpoint:
    """One application for all paths: they are told apart by how many parts follow."""

    def __init__(self, door: Door, shelf: Shelf) -> None:
        self._door = door
        self._shelf = shelf

    async def __call__(self, scope: dict[str, Any], _receive: Any, _send: Any) -> None:
        visit = await self._door.enter(scope)
        with self._shelf.answering():
            match visit.path:
                case ():
                    await self._collection(visit)
                case (conversation,):
                    await self._one(visit, conversation)
                case (conversation, "items"):
                    await self._items(visit, conversation)
                case (conversation, "items", item):
                    await self._item(visit, conversation, item)
                case _:
                    raise errors.unknown_path()

    async def _collection(self, visit: Visit) -> None:
        visit.require("POST")
        body = await self._door.body(visit, may_be_empty=True)
        metadata = metadata_of(body.get("metadata"))
        given = body.get("items")
        items = read_items([] if given is None else given, _ITEMS, MOST_ITEMS_AT_ONCE)
        _refuse_references(items)
        store = _store()
        made = await self._shelf.write(lambda view: store.create(view, visit.owner, metadata, items))
        await visit.answer(made.shown())

    async def _one(self, visit: Visit, ref: str) -> None:
        visit.require("GET, POST, DELETE")
        store, owner = _store(), visit.owner
        if visit.method == "GET":
            found = await self._shelf.read(lambda view: store.get(view, owner, ref))
            await visit.answer(found.shown())
        elif visit.method == "POST":
            body = await self._door.body(visit)
            metadata = metadata_of(body.get("metadata"))
            found = await self._shelf.write(lambda view: store.set_metadata(view, owner, ref, metadata))
            await visit.answer(found.shown())
        else:
            await self._shelf.write(lambda view: store.remove(view, owner, ref))
            await visit.answer({"id": ref, "object": "conversation.deleted", "deleted": True})

    async def _items(self, visit: Visit, ref: str) -> None:
        visit.require("GET, POST")
        store, owner = _store(), visit.owner
        if visit.method == "GET":
            window = visit.window()
            found, more = await self._shelf.read(lambda view: store.page(view, owner, ref, window))
            await visit.answer(listed(found, has_more=more))
            return
        body = await self._door.body(visit)
        items = read_items(body.get("items"), _ITEMS, MOST_ITEMS_AT_ONCE)
        _refuse_references(items)
        await self._shelf.write(lambda view: store.add_items(view, owner, ref, items))
        await visit.answer(listed(items, has_more=False))

    async def _item(self, visit: Visit, ref: str, item: str) -> None:
        visit.require("GET, DELETE")
        store, owner = _store(), visit.owner
        if visit.method == "GET":
            await visit.answer(await self._shelf.read(lambda view: store.item(view, owner, ref, item)))
            return
        left = await self._shelf.write(lambda view: store.remove_item(view, owner, ref, item))
        await visit.answer(left.shown())


def _refuse_references(items: list[dict[str, Any]]) -> None:
    """An item that only points at another one cannot be kept."""
    for place, item in enumerate(items):
        if item["type"] == "item_reference":
            raise errors.bad_request(
                "invalid_value",
                f"'{_ITEMS}[{place}]' is a reference. Send the item itself.",
                f"{_ITEMS}[{place}].type",
            )


def _store() -> Any:
    # Here, not at the top: who needs no database must not wait for the import of SQLAlchemy.
    from sluicegate.conversations import store  # noqa: PLC0415

    return store


def routes(keys: Callers, bodies: BodyReader, shelf: Shelf) -> list[Route]:
    """The routes of this feature."""
    endpoint = ConversationsEndpoint(Door(keys, bodies, "chat:write", _PATH), shelf)
    return [Route("/v1/conversations", endpoint), Route(_PATH + "/{rest:path}", endpoint)]
