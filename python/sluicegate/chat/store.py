"""Stored chat completions in the database. Everything belongs to one key of one workspace."""

from msgspec import Struct
from sqlalchemy import ColumnElement, delete, insert, select, update

from sluicegate.http.door import Json, Owner, Window
from sluicegate.storage import kept_schema
from sluicegate.storage.codec import decode, encode
from sluicegate.storage.errors import NotFoundError
from sluicegate.storage.transaction import View

_KIND = "chat completion"
# Rows looked through for one page of a list that is filtered by metadata.
_STEP = 200

_table = kept_schema.kept_chats


class Chat(Struct, frozen=True, kw_only=True):
    """A stored chat: its messages, and the answer as JSON."""

    id: str
    model: str
    metadata: dict[str, str]
    messages: list[Json]
    body: str


async def save(view: View, owner: Owner, chat: Chat) -> None:
    """Keep one."""
    row = {"id": chat.id, "workspace": owner.workspace, "owner": owner.key, "model": chat.model}
    row |= {"metadata": encode(chat.metadata), "messages": encode(chat.messages), "body": chat.body}
    await view.execute(insert(_table).values(**row, created_at=view.now))


async def find(view: View, owner: Owner, chat: str) -> Chat:
    """One chat. Raises NotFoundError."""
    row = (await view.execute(select(_table).where(_mine(owner), _table.c.id == chat))).first()
    if row is None:
        raise NotFoundError(_KIND, chat)
    metadata, messages = decode(row.metadata, dict), decode(row.messages, list)
    return Chat(id=row.id, model=row.model, metadata=metadata, messages=messages, body=row.body)


async def set_metadata(view: View, owner: Owner, chat: str, metadata: dict[str, str]) -> Chat:
    """Replace its metadata. Raises NotFoundError."""
    found = await find(view, owner, chat)
    body = encode(decode(found.body, dict) | {"metadata": metadata})
    values = {"metadata": encode(metadata), "body": body}
    await view.execute(update(_table).where(_mine(owner), _table.c.id == chat).values(**values))
    return await find(view, owner, chat)


async def remove(view: View, owner: Owner, chat: str) -> None:
    """Delete it. Raises NotFoundError."""
    await find(view, owner, chat)
    await view.execute(delete(_table).where(_mine(owner), _table.c.id == chat))


async def page(
    view: View, owner: Owner, window: Window, model: str | None, metadata: dict[str, str]
) -> tuple[list[Json], bool]:
    """Some of them, and whether there are more; `metadata`: pairs that all have to be there."""
    query = select(_table.c.id, _table.c.metadata, _table.c.body).where(_mine(owner))
    if model is not None:
        query = query.where(_table.c.model == model)
    found: list[Json] = []
    after = window.after
    while True:
        step = query
        if after is not None:
            step = query.where(_table.c.id < after if window.newest_first else _table.c.id > after)
        order = _table.c.id.desc() if window.newest_first else _table.c.id
        rows = (await view.execute(step.order_by(order).limit(_STEP))).all()
        for row in rows:
            if metadata.items() <= decode(row.metadata, dict).items():
                if len(found) == window.limit:
                    return found, True
                found.append(decode(row.body, dict))
        if len(rows) < _STEP:
            return found, False
        after = rows[-1].id


async def expire(view: View, before: int, most: int, workspace: str | None = None) -> int:
    """Delete chats older than `before` (milliseconds since 1970), at most so many; how many they were.

    `workspace`: its own alone.
    """
    old = select(_table.c.id).where(_table.c.created_at < before)
    if workspace is not None:
        old = old.where(_table.c.workspace == workspace)
    old = old.order_by(_table.c.created_at).limit(most)
    refs = list((await view.execute(old)).scalars())
    if refs:
        await view.execute(delete(_table).where(_table.c.id.in_(refs)))
    return len(refs)


def _mine(owner: Owner) -> "ColumnElement[bool]":
    return (_table.c.workspace == owner.workspace) & (_table.c.owner == owner.key)
