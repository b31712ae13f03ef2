"""Upstreams: whose they are, who may use them, and secrets that open in one place only."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import pytest_asyncio
from sqlalchemy import text as sql

from sluicegate.assistants import store as assistants
from sluicegate.assistants.model import AssistantDraft, AssistantSpec
from sluicegate.ids import PLATFORM
from sluicegate.settings import Secret
from sluicegate.storage import errors
from sluicegate.storage.database import Database
from sluicegate.storage.transaction import SYSTEM
from sluicegate.upstreams import store
from sluicegate.upstreams.record import Credentials, LearnedModel, UpstreamDraft, UpstreamRecord
from sluicegate.workspaces import store as workspaces
from sluicegate.workspaces.model import WorkspaceDraft, WorkspaceSettings

KEY = "sk-upstream-canary-0123456789"
SECRETS = Credentials(api_key=Secret(KEY), headers={"x-team": Secret("header-canary")})


@pytest_asyncio.fixture(autouse=True)
async def tenants(database: Database) -> None:
    """Two workspaces."""
    async with database.change(SYSTEM) as change:
        for name in ("acme", "other"):
            await workspaces.create(change, name, WorkspaceDraft(name=name))


def draft(name: str = "local", **fields: Any) -> UpstreamDraft:
    return msgspec.convert({"name": name, "base_url": "http://127.0.0.1:8000/v1"} | fields, UpstreamDraft)


async def make(
    database: Database, written: UpstreamDraft | None = None, workspace: str = "acme"
) -> UpstreamRecord:
    async with database.change(SYSTEM) as change:
        return await store.create(change, workspace, written or draft(), SECRETS)


async def secrets_of(database: Database, workspace: str, upstream: str) -> Credentials:
    async with database.read() as view:
        return await store.credentials_of(view, workspace, upstream)


@pytest.mark.asyncio
async def test_what_is_written_is_read(database: Database) -> None:
    written = draft(
        kind="vllm",
        models=["Qwen/Qwen3"],
        aliases={"fast": "Qwen/Qwen3"},
        weight=3,
        priority=1,
        timeouts={"connect": 1.5},
        context_lengths={"Qwen/Qwen3": 32768},
    )
    made = await make(database, written)
    assert store.draft_of(made) == written
    assert (made.has_key, made.key_last4, made.header_names) == (True, KEY[-4:], ("x-team",))
    assert await secrets_of(database, "acme", made.id) == SECRETS
    assert "canary" not in repr(made) + repr(SECRETS)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "url", ["https://127.0.0.1:8000/v1", "http://127.0.0.2:8000/v1", "http://127.0.0.1/v1"]
)
async def test_another_origin_clears_the_secrets(database: Database, url: str) -> None:
    made = await make(database)
    async with database.note() as view:
        await store.note_discovered(view, made.id, (LearnedModel(model="m"),))
    async with database.change(SYSTEM) as change:
        moved = await store.replace(change, "acme", made.id, draft(base_url=url))
    assert (moved.has_key, moved.key_last4, moved.header_names) == (False, "", ())
    assert await secrets_of(database, "acme", made.id) == Credentials()
    async with database.read() as view:
        assert (await store.discovered(view, "acme", made.id)).models == ()


@pytest.mark.asyncio
async def test_another_path_keeps_the_secrets(database: Database) -> None:
    made = await make(database)
    async with database.change(SYSTEM) as change:
        changed = await store.replace(change, "acme", made.id, draft(base_url="http://127.0.0.1:8000/v2"))
    assert changed.version == 2
    assert await secrets_of(database, "acme", made.id) == SECRETS
    new = Credentials(api_key=Secret("another-key-0123456789"))
    async with database.change(SYSTEM) as change:
        await store.replace(change, "acme", made.id, draft(), credentials=new)
    assert await secrets_of(database, "acme", made.id) == new


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "attack",
    [
        "UPDATE upstreams SET api_key = (SELECT o.api_key FROM upstreams o WHERE o.name = 'rich') "
        "WHERE name = 'poor'",
        "UPDATE upstreams SET base_url = 'http://evil.example/v1' WHERE name = 'poor'",
        "UPDATE upstreams SET api_key = headers WHERE name = 'poor'",
        "UPDATE upstreams SET workspace = 'other' WHERE name = 'poor'",
        "UPDATE data_keys SET sealed = (SELECT sealed FROM platform_keys WHERE purpose = 'pepper')",
        "UPDATE data_keys SET workspace = 'other'",
    ],
)
async def test_a_moved_secret_does_not_open(database: Database, attack: str) -> None:
    await make(database, draft("rich"))
    made = await make(database, draft("poor"))
    async with database.note() as view:
        await view.execute(sql(attack))
    again = await Database.open(database.location)
    with pytest.raises(errors.SecretsError) as caught:
        await secrets_of(again, "other" if "SET workspace = 'other' W" in attack else "acme", made.id)
    assert "canary" not in str(caught.value)
    await again.close()


@pytest.mark.asyncio
async def test_no_secret_stands_in_the_open(database: Database) -> None:
    made = await make(database)
    async with database.read() as view:
        for table in ("upstreams", "audit", "data_keys"):
            rows = (await view.execute(sql(f"SELECT * FROM {table}"))).all()
            assert "canary" not in str(rows)
            assert b"canary" not in b"".join(v for row in rows for v in row if isinstance(v, bytes))
    async with database.change(SYSTEM) as change:
        await store.remove(change, "acme", made.id)
    async with database.read() as view:
        row = (await view.execute(sql("SELECT api_key, headers FROM upstreams"))).one()
    assert tuple(row) == (None, None)


@pytest.mark.asyncio
async def test_who_may_use_what(database: Database) -> None:
    own = await make(database, draft("shared"))
    await make(database, draft("off", enabled=False))
    everyone = await make(database, draft("everyone", offered_to="all"), PLATFORM)
    some = await make(database, draft("some", offered_to=["other"]), PLATFORM)
    await make(database, draft("nobody"), PLATFORM)
    hidden = await make(database, draft("shared", offered_to="all"), PLATFORM)
    async with database.read() as view:
        assert [u.id for u in await store.usable(view, "acme")] == [own.id, everyone.id]
        assert [u.id for u in await store.usable(view, "other")] == [everyone.id, some.id, hidden.id]
        assert some.offered_to == ("other",)
        for workspace, upstream in (("other", own.id), ("acme", some.id)):
            with pytest.raises(errors.NotFoundError):
                await store.credentials_of(view, workspace, upstream)
            with pytest.raises(errors.NotFoundError):
                await store.discovered(view, workspace, upstream)
            with pytest.raises(errors.NotFoundError):
                await store.get(view, workspace, upstream)
        assert (await store.credentials_of(view, "acme", everyone.id)) == SECRETS
    async with database.change(SYSTEM) as change:
        await store.replace(change, PLATFORM, some.id, draft("some", offered_to=["acme"]))
    async with database.read() as view:
        assert [u.name for u in await store.usable(view, "other")] == ["everyone", "shared"]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"offered_to": "all"}, "operator"),
        ({"base_url": "http://h:99999/v1"}, "port"),
        ({"base_url": "http://user:pass@h/v1"}, "base_url"),
        ({"weight": 1001}, "weight"),
        ({"name": "a/b"}, "name"),
        ({"kind": "gpt"}, "kind"),
    ],
)
async def test_what_no_upstream_is(database: Database, fields: dict[str, Any], words: str) -> None:
    written = msgspec.structs.replace(draft(), **fields)
    with pytest.raises(errors.InvalidError, match=words):
        await make(database, written)
    with pytest.raises(errors.NotFoundError):
        await make(database, draft(offered_to=["nobody"]), PLATFORM)


@pytest.mark.asyncio
async def test_one_in_use_is_not_deleted(database: Database) -> None:
    made = await make(database)
    spec = AssistantSpec(model=("local/m",))
    async with database.change(SYSTEM) as change:
        helper = await assistants.create(change, "acme", AssistantDraft(name="helper", spec=spec))
    for verb in (
        lambda change: store.remove(change, "acme", made.id),
        lambda change: store.replace(change, "acme", made.id, draft("renamed")),
    ):
        with pytest.raises(errors.InUseError, match="helper"):
            async with database.change(SYSTEM) as change:
                await verb(change)
    settings = WorkspaceSettings(default_upstream="local")
    async with database.change(SYSTEM) as change:
        await assistants.remove(change, "acme", helper.id)
        await workspaces.replace(change, "acme", WorkspaceDraft(name="acme", settings=settings))
    with pytest.raises(errors.InUseError, match="default_upstream"):
        async with database.change(SYSTEM) as change:
            await store.remove(change, "acme", made.id)
    async with database.change(SYSTEM) as change:
        await workspaces.replace(change, "acme", WorkspaceDraft(name="acme"))
        await store.remove(change, "acme", made.id)
    await make(database)


@pytest.mark.asyncio
async def test_what_was_learned_survives_a_failure(database: Database) -> None:
    made = await make(database)
    row = await database.row_generation()
    learned = (LearnedModel(model="m", context_length=4096, abilities=("tools",)),)
    for models, error in ((learned, None), (None, "upstream_timeout")):
        async with database.note() as view:
            await store.note_discovered(view, made.id, models, error)
            await store.note_discovered(view, "up_unknown", models, error)
    async with database.read() as view:
        found = await store.discovered(view, "acme", made.id)
    assert (found.models, found.error) == (learned, "upstream_timeout")
    assert found.asked_at is not None
    assert await database.row_generation() == row
