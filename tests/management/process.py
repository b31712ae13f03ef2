"""Starts `serve.py`, waits until it answers, and ends it."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

SERVE = Path(__file__).parent / "serve.py"


@dataclass(frozen=True)
class Api:
    """A running API; its base URL ends in /api/v1."""

    base_url: str
    log: Path

    def client(self, key: str | None) -> httpx.Client:
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.base_url, headers=headers, timeout=30, trust_env=False)


@contextmanager
def served(folder: Path, within: tuple[str, ...] = ()) -> Iterator[Api]:
    """The API over the database in `folder`, started by the command `within`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = folder.parent / f"{folder.name}.log"
    command = [*within, sys.executable, str(SERVE), str(folder), str(port), str(log)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    api = Api(f"http://127.0.0.1:{port}/api/v1", log)
    try:
        deadline = time.monotonic() + 40
        while True:
            try:
                httpx.get(f"{api.base_url}/openapi.json", trust_env=False).raise_for_status()
                break
            except httpx.HTTPError:
                assert process.poll() is None, process.stderr and process.stderr.read().decode()
                assert time.monotonic() < deadline, "the API does not start"
                time.sleep(0.05)
        yield api
    finally:
        process.terminate()
        _, said = process.communicate(timeout=30)
    assert b"Traceback" not in said, said.decode()
