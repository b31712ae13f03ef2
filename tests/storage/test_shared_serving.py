"""Two gateways with one Redis: one limit for both, and answers as long as Redis gives none."""

from __future__ import annotations

import os
import signal
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

pytestmark = pytest.mark.timeout(180)


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
        server = two(stack, demo, redis, tmp_path, "requests_per_minute = 1000000")[0]
        assert asked(server) == (200, None)
        for freezes in (True, False):
            (redis.freeze if freezes else redis.kill)()
            for _ in range(6):
                # On connections of their own, so that both workers are met.
                begun = time.monotonic()
                assert asked(server) == (200, "alone")
                assert time.monotonic() - begun < 1
            (redis.thaw if freezes else redis.start)()
            deadline = time.monotonic() + 10
            while any(asked(server)[1] for _ in range(6)):
                assert time.monotonic() < deadline
        assert "limits_not_shared" in server.output()
        assert "limits_shared_again" in server.output()
        assert redis.url not in server.output()


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
