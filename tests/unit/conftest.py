"""The application over a scripted core, for each test its own."""

import pytest

from fakes.gateway import Made, maker


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Made:
    """See `fakes.gateway.maker`."""
    return maker(monkeypatch)
