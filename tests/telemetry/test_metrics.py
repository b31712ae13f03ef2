"""Metrics through the extension module: the text that Prometheus reads, and the address of its own."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics

from processes import free_port
from sluicegate.engine import Marks, Metrics
from sluicegate.telemetry.listener import Listener, split_address
from sluicegate.telemetry.logs import Log
from sluicegate.telemetry.metrics import FAMILIES, exposition, open_metrics
from sluicegate.telemetry.run_folder import (
    make_run_folder,
    remove_run_folders,
    run_folder,
    touch_run_folder,
)

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
READINGS = (1.0, 1.001, 1.003, 1.006, 1.010, 1.015, 1.215, 0.2)
CLOSING = 1.221


def ended(metrics: Metrics, **changes: Any) -> None:
    values = {
        "operation": "chat",
        "workspace": "acme",
        "upstream": "up",
        "model": "gpt",
        "code": None,
        "status": 200,
        "stream": False,
        "tokens": (10, 5, 2, 1),
        "micros": 1_500_000,
        "attempts": 1,
        "first_us": 1500,
        "answer_us": 200_000,
        "marks": Marks(*READINGS),
        "closing": CLOSING,
    }
    metrics.ended(**{**values, **changes})


@pytest.fixture
def metrics() -> Metrics:
    found = Metrics()
    ended(found)
    ended(found, status=502, code="upstream_timeout", stream=True, answer_us=None, first_us=None, attempts=3)
    # What a client may choose must not break the text.
    ended(found, model='a "quoted"\\back\nslash', workspace="", operation="novel", code='x"y\n', status=499)
    found.refused("key", "budget")
    found.scored("acme", 'a "b"/c', 95, "passed", 1, 500_000, 2_000_000)
    found.scored("acme", 'a "b"/c', None, "blocked", 0, 0, 0)
    found.publish("open_requests", 3)
    found.publish("moved_at_ms", 5000)
    found.publish_pools([("up", 4, 2, True), ("up", 1, 0, False), ("down", 0, 0, False)])
    found.count("records_written", 7)
    found.count("no_such_counter", 7)
    found.publish("no_such_gauge", 7)
    found.lag(120)
    return found


def samples(text: str, *, strict: bool = False) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    read = openmetrics.text_string_to_metric_families if strict else parser.text_string_to_metric_families
    found = [sample for family in read(text) for sample in family.samples]
    named = {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in found}
    assert len(named) == len(found), "a series twice"
    return named


@pytest.mark.parametrize("accept", ["", "text/plain", OPENMETRICS])
def test_the_official_parser_reads_every_family(metrics: Metrics, accept: str) -> None:
    text, media_type = exposition(metrics.read(), accept)
    is_open = accept == OPENMETRICS
    assert ("openmetrics" in media_type) is is_open
    assert text.endswith(b"# EOF\n") is is_open
    found = samples(text.decode(), strict=is_open)

    def value(name: str, **labels: str) -> float:
        return found[name, tuple(sorted(labels.items()))]

    assert value("sluicegate_requests_total", operation="chat", status="2xx", workspace="acme") == 1
    assert value("sluicegate_requests_total", operation="chat", status="5xx", workspace="acme") == 1
    assert value("sluicegate_requests_total", operation="other", status="4xx", workspace="") == 1
    assert value("sluicegate_errors_total", code='x"y\n') == 1
    assert value("sluicegate_model_requests_total", model='a "quoted"\\back\nslash') == 1
    assert value("sluicegate_tokens_total", workspace="acme", type="prompt") == 20
    assert value("sluicegate_cost_dollars_total", workspace="acme") == 3.0
    assert value("sluicegate_limit_rejections_total", subject="key", reason="budget") == 1
    scored = {"workspace": "acme", "assistant": 'a "b"/c'}
    assert value("sluicegate_quality_score_sum", **scored) == 95
    for le, count in (("90.0", 0), ("100.0", 1), ("+Inf", 1)):
        assert value("sluicegate_quality_score_bucket", le=le, **scored) == count
    assert value("sluicegate_quality_answers_total", verdict="blocked", **scored) == 1
    assert value("sluicegate_quality_unscored_total", **scored) == 1
    assert value("sluicegate_quality_asked_again_total", **scored) == 1
    assert value("sluicegate_quality_cost_dollars_total", **scored) == 0.5
    assert value("sluicegate_quality_wait_seconds_total", **scored) == 2.0
    assert value("sluicegate_upstream_retries_total") == 2
    assert value("sluicegate_open_requests") == 3
    assert value("sluicegate_usage_last_move_timestamp_seconds") == 5
    assert value("sluicegate_upstream_connections", upstream="up", state="idle") == 5
    assert value("sluicegate_upstream_avoided_workers", upstream="up") == 1
    assert value("sluicegate_upstream_connections", upstream="down", state="in_use") == 0
    assert value("sluicegate_workers") == 1
    assert value("sluicegate_database_up") == 1
    assert value("sluicegate_usage_records_written_total") == 7
    assert value("sluicegate_request_phase_seconds_sum", phase="admit", stream="false") == pytest.approx(
        0.008
    )
    assert value("sluicegate_request_phase_seconds_count", phase="upstream", stream="true") == 1
    for le, count in (("0.001", 0), ("0.002", 2), ("+Inf", 2)):
        assert value("sluicegate_time_to_first_token_seconds_bucket", upstream="up", le=le) == count
    assert value("sluicegate_event_loop_lag_seconds_bucket", le="0.0001") == 0
    assert value("sluicegate_event_loop_lag_seconds_bucket", le="0.0002") == 1


def test_every_family_of_the_core_is_shown(metrics: Metrics) -> None:
    assert {family for family, _, _ in metrics.read()} <= {*FAMILIES, "pool"}
    text = exposition(metrics.read(), "")[0].decode()
    assert {f"# HELP {family.name}" for family in FAMILIES.values()} <= {
        line.partition(" ")[0] + " HELP " + line.split()[2].removesuffix("_total")
        for line in text.splitlines()
        if line.startswith("# HELP")
    }


def test_histograms_grow_and_end_with_all(metrics: Metrics) -> None:
    families = parser.text_string_to_metric_families(exposition(metrics.read(), "")[0].decode())
    histograms = [family for family in families if family.type == "histogram"]
    assert len(histograms) == 7
    for family in histograms:
        series: dict[Any, list[tuple[float, float]]] = {}
        counts = {}
        for sample in family.samples:
            labels = tuple(sorted((k, v) for k, v in sample.labels.items() if k != "le"))
            if sample.name.endswith("_bucket"):
                series.setdefault(labels, []).append((float(sample.labels["le"]), sample.value))
            elif sample.name.endswith("_count"):
                counts[labels] = sample.value
        for labels, buckets in series.items():
            assert buckets == sorted(buckets)
            assert [count for _, count in buckets] == sorted(count for _, count in buckets)
            assert buckets[-1] == (float("inf"), counts[labels])


def test_numbers_that_do_not_fit_are_refused_not_wrapped() -> None:
    metrics = Metrics()
    with pytest.raises(OverflowError):
        ended(metrics, micros=-1)
    with pytest.raises(TypeError):
        ended(metrics, workspace=None)
    ended(metrics, marks=Marks(*(float("nan"),) * 8), closing=float("nan"))
    ended(metrics, marks=Marks(float("inf"), *READINGS[1:]))
    assert samples(exposition(metrics.read(), "")[0].decode())


def test_phases_that_were_not_reached_are_left_out() -> None:
    refused = Marks(1.0, known=1.001, read=1.003)
    *found, (last, _) = refused.phases(1.01, relayed=False)
    assert found == [("authenticate", 1000), ("read", 2000), ("resolve", 7000)]
    assert last == "settle"


def test_marks_are_read_from_the_clock_of_python() -> None:
    before = time.monotonic()
    marks = Marks(before)
    marks.known()
    marks.read()
    marks.asked()
    marks.answered()
    took = int((time.monotonic() - before) * 1e6) + 1
    phases = dict(marks.phases(time.monotonic(), relayed=True))
    assert all(0 <= one <= took + 1000 for one in phases.values())
    assert marks.began == before


@pytest.fixture
def listener(metrics: Metrics) -> Iterator[int]:
    port = free_port()
    made = Listener(f"127.0.0.1:{port}", lambda accept: exposition(metrics.read(), accept))
    made.start()
    yield port
    made.stop()
    made.stop()


def test_the_address_of_its_own_has_the_metrics_and_nothing_else(listener: int) -> None:
    connection = HTTPConnection("127.0.0.1", listener, timeout=10)
    connection.request("GET", "/metrics?x=1", headers={"accept": OPENMETRICS})
    answer = connection.getresponse()
    body = answer.read()
    assert (answer.status, body[-6:]) == (200, b"# EOF\n")
    assert "openmetrics" in answer.headers["content-type"]
    # On the same connection.
    connection.request("HEAD", "/metrics")
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (200, b"")
    for path in ("/", "/v1/models", "/metrics/", "/api/v1/keys"):
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status == 404
        answer.read()
    connection.request("POST", "/metrics", b"x")
    assert connection.getresponse().status == 501
    connection.close()


def test_all_workers_have_the_address(listener: int, metrics: Metrics) -> None:
    other = Listener(f"127.0.0.1:{listener}", lambda accept: exposition(metrics.read(), accept))
    other.start()
    other.stop()


def test_a_client_that_says_nothing_holds_up_nobody(listener: int) -> None:
    with (
        socket.create_connection(("127.0.0.1", listener)) as silent,
        socket.create_connection(("127.0.0.1", listener)) as half,
    ):
        half.sendall(b"GET /metr")
        began = time.monotonic()
        connection = HTTPConnection("127.0.0.1", listener, timeout=10)
        connection.request("GET", "/metrics")
        assert connection.getresponse().status == 200
        assert time.monotonic() - began < 3
        connection.close()
        # It is sent away.
        silent.settimeout(20)
        assert silent.recv(1) == b""


@pytest.mark.parametrize(
    ("text", "expected"),
    [("127.0.0.1:9464", ("127.0.0.1", 9464)), ("[::1]:1", ("::1", 1)), ("0.0.0.0:65535", ("0.0.0.0", 65535))],
)
def test_addresses(text: str, expected: tuple[str, int]) -> None:
    assert split_address(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "9464",
        ":9464",
        "localhost:9464",
        "127.0.0.1",
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "::1:9464",
        "[127.0.0.1]:80",
        "[::1",
        "127.0.0.1:x",
        "127.0.0.1:٣",
    ],
)
def test_what_is_no_address_is_told(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|IPv6"):
        split_address(text)


def test_two_processes_count_in_one_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.map"
    ours = Metrics(path, 5)
    code = (
        "import sys; from sluicegate.engine import Marks, Metrics; m = Metrics(sys.argv[1], 5)\n"
        "for _ in range(1000):\n"
        "    m.ended('chat', 'acme', 'up', 'gpt', None, 200, False, (1, 1, 0, 0), 1, 1, 1, 1, Marks(1.0), 1.1)\n"  # noqa: E501
        "m.publish('open_requests', 50)\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(path)]) for _ in range(4)]
    for _ in range(1000):
        ended(ours, tokens=(1, 1, 0, 0))
    assert [process.wait(60) for process in running] == [0] * 4
    ours.tick()
    found = samples(exposition(ours.read(), "")[0].decode())
    chats = (("operation", "chat"), ("status", "2xx"), ("workspace", "acme"))
    assert found["sluicegate_requests_total", chats] == 5000
    assert found["sluicegate_tokens_total", (("type", "prompt"), ("workspace", "acme"))] == 5000
    # They are gone, and so is what they had open.
    assert found["sluicegate_open_requests", ()] == 0
    assert found["sluicegate_workers", ()] == 1
    assert path.stat().st_mode & 0o777 == 0o600


def test_where_there_can_be_no_file_each_worker_counts_for_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    output = io.StringIO()
    log = Log(output)
    # A folder in the place of the file.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (run_folder(os.getppid()) / "metrics-1.map").mkdir(parents=True)
    ended(open_metrics(2, log))
    log.close()
    (line,) = output.getvalue().splitlines()
    assert json.loads(line)["event"] == "metrics_not_shared"
    assert json.loads(line)["cause"]


def test_a_folder_of_somebody_else_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    target = tmp_path / "elsewhere"
    target.mkdir()
    run_folder(os.getppid()).symlink_to(target)
    output = io.StringIO()
    log = Log(output)
    open_metrics(2, log)
    log.close()
    assert "metrics_not_shared" in output.getvalue()
    assert list(target.iterdir()) == []


def test_only_what_dead_processes_left_is_removed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead = subprocess.Popen(["true"])
    dead.wait()
    folders = {pid: make_run_folder(pid) for pid in (os.getpid(), os.getppid(), dead.pid)}
    for folder in folders.values():
        (folder / "metrics-1.map").write_bytes(b"x")
        os.utime(folder / "metrics-1.map", (0, 0))
    (tmp_path / f"sluicegate-{os.getuid()}-notes").mkdir()
    (tmp_path / f"sluicegate-{os.getuid()}-999999999").symlink_to(tmp_path)
    touch_run_folder(os.getppid())
    assert (folders[os.getppid()] / "metrics-1.map").stat().st_mtime > 0
    remove_run_folders()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [
            folders[os.getppid()].name,
            f"sluicegate-{os.getuid()}-notes",
            f"sluicegate-{os.getuid()}-999999999",
        ]
    )
