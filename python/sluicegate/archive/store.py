"""All kept conversations of a workspace in one list, whoever keeps them."""

from collections.abc import Sequence
from typing import Any, Protocol

from sqlalchemy import exists, select

from sluicegate.archive import kept_store, thread_store
from sluicegate.archive.model import EVERYTHING, Exported, Kind, MessageView, ThreadView, Wanted
from sluicegate.audit import store as audit
from sluicegate.ids import PLATFORM
from sluicegate.storage import schema
from sluicegate.storage.errors import InvalidError, NotFoundError
from sluicegate.storage.page import NEWEST, Page, PageQuery, last_of, page_of, require_limit
from sluicegate.storage.transaction import Change, View

# In one change; who deletes more goes on.
MOST_DELETED = 10_000


class Store(Protocol):
    """The conversations of one kind; a module is one. What takes ids takes them as they were found."""

    PREFIX: str

    async def below(
        self, view: View, workspace: str, wanted: Wanted, last: str | None, limit: int
    ) -> list[ThreadView]: ...
    async def get(self, view: View, workspace: str, id: str, /) -> ThreadView: ...
    async def messages(
        self, view: View, id: str, page: PageQuery, text: str | None, /
    ) -> Page[MessageView]: ...
    async def everything(self, view: View, id: str, /) -> tuple[MessageView, ...]: ...
    async def some(self, view: View, workspace: str, wanted: Wanted, most: int) -> list[str]: ...
    async def remove(self, view: View, ids: Sequence[str], /) -> None: ...


_STORES: dict[Kind, Store] = {"thread": thread_store, "conversation": kept_store}


async def entries(
    view: View, workspace: str, page: PageQuery = NEWEST, wanted: Wanted = EVERYTHING
) -> Page[ThreadView]:
    """The conversations of a workspace, the newest first."""
    require_limit(page)
    last = last_of(page)
    found: list[ThreadView] = []
    for kind, store in _STORES.items():
        if wanted.takes(kind):
            before = None if last is None else store.PREFIX + last
            found += await store.below(view, workspace, wanted, before, page.limit + 1)
    # What follows the prefix of an id sorts by time.
    found.sort(key=lambda one: _place(one.id), reverse=True)
    found = found[: page.limit + 1]
    return page_of(found, [_place(one.id) for one in found], page)


async def get(view: View, workspace: str, conversation: str) -> ThreadView:
    """One conversation, by its id. Raises NotFoundError."""
    return await _store(conversation).get(view, workspace, conversation)


async def messages(
    view: View, workspace: str, conversation: str, page: PageQuery, text: str | None = None
) -> Page[MessageView]:
    """What was said in it, in the order in which it was stored. Raises NotFoundError."""
    await get(view, workspace, conversation)
    return await _store(conversation).messages(view, conversation, page, text)


async def export(view: View, workspace: str, conversation: str) -> Exported:
    """All of it. Raises NotFoundError."""
    found = await get(view, workspace, conversation)
    return Exported(thread=found, messages=await _store(conversation).everything(view, conversation))


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
    for kind, store in _STORES.items():
        if wanted.takes(kind):
            refs = await store.some(change, workspace, wanted, MOST_DELETED - deleted)
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


def _store(conversation: str) -> Store:
    for store in _STORES.values():
        if conversation.startswith(store.PREFIX):
            return store
    raise NotFoundError("conversation", conversation)


def _place(id: str) -> str:
    return id.partition("_")[2]
