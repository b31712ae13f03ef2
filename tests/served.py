"""`sluicegate serve` with a database, as processes; and many requests at once."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from processes import Server, answers, free_port, running
from sluicegate.storage.location import Location


@contextmanager
def served(location: Location, folder: Path, *, workers: int = 1, **environment: str) -> Iterator[Server]:
    """A gateway of this database, ready to answer. Its workspaces may reach this machine."""
    port = free_port()
    given = {
        "SLUICEGATE_DATA_DIR": str(location.data_dir),
        "SLUICEGATE_ALLOW_PRIVATE_NETWORKS": "127.0.0.0/8",
    }
    if location.database_url is not None:
        given["SLUICEGATE_DATABASE_URL"] = location.database_url.reveal()
    with running(
        ["sluicegate", "serve", "--port", str(port), "--workers", str(workers)],
        port,
        folder / "gateway.log",
        environment={**given, **environment},
        ready=lambda p: answers(p, "/readyz"),
    ) as server:
        yield server


def ask(port: int, key: str, model: str = "Helper", patience: float = 30) -> tuple[int, str]:
    """One chat on a connection of its own: the status, and the code of an error."""
    connection = HTTPConnection("127.0.0.1", port, timeout=patience)
    try:
        return ask_on(connection, key, model)
    finally:
        connection.close()


def ask_on(connection: HTTPConnection, key: str, model: str = "Helper") -> tuple[int, str]:
    """As `ask`, on a connection that stays."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "x"}]})
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/chat/completions", body, headers)
    response = connection.getresponse()
    found = json.loads(response.read())
    return response.status, found.get("error", {}).get("code", "")


@dataclass
class Load:
    """Threads that ask again and again, on new connections, so that all workers are met."""

    port: int
    key: str
    threads: int = 4
    # Requests on one connection before the next, which another worker may take.
    per_connection: int = 10
    revoked: threading.Event = field(default_factory=threading.Event)
    stopped: threading.Event = field(default_factory=threading.Event)
    # Of requests begun before and after the revocation was acknowledged.
    before: list[int] = field(default_factory=list)
    after: list[int] = field(default_factory=list)
    broken: int = 0

    def __post_init__(self) -> None:
        self._running = [threading.Thread(target=self._ask, daemon=True) for _ in range(self.threads)]

    def start(self) -> None:
        for thread in self._running:
            thread.start()

    def stop(self) -> None:
        self.stopped.set()
        for thread in self._running:
            thread.join(60)

    def _ask(self) -> None:
        while not self.stopped.is_set():
            connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
            try:
                for _ in range(self.per_connection):
                    # Before the request: what begins after the acknowledgement must not succeed.
                    late = self.revoked.is_set()
                    status, _ = ask_on(connection, self.key)
                    (self.after if late else self.before).append(status)
            except (OSError, HTTPException):
                self.broken += 1
            finally:
                connection.close()
