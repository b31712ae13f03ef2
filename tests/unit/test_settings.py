"""Settings: every mistake is named by file, line and key; secrets never print."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from sluicegate.settings import Secret, Settings, SettingsError, UpstreamConfig, load

FULL = """\
default_model = "big"
allow_private_networks = ["10.0.0.0/8"]

[server]
host = "0.0.0.0"
port = 9000
workers = 2
stream_keep_alive = 0

[[keys]]
name = "alice"
key = "sk-alice-0123456789"

[[upstreams]]
name = "one"
base_url = "https://one.example/v1"
api_key_env = "ONE_KEY"
models = ["big", "org/small"]
weight = 3
connect_timeout = 2
ca_file = "ca.pem"
allow_private_networks = ["192.168.0.0/16"]
headers = { "x-team" = "secret-team" }

[upstreams.aliases]
fast = "org/small"

[[upstreams]]
name = "two"
base_url = "http://127.0.0.1:11434/v1"
"""


def written(folder: Path, text: str | bytes) -> str:
    file = folder / "s.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(file)


def error_of(folder: Path, text: str | bytes, environ: dict[str, str] | None = None) -> str:
    """The message, without the folder."""
    with pytest.raises(SettingsError) as caught:
        load(written(folder, text), environ or {})
    return str(caught.value).replace(f"{folder}/", "")


def test_everything_set_arrives(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("x")
    settings = load(written(tmp_path, FULL), {"ONE_KEY": " up-secret "})
    assert (settings.server.host, settings.server.port, settings.server.workers) == ("0.0.0.0", 9000, 2)
    assert settings.server.stream_keep_alive == 0
    assert settings.default_model == "big"
    one, two = settings.upstreams
    assert one.api_key == Secret("up-secret")
    assert one.models == ("big", "org/small")
    assert one.aliases == {"fast": "org/small"}
    assert one.connect_timeout == 2.0
    assert one.ca_file == str(tmp_path / "ca.pem")
    assert one.allow_private_networks == ("10.0.0.0/8", "192.168.0.0/16")
    assert (two.models, two.weight, two.api_key) == (None, 1, None)
    assert two.allow_private_networks == ("10.0.0.0/8",)
    assert [(k.name, k.key.reveal()) for k in settings.keys] == [("alice", "sk-alice-0123456789")]


def test_nothing_set_is_the_defaults() -> None:
    assert load(None, {}) == Settings()


UPSTREAM = '[[upstreams]]\nname = "a"\nbase_url = "http://a/v1"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[server]\nprot = 1\n", "s.toml:2: server.prot: unknown key. Did you mean `port`?"),
        ("[serverr]\nport = 1\n", "s.toml:1: serverr: unknown key. Did you mean `server`?"),
        (UPSTREAM + "wieght = 2\n", "s.toml:4: upstreams[0].wieght: unknown key. Did you mean `weight`?"),
        ("[server]\nport = '80'\n", "s.toml:2: server.port: expected a whole number, got a text"),
        ("[server]\nport = 70000\n", "s.toml:2: server.port: expected a whole number <= 65535"),
        (UPSTREAM * 2, "s.toml:5: upstreams[1].name: the name `a` is used twice"),
        (
            UPSTREAM + UPSTREAM.replace('"a"', '""'),
            "s.toml:5: upstreams[1].name: expected 1 to 64 letters, digits",
        ),
        (UPSTREAM + '\n[[upstreams]]\nname = "b"\n', "s.toml:5: upstreams[1]: the key `base_url` is missing"),
        (
            UPSTREAM + "models = [\n  'x',\n  3,\n]\n",
            "s.toml:4: upstreams[0].models[1]: expected a text, got a whole number",
        ),
        (UPSTREAM + "api_key = 5\n", "s.toml:4: upstreams[0].api_key: expected a text, got a whole number"),
        (UPSTREAM + "api_key = ' '\n", "s.toml:4: upstreams[0].api_key: expected a text that is not empty"),
        (UPSTREAM + "idle_timeout = 0\n", "s.toml:4: upstreams[0].idle_timeout: expected a number > 0"),
        (UPSTREAM + "idle_timeout = nan\n", "s.toml:4: upstreams[0].idle_timeout: expected"),
        (UPSTREAM + "ca_file = 'no.pem'\n", "s.toml:4: upstreams[0].ca_file: there is no file no.pem"),
        (UPSTREAM + "api_key_env = 'NONE'\n", "upstreams[0].api_key_env: the variable NONE is not set"),
        (UPSTREAM + "api_key = 'k'\napi_key_env = 'X'\n", "s.toml:5: upstreams[0].api_key_env: set either"),
        (
            UPSTREAM.replace("http:", "ftp:"),
            "s.toml:3: upstreams[0].base_url: expected a URL that begins with",
        ),
        ('[[keys]]\nname = "k"\nkey = "a b"\n', "s.toml:3: keys[0].key: the key `k`: expected 1 to 512"),
        ('[[keys]]\nname="k"\nkey="abcd"\n' * 2, "s.toml:6: keys[1].key: the keys `k` and `k` have the same"),
        ("a = 1\na = 2\n", "s.toml:2: not valid TOML: Cannot overwrite a value"),
        ("a = \n", "s.toml:1: not valid TOML: Invalid value"),
        ("[server", "s.toml:1: not valid TOML: "),
        (b"a = 1\nb = '\xff'\n", "s.toml:2: not valid UTF-8"),
        ("keys = 5", "s.toml:1: keys: expected a list, got a whole number"),
    ],
)
def test_mistakes_name_file_line_and_key(tmp_path: Path, text: str | bytes, message: str) -> None:
    assert message in error_of(tmp_path, text)


def test_missing_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.toml: cannot be read: No such file or directory$"):
        load(str(tmp_path / "none.toml"), {})


def test_the_variable_names_the_file_too(tmp_path: Path) -> None:
    file = written(tmp_path, UPSTREAM)
    assert load(None, {"SLUICEGATE_CONFIG": file}).upstreams[0].name == "a"


def test_two_variables_make_an_upstream() -> None:
    environ = {"OPENAI_COMPATIBLE_BASE_URL": "http://h/v1", "OPENAI_COMPATIBLE_API_KEY": "up-key"}
    settings = load(None, environ)
    (upstream,) = settings.upstreams
    assert upstream == UpstreamConfig(name="default", base_url="http://h/v1", api_key=Secret("up-key"))
    assert settings.default_model is None
    assert load(None, environ | {"OPENAI_COMPATIBLE_MODEL": "m1"}).default_model == "m1"


def test_the_variables_stand_beside_the_file(tmp_path: Path) -> None:
    environ = {"OPENAI_COMPATIBLE_BASE_URL": "http://h/v1"}
    settings = load(written(tmp_path, UPSTREAM), environ)
    assert [u.name for u in settings.upstreams] == ["a", "default"]
    clash = UPSTREAM.replace('"a"', '"default"')
    assert "rename that one or unset the variable" in error_of(tmp_path, clash, environ)


def test_private_networks_from_the_environment(tmp_path: Path) -> None:
    environ = {"SLUICEGATE_ALLOW_PRIVATE_NETWORKS": "10.1.0.0/16, fd00::/8"}
    settings = load(None, environ | {"OPENAI_COMPATIBLE_BASE_URL": "http://vllm:8000/v1"})
    assert settings.upstreams[0].allow_private_networks == ("10.1.0.0/16", "fd00::/8")
    file = written(tmp_path, 'allow_private_networks = ["192.168.0.0/16"]\n' + UPSTREAM)
    networks = load(file, environ).upstreams[0].allow_private_networks
    assert networks == ("192.168.0.0/16", "10.1.0.0/16", "fd00::/8")


def test_keys_from_the_environment() -> None:
    settings = load(None, {"SLUICEGATE_API_KEYS": " sk-one-11111, ,sk-two-22222,"})
    assert [(k.name, k.key.reveal()) for k in settings.keys] == [
        ("env-1", "sk-one-11111"),
        ("env-2", "sk-two-22222"),
    ]


def test_the_same_key_twice_is_refused() -> None:
    with pytest.raises(SettingsError, match="same name or text"):
        load(None, {"SLUICEGATE_API_KEYS": "sk-one-11111,sk-one-11111"})


def test_no_secret_is_ever_shown(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("x")
    settings = load(written(tmp_path, FULL), {"ONE_KEY": "up-secret", "SLUICEGATE_API_KEYS": "sk-env-secret"})
    shown = (
        f"{settings!r} {settings!s} {settings.upstreams} {settings.keys[0].key} {settings.keys[0].key:>20}"
    )
    for secret in ("up-secret", "sk-alice", "sk-env-secret", "secret-team"):
        assert secret not in shown


def test_an_upstream_that_fails_later_is_found_in_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, "# x\n" + UPSTREAM + UPSTREAM.replace('"a"', '"b"'))
    settings = load(file, {"OPENAI_COMPATIBLE_BASE_URL": "http://h/v1"})
    assert str(settings.upstream_error("b", "bad port")) == f"{file}:5: upstreams[1]: bad port"
    assert str(settings.upstream_error("default", "bad port")) == "upstream default: bad port"


def test_settings_go_to_worker_processes() -> None:
    settings = load(None, {"SLUICEGATE_API_KEYS": "sk-one-11111"})
    assert pickle.loads(pickle.dumps(settings)) == settings
