"""The database itself: private files, changes that are whole or not at all, and one generation for each."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import pytest

from sluicegate.settings import Secret
from sluicegate.storage import errors
from sluicegate.storage.database import Database
from sluicegate.storage.location import Location, from_environment
from sluicegate.storage.transaction import SYSTEM, Actor
from sluicegate.workspaces import store
from sluicegate.workspaces.model import WorkspaceDraft

ACTOR = Actor("cli:test", "req_1")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def make(database: Database, workspace: str) -> None:
    async with database.change(SYSTEM) as change:
        await store.create(change, workspace, WorkspaceDraft(name=workspace))


async def exists(database: Database, workspace: str) -> bool:
    async with database.read() as view:
        return await store.find(view, workspace) is not None


@pytest.mark.asyncio
async def test_the_first_start_makes_private_files(tmp_path: Path) -> None:
    location = Location(data_dir=tmp_path / "new" / "data")
    database = await Database.open(location)
    await make(database, "acme")
    files = {path.name: path for path in location.data_dir.iterdir()}
    assert {"sluicegate.db", "master.key", "shared-1.map", "sluicegate.db-wal"} <= set(files)
    assert mode(location.data_dir) == 0o700
    assert {name: mode(path) for name, path in files.items()} == dict.fromkeys(files, 0o600)
    await database.close()
    again = await Database.open(location)
    assert await exists(again, "acme")
    await again.close()


@pytest.mark.asyncio
async def test_each_change_is_one_generation(database: Database) -> None:
    row, mapped = await database.row_generation(), database.shared.generation
    await make(database, "acme")
    assert await database.row_generation() == row + 1
    assert database.shared.generation > mapped
    mapped = database.shared.generation
    assert await exists(database, "acme")
    assert (await database.row_generation(), database.shared.generation) == (row + 1, mapped)


@pytest.mark.asyncio
async def test_an_error_undoes_the_whole_change(database: Database) -> None:
    row = await database.row_generation()
    with pytest.raises(RuntimeError, match="stop"):
        async with database.change(SYSTEM) as change:
            await store.create(change, "one", WorkspaceDraft(name="one"))
            await store.create(change, "two", WorkspaceDraft(name="two"))
            raise RuntimeError("stop")
    assert not await exists(database, "one")
    assert await database.row_generation() == row
    await make(database, "one")


@pytest.mark.asyncio
async def test_a_cancelled_change_leaves_nothing(database: Database) -> None:
    inside = asyncio.Event()

    async def slow() -> None:
        async with database.change(SYSTEM) as change:
            await store.create(change, "slow", WorkspaceDraft(name="slow"))
            inside.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(slow())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await make(database, "next")
    assert not await exists(database, "slow")


@pytest.mark.asyncio
async def test_changes_at_once_come_one_after_the_other(database: Database) -> None:
    row = await database.row_generation()
    await asyncio.gather(*(make(database, f"w{n}") for n in range(20)))
    assert await database.row_generation() == row + 20
    async with database.read() as view:
        assert len((await store.entries(view)).items) == 20


@pytest.mark.asyncio
async def test_a_restored_backup_counts_as_a_change(database: Database) -> None:
    await make(database, "acme")
    before = database.shared.generation
    assert database.shared.note(await database.row_generation()) == before
    assert database.shared.note(0) > before


@pytest.mark.asyncio
async def test_a_lost_server_is_said_without_its_url() -> None:
    secret = "canary-password"
    url = f"postgresql://user:{secret}@127.0.0.1:1/nothing"
    with pytest.raises(errors.UnavailableError) as caught:
        await Database.open(Location(data_dir=Path("/tmp"), database_url=Secret(url)))
    assert "Check that it runs" in str(caught.value)
    assert secret not in repr(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.asyncio
@pytest.mark.parametrize("damage", [b"not a database at all" * 100, b"SQLite format 3\x00" + b"\xff" * 5000])
async def test_a_damaged_file_is_said(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "sluicegate.db").write_bytes(damage)
    with pytest.raises(errors.UnavailableError, match="damaged"):
        await Database.open(Location(data_dir=tmp_path))
    assert (tmp_path / "sluicegate.db").read_bytes() == damage
    assert not (tmp_path / "master.key").exists()


@pytest.mark.asyncio
async def test_a_directory_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.UnavailableError, match="SLUICEGATE_DATA_DIR"):
        await Database.open(Location(data_dir=tmp_path / "file" / "data"))


def test_the_environment_says_where() -> None:
    here = from_environment({"SLUICEGATE_DATA_DIR": "/x", "SLUICEGATE_DATABASE_URL": "postgres://u:p@h/d"})
    assert here.data_dir == Path("/x")
    assert here.is_postgresql
    assert "u:p" not in repr(here)
    home = from_environment({"XDG_DATA_HOME": "/home/x"})
    assert home.sqlite_file == Path("/home/x/sluicegate/sluicegate.db")
    with pytest.raises(errors.UnavailableError, match="SLUICEGATE_DATABASE_URL"):
        from_environment({"SLUICEGATE_DATABASE_URL": "mysql://u:secret@h/d"})
