"""The OpenAPI document is what the API does: made of the same structs, and tried by Schemathesis."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fuzz import fuzz
from process import served
from rig import Rig
from world import World

from sluicegate.management.app import OPERATIONS
from sluicegate.management.openapi import document, statuses

ROOT = Path(__file__).parents[2]
# Enough for the phase of boundary values and some of every other; `fuzz.py` runs as long as you like.
SECONDS = 20


def refs(value: Any) -> set[str]:
    return set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(value)))


@pytest.mark.asyncio
async def test_it_is_served_to_everybody(shared: Rig) -> None:
    answer = await shared.call("GET", "/openapi.json")
    assert answer.status == 200
    assert answer.json == document(OPERATIONS)
    assert answer.json["openapi"] == "3.1.0"
    other = await shared.call("POST", "/openapi.json", {})
    assert (other.status, other.headers["allow"]) == (405, "GET")


def test_it_is_whole() -> None:
    found = document(OPERATIONS)
    described = {(m.upper(), path) for path, methods in found["paths"].items() for m in methods}
    assert described == {(operation.method, operation.path) for operation in OPERATIONS}
    assert refs(found) <= set(found["components"]["schemas"])
    ids = [entry["operationId"] for methods in found["paths"].values() for entry in methods.values()]
    assert len(ids) == len(set(ids))
    # Python's end of a text is no pattern elsewhere.
    assert "\\\\Z" not in json.dumps(found)


def test_every_status_has_its_place() -> None:
    for operation in OPERATIONS:
        found = statuses(operation)
        assert {400, 500, 503} <= set(found)
        assert (404 in found) == ("{" in operation.path)
        assert operation.body is None or {413, 415} <= set(found)


def test_the_reference_is_the_document() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "reference-management", "--check"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(SECONDS + 120)
def test_schemathesis_finds_nothing(sqlite_world: tuple[Path, World], tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(sqlite_world[0], folder)
    world = sqlite_world[1]
    with served(folder) as api:
        done = fuzz(api, world.keys["platform_admin"], SECONDS, seed=1, within=tmp_path)
        lines = api.log.read_text()
    assert done.returncode == 0, done.stdout[-8000:]
    generated = re.search(r"(\d+) generated", done.stdout)
    assert generated and int(generated[1]) > 500, done.stdout
    assert "internal_error" not in lines
    for secret in world.secrets:
        assert secret not in lines
