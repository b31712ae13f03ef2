"""Conversations that clients have made at /v1/conversations, as people see them."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, delete, exists, func, select

from sluicegate.archive.model import MOST_EXPORTED, MessageView, ThreadView, Wanted
from sluicegate.history.model import LONGEST_TITLE
from sluicegate.storage import kept_schema
from sluicegate.storage.codec import decode
from sluicegate.storage.errors import NotFoundError
from sluicegate.storage.page import Page, PageQuery, page_of, paged
from sluicegate.storage.scope import contains, json_text
from sluicegate.storage.transaction import View

PREFIX = "conv_"

_table = kept_schema.kept_conversations
_items = kept_schema.kept_items
_responses = kept_schema.kept_responses
# Ids in one statement.
_AT_ONCE = 500


async def below(view: View, workspace: str, wanted: Wanted, last: str | None, limit: int) -> list[ThreadView]:
    """The newest ones of a workspace, those before the id `last`."""
    query = select(_table).where(*_matching(workspace, wanted))
    if last is not None:
        query = query.where(_table.c.id < last)
    rows = (await view.execute(query.order_by(_table.c.id.desc()).limit(limit))).all()
    return await _shown(view, rows)


async def get(view: View, workspace: str, conversation: str) -> ThreadView:
    """One of them, by its id. Raises NotFoundError."""
    query = select(_table).where(_table.c.workspace == workspace, _table.c.id == conversation)
    rows = (await view.execute(query)).all()
    if not rows:
        raise NotFoundError("conversation", conversation)
    return (await _shown(view, rows))[0]


async def messages(view: View, conversation: str, page: PageQuery, text: str | None) -> Page[MessageView]:
    """Its items, in the order in which they came."""
    query = select(_items).where(_items.c.conversation == conversation)
    if text:
        query = query.where(contains(_items.c.body, json_text(text)))
    rows = (await view.execute(paged(query, _items.c.sequence, page))).all()
    found = [await _message(view, row) for row in rows]
    return page_of(found, [row.sequence for row in rows], page)


async def everything(view: View, conversation: str) -> tuple[MessageView, ...]:
    """All its items."""
    query = select(_items).where(_items.c.conversation == conversation).order_by(_items.c.sequence)
    rows = (await view.execute(query.limit(MOST_EXPORTED))).all()
    return tuple(_item(row, depth, before) for depth, (row, before) in enumerate(_with_before(rows)))


async def some(view: View, workspace: str, wanted: Wanted, most: int) -> list[str]:
    """The ids of some."""
    query = select(_table.c.id).where(*_matching(workspace, wanted)).limit(most)
    return list((await view.execute(query)).scalars())


async def remove(view: View, conversations: Sequence[str]) -> None:
    """Delete them and all that is in them, the responses too that were given there."""
    for start in range(0, len(conversations), _AT_ONCE):
        some_of_them = conversations[start : start + _AT_ONCE]
        inside = _items.c.conversation.in_(some_of_them)
        given = select(_items.c.response).where(inside, _items.c.response.is_not(None)).distinct()
        responses = list((await view.execute(given)).scalars())
        await view.execute(delete(_table).where(_table.c.id.in_(some_of_them)))
        await view.execute(delete(_items).where(inside))
        for first in range(0, len(responses), _AT_ONCE):
            theirs = responses[first : first + _AT_ONCE]
            await view.execute(delete(_items).where(_items.c.response.in_(theirs)))
            await view.execute(delete(_responses).where(_responses.c.id.in_(theirs)))


def _matching(workspace: str, wanted: Wanted) -> list["ColumnElement[bool]"]:
    found: list[ColumnElement[bool]] = [_table.c.workspace == workspace]
    if wanted.owner is not None:
        found.append(_table.c.owner == wanted.owner)
    if wanted.text:
        said = contains(_items.c.body, json_text(wanted.text))
        found.append(exists().where(_items.c.conversation == _table.c.id, said))
    return found


async def _shown(view: View, rows: "Sequence[Row[Any]]") -> list[ThreadView]:
    """With what their items tell: how they begin, and how many answers they have."""
    inside = _items.c.conversation.in_([row.id for row in rows])
    answers = func.count(_items.c.response.distinct())
    query = select(_items.c.conversation, func.min(_items.c.sequence), answers).where(inside)
    found: Sequence[Any] = (await view.execute(query.group_by(_items.c.conversation))).all()
    of = {ref: (first, turns) for ref, first, turns in found}
    firsts = select(_items.c.sequence, _items.c.body).where(
        _items.c.sequence.in_([first for first, _ in of.values()])
    )
    bodies = {row.sequence: row.body for row in (await view.execute(firsts)).all()}
    return [_conversation(row, *of.get(row.id, (None, 0)), bodies) for row in rows]


def _conversation(row: "Row[Any]", first: int | None, turns: int, bodies: dict[int, str]) -> ThreadView:
    return ThreadView(
        id=row.id,
        kind="conversation",
        workspace=row.workspace,
        owner=row.owner,
        assistant=None,
        name=None,
        title="" if first is None else _title(decode(bodies[first], dict)),
        turns=turns,
        created_at=row.created_at,
        updated_at=row.created_at if row.touched_at is None else row.touched_at,
    )


def _title(item: dict[str, Any]) -> str:
    content = item.get("content")
    parts = content if isinstance(content, list) else [{"text": content}]
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    words = " ".join(text for text in texts if isinstance(text, str)).split()
    return " ".join(words)[:LONGEST_TITLE]


async def _message(view: View, row: "Row[Any]") -> MessageView:
    """An item in its place, by what is before it."""
    earlier = (_items.c.conversation == row.conversation) & (_items.c.sequence < row.sequence)
    last = select(_items.c.id).where(earlier).order_by(_items.c.sequence.desc()).limit(1)
    depth = (await view.execute(select(func.count()).select_from(_items).where(earlier))).scalar_one()
    return _item(row, depth, (await view.execute(last)).scalar())


def _with_before(rows: "Sequence[Row[Any]]") -> "list[tuple[Row[Any], str | None]]":
    return list(zip(rows, [None, *(row.id for row in rows[:-1])], strict=True)) if rows else []


def _item(row: "Row[Any]", depth: int, before: str | None) -> MessageView:
    body = decode(row.body, dict)
    return MessageView(
        id=row.id,
        parent=before,
        depth=depth,
        branch="main",
        status="incomplete" if body.get("status") == "incomplete" else "complete",
        created_at=None,
        message=body,
    )
