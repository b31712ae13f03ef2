"""A real Redis (or Valkey) for tests: started, frozen, killed and started again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from processes import free_port

# `TEST_REDIS_SERVER=/path/to/valkey-server` for another one than the system's.
PROGRAMS = (os.environ.get("TEST_REDIS_SERVER", "redis-server"), "valkey-server")


class RedisServer:
    """A server of its own on a loopback port, without persistence: a restart has forgotten everything."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Until it answers. A missing server is a failure: `scripts/services` installs it."""
        program = next((found for name in PROGRAMS if (found := shutil.which(name))), None)
        assert program is not None, f"{' or '.join(PROGRAMS)} is missing: run scripts/services"
        options = {"port": str(self.port), "bind": "127.0.0.1", "save": "", "appendonly": "no"}
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        with (self.folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen([program, *arguments, "--dir", str(self.folder)], stdout=log)
        deadline = time.monotonic() + 20
        while self.command("PING") != b"+PONG\r\n":
            assert time.monotonic() < deadline, (self.folder / "redis.log").read_text()
            time.sleep(0.02)

    def freeze(self) -> None:
        """It takes connections and says nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """With all that it knew."""
        self._signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait(10)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def command(self, *words: str) -> bytes:
        """A simple command, and the first line of its answer."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
                connection.sendall(" ".join(words).encode() + b"\r\n")
                return connection.recv(65536)
        except OSError:
            return b""

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)


@contextmanager
def running() -> Iterator[RedisServer]:
    """A server until the block ends."""
    folder = Path(tempfile.mkdtemp(prefix="sluicegate-redis-"))
    server = RedisServer(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
