"""Two gateways with one Redis: one limit for both, and answers as long as Redis gives none."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from http.client import HTTPConnection
from pathlib import Path

import pytest
from test_usage_serving import KEY, Crowd, Gateway, demo, workers_of

import redis_server
from processes import Server, answers, free_port, running
from redis_server import RedisServer

__all__ = ["demo"]

# `TEST_OUTAGES=20` for the whole promise.
OUTAGES = int(os.environ.get("TEST_OUTAGES", "2"))

pytestmark = pytest.mark.timeout(180 + 10 * OUTAGES)


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with redis_server.running() as found:
        yield found


def started(stack: ExitStack, gateway: Gateway, redis: RedisServer, log: Path) -> Server:
    port = free_port()
    arguments = ["sluicegate", "serve", "--port", str(port), "--workers", "2", "--config", str(gateway.file)]
    environment = {"SLUICEGATE_DATA_DIR": str(gateway.data), "SLUICEGATE_REDIS_URL": redis.url}
    return stack.enter_context(
        running(arguments, port, log, environment=environment, ready=lambda p: answers(p, "/readyz"))
    )


def two(stack: ExitStack, demo: Server, redis: RedisServer, tmp_path: Path, limits: str) -> list[Server]:
    found = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        found.append(started(stack, Gateway(demo, folder, limits), redis, folder / "gateway.log"))
    return found


def test_both_together_pass_exactly_the_limit(demo: Server, redis: RedisServer, tmp_path: Path) -> None:
    with ExitStack() as stack:
        servers = two(stack, demo, redis, tmp_path, "requests_per_day = 150")
        crowds = [Crowd(server.port, 4, most=40) for server in servers]
        for crowd in crowds:
            crowd.join()
    statuses = sum((crowd.statuses for crowd in crowds), Counter[int]())
    assert statuses == {200: 150, 429: 2 * 4 * 40 - 150}


def test_outages_are_flagged_and_end(demo: Server, redis: RedisServer, tmp_path: Path) -> None:
    with ExitStack() as stack:
        servers = two(stack, demo, redis, tmp_path, "concurrent_requests = 8")
        assert asked(servers[0]) == (200, None)
        clients = [Client(server) for server in servers for _ in range(5)]
        for number in range(2 * OUTAGES):
            (redis.freeze if number % 2 else redis.kill)()
            time.sleep(0.5)
            # By now each worker has noticed: these are on connections of their own, and meet several.
            for _ in range(6):
                assert asked(servers[0])[1] == "alone"
            (redis.thaw if number % 2 else redis.start)()
            deadline = time.monotonic() + 20
            while any(asked(servers[0])[1] for _ in range(6)):
                assert time.monotonic() < deadline
        for client in clients:
            client.stop()
        statuses = sum((client.statuses for client in clients), Counter[int]())
        assert set(statuses) == {200, 429}
        # A second is promised; the machine of the tests may stand still for some.
        assert max(client.longest for client in clients) < 4
        output = "".join(server.output() for server in servers)
        assert "limits_not_shared" in output
        assert "limits_shared_again" in output
        assert "internal" not in output
        assert redis.url not in output
        assert sum(asked(server) == (200, None) for server in servers) == 2


class Client:
    """Asks until it is stopped."""

    def __init__(self, server: Server) -> None:
        self.statuses: Counter[int] = Counter()
        self.longest = 0.0
        self._server = server
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join(20)

    def _run(self) -> None:
        while not self._ended.is_set():
            begun = time.monotonic()
            self.statuses[asked(self._server)[0]] += 1
            self.longest = max(self.longest, time.monotonic() - begun)


def test_places_of_a_dead_machine_are_free_at_the_other(
    demo: Server, redis: RedisServer, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        dying, other = two(stack, demo, redis, tmp_path, "concurrent_requests = 4")
        crowd = Crowd(dying.port, 4, stream_every=1)
        time.sleep(0.7)
        for pid in (dying.process.pid, *workers_of(dying.process.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        crowd.stop()
        # The lease is five seconds; who looks for it does so once a second.
        time.sleep(7)
        again = Crowd(other.port, 4, most=5)
        again.join()
        assert again.statuses[429] == 0
        assert again.statuses[200] > 0


def asked(server: Server) -> tuple[int, str | None]:
    """The status of a request, and how its limits were counted."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=10)
    body = '{"model":"demo-fast","messages":[{"role":"user","content":"Hello"}],"max_tokens":1}'
    head = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    try:
        connection.request("POST", "/v1/chat/completions", body, head)
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.headers["x-limits-counted"]
    finally:
        connection.close()
