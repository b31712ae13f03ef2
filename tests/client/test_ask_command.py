"""`sluicegate ask` as a person runs it: the answer, pipes, thinking, Ctrl-C, and what went wrong."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time

import pytest
from click.testing import Result
from client_setup import Script, closes_within, endless
from typer.testing import CliRunner

from faults.upstream import FaultUpstream
from processes import Server, clean_environment
from sluicegate.cli import app
from sluicegate.client import Answer

LIMIT = 30


def environment(base_url: str, model: str = "demo-fast", **more: str) -> dict[str, str]:
    return clean_environment(
        {"OPENAI_COMPATIBLE_BASE_URL": base_url, "OPENAI_COMPATIBLE_MODEL": model, **more}
    )


def ask(env: dict[str, str], *arguments: str, given: str = "") -> Result:
    """In this process: starting one takes a second on a busy machine."""
    names = ("BASE_URL", "MODEL", "API_KEY")
    chosen = {f"OPENAI_COMPATIBLE_{name}": env.get(f"OPENAI_COMPATIBLE_{name}") for name in names}
    return CliRunner().invoke(app, ["ask", *arguments], input=given, env=chosen)


@pytest.mark.parametrize("option", ["--stream", "--no-stream"])
def test_an_answer(demo: Server, option: str) -> None:
    done = ask(environment(demo.base_url), option, "What happens here?")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "“What happens here?”" in done.stdout
    assert done.stdout.endswith("\n")
    assert not done.stdout.endswith("\n\n")


def test_standard_input_and_system(demo: Server, script: Script) -> None:
    assert "“one two”" in ask(environment(demo.base_url), given="one two").stdout
    assert "“one two”" in ask(environment(demo.base_url), "-", given="one two").stdout
    client = script.says(Answer("Fine."))
    env = environment(client["base_url"], "other")
    assert ask(env, "--system", "Be brief.", "--model", script.model, "Hi").stdout == "Fine.\n"
    assert script.asked[0]["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
    ]


def test_json(demo: Server) -> None:
    done = ask(environment(demo.base_url, "demo-thinking-fast"), "--json", "Hi")
    answer = json.loads(done.stdout)
    assert (answer["model"], answer["finish_reason"]) == ("demo-thinking-fast", "stop")
    assert answer["content"]
    assert answer["thinking"]
    assert answer["usage"]["total_tokens"] > 0


def test_thinking_goes_to_standard_error(demo: Server) -> None:
    env = environment(demo.base_url, "demo-thinking-fast")
    done = ask(env, "Hi")
    assert done.stderr.startswith("There is no model here")
    assert "There is no model here" not in done.stdout
    assert "\033" not in done.stderr
    assert ask(env, "--no-thinking", "Hi").stderr == ""


def in_terminal(env: dict[str, str], *arguments: str) -> bytes:
    """What a terminal is sent."""
    parent, child = pty.openpty()
    command = [sys.executable, "-m", "sluicegate", "ask", *arguments]
    process = subprocess.Popen(command, env=env, stdin=child, stdout=child, stderr=child)
    os.close(child)
    shown = b""
    try:
        while data := os.read(parent, 4096):
            shown += data
    except OSError:
        pass  # Linux says so at the end
    finally:
        os.close(parent)
    assert process.wait(LIMIT) == 0
    return shown


def test_in_a_terminal_thinking_is_dim(demo: Server) -> None:
    shown = in_terminal(environment(demo.base_url, "demo-thinking-fast"), "Hi")
    thoughts, _, answer = shown.partition(b"\033[0m")
    assert thoughts.startswith(b"\033[2mThere is no model here")
    assert b"Hello from" in answer


def test_a_model_cannot_drive_the_terminal(script: Script) -> None:
    said = "one\ttwo\n\033[2J\x9b31m\x07three"
    client = script.says(Answer(said))
    env = environment(client["base_url"], script.model)
    shown = in_terminal(env, "Hi").decode()
    assert "three" in shown
    assert not {"\033", "\x9b", "\x07"} & set(shown)
    # A pipe gets it as it is.
    assert ask(env, "Hi").stdout == f"{said}\n"


def test_no_question(demo: Server) -> None:
    for arguments, given in ((("  ",), ""), ((), ""), (("-",), "\n")):
        done = ask(environment(demo.base_url), *arguments, given=given)
        assert (done.exit_code, done.stdout) == (2, "")
        assert done.stderr == "sluicegate: The question is empty.\n"


def test_no_server_named() -> None:
    done = ask(clean_environment({}), "Hi")
    assert done.exit_code == 2
    assert "OPENAI_COMPATIBLE_BASE_URL" in done.stderr
    assert done.stderr.count("\n") == 1


FAULTS = [
    ("u20-401", "OPENAI_COMPATIBLE_API_KEY"),
    ("u21-404-json", "Check the name"),
    ("u24-503-json", "503"),
]


@pytest.mark.parametrize(("model", "says"), FAULTS)
def test_what_went_wrong_in_one_line(faulty: FaultUpstream, model: str, says: str) -> None:
    env = environment(
        f"http://127.0.0.1:{faulty.port}/v1", model, OPENAI_COMPATIBLE_API_KEY="sk-secret-123456"
    )
    done = ask(env, "Hi")
    assert (done.exit_code, done.stdout) == (1, "")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert "sk-secret" not in done.stderr


def test_what_had_come_is_shown(faulty: FaultUpstream) -> None:
    done = ask(environment(f"http://127.0.0.1:{faulty.port}/v1", "u32-clean-eof"), "Hi")
    assert done.exit_code == 1
    assert done.stdout.startswith("Hello")
    assert "before it was complete" in done.stderr


def test_ctrl_c_stops_it(script: Script) -> None:
    client = script.says(endless)
    process = subprocess.Popen(
        [sys.executable, "-m", "sluicegate", "ask", "Hi"],
        env=environment(client["base_url"], script.model),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )
    assert process.stdout is not None
    assert process.stdout.read(5) == b"word "
    process.send_signal(signal.SIGINT)
    begun = time.monotonic()
    out, err = process.communicate(timeout=LIMIT)
    assert time.monotonic() - begun < 5
    assert process.returncode == 130
    assert out.endswith(b"\n")
    assert err.strip() == b""
    assert closes_within(script.connections, 1.0)


def test_a_reader_that_has_seen_enough(script: Script) -> None:
    client = script.says(endless)
    process = subprocess.Popen(
        [sys.executable, "-m", "sluicegate", "ask", "Hi"],
        env=environment(client["base_url"], script.model),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(5)
    process.stdout.close()
    assert process.wait(LIMIT) == 1
    assert process.stderr.read() == b""
    process.stderr.close()
    assert closes_within(script.connections, 1.0)
