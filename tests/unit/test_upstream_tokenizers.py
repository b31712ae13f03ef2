"""`tokenizers` of an upstream: read, checked and loaded before the gateway starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from sluicegate.cli import app
from sluicegate.settings import Settings, SettingsError, load
from sluicegate.tokens import get_encoding
from sluicegate.upstreams.tokenizers import Tokenizers

FILE = """
[[keys]]
name = "alice"
key = "sk-alice-0123456789abcdef"

[[upstreams]]
name = "far"
base_url = "https://far.example/v1"
models = ["qwen", "gpt-4o"]
"""


def settings(tmp_path: Path, tokenizers: str) -> Settings:
    file = tmp_path / "s.toml"
    file.write_text(f"{FILE}tokenizers = {tokenizers}\n")
    return load(str(file), {})


def made(settings: Settings) -> Tokenizers:
    return Tokenizers(settings, settings.upstreams[0])


def test_settings_win_over_the_name_of_the_model(tmp_path: Path) -> None:
    found = made(settings(tmp_path, '{ qwen = "cl100k_base", "gpt-4o" = "r50k_base" }'))
    assert found.of("qwen") is get_encoding("cl100k_base")
    assert found.of("gpt-4o") is get_encoding("r50k_base")
    assert found.of("openai/gpt-4o") is get_encoding("o200k_base")
    assert found.of("llama") is None
    assert made(settings(tmp_path, "{}")).of("qwen") is None


def test_wrong_names_and_files_are_named_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(
        SettingsError,
        match=r"s\.toml:10: upstreams\[0\]\.tokenizers\.qwen: there is no file .*/absent\.json$",
    ):
        settings(tmp_path, '{ qwen = "absent.json" }')
    with pytest.raises(SettingsError, match=r"s\.toml:10: .*\.qwen: .*bad\.json is not a tokenizer\.json"):
        made(settings(tmp_path, '{ qwen = "./bad.json" }'))
    with pytest.raises(SettingsError, match=r"s\.toml:10: .*\.qwen: .*o200k_base"):
        made(settings(tmp_path, '{ qwen = "o200k" }'))
    with pytest.raises(SettingsError, match=r"tokenizers"):
        settings(tmp_path, "5")


@pytest.mark.parametrize("command", ["check", "serve"])
def test_commands_refuse_before_anything_starts(command: str, tmp_path: Path) -> None:
    settings(tmp_path, '{ qwen = "o200k" }')
    result = CliRunner().invoke(app, [command, "--config", str(tmp_path / "s.toml")], env={})
    assert result.exit_code == 2
    assert "upstreams[0].tokenizers.qwen" in result.stderr


def test_check_shows_them(tmp_path: Path) -> None:
    settings(tmp_path, '{ qwen = "cl100k_base" }')
    result = CliRunner().invoke(app, ["check", "--config", str(tmp_path / "s.toml")], env={})
    assert result.exit_code == 0, result.output
    assert "  tokenizers   qwen = cl100k_base\n" in result.stdout
