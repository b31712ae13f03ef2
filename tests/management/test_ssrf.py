"""Upstreams that point inside: none of them is ever connected to, however it is written."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from canaries import Canaries
from process import served
from rebinding import ADDRESS, SCRIPT, RebindingServer
from rig import Rig, opened
from targets import INSIDE, names, urls
from world import World

from sluicegate.storage.location import Location

ADMIN = "workspace_admin"
UPSTREAMS = "/workspaces/acme/upstreams"
PLATFORM = "/workspaces/_platform/upstreams"


@pytest.fixture
def canaries() -> Iterator[Canaries]:
    with Canaries() as found:
        yield found


async def made(rig: Rig, url: str, key: str = ADMIN, path: str = UPSTREAMS) -> str | None:
    """The path of an upstream with this base URL, where it was taken."""
    name = f"target{len(rig.output.getvalue())}"
    answer = await rig.call("POST", path, {"name": name, "base_url": url, "api_key": "sk-canary"}, key=key)
    if answer.status == 201:
        return f"{path}/{answer.json['id']}"
    assert (answer.status, answer.error["param"]) == (400, "base_url"), (url, answer.body)
    return None


async def asked(rig: Rig, one: str, key: str = ADMIN) -> list[Any]:
    """The causes that testing and discovering give."""
    test = await rig.call("POST", f"{one}/test", key=key)
    learned = await rig.call("POST", f"{one}/discover", key=key)
    assert (test.status, learned.status) == (200, 200)
    assert (await rig.call("DELETE", one, key=key)).status == 204
    return [test.json["cause"], learned.json["error"]]


@pytest.mark.asyncio
async def test_the_corpus_reaches_nothing(shared: Rig, canaries: Canaries) -> None:
    corpus = urls(canaries.port)
    assert len(corpus) >= 300
    victim = await made(shared, "https://api.example.com/v1")
    assert victim is not None
    taken = []
    for url in corpus:
        one = await made(shared, url)
        moved = await shared.call("PATCH", victim, {"base_url": url}, key=ADMIN)
        assert moved.status == (400 if one is None else 200), url
        if one is not None:
            taken.append(url)
            for cause in await asked(shared, one):
                assert cause in ("upstream_address_forbidden", "upstream_dns_error"), (url, cause)
    assert canaries.reached == []
    # What is taken is a name: it is looked at when it is resolved.
    hosts = {url.split("/")[2].rpartition(":")[0].lower() for url in taken}
    assert hosts <= {name.lower() for name in names()} | {"xn--127-0-0-1"}, hosts
    assert "localhost" not in hosts


@pytest.mark.asyncio
async def test_what_not_even_the_operator_reaches(shared: Rig, canaries: Canaries) -> None:
    root = "platform_admin"
    for address in ("169.254.169.254", "100.100.100.200", "0.0.0.0", "224.0.0.1", "255.255.255.255"):
        one = await made(shared, f"http://{address}:{canaries.port}/v1", root, PLATFORM)
        assert one is not None
        assert await asked(shared, one, root) == ["upstream_address_forbidden"] * 2
    assert canaries.reached == []


@pytest.mark.asyncio
async def test_the_canaries_sing(
    shared: Rig, canaries: Canaries, sqlite_world: tuple[Path, World], tmp_path: Path
) -> None:
    """What is allowed gets through: the operator's own, and a tenant's in the operator's list."""
    here = f"http://127.0.0.1:{canaries.port}/v1"
    # What belongs to a tenant is a tenant's, whoever wrote it.
    assert await made(shared, here, "platform_admin") is None
    one = await made(shared, here, "platform_admin", PLATFORM)
    assert one is not None
    assert await asked(shared, one, "platform_admin") == [None, None]
    assert len(canaries.reached) == 2
    folder = tmp_path / "listed"
    shutil.copytree(sqlite_world[0], folder)
    listed = ("127.0.0.0/8",)
    async with opened(Location(data_dir=folder), sqlite_world[1], allow_private_networks=listed) as rig:
        for host in ("127.9.9.9", "localhost"):
            one = await made(rig, f"http://{host}:{canaries.port}/v1")
            assert one is not None
            assert await asked(rig, one) == [None, None], host
        assert await made(rig, f"http://{INSIDE[4]}/v1") is None


@pytest.mark.asyncio
async def test_the_body_of_a_test_chooses_nothing(shared: Rig, canaries: Canaries) -> None:
    """Fields that choose a server elsewhere are no fields here."""
    url = f"http://127.0.0.1:{canaries.port}/v1"
    upstream = f"{UPSTREAMS}/{shared.world.tenants['acme'].ids['upstream']}"
    for field in ("api_base", "url", "endpoint", "proxy", "ca_file", "redirect", "base_urls"):
        body = {"name": "x", "base_url": "https://a.example.com/v1", field: url}
        created = await shared.call("POST", UPSTREAMS, body, key=ADMIN)
        assert (created.status, created.error["param"]) == (400, field)
        for action in ("test", "discover"):
            await shared.call("POST", f"{upstream}/{action}", {field: url}, key=ADMIN)
            query = await shared.call("POST", f"{upstream}/{action}", key=ADMIN, query=f"{field}={url}")
            assert query.status == 400
    assert canaries.reached == []


def has_namespaces() -> bool:
    """Whether this user may give a process a resolv.conf of its own."""
    unshare = shutil.which("unshare")
    if os.geteuid() != 0 or unshare is None:
        return False
    return subprocess.run([unshare, "--mount", "true"], capture_output=True, check=False).returncode == 0


def test_names_that_change_their_answer(
    canaries: Canaries, sqlite_world: tuple[Path, World], tmp_path: Path
) -> None:
    if not has_namespaces():
        pytest.skip("needs root and mount namespaces, to give the API a name server of ours")
    folder, resolv = tmp_path / "data", tmp_path / "resolv.conf"
    shutil.copytree(sqlite_world[0], folder)
    resolv.write_text(f"nameserver {ADDRESS}\noptions timeout:2 attempts:2\n")
    within = (
        "unshare",
        "--mount",
        "sh",
        "-c",
        f'mount --bind "{resolv}" /etc/resolv.conf && exec "$@"',
        "sh",
    )
    with (
        RebindingServer() as resolver,
        served(folder, within) as api,
        api.client(sqlite_world[1].keys[ADMIN]) as client,
    ):
        for name in SCRIPT:
            url = f"http://{name}:{canaries.port}/v1"
            made = client.post(UPSTREAMS, json={"name": name, "base_url": url, "api_key": "sk-canary"})
            assert made.status_code == 201, made.text
            one = f"{UPSTREAMS}/{made.json()['id']}"
            causes = [
                client.post(f"{one}/{action}").json()[field]
                for action, field in [("test", "cause"), ("discover", "error")] * 3
            ]
            # A name that is not there yet may be tried; one that leads inside never is.
            wanted = {"upstream_address_forbidden"} | (
                {"upstream_dns_error"} if () in SCRIPT[name] else set()
            )
            assert set(causes) <= wanted, (name, causes)
            assert causes[-1] == "upstream_address_forbidden"
        assert {name for name, _ in resolver.asked} >= set(SCRIPT)
    assert canaries.reached == []
