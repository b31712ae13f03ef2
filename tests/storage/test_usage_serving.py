"""Real gateways of several workers: limits are exact over them, and a kill loses no record."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest

from processes import Server, answers, free_port, running
from sluicegate.engine import LimitRules, Limits
from sluicegate.keys.model import configured_id
from sluicegate.storage.location import Location
from sluicegate.usage.logbook import open_logbook
from sluicegate.usage.model import INTERRUPTED, Filter, Record

KEY = "sk-test-0123456789abcdef"
# `TEST_KILLS=200` for the whole promise.
KILLS = int(os.environ.get("TEST_KILLS", "4"))
WORKERS = 3

pytestmark = pytest.mark.timeout(60 + 30 * KILLS)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The demo upstream, as a process of its own."""
    port = free_port()
    log = tmp_path_factory.mktemp("demo") / "demo.log"
    arguments = ["sluicegate.demo", "--port", str(port)]
    with running(arguments, port, log, ready=lambda p: answers(p, "/v1/models")) as server:
        yield server


def settings(demo: Server, limits: str) -> str:
    return (
        f'[[keys]]\nname = "a"\nkey = "{KEY}"\nlimits = {{ {limits} }}\n'
        f'[[upstreams]]\nname = "demo"\nbase_url = "{demo.base_url}"\nmodels = ["demo-fast", "demo-slow"]\n'
        'prices = { "*" = { prompt = 1.0, completion = 2.0 } }\n'
    )


class Gateway:
    """`sluicegate serve` on a data directory."""

    def __init__(self, demo: Server, folder: Path, limits: str, location: Location | None = None) -> None:
        self.location = location or Location(data_dir=folder / "data")
        self.data = self.location.data_dir
        self.file = folder / "sluicegate.toml"
        self.file.write_text(settings(demo, limits))
        self._log = folder / "gateway.log"

    def running(self, data: bool = True):  # type: ignore[no-untyped-def]
        port = free_port()
        arguments = ["sluicegate", "serve", "--port", str(port), "--workers", str(WORKERS)]
        arguments += ["--config", str(self.file)]
        environment = {"SLUICEGATE_DATA_DIR": str(self.data)} if data else {"XDG_DATA_HOME": str(self.data)}
        if self.location.database_url is not None:
            environment["SLUICEGATE_DATABASE_URL"] = self.location.database_url.reveal()
        return running(
            arguments, port, self._log, environment=environment, ready=lambda p: answers(p, "/readyz")
        )

    def records(self) -> list[Record]:
        found: list[Record] = []
        below = None
        with closing(open_logbook(self.location)) as logbook:
            while True:
                page = logbook.page(Filter(), below=below, limit=1000)
                found += page.records
                if page.next is None:
                    return found
                below = page.next


class Crowd:
    """Clients that ask until they are stopped, each on connections of its own."""

    def __init__(self, port: int, clients: int, *, stream_every: int = 3, most: int = 1 << 30) -> None:
        self.statuses: Counter[int] = Counter()
        # Of the requests whose last byte was seen.
        self.ended: list[str] = []
        self.tokens = 0
        self._port = port
        self._every = stream_every
        self._most = most
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(clients)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self.join()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(20)

    def _run(self, number: int) -> None:
        done = 0
        while not self._stopped.is_set() and done < self._most:
            # A new connection each time reaches other workers.
            connection = HTTPConnection("127.0.0.1", self._port, timeout=10)
            with suppress(OSError, HTTPException):
                for _ in range(5):
                    if self._stopped.is_set() or done >= self._most:
                        break
                    self._ask(connection, stream=(number + done) % self._every == 0)
                    done += 1
            connection.close()

    def _ask(self, connection: HTTPConnection, *, stream: bool) -> None:
        values = {"model": "demo-fast", "messages": [{"role": "user", "content": "Hello"}], "stream": stream}
        head = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps(values), head)
        answer = connection.getresponse()
        body = answer.read()
        with self._lock:
            self.statuses[answer.status] += 1
            if answer.status == 200 and (not stream or body.endswith(b"data: [DONE]\n\n")):
                self.ended.append(answer.headers["x-request-id"])
                if not stream:
                    self.tokens += json.loads(body)["usage"]["total_tokens"]


@pytest.mark.parametrize("data", [True, False])
def test_all_workers_together_pass_exactly_the_limit(demo: Server, tmp_path: Path, data: bool) -> None:
    gateway = Gateway(demo, tmp_path, "requests_per_day = 150")
    with gateway.running(data) as server:
        crowd = Crowd(server.port, 8, most=60)
        crowd.join()
    assert crowd.statuses == {200: 150, 429: 8 * 60 - 150}


def test_below_the_limit_nobody_is_refused(demo: Server, location: Location, tmp_path: Path) -> None:
    limits = "requests_per_day = 160, concurrent_requests = 8, tokens_per_minute = 100000000"
    gateway = Gateway(demo, tmp_path, limits, location)
    with gateway.running() as server:
        crowd = Crowd(server.port, 8, most=20)
        crowd.join()
    assert crowd.statuses == {200: 160}
    found = gateway.records()
    assert len(found) == 160
    assert {record.id for record in found} == set(crowd.ended)
    plain = [record for record in found if not record.stream]
    assert sum(record.prompt_tokens + record.completion_tokens for record in plain) == crowd.tokens
    assert all(record.source == "upstream" and record.micros > 0 for record in found)


