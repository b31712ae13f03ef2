"""Conversations that clients have made at /v1/conversations, as people see them."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, delete, exists, func, select

from sluicegate.archive.model import MessageView, ThreadView
from sluicegate.history.merge import line_of
from sluicegate.storage import kept_schema
from sluicegate.storage.codec import decode
from sluicegate.storage.scope import contains, json_text
from sluicegate.storage.transaction import View

PREFIX = "conv_"
TABLE = kept_schema.kept_conversations
# Of messages.
ORDER = "sequence"

_items = kept_schema.kept_items
_responses = kept_schema.kept_responses
# Ids in one statement.
_AT_ONCE = 500


def mentions(text: str) -> "ColumnElement[bool]":
    """Those in which it was said."""
    return exists().where(_items.c.conversation == TABLE.c.id, contains(_items.c.body, json_text(text)))


def said(conversation: str) -> Any:
    """The items, each with the one before it and how many these are."""
    before = func.lag(_items.c.id).over(order_by=_items.c.sequence).label("before")
    place = func.row_number().over(order_by=_items.c.sequence).label("place")
    return select(_items, before, place).where(_items.c.conversation == conversation).subquery()


async def shown(view: View, rows: "Sequence[Row[Any]]") -> list[ThreadView]:
    """Rows of the table, with what their items tell: how they begin, and how many answers they have."""
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
    content = None if first is None else decode(bodies[first], dict).get("content")
    return ThreadView(
        id=row.id,
        kind="conversation",
        workspace=row.workspace,
        owner=row.owner,
        assistant=None,
        name=None,
        title=" ".join(line_of(content).split()),
        turns=turns,
        created_at=row.created_at,
        updated_at=row.created_at if row.touched_at is None else row.touched_at,
    )


def message(row: "Row[Any]") -> MessageView:
    """A row of `said`."""
    body = decode(row.body, dict)
    return MessageView(
        id=row.id,
        parent=row.before,
        depth=row.place - 1,
        branch="main",
        status="incomplete" if body.get("status") == "incomplete" else "complete",
        created_at=None,
        message=body,
    )


async def remove(view: View, conversations: Sequence[str]) -> None:
    """Delete them and all that is in them, the responses too that were given there."""
    for start in range(0, len(conversations), _AT_ONCE):
        some = conversations[start : start + _AT_ONCE]
        inside = _items.c.conversation.in_(some)
        given = select(_items.c.response).where(inside, _items.c.response.is_not(None)).distinct()
        responses = list((await view.execute(given)).scalars())
        await view.execute(delete(TABLE).where(TABLE.c.id.in_(some)))
        await view.execute(delete(_items).where(inside))
        for first in range(0, len(responses), _AT_ONCE):
            theirs = responses[first : first + _AT_ONCE]
            await view.execute(delete(_items).where(_items.c.response.in_(theirs)))
            await view.execute(delete(_responses).where(_responses.c.id.in_(theirs)))
