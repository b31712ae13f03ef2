"""The documentation is complete: every error code, setting, variable, option and endpoint has its line."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer

from sluicegate import settings
from sluicegate.assistants.configured import AssistantConfig
from sluicegate.cli import app
from sluicegate.config import file as config_file
from sluicegate.config.file import ConfigFile
from sluicegate.config.plain import plain_of
from sluicegate.workspaces.model import WorkspaceSettings

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
PYTHON = ROOT / "python" / "sluicegate"
RUST = ROOT / "rust"

TABLES = {
    "Top level": settings._File,
    "`[server]`": settings.ServerConfig,
    "`[[keys]]`": settings.KeyConfig,
    "`[[upstreams]]`": settings.UpstreamConfig,
    "`[workspace]`": WorkspaceSettings,
    "`[[assistants]]`": AssistantConfig,
}
CONFIG_TABLES = {
    "Top level": ConfigFile,
    **{f"`{heading}`": kind for heading, kind in config_file.TABLES.items()},
}
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])

# Functions whose first text is an error code, and those that have a status before it.
# In the scan a code stands in `refuse(…)`, in `code: …`, or before the text of its message.
_SCAN_CODE = r'(?:refuse\(\s*|code: |\(\s*)"([a-z]+_[a-z_0-9]+)",(?!\s*(?:"|None|Kind))'
_CODED = {
    "conflict": 0,
    "refused_key": 0,
    "unavailable": 0,
    "bad_request": 0,
    "_refusal": 1,
    "GatewayError": 1,
}


def section(page: str, heading: str) -> str:
    """What stands below a heading of a reference page."""
    text = (REFERENCE / page).read_text()
    found = re.search(rf"^##? {re.escape(heading)}\n(.*?)(?=^##? |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"{page} has no heading {heading!r}"
    return found[1]


def first_cells(table: str) -> set[str]:
    """The `names` in the first column."""
    cells = re.findall(r"^\|([^|]*)\|", table, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def python_codes() -> Iterator[str]:
    for path in PYTHON.rglob("*.py"):
        if "demo" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            at = _CODED.get(name)
            if at is not None and len(node.args) > at and isinstance(node.args[at], ast.Constant):
                yield str(node.args[at].value)


def rust_codes() -> Iterator[str]:
    errors = (RUST / "core" / "src" / "error.rs").read_text()
    causes = errors[errors.index("pub fn code(") : errors.index("pub fn status(")]
    yield from re.findall(r'=> "([a-z_0-9]+)"', causes)
    for path in (RUST / "core" / "src" / "chat").rglob("*.rs"):
        if "scan" in str(path):
            yield from re.findall(_SCAN_CODE, path.read_text())


def rust_routing_fields() -> list[str]:
    scan = (RUST / "core" / "src" / "chat" / "scan.rs").read_text()
    start = scan.index("pub const ROUTING")
    return re.findall(r'"([a-z_]+)"', scan[start : scan.index("];", start)])


def options_of(command: Any) -> set[str]:
    names = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    # Arguments have no dash.
    return {name for name in names if name.startswith("-")} - {"--help"}


def commands() -> dict[str, set[str]]:
    """The heading of each command and its options."""
    root: Any = typer.main.get_command(app)
    found = {"`sluicegate`": options_of(root)}
    for name, command in root.commands.items():
        found[f"`sluicegate {name}`"] = options_of(command)
        for inner, subcommand in getattr(command, "commands", {}).items():
            found[f"`sluicegate {name} {inner}`"] = options_of(subcommand)
    return found


def test_every_error_code_has_its_line() -> None:
    page = (REFERENCE / "errors.md").read_text()
    documented = set(re.findall(r"^\| [^|]+ \| `([a-z_0-9]+)` \|", page, re.MULTILINE))
    raised = {*python_codes(), *rust_codes()} - set(rust_routing_fields())
    assert len(raised) > 35
    assert raised == documented


@pytest.mark.parametrize("heading", TABLES)
def test_every_setting_has_its_line(heading: str) -> None:
    fields = {field.encode_name for field in msgspec.structs.fields(TABLES[heading])}
    assert first_cells(section("settings.md", heading)) == fields


@pytest.mark.parametrize("heading", CONFIG_TABLES)
def test_every_key_of_the_configuration_file_has_its_line(heading: str) -> None:
    fields = {field.encode_name for field in msgspec.structs.fields(CONFIG_TABLES[heading])}
    documented = first_cells(section("configuration-file.md", heading))
    if heading == "`[[upstream]]`":
        # The others stand above: the two tables are one struct.
        documented |= first_cells(section("configuration-file.md", "`[[workspace.upstream]]`"))
    assert documented == fields


@pytest.mark.parametrize("heading", [heading for heading in CONFIG_TABLES if heading != "Top level"])
def test_defaults_of_the_configuration_file_are_as_documented(heading: str) -> None:
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", section("configuration-file.md", heading), re.MULTILINE)
    fields = {field.encode_name: field for field in msgspec.structs.fields(CONFIG_TABLES[heading])}
    for name, shown in rows:
        found = fields[name]
        default = found.default if found.default_factory is msgspec.NODEFAULT else found.default_factory()
        assert tomllib.loads(f"key = {shown}")["key"] == as_written(default), name


def as_written(value: Any) -> Any:
    """A default as a file would have it."""
    if isinstance(value, msgspec.Struct):
        return plain_of(value, type(value))
    return list(value) if isinstance(value, tuple | frozenset) else value


@pytest.mark.parametrize("heading", [heading for heading in TABLES if heading != "Top level"])
def test_defaults_are_as_documented(heading: str) -> None:
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", section("settings.md", heading), re.MULTILINE)
    fields = {field.encode_name: field for field in msgspec.structs.fields(TABLES[heading])}
    for name, shown in rows:
        default = fields[name].default
        if default is msgspec.NODEFAULT:
            default = fields[name].default_factory()
        written = {"true": True, "false": False, "{}": {}, "[]": ()}.get(shown, shown.strip('"'))
        assert str(written) == str(default), f"{name}: {shown} is written, {default} is set"


def test_every_variable_has_its_line() -> None:
    pattern = r"\b(?:SLUICEGATE|OPENAI_COMPATIBLE)_[A-Z_]+[A-Z]\b"
    sources = [*PYTHON.rglob("*.py"), *RUST.rglob("src/**/*.rs")]
    used = {name for path in sources for name in re.findall(pattern, path.read_text())}
    assert first_cells(section("settings.md", "Environment")) == used


@pytest.mark.parametrize("heading", commands())
def test_every_option_has_its_line(heading: str) -> None:
    documented = first_cells(section("cli.md", heading))
    assert {name for name in documented if name.startswith("-")} == commands()[heading]


def test_every_endpoint_has_its_line() -> None:
    paths = set()
    for path in [*PYTHON.rglob("endpoint.py"), *PYTHON.rglob("routes.py"), PYTHON / "app.py"]:
        paths |= set(re.findall(r'"(/(?:v1/[a-z_/]+[a-z]|healthz|readyz|metrics))"', path.read_text()))
    assert "/v1/chat/completions" in paths
    text = (REFERENCE / "http-api.md").read_text()
    documented = re.findall(r"^\| `(?:GET|POST) ([^`{]+)`", text, re.MULTILINE)
    assert set(documented) == paths


def test_every_refused_field_has_its_line() -> None:
    body = section("http-api.md", "Body")
    assert all(f"`{field}`" in body for field in rust_routing_fields())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_make_targets_in_the_docs_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        named = re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(), re.MULTILINE)
        assert set(named) <= targets, f"{page.name}: {set(named) - targets}"
