"""A disk that takes nothing any more: requests go on, or are refused, as was chosen; no record is lost."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path

import pytest

from processes import Server, answers, free_port, running
from sluicegate.storage.location import Location
from sluicegate.usage.logbook import open_logbook
from sluicegate.usage.model import Filter

KEY = "sk-test-0123456789abcdef"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    port = free_port()
    log = tmp_path_factory.mktemp("demo") / "demo.log"
    arguments = ["sluicegate.demo", "--port", str(port)]
    with running(arguments, port, log, ready=lambda p: answers(p, "/v1/models")) as server:
        yield server


def below(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    with suppress(FileNotFoundError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            found += below(int(child))
    return found


@contextmanager
def full_disk(server: Server) -> Iterator[None]:
    """Its processes can write to no file, as on a disk without room. Sockets and mapped files go on."""
    no_more = resource.RLIM_INFINITY
    pids = below(server.process.pid)
    for pid in pids:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, no_more))
    try:
        yield
    finally:
        for pid in pids:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (no_more, no_more))


class Client:
    """Asks on one connection; remembers the ids of those that were answered with what."""

    def __init__(self, port: int) -> None:
        self.ids: dict[str, int] = {}
        self._connection = HTTPConnection("127.0.0.1", port, timeout=30)

    def ask(self, *, stream: bool = False) -> tuple[int, str]:
        values = {"model": "demo-fast", "messages": [{"role": "user", "content": "Hi"}], "stream": stream}
        head = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
        self._connection.request("POST", "/v1/chat/completions", json.dumps(values), head)
        answer = self._connection.getresponse()
        body = answer.read()
        self.ids[answer.headers["x-request-id"]] = answer.status
        return answer.status, "" if answer.status == 200 else json.loads(body)["error"]["code"]

    def close(self) -> None:
        self._connection.close()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("strict", [False, True])
def test_records_wait_for_the_disk(demo: Server, location: Location, tmp_path: Path, strict: bool) -> None:
    file, port = tmp_path / "sluicegate.toml", free_port()
    policy = "strict" if strict else "spool"
    file.write_text(
        f'[server]\nrecords = "{policy}"\n[[keys]]\nname = "a"\nkey = "{KEY}"\n'
        f'[[upstreams]]\nname = "demo"\nbase_url = "{demo.base_url}"\nmodels = ["demo-fast"]\n'
    )
    environment = {"SLUICEGATE_DATA_DIR": str(location.data_dir)}
    if location.database_url is not None:
        environment["SLUICEGATE_DATABASE_URL"] = location.database_url.reveal()
    arguments = ["sluicegate", "serve", "--port", str(port), "--config", str(file)]
    with running(
        arguments, port, tmp_path / "log", environment=environment, ready=lambda p: answers(p, "/readyz")
    ) as server:
        with closing(Client(port)) as client:
            assert [client.ask(stream=number % 2 == 0)[0] for number in range(10)] == [200] * 10
            with full_disk(server):
                # The first of them finds out, and is answered.
                assert client.ask() == (200, "")
                refused = (503, "usage_unavailable") if strict else (200, "")
                for number in range(20):
                    assert client.ask(stream=number % 2 == 0) == refused
                assert answers(port, "/healthz")
                time.sleep(1.5)
            deadline = time.monotonic() + 20
            while client.ask()[0] != 200:
                assert time.monotonic() < deadline
            assert [client.ask()[0] for _ in range(5)] == [200] * 5
        answered = {id for id, status in client.ids.items() if status == 200}
        assert len(answered) == (17 if strict else 37)
    with closing(open_logbook(location)) as logbook:
        found = [record.id for record in logbook.page(Filter(), limit=100).records]
    assert sorted(found) == sorted(answered)
