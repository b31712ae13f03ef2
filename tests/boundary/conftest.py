"""Event loops of both kinds, engines of both kinds, and the scripted upstream."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from loop_upstream import ENGINES, LOOPS, Run, Scripted, run_on


@pytest.fixture(params=list(LOOPS))
def run(request: pytest.FixtureRequest) -> Run:
    return lambda scenario: run_on(LOOPS[request.param], scenario)


@pytest.fixture
def server() -> Iterator[Scripted]:
    with Scripted() as upstream:
        yield upstream


@pytest.fixture(params=["thread", "inline"], autouse=True)
def engine_kind(request: pytest.FixtureRequest) -> str:
    """Whether the engines that a test makes have an I/O thread or run on the loop's."""
    kind: str = request.param
    ENGINES.inline = kind == "inline"
    return kind
