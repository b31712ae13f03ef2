"""Conversations of assistants with chat history in the database, as people see them."""

from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Row, exists, select

from sluicegate.archive.model import MessageView, ThreadView
from sluicegate.history.store import erase
from sluicegate.storage import kept_schema
from sluicegate.storage.scope import contains, json_text
from sluicegate.storage.transaction import View

PREFIX = "thread_"
TABLE = kept_schema.history_threads
# Of messages.
ORDER = "id"

_messages = kept_schema.history_messages
_before = _messages.alias("before")
_SHOWN = tuple(name for name in ThreadView.__struct_fields__ if name != "kind")


def mentions(text: str) -> "ColumnElement[bool]":
    """Those in which it was said."""
    return exists().where(_messages.c.thread == TABLE.c.id, contains(_messages.c.body, json_text(text)))


def said(thread: str) -> Any:
    """The messages, each with the one before it."""
    same = (_before.c.thread == _messages.c.thread) & (_before.c.chain == _messages.c.parent)
    query = select(_messages, _before.c.id.label("before")).outerjoin(_before, same)
    return query.where(_messages.c.thread == thread).subquery()


async def shown(_view: View, rows: "Sequence[Row[Any]]") -> list[ThreadView]:
    """Rows of the table."""
    return [ThreadView(kind="thread", **{name: getattr(row, name) for name in _SHOWN}) for row in rows]


def message(row: "Row[Any]") -> MessageView:
    """A row of `said`."""
    return MessageView(
        id=row.id,
        parent=row.before,
        depth=row.depth,
        branch=row.branch,
        status="complete" if row.complete else "incomplete",
        created_at=row.created_at,
        message=orjson.loads(row.body),
        thoughts=None if row.thoughts is None else orjson.loads(row.thoughts),
    )


async def remove(view: View, threads: Sequence[str]) -> None:
    """Delete them and all that is in them."""
    await erase(view, threads)
