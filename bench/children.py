"""Processes of a measurement: the bench binary, and servers on free ports, stopped by their own id."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".make" / "bench-cache"
BUILD_SECONDS = 900.0
READY_SECONDS = 30.0
STOP_SECONDS = 15.0
# Start times are read with this step.
POLL_SECONDS = 0.002
OWN_VARIABLES = ("SLUICEGATE_", "OPENAI_", "BENCH_")


class BenchError(Exception):
    """The measurement cannot go on; the text says why."""


@dataclass(frozen=True)
class Server:
    """A process that listens on 127.0.0.1."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    start_ms: float


def build() -> Path:
    """The release build of the bench crate, in a target folder of its own."""
    target = Path(os.environ.get("BENCH_TARGET_DIR", CACHE / "target"))
    command = ["cargo", "build", "--release", "--locked", "--quiet"]
    environment = {**os.environ, "CARGO_TARGET_DIR": str(target)}
    folder = ROOT / "bench" / "upstream"
    try:
        subprocess.run(command, cwd=folder, env=environment, check=True, timeout=BUILD_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        raise BenchError(f"bench/upstream does not build: {error}") from error
    return target / "release" / "bench-upstream"


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def raise_open_files() -> int:
    """Lifts the soft limit of open files to the hard one, for this process and its children; gives it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def environment_with(extra: Mapping[str, str]) -> dict[str, str]:
    """This environment without what would configure a gateway by accident."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OWN_VARIABLES)}
    return {**kept, "PYTHONUNBUFFERED": "1", "XDG_DATA_HOME": "/nonexistent", **extra}


def status(port: int, path: str) -> int:
    """The status of GET, or 0 where nobody answers within a second."""
    connection = HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, HTTPException):
        return 0
    finally:
        connection.close()


@contextmanager
def running(
    command: list[str], port: int, ready: str, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """The server until the block ends; its start counts from before exec to the first 200 of GET `ready`."""
    begin = time.monotonic()
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment_with(environment or {}),
            cwd=ROOT,
        )
    try:
        while status(port, ready) != 200:
            if process.poll() is not None or time.monotonic() - begin > READY_SECONDS:
                raise BenchError(
                    f"{command[0]} did not get ready:\n{log.read_text(errors='replace')[-2000:]}"
                )
            time.sleep(POLL_SECONDS)
        yield Server(process, port, log, (time.monotonic() - begin) * 1000)
    finally:
        stop(process)


@contextmanager
def upstream(binary: Path, folder: Path) -> Iterator[Server]:
    """The scripted upstream, which answers as long as the block runs."""
    port = free_port()
    with running(
        [str(binary), "upstream", "--port", str(port)], port, "/healthz", folder / "upstream.log"
    ) as server:
        yield server


def stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, then SIGKILL for one that does not listen."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait(STOP_SECONDS)
