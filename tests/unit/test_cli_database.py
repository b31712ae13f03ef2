"""Which commands make a database where there is none: with one, `serve` is another gateway."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from processes import clear_environment
from sluicegate.cli import app


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable and no database of this machine."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    clear_environment(monkeypatch)


def cli(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize(
    "command",
    [
        "usage",
        "logs",
        "keys list",
        "workspaces show acme",
        "audit list",
        "export",
        # Changes of what can only be there if there is a database.
        "keys create app",
        "upstreams create local base_url=http://127.0.0.1:8000/v1",
        "workspaces set acme max_tokens=1",
        "members add ada",
    ],
)
def test_a_database_is_made_by_who_begins_one_alone(command: str, tmp_path: Path) -> None:
    refused = cli(*command.split())
    assert (refused.exit_code, refused.stdout) == (2, "")
    (why,) = refused.stderr.splitlines()
    assert f"there is no database in {tmp_path / 'share' / 'sluicegate'}. Set SLUICEGATE_DATA_DIR" in why
    assert not (tmp_path / "share").exists()


def test_a_look_at_what_would_change_pretends_a_database(tmp_path: Path) -> None:
    (tmp_path / "acme.toml").write_text('[[workspace]]\nid = "acme"\n')
    looked = cli("apply", "-f", str(tmp_path / "acme.toml"), "--dry-run")
    assert (looked.exit_code, "+ workspace acme" in looked.stdout) == (0, True), looked.output
    assert not (tmp_path / "share").exists()
    made = cli("workspaces", "create", "acme")
    assert made.exit_code == 0, made.output
    assert (tmp_path / "share" / "sluicegate" / "sluicegate.db").exists()
    assert "acme" in cli("workspaces", "list").stdout


def test_the_operator_may_begin_with_a_key_of_its_own(tmp_path: Path) -> None:
    made = cli("keys", "create", "root", "--platform")
    assert made.exit_code == 0, made.output
    assert (tmp_path / "share" / "sluicegate" / "sluicegate.db").exists()
