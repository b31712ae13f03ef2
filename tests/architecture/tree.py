"""What the architecture tests look at: the modules of a tree, their imports, and their sizes."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "python" / "sluicegate"


@dataclass(frozen=True)
class Import:
    """`module` (dotted, inside the package: without its name) is imported in `file` at `line`."""

    file: str
    line: int
    module: str


def python_files(package: Path) -> list[Path]:
    """All modules below a package."""
    return sorted(path for path in package.rglob("*.py") if "__pycache__" not in path.parts)


def imports_of(path: Path, package: Path) -> Iterator[Import]:
    """Every import, also inside functions and under TYPE_CHECKING: those are dependencies too."""
    file = path.relative_to(package).as_posix()
    inside = [package.name, *Path(file).parent.parts]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(file, node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            start = inside[: len(inside) - node.level + 1] if node.level else []
            source = ".".join([*start, node.module or ""]).rstrip(".")
            for alias in node.names:
                yield Import(file, node.lineno, f"{source}.{alias.name}")


def module_name(file: str) -> str:
    """`chat/pipeline.py` → `chat.pipeline`, `chat/__init__.py` → `chat`."""
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
