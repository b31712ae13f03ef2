"""Workspaces in the database."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
from sqlalchemy import Row, exists, insert, select, update

from sluicegate.audit.store import record
from sluicegate.storage import schema
from sluicegate.storage.codec import checked, decode, encode
from sluicegate.storage.errors import InvalidError, NameTakenError, NotFoundError
from sluicegate.storage.page import FIRST, Page, PageQuery, page_of, paged
from sluicegate.storage.scope import contains, require_version
from sluicegate.storage.transaction import Change, View
from sluicegate.workspaces.model import PLATFORM, Workspace, WorkspaceDraft, WorkspaceId, WorkspaceSettings

_KIND = "workspace"
_table = schema.workspaces
_alive = _table.c.deleted_at.is_(None)


async def create(change: Change, workspace: str, draft: WorkspaceDraft) -> Workspace:
    """A new workspace with this id.

    Raises NameTakenError, also for the id of a deleted one, and InvalidError.
    """
    try:
        msgspec.convert(workspace, WorkspaceId)
    except msgspec.ValidationError:
        raise InvalidError(
            "id", "expected 1 to 63 lower-case letters, digits and hyphens, no hyphen at either end"
        ) from None
    draft = checked(draft)
    if (await change.execute(select(exists().where(_table.c.id == workspace)))).scalar():
        raise NameTakenError(_KIND, workspace)
    row = {
        "id": workspace,
        "name": draft.name,
        "settings": encode(draft.settings),
        "generation": change.generation,
        "version": 1,
        "created_at": change.now,
        "updated_at": change.now,
    }
    await change.execute(insert(_table).values(row))
    record(change, workspace, "workspace.create", workspace, {"name": draft.name})
    return await get(change, workspace)


async def get(view: View, workspace: str) -> Workspace:
    """One workspace. Raises NotFoundError."""
    found = await find(view, workspace)
    if found is None:
        raise NotFoundError(_KIND, workspace)
    return found


async def find(view: View, workspace: str) -> Workspace | None:
    """One workspace, if it is there."""
    row = (await view.execute(select(_table).where(_table.c.id == workspace, _alive))).first()
    return None if row is None or workspace == PLATFORM else _workspace(row)


async def entries(view: View, page: PageQuery = FIRST, *, name: str = "") -> Page[Workspace]:
    """All workspaces in the order of their ids; `name`: a part of name or id, without case."""
    query = select(_table).where(_alive, _table.c.id != PLATFORM)
    if name:
        query = query.where(contains(_table.c.id, name) | contains(_table.c.name, name))
    rows = (await view.execute(paged(query, _table.c.id, page))).all()
    return page_of([_workspace(row) for row in rows], [row.id for row in rows], page)


async def every(view: View) -> AsyncIterator[Workspace]:
    """All of them."""
    query = select(_table).where(_alive, _table.c.id != PLATFORM)
    for row in (await view.execute(query)).all():
        yield _workspace(row)


async def replace(
    change: Change, workspace: str, draft: WorkspaceDraft, *, expected: int | None = None
) -> Workspace:
    """Write name and settings anew; `expected` is the version that was read.

    Raises NotFoundError, ConflictError, InvalidError.
    """
    before = await _writable(change, workspace, expected)
    draft = checked(draft)
    if (before.name, before.settings) == (draft.name, draft.settings):
        return before
    values: dict[str, Any] = {"name": draft.name, "settings": encode(draft.settings)}
    values |= {"version": before.version + 1, "updated_at": change.now}
    await change.execute(update(_table).where(_table.c.id == workspace).values(values))
    detail = {"before": {"name": before.name, "settings": before.settings}, "after": draft}
    record(change, workspace, "workspace.update", workspace, detail)
    return await get(change, workspace)


async def delete(change: Change, workspace: str, *, expected: int | None = None) -> None:
    """Delete it with all its keys' power: none of them works from now on. The id stays taken, for the
    records.

    Raises NotFoundError, ConflictError.
    """
    before = await _writable(change, workspace, expected)
    values = {"deleted_at": change.now, "updated_at": change.now, "version": before.version + 1}
    await change.execute(update(_table).where(_table.c.id == workspace).values(values))
    record(change, workspace, "workspace.delete", workspace, {"name": before.name})


async def _writable(change: Change, workspace: str, expected: int | None) -> Workspace:
    before = await get(change, workspace)
    require_version(_KIND, expected, before.version)
    return before


def _workspace(row: Row[Any]) -> Workspace:
    return Workspace(
        id=row.id,
        name=row.name,
        settings=decode(row.settings, WorkspaceSettings),
        version=row.version,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
