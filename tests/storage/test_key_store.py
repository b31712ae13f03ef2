"""Keys: made, looked up, rotated, revoked; never another workspace's, never their text in the database."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
from sqlalchemy import text as sql

from sluicegate.ids import PLATFORM
from sluicegate.keys import secret as texts
from sluicegate.keys import store
from sluicegate.keys.model import CLOCK_SKEW_MS, Grant, Key, KeyDraft
from sluicegate.storage import errors
from sluicegate.storage.database import Database
from sluicegate.storage.page import PageQuery
from sluicegate.storage.transaction import SYSTEM
from sluicegate.workspaces import store as workspaces
from sluicegate.workspaces.model import WorkspaceDraft

DAY = 86_400_000


@pytest_asyncio.fixture(autouse=True)
async def tenants(database: Database) -> None:
    """Two workspaces."""
    async with database.change(SYSTEM) as change:
        for name in ("acme", "other"):
            await workspaces.create(change, name, WorkspaceDraft(name=name))


async def make(
    database: Database, name: str = "app", workspace: str = "acme", **fields: object
) -> tuple[Key, str]:
    draft = msgspec.convert({"name": name} | fields, KeyDraft)
    async with database.change(SYSTEM) as change:
        return await store.create(change, workspace, draft)


async def worth(database: Database, key: str) -> Grant | None:
    async with database.read() as view:
        return await store.look_up(view, key)


@pytest.mark.asyncio
async def test_a_key_is_found_by_its_text(database: Database) -> None:
    key, shown = await make(database, models=["local/*"], scopes=["chat:write"], expires_at=10)
    assert shown.startswith(f"sk-sg-{key.kid}-")
    grant = await worth(database, shown)
    assert grant is not None
    assert (grant.principal.id, grant.principal.workspace) == (key.id, "acme")
    assert (grant.principal.models, grant.principal.scopes) == (("local/*",), ("chat:write",))
    assert grant.principal.is_over(10 + CLOCK_SKEW_MS + 1)
    assert not grant.principal.is_over(10 + CLOCK_SKEW_MS)
    assert grant.refused is None
    other = texts.mint(kid=key.kid)
    assert await worth(database, other) is None
    assert await worth(database, texts.mint()) is None


@pytest.mark.asyncio
async def test_the_text_is_nowhere_in_the_database(database: Database, tmp_path: Path) -> None:
    _, shown = await make(database)
    secret = shown.rpartition("-")[2]
    if database.location.is_postgresql:
        async with database.read() as view:
            tables = ["keys", "key_secrets", "audit", "platform_keys"]
            found = [str((await view.execute(sql(f"SELECT * FROM {t}"))).all()) for t in tables]
        assert all(secret not in rows and shown not in rows for rows in found)
        return
    await database.close()
    for path in database.location.data_dir.iterdir():
        assert secret.encode() not in path.read_bytes(), path


@pytest.mark.asyncio
async def test_a_chosen_secret(database: Database) -> None:
    own = "my-own-secret-of-2019"
    async with database.change(SYSTEM) as change:
        key, shown = await store.create(change, "acme", KeyDraft(name="app"), secret=own)
    assert shown == own
    grant = await worth(database, own)
    assert grant is not None
    assert grant.principal.id == key.id
    assert await worth(database, own + "x") is None
    with pytest.raises(errors.InvalidError, match="in use already"):
        async with database.change(SYSTEM) as change:
            await store.create(change, "other", KeyDraft(name="app"), secret=own)
    brought = texts.mint()
    async with database.change(SYSTEM) as change:
        key, _ = await store.create(change, "acme", KeyDraft(name="moved"), secret=brought)
    assert brought.startswith(f"sk-sg-{key.kid}-")
    assert await worth(database, brought) is not None


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("secret", "words"),
    [
        ("short", "16 to 512"),
        ("x" * 513, "16 to 512"),
        ("with a space inside it", "16 to 512"),
        ("ünicode-ünicode-ünicode", "16 to 512"),
        (texts.mint()[:-1], "mistyped"),
        (texts.mint("admin"), "of the kind «admin»"),
    ],
    # A key of its own in each run is no name.
    ids=["short", "long", "space", "ascii", "mistyped", "kind"],
)
async def test_what_is_no_secret(database: Database, secret: str, words: str) -> None:
    with pytest.raises(errors.InvalidError, match=words):
        async with database.change(SYSTEM) as change:
            await store.create(change, "acme", KeyDraft(name="app"), secret=secret)


@pytest.mark.asyncio
async def test_a_rotation_leaves_two_secrets_for_a_while(database: Database) -> None:
    key, first = await make(database)
    async with database.change(SYSTEM) as change:
        after, second = await store.rotate(change, "acme", key.id, grace_ms=DAY)
        now = change.now
    assert (len(after.secrets), after.kid, after.version) == (2, key.kid, 2)
    old, new = await worth(database, first), await worth(database, second)
    assert old is not None
    assert new is not None
    assert (old.principal.until, new.principal.until) == (now + DAY, None)
    assert (old.principal.id, old.principal.secret != new.principal.secret) == (new.principal.id, True)
    async with database.change(SYSTEM) as change:
        last, third = await store.rotate(change, "acme", key.id, grace_ms=0)
    assert len(last.secrets) == 1
    assert [await worth(database, t) is not None for t in (first, second, third)] == [False, False, True]
    for grace in (-1, 7 * DAY + 1):
        with pytest.raises(errors.InvalidError, match="grace"):
            async with database.change(SYSTEM) as change:
                await store.rotate(change, "acme", key.id, grace_ms=grace)


@pytest.mark.asyncio
async def test_a_revoked_key_stays_revoked(database: Database) -> None:
    key, shown = await make(database)
    async with database.change(SYSTEM) as change:
        assert (await store.revoke(change, "acme", key.id)).revoked_at == change.now
    grant = await worth(database, shown)
    assert grant is not None
    assert grant.refused == "revoked"
    with pytest.raises(errors.InvalidError, match="revoked"):
        async with database.change(SYSTEM) as change:
            await store.rotate(change, "acme", key.id, grace_ms=0)
    with pytest.raises(errors.InvalidError, match="in use"):
        async with database.change(SYSTEM) as change:
            await store.create(change, "acme", KeyDraft(name="again"), secret=shown)
    async with database.change(SYSTEM) as change:
        await store.remove(change, "acme", key.id)
    assert await worth(database, shown) is None
    await make(database, "app")


@pytest.mark.asyncio
async def test_keys_of_a_deleted_workspace_open_nothing(database: Database) -> None:
    _, shown = await make(database)
    async with database.change(SYSTEM) as change:
        await workspaces.delete(change, "acme")
    grant = await worth(database, shown)
    assert grant is not None
    assert grant.refused == "workspace_deleted"
    with pytest.raises(errors.NotFoundError):
        await make(database, "late")


@pytest.mark.asyncio
async def test_another_workspace_sees_nothing(database: Database) -> None:
    key, _ = await make(database)
    draft = KeyDraft(name="stolen")
    async with database.read() as view:
        with pytest.raises(errors.NotFoundError) as foreign:
            await store.get(view, "other", key.id)
        with pytest.raises(errors.NotFoundError) as missing:
            await store.get(view, "other", "key_nothing")
        assert str(foreign.value) == str(missing.value)
        assert (await store.entries(view, "other")).items == ()
        assert await store.find(view, "other", "app") is None
    for verb in (
        lambda change: store.replace(change, "other", key.id, draft),
        lambda change: store.rotate(change, "other", key.id, grace_ms=0),
        lambda change: store.revoke(change, "other", key.id),
        lambda change: store.remove(change, "other", key.id),
    ):
        with pytest.raises(errors.NotFoundError):
            async with database.change(SYSTEM) as change:
                await verb(change)
    await make(database, "app", "other")


@pytest.mark.asyncio
async def test_updates_are_not_lost(database: Database) -> None:
    key, _ = await make(database)
    async with database.change(SYSTEM) as change:
        after = await store.replace(change, "acme", key.id, KeyDraft(name="app", models=("a",)), expected=1)
    assert (after.version, after.models) == (2, ("a",))
    with pytest.raises(errors.ConflictError, match="version 2, not 1"):
        async with database.change(SYSTEM) as change:
            await store.replace(change, "acme", key.id, KeyDraft(name="b"), expected=1)
    async with database.change(SYSTEM) as change:
        same = await store.replace(change, "acme", key.id, KeyDraft(name="app", models=("a",)), expected=2)
    assert same.version == 2
    await make(database, "second")
    with pytest.raises(errors.NameTakenError):
        async with database.change(SYSTEM) as change:
            await store.replace(change, "acme", key.id, KeyDraft(name="second"))
    with pytest.raises(errors.NameTakenError):
        await make(database, "second")
    with pytest.raises(errors.InvalidError, match="models"):
        async with database.change(SYSTEM) as change:
            await store.replace(change, "acme", key.id, KeyDraft(name="b", models=("",)))


@pytest.mark.asyncio
async def test_pages(database: Database) -> None:
    made = [(await make(database, f"k{n}"))[0].id for n in range(7)]
    await make(database, "foreign", "other")
    seen: list[str] = []
    cursor = None
    async with database.read() as view:
        while True:
            page = await store.entries(view, "acme", PageQuery(cursor, limit=3))
            seen += [key.id for key in page.items]
            cursor = page.next
            if cursor is None:
                break
        assert seen == made
        newest = await store.entries(view, "acme", PageQuery(limit=2, newest_first=True))
        assert [key.id for key in newest.items] == made[:-3:-1]
        assert [k.name for k in (await store.entries(view, "acme", name="K3")).items] == ["k3"]
        assert (await store.entries(view, "acme", name="%")).items == ()
        for bad in ("!!", "ÿ", "a" * 500, "AAA=="):
            with pytest.raises(errors.InvalidError, match="cursor"):
                await store.entries(view, "acme", PageQuery(bad))
        for limit in (0, 201):
            with pytest.raises(errors.InvalidError, match="limit"):
                await store.entries(view, "acme", PageQuery(limit=limit))


@pytest.mark.asyncio
async def test_roles_of_admin_keys(database: Database) -> None:
    async with database.change(SYSTEM) as change:
        key, shown = await store.create(
            change, PLATFORM, KeyDraft(name="root"), kind="admin", role="platform_admin"
        )
        assert shown.startswith("sk-sgadmin-")
        assert key.role == "platform_admin"
        await store.create(change, "acme", KeyDraft(name="a"), kind="admin", role="workspace_admin")
    for workspace, kind, role in (
        ("acme", "admin", "platform_admin"),
        (PLATFORM, "admin", "viewer"),
        ("acme", "admin", None),
        ("acme", "client", "viewer"),
        (PLATFORM, "client", None),
    ):
        with pytest.raises(errors.InvalidError, match="role"):
            async with database.change(SYSTEM) as change:
                await store.create(change, workspace, KeyDraft(name="x"), kind=kind, role=role)


@pytest.mark.asyncio
async def test_last_use_is_no_change(database: Database) -> None:
    key, _ = await make(database)
    row = await database.row_generation()
    for at in (500, 400):
        async with database.note() as view:
            await store.note_used(view, {key.secrets[0].id: at, "ks_unknown": at})
    async with database.read() as view:
        assert (await store.get(view, "acme", key.id)).last_used_at == 500
    assert await database.row_generation() == row


@pytest.mark.asyncio
async def test_older_peppers_stay_valid(database: Database) -> None:
    _, first = await make(database)
    async with database.change(SYSTEM) as change:
        _, own = await store.create(change, "acme", KeyDraft(name="own"), secret="chosen-by-a-person")
        assert await database.keyring.rotate_pepper(change.connection) == 2
    _, second = await make(database, "second")
    again = await Database.open(database.location)
    for key in (first, second, own):
        assert await worth(again, key) is not None
    await again.close()
    with pytest.raises(errors.InvalidError, match="in use already"):
        async with database.change(SYSTEM) as change:
            await store.create(change, "acme", KeyDraft(name="twice"), secret=own)
