"""All kept conversations of a workspace in one list, whoever keeps them."""

from collections.abc import Sequence
from typing import Any, Protocol

from sqlalchemy import ColumnElement, Row, Table, exists, select

from sluicegate.archive import kept_store, thread_store
from sluicegate.archive.model import (
    EVERYTHING,
    MOST_EXPORTED,
    Exported,
    Kind,
    MessageView,
    ThreadView,
    Wanted,
)
from sluicegate.audit import store as audit
from sluicegate.ids import PLATFORM
from sluicegate.storage import schema
from sluicegate.storage.errors import InvalidError, NotFoundError
from sluicegate.storage.page import NEWEST, Page, PageQuery, last_of, page_of, paged, require_limit
from sluicegate.storage.scope import contains, json_text
from sluicegate.storage.transaction import Change, View

_KIND = "conversation"
# In one change; who deletes more goes on.
MOST_DELETED = 10_000


class Store(Protocol):
    """What is different in the conversations of one kind; a module is one."""

    PREFIX: str
    # Of the conversations; and the column of `said` in whose order things were said.
    TABLE: Table
    ORDER: str

    def mentions(self, text: str) -> ColumnElement[bool]: ...
    def said(self, id: str, /) -> Any: ...
    async def shown(self, view: View, rows: Sequence[Row[Any]], /) -> list[ThreadView]: ...
    def message(self, row: Row[Any]) -> MessageView: ...
    async def remove(self, view: View, ids: Sequence[str], /) -> None: ...


_STORES: dict[Kind, Store] = {"thread": thread_store, "conversation": kept_store}


async def entries(
    view: View, workspace: str, page: PageQuery = NEWEST, wanted: Wanted = EVERYTHING
) -> Page[ThreadView]:
    """The conversations of a workspace, the newest first."""
    require_limit(page)
    last = last_of(page)
    found: list[ThreadView] = []
    for store in _wanted_stores(wanted):
        query, ids = select(store.TABLE).where(*_matching(store, workspace, wanted)), store.TABLE.c.id
        if last is not None:
            query = query.where(ids < store.PREFIX + last)
        rows = (await view.execute(query.order_by(ids.desc()).limit(page.limit + 1))).all()
        found += await store.shown(view, rows)
    # What follows the prefix of an id sorts by time.
    found.sort(key=lambda one: _place(one.id), reverse=True)
    found = found[: page.limit + 1]
    return page_of(found, [_place(one.id) for one in found], page)


async def get(view: View, workspace: str, conversation: str) -> ThreadView:
    """One conversation, by its id. Raises NotFoundError."""
    store = _store(conversation)
    table = store.TABLE
    query = select(table).where(table.c.workspace == workspace, table.c.id == conversation)
    rows = (await view.execute(query)).all()
    if not rows:
        raise NotFoundError(_KIND, conversation)
    return (await store.shown(view, rows))[0]


async def messages(
    view: View, workspace: str, conversation: str, page: PageQuery, text: str | None = None
) -> Page[MessageView]:
    """What was said in it, in the order in which it was stored. Raises NotFoundError."""
    await get(view, workspace, conversation)
    store = _store(conversation)
    said = store.said(conversation)
    query = select(said).where(contains(said.c.body, json_text(text))) if text else select(said)
    rows = (await view.execute(paged(query, said.c[store.ORDER], page))).all()
    return page_of([store.message(row) for row in rows], [getattr(row, store.ORDER) for row in rows], page)


async def export(view: View, workspace: str, conversation: str) -> Exported:
    """All of it. Raises NotFoundError."""
    found, store = await get(view, workspace, conversation), _store(conversation)
    said = store.said(conversation)
    rows = (await view.execute(select(said).order_by(said.c[store.ORDER]).limit(MOST_EXPORTED))).all()
    return Exported(thread=found, messages=tuple(map(store.message, rows)))


async def remove(change: Change, workspace: str, conversation: str) -> None:
    """Delete a conversation and all that is in it. Raises NotFoundError."""
    await get(change, workspace, conversation)
    await _store(conversation).remove(change, [conversation])
    await _record(change, workspace, "conversation.delete", conversation, {})


async def remove_all(change: Change, workspace: str, wanted: Wanted) -> int:
    """Delete the conversations of a key or an assistant, at most `MOST_DELETED`; how many they were."""
    if wanted.owner is None and wanted.assistant is None:
        raise InvalidError("key", "give `key` or `assistant`: whose conversations are to be deleted")
    deleted = 0
    for store in _wanted_stores(wanted):
        some = select(store.TABLE.c.id).where(*_matching(store, workspace, wanted))
        refs = list((await change.execute(some.limit(MOST_DELETED - deleted))).scalars())
        await store.remove(change, refs)
        deleted += len(refs)
    detail = {"key": wanted.owner, "assistant": wanted.assistant, "deleted": deleted}
    await _record(change, workspace, "conversation.delete_all", workspace, detail)
    return deleted


async def _record(change: Change, workspace: str, action: str, target: str, detail: dict[str, Any]) -> None:
    """In the audit log of the workspace; in the operator's for that of the settings, which has no row."""
    there = select(exists().where(schema.workspaces.c.id == workspace))
    home = workspace if (await change.execute(there)).scalar() else PLATFORM
    audit.record(change, home, action, target, detail)


def _matching(store: Store, workspace: str, wanted: Wanted) -> list[ColumnElement[bool]]:
    columns = store.TABLE.c
    found: list[ColumnElement[bool]] = [columns.workspace == workspace]
    if wanted.owner is not None:
        found.append(columns.owner == wanted.owner)
    if wanted.assistant is not None:
        found.append(columns.assistant == wanted.assistant)
    if wanted.text:
        found.append(store.mentions(wanted.text))
    return found


def _wanted_stores(wanted: Wanted) -> list[Store]:
    return [store for kind, store in _STORES.items() if wanted.takes(kind)]


def _store(conversation: str) -> Store:
    for store in _STORES.values():
        if conversation.startswith(store.PREFIX):
            return store
    raise NotFoundError(_KIND, conversation)


def _place(id: str) -> str:
    return id.partition("_")[2]
