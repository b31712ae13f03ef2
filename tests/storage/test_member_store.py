"""People, roles and the first admin; workspaces; answers that are given again."""

from __future__ import annotations

import pytest

from sluicegate.ids import PLATFORM
from sluicegate.members import store
from sluicegate.members.model import Role, User, UserDraft
from sluicegate.storage import errors, idempotency
from sluicegate.storage.database import Database
from sluicegate.storage.idempotency import OtherRequestError, Replay
from sluicegate.storage.page import PageQuery
from sluicegate.storage.transaction import SYSTEM, Actor
from sluicegate.workspaces import store as workspaces
from sluicegate.workspaces.model import WorkspaceDraft, WorkspaceSettings

ALICE, BOB = Actor("user:alice"), Actor("user:bob")


async def make_workspace(database: Database, name: str = "acme") -> None:
    async with database.change(SYSTEM) as change:
        await workspaces.create(change, name, WorkspaceDraft(name=name))


async def make_user(database: Database, login: str) -> User:
    async with database.change(SYSTEM) as change:
        return await store.create_user(change, UserDraft(login=login))


@pytest.mark.asyncio
async def test_roles(database: Database) -> None:
    await make_workspace(database)
    await make_workspace(database, "other")
    alice = await make_user(database, "Alice@example.com")
    with pytest.raises(errors.NameTakenError):
        await make_user(database, "alice@EXAMPLE.com")
    async with database.change(SYSTEM) as change:
        await store.grant(change, "acme", alice.id, Role.VIEWER)
        await store.grant(change, "acme", alice.id, Role.MEMBER)
        await store.grant(change, "other", alice.id, Role.VIEWER)
    async with database.read() as view:
        assert await store.roles_of(view, alice.id) == {"acme": Role.MEMBER, "other": Role.VIEWER}
        (member,) = (await store.members(view, "acme")).items
        assert (member.login, member.role) == ("Alice@example.com", Role.MEMBER)
        assert (await store.find_user(view, "ALICE@example.com")) == alice
    for workspace, role in (("acme", Role.PLATFORM_ADMIN), (PLATFORM, Role.MEMBER)):
        with pytest.raises(errors.InvalidError, match="role"):
            async with database.change(SYSTEM) as change:
                await store.grant(change, workspace, alice.id, role)
    async with database.change(SYSTEM) as change:
        await store.withdraw(change, "acme", alice.id)
        await workspaces.delete(change, "other")
    async with database.read() as view:
        assert await store.roles_of(view, alice.id) == {}
    with pytest.raises(errors.NotFoundError):
        async with database.change(SYSTEM) as change:
            await store.withdraw(change, "acme", alice.id)


@pytest.mark.asyncio
async def test_the_last_admin_stays(database: Database) -> None:
    alice, bob = await make_user(database, "alice"), await make_user(database, "bob")
    async with database.change(SYSTEM) as change:
        assert not await store.has_admin(change)
        await store.grant(change, PLATFORM, alice.id, Role.PLATFORM_ADMIN)
        assert await store.has_admin(change)
    with pytest.raises(errors.InUseError):
        async with database.change(SYSTEM) as change:
            await store.withdraw(change, PLATFORM, alice.id)
    with pytest.raises(errors.InUseError):
        async with database.change(SYSTEM) as change:
            await store.set_disabled(change, alice.id, True)
    async with database.change(SYSTEM) as change:
        await store.grant(change, PLATFORM, bob.id, Role.PLATFORM_ADMIN)
        await store.set_disabled(change, alice.id, True, expected=1)
        assert await store.roles_of(change, alice.id) == {}
    with pytest.raises(errors.InUseError):
        async with database.change(SYSTEM) as change:
            await store.withdraw(change, PLATFORM, bob.id)


