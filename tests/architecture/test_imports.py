"""Imports go down only: a table of layers, checked with `ast`, and checked to be able to fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tree import PACKAGE, Import, imports_of, module_name, python_files

# From the top; a module may import from layers below its own, and from its own folder.
LAYERS = (
    {"__main__"},
    {"cli"},
    {"app"},
    {"management.app"},
    {"config", "console", "chat", "completions", "embeddings", "responses", "*.routes", "*.endpoint"},
    # What the routes of the management API are declared with.
    {"management"},
    {"observability"},
    {"vitals"},
    {"records"},
    {"archive"},
    {
        "keys",
        "workspaces",
        "assistants",
        "upstreams",
        "members",
        "limits",
        "history",
        "conversations",
        "quality",
        "usage",
        "models",
    },
    {"audit"},
    {"http", "storage", "telemetry"},
    {"client", "sse"},
    {"engine", "tokens"},
    {
        "settings",
        "secret",
        "errors",
        "ids",
        "clock",
        "toml_lines",
        "toml_text",
        "conversion",
        "fallback",
        "globs",
    },
    {"_core"},
)
# Folders that stand beside the gateway: they import nothing of it but themselves.
ALONE = {"demo"}
# Parts that are worth importing without the gateway, and all of it that they may bring along.
IMPORTABLE = {"client": {"engine", "fallback"}, "sse": {"engine"}}
# The operations that share the stages of chat, and modules of one floor that build on each other.
ALLOWED = {
    ("completions", "chat"),
    ("embeddings", "chat"),
    ("responses", "chat"),
    ("cli", "demo"),
    ("errors", "ids"),
    ("settings", "toml_lines"),
    ("settings", "conversion"),
    ("settings", "secret"),
    ("conversion", "toml_lines"),
    ("ids", "clock"),
    # What limits look like is a part of what has them.
    ("workspaces", "limits"),
    ("assistants", "limits"),
    ("keys", "limits"),
    ("upstreams", "limits"),
    # What was spent of a budget is told to whoever counts it.
    ("usage", "limits"),
}
# Two doors to the extension module: the engine has asyncio behind it, and who only counts tokens must not
# wait for that (`import sluicegate.tokens` takes 60 ms at most).
CORE = ("engine", "tokens.core")
STARLETTE = ("app", "http", "console", "management", "demo")
STARLETTE_FILES = ("routes.py", "endpoint.py")


def layer_of(module: str) -> int:
    """The layer's number; a module that no layer names fails."""
    folder, _, rest = module.partition(".")
    if any(module in names for names in LAYERS):
        folder = module
    if f"*.{rest}" in {"*.routes", "*.endpoint"}:
        folder = f"*.{rest}"
    for number, names in enumerate(LAYERS):
        if folder in names:
            return number
    raise AssertionError(f"{module} is in no layer of the architecture: add it to LAYERS on purpose")


def known(module: str, package: Path) -> str:
    """The module that a dotted name belongs to: `chat.pipeline.Parts` → `chat.pipeline`."""
    parts = module.split(".")
    while len(parts) > 1 and not (
        package.joinpath(*parts).with_suffix(".py").exists() or package.joinpath(*parts).is_dir()
    ):
        parts.pop()
    return ".".join(parts)


def faults_of(found: Import, package: Path) -> list[str]:
    """What one import breaks."""
    where = f"{found.file}:{found.line} imports {found.module}"
    importer = module_name(found.file)
    own = importer.partition(".")[0]
    top, _, inner = found.module.partition(".")
    faults = []
    if top == "starlette" and own not in STARLETTE and Path(found.file).name not in STARLETTE_FILES:
        faults.append(f"{where}: Starlette only in app, http, console, */routes.py and */endpoint.py")
    if top == "granian" and own not in ("cli", "demo"):
        faults.append(f"{where}: the server only in cli and demo")
    if (
        top in ("sqlalchemy", "alembic", "aiosqlite", "psycopg")
        and own != "storage"
        and not found.file.endswith("store.py")
    ):
        faults.append(f"{where}: SQL only in storage and */store.py")
    if top == "redis" and own != "storage":
        faults.append(f"{where}: Redis only in storage")
    if top != package.name:
        return faults
    if not inner or inner == "__version__":
        return faults
    target = known(inner, package)
    other = target.partition(".")[0]
    if other == "_core" and importer not in CORE:
        faults.append(f"{where}: only engine and tokens.core import _core")
    if own == other or (own, other) in ALLOWED or own == "__init__":
        return faults
    if own in IMPORTABLE and other not in IMPORTABLE[own]:
        faults.append(f"{where}: {own} brings nothing of the gateway along")
    elif own in ALONE or other in ALONE:
        faults.append(f"{where}: {own if own in ALONE else other} stands alone")
    elif layer_of(importer) >= layer_of(target):
        faults.append(f"{where}: imports go down only")
    return faults


