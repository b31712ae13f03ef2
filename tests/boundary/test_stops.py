"""A gateway that is told to stop while its workers start, and workers whose main process is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from processes import free_port

WORKERS = 2
# What takes tenths of a second; a machine may stand still.
SECONDS = 20.0


@pytest.fixture(autouse=True)
def engine_kind() -> None:
    """Here it is the gateway's own."""


@contextmanager
def starting(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`sluicegate serve` from its beginning on."""
    known = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment = {
        **known,
        "SLUICEGATE_API_KEYS": "sk-test-0123456789abcdef",
        "OPENAI_COMPATIBLE_BASE_URL": "http://127.0.0.1:9/v1",
        "OPENAI_COMPATIBLE_MODEL": "m",
        "XDG_DATA_HOME": str(folder),
    }
    arguments = ["serve", "--port", str(free_port()), "--workers", str(WORKERS)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "sluicegate", *arguments], env=environment, stdout=log, stderr=log
        )
    workers: list[int] = []
    try:
        yield process
        workers = children(process.pid)
    finally:
        process.kill()
        process.wait()
        for worker in workers:
            if is_alive(worker):
                os.kill(worker, signal.SIGKILL)


def children(pid: int) -> list[int]:
    """None of a process that has ended."""
    try:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [int(child) for child in found]


def is_alive(pid: int) -> bool:
    """Neither gone nor waiting for somebody to hear of its end."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def workers_of(process: subprocess.Popen[bytes], most: int) -> list[int]:
    """So many, as soon as they are there."""
    deadline = time.monotonic() + SECONDS
    while len(found := children(process.pid)) < most:
        assert process.poll() is None, process.returncode
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("after", [0.0, 0.05, 0.1, 0.15, 0.2, 0.4])
def test_a_stop_while_workers_start_is_heard(after: float, tmp_path: Path) -> None:
    with starting(tmp_path) as process:
        workers = workers_of(process, 1)
        time.sleep(after)
        process.terminate()
        assert process.wait(SECONDS) == 0
        assert not any(map(is_alive, workers))


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_workers_end_when_the_main_process_is_gone(tmp_path: Path) -> None:
    with starting(tmp_path) as process:
        workers = workers_of(process, WORKERS)
        time.sleep(1.0)
        process.kill()
        process.wait()
        deadline = time.monotonic() + SECONDS
        while any(map(is_alive, workers)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
