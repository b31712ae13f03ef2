"""Both databases for every store test: a fresh one for each, copied from a migrated template."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from command_line import Cli, command_line
from machines import Machine

import postgresql
import redis_server
from fakes.tenants import Make, TenantGateway, Tenants, serving
from postgresql import Cluster
from redis_server import RedisServer
from sluicegate.settings import Secret, Settings
from sluicegate.storage.database import Database, make_engine, prepare
from sluicegate.storage.location import Location
from sluicegate.upstreams import survey


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A real PostgreSQL for the whole run."""
    with postgresql.running() as found:
        yield found


async def _migrate(location: Location) -> None:
    location.make_data_dir()
    engine = make_engine(location)
    try:
        await prepare(engine, location, may_migrate=True)
    finally:
        await engine.dispose()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with a migrated database."""
    folder = tmp_path_factory.mktemp("sqlite") / "data"
    asyncio.run(_migrate(Location(data_dir=folder)))
    return folder


@pytest.fixture(scope="session")
def postgresql_template(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A migrated database, and the data directory with its master key."""
    name = cluster.create()
    folder = tmp_path_factory.mktemp("postgresql") / "data"
    asyncio.run(_migrate(Location(data_dir=folder, database_url=Secret(cluster.url(name)))))
    return name, folder


@pytest.fixture(params=["sqlite", "postgresql"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Location]:
    """Where a fresh, migrated database is; once for each kind."""
    folder = tmp_path / "data"
    if request.param == "sqlite":
        shutil.copytree(request.getfixturevalue("sqlite_template"), folder)
        yield Location(data_dir=folder)
        return
    cluster: Cluster = request.getfixturevalue("cluster")
    template, source = request.getfixturevalue("postgresql_template")
    shutil.copytree(source, folder)
    name = cluster.create(template)
    yield Location(data_dir=folder, database_url=Secret(cluster.url(name)))
    cluster.drop(name)


@pytest_asyncio.fixture
async def database(location: Location) -> AsyncIterator[Database]:
    """The database of `location`, open."""
    opened = await Database.open(location)
    yield opened
    await opened.close()


@pytest_asyncio.fixture
async def tenants(database: Database) -> Tenants:
    return Tenants(database)


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, location: Location) -> Make:
    monkeypatch.setattr(survey, "STEP_SECONDS", 0.02)

    def made(script: Any = serving, settings: Settings | None = None) -> Any:
        return TenantGateway(monkeypatch, location, script, settings).running()

    return made


@pytest_asyncio.fixture
async def acme(tenants: Tenants) -> str:
    """The key of a workspace with an upstream and an assistant."""
    await tenants.workspace("acme")
    await tenants.upstream("acme", "own", "http://acme-host/v1", models=("m", "n"))
    await tenants.assistant("acme", "Helper", "own/m", system_prompt="Be short.")
    return (await tenants.key("acme"))[1]


@pytest.fixture(scope="session")
def redis_process() -> Iterator[RedisServer]:
    """A real Redis for the whole run."""
    with redis_server.running() as found:
        yield found


@pytest.fixture
def server(redis_process: RedisServer) -> RedisServer:
    """It, with nothing in it."""
    if redis_process.command("FLUSHALL") != b"+OK\r\n":
        redis_process.start()
    return redis_process


@pytest_asyncio.fixture
async def machine(server: RedisServer) -> AsyncIterator[Any]:
    """Starts machines that count there, and stops them."""
    made: list[Machine] = []

    async def make(**options: Any) -> Machine:
        made.append(Machine(server, **options))
        await made[-1].start()
        assert made[-1].is_shared
        return made[-1]

    yield make
    for one in made:
        await one.stop()


@pytest.fixture
def cli(location: Location, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run a command on the database of `location`."""
    return command_line(location, monkeypatch)
