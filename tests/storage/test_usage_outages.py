"""PostgreSQL frozen, killed, restarted under load: nobody waits for it, and no record is lost."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

import postgresql
from postgresql import Cluster
from processes import Server, answers, clean_environment, free_port, running
from served import ask
from sluicegate.settings import Secret
from sluicegate.storage.location import Location
from sluicegate.usage.logbook import open_logbook
from sluicegate.usage.model import Filter

KEY = "sk-test-0123456789abcdef"
# `TEST_OUTAGES=60` for 20 of each kind.
OUTAGES = int(os.environ.get("TEST_OUTAGES", "3"))
# A request takes milliseconds; a machine that is busy may take seconds, a hang would take for ever.
PATIENCE = 20.0

pytestmark = pytest.mark.timeout(180 + 40 * OUTAGES)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    port = free_port()
    log = tmp_path_factory.mktemp("demo") / "demo.log"
    arguments = ["sluicegate.demo", "--port", str(port)]
    with running(arguments, port, log, ready=lambda p: answers(p, "/v1/models")) as server:
        yield server


class Postmaster:
    """The server of a cluster, which can be stopped in every way."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._data = cluster.folder / "data"
        # The one that was started last, if it was not the cluster's own.
        self._process: subprocess.Popen[bytes] | None = None
        self._command = shlex.split((self._data / "postmaster.opts").read_text())

    @property
    def pids(self) -> list[int]:
        first = int((self._data / "postmaster.pid").read_text().split()[0])
        found = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(first)], capture_output=True, text=True, check=False
        )
        return [first, *map(int, found.stdout.split())]

    def freeze(self) -> None:
        pids = self.pids
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(3)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)

    def kill(self) -> None:
        for pid in self.pids:
            os.kill(pid, signal.SIGKILL)
        time.sleep(1.5)
        self._start()

    def restart(self) -> None:
        # «Fast»: connections are told that the server stops.
        os.kill(self.pids[0], signal.SIGINT)
        while (self._data / "postmaster.pid").exists():
            time.sleep(0.05)
        time.sleep(0.5)
        self._start()

    def end(self) -> None:
        """It has been stopped: wait for it."""
        if self._process is not None:
            self._process.wait(30)
            self._process = None

    def _start(self) -> None:
        # It refuses to run as root. `runuser` would stop with it when it is frozen, and not go on.
        owner: Any = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
        self.end()
        deadline = time.monotonic() + 90
        with (self._cluster.folder / "again.log").open("ab") as log:
            while True:
                assert time.monotonic() < deadline, (self._cluster.folder / "again.log").read_text()[-2000:]
                if self._process is None or self._process.poll() is not None:
                    # It refuses to start while one of those before it still has the shared memory.
                    self._process = subprocess.Popen(
                        self._command, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log, **owner
                    )
                try:
                    with psycopg.connect(self._cluster.url("postgres"), connect_timeout=2):
                        return
                except psycopg.Error:
                    time.sleep(0.2)


class Crowd:
    """Clients on connections of their own; how long the slowest answer took, and every status."""

    def __init__(self, port: int, clients: int) -> None:
        self.statuses: Counter[tuple[int, str]] = Counter()
        self.slowest = 0.0
        self._port = port
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(PATIENCE * 2)
            assert not thread.is_alive()

    def _run(self) -> None:
        while not self._stopped.is_set():
            began = time.monotonic()
            try:
                status = ask(self._port, KEY, "demo-fast", PATIENCE)
            except OSError as error:
                status = (0, type(error).__name__)
            self.slowest = max(self.slowest, time.monotonic() - began)
            self.statuses[status] += 1


def test_no_outage_holds_up_a_request_or_loses_a_record(demo: Server, tmp_path: Path) -> None:
    file = tmp_path / "sluicegate.toml"
    file.write_text(
        f'[[keys]]\nname = "a"\nkey = "{KEY}"\n'
        f'[[upstreams]]\nname = "demo"\nbase_url = "{demo.base_url}"\nmodels = ["demo-fast"]\n'
    )
    with postgresql.running() as cluster:
        url = cluster.url(cluster.create())
        location = Location(data_dir=tmp_path / "data", database_url=Secret(url))
        environment = {"SLUICEGATE_DATA_DIR": str(location.data_dir), "SLUICEGATE_DATABASE_URL": url}
        subprocess.run(
            [sys.executable, "-m", "sluicegate", "migrate"],
            env=clean_environment(environment),
            check=True,
            timeout=60,
        )
        port, postmaster = free_port(), Postmaster(cluster)
        kinds: list[Callable[[], None]] = [postmaster.freeze, postmaster.kill, postmaster.restart]
        arguments = ["sluicegate", "serve", "--port", str(port), "--workers", "2", "--config", str(file)]
        with running(
            arguments, port, tmp_path / "log", environment=environment, ready=lambda p: answers(p, "/readyz")
        ) as server:
            crowd = Crowd(port, 3)
            try:
                for number in range(OUTAGES):
                    kinds[number % len(kinds)]()
                    time.sleep(1)
            finally:
                crowd.stop()
            assert set(crowd.statuses) == {(200, "")}, (crowd.statuses, server.output()[-3000:])
            assert crowd.slowest < PATIENCE
            # What waited arrives by itself.
            wait_for(location, crowd.statuses.total())
        assert "usage_not_moved" in server.output()
    postmaster.end()


def wait_for(location: Location, requests: int) -> None:
    deadline = time.monotonic() + 90
    with closing(open_logbook(location)) as logbook:
        while True:
            found = sum(one.requests for one in logbook.sums(Filter()))
            assert found <= requests
            if found == requests:
                break
            assert time.monotonic() < deadline, (found, requests)
            time.sleep(0.2)
        ids: list[str] = []
        below = None
        while True:
            page = logbook.page(Filter(), below=below, limit=1000)
            ids += [record.id for record in page.records]
            below = page.next
            if below is None:
                break
    assert len(ids) == len(set(ids)) == requests
