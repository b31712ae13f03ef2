"""The command line: what it refuses, in one clear line, and what it would run."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from fakes.engine import FakeUpstream
from processes import clear_environment
from sluicegate import __version__
from sluicegate import app as application
from sluicegate.cli import app, serve
from sluicegate.keys.model import is_mistyped
from sluicegate.settings import Settings
from sluicegate.storage.errors import UnavailableError
from sluicegate.storage.location import in_use

FILE = """
[[keys]]
name = "alice"
key = "sk-alice-0123456789abcdef"

[[upstreams]]
name = "far"
base_url = "http://far.example/v1"
api_key = "up-secret-0123456789abcdef"
models = ["a"]
aliases = { public = "a" }
headers = { "x-team" = "header-secret" }
"""


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable and no database of this machine, and no core."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    clear_environment(monkeypatch)
    monkeypatch.setattr(application.core, "Upstream", FakeUpstream)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Settings, str]]:
    """What `serve` would have run."""
    calls: list[tuple[Settings, str]] = []
    monkeypatch.setattr(
        serve_module(), "run", lambda settings, address, _location: calls.append((settings, address))
    )
    return calls


def serve_module() -> Any:
    return sys.modules["sluicegate.cli.serve"]


def cli(*arguments: str, **env: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env=env)


def refused(result: Result) -> str:
    """The one line of a refusal."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line.removeprefix("sluicegate: ")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


UPSTREAM = {"OPENAI_COMPATIBLE_BASE_URL": "http://127.0.0.1:9/v1"}
KEY = {"SLUICEGATE_API_KEYS": "sk-env-0123456789abcdef"}


@pytest.mark.parametrize("command", ["serve", "check"])
def test_without_an_upstream_it_says_how_to_set_one(command: str) -> None:
    assert "OPENAI_COMPATIBLE_BASE_URL" in refused(cli(command))


