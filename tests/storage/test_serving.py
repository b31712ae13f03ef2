"""Gateways of several workers on a database: revocation under load, a killed worker, a frozen server."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import postgresql
from fakes.tenants import Tenants
from postgresql import Cluster
from processes import Server, answers, free_port, running
from served import Load, ask, served
from sluicegate.engine import SharedTable
from sluicegate.keys.model import mint
from sluicegate.settings import Secret
from sluicegate.storage.database import Database, make_engine, prepare
from sluicegate.storage.location import Location

WORKERS = 4
# `python -m bench.revocation` does 100,000.
TRIES = 1500

pytestmark = pytest.mark.timeout(150)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The demo upstream, as a process of its own."""
    port = free_port()
    log = tmp_path_factory.mktemp("demo") / "demo.log"
    arguments = ["sluicegate.demo", "--port", str(port)]
    with running(arguments, port, log, ready=lambda p: answers(p, "/v1/models")) as server:
        yield server


def do(location: Location, work: Callable[[Tenants], Awaitable[Any]]) -> Any:
    """Something that an operator does, in a process that is no worker."""

    async def run() -> Any:
        database = await Database.open(location)
        try:
            return await work(Tenants(database))
        finally:
            await database.close()

    return asyncio.run(run())


def set_up(location: Location, base_url: str) -> tuple[str, str]:
    """A workspace with an assistant that answers; the id and the text of its key."""

    async def work(tenants: Tenants) -> tuple[str, str]:
        await tenants.workspace("acme")
        await tenants.upstream("acme", "demo", base_url, models=("demo-fast",))
        await tenants.assistant("acme", "Helper", "demo/demo-fast")
        return await tenants.key("acme")

    found: tuple[str, str] = do(location, work)
    return found


def test_nobody_comes_in_after_a_revocation(location: Location, demo: Server, tmp_path: Path) -> None:
    key, text = set_up(location, demo.base_url)
    with served(location, tmp_path, workers=WORKERS) as gateway:
        load = Load(gateway.port, text)
        load.start()
        wait_until(lambda: len(load.before) > 200)
        do(location, lambda tenants: tenants.revoke("acme", key))
        load.revoked.set()
        wait_until(lambda: len(load.after) >= TRIES)
        load.stop()
    assert set(load.after) == {401}
    assert 200 in load.before
    assert load.broken == 0


def test_a_killed_worker_harms_nobody_else(location: Location, demo: Server, tmp_path: Path) -> None:
    key, text = set_up(location, demo.base_url)
    with served(location, tmp_path, workers=2) as gateway:
        for _ in range(5):
            victim = workers_of(gateway)[0]
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda gone=victim: gone not in workers_of(gateway))
            wait_until(lambda: len(workers_of(gateway)) == 2)
            wait_until(lambda: _good(gateway.port, text))
        # What holds in the others holds in the new ones.
        do(location, lambda tenants: tenants.revoke("acme", key))
        assert {ask(gateway.port, text) for _ in range(20)} == {(401, "api_key_revoked")}


def workers_of(gateway: Server) -> list[int]:
    """The processes below the one that listens."""
    found = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(gateway.process.pid)], capture_output=True, text=True, check=False
    )
    return [int(pid) for pid in found.stdout.split()]


def _good(port: int, key: str) -> bool:
    try:
        return ask(port, key, patience=5)[0] == 200
    except OSError:
        return False


def wait_until(condition: Callable[[], Any], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.02)


class Frozen:
    """A PostgreSQL of its own whose processes can be stopped and go on."""

    def __init__(self, cluster: Cluster) -> None:
        self._first = int((cluster.folder / "data" / "postmaster.pid").read_text().split()[0])

    def signal(self, number: signal.Signals) -> None:
        found = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self._first)], capture_output=True, text=True, check=False
        )
        for pid in [self._first, *map(int, found.stdout.split())]:
            os.kill(pid, number)


def test_a_frozen_database_lets_known_keys_in_and_nobody_else(demo: Server, tmp_path: Path) -> None:
    with postgresql.running() as cluster:
        location = Location(data_dir=tmp_path / "data", database_url=Secret(cluster.url(cluster.create())))
        asyncio.run(_migrate(location))
        _, text = set_up(location, demo.base_url)
        _, unused = do(location, lambda tenants: tenants.key("acme", "unused"))
        frozen = Frozen(cluster)
        with served(location, tmp_path) as gateway:
            assert ask(gateway.port, text) == (200, "")
            _wait_for_quiet(location)
            # Known, as things are now.
            assert ask(gateway.port, text) == (200, "")
            frozen.signal(signal.SIGSTOP)
            try:
                for _ in range(3):
                    assert ask(gateway.port, text) == (200, "")
                    began = time.monotonic()
                    assert ask(gateway.port, unused) == (503, "auth_unavailable")
                    assert ask(gateway.port, mint()) == (503, "auth_unavailable")
                    assert time.monotonic() - began < 25
                    assert ask(gateway.port, text) == (200, "")
            finally:
                frozen.signal(signal.SIGCONT)
            wait_until(lambda: ask(gateway.port, unused) == (200, ""))
            assert ask(gateway.port, mint()) == (401, "invalid_api_key")


def _wait_for_quiet(location: Location) -> None:
    """Until nothing changes any more: what discovery learns is a change too, and one of which a worker knows
    but cannot read what it is leaves nobody known.
    """
    shared = SharedTable(location.shared_file)
    seen, since = shared.generation, time.monotonic()
    deadline = since + 60
    while time.monotonic() - since < 2:
        assert time.monotonic() < deadline, "it never gets quiet"
        time.sleep(0.05)
        if shared.generation != seen:
            seen, since = shared.generation, time.monotonic()


async def _migrate(location: Location) -> None:
    location.make_data_dir()
    engine = make_engine(location)
    try:
        await prepare(engine, location, may_migrate=True)
    finally:
        await engine.dispose()
