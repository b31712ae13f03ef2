"""The lock files: complete, hashed, in step with what they lock, and without a word on where to fetch."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "requirements"
NODE_LOCK = ROOT / "tests" / "contract" / "node" / "package-lock.json"
LOCKS = sorted(REQUIREMENTS.glob("*.txt"))

# The one place name in Cargo.lock: the format's own id of the public index, whatever mirror serves it.
CRATES_INDEX = "registry+https://github.com/rust-lang/crates.io-index"

_PIN = re.compile(
    r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;]+)[^\n]*\\\n((?:    --hash=[^\n]+\n?)+)",
    re.MULTILINE,
)


def pins(lock: Path) -> dict[str, str]:
    """Name → version of a requirements file."""
    return {canonicalize_name(name): version for name, version, _ in _PIN.findall(lock.read_text())}


def asked_for(lines: list[str]) -> list[Requirement]:
    return [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]


def wanted(lock: str) -> list[Requirement]:
    """What the lock file of this name has to satisfy."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    sources = {"runtime": [], "dev": ["build", "test", "check"], "bench": ["bench"], "agents": ["agents"]}[
        lock
    ]
    lines = [] if lock in ("bench", "agents") else list(project)
    for source in sources:
        lines += (REQUIREMENTS / f"{source}.in").read_text().splitlines()
    return asked_for(lines)


def test_there_are_four() -> None:
    assert [lock.stem for lock in LOCKS] == ["agents", "bench", "dev", "runtime"]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_every_line_is_a_pin_with_hashes(lock: Path) -> None:
    text = lock.read_text()
    started = re.findall(r"^[A-Za-z0-9].*==", text, re.MULTILINE)
    assert started
    assert len(pins(lock)) == len(started)
    for _, _, hashes in _PIN.findall(text):
        assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", line) for line in hashes.strip().splitlines())


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_what_is_asked_for_is_locked(lock: Path) -> None:
    locked = pins(lock)
    for requirement in wanted(lock.stem):
        version = locked[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{lock.name}: {requirement} but {version}; make lock"


def test_tests_run_on_what_users_get() -> None:
    dev = pins(REQUIREMENTS / "dev.txt")
    for name, version in pins(REQUIREMENTS / "runtime.txt").items():
        assert dev[name] == version


@pytest.mark.parametrize("lock", [*LOCKS, NODE_LOCK], ids=lambda lock: lock.name)
def test_no_lock_names_a_registry(lock: Path) -> None:
    text = re.sub(r'"funding": \{[^}]*\}', "", lock.read_text())
    assert "://" not in text
    for option in ("--index-url", "--extra-index-url", "--find-links", "--trusted-host", "-i ", '"resolved"'):
        assert option not in text


@pytest.mark.parametrize("folder", [".", "bench/upstream"])
def test_crates_come_from_the_public_index_only(folder: str) -> None:
    packages = tomllib.loads((ROOT / folder / "Cargo.lock").read_text())["package"]
    assert {package.get("source", CRATES_INDEX) for package in packages} == {CRATES_INDEX}
    assert all("checksum" in package for package in packages if "source" in package)


def test_node_packages_have_their_hashes() -> None:
    packages = json.loads(NODE_LOCK.read_text())["packages"]
    assert set(packages) >= {"", "node_modules/openai"}
    assert all("integrity" in package for name, package in packages.items() if name)
