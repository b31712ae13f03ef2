"""Two variables start it: `serve` as a person starts it, without a settings file, and `demo --once`."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from openai import APIError, OpenAI
from scripted import ScriptedUpstream

from processes import Server, answers, clean_environment, free_port, gateway, running

HELLO: Any = [{"role": "user", "content": "hello"}]


@contextmanager
def serving(variables: Mapping[str, str], folder: Path) -> Iterator[Server]:
    """`sluicegate serve` with these variables and nothing else."""
    port = free_port()
    with running(
        ["sluicegate", "serve", "--port", str(port)],
        port,
        folder / "gateway.log",
        environment=variables,
        ready=lambda p: answers(p, "/readyz"),
    ) as server:
        yield server


def printed_key(server: Server) -> str:
    """The key that `serve` made, because none was set."""
    keys = re.findall(r"^\s+(sk-sg-\S+)$", server.output(), re.MULTILINE)
    assert len(keys) == 1, server.output()
    return str(keys[0])


def upstream_of(base_url: str) -> dict[str, str]:
    return {"OPENAI_COMPATIBLE_BASE_URL": base_url, "OPENAI_COMPATIBLE_API_KEY": "some-upstream-key"}


def ask_without_model(client: OpenAI) -> str:
    answer: Any = client.post("/chat/completions", cast_to=object, body={"messages": HELLO})
    return str(answer["model"])


def test_two_variables_and_the_printed_key_are_enough(demo: Server, tmp_path: Path) -> None:
    with serving(upstream_of(demo.base_url), tmp_path) as server:
        with OpenAI(base_url=server.base_url, api_key=printed_key(server)) as client:
            assert [model.id for model in client.models.list()][:2] == ["demo", "demo-fast"]
            # Nobody named a model: the first one that the upstream lists.
            assert ask_without_model(client) == "demo"
        assert "some-upstream-key" not in server.output()


def test_the_third_variable_names_the_default_model(demo: Server, tmp_path: Path) -> None:
    variables = {**upstream_of(demo.base_url), "OPENAI_COMPATIBLE_MODEL": "demo-fast"}
    with (
        serving(variables, tmp_path) as server,
        OpenAI(base_url=server.base_url, api_key=printed_key(server)) as client,
    ):
        assert ask_without_model(client) == "demo-fast"


def test_an_upstream_without_a_list_gets_the_built_in_one(scripted: ScriptedUpstream, tmp_path: Path) -> None:
    with (
        serving(upstream_of(scripted.base_url), tmp_path) as server,
        OpenAI(base_url=server.base_url, api_key=printed_key(server)) as client,
    ):
        assert [model.id for model in client.models.list()] == [
            "gpt-4o",
            "gpt-4o-mini",
            "gpt-4-turbo",
            "gpt-3.5-turbo",
            "claude-3-5-sonnet",
            "claude-3-haiku",
            "gemini-pro",
        ]
        assert ask_without_model(client) == "gpt-3.5-turbo"
        assert "fallback_models" in server.output()


@pytest.mark.parametrize(
    ("arguments", "variables", "reason"),
    [
        ([], {}, "no upstream is set"),
        (["--host", "0.0.0.0"], upstream_of("http://127.0.0.1:1/v1"), "no key is set"),
        ([], upstream_of("127.0.0.1:1/v1"), "OPENAI_COMPATIBLE_BASE_URL"),
        (["--config", "/nonexistent.toml"], {}, "/nonexistent.toml"),
    ],
)
def test_a_start_that_makes_no_sense_is_refused(
    arguments: list[str], variables: dict[str, str], reason: str
) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "sluicegate", "serve", "--port", str(free_port()), *arguments],
        env=clean_environment(variables),
        capture_output=True,
        text=True,
        timeout=45,
        check=False,
    )
    assert result.returncode == 2
    assert reason in result.stderr
    assert result.stderr.count("\n") == 1


def test_an_open_answer_may_finish_after_sigterm(demo: Server, tmp_path: Path) -> None:
    with serving(upstream_of(demo.base_url), tmp_path) as server:
        stop = threading.Timer(0.5, server.process.send_signal, [signal.SIGTERM])
        with OpenAI(base_url=server.base_url, api_key=printed_key(server), timeout=45) as client:
            stream = client.chat.completions.create(
                model="demo-slow", messages=HELLO, max_tokens=8, stream=True
            )
            stop.start()
            chunks = list(stream)
        stop.join()
        assert chunks[-1].choices[0].finish_reason == "length"
        assert server.process.wait(30) == 0


def test_an_answer_that_takes_longer_than_the_drain_is_an_error(demo: Server, tmp_path: Path) -> None:
    upstream = f'[[upstreams]]\nname = "demo"\nbase_url = "{demo.base_url}"\n'
    with gateway(f"{upstream}[server]\ndrain_timeout = 1\n", tmp_path, keys="sk-drain-test") as server:
        stop = threading.Timer(0.5, server.process.send_signal, [signal.SIGTERM])
        with OpenAI(base_url=server.base_url, api_key="sk-drain-test", timeout=45) as client:
            stream = client.chat.completions.create(model="demo-slow", messages=HELLO, stream=True)
            stop.start()
            with pytest.raises(APIError) as caught:
                list(stream)
        stop.join()
        assert caught.value.code == "server_shutdown"
        assert server.process.wait(30) == 0


def test_the_demo_asks_once_and_stops() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "sluicegate", "demo", "--once", "--port", "0"],
        env=clean_environment({}),
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "official openai client" in result.stdout
    assert "You sent 5 words" in result.stdout
    assert result.stderr == ""