def test_a_budget_is_passed_by_one_estimate_at_most(demo: Server, tmp_path: Path) -> None:
    budget = 20_000
    gateway = Gateway(demo, tmp_path, "concurrent_requests = 64 }\nbudget = { usd_total = 0.02")
    with gateway.running() as server:
        crowd = Crowd(server.port, 64, most=12)
        crowd.join()
    assert crowd.statuses[429] > 0
    found = gateway.records()
    assert len(found) == crowd.statuses[200]
    # 1024 tokens of an answer at two millionths each, and the prompt.
    assert sum(record.micros for record in found) <= budget + 2 * 1024 + 100


def test_who_waits_exactly_as_told_gets_in(demo: Server, tmp_path: Path) -> None:
    gateway = Gateway(demo, tmp_path, "requests_per_minute = 300, request_burst = 1")
    with gateway.running() as server:
        waited = 0
        for _ in range(20):
            status, wait = asked_once(server.port)
            if status == 429:
                assert 0 < wait <= 200
                waited += 1
                time.sleep(wait / 1000)
                status, _ = asked_once(server.port)
            assert status == 200
        assert waited > 5


def asked_once(port: int) -> tuple[int, int]:
    """On a connection of its own: the status, and the milliseconds to wait."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    values = {"model": "demo-fast", "messages": [{"role": "user", "content": "Hello"}]}
    head = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(values), head)
        answer = connection.getresponse()
        answer.read()
        return answer.status, int(answer.headers.get("retry-after-ms", 0))
    finally:
        connection.close()


def test_places_of_a_killed_worker_are_free_within_a_second(demo: Server, tmp_path: Path) -> None:
    gateway = Gateway(demo, tmp_path, f"concurrent_requests = {WORKERS * 2}")
    with gateway.running() as server:
        for _ in range(2):
            crowd = Crowd(server.port, WORKERS * 2, stream_every=1)
            time.sleep(0.5)
            os.kill(workers_of(server.process.pid)[0], signal.SIGKILL)
            crowd.stop()
            # All places at once, none of them lost.
            time.sleep(1.0)
            again = Crowd(server.port, WORKERS * 2, most=5)
            again.join()
            assert again.statuses[429] == 0
            assert again.statuses[200] > 0


def test_a_budget_after_a_crash_is_what_the_records_say(demo: Server, tmp_path: Path) -> None:
    gateway = Gateway(demo, tmp_path, "requests_per_day = 1000 }\nbudget = { usd_total = 100.0")
    with gateway.running() as server:
        Crowd(server.port, 3, most=5).join()
        before = spent_of(gateway)
        deadline = time.monotonic() + 20
        while sum(record.micros for record in gateway.records()) != before:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert before > 0
        streams = [begun_stream(server.port) for _ in range(8)]
        # So long that each has a record of its beginning.
        time.sleep(0.5)
        assert spent_of(gateway, held=True) > before
        for pid in workers_of(server.process.pid):
            os.kill(pid, signal.SIGKILL)
        for connection in streams:
            connection.close()
        while sum(record.code == INTERRUPTED for record in gateway.records()) < len(streams):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        # Their prompts, and not what was reserved for their answers.
        wanted = sum(record.micros for record in gateway.records())
        while spent_of(gateway, held=True) != wanted:
            assert time.monotonic() < deadline, (spent_of(gateway, held=True), wanted)
            time.sleep(0.1)
        assert wanted > before


def begun_stream(port: int) -> HTTPConnection:
    """An answer that takes its time."""
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    values = {"model": "demo-slow", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
    head = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(values), head)
    return connection


def spent_of(gateway: Gateway, *, held: bool = False) -> int:
    """Of the key's budget, in millionths."""
    rules = LimitRules(f"key:{configured_id(KEY)}", [("usd_total", 1, None)])
    found = Limits(gateway.data / "limits-1.map").account(rules, "usd_total")
    assert found is not None
    return found[0] + (found[1] if held else 0)


def test_kill_loses_no_record(demo: Server, location: Location, tmp_path: Path) -> None:
    """Of a worker while the others go on, then of everything."""
    gateway = Gateway(demo, tmp_path, "concurrent_requests = 1000", location)
    seen: list[str] = []
    for kill in range(KILLS):
        with gateway.running() as server:
            crowd = Crowd(server.port, 6)
            time.sleep(0.2 + kill % 7 * 0.08)
            os.kill(workers_of(server.process.pid)[kill % WORKERS], signal.SIGKILL)
            time.sleep(0.2 + kill % 5 * 0.1)
            # The main process first, so that it starts no new workers.
            for pid in (server.process.pid, *workers_of(server.process.pid)):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            crowd.stop()
        seen += crowd.ended
    # Unattended: the next start closes what was open, in its own time.
    with gateway.running() as server:
        deadline = time.monotonic() + 20
        journal = gateway.data / "journal"
        while left := list(dead_segments(journal, server.process.pid)):
            assert time.monotonic() < deadline, left
            time.sleep(0.1)
    found = Counter(record.id for record in gateway.records())
    assert len(seen) > KILLS
    assert [id for id in seen if found[id] != 1] == []
    assert max(found.values()) == 1
    open_ones = [record for record in gateway.records() if record.code == INTERRUPTED]
    assert {record.id for record in open_ones}.isdisjoint(seen)


def workers_of(pid: int) -> list[int]:
    """The processes below one, however deep."""
    found = []
    with suppress(FileNotFoundError):
        for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
            found += [child, *workers_of(child)]
    return found


def dead_segments(folder: Path, pid: int) -> Iterator[Path]:
    living = {str(worker) for worker in workers_of(pid)}
    for path in folder.glob("*.journal"):
        if path.name.split("-")[1] not in living:
            yield path