@pytest.mark.parametrize("command", ["serve", "check"])
def test_bad_settings_are_one_line_with_file_line_and_key(command: str, tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text(FILE + "wieght = 2\n")
    line = refused(cli(command, "--config", str(file)))
    assert line == f"{file}:13: upstreams[0].wieght: unknown key. Did you mean `weight`?"
    file.write_text(FILE.replace("far.example", "bad"))
    assert refused(cli(command, "--config", str(file))).startswith(f"{file}:6: upstreams[0]: the port of")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_without_a_key_only_loopback_is_served(host: str, ran: list[Any]) -> None:
    line = refused(cli("serve", "--host", host, **UPSTREAM))
    assert "no key is set" in line
    assert "SLUICEGATE_API_KEYS" in line
    assert ran == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2"])
def test_on_loopback_a_key_is_made_and_shown_once(host: str, ran: list[tuple[Settings, str]]) -> None:
    result = cli("serve", "--host", host, "--port", str(free_port()), **UPSTREAM)
    assert result.exit_code == 0, result.output
    ((settings, address),) = ran
    assert address.startswith("127.0.0.") or address == "::1"
    (key,) = settings.keys
    assert result.output.count(key.key.reveal()) == 1
    assert key.key.reveal().startswith("sk-sg-")
    assert not is_mistyped(key.key.reveal())


def test_a_set_key_is_used_and_not_shown(ran: list[tuple[Settings, str]]) -> None:
    result = cli("serve", "--port", str(free_port()), **UPSTREAM, **KEY)
    assert result.exit_code == 0
    assert KEY["SLUICEGATE_API_KEYS"] not in result.output
    ((settings, _),) = ran
    assert [k.name for k in settings.keys] == ["env-1"]


def test_the_command_line_has_the_last_word(tmp_path: Path, ran: list[tuple[Settings, str]]) -> None:
    file = tmp_path / "s.toml"
    file.write_text(f"[server]\nport = {free_port()}\nworkers = 3\naccess_log = true\n{FILE}")
    port = free_port()
    assert cli("serve", "--config", str(file), "--port", str(port), "--no-access-log").exit_code == 0
    ((settings, _),) = ran
    assert (settings.server.port, settings.server.workers, settings.server.access_log) == (port, 3, False)


@pytest.mark.parametrize("options", [(), (socket.SO_REUSEADDR, socket.SO_REUSEPORT)])
def test_a_port_in_use_is_refused_also_when_it_could_be_shared(
    options: tuple[int, ...], ran: list[Any]
) -> None:
    with socket.socket() as other:
        for option in options:
            other.setsockopt(socket.SOL_SOCKET, option, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        line = refused(cli("serve", "--port", str(port), **UPSTREAM, **KEY))
    assert line == f"cannot listen on 127.0.0.1:{port}: another program listens there"
    assert ran == []


def test_an_address_of_another_machine_or_of_none(ran: list[Any]) -> None:
    assert "does not have that address" in refused(cli("serve", "--host", "192.0.2.1", **UPSTREAM, **KEY))
    assert "cannot be resolved" in refused(cli("serve", "--host", "no.invalid", **UPSTREAM, **KEY))
    assert ran == []


@pytest.mark.parametrize(
    "arguments", [("--port", "0"), ("--port", "70000"), ("--workers", "0"), ("--prot", "1")]
)
def test_wrong_options_are_refused(arguments: tuple[str, str]) -> None:
    assert cli("serve", *arguments, **UPSTREAM).exit_code == 2


def test_check_shows_all_but_the_secrets(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text(FILE)
    result = cli("check", "--config", str(file))
    assert result.exit_code == 0, result.output
    for shown in (
        str(file),
        "127.0.0.1:8080",
        "alice: sk-…cdef",
        "far: http://far.example/v1",
        "public = a",
        "x-team",
    ):
        assert shown in result.stdout
    for secret in ("0123456789", "header-secret"):
        assert secret not in result.output
    assert "plain http to far.example" in result.stderr


def test_check_warns_of_what_is_probably_not_meant(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text('default_model = "b"\n' + FILE.replace("http:", "https:").replace("alice-0123456789", ""))
    result = cli("check", "--config", str(file))
    assert result.exit_code == 0
    assert "plain http" not in result.stderr
    assert "the default model b is not among the models" in result.stderr
    assert "key alice: shorter than" in result.stderr
    assert "no key is set" in cli("check", **UPSTREAM).stderr
    assert "plain http" not in cli("check", **UPSTREAM).stderr


def test_version_and_help() -> None:
    assert cli("--version").stdout == f"sluicegate {__version__}\n"
    result = cli("--help")
    assert {"serve", "check", "demo"} <= set(re.findall(r"\w+", result.stdout))


def test_help_imports_neither_server_nor_core() -> None:
    code = (
        "import sys; sys.argv = ['sluicegate', '--help']\n"
        "from sluicegate.__main__ import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'granian', 'starlette', 'sluicegate._core', 'rich', 'asyncio'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_exported_command_is_the_function() -> None:
    assert callable(serve)


def test_without_a_database_none_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys, sluicegate.app, sluicegate.cli.server\n"
        "from sluicegate.settings import load\n"
        "from sluicegate.storage.location import in_use\n"
        "settings = load()\n"
        "sluicegate.app.verify(settings)\n"
        "assert in_use() is None\n"
        "sluicegate.app.create_app(settings)\n"
        "heavy = {'sqlalchemy', 'aiosqlite', 'psycopg', 'alembic', 'cryptography'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLUICEGATE_")}
    environment = {**kept, **UPSTREAM, "XDG_DATA_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr


def test_a_database_needs_no_upstream_in_the_settings(
    tmp_path: Path, ran: list[tuple[Settings, str]]
) -> None:
    data, port = tmp_path / "data", str(free_port())
    result = cli("serve", "--data-dir", str(data), "--port", port)
    assert result.exit_code == 0, result.output
    assert "There is no key yet" in result.output
    assert (data / "sluicegate.db").exists()
    ((settings, _),) = ran
    assert settings.keys == ()
    # Without a key in the settings or in the database, nobody else is served.
    refusal = cli("serve", "--data-dir", str(data), "--host", "0.0.0.0", "--port", port)
    assert "no key is set" in refused(refusal)
    assert f"database       {data}" in cli("check", SLUICEGATE_DATA_DIR=str(data)).stdout


def test_where_a_database_is_used(tmp_path: Path) -> None:
    share = tmp_path / "share"
    environ = {"XDG_DATA_HOME": str(share)}
    assert in_use(None, environ) is None
    for asked in ({"SLUICEGATE_DATA_DIR": str(tmp_path)}, {"SLUICEGATE_DATABASE_URL": "postgresql://h/d"}):
        assert in_use(None, {**environ, **asked}) is not None
    given = in_use(str(tmp_path / "given"), {**environ, "SLUICEGATE_DATA_DIR": "elsewhere"})
    assert given is not None
    assert given.data_dir == tmp_path / "given"
    (share / "sluicegate").mkdir(parents=True)
    (share / "sluicegate" / "sluicegate.db").touch()
    found = in_use(None, environ)
    assert found is not None
    assert found.data_dir == share / "sluicegate"
    with pytest.raises(UnavailableError, match="expected postgresql://"):
        in_use(None, {**environ, "SLUICEGATE_DATABASE_URL": "mysql://h/d"})
