"""The import of a LiteLLM config.yaml: what is carried over, what is told, and that no file breaks it."""

from __future__ import annotations

import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from sluicegate.cli import app
from sluicegate.config.file import ConfigFile, WorkspaceEntry
from sluicegate.config.litellm import convert
from sluicegate.config.litellm_deployment import PROVIDERS
from sluicegate.config.reader import ConfigError, read_file
from sluicegate.config.yaml_text import MOST_BYTES, read_yaml
from sluicegate.upstreams.profile import PROFILES

FIXTURE = Path(__file__).parents[1] / "fixtures" / "litellm.yaml"


def imported(text: str, **environ: str) -> tuple[WorkspaceEntry, list[str]]:
    """The workspace of the file that was made, and the warnings without the name of the file."""
    made = convert(read_yaml(text.encode(), "c.yaml"), "default", environ)
    file: ConfigFile = read_file(None, made.text.encode(), "gateway.toml")[0]
    (workspace,) = file.workspace
    return workspace, [line.removeprefix("c.yaml") for line in made.warnings]


def model(name: str, model: str, **params: Any) -> dict[str, Any]:
    return {"model_name": name, "litellm_params": {"model": model, **params}}


def config(*models: dict[str, Any], **sections: Any) -> str:
    return yaml.safe_dump({"model_list": list(models), **sections})


def test_a_real_file() -> None:
    workspace, warnings = imported(FIXTURE.read_text())
    found = {upstream.name: upstream for upstream in workspace.upstream}
    assert list(found) == [
        *("openai", "custom-0.0.0.0-4000", "ollama-gpu-11434", "hosted_vllm-gpu-1-8000"),
        *("hosted_vllm-gpu-2-8000", "openrouter"),
    ]
    openai = found["openai"]
    assert openai.api_key == "env:OPENAI_API_KEY"
    assert openai.models == ("gpt-4o", "gpt-4o-mini")
    assert openai.aliases == {"gpt-4": "gpt-4o"}
    assert openai.context_lengths == {"gpt-4o": 128_000}
    assert (openai.timeouts.total, openai.timeouts.first_event) == (300, 60)
    assert found["custom-0.0.0.0-4000"].kind == "custom"
    assert found["custom-0.0.0.0-4000"].api_key is None
    assert found["ollama-gpu-11434"].base_url == "http://gpu:11434/v1"
    assert found["hosted_vllm-gpu-1-8000"].weight == 2
    assert found["openrouter"].models is None
    assistants = {assistant.name: assistant for assistant in workspace.assistant}
    assert assistants["mistral-7b"].model == ("ollama-gpu-11434/mistral", "openai/gpt-4o-mini")
    assert assistants["mistral-7b"].temperature == 0.2
    assert assistants["qwen"].model[2] == "openai/gpt-4o"
    assert workspace.allowed_models is not None
    assert {"gpt-4o", "gpt-4", "x", "openrouter/*"} <= set(workspace.allowed_models)
    assert [(key.name, key.secret) for key in workspace.key] == [("master", "env:LITELLM_MASTER_KEY")]
    assert not [line for line in warnings if "sk-vllm-secret" in line or "sk-1234" in line]
    for said in (
        ":2: model_list[0]: `gpt-4o` is left out: its provider does not speak the OpenAI API",
        ":12: model_list[1].litellm_params.rpm: not carried over: set `limits` of the upstream",
        ":38: model_list[6].litellm_params.api_key: the secret itself is not copied",
        ":44: litellm_settings.drop_params: not carried over",
        ":45: litellm_settings.fallbacks: there is no model_name `nobody`",
        ":48: router_settings.routing_strategy: not carried over",
        ":51: general_settings.master_key: a key has at least 16 characters",
    ):
        assert [line for line in warnings if line.startswith(said)], (said, warnings)


