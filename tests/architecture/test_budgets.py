"""Sizes: files, functions and parameters stay small, names say something, modules say what they are for."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from tree import ROOT, python_files

PYTHON_LINES = 400
RUST_LINES = 500
FUNCTION_LINES = 60
PARAMETERS = 7
FORBIDDEN = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "handler", "types", "base"}


def rust_lines(text: str) -> int:
    """Lines without a test module at the end."""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if line.strip() == "#[cfg(test)]" and any(
            later.startswith("mod ") for later in lines[number : number + 4]
        ):
            return number
    return len(lines)


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))


def function_faults(path: Path, text: str, *, parameters: bool) -> Iterator[str]:
    for function in functions(ast.parse(text)):
        where = f"{path}:{function.lineno} {function.name}"
        lines = (function.end_lineno or function.lineno) - function.lineno + 1
        if lines > FUNCTION_LINES:
            yield f"{where}: {lines} lines, {FUNCTION_LINES} are allowed"
        given = function.args
        count = len(given.posonlyargs) + len(given.args) + len(given.kwonlyargs)
        count -= bool(given.args and given.args[0].arg in ("self", "cls"))
        if parameters and count > PARAMETERS:
            yield f"{where}: {count} parameters, {PARAMETERS} are allowed"


def python_faults(path: Path, *, product: bool) -> Iterator[str]:
    text = path.read_text()
    lines = len(text.splitlines())
    if lines > PYTHON_LINES:
        yield f"{path}: {lines} lines, {PYTHON_LINES} are allowed"
    if text.strip() and not ast.get_docstring(ast.parse(text)):
        yield f"{path}: a module opens with one sentence of purpose"
    # Fakes and fixtures repeat the signatures of what they stand for.
    yield from function_faults(path, text, parameters=product)


def rust_faults(path: Path) -> Iterator[str]:
    lines = rust_lines(path.read_text())
    if lines > RUST_LINES:
        yield f"{path}: {lines} lines, {RUST_LINES} are allowed"


def name_faults(path: Path) -> Iterator[str]:
    for part in (path.stem, path.parent.name):
        if part.lower() in FORBIDDEN:
            yield f"{path}: `{part}` says nothing about what is inside"


def all_faults(root: Path) -> list[str]:
    found: list[str] = []
    for folder in ("python", "tests", "bench"):
        for path in python_files(root / folder):
            found += name_faults(path)
            found += python_faults(path, product=folder == "python")
    for path in sorted((root / "rust").rglob("*.rs")):
        if "target" in path.relative_to(root).parts or "tests" in path.relative_to(root).parts:
            continue
        found += name_faults(path)
        found += rust_faults(path)
    return found


def test_everything_is_within_its_budget() -> None:
    assert all_faults(ROOT) == []


def function(lines: int, parameters: str = "") -> str:
    return f'"""Purpose."""\ndef f({parameters}):\n' + "    x = 1\n" * (lines - 1)


EIGHT = "a, b, c, d, e, f, g, h"
CASES = [
    ("python/x.py", '"""P."""\n' + "x = 1\n" * 399, ""),
    ("python/x.py", '"""P."""\n' + "x = 1\n" * 400, "401 lines"),
    ("tests/x.py", '"""P."""\n' + "x = 1\n" * 400, "401 lines"),
    ("python/x.py", "x = 1\n", "one sentence of purpose"),
    ("python/x.py", "", ""),
    ("python/x.py", function(60), ""),
    ("python/x.py", function(61), "61 lines, 60 are allowed"),
    ("python/x.py", function(2, "a, b, c, d, e, f, g"), ""),
    ("python/x.py", function(2, EIGHT), "8 parameters"),
    ("python/x.py", function(2, "a, /, b, c, d, *, e, f, g, h"), "8 parameters"),
    ("python/x.py", function(2, f"self, {EIGHT[:-3]}"), ""),
    ("tests/x.py", function(2, EIGHT), ""),
    ("python/utils.py", '"""P."""\n', "says nothing"),
    ("python/helpers/x.py", '"""P."""\n', "says nothing"),
    ("rust/core/src/manager.rs", "fn a() {}\n", "says nothing"),
    ("rust/core/src/x.rs", "// x\n" * 500, ""),
    ("rust/core/src/x.rs", "// x\n" * 501, "501 lines"),
    ("rust/core/src/x.rs", "// x\n" * 499 + "#[cfg(test)]\nmod tests {\n" + "// t\n" * 300 + "}\n", ""),
    ("rust/core/tests/x.rs", "// x\n" * 900, ""),
]


@pytest.mark.parametrize(("file", "text", "fault"), CASES)
def test_the_check_can_fail(tmp_path: Path, file: str, text: str, fault: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    faults = all_faults(tmp_path)
    assert len(faults) == bool(fault), faults
    assert not fault or fault in faults[0]
