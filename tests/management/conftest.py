"""The management API over a small world of tenants, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from rig import Rig, opened
from world import World, build

import postgresql
from postgresql import Cluster
from sluicegate.settings import Secret
from sluicegate.storage.database import make_engine, prepare
from sluicegate.storage.location import Location


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A real PostgreSQL for the whole run."""
    with postgresql.running() as found:
        yield found


async def _made(location: Location) -> World:
    location.make_data_dir()
    engine = make_engine(location)
    await prepare(engine, location, may_migrate=True)
    await engine.dispose()
    return await build(location)


@pytest.fixture(scope="session")
def sqlite_world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, World]:
    """A data directory with the world in it, to be copied."""
    folder = tmp_path_factory.mktemp("sqlite") / "data"
    return folder, asyncio.run(_made(Location(data_dir=folder)))


@pytest.fixture(scope="session")
def postgresql_world(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, World]:
    """A database with the world in it, to be copied, and the data directory with its master key."""
    name = cluster.create()
    folder = tmp_path_factory.mktemp("postgresql") / "data"
    world = asyncio.run(_made(Location(data_dir=folder, database_url=Secret(cluster.url(name)))))
    return name, folder, world


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Location, World]]:
    """A fresh copy of the world; once for each kind of database."""
    folder = tmp_path / "data"
    if request.param == "sqlite":
        source, world = request.getfixturevalue("sqlite_world")
        shutil.copytree(source, folder)
        yield Location(data_dir=folder), world
        return
    cluster: Cluster = request.getfixturevalue("cluster")
    template, source, world = request.getfixturevalue("postgresql_world")
    shutil.copytree(source, folder)
    name = cluster.create(template)
    yield Location(data_dir=folder, database_url=Secret(cluster.url(name))), world
    cluster.drop(name)


@pytest_asyncio.fixture
async def rig(place: tuple[Location, World]) -> AsyncIterator[Rig]:
    """The API over a fresh copy of the world."""
    async with opened(*place) as found:
        yield found


@pytest_asyncio.fixture
async def shared(sqlite_world: tuple[Path, World], tmp_path: Path) -> AsyncIterator[Rig]:
    """The API on SQLite alone, for calls whose verdict does not come from the database."""
    folder = tmp_path / "shared"
    shutil.copytree(sqlite_world[0], folder)
    async with opened(Location(data_dir=folder), sqlite_world[1]) as found:
        yield found
