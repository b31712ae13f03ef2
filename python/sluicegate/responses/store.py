"""Responses in the database, each with its own input and output; a chain is found by what came before."""

from msgspec import Struct
from sqlalchemy import ColumnElement, delete, insert, literal, select, update

from sluicegate.conversations import store as conversations
from sluicegate.conversations.model import Json
from sluicegate.http.door import Owner, Window
from sluicegate.storage import kept_schema
from sluicegate.storage.codec import decode
from sluicegate.storage.errors import NotFoundError
from sluicegate.storage.transaction import View

_KIND = "response"
# A chain that is longer than any context window.
_MOST_TURNS = 10_000
RUNNING = "in_progress"
# The next response may begin with one that ended so.
USABLE = ("completed", "incomplete")

_table = kept_schema.kept_responses
_items = kept_schema.kept_items


class Kept(Struct, frozen=True, kw_only=True):
    """A response as it is stored: `body` is what the API shows, as JSON."""

    id: str
    status: str
    body: str
    previous: str | None
    # Where an assistant with chat history keeps the answer.
    spot: str | None = None
    touched_at: int = 0


class Turn(Struct, frozen=True, kw_only=True):
    """A response and what it was made from."""

    kept: Kept
    input: list[Json]
    output: list[Json]
    conversation: str | None = None


async def save(view: View, owner: Owner, turn: Turn) -> None:
    """Keep a response that has ended, and what it adds to its conversation."""
    kept = turn.kept
    row: dict[str, str | None] = {
        "id": kept.id,
        "workspace": owner.workspace,
        "owner": owner.key,
        "status": kept.status,
    }
    row |= {"previous": kept.previous, "body": kept.body, "spot": kept.spot}
    await view.execute(insert(_table).values(**row, created_at=view.now, touched_at=view.now))
    await _save_items(view, owner, turn)


async def settle(view: View, owner: Owner, turn: Turn) -> bool:
    """Keep how a response in the background ended, unless it was cancelled or deleted meanwhile."""
    mine = _mine(owner, turn.kept.id) & (_table.c.status == RUNNING)
    kept = turn.kept
    values = {"status": kept.status, "body": kept.body, "spot": kept.spot, "touched_at": view.now}
    if not (await view.execute(update(_table).where(mine).values(**values))).rowcount:
        return False
    await _save_items(view, owner, turn)
    return True


async def _save_items(view: View, owner: Owner, turn: Turn) -> None:
    # What broke off is no part of the conversation.
    into = turn.conversation if turn.kept.status in USABLE else None
    for items, is_input in ((turn.input, True), (turn.output, False)):
        await conversations.insert_items(
            view, owner, items, response=turn.kept.id, conversation=into, is_input=is_input
        )


async def find(view: View, owner: Owner, response: str) -> Kept:
    """One response. Raises NotFoundError."""
    columns = [_table.c[name] for name in Kept.__struct_fields__]
    row = (await view.execute(select(*columns).where(_mine(owner, response)))).first()
    if row is None:
        raise NotFoundError(_KIND, response)
    return Kept(**row._mapping)


async def chain(view: View, owner: Owner, response: str) -> tuple[Kept, list[Json]]:
    """A response, and all items up to its end. Raises NotFoundError for the one that is gone."""
    last = await find(view, owner, response)
    step = select(_table.c.id, _table.c.previous, literal(0).label("depth")).where(_mine(owner, response))
    turns = step.cte("turns", recursive=True)
    own = (_table.c.workspace == owner.workspace) & (_table.c.owner == owner.key)
    turns = turns.union_all(
        select(_table.c.id, _table.c.previous, turns.c.depth + 1)
        .join(turns, _table.c.id == turns.c.previous)
        .where(own, turns.c.depth < _MOST_TURNS)
    )
    query = select(_items.c.body, turns.c.previous).select_from(turns)
    query = query.outerjoin(_items, _items.c.response == turns.c.id)
    rows = (await view.execute(query.order_by(turns.c.depth.desc(), _items.c.sequence))).all()
    # The first of all has none before it.
    if rows and rows[0].previous is not None:
        raise NotFoundError(_KIND, rows[0].previous)
    return last, [decode(row.body, dict) for row in rows if row.body is not None]


async def remove(view: View, owner: Owner, response: str) -> None:
    """Delete it; what it added to a conversation stays there. Raises NotFoundError."""
    await find(view, owner, response)
    await view.execute(delete(_table).where(_mine(owner, response)))
    await conversations.release(view, _items.c.response, _items.c.response == response)


async def input_items(view: View, owner: Owner, response: str, window: Window) -> tuple[list[Json], bool]:
    """What it was asked, in pages. Raises NotFoundError."""
    await find(view, owner, response)
    where = (_items.c.response == response) & _items.c.is_input
    return await conversations.items_page(view, where, window)


async def touch(view: View, owner: Owner, response: str) -> str | None:
    """Say that somebody works on it; gives its status, None where it was deleted."""
    mine = _mine(owner, response)
    await view.execute(update(_table).where(mine, _table.c.status == RUNNING).values(touched_at=view.now))
    status: str | None = (await view.execute(select(_table.c.status).where(mine))).scalar()
    return status


async def end(view: View, owner: Owner, response: str, status: str, body: str) -> Kept:
    """End one that runs, from outside: cancelled, or nobody works on it any more. Raises NotFoundError."""
    mine = _mine(owner, response) & (_table.c.status == RUNNING)
    await view.execute(update(_table).where(mine).values(status=status, body=body, touched_at=view.now))
    return await find(view, owner, response)


async def expire(view: View, before: int, most: int, workspace: str | None = None) -> int:
    """Delete responses older than `before` (milliseconds since 1970), at most so many; how many they were.

    `workspace`: its own alone. What they added to conversations stays there.
    """
    old = select(_table.c.id).where(_table.c.created_at < before)
    if workspace is not None:
        old = old.where(_table.c.workspace == workspace)
    old = old.order_by(_table.c.created_at).limit(most)
    refs = list((await view.execute(old)).scalars())
    if refs:
        await conversations.release(view, _items.c.response, _items.c.response.in_(refs))
        await view.execute(delete(_table).where(_table.c.id.in_(refs)))
    return len(refs)


def _mine(owner: Owner, response: str) -> "ColumnElement[bool]":
    own = (_table.c.workspace == owner.workspace) & (_table.c.owner == owner.key)
    return own & (_table.c.id == response)
