"""README.md of this folder: every row has tests, all that it names exists, no scenario is left out."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

from faults.cases import cases
from faults.steps import BY_NAME

HERE = Path(__file__).parent
RUST_TESTS = HERE.parents[1] / "rust" / "core" / "tests"
ROWS = {
    row[1]: row[2]
    for row in re.finditer(r"^\| ([UC]\d+) \|.*\|(.*)\|$", (HERE / "README.md").read_text(), re.MULTILINE)
}
TESTS = "\n".join(path.read_text() for path in HERE.glob("test_*.py"))
SCENARIOS = {case.model.split(".")[0] for case in cases()} | set(BY_NAME)


def names(row: str) -> list[str]:
    return re.findall(r"(?:rust )?`[^`]+`", ROWS[row])


def test_the_rows_are_complete() -> None:
    assert list(ROWS) == [f"U{n}" for n in range(1, 49)] + [f"C{n}" for n in range(1, 22)]


@pytest.mark.parametrize("row", ROWS)
def test_what_a_row_names_exists(row: str) -> None:
    assert names(row), "no test"
    for name in names(row):
        plain = name.removeprefix("rust ").strip("`")
        if name.startswith("rust "):
            found = (RUST_TESTS / plain).exists()
        elif plain.endswith(".py"):
            found = (HERE / plain).exists()
        elif plain.startswith("test_"):
            found = f"def {plain}(" in TESTS
        else:
            found = any(fnmatch(scenario, plain) for scenario in SCENARIOS)
        assert found, f"{name} does not exist"


def test_every_scenario_stands_in_its_row() -> None:
    patterns = [name.strip("`") for row in ROWS for name in names(row)]
    numbered = [scenario for scenario in SCENARIOS if re.match(r"u\d+-|at-", scenario)]
    left = [s for s in numbered if not any(fnmatch(s, pattern) for pattern in patterns)]
    # Named by the tests that use them; at-tls-good is no fault.
    assert [s for s in left if s != "at-tls-good" and f'"{s}"' not in TESTS] == []