def test_every_provider_has_a_kind_that_is_known() -> None:
    assert {provider.kind for provider in PROVIDERS.values()} <= set(PROFILES)
    for name, provider in PROVIDERS.items():
        given = {} if provider.base_url else {"api_base": "http://h:1/v1"}
        workspace, warnings = imported(config(model("m", f"{name}/some/model", **given)))
        assert warnings == []
        (upstream,) = workspace.upstream
        assert upstream.aliases == {"m": "some/model"}
        if provider.key and provider.base_url:
            assert upstream.api_key == f"env:{provider.key}"
        else:
            # No key of a provider goes to another server.
            assert upstream.api_key is None


def test_deployments_of_one_name_share_by_weight() -> None:
    workspace, warnings = imported(
        config(
            model("m", "openai/a", api_base="http://h1/v1", weight=3),
            model("m", "openai/b", api_base="http://h2/v1", weight=1, order=2),
        )
    )
    assert warnings == []
    assert workspace.assistant == ()
    first, second = workspace.upstream
    assert (first.aliases, first.weight) == ({"m": "a"}, 3)
    assert (second.aliases, second.weight, second.priority) == ({"m": "b"}, 1, 2)


def test_two_models_of_one_server_behind_a_name_are_an_assistant() -> None:
    workspace, warnings = imported(config(model("m", "gpt-4o"), model("m", "gpt-4o-mini", temperature=1)))
    (upstream,) = workspace.upstream
    assert workspace.assistant[0].model == ("openai/gpt-4o", "openai/gpt-4o-mini")
    assert not workspace.plain_models
    assert ["asked in order" in warnings[0], "the parameters of its first" in warnings[1]] == [True, True]
    assert upstream.base_url == "https://api.openai.com/v1"


def test_what_stands_elsewhere_is_found() -> None:
    headers = {"X-Title": "T", "X-Api-Key": "header-secret"}
    text = config(
        model("a", "openai/a", litellm_credential_name="c", api_base="os.environ/BASE"),
        model("b", "openai/b", api_base="os.environ/GONE"),
        model(
            "d",
            "openai/d",
            organization="org-1",
            extra_headers=headers,
        ),
        credential_list=[{"credential_name": "c", "credential_values": {"api_key": "os.environ/CKEY"}}],
        environment_variables={"BASE": "http://base/v1"},
        router_settings={"timeout": 30, "default_fallbacks": ["d"]},
        include=["other.yaml"],
    )
    workspace, warnings = imported(text)
    first, second = workspace.upstream
    assert (first.base_url, first.api_key, first.timeouts.total) == ("http://base/v1", "env:CKEY", 30)
    assert second.headers == {
        "X-Title": "text:T",
        "X-Api-Key": "env:X_API_KEY",
        "OpenAI-Organization": "text:org-1",
    }
    assert workspace.assistant[0].model == ("custom-base/a", "openai/d")
    assert [line for line in warnings if "set GONE and import again" in line]
    assert [line for line in warnings if "include the files into one first" in line]
    assert "header-secret" not in str(warnings)
    assert [upstream.base_url for upstream in imported(text, GONE="http://gone/v1")[0].upstream][
        1
    ] == "http://gone/v1"


def bomb(form: str) -> str:
    """Forty lines that stand for 2^40 values."""
    names = ["a", *(f"k{number}" for number in range(40))]
    return "".join(
        f"{name}: &{name} {form.format(f'*{before}', f'*{before}')}\n" for before, name in pairwise(names)
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "c.yaml:1: not valid YAML"),
        ("- a", "c.yaml: expected a mapping at the top"),
        ("a: !x y", "c.yaml:1: not valid YAML"),
        ("\x00", "c.yaml: not valid YAML"),
        ("a: " + "[" * 5000, "c.yaml"),
        ("a: &a [x]\n" + bomb("[{}, {}]"), "c.yaml: nested too deep, or too many values"),
        ("a: &a {x: 1}\n" + bomb("{{<<: [{}, {}]}}"), "c.yaml: nested too deep, or too many values"),
        ("a: &a [*a]", "c.yaml"),
        ("# " + "x" * MOST_BYTES, "c.yaml: larger than 1 MiB"),
    ],
)
def test_what_is_no_config_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_yaml(text.encode(), "c.yaml")
    (line,) = caught.value.lines
    assert line.startswith(said)


