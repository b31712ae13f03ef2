"""`sluicegate demo` as a person runs it: a real request is answered, and nothing is left running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from processes import clean_environment

LIMIT = 30.0


def start(*arguments: str) -> subprocess.Popen[str]:
    """The command in a session of its own, with the signals that a terminal would give it."""
    return subprocess.Popen(
        [sys.executable, "-m", "sluicegate", "demo", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        env=clean_environment({}),
        start_new_session=True,
        # A test runner in the background may ignore SIGINT, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )


def descendants(pid: int) -> set[int]:
    """All processes below this one."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    below = {int(text) for text in path.read_text().split()} if path.exists() else set()
    return below.union(*(descendants(child) for child in below))


def alive(pids: set[int]) -> set[int]:
    """Those that still run; a zombie does not."""
    states = {pid: Path(f"/proc/{pid}/stat") for pid in pids}
    return {p for p, stat in states.items() if stat.exists() and stat.read_text().split(") ")[1][0] != "Z"}


def test_once_answers_one_request_and_ends() -> None:
    process = start("--once")
    output, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, output
    assert "base URL    http://127.0.0.1:" in output
    assert "No model is behind it" in output, "the answer says what it is"
    assert "pieces; the first after" in output


def test_the_lines_for_a_shell_work_as_they_are_printed() -> None:
    process = start()
    try:
        assert process.stdout is not None
        shown = "".join(iter(process.stdout.readline, "Ctrl-C stops both.\n"))
        lines = [line.strip() for line in shown.splitlines()]
        script = [line for line in lines if line.startswith(("export OPENAI_COMPATIBLE_", "sluicegate ask "))]
        assert len(script) == 4, shown
        environment = clean_environment({})
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        asked = subprocess.run(
            ["/bin/sh", "-ec", "\n".join(script)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        assert asked.returncode == 0, asked.stderr
        assert "demo" in asked.stdout
    finally:
        process.terminate()
        process.communicate()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to find child processes")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_both_processes(number: signal.Signals) -> None:
    process = start()
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if "Ctrl-C stops both." in line:
                break
        below = descendants(process.pid)
        assert len(below) >= 2, below
        os.kill(process.pid, number)
        status = process.wait(LIMIT)
        assert status == (-signal.SIGKILL if number is signal.SIGKILL else 0)
        deadline = time.monotonic() + LIMIT / 2
        while alive(below) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert alive(below) == set(), "left running"
    finally:
        process.kill()
        process.communicate()
