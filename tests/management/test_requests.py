"""The log of requests and the sums over HTTP: filters, pages, facets, files, on both databases."""

from __future__ import annotations

import asyncio
import json
import shutil
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest
from rig import Rig
from world import OTHER, OWN, World

from processes import answers, free_port, running
from sluicegate.clock import wall_ns
from sluicegate.ids import request_ids
from sluicegate.storage.errors import UnavailableError
from sluicegate.storage.location import Location
from sluicegate.usage.logbook import open_logbook
from sluicegate.usage.model import DAY_MS, Record, packed

LOG = f"/workspaces/{OWN}/requests"
COUNT = 120


@pytest.fixture
def requests(rig: Rig) -> list[Record]:
    """More of them, the newest first."""
    found = [
        Record(
            id=request_ids.next(),
            workspace=OWN,
            key="key_1",
            operation="chat",
            model="slow" if number % 3 == 0 else "fast",
            upstream="u",
            status=200,
            prompt_tokens=number,
            completion_tokens=1,
            micros=5,
            first_us=2000,
            duration_us=number * 1000,
            overhead_us=500,
            thinking="not_off",
            score=80,
            failed_checks="empty",
            phases="30,0,,,,118250,,",
        )
        for number in range(COUNT)
    ]
    logbook = open_logbook(rig.database.location)
    logbook.write(packed(found))
    logbook.close()
    return found[::-1]


async def every(rig: Rig, query: str, path: str = LOG) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        answer = await rig.call("GET", path, key="platform_admin", query=query + cursor)
        assert answer.status == 200, answer.body
        found += answer.json["items"]
        if answer.json["next"] is None:
            return found
        cursor = f"&cursor={answer.json['next']}"


@pytest.mark.asyncio
async def test_pages_and_filters(rig: Rig, requests: list[Record]) -> None:
    all_of_them = await every(rig, "limit=50")
    assert [one["id"] for one in all_of_them] == [
        *(r.id for r in requests),
        rig.world.tenants[OWN].ids["request"],
    ]
    slow = await every(rig, "model=slow&limit=7")
    assert [one["id"] for one in slow] == [r.id for r in requests if r.model == "slow"]
    late = await every(rig, "min_ms=100&max_ms=110&limit=3")
    assert [one["duration_ms"] for one in late] == list(range(110, 99, -1))
    (failed,) = await every(rig, "failed=true&text=CANARY-ERR&status=502")
    assert (failed["code"], failed["prompt_tokens"]) == ("upstream_timeout", 7)
    assert await every(rig, "key=key_2") == []
    since = all_of_them[10]["at"] + 1
    assert all(one["at"] >= since for one in await every(rig, f"since={since}"))
    assert len(await every(rig, f"until={since}")) >= COUNT - 10
    everywhere = await every(rig, "limit=200", "/requests")
    assert {one["workspace"] for one in everywhere} > {OWN, OTHER}
    assert {one["workspace"] for one in await every(rig, f"workspace={OTHER}", "/requests")} == {OTHER}


@pytest.mark.asyncio
async def test_one_in_full(rig: Rig, requests: list[Record]) -> None:
    answer = await rig.call("GET", f"{LOG}/{requests[0].id}", key="viewer")
    assert answer.status == 200
    found = answer.json
    assert (found["prompt_tokens"], found["cost_usd"], found["duration_ms"]) == (119, 0.000005, 119)
    assert {name: took for name, took in found["phases"].items() if took is not None} == {
        "authenticate": 0.03,
        "read": 0.0,
        "upstream": 118.25,
        "gateway": 0.5,
        "first_event": 2.0,
        "answer": 116.5,
    }
    assert (found["thinking"], found["score"], found["failed_checks"]) == ("not_off", 80, "empty")
    for wrong in ("req_x", "x", f"{requests[0].id}0", requests[0].id.upper()):
        assert (await rig.call("GET", f"{LOG}/{wrong}", key="viewer")).status == 404


@pytest.mark.asyncio
async def test_facets_and_sums(rig: Rig, requests: list[Record]) -> None:
    answer = await rig.call("GET", f"{LOG}/facets", key="viewer", query="fields=model,status&upstream=u")
    assert answer.json["facets"] == {
        "model": [{"value": "fast", "requests": 80}, {"value": "slow", "requests": 40}],
        "status": [{"value": 200, "requests": COUNT}],
    }
    whole = (await rig.call("GET", f"{LOG}/facets", key="viewer")).json["facets"]
    assert set(whole) == {"key", "assistant", "model", "upstream", "status", "code"}
    path = f"/workspaces/{OWN}/usage"
    found = (await rig.call("GET", path, key="viewer", query="by=model&interval=day&upstream=u")).json
    assert sum(row["requests"] for row in found["items"]) == found["total"]["requests"] == COUNT
    assert found["total"]["prompt_tokens"] == sum(r.prompt_tokens for r in requests)
    assert found["total"]["cost_usd"] == COUNT * 5 / 1_000_000
    assert {row["model"] for row in found["items"]} == {"slow", "fast"}
    assert not found["cut"]
    assert all("status" not in row and row["at"] % 86_400_000 == 0 for row in found["items"])
    by_space = (await rig.call("GET", "/usage", key="platform_admin", query="by=workspace")).json["items"]
    assert {row["workspace"]: row["requests"] for row in by_space}[OTHER] == 1


