"""The gateway in front of the demo upstream. Run with `make test-agents`, which installs the frameworks."""

from __future__ import annotations

import gc
import importlib.util
import warnings
from collections.abc import Iterator

import pytest
from agents_setup import API_KEY, SETTINGS

from processes import answers, free_port, gateway, running

# They are 30 packages that nothing else needs: `make test` does without them.
# Not by `agents`: that is the name of this folder, too.
if importlib.util.find_spec("pydantic_ai") is None:
    collect_ignore_glob = ["test_*"]


@pytest.fixture(scope="session")
def base_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a gateway with a database."""
    folder = tmp_path_factory.mktemp("agents")
    port = free_port()
    demo = ["sluicegate.demo", "--port", str(port)]
    with running(demo, port, folder / "demo.log", ready=lambda p: answers(p, "/v1/models")) as upstream:
        settings = SETTINGS.format(demo=upstream.base_url)
        environment = {"SLUICEGATE_DATA_DIR": str(folder / "data")}
        with gateway(settings, folder, keys=API_KEY, environment=environment) as server:
            yield server.base_url


@pytest.fixture(autouse=True)
def leftovers() -> Iterator[None]:
    """What the frameworks leave open is collected here, where nobody takes it for a failure."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()
