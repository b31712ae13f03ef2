"""Event loops of both kinds, and the scripted upstream."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from loop_upstream import LOOPS, Run, Scripted, run_on


@pytest.fixture(params=list(LOOPS))
def run(request: pytest.FixtureRequest) -> Run:
    return lambda scenario: run_on(LOOPS[request.param], scenario)


@pytest.fixture
def server() -> Iterator[Scripted]:
    with Scripted() as upstream:
        yield upstream
