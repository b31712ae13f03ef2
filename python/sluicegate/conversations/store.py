"""Conversations and items in the database. Everything belongs to one key of one workspace."""

from typing import Any

from sqlalchemy import Column, ColumnElement, delete, func, insert, select, update

from sluicegate.conversations.model import Conversation, Json
from sluicegate.http.door import Owner, Window
from sluicegate.ids import IdSource
from sluicegate.storage import kept_schema
from sluicegate.storage.codec import decode, encode
from sluicegate.storage.errors import NotFoundError
from sluicegate.storage.transaction import View

_KIND = "conversation"

_table = kept_schema.kept_conversations
_items = kept_schema.kept_items
_ids = IdSource("conv_")


async def create(view: View, owner: Owner, metadata: dict[str, str], items: list[Json]) -> Conversation:
    """A new conversation, with items in it."""
    made = Conversation(_ids.next(), metadata, view.now)
    row = {"id": made.id, "workspace": owner.workspace, "owner": owner.key, "metadata": encode(metadata)}
    await view.execute(insert(_table).values(**row, created_at=view.now, touched_at=view.now))
    await insert_items(view, owner, items, conversation=made.id)
    return made


async def get(view: View, owner: Owner, conversation: str) -> Conversation:
    """One conversation. Raises NotFoundError."""
    query = select(_table.c.id, _table.c.metadata, _table.c.created_at).where(_mine(owner, conversation))
    row = (await view.execute(query)).first()
    if row is None:
        raise NotFoundError(_KIND, conversation)
    return Conversation(row.id, decode(row.metadata, dict), row.created_at)


async def set_metadata(view: View, owner: Owner, conversation: str, metadata: dict[str, str]) -> Conversation:
    """Replace its metadata. Raises NotFoundError."""
    await get(view, owner, conversation)
    await view.execute(update(_table).where(_mine(owner, conversation)).values(metadata=encode(metadata)))
    return await get(view, owner, conversation)


async def remove(view: View, owner: Owner, conversation: str) -> None:
    """Delete it; what belongs to responses stays with them. Raises NotFoundError."""
    await get(view, owner, conversation)
    await view.execute(delete(_table).where(_mine(owner, conversation)))
    await release(view, _items.c.conversation, _items.c.conversation == conversation)


async def expire(view: View, workspace: str, before: int, most: int) -> int:
    """Delete a workspace's conversations that nothing was added to since `before` (milliseconds since 1970).

    At most so many; how many they were. What belongs to responses stays with them.
    """
    used = func.coalesce(_table.c.touched_at, _table.c.created_at)
    old = select(_table.c.id).where(_table.c.workspace == workspace, used < before).limit(most)
    refs = list((await view.execute(old)).scalars())
    if refs:
        await release(view, _items.c.conversation, _items.c.conversation.in_(refs))
        await view.execute(delete(_table).where(_table.c.id.in_(refs)))
    return len(refs)


async def release(view: View, owner: Column[Any], where: ColumnElement[bool]) -> None:
    """Take items out of conversations, or out of responses: `owner`. What the other has, too, stays there."""
    other = _items.c.response if owner is _items.c.conversation else _items.c.conversation
    await view.execute(delete(_items).where(where, other.is_(None)))
    await view.execute(update(_items).where(where).values({owner: None}))


async def add_items(view: View, owner: Owner, conversation: str, items: list[Json]) -> None:
    """Append items. Raises NotFoundError."""
    await get(view, owner, conversation)
    await insert_items(view, owner, items, conversation=conversation)


async def all_items(view: View, owner: Owner, conversation: str) -> list[Json]:
    """Everything in it, in order. Raises NotFoundError."""
    await get(view, owner, conversation)
    query = select(_items.c.body).where(_items.c.conversation == conversation).order_by(_items.c.sequence)
    return [decode(row.body, dict) for row in (await view.execute(query)).all()]


async def page(view: View, owner: Owner, conversation: str, window: Window) -> tuple[list[Json], bool]:
    """Some items, and whether there are more. Raises NotFoundError."""
    await get(view, owner, conversation)
    return await items_page(view, _items.c.conversation == conversation, window)


async def item(view: View, owner: Owner, conversation: str, ref: str) -> Json:
    """One item. Raises NotFoundError."""
    await get(view, owner, conversation)
    query = select(_items.c.body).where(_items.c.conversation == conversation, _items.c.id == ref)
    row = (await view.execute(query.order_by(_items.c.sequence.desc()).limit(1))).first()
    if row is None:
        raise NotFoundError("item", ref)
    found: Json = decode(row.body, dict)
    return found


async def remove_item(view: View, owner: Owner, conversation: str, ref: str) -> Conversation:
    """Take an item out of a conversation. Raises NotFoundError."""
    await item(view, owner, conversation, ref)
    here = (_items.c.conversation == conversation) & (_items.c.id == ref)
    await release(view, _items.c.conversation, here)
    return await get(view, owner, conversation)


async def referenced(view: View, owner: Owner, refs: list[str]) -> dict[str, Json]:
    """Items by their ids, those of this owner alone."""
    mine = (_items.c.workspace == owner.workspace) & (_items.c.owner == owner.key)
    query = select(_items.c.id, _items.c.body).where(mine, _items.c.id.in_(refs)).order_by(_items.c.sequence)
    return {row.id: decode(row.body, dict) for row in (await view.execute(query)).all()}


async def insert_items(  # noqa: PLR0913 (where they belong)
    view: View,
    owner: Owner,
    items: list[Json],
    *,
    response: str | None = None,
    conversation: str | None = None,
    is_input: bool = True,
) -> None:
    """Append items; the order of the list is kept."""
    if not items:
        return
    where: dict[str, Any] = {"workspace": owner.workspace, "owner": owner.key}
    where |= {"response": response, "conversation": conversation, "is_input": is_input}
    # One statement with all rows: its sequence follows the order of the rows on both databases.
    rows = [{**where, "id": made["id"], "body": encode(made)} for made in items]
    for start in range(0, len(rows), _ROWS):
        await view.execute(insert(_items).values(rows[start : start + _ROWS]))
    if conversation is not None:
        touched = update(_table).where(_mine(owner, conversation))
        await view.execute(touched.values(touched_at=view.now))


# Seven values a row, and SQLite takes 32,766 of them.
_ROWS = 1000


async def items_page(view: View, where: "ColumnElement[bool]", window: Window) -> tuple[list[Json], bool]:
    """Items in pages; `after` is the id of the last one seen."""
    query = select(_items.c.body, _items.c.sequence).where(where)
    order = _items.c.sequence.desc() if window.newest_first else _items.c.sequence
    if window.after is not None:
        last = select(_items.c.sequence).where(where, _items.c.id == window.after).order_by(order).limit(1)
        found = (await view.execute(last)).scalar()
        if found is None:
            raise NotFoundError("item", window.after)
        beyond = _items.c.sequence < found if window.newest_first else _items.c.sequence > found
        query = query.where(beyond)
    rows = (await view.execute(query.order_by(order).limit(window.limit + 1))).all()
    return [decode(row.body, dict) for row in rows[: window.limit]], len(rows) > window.limit


def _mine(owner: Owner, conversation: str) -> "ColumnElement[bool]":
    own = (_table.c.workspace == owner.workspace) & (_table.c.owner == owner.key)
    return own & (_table.c.id == conversation)
