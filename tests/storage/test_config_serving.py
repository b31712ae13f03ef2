"""A gateway that runs answers by what the command line has just written, with its next request."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from processes import Server, answers, free_port, running
from served import ask, served
from sluicegate.storage.location import Location

KEY = "app-secret-0123456789"
WORKERS = 2
# On connections of their own, so that each worker is met.
TRIES = 5

pytestmark = pytest.mark.timeout(150)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The demo upstream, as a process of its own."""
    port = free_port()
    log = tmp_path_factory.mktemp("demo") / "demo.log"
    with running(
        ["sluicegate.demo", "--port", str(port)], port, log, ready=lambda p: answers(p, "/v1/models")
    ) as s:
        yield s


def sluicegate(location: Location, *arguments: str, file: str = "") -> str:
    """Run a command as a person would; what it said on standard output."""
    environment = {
        **{
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("SLUICEGATE_", "OPENAI_"))
        },
        "SLUICEGATE_DATA_DIR": str(location.data_dir),
        "KEY": KEY,
    }
    if location.database_url is not None:
        environment["SLUICEGATE_DATABASE_URL"] = location.database_url.reveal()
    done = subprocess.run(
        [sys.executable, "-m", "sluicegate", *arguments],
        input=file,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def file_of(base_url: str, assistant: str) -> str:
    return f"""
[[workspace]]
id = "acme"
plain_models = false

[[workspace.upstream]]
name = "demo"
base_url = "{base_url}"
models = ["demo-fast"]

[[workspace.assistant]]
name = "{assistant}"
model = ["demo/demo-fast"]

[[workspace.key]]
name = "app"
secret = "env:KEY"
"""


def seen(gateway: Server, model: str, key: str = KEY) -> set[tuple[int, str]]:
    """What all workers say to it."""
    return {ask(gateway.port, key, model) for _ in range(TRIES)}


def test_an_apply_is_seen_with_the_next_request(location: Location, demo: Server, tmp_path: Path) -> None:
    with served(location, tmp_path, workers=WORKERS) as gateway:
        assert seen(gateway, "first") == {(401, "invalid_api_key")}
        sluicegate(location, "apply", "-f", "-", "--yes", file=file_of(demo.base_url, "first"))
        assert seen(gateway, "first") == {(200, "")}
        assert seen(gateway, "second") == {(404, "model_not_found")}
        sluicegate(location, "apply", "-f", "-", "--yes", "--prune", file=file_of(demo.base_url, "second"))
        assert seen(gateway, "second") == {(200, "")}
        assert seen(gateway, "first") == {(404, "model_not_found")}
        rotated = sluicegate(location, "keys", "rotate", "app", "--grace", "0s").strip()
        assert seen(gateway, "second") == {(401, "invalid_api_key")}
        assert seen(gateway, "second", rotated) == {(200, "")}
        sluicegate(location, "keys", "revoke", "app")
        assert seen(gateway, "second", rotated) == {(401, "api_key_revoked")}
        assert "Nothing to change." in sluicegate(
            location, "apply", "-f", "-", "--check", file=sluicegate(location, "export")
        )
