"""Assistants and workspace limits of a settings file: what arrives, and where mistakes are."""

from __future__ import annotations

from pathlib import Path

import pytest

from sluicegate import app
from sluicegate.assistants import configured as assistants
from sluicegate.cli.check import report
from sluicegate.settings import Settings, SettingsError, load
from sluicegate.workspaces import configured as workspaces

UPSTREAM = '[[upstreams]]\nname = "a"\nbase_url = "http://127.0.0.1/v1"\n'
ASSISTANT = '[[assistants]]\nname = "x"\nmodel = ["a/m"]\n'
FULL = """
[workspace]
context_window = 4096
max_tokens = 100
allowed_models = ["a/*"]

[[assistants]]
name = "Coder / π"
model = ["a/org/m", "a/n"]
system_prompt = "p"
chat_history = "default_on"
stop = ["x"]
response_format = { type = "json_object" }
locked = ["stop", "model"]
"""


def loaded(folder: Path, text: str) -> Settings:
    file = folder / "s.toml"
    file.write_text(text)
    return load(str(file), {})


def test_everything_set_arrives(tmp_path: Path) -> None:
    settings = loaded(tmp_path, UPSTREAM + FULL)
    workspace = workspaces.read(settings)
    assert workspace.window is not None
    assert (workspace.window.tokens, workspace.max_tokens) == (4096, 100)
    (found,) = assistants.read(settings, "default", 7)
    assert (found.name, found.workspace, found.version, found.created_at) == (
        "Coder / π",
        "default",
        1,
        7000,
    )
    assert found.spec.model == ("a/org/m", "a/n")
    assert found.spec.defaults == {"stop": ("x",), "response_format": {"type": "json_object"}}
    assert found.spec.locked == {"stop", "model"}
    lines = "\n".join(report(settings))
    assert "Coder / π: a/org/m, a/n" in lines
    assert "locked" in lines
    assert "context window 4096" in lines


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ASSISTANT + "temprature = 1\n", "s.toml:7: assistants[0].temprature: unknown key. Did you mean"),
        (ASSISTANT + "temperature = 3\n", "s.toml:7: assistants[0].temperature: expected a number <= 2"),
        (
            ASSISTANT + "locked = ['colour']\n",
            "s.toml:7: assistants[0].locked[0]: invalid enum",
        ),
        (ASSISTANT * 2, "s.toml:8: assistants[1].name: the name `x` is used twice"),
        (ASSISTANT.replace("a/m", "b/m"), "s.toml:6: assistants[0].model: `b/m`: there is no upstream `b`"),
        (ASSISTANT.replace("a/m", "m"), "s.toml:6: assistants[0].model: `m`: expected an upstream's name, a"),
        (
            ASSISTANT.replace('["a/m"]', "[]"),
            "s.toml:6: assistants[0].model: expected a list of",
        ),
        (ASSISTANT.replace('"x"', '"x\\u0007"'), "s.toml:5: assistants[0].name: expected a name without"),
        ("[[assistants]]\nname = 'x'\n", "s.toml:4: assistants[0]: the key `model` is missing"),
        (
            "[workspace]\nmax_token = 1\n",
            "s.toml:5: workspace.max_token: unknown key. Did you mean",
        ),
        (
            "[workspace]\ncontext_window = '0%'\n",
            "s.toml:5: workspace.context_window: expected a share",
        ),
        ("[workspace]\ncontext_window = 0\n", "s.toml:5: workspace.context_window: expected a share"),
        (
            "[workspace]\ndefault_upstream = 'b'\n",
            "s.toml:5: workspace.default_upstream: there is no",
        ),
        ("kind = 'vlm'\n", "s.toml:1: upstreams[0]: kind `vlm` is none of openai, vllm"),
    ],
)
def test_mistakes_name_file_line_and_key(tmp_path: Path, text: str, message: str) -> None:
    settings = loaded(tmp_path, UPSTREAM + text)
    with pytest.raises(SettingsError) as caught:
        app.verify(settings)
    assert message in str(caught.value).replace(f"{tmp_path}/", "")
