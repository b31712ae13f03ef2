"""`tokenizers` of an upstream: read, checked and loaded before the gateway starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from sluicegate.cli import app
from sluicegate.settings import Settings, SettingsError, UpstreamConfig, load
from sluicegate.tokens import get_encoding
from sluicegate.upstreams.tokenizers import check_tokenizers, open_tokenizer, tokenizer_name

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


def check(settings: Settings) -> None:
    check_tokenizers(settings, settings.upstreams[0])


def test_settings_win_over_the_name_of_the_model(tmp_path: Path) -> None:
    named = settings(tmp_path, '{ qwen = "cl100k_base", "gpt-4o" = "r50k_base" }')
    check(named)
    far = named.upstreams[0]
    assert tokenizer_name(far, "qwen") == "cl100k_base"
    assert tokenizer_name(far, "gpt-4o") == "r50k_base"
    assert open_tokenizer("r50k_base") is get_encoding("r50k_base")
    # Anybody may call a server's model so.
    assert tokenizer_name(far, "gpt-4") is None
    assert tokenizer_name(far, "llama") is None


@pytest.mark.parametrize(
    ("base_url", "kind", "model", "name"),
    [
        ("https://api.openai.com/v1", None, "gpt-4o", "o200k_base"),
        ("https://api.openai.com/v1", None, "gpt-3.5-turbo-0125", "cl100k_base"),
        ("https://api.openai.com/v1", None, "ft:gpt-4o-mini:acme::id", "o200k_base"),
        ("https://api.openai.com/v1", None, "whatever", None),
        ("https://proxy.example/v1", "openai", "gpt-4o", "o200k_base"),
        ("https://proxy.example/v1", "custom", "gpt-4o", None),
        ("http://10.0.0.1/v1", "vllm", "gpt-4o", None),
        ("https://acme.openai.azure.com/openai/v1", None, "gpt-4o", "o200k_base"),
        ("https://openai.azure.com.example/v1", None, "gpt-4o", None),
        ("https://openrouter.ai/api/v1", None, "openai/gpt-4o", "o200k_base"),
        ("https://openrouter.ai/api/v1", None, "gpt-4o", None),
        ("https://openrouter.ai/api/v1", None, "meta/gpt-4o", None),
    ],
)
def test_a_model_name_counts_where_openais_models_are(
    base_url: str, kind: str | None, model: str, name: str | None
) -> None:
    assert tokenizer_name(UpstreamConfig(name="u", base_url=base_url, kind=kind), model) == name


def test_wrong_names_and_files_are_named_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(
        SettingsError,
        match=r"s\.toml:10: upstreams\[0\]\.tokenizers\.qwen: there is no file .*/absent\.json$",
    ):
        settings(tmp_path, '{ qwen = "absent.json" }')
    with pytest.raises(SettingsError, match=r"s\.toml:10: .*\.qwen: .*bad\.json is not a tokenizer\.json"):
        check(settings(tmp_path, '{ qwen = "./bad.json" }'))
    with pytest.raises(SettingsError, match=r"s\.toml:10: .*\.qwen: .*o200k_base"):
        check(settings(tmp_path, '{ qwen = "o200k" }'))
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
