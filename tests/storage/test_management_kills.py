"""kill -9 of a whole gateway at any moment of changes over HTTP: it starts again, and has it all."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from test_serving import do, workers_of

from fakes.tenants import Tenants
from processes import Server
from served import served
from sluicegate.audit import store as audit
from sluicegate.ids import PLATFORM
from sluicegate.keys import store as keys
from sluicegate.keys.model import KeyDraft
from sluicegate.storage.database import Database
from sluicegate.storage.location import Location
from sluicegate.storage.transaction import SYSTEM
from sluicegate.upstreams import store as upstreams

# The full number is 100: TEST_KILLS=100.
KILLS = int(os.environ.get("TEST_KILLS", "3"))
WORKERS = 2
WRITERS = 3
LONGEST_LIFE = 1.0
SECRET = "sk-upstream-of-the-kills-0123456789"
HOME = "/workspaces/acme"

pytestmark = pytest.mark.timeout(120 + KILLS * 30)

Json = dict[str, Any]


@dataclass(frozen=True)
class Try:
    """One change: what is sent, and what the object is like after it."""

    method: str
    path: str
    body: Json | None
    # What the answer, and each later reading of the object, has to hold.
    expected: Json
    key: str = ""


@dataclass
class Writer:
    """Changes its own objects one after the other until the gateway is gone."""

    base_url: str
    admin: str
    name: str
    # By the object's path: what it holds for certain; None: it was deleted.
    certain: dict[str, Json | None] = field(default_factory=dict)
    # Sent, and not answered.
    open: Try | None = None
    refused: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive()
        assert self.refused == []

    def _run(self) -> None:
        with suppress(httpx.HTTPError), client(self.base_url, self.admin) as http:
            number = 0
            while not self.refused:
                self._objects(http, f"{self.name}-{number}")
                number += 1

    def _objects(self, http: httpx.Client, name: str) -> None:
        """One of each kind, made and changed; the key is revoked in the end, the upstream deleted."""
        key = self._make(http, "keys", {"name": name}, {"name": name, "models": None})
        self._change(http, key, {"models": ["m*"]}, {"models": ["m*"], "version": 2})
        self._send(http, Try("POST", f"{key}/rotate", {"grace_seconds": 60}, {"version": 3}), key)
        made = {"name": name, "base_url": "https://u.example.com/v1"}
        upstream = self._make(http, "upstreams", {**made, "api_key": SECRET}, {**made, "has_key": True})
        spec = {"model": [f"{name}/m"], "system_prompt": "x" * 2000}
        assistant = self._make(http, "assistants", {"name": name, "spec": spec}, {"name": name, "version": 1})
        self._change(http, assistant, {"spec": {"temperature": 0.5}}, {"version": 2})
        self._send(http, Try("POST", f"{key}/revoke", None, {"version": 4}), key)
        self._send(http, Try("DELETE", assistant, None, {}), assistant)
        self._send(http, Try("DELETE", upstream, None, {}), upstream)

    def _make(self, http: httpx.Client, kind: str, body: Json, expected: Json) -> str:
        made = Try("POST", f"{HOME}/{kind}", body, expected, key=f"{kind}-{body['name']}")
        answer = self._send(http, made, None)
        return f"{HOME}/{kind}/{answer.get('id')}"

    def _change(self, http: httpx.Client, path: str, body: Json, expected: Json) -> None:
        self._send(http, Try("PATCH", path, body, expected), path)

    def _send(self, http: httpx.Client, change: Try, path: str | None) -> Json:
        if self.refused:
            return {}
        self.open = change
        answer = ask(http, change)
        if answer.status_code == 503:
            # On a machine that stands still, a database may take too long: whether it was done, nobody knows.
            raise httpx.ReadError(answer.text)
        self.open = None
        if not answer.is_success:
            self.refused.append(f"{change.method} {change.path}: {answer.status_code} {answer.text}")
            return {}
        found: Json = answer.json() if answer.content else {}
        where = path or f"{change.path}/{found['id']}"
        before = self.certain.get(where) or {}
        self.certain[where] = None if change.method == "DELETE" else {**before, **change.expected}
        return found


def client(base_url: str, admin: str) -> httpx.Client:
    headers = {"authorization": f"Bearer {admin}"}
    return httpx.Client(base_url=base_url, headers=headers, timeout=30, trust_env=False)


def ask(http: httpx.Client, change: Try) -> httpx.Response:
    headers = {"idempotency-key": change.key} if change.key else {}
    return http.request(change.method, change.path, json=change.body, headers=headers)


def kill(gateway: Server) -> None:
    """All its processes; the first one first, so that it starts no new workers."""
    workers = workers_of(gateway)
    gateway.process.kill()
    for pid in [*workers, *orphans(gateway.port)]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    gateway.process.wait(30)


def orphans(port: int) -> list[int]:
    """Workers that were begun between the two looks: their command line has the port."""
    found = subprocess.run(
        ["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=False
    ).stdout.splitlines()
    mine = [line.split(None, 2) for line in found if f"--port {port} " in line]
    return [int(pid) for pid, parent, _ in mine if parent == "1"]


def steady(http: httpx.Client, change: Try) -> httpx.Response:
    """Sent again for as long as the answer says so."""
    deadline = time.monotonic() + 60
    while True:
        answer = ask(http, change)
        if answer.status_code != 503 or time.monotonic() > deadline:
            return answer
        time.sleep(0.2)


def check(http: httpx.Client, writer: Writer) -> None:
    """What was acknowledged is there; what was on its way is there or not, and can be sent again."""
    for path, expected in writer.certain.items():
        answer = steady(http, Try("GET", path, None, {}))
        last = writer.open if writer.open is not None and writer.open.path.startswith(path) else None
        if expected is None or (last is not None and last.method == "DELETE" and answer.status_code == 404):
            assert answer.status_code == 404, (path, answer.text)
            continue
        assert answer.status_code == 200, (path, answer.text)
        found = answer.json()
        maybe = [expected] if last is None else [expected, {**expected, **last.expected}]
        assert any(good.items() <= found.items() for good in maybe), (path, maybe, found)
        if "secrets" in found:
            assert 1 <= len(found["secrets"]) <= min(found["version"], 2)
    change = writer.open
    if change is not None and change.key:
        again = steady(http, change)
        assert again.status_code == 201, again.text
        name = change.expected["name"]
        listed = http.get(change.path, params={"name": name}).json()["items"]
        assert [one["id"] for one in listed if one["name"] == name] == [again.json()["id"]]


async def whole(location: Location) -> None:
    """The audit log has no gap, and every secret opens."""
    database = await Database.open(location)
    async with database.read() as view:
        assert (await audit.verify(view)).broken_at is None
        for usable in await upstreams.in_use(view, "acme"):
            assert usable.credentials is not None
            assert usable.credentials.api_key is not None
            assert usable.credentials.api_key.reveal() == SECRET
    await database.close()


def set_up(location: Location) -> str:
    async def work(tenants: Tenants) -> str:
        await tenants.workspace("acme")
        async with tenants.database.change(SYSTEM) as change:
            draft = KeyDraft(name="root", scopes=())
            return (await keys.create(change, PLATFORM, draft, kind="admin", role="platform_admin"))[1]

    text: str = do(location, work)
    return text


def test_a_killed_gateway_starts_by_itself_and_has_it_all(location: Location, tmp_path: Path) -> None:
    chance = random.Random(20261126)
    admin = set_up(location)
    writers: list[Writer] = []
    acknowledged = 0
    for run in range(KILLS + 1):
        # Nobody helps: the same command again.
        with served(location, tmp_path, workers=WORKERS) as gateway:
            base_url = f"{gateway.origin}/api/v1"
            with client(base_url, admin) as http:
                for writer in writers:
                    check(http, writer)
                    acknowledged += len(writer.certain)
            if run == KILLS:
                break
            writers = [Writer(base_url, admin, f"r{run}w{number}") for number in range(WRITERS)]
            for writer in writers:
                writer.start()
            time.sleep(chance.uniform(0, LONGEST_LIFE))
            kill(gateway)
            for writer in writers:
                writer.join()
        asyncio.run(whole(location))
    assert acknowledged > KILLS
