"""The schema: as the tables say, brought up from every version, and never touched by an older program."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text as sql
from typer.testing import CliRunner, Result

from postgresql import Cluster
from processes import clean_environment
from sluicegate.cli import app
from sluicegate.settings import Secret
from sluicegate.storage import errors, migrate, schema
from sluicegate.storage.database import Database, make_engine, prepare
from sluicegate.storage.location import Location

VERSIONS = sorted(path.stem[:4] for path in (migrate.MIGRATIONS / "versions").glob("[0-9]*.py"))

# Partitioned, and made by hand: `test_usage_store.py` writes and reads every column of them.
COMPARED = {
    "compare_type": True,
    "include_name": lambda name, kind, _: kind != "table" or not name.startswith("usage_"),
}


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Where nothing is yet."""
    if request.param == "sqlite":
        yield Location(data_dir=tmp_path / "data")
        return
    cluster: Cluster = request.getfixturevalue("cluster")
    name = cluster.create()
    yield Location(data_dir=tmp_path / "data", database_url=Secret(cluster.url(name)))
    cluster.drop(name)


def environment(location: Location) -> dict[str, str]:
    """The variables that lead there."""
    url = "" if location.database_url is None else location.database_url.reveal()
    return {"SLUICEGATE_DATA_DIR": str(location.data_dir), "SLUICEGATE_DATABASE_URL": url}


def sluicegate(location: Location, *arguments: str) -> Result:
    """The command in this process: it brings a loop of its own, so it runs in a thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(CliRunner().invoke, app, list(arguments), env=environment(location)).result()


async def dump(location: Location) -> dict[str, Any]:
    """All rows, and the version."""
    engine = make_engine(location)
    async with engine.connect() as connection:
        tables = [*schema.metadata.tables, "alembic_version"]
        found = {
            t: sorted(map(repr, (await connection.execute(sql(f'SELECT * FROM "{t}"'))).all()))
            for t in tables
        }
    await engine.dispose()
    return found


def test_the_versions_are_numbers_in_a_row() -> None:
    assert [f"{n:04}" for n in range(1, len(VERSIONS) + 1)] == VERSIONS
    assert VERSIONS[-1] == schema.HEAD
    for path in (migrate.MIGRATIONS / "versions").glob("[0-9]*.py"):
        assert re.search(rf'^revision = "{path.stem[:4]}"$', path.read_text(), re.MULTILINE)


@pytest.mark.asyncio
@pytest.mark.parametrize("start", [None, *VERSIONS[:-1]])
async def test_every_version_is_brought_up(empty: Location, start: str | None) -> None:
    empty.make_data_dir()
    engine = make_engine(empty)
    if start is not None:
        async with engine.connect() as connection, connection.begin():
            await migrate.upgrade(connection, start)
    await prepare(engine, empty, may_migrate=True)
    async with engine.connect() as connection:
        assert await migrate.version_of(connection) == schema.HEAD
        differences = await connection.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync, opts=COMPARED), schema.metadata)
        )
    await engine.dispose()
    assert differences == []


@pytest.mark.asyncio
async def test_a_newer_schema_is_refused_untouched(location: Location) -> None:
    engine = make_engine(location)
    async with engine.connect() as connection, connection.begin():
        await connection.execute(sql("UPDATE alembic_version SET version_num = '9999'"))
    await engine.dispose()
    before = await dump(location)
    with pytest.raises(errors.SchemaTooNewError, match=f"9999.*newer Sluicegate.*{schema.HEAD}"):
        await Database.open(location)
    assert await dump(location) == before
    refused = sluicegate(location, "migrate")
    assert refused.exit_code == 2
    assert "newer Sluicegate" in refused.stderr


@pytest.mark.asyncio
async def test_a_foreign_database_is_refused(empty: Location) -> None:
    empty.make_data_dir()
    engine = make_engine(empty)
    async with engine.connect() as connection, connection.begin():
        await connection.execute(sql("CREATE TABLE users (id TEXT)"))
    await engine.dispose()
    with pytest.raises(errors.SchemaError, match="database of its own"):
        await Database.open(empty)


@pytest.mark.asyncio
async def test_a_migration_that_fails_leaves_nothing(empty: Location) -> None:
    empty.make_data_dir()
    engine = make_engine(empty)
    with pytest.raises(RuntimeError):
        async with engine.connect() as plain:
            connection = await plain.execution_options(immediate=True)
            async with connection.begin():
                await migrate.upgrade(connection)
                raise RuntimeError
    async with engine.connect() as connection:
        assert await migrate.version_of(connection) is None
    await engine.dispose()


def test_the_command_migrates_once(empty: Location) -> None:
    if empty.is_postgresql:
        with pytest.raises(errors.SchemaTooOldError, match="sluicegate migrate"):
            asyncio.run(Database.open(empty))
    first = sluicegate(empty, "migrate")
    assert (first.exit_code, first.stderr) == (0, "")
    assert f"schema {schema.HEAD}" in first.stdout
    second = sluicegate(empty, "migrate")
    assert (second.exit_code, second.stderr) == (0, "")
    assert "Nothing to do" in second.stdout
    check = sluicegate(empty, "migrate", "--check")
    assert check.exit_code == 0


def test_the_check_changes_nothing(empty: Location) -> None:
    check = sluicegate(empty, "migrate", "--check")
    assert check.exit_code == 1
    assert "is empty" in check.stdout
    assert not (empty.data_dir / "master.key").exists()
    assert not empty.sqlite_file.exists()


def test_many_first_starts_at_once(empty: Location) -> None:
    arguments = [sys.executable, "-m", "sluicegate", "migrate"]
    variables = clean_environment(environment(empty))
    started = [
        subprocess.Popen(arguments, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    said = [process.communicate(timeout=50)[1] for process in started]
    assert [process.returncode for process in started] == [0] * 3, said
