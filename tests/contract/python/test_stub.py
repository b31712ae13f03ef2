"""The stub `_core.pyi` against the built module: every name, kind and signature, in both directions."""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sluicegate import _core

ROOT = Path(__file__).parents[3]
STUB = ROOT / "python" / "sluicegate" / "_core.pyi"
ALLOWED = Path(__file__).parent / "stub-allowlist.txt"

# What Python itself puts on every module and class.
INHERITED = {*dir(object), "__module__", "__doc__", "__new__"}


def definitions() -> Iterator[tuple[str, ast.FunctionDef | ast.ClassDef]]:
    """Dotted name and definition of each class, function, method and property of the stub."""
    for node in ast.parse(STUB.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, node
        if isinstance(node, ast.ClassDef):
            for member in node.body:
                if isinstance(member, ast.FunctionDef):
                    yield f"{node.name}.{member.name}", member


STUBBED = dict(definitions())
CLASSES = sorted(name for name, node in STUBBED.items() if isinstance(node, ast.ClassDef))


def is_property(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef) and any(
        isinstance(decorator, ast.Name) and decorator.id == "property" for decorator in node.decorator_list
    )


CALLABLE = sorted(
    name for name, node in STUBBED.items() if isinstance(node, ast.FunctionDef) and not is_property(node)
)


def built(name: str) -> Any:
    """The object of that dotted name in the built module."""
    found: Any = _core
    for part in name.split("."):
        found = getattr(found, part)
    return found


def written_parameters(node: ast.FunctionDef) -> list[tuple[str, bool, bool]]:
    """Name, keyword-only, has a default; without `self`."""
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    first_default = len(positional) - len(arguments.defaults)
    listed = [(a.arg, False, at >= first_default) for at, a in enumerate(positional)]
    listed += [
        (a.arg, True, default is not None)
        for a, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    ]
    return [entry for entry in listed if entry[0] not in ("self", "cls")]


def built_parameters(target: Any) -> list[tuple[str, bool, bool]]:
    return [
        (p.name, p.kind is p.KEYWORD_ONLY, p.default is not p.empty)
        for p in inspect.signature(target).parameters.values()
        if p.name != "self"
    ]


@pytest.mark.parametrize("name", sorted(STUBBED))
def test_what_is_written_is_built(name: str) -> None:
    assert built(name) is not None
    if is_property(STUBBED[name]):
        assert inspect.isdatadescriptor(built(name))


@pytest.mark.parametrize("name", CALLABLE)
def test_parameters_are_as_written(name: str) -> None:
    node = STUBBED[name]
    assert isinstance(node, ast.FunctionDef)
    owner, _, method = name.rpartition(".")
    if method in ("__new__", "__init__") and not written_parameters(node):
        assert isinstance(built(owner)(), built(owner))
    else:
        # The signature of a constructor stands on its class.
        target = built(owner) if method == "__new__" else built(name)
        assert built_parameters(target) == written_parameters(node)


def test_the_module_has_nothing_else() -> None:
    public = {name for name in vars(_core) if not name.startswith("__")} - {"annotations"}
    assert public == {name for name in STUBBED if "." not in name}


@pytest.mark.parametrize("name", CLASSES)
def test_classes_have_nothing_else(name: str) -> None:
    members = {member for member in vars(built(name)) if member not in INHERITED}
    written = {entry.split(".")[1] for entry in STUBBED if entry.startswith(f"{name}.")} - {
        "__init__",
        "__new__",
    }
    if issubclass(built(name), Exception):
        members -= {"__weakref__"}
    assert members == written


# Those that a program makes by itself.
MADE = {"RequestError", "Upstream", "Bridge", "SharedTable", "Metrics"}
MADE |= {"Recipe", "QualityChecks", "Tokenizer", "Counter", "Said", "Chunk", "ToolCallDelta", "Usage"}
MADE |= {"EventDecoder", "EventEncoder", "EventTooLargeError"}


@pytest.mark.parametrize("name", sorted(set(CLASSES) - MADE))
def test_values_cannot_be_made_in_python(name: str) -> None:
    with pytest.raises(TypeError):
        built(name)()


@pytest.mark.timeout(180)
def test_mypy_agrees() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "--allowlist", str(ALLOWED), "sluicegate._core"],
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": str(ROOT / "python")},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    errors = [line for line in (result.stdout + result.stderr).splitlines() if "error" in line]
    assert result.returncode == 0, "\n".join(errors)
