"""What is in the database, read for a comparison or an export."""

from collections.abc import Awaitable, Callable, Collection
from typing import TypeVar

from msgspec import Struct

from sluicegate.assistants import store as assistants
from sluicegate.assistants.model import Assistant
from sluicegate.ids import PLATFORM
from sluicegate.keys import store as keys
from sluicegate.keys.model import Key
from sluicegate.storage.page import LARGEST, Page, PageQuery
from sluicegate.storage.transaction import View
from sluicegate.upstreams import store as upstreams
from sluicegate.upstreams.record import UpstreamRecord
from sluicegate.workspaces import store as workspaces
from sluicegate.workspaces.model import Workspace

T = TypeVar("T")


class StoredWorkspace(Struct, frozen=True, kw_only=True):
    """A workspace and what it owns, by name, oldest first."""

    record: Workspace
    upstreams: dict[str, UpstreamRecord]
    assistants: dict[str, Assistant]
    keys: dict[str, Key]


class Stored(Struct, frozen=True, kw_only=True):
    """The operator's upstreams, the workspaces that were asked for, and the ids of all."""

    upstreams: dict[str, UpstreamRecord]
    workspaces: dict[str, StoredWorkspace]
    ids: tuple[str, ...]


async def read(view: View, wanted: Collection[str] | None = None) -> Stored:
    """`wanted`: ids of workspaces; None: all of them."""
    found = {space.id: space for space in await everything(lambda page: workspaces.entries(view, page))}
    return Stored(
        upstreams=await _upstreams(view, PLATFORM),
        workspaces={
            space.id: await _workspace(view, space)
            for space in found.values()
            if wanted is None or space.id in wanted
        },
        ids=tuple(found),
    )


async def everything(fetch: Callable[[PageQuery], Awaitable[Page[T]]]) -> list[T]:
    """All pages of a list."""
    items: list[T] = []
    cursor = None
    while True:
        page = await fetch(PageQuery(cursor, limit=LARGEST))
        items += page.items
        cursor = page.next
        if cursor is None:
            return items


async def _workspace(view: View, space: Workspace) -> StoredWorkspace:
    found = await everything(lambda page: assistants.entries(view, space.id, page))
    own = await everything(lambda page: keys.entries(view, space.id, page))
    return StoredWorkspace(
        record=space,
        upstreams=await _upstreams(view, space.id),
        assistants={assistant.name: assistant for assistant in found},
        keys={key.name: key for key in own},
    )


async def _upstreams(view: View, owner: str) -> dict[str, UpstreamRecord]:
    found = await everything(lambda page: upstreams.entries(view, owner, page))
    return {upstream.name: upstream for upstream in found}


async def unknown(view: View, ids: Collection[str]) -> list[str]:
    """Those of the ids that no workspace has."""
    return [workspace for workspace in ids if await workspaces.find(view, workspace) is None]