def test_no_tag_makes_an_object() -> None:
    assert read_yaml(b"a: !!python/object/apply:os.system ['id']", "c.yaml").values == {"a": ["id"]}


def test_an_empty_file_and_odd_sections() -> None:
    for text in ("", "model_list: []", "model_list: x", "model_list: [1, {}, {model_name: a}]"):
        workspace, warnings = imported(text)
        assert (workspace.upstream, workspace.plain_models) == ((), False)
        assert warnings
    workspace, _ = imported(
        "x: &x {model: openai/a}\nmodel_list:\n- {model_name: a, litellm_params: {<<: *x}}"
    )
    assert workspace.upstream[0].models == ("a",)


WORDS = st.sampled_from(
    [
        "a",
        "b",
        "openai/a",
        "ollama/x y",
        "*",
        "openai/*",
        "os.environ/A",
        "sk-secret",
        "",
        "http://h/v1",
        "\x7f",
    ]
)
SCALARS = (
    st.none() | st.booleans() | st.integers(-5, 1 << 70) | st.floats() | st.dates() | st.binary(max_size=3)
)
VALUES = st.recursive(
    SCALARS | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=5,
)
FIELDS = st.sampled_from(
    [
        *(
            "model",
            "api_base",
            "api_key",
            "rpm",
            "timeout",
            "stream_timeout",
            "weight",
            "order",
            "extra_headers",
        ),
        *("stop", "temperature", "max_tokens", "tools", "organization", "litellm_credential_name"),
        "custom_llm_provider",
    ]
)
DEPLOYMENTS = st.fixed_dictionaries(
    {"model_name": WORDS | VALUES, "litellm_params": st.dictionaries(FIELDS, WORDS | VALUES) | VALUES},
    optional={
        "model_info": VALUES | st.dictionaries(st.sampled_from(["mode", "max_input_tokens", "x"]), VALUES)
    },
)
KINDS = ["fallbacks", "context_window_fallbacks", "default_fallbacks", "model_group_alias", "timeout"]
SETTINGS = VALUES | st.dictionaries(
    st.sampled_from(KINDS), VALUES | st.lists(st.dictionaries(WORDS, st.lists(WORDS)))
)
FILES = st.fixed_dictionaries(
    {"model_list": st.lists(DEPLOYMENTS, max_size=4) | VALUES},
    optional={
        "litellm_settings": SETTINGS,
        "router_settings": SETTINGS,
        "general_settings": st.dictionaries(st.just("master_key"), VALUES) | VALUES,
        "credential_list": VALUES,
        "environment_variables": VALUES,
    },
)


@given(FILES)
def test_whatever_stands_in_it_the_result_is_a_good_file(values: dict[str, Any]) -> None:
    text = yaml.safe_dump(values)
    workspace, _ = imported(text)
    assert "sk-secret" not in str([(upstream.api_key, upstream.headers) for upstream in workspace.upstream])


def test_the_command(tmp_path: Path) -> None:
    run = CliRunner().invoke
    output = tmp_path / "gateway.toml"
    result = run(app, ["import", "litellm", str(FIXTURE), "-o", str(output), "-w", "acme"])
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "warning: " in result.stderr
    assert tomllib.loads(output.read_text())["workspace"][0]["id"] == "acme"
    again = run(app, ["import", "litellm", str(FIXTURE), "-o", str(output)])
    assert (again.exit_code, "--force" in again.stderr) == (2, True)
    assert run(app, ["import", "litellm", str(tmp_path / "none.yaml")]).exit_code == 2
    wrong = run(app, ["import", "litellm", "-", "-w", "Acme"], input="model_list: []")
    assert (wrong.exit_code, "lower-case" in wrong.stderr) == (2, True)
