"""`sluicegate usage` and `sluicegate logs` on both databases: tables, JSON lines, CSV, filters, the tail."""

from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import msgspec
import pytest
from command_line import Cli, good
from typer.testing import Result

from processes import clean_environment
from sluicegate.clock import wall_ns
from sluicegate.ids import request_ids
from sluicegate.storage.location import Location
from sluicegate.usage.bodies import Body
from sluicegate.usage.export import PAGE, exported
from sluicegate.usage.logbook import Logbook, open_logbook
from sluicegate.usage.model import DAY_MS, Filter, Record, packed
from sluicegate.usage.tail import Tail

NOW = wall_ns() // 1_000_000
EVIL = ("=1+1", "+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "＝1", 'a,"b"\nc')  # noqa: RUF001


@pytest.fixture
def logbook(location: Location) -> Iterator[Logbook]:
    with closing(open_logbook(location)) as opened:
        yield opened


def record(number: int, ago_ms: int, **values: Any) -> Record:
    id = f"req_{(NOW - ago_ms) * 1_000_000:016x}{number:012x}"
    made = Record(id=id, workspace="acme", key="key_1", operation="chat", model="m", upstream="u", status=200)
    return msgspec.structs.replace(made, **values)


def refused(result: Result) -> str:
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    return line


def test_usage_of_days_and_models(cli: Cli, logbook: Logbook) -> None:
    assert "Nothing was used" in cli("usage").stderr
    logbook.write(
        packed(
            [
                record(1, 0, prompt_tokens=1000, completion_tokens=5, micros=13),
                record(2, 0, model="n", prompt_tokens=2, status=502, code="upstream_timeout"),
                record(3, 2 * DAY_MS, prompt_tokens=7),
            ]
        )
    )
    table = good(cli("usage"))
    assert table.splitlines()[0].split() == [
        "DAY",
        "MODEL",
        "REQUESTS",
        "FAILED",
        "PROMPT",
        "COMPLETION",
        "CACHED",
        "COST",
    ]
    assert len(table.splitlines()) == 5
    assert table.splitlines()[-1].split() == ["TOTAL", "-", "3", "1", "1,009", "5", "0", "$0.000013"]
    found = json.loads(good(cli("usage", "since=1d", "--by", "model", "--json")))
    assert [(row["model"], row["prompt_tokens"]) for row in found["items"]] == [("m", 1000), ("n", 2)]
    assert (found["total"]["requests"], found["total"]["cost_usd"]) == (2, 0.000013)
    assert len(json.loads(good(cli("usage", "--by", "", "--json")))["items"]) == 1
    rows = list(csv.DictReader(io.StringIO(good(cli("usage", "--by", "day,model", "--csv")))))
    assert [(row["model"], row["total_tokens"]) for row in rows][1:] == [("m", "1005"), ("n", "2")]
    assert "hour or day" in refused(cli("usage", "--by", "hour,day"))
    assert "hour or day" in refused(cli("usage", "--by", "client"))
    assert "`sluicegate logs` does" in refused(cli("usage", "min=1s"))
    assert "no workspace `nobody`" in refused(cli("usage", "-w", "nobody"))


def test_logs_for_people_and_programs(cli: Cli, logbook: Logbook) -> None:
    assert "No request." in cli("logs").stderr
    bad = record(2, 0, status=502, code="upstream_timeout", error="Too\x1b[2J long", duration_us=2_500_000)
    records = [record(1, 0, duration_us=12_300, prompt_tokens=3), bad, record(3, DAY_MS, model="n")]
    logbook.write(packed(records))
    lines = good(cli("logs")).splitlines()
    assert lines[0].split()[:3] == ["TIME", "STATUS", "MS"]
    assert len(lines) == 4
    assert r"upstream_timeout: Too\x1b[2J long" in lines[1]
    assert "12.3" in lines[2]
    found = [json.loads(line) for line in good(cli("logs", "failed=true", "min=2s", "--json")).splitlines()]
    assert [(one["id"], one["duration_ms"], one["error"]) for one in found] == [
        (bad.id, 2500.0, "Too\x1b[2J long")
    ]
    for filters in (["status=502"], ["text=too", "code=upstream_timeout"], ["since=1h", "min=1s", "max=1m"]):
        (one,) = good(cli("logs", *filters, "--json")).splitlines()
        assert json.loads(one)["id"] == bad.id
    assert len(good(cli("logs", "--limit", "1", "--json")).splitlines()) == 1
    assert len(good(cli("logs", "--limit", "0", "--json")).splitlines()) == 3
    detail = good(cli("logs", "--request", bad.id))
    assert "upstream_timeout" in detail
    assert "gateway_ms" in detail
    assert json.loads(good(cli("logs", "--request", bad.id, "--json")))["phases"]["gateway"] == 0
    logbook.keep([Body(id=bad.id, workspace="acme", request=b'{"a":1}', answer=b"")])
    kept = json.loads(good(cli("logs", "--request", bad.id, "--json")))["body"]
    assert kept == {"request": '{"a":1}', "answer": "", "cut": False}
    assert '{"a":1}' in good(cli("logs", "--request", bad.id))
    assert "there is no request" in refused(cli("logs", "--request", "req_none"))
    assert "one of since, until" in refused(cli("logs", "colour=red"))
    assert "from 100 to 599" in refused(cli("logs", "status=9"))
    assert "24h" in refused(cli("logs", "since=yesterday"))
    assert "500ms" in refused(cli("logs", "min=fast"))
    assert "given twice" in refused(cli("logs", "key=a", "key=b"))
    assert "JSON lines" in refused(cli("logs", "--follow", "--format", "csv"))


def test_no_cell_of_a_csv_is_a_formula(cli: Cli, logbook: Logbook) -> None:
    logbook.write(packed(record(n, 0, model=text, error=text, code="x") for n, text in enumerate(EVIL)))
    text = good(cli("logs", "--format", "csv", "--limit", "0"))
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert len(rows) == len(EVIL)
    for row, evil in zip(rows[::-1], EVIL, strict=True):
        assert row["model"] == (f"'{evil}" if evil[0] in "=+-@\t\r＝" else evil)  # noqa: RUF001
        assert row["at"].endswith("Z")
        assert not any(cell.startswith(("=", "+", "-", "@")) for cell in row.values())


def test_an_export_is_whole_and_comes_in_pieces(logbook: Logbook) -> None:
    logbook.write(packed(record(n, n) for n in range(2 * PAGE + 10)))
    pieces = list(exported(logbook, Filter(), "jsonl"))
    assert len(pieces) == 3
    ids = [json.loads(line)["id"] for line in b"".join(pieces).splitlines()]
    assert len(set(ids)) == 2 * PAGE + 10
    assert ids == sorted(ids, reverse=True)
    assert len(b"".join(exported(logbook, Filter(), "jsonl", PAGE + 5)).splitlines()) == PAGE + 5


def test_the_tail_sees_each_once_whatever_their_order(logbook: Logbook) -> None:
    logbook.write(packed([record(1, 3000)]))
    tail = Tail(logbook, Filter(workspace="acme"), NOW)
    assert tail.news(NOW) == []
    # One that began before the look, and ends after it; one of somebody else.
    late, new = record(2, 5000), record(3, 10)
    logbook.write(packed([new, record(4, 10, workspace="zeta")]))
    assert tail.news(NOW) == [new]
    logbook.write(packed([late]))
    assert tail.news(NOW) == [late]
    # A long one began long ago: it is found with the next deep look.
    long = record(5, 900_000, duration_us=890_000_000)
    logbook.write(packed([long]))
    assert [one for _ in range(10) for one in tail.news(NOW)] == [long]
    assert [one for _ in range(20) for one in tail.news(NOW)] == []


def test_follow_shows_what_comes_until_it_is_told_to_stop(location: Location, logbook: Logbook) -> None:
    environment = {"SLUICEGATE_DATA_DIR": str(location.data_dir)}
    if location.database_url is not None:
        environment["SLUICEGATE_DATABASE_URL"] = location.database_url.reveal()
    first = request_ids.next()
    logbook.write(packed([record(0, 0, id=first)]))
    following = subprocess.Popen(
        [sys.executable, "-m", "sluicegate", "logs", "--follow", "--json", "model=m"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(environment),
    )
    try:
        assert following.stdout is not None
        assert json.loads(following.stdout.readline())["id"] == first
        for _ in range(2):
            id = request_ids.next()
            logbook.write(packed([record(0, 0, id=id), record(0, 0, id=request_ids.next(), model="n")]))
            assert json.loads(following.stdout.readline())["id"] == id
        following.send_signal(signal.SIGINT)
        rest, errors = following.communicate(timeout=30)
    finally:
        following.kill()
        following.wait(30)
    assert (following.returncode, rest, errors) == (130, "", "")
