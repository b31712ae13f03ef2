"""The examples run as they stand, against the demo upstream; the calculator's parser is safe."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
from client_setup import Script
from hypothesis import given
from hypothesis import strategies as st

from processes import Server, clean_environment
from sluicegate.client import Answer, ToolCall

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


calculator = load("calculator")


def run(base_url: str, model: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = clean_environment(
        {"OPENAI_COMPATIBLE_BASE_URL": base_url, "OPENAI_COMPATIBLE_MODEL": model}
    )
    command = [sys.executable, str(EXAMPLES / "calculator.py"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=40, check=False)


def test_the_calculator_against_the_demo(demo: Server) -> None:
    done = run(demo.base_url, "demo-fast")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("The tool answered")
    assert "calculate({" in done.stderr


def test_the_calculator_with_a_model_that_can_count(script: Script) -> None:
    call: Answer[None] = Answer(
        "", tool_calls=(ToolCall("c", "calculate", '{"expression": "(3 + 4) * 12"}'),)
    )
    client = script.says(call, Answer("It is 84."))
    done = run(client["base_url"], client["model"], "What is (3 + 4) * 12?")
    assert (done.returncode, done.stdout) == (0, "It is 84.\n")
    assert "  = 84\n" in done.stderr
    assert script.asked[1]["messages"][-1]["content"] == "84"


@pytest.mark.parametrize(
    ("expression", "value"),
    [("(3+4)*12", "84"), ("-2**2", "-4"), ("7//2%2", "1"), ("1/4", "0.25"), ("2**0.5", "1.4142135623730951")],
)
def test_arithmetic(expression: str, value: str) -> None:
    assert calculator.calculate(expression) == value


BAD = [
    "__import__('os').system('id')",
    "().__class__",
    "open('/etc/passwd')",
    "x",
    "[1]",
    "'a'*9",
    "1 if 1 else 2",
    "9**9**9",
    "9**999999999",
    "1e308*10",
    "(-1)**0.5",
    "0**-1",
    "True+1",
    "1j",
    "(" * 150 + ")" * 150,
    "1" * 300,
    "",
]


@pytest.mark.parametrize("expression", BAD)
def test_what_is_no_arithmetic(expression: str) -> None:
    begun = time.monotonic()
    with pytest.raises((ValueError, SyntaxError, ZeroDivisionError, MemoryError)):
        calculator.calculate(expression)
    assert time.monotonic() - begun < 5


@given(st.text("0123456789+-*/%().e ", max_size=60))
def test_whatever_is_written(expression: str) -> None:
    try:
        value = calculator.calculate(expression)
    except (ValueError, SyntaxError, ZeroDivisionError, OverflowError):
        return
    assert len(value) < 400
