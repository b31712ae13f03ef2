"""The demo upstream and the fault upstream, and both clients in front of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from client_setup import Both, Script

from faults.upstream import FaultUpstream
from processes import Server, answers, free_port, running
from sluicegate.client import AsyncClient, Client


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The demo upstream."""
    port = free_port()
    arguments = ["sluicegate.demo", f"--port={port}"]
    log = tmp_path_factory.mktemp("demo") / "log"
    with running(arguments, port, log, ready=lambda p: answers(p, "/v1/models")) as server:
        yield server


@pytest.fixture(scope="session")
def faulty() -> Iterator[FaultUpstream]:
    """The fault upstream, which answers as the model's name says."""
    with FaultUpstream() as upstream:
        yield upstream
    assert not upstream.crashes, f"scenarios that failed themselves: {upstream.crashes}"


@pytest.fixture
def script(faulty: FaultUpstream, request: pytest.FixtureRequest) -> Script:
    """A model of this test's own, which answers what the test says."""
    return Script(faulty, f"own-{abs(hash(request.node.nodeid))}")


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables of this machine are not the test's."""
    for name in ("BASE_URL", "API_KEY", "MODEL"):
        monkeypatch.delenv(f"OPENAI_COMPATIBLE_{name}", raising=False)


@pytest.fixture(params=[AsyncClient, Client], ids=["async", "blocking"])
def both(request: pytest.FixtureRequest) -> Both:
    """Either client, called in the same way."""
    kind: Any = request.param
    return Both(kind)