@pytest.mark.asyncio
async def test_the_first_admin_needs_a_token(database: Database) -> None:
    async with database.change(SYSTEM) as change:
        old = await store.make_bootstrap_token(change)
        token = await store.make_bootstrap_token(change)
    async with database.change(SYSTEM) as change:
        assert not await store.use_bootstrap_token(change, old)
        assert not await store.use_bootstrap_token(change, token[:-1])
        assert await store.use_bootstrap_token(change, token)
        assert not await store.use_bootstrap_token(change, token)
    async with database.change(SYSTEM) as change:
        token = await store.make_bootstrap_token(change)
    async with database.change(SYSTEM) as change:
        change.now += store.BOOTSTRAP_MINUTES * 60_000 + 1
        assert not await store.use_bootstrap_token(change, token)
    alice = await make_user(database, "alice")
    async with database.change(SYSTEM) as change:
        await store.grant(change, PLATFORM, alice.id, Role.PLATFORM_ADMIN)
        with pytest.raises(errors.InvalidError, match="administrator"):
            await store.make_bootstrap_token(change)


@pytest.mark.asyncio
async def test_workspaces(database: Database) -> None:
    for name in ("acme", "beta", "x"):
        await make_workspace(database, name)
    for bad in ("", "Acme", "a_b", "-a", "a-", "a" * 64, PLATFORM, "a\n"):
        with pytest.raises(errors.InvalidError, match="id"):
            await make_workspace(database, bad)
    with pytest.raises(errors.NameTakenError):
        await make_workspace(database)
    settings = WorkspaceSettings(context_window="40%", max_tokens=1024, allowed_models=("local/*",))
    async with database.change(SYSTEM) as change:
        draft = WorkspaceDraft(name="Acme Ltd.", settings=settings)
        found = await workspaces.replace(change, "acme", draft, expected=1)
        assert (found.version, found.name, found.settings) == (2, "Acme Ltd.", settings)
    for bad_settings in (WorkspaceSettings(context_window="41%%"), WorkspaceSettings(max_tokens=0)):
        with pytest.raises(errors.InvalidError, match=r"settings\.(max_tokens|context_window)"):
            async with database.change(SYSTEM) as change:
                await workspaces.replace(change, "acme", WorkspaceDraft(name="a", settings=bad_settings))
    with pytest.raises(errors.ConflictError):
        async with database.change(SYSTEM) as change:
            await workspaces.delete(change, "acme", expected=1)
    async with database.change(SYSTEM) as change:
        await workspaces.delete(change, "beta")
    async with database.read() as view:
        page = await workspaces.entries(view, PageQuery(limit=1))
        assert [w.id for w in page.items] == ["acme"]
        rest = await workspaces.entries(view, PageQuery(page.next))
        assert [w.id for w in rest.items] == ["x"]
        assert [w.id for w in (await workspaces.entries(view, name="LTD")).items] == ["acme"]
        for gone in ("beta", PLATFORM):
            with pytest.raises(errors.NotFoundError):
                await workspaces.get(view, gone)
    with pytest.raises(errors.NameTakenError):
        await make_workspace(database, "beta")


@pytest.mark.asyncio
async def test_answers_are_given_again(database: Database) -> None:
    await make_workspace(database)
    answer = Replay(201, b'{"key":"canary"}')
    async with database.change(ALICE) as change:
        assert await idempotency.replay(change, "acme", "k", b"body", actor=ALICE.name) is None
        await idempotency.keep(change, "acme", "k", b"body", answer)
    async with database.read() as view:
        assert await idempotency.replay(view, "acme", "k", b"body", actor=ALICE.name) == answer
        assert await idempotency.replay(view, "acme", "k", b"body", actor=BOB.name) is None
        assert await idempotency.replay(view, PLATFORM, "k", b"body", actor=ALICE.name) is None
        with pytest.raises(OtherRequestError):
            await idempotency.replay(view, "acme", "k", b"other", actor=ALICE.name)
        with pytest.raises(errors.InvalidError):
            await idempotency.replay(view, "acme", "", b"body", actor=ALICE.name)
        view.now += idempotency.KEEP_MS + 1
        assert await idempotency.replay(view, "acme", "k", b"other", actor=ALICE.name) is None
    async with database.change(ALICE) as change:
        change.now += idempotency.KEEP_MS + 1
        await idempotency.keep(change, "acme", "k", b"other", answer)
