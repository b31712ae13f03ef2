"""Kept conversations in the database, as people list, read, search, export and delete them."""

from typing import Any

import orjson
from sqlalchemy import ColumnElement, Row, exists, select

from sluicegate.audit import store as audit
from sluicegate.history.model import MOST_EXPORTED, Exported, MessageView, ThreadView, Wanted
from sluicegate.history.store import erase
from sluicegate.ids import PLATFORM
from sluicegate.storage import kept_schema, schema
from sluicegate.storage.errors import InvalidError, NotFoundError
from sluicegate.storage.page import NEWEST, Page, PageQuery, page_of, paged
from sluicegate.storage.scope import contains
from sluicegate.storage.transaction import Change, View

_KIND = "conversation"
EVERYTHING = Wanted()
# In one change; who deletes more goes on.
MOST_DELETED = 10_000

_threads = kept_schema.history_threads
_messages = kept_schema.history_messages
_before = _messages.alias("before")


async def entries(
    view: View, workspace: str, page: PageQuery = NEWEST, wanted: Wanted = EVERYTHING
) -> Page[ThreadView]:
    """The threads of a workspace, the newest first."""
    query = paged(select(_threads).where(*_matching(workspace, wanted)), _threads.c.id, page)
    rows = (await view.execute(query)).all()
    return page_of([_thread(row) for row in rows], [row.id for row in rows], page)


async def get(view: View, workspace: str, thread: str) -> ThreadView:
    """One thread, by its id. Raises NotFoundError."""
    query = select(_threads).where(_threads.c.workspace == workspace, _threads.c.id == thread)
    row = (await view.execute(query)).first()
    if row is None:
        raise NotFoundError(_KIND, thread)
    return _thread(row)


async def messages(
    view: View, workspace: str, thread: str, page: PageQuery, text: str | None = None
) -> Page[MessageView]:
    """What was said in a thread, in the order in which it was stored. Raises NotFoundError."""
    await get(view, workspace, thread)
    query = paged(_said(thread, text), _messages.c.id, page)
    rows = (await view.execute(query)).all()
    return page_of([_message(row) for row in rows], [row.id for row in rows], page)


async def export(view: View, workspace: str, thread: str) -> Exported:
    """All of a thread. Raises NotFoundError."""
    found = await get(view, workspace, thread)
    rows = (await view.execute(_said(thread, None).order_by(_messages.c.id).limit(MOST_EXPORTED))).all()
    return Exported(thread=found, messages=tuple(_message(row) for row in rows))


async def remove(change: Change, workspace: str, thread: str) -> None:
    """Delete a thread and all that is in it. Raises NotFoundError."""
    await get(change, workspace, thread)
    await erase(change, [thread])
    await _record(change, workspace, "conversation.delete", thread, {})


async def remove_all(change: Change, workspace: str, wanted: Wanted) -> int:
    """Delete the threads of a key or an assistant, at most `MOST_DELETED`; how many they were."""
    if wanted.owner is None and wanted.assistant is None:
        raise InvalidError("key", "give `key` or `assistant`: whose conversations are to be deleted")
    query = select(_threads.c.id).where(*_matching(workspace, wanted)).limit(MOST_DELETED)
    refs = list((await change.execute(query)).scalars())
    await erase(change, refs)
    detail = {"key": wanted.owner, "assistant": wanted.assistant, "deleted": len(refs)}
    await _record(change, workspace, "conversation.delete_all", workspace, detail)
    return len(refs)


async def _record(change: Change, workspace: str, action: str, target: str, detail: dict[str, Any]) -> None:
    """In the audit log of the workspace; in the operator's for that of the settings, which has no row."""
    there = select(exists().where(schema.workspaces.c.id == workspace))
    home = workspace if (await change.execute(there)).scalar() else PLATFORM
    audit.record(change, home, action, target, detail)


def _matching(workspace: str, wanted: Wanted) -> list["ColumnElement[bool]"]:
    found: list[ColumnElement[bool]] = [_threads.c.workspace == workspace]
    if wanted.owner is not None:
        found.append(_threads.c.owner == wanted.owner)
    if wanted.assistant is not None:
        found.append(_threads.c.assistant == wanted.assistant)
    if wanted.text:
        inside = exists().where(
            _messages.c.thread == _threads.c.id, contains(_messages.c.body, _json(wanted.text))
        )
        found.append(inside)
    return found


def _said(thread: str, text: str | None) -> Any:
    same = (_before.c.thread == _messages.c.thread) & (_before.c.chain == _messages.c.parent)
    query = select(_messages, _before.c.id.label("before")).outerjoin(_before, same)
    query = query.where(_messages.c.thread == thread)
    return query.where(contains(_messages.c.body, _json(text))) if text else query


def _json(text: str) -> str:
    """As it stands in a message."""
    return orjson.dumps(text).decode()[1:-1]


def _thread(row: "Row[Any]") -> ThreadView:
    return ThreadView(**{name: getattr(row, name) for name in ThreadView.__struct_fields__})


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
