"""The real gateway in front of two upstreams: the built-in demo, and one that answers as the request says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from contract_setup import API_KEY, KEYS, OTHER_KEY, settings_file
from openai import AsyncOpenAI, OpenAI
from scripted import ScriptedUpstream, scripted_upstream

from processes import Server, answers, free_port, gateway, running


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The demo upstream, as a process of its own."""
    port = free_port()
    log = tmp_path_factory.mktemp("demo") / "demo.log"
    with running(
        ["sluicegate.demo", "--port", str(port)], port, log, ready=lambda p: answers(p, "/v1/models")
    ) as server:
        yield server


@pytest.fixture(scope="session")
def scripted() -> Iterator[ScriptedUpstream]:
    """The upstream that does what `x_script` says."""
    with scripted_upstream() as upstream:
        yield upstream


@pytest.fixture(scope="session")
def served(
    demo: Server, scripted: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """`sluicegate serve` in front of both."""
    settings = settings_file(demo.base_url, scripted.base_url)
    with gateway(settings, tmp_path_factory.mktemp("gateway"), keys=API_KEY) as server:
        yield server


@pytest.fixture(scope="session")
def keeping(
    demo: Server, scripted: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """The same with a database, and two workers that share it."""
    folder = tmp_path_factory.mktemp("keeping")
    settings = settings_file(demo.base_url, scripted.base_url)
    environment = {"SLUICEGATE_DATA_DIR": str(folder / "data")}
    with gateway(settings, folder, keys=KEYS, workers=2, environment=environment) as server:
        yield server


@pytest.fixture
def keeper(keeping: Server) -> Iterator[OpenAI]:
    """The official client of the gateway that keeps what it is given."""
    with OpenAI(base_url=keeping.base_url, api_key=API_KEY, timeout=45) as client:
        yield client


@pytest.fixture
def stranger(keeping: Server) -> Iterator[OpenAI]:
    """Another key of the same gateway."""
    with OpenAI(base_url=keeping.base_url, api_key=OTHER_KEY, timeout=45) as client:
        yield client


@pytest.fixture
def client(served: Server) -> Iterator[OpenAI]:
    """The official client as a user sets it up: another base URL, another key."""
    with OpenAI(base_url=served.base_url, api_key=API_KEY, timeout=45) as client:
        yield client


@pytest_asyncio.fixture
async def async_client(served: Server) -> AsyncIterator[AsyncOpenAI]:
    """The same, asynchronous."""
    async with AsyncOpenAI(base_url=served.base_url, api_key=API_KEY, timeout=45) as client:
        yield client
