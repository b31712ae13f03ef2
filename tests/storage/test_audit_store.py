"""The audit log: written with the change, listed by workspace, and every edit is found."""

from __future__ import annotations

import pytest
from sqlalchemy import text as sql

from sluicegate.audit import store
from sluicegate.audit.store import AuditFilter
from sluicegate.storage.database import Database
from sluicegate.storage.page import PageQuery
from sluicegate.storage.transaction import Actor
from sluicegate.workspaces import store as workspaces
from sluicegate.workspaces.model import WorkspaceDraft


async def fill(database: Database, count: int = 6) -> None:
    for number in range(count):
        async with database.change(Actor(f"user:usr_{number % 2}", f"req_{number}")) as change:
            await workspaces.create(change, f"w{number}", WorkspaceDraft(name="ü" * number + "w"))


@pytest.mark.asyncio
async def test_entries_come_with_the_change(database: Database) -> None:
    await fill(database)
    with pytest.raises(RuntimeError):
        async with database.change(Actor("user:x")) as change:
            await workspaces.create(change, "undone", WorkspaceDraft(name="undone"))
            raise RuntimeError
    async with database.read() as view:
        page = await store.entries(view, None)
        assert [entry.sequence for entry in page.items] == [6, 5, 4, 3, 2, 1]
        last = page.items[0]
        assert (last.workspace, last.actor, last.action) == ("w5", "user:usr_1", "workspace.create")
        assert (last.object, last.request_id, last.detail) == ("w5", "req_5", {"name": "üüüüüw"})
        assert [e.workspace for e in (await store.entries(view, "w2")).items] == ["w2"]
        mine = await store.entries(view, None, wanted=AuditFilter(actor="user:usr_0"))
        assert [e.object for e in mine.items] == ["w4", "w2", "w0"]
        first = await store.entries(view, None, PageQuery(limit=4, newest_first=True))
        rest = await store.entries(view, None, PageQuery(first.next, limit=4, newest_first=True))
        assert [e.sequence for e in rest.items] == [2, 1]
        assert await store.verify(view) == store.Verdict(6)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("edit", "at"),
    [
        ("UPDATE audit SET actor = 'user:nobody' WHERE sequence = 3", 3),
        ("UPDATE audit SET detail = '{}' WHERE sequence = 1", 1),
        ("UPDATE audit SET workspace = 'w1' WHERE sequence = 3", 3),
        ("UPDATE audit SET at = at - 1 WHERE sequence = 6", 6),
        ("DELETE FROM audit WHERE sequence = 2", 2),
        ("DELETE FROM audit WHERE sequence = 6", 6),
        ("DELETE FROM audit", 1),
        ("UPDATE audit SET link = (SELECT link FROM audit_head)", 1),
        ("UPDATE audit_head SET sequence = 5", 7),
        (
            "INSERT INTO audit SELECT 7, at, workspace, actor, action, object, detail, request_id, link "
            "FROM audit WHERE sequence = 6",
            7,
        ),
    ],
)
async def test_every_edit_is_found(database: Database, edit: str, at: int) -> None:
    await fill(database)
    async with database.note() as view:
        await view.execute(sql(edit))
    async with database.read() as view:
        assert await store.verify(view) == store.Verdict(at - 1, broken_at=at)


@pytest.mark.asyncio
async def test_an_empty_log_is_good(database: Database) -> None:
    async with database.read() as view:
        assert await store.verify(view) == store.Verdict(0)
        assert (await store.entries(view, None)).items == ()