WRONG = (
    ("", "status=1", "status"),
    ("", "colour=red", "colour"),
    ("", "since=yesterday", "since"),
    ("", "min_ms=-1", "min_ms"),
    ("", f"workspace={OTHER}", "workspace"),
    ("", "failed=maybe", "failed"),
    ("", "text=" + "x" * 300, "text"),
    ("", "cursor=nonsense", "cursor"),
    ("/facets", "fields=client", "fields"),
    ("/facets", "text=x", "text"),
    ("/export", "format=xml", "format"),
    ("/export", "limit=0", "limit"),
)


@pytest.mark.asyncio
async def test_wrong_parameters_are_named(shared: Rig) -> None:
    for path, query, name in WRONG:
        answer = await shared.call("GET", LOG + path, key="viewer", query=query)
        assert (answer.status, answer.error["param"]) == (400, name), (query, answer.body)
    answer = await shared.call("GET", f"/workspaces/{OWN}/usage", key="viewer", query="by=client")
    assert (answer.status, answer.error["param"]) == (400, "by")


@pytest.mark.asyncio
async def test_files(rig: Rig, requests: list[Record]) -> None:
    answer = await rig.call("GET", f"{LOG}/export", key="viewer", query="model=slow")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    lines = answer.body.decode().split("\r\n")
    assert lines[0].startswith("id,at,workspace,key,")
    assert len(lines) == 40 + 2
    answer = await rig.call("GET", f"{LOG}/export", key="viewer", query="format=jsonl&limit=5")
    assert answer.headers["content-type"] == "application/jsonl"
    found = [json.loads(line) for line in answer.body.splitlines()]
    assert [one["id"] for one in found] == [r.id for r in requests[:5]]
    answer = await rig.call("GET", "/requests/export", key="viewer")
    assert (answer.status, answer.error["code"]) == (403, "permission_denied")


@pytest.mark.asyncio
async def test_a_file_that_cannot_begin_is_an_error(shared: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(*_: Any, **__: Any) -> None:
        raise UnavailableError("The usage records cannot be read.")

    monkeypatch.setattr("sluicegate.usage.day_files.DayFiles.page", down)
    for query in ("format=jsonl", "format=csv"):
        answer = await asyncio.wait_for(shared.call("GET", f"{LOG}/export", key="viewer", query=query), 10)
        assert (answer.status, answer.error["code"]) == (503, "database_unavailable")


def test_a_file_that_breaks_off_has_no_end(sqlite_world: tuple[Path, World], tmp_path: Path) -> None:
    """The gateway has begun to send it when a day cannot be read: nobody may take what came for all."""
    data = tmp_path / "data"
    shutil.copytree(sqlite_world[0], data)
    logbook = open_logbook(Location(data_dir=data))
    now = wall_ns()
    for day in (0, 1):
        logbook.write(
            packed(
                Record(
                    id=f"req_{now - day * DAY_MS * 1_000_000 + n:016x}{n:012x}",
                    workspace=OWN,
                    key="k",
                    operation="chat",
                )
                for n in range(1500)
            )
        )
    oldest = min((data / "usage").glob("usage-*.db"))
    port = free_port()
    arguments = ["sluicegate", "serve", "--port", str(port), "--data-dir", str(data)]
    with running(arguments, port, tmp_path / "log", ready=lambda p: answers(p, "/readyz")) as server:
        connection = HTTPConnection("127.0.0.1", port, timeout=30)
        head = {"authorization": f"Bearer {sqlite_world[1].keys['viewer']}"}
        path = f"/api/v1{LOG}/export?format=jsonl"
        connection.request("GET", path, headers=head)
        whole = connection.getresponse().read()
        assert len(whole.splitlines()) == 3001
        # Of a page in the middle of the second day.
        with oldest.open("r+b") as file:
            file.seek(oldest.stat().st_size // 3)
            file.write(b"\xff" * (oldest.stat().st_size // 3))
        connection.request("GET", path, headers=head)
        answer = connection.getresponse()
        assert answer.status == 200
        with pytest.raises((HTTPException, OSError)):
            answer.read()
        connection.close()
        assert answers(port, "/readyz")
        assert "database_unavailable" in server.output()
