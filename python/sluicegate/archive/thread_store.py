"""Conversations of assistants with chat history in the database, as people see them."""

from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Row, exists, select

from sluicegate.archive.model import MOST_EXPORTED, MessageView, ThreadView, Wanted
from sluicegate.history.store import erase
from sluicegate.storage import kept_schema
from sluicegate.storage.errors import NotFoundError
from sluicegate.storage.page import Page, PageQuery, page_of, paged
from sluicegate.storage.scope import contains, json_text
from sluicegate.storage.transaction import View

PREFIX = "thread_"

_threads = kept_schema.history_threads
_messages = kept_schema.history_messages
_before = _messages.alias("before")
_SHOWN = tuple(name for name in ThreadView.__struct_fields__ if name != "kind")


async def below(view: View, workspace: str, wanted: Wanted, last: str | None, limit: int) -> list[ThreadView]:
    """The newest ones of a workspace, those before the id `last`."""
    query = select(_threads).where(*_matching(workspace, wanted))
    if last is not None:
        query = query.where(_threads.c.id < last)
    rows = (await view.execute(query.order_by(_threads.c.id.desc()).limit(limit))).all()
    return [_thread(row) for row in rows]


async def get(view: View, workspace: str, thread: str) -> ThreadView:
    """One of them, by its id. Raises NotFoundError."""
    query = select(_threads).where(_threads.c.workspace == workspace, _threads.c.id == thread)
    row = (await view.execute(query)).first()
    if row is None:
        raise NotFoundError("conversation", thread)
    return _thread(row)


async def messages(view: View, thread: str, page: PageQuery, text: str | None) -> Page[MessageView]:
    """What was said in it, in the order in which it was stored."""
    query = paged(_said(thread, text), _messages.c.id, page)
    rows = (await view.execute(query)).all()
    return page_of([_message(row) for row in rows], [row.id for row in rows], page)


async def everything(view: View, thread: str) -> tuple[MessageView, ...]:
    """All that was said in it."""
    rows = (await view.execute(_said(thread, None).order_by(_messages.c.id).limit(MOST_EXPORTED))).all()
    return tuple(_message(row) for row in rows)


async def some(view: View, workspace: str, wanted: Wanted, most: int) -> list[str]:
    """The ids of some."""
    query = select(_threads.c.id).where(*_matching(workspace, wanted)).limit(most)
    return list((await view.execute(query)).scalars())


async def remove(view: View, threads: Sequence[str]) -> None:
    """Delete them and all that is in them."""
    await erase(view, threads)


def _matching(workspace: str, wanted: Wanted) -> list["ColumnElement[bool]"]:
    found: list[ColumnElement[bool]] = [_threads.c.workspace == workspace]
    if wanted.owner is not None:
        found.append(_threads.c.owner == wanted.owner)
    if wanted.assistant is not None:
        found.append(_threads.c.assistant == wanted.assistant)
    if wanted.text:
        inside = exists().where(
            _messages.c.thread == _threads.c.id, contains(_messages.c.body, json_text(wanted.text))
        )
        found.append(inside)
    return found


def _said(thread: str, text: str | None) -> Any:
    same = (_before.c.thread == _messages.c.thread) & (_before.c.chain == _messages.c.parent)
    query = select(_messages, _before.c.id.label("before")).outerjoin(_before, same)
    query = query.where(_messages.c.thread == thread)
    return query.where(contains(_messages.c.body, json_text(text))) if text else query


def _thread(row: "Row[Any]") -> ThreadView:
    return ThreadView(kind="thread", **{name: getattr(row, name) for name in _SHOWN})


def _message(row: "Row[Any]") -> MessageView:
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