def all_faults(package: Path) -> list[str]:
    return [
        fault
        for path in python_files(package)
        for found in imports_of(path, package)
        for fault in faults_of(found, package)
    ]


def test_imports_go_down_only() -> None:
    assert all_faults(PACKAGE) == []


def test_every_module_has_a_layer() -> None:
    for path in python_files(PACKAGE):
        module = module_name(path.relative_to(PACKAGE).as_posix())
        if module not in ("__init__", "") and module.partition(".")[0] not in ALONE:
            layer_of(module)


BAD = [
    ("keys/x.py", "from sluicegate.usage.settle import Ledger", "imports go down only"),
    ("keys/x.py", "import sluicegate.chat.pipeline", "imports go down only"),
    ("keys/x.py", "def f():\n    from sluicegate.app import create_app", "imports go down only"),
    ("keys/x.py", "if TYPE_CHECKING:\n    from ..upstreams import model", "imports go down only"),
    ("http/x.py", "from sluicegate.keys.model import Principal", "imports go down only"),
    ("http/x.py", "from sluicegate.telemetry.logs import Log", "imports go down only"),
    ("errors.py", "from sluicegate.engine import Failure", "imports go down only"),
    ("engine.py", "from sluicegate.http.body import BodyReader", "imports go down only"),
    ("keys/x.py", "from sluicegate.keys.routes import r", ""),
    ("chat/x.py", "from sluicegate.completions.prepare import prepare", "imports go down only"),
    ("usage/x.py", "from sluicegate.models.routes import routes", "imports go down only"),
    ("app.py", "from sluicegate._core import Bridge", "only engine and tokens.core import _core"),
    ("app.py", "from sluicegate import _core", "only engine and tokens.core import _core"),
    ("tokens/x.py", "from sluicegate._core import Tokenizer", "only engine and tokens.core import _core"),
    ("tokens/core.py", "from sluicegate._core import Tokenizer", ""),
    ("tokens/x.py", "from sluicegate.upstreams.model import Upstream", "imports go down only"),
    ("chat/x.py", "import starlette.routing", "Starlette only"),
    ("cli/x.py", "from starlette.requests import Request", "Starlette only"),
    ("app.py", "import granian", "the server only in cli and demo"),
    ("keys/x.py", "import sqlalchemy", "SQL only"),
    ("usage/x.py", "from redis.asyncio import Redis", "Redis only"),
    ("app.py", "from sluicegate.demo import upstream", "stands alone"),
    ("demo/x.py", "from sluicegate.errors import GatewayError", "stands alone"),
    ("client/x.py", "from sluicegate.settings import Settings", "brings nothing of the gateway along"),
    ("client/x.py", "from sluicegate.http.head import Head", "brings nothing of the gateway along"),
    ("client/x.py", "from sluicegate.engine import Chunk", ""),
    ("sse.py", "from sluicegate.client import Client", "brings nothing of the gateway along"),
    ("chat/x.py", "from sluicegate.client import Client", ""),
    ("engine.py", "from sluicegate.sse import Event", "imports go down only"),
    ("keys/routes.py", "from sluicegate.management.operation import Operation", ""),
    ("keys/store.py", "from sluicegate.management.operation import Operation", "imports go down only"),
    ("keys/routes.py", "from sluicegate.management.app import OPERATIONS", "imports go down only"),
    ("management/app.py", "from sluicegate.keys.routes import OPERATIONS", ""),
]


@pytest.mark.parametrize(("file", "text", "fault"), BAD)
def test_the_check_can_fail(tmp_path: Path, file: str, text: str, fault: str) -> None:
    package = tmp_path / "sluicegate"
    for folder in (
        "client",
        "keys",
        "usage",
        "chat",
        "http",
        "cli",
        "upstreams",
        "completions",
        "models",
        "telemetry",
        "demo",
        "tokens",
        "management",
    ):
        (package / folder).mkdir(parents=True)
    (package / "management" / "app.py").touch()
    (package / file).write_text(text)
    faults = all_faults(package)
    assert len(faults) == bool(fault), faults
    assert not fault or fault in faults[0]
    assert not fault or faults[0].startswith(f"{file}:{len(text.splitlines())} ")


def test_a_new_folder_must_be_placed(tmp_path: Path) -> None:
    package = tmp_path / "sluicegate"
    package.joinpath("novel").mkdir(parents=True)
    (package / "novel" / "x.py").write_text("from sluicegate.errors import GatewayError")
    with pytest.raises(AssertionError, match="in no layer"):
        all_faults(package)


# Slow to import, or a server: who only wants a client or a decoder must not pay for it.
HEAVY = ("starlette", "granian", "typer", "click", "rich", "pydantic", "httpx", "docstring_parser", "uvloop")


@pytest.mark.parametrize("module", [f"sluicegate.{name}" for name in IMPORTABLE])
def test_importable_parts_are_light(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert set(done.stdout.split()).isdisjoint(HEAVY)
