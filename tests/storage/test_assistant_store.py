"""Assistants: names, versions with who and when, roll back, and nobody else's."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import pytest_asyncio

from sluicegate.assistants import store
from sluicegate.assistants.model import Assistant, AssistantDraft
from sluicegate.storage import errors
from sluicegate.storage.database import Database
from sluicegate.storage.page import FIRST
from sluicegate.storage.transaction import SYSTEM, Actor
from sluicegate.workspaces import store as workspaces
from sluicegate.workspaces.model import WorkspaceDraft


@pytest_asyncio.fixture(autouse=True)
async def tenants(database: Database) -> None:
    """Two workspaces."""
    async with database.change(SYSTEM) as change:
        for name in ("acme", "other"):
            await workspaces.create(change, name, WorkspaceDraft(name=name))


def draft(name: str = "coder", **spec: Any) -> AssistantDraft:
    return msgspec.convert({"name": name, "spec": {"model": ["local/m"]} | spec}, AssistantDraft)


async def make(database: Database, written: AssistantDraft, workspace: str = "acme") -> Assistant:
    async with database.change(Actor("user:usr_1")) as change:
        return await store.create(change, workspace, written)


@pytest.mark.asyncio
async def test_every_field_is_kept(database: Database) -> None:
    written = draft(
        "Ä ß/日本:🦀",
        model=["local/Qwen/Q3", "local/b"],
        description="d",
        system_prompt="\x00 \u2028 'quoted' \"text\"; DROP TABLE assistants; --",
        chat_history="disable_think",
        quality_score=70,
        temperature=0.0,
        max_tokens=512,
        top_p=0.5,
        stop=["a", "b"],
        response_format={"type": "json_schema", "json_schema": {"a": [1, None, True]}},
        tools=[{"type": "function", "function": {"name": "f"}}],
        tool_choice={"type": "function"},
        parallel_tool_calls=False,
        presence_penalty=-1.5,
        frequency_penalty=1,
        seed=7,
        reasoning_effort="low",
        locked=["temperature", "system_prompt"],
    )
    made = await make(database, written)
    assert (made.name, made.spec, made.version) == (written.name, written.spec, 1)
    async with database.read() as view:
        assert await store.find(view, "acme", written.name) == made
        assert await store.get(view, "acme", made.id) == made


@pytest.mark.asyncio
async def test_names_are_exact(database: Database) -> None:
    made = await make(database, draft("Coder"))
    second = await make(database, draft("coder"))
    await make(database, draft("Coder"), "other")
    assert made.id != second.id
    with pytest.raises(errors.NameTakenError):
        await make(database, draft("coder"))
    async with database.read() as view:
        assert await store.find(view, "acme", "CODER") is None
        assert await store.find_in_other_case(view, "acme", "CODER") in ("Coder", "coder")
        assert await store.find_in_other_case(view, "acme", "nothing") is None
        assert [name for name, _ in await store.names(view, "acme")] == ["Coder", "coder"]
    for bad in ("a\ud800", "", "a\n"):
        with pytest.raises(errors.InvalidError):
            await make(database, msgspec.structs.replace(draft(), name=bad))


@pytest.mark.asyncio
async def test_versions_and_roll_back(database: Database) -> None:
    made = await make(database, draft(temperature=0.1))
    for n in (2, 3):
        async with database.change(Actor(f"user:usr_{n}")) as change:
            await store.replace(change, "acme", made.id, draft(temperature=n / 10), expected=n - 1)
    async with database.change(Actor("user:usr_4")) as change:
        same = await store.replace(change, "acme", made.id, draft(temperature=0.3))
        assert same.version == 3
        back = await store.roll_back(change, "acme", made.id, 1)
    assert (back.version, back.spec.temperature) == (4, 0.1)
    async with database.read() as view:
        page = await store.versions(view, "acme", made.id)
        first = await store.versions(view, "acme", made.id, FIRST)
    told = [(v.version, v.by, v.spec.temperature, v.restored_from) for v in page.items]
    assert told == [
        (4, "user:usr_4", 0.1, 1),
        (3, "user:usr_3", 0.3, None),
        (2, "user:usr_2", 0.2, None),
        (1, "user:usr_1", 0.1, None),
    ]
    assert first.items == page.items[::-1]
    for version in (0, 5):
        with pytest.raises(errors.NotFoundError):
            async with database.change(SYSTEM) as change:
                await store.roll_back(change, "acme", made.id, version)
    with pytest.raises(errors.ConflictError):
        async with database.change(SYSTEM) as change:
            await store.roll_back(change, "acme", made.id, 1, expected=3)


@pytest.mark.asyncio
async def test_a_roll_back_does_not_take_a_name_away(database: Database) -> None:
    made = await make(database, draft("old"))
    async with database.change(SYSTEM) as change:
        await store.replace(change, "acme", made.id, draft("new"))
    await make(database, draft("old"))
    with pytest.raises(errors.NameTakenError):
        async with database.change(SYSTEM) as change:
            await store.roll_back(change, "acme", made.id, 1)


@pytest.mark.asyncio
async def test_deleted_ones_give_their_name_back(database: Database) -> None:
    made = await make(database, draft())
    async with database.change(SYSTEM) as change:
        await store.remove(change, "acme", made.id, expected=1)
    again = await make(database, draft())
    assert again.id != made.id
    async with database.read() as view:
        with pytest.raises(errors.NotFoundError):
            await store.versions(view, "acme", made.id)


@pytest.mark.asyncio
async def test_another_workspace_sees_nothing(database: Database) -> None:
    made = await make(database, draft())
    async with database.read() as view:
        assert await store.find(view, "other", "coder") is None
        assert await store.names(view, "other") == ()
        assert await store.find_in_other_case(view, "other", "CODER") is None
        assert (await store.entries(view, "other")).items == ()
        for read in (store.get, store.versions):
            with pytest.raises(errors.NotFoundError):
                await read(view, "other", made.id)
    for verb in (
        lambda change: store.replace(change, "other", made.id, draft("x")),
        lambda change: store.roll_back(change, "other", made.id, 1),
        lambda change: store.remove(change, "other", made.id),
    ):
        with pytest.raises(errors.NotFoundError):
            async with database.change(SYSTEM) as change:
                await verb(change)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("field", "value"),
    [("temperature", 3), ("model", ()), ("model", ("a/b", "a/b")), ("quality_score", 101), ("locked", {"x"})],
)
async def test_what_is_refused_names_the_field(database: Database, field: str, value: Any) -> None:
    spec = msgspec.structs.replace(draft().spec, **{field: value})
    with pytest.raises(errors.InvalidError) as caught:
        await make(database, AssistantDraft(name="x", spec=spec))
    assert caught.value.field.startswith(f"spec.{field}")
