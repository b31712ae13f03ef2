"""Real processes for tests: start on a free port, wait until it answers, stop by its id, keep its log."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

START_SECONDS = 45.0
STOP_SECONDS = 15.0
OWN_VARIABLES = ("SLUICEGATE_", "OPENAI_")
_GIVEN: set[int] = set()
_NO_DATA = "/nonexistent/sluicegate-tests"


@dataclass(frozen=True)
class Server:
    """A process that listens: where, and what it printed."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        return f"{self.origin}/v1"

    def output(self) -> str:
        return self.log.read_text(errors="replace")


def free_port() -> int:
    """A port that nobody listens on now, and that was not given out before.

    It lies below the range from which the kernel takes ports for outgoing connections: one of those could
    otherwise take it before its server starts.
    """
    for _ in range(1000):
        port = random.randrange(20_000, _first_ephemeral())
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _GIVEN:
                _GIVEN.add(port)
                return port
    raise AssertionError("no free port")


def _first_ephemeral() -> int:
    ranges = Path("/proc/sys/net/ipv4/ip_local_port_range")
    first = int(ranges.read_text().split()[0]) if ranges.exists() else 32_768
    # A machine that gives all ports to outgoing connections: there is no better one.
    return first if first > 21_000 else 65_536


def clean_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """This environment without what would configure a gateway or an SDK by accident.

    A database of whoever runs the tests counts as that: the default data directory is one that is not there.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OWN_VARIABLES)}
    return {**kept, "PYTHONUNBUFFERED": "1", "XDG_DATA_HOME": _NO_DATA, **extra}


def clear_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same of this process, for as long as the test runs."""
    for name in list(os.environ):
        if name.startswith(OWN_VARIABLES):
            monkeypatch.delenv(name)


def answers(port: int, path: str) -> bool:
    """Whether GET gives a 200 there, within a second."""
    connection = HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


@contextmanager
def running(
    arguments: list[str],
    port: int,
    log: Path,
    *,
    environment: Mapping[str, str] | None = None,
    within: Sequence[str] = (),
    ready: Callable[[int], bool],
) -> Iterator[Server]:
    """`python -m` with these arguments until the block ends; raises with the log if it does not get ready.

    `within` is a command that runs it, in another mount namespace for example.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*within, sys.executable, "-m", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=clean_environment(environment or {}),
        )
    server = Server(process, port, log)
    try:
        wait_until_ready(server, ready)
        yield server
    finally:
        stop(process)


def wait_until_ready(server: Server, ready: Callable[[int], bool]) -> None:
    """Returns once `ready` says so; AssertionError with the log when the process ended or took too long."""
    deadline = time.monotonic() + START_SECONDS
    while not ready(server.port):
        status = server.process.poll()
        assert status is None, f"ended with {status} instead of listening:\n{server.output()}"
        assert time.monotonic() < deadline, f"not ready after {START_SECONDS} s:\n{server.output()}"
        time.sleep(0.02)


def stop(process: subprocess.Popen[bytes]) -> int:
    """SIGTERM, then SIGKILL for one that does not listen; the exit status."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait(STOP_SECONDS)


@contextmanager
def gateway(
    settings: str,
    folder: Path,
    *,
    keys: str,
    workers: int = 1,
    within: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """`sluicegate serve` with this settings file, ready to answer."""
    port = free_port()
    file = folder / "sluicegate.toml"
    file.write_text(settings)
    arguments = ["sluicegate", "serve", "--port", str(port), "--workers", str(workers), "--config", str(file)]
    with running(
        arguments,
        port,
        folder / "gateway.log",
        environment={"SLUICEGATE_API_KEYS": keys, **(environment or {})},
        within=within,
        ready=lambda p: answers(p, "/readyz"),
    ) as server:
        yield server
