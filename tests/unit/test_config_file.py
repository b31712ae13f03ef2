"""A configuration file: what it may say, and that every error names file, line and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from sluicegate.config.file import ConfigFile
from sluicegate.config.plain import plain_of
from sluicegate.config.reader import ConfigError, read_file
from sluicegate.config.secrets import SecretError, SecretSource

GOOD = """
[[upstream]]
name = "shared"
base_url = "https://openrouter.ai/api/v1"
offered_to = ["acme"]

[[workspace]]
id = "acme"
context_window = 4096

[[workspace.upstream]]
name = "local"
kind = "vllm"
base_url = "http://127.0.0.1:8000/v1"
api_key = "env:LOCAL_KEY"
headers = { x-team = "text:a b" }
timeouts = { connect = 1 }

[[workspace.assistant]]
name = "qwen3-coder-14B"
model = ["local/Qwen/Qwen3-Coder-14B"]
temperature = 0
tools = 'json:[{"type": "function", "default": null}]'

[[workspace.key]]
name = "app"
secret = "file:app.key"
expires = 2027-01-01T02:00:00+02:00

[[workspace]]
id = "other"
name = "Other people"
context_window = "40%"
"""


def read(text: str, path: Path | None = None) -> ConfigFile:
    return read_file(path, text.encode(), "gateway.toml")[0]


def errors(text: str, path: Path | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(text, path)
    return [line.removeprefix("gateway.toml") for line in caught.value.lines]


def test_a_good_file() -> None:
    file = read(GOOD)
    acme, other = file.workspace
    assert acme.draft().name == "acme"
    assert (acme.context_window, other.context_window) == ("4096", "40%")
    assert other.draft().name == "Other people"
    (upstream,) = acme.upstream
    assert upstream.draft().timeouts.connect == 1
    assert upstream.api_key == "env:LOCAL_KEY"
    (assistant,) = acme.assistant
    assert assistant.tools == ({"type": "function", "default": None},)
    (key,) = acme.key
    assert key.expires_at == 1_798_761_600_000
    assert plain_of(key, type(key))["expires"].isoformat() == "2027-01-01T00:00:00+00:00"


@pytest.mark.parametrize("value", ["2027-01-01", '"2027-01-01"', '"2027-01-01T00:00:00Z"', "1798761600000"])
def test_forms_of_an_expiry(value: str) -> None:
    file = read(GOOD.replace("2027-01-01T02:00:00+02:00", value))
    assert file.workspace[0].key[0].expires_at == 1_798_761_600_000


def test_every_error_is_told_with_its_line_and_key() -> None:
    bad = (
        GOOD.replace("offered_to", "offerd_to")
        .replace("= 4096", '= "140%"')
        .replace('kind = "vllm"', 'kind = "vlm"')
        .replace('"env:LOCAL_KEY"', '"sk-canary-0123456789"')
        .replace("connect = 1", "connnect = 1")
        .replace("temperature = 0", "temperature = 3")
        .replace('name = "app"\n', "")
    )
    assert errors(bad) == [
        ":5: upstream[0].offerd_to: unknown key. Did you mean `offered_to`?",
        ':9: workspace[0].context_window: expected a share such as "40%", or a number of tokens such as 4096',
        ":13: workspace[0].upstream[0].kind: `vlm` is none of: custom, deepseek, fireworks, groq, llamacpp, "
        "lmstudio, ollama, openai, openrouter, tgi, together, vllm. Did you mean `vllm`?",
        ":15: workspace[0].upstream[0].api_key: expected env:NAME or file:PATH; the secret itself must not "
        'stand here, where others can read it. "kept" is the one that is stored',
        ":17: workspace[0].upstream[0].timeouts: unknown key `connnect`. Known here: connect, first_event, "
        "idle, total.",
        ":22: workspace[0].assistant[0].temperature: expected a number <= 2.0",
        ":25: workspace[0].key[0]: the key `name` is missing",
    ]


ODD = [
    ("[workspace]\nid = 'a'", ":1: workspace: expected tables with the heading [[workspace]]"),
    ("[[workspace]]\nid = 'A'", ":2: workspace[0].id: expected 1 to 63 lower-case letters"),
    ("[[workspace]]\nid = 'a'\n[workspace.key]\nname = 'k'", ":3: workspace[0].key: expected tables"),
    ("[[workspace]]\nid = 'a'\n[[workspace]]\nid = 'a'", ":4: workspace[1].id: `a` is used twice"),
    (
        "[[upstreams]]\nname = 'a'",
        ":1: upstreams[0]: unknown key. Known here: [[workspace]], [[upstream]]. This looks",
    ),
    (
        "[[workspace]]\nid = 'a'\n[[workspace.key]]\nname = 'k'\nlimits = { requests = 1 }",
        ":5: workspace[0].key[0].limits: unknown key `requests`",
    ),
    ("[[workspace]]\nid = 'a'\nlimits = { requests_per_minut = 1 }", ":3: workspace[0].limits: unknown key"),
    ("[[workspace]\n", ":1: not valid TOML"),
    ("a = " + "[" * 100_000, ":1: n"),
    (
        "[[workspace]]\nid = 'a'\n[[workspace.key]]\nname = 'k'\nexpires = 2027-01-01T00:00:00",
        ":5: workspace[0].key[0].expires: which time is that?",
    ),
    (
        "[[workspace]]\nid = 'a'\n[[workspace.key]]\nname = 'k'\nexpires = 'soon'",
        ":5: workspace[0].key[0].expires: expected a date",
    ),
    (
        "[[workspace]]\nid = 'a'\n[[workspace.key]]\nname = 'k'\nscopes = ['chat']",
        ":5: workspace[0].key[0].scopes[0]: `chat` is none of: assistants:manage",
    ),
    (
        "[[workspace]]\nid = 'a'\n[[workspace.upstream]]\nname = 'u'\nbase_url = 'http://h:99999'",
        ":5: workspace[0].upstream[0].base_url: expected a URL with a host, and a port",
    ),
    (
        "[[workspace]]\nid = 'a'\n[[workspace.upstream]]\nname = 'u'\nbase_url = 'http://h'\n"
        "offered_to = 'all'",
        ":6: workspace[0].upstream[0].offered_to: only the operator's own",
    ),
    (
        "[[workspace]]\nid = 'a'\n[[workspace.assistant]]\nname = 'x'\nmodel = ['m']",
        ":5: workspace[0].assistant[0].model[0]: expected an upstream's name, a slash",
    ),
    (
        "[[workspace]]\nid = 'a'\n[[workspace.assistant]]\nname = 'x'\nmodel = ['u/m', 'u/m']",
        ":5: workspace[0].assistant[0].model: the same model stands twice",
    ),
    (
        "[[workspace]]\nid = 'a'\n[[workspace.assistant]]\nname = 'x'\nmodel = ['u/m']\ntools = 'json:['",
        ":6: workspace[0].assistant[0].tools: not valid JSON",
    ),
]


@pytest.mark.parametrize(("text", "said"), ODD, ids=range(len(ODD)))
def test_what_cannot_be_meant(text: str, said: str) -> None:
    (line,) = errors(text)
    assert line.startswith(said), line


def test_a_prompt_from_a_file(tmp_path: Path) -> None:
    text = "[[workspace]]\nid = 'a'\n[[workspace.assistant]]\nname = 'x'\nmodel = ['u/m']\n"
    text += "system_prompt_file = 'prompts/x.md'\n"
    path = tmp_path / "gateway.toml"
    (line,) = errors(text, path)
    assert line.endswith("x.md cannot be read: No such file or directory")
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "x.md").write_text("You write code.\n")
    assert read(text, path).workspace[0].assistant[0].draft().spec.system_prompt == "You write code.\n"
    (line,) = errors(text + "system_prompt = 'y'", path)
    assert "not both" in line
    (tmp_path / "prompts" / "x.md").write_bytes(b"\xff")
    (line,) = errors(text, path)
    assert "UTF-8" in line


def test_where_secrets_come_from(tmp_path: Path) -> None:
    (tmp_path / "app.key").write_text("  secret-text\n")
    source = SecretSource(tmp_path, {"NAME": "from-env\n", "EMPTY": " "})
    assert source.resolve("env:NAME").reveal() == "from-env"
    assert source.resolve("file:app.key").reveal() == "secret-text"
    assert source.resolve("text:a b").reveal() == "a b"
    for ref, said in (("env:NONE", "not set"), ("env:EMPTY", "empty"), ("file:none", "cannot be read")):
        with pytest.raises(SecretError, match=said):
            source.resolve(ref)
    (tmp_path / "app.key").write_text("two\nlines")
    with pytest.raises(SecretError, match="several lines") as caught:
        source.resolve("file:app.key")
    assert "two" not in str(caught.value)
