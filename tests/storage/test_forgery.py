"""What a workspace writes as a base URL reaches nobody inside (SSRF), whatever it looks like."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.tenants import Tenants
from served import ask, served
from sluicegate.storage.database import Database
from sluicegate.storage.errors import InvalidError
from sluicegate.storage.location import Location

pytestmark = pytest.mark.timeout(150)

# Ways to write 127.0.0.1, or to have it looked up; some are refused before, as no base URL at all.
HOSTS = [
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "127.0.0.1.",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0x7f.0.0.1",
    "017700000001",
    "0177.0.0.1",
    "127.0.0.2",
    "127.255.255.254",
    "0.0.0.0",
    "0",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "LocalHost.localdomain",
    "ip6-localhost",
    "[::1]",
    "[::]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b:1::127.0.0.1]",
    "[2002:7f00:1::]",
    "[2001:0:7f00:1::80ff:fffe]",
    "[::1%25lo]",
    "127.0.0.1%20",
    "user@127.0.0.1",
    "example.com@127.0.0.1",
    "127.0.0.1#.example.com",
    "127.0.0.1\\@example.com",
    "\uff11\uff12\uff17.0.0.1",
    "\u2460\u2461\u2466.0.0.1",
    "169.254.169.254",
    "[fd00:ec2::254]",
    "100.100.100.200",
    "metadata.google.internal",
]
PATHS = ["", "/", "/v1", "/v1/", "//v1", "/v1/../v1", "/%2e%2e/", "/v1?x=1", "/v1;x"]


class Canary:
    """A port of this machine that nobody may come to, on IPv4 and IPv6."""

    def __init__(self) -> None:
        self.visitors: list[Any] = []
        self._listener = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, who = self._listener.accept()
            except OSError:
                return
            self.visitors.append(who)
            connection.close()

    def close(self) -> None:
        # Wakes the thread, which closing alone does not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def canary() -> Iterator[Canary]:
    made = Canary()
    yield made
    made.close()


async def set_up(location: Location, urls: list[str]) -> tuple[str, list[str]]:
    """A workspace with an upstream for each URL that is accepted; its key, and their names."""
    database = await Database.open(location)
    tenants = Tenants(database)
    await tenants.workspace("acme")
    names = []
    for number, url in enumerate(urls):
        try:
            await tenants.upstream("acme", f"u{number}", url, models=(f"m{number}",))
            names.append(f"u{number}/m{number}")
        except InvalidError:
            continue
    _, text = await tenants.key("acme")
    await database.close()
    return text, names


def test_no_base_url_of_a_workspace_leads_inside(tmp_path: Path, canary: Canary) -> None:
    urls = [
        f"{scheme}://{host}:{canary.port}{path}"
        for host in HOSTS
        for path in PATHS
        for scheme in (("http", "https") if path == "/v1" else ("http",))
    ]
    assert len(urls) > 300
    location = Location(data_dir=tmp_path / "data")
    text, names = asyncio.run(set_up(location, urls))
    assert len(names) > 60
    with served(location, tmp_path, SLUICEGATE_ALLOW_PRIVATE_NETWORKS="") as gateway:
        found = {ask(gateway.port, text, name) for name in names}
    # The questions for models, in the background, are counted as well.
    assert canary.visitors == []
    assert {status for status, _ in found} <= {404, 502}
    assert (502, "upstream_address_forbidden") in found


def test_what_the_operator_allows_is_reached(tmp_path: Path, canary: Canary) -> None:
    location = Location(data_dir=tmp_path / "data")
    text, _ = asyncio.run(set_up(location, [f"http://127.0.0.1:{canary.port}/v1"]))
    with served(location, tmp_path, SLUICEGATE_ALLOW_PRIVATE_NETWORKS="127.0.0.1") as gateway:
        assert ask(gateway.port, text, "m0")[0] == 502
    assert canary.visitors
