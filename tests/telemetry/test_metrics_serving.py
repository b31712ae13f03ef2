"""Real gateways of several workers: sums are what clients saw, also after a kill, and for operators alone."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest
from prometheus_client import parser

from processes import Server, answers, free_port, running
from sluicegate.telemetry.run_folder import run_folder

KEY = "sk-test-0123456789abcdef"
SECRET = "operators-only"
WORKERS = 3
DASHBOARD = Path(__file__).parents[2] / "docs" / "grafana" / "sluicegate.json"
GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "observability.md"
Figures = dict[str, dict[tuple[tuple[str, str], ...], float]]

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The demo upstream, as a process of its own."""
    port = free_port()
    log = tmp_path_factory.mktemp("demo") / "demo.log"
    arguments = ["sluicegate.demo", "--port", str(port)]
    with running(arguments, port, log, ready=lambda p: answers(p, "/v1/models")) as server:
        yield server


@contextmanager
def gateway(demo: Server, folder: Path, *, server: str = "", workers: int = WORKERS) -> Iterator[Server]:
    """`sluicegate serve` with a database and records, and a second upstream that is not there."""
    port = free_port()
    file = folder / "sluicegate.toml"
    file.write_text(
        f'[server]\nworkers = {workers}\nmetrics_key = "{SECRET}"\n{server}\n'
        f'[[keys]]\nname = "a"\nkey = "{KEY}"\n'
        f'[[upstreams]]\nname = "demo"\nbase_url = "{demo.base_url}"\nmodels = ["demo-fast"]\n'
        'prices = { "*" = { prompt = 1.0, completion = 2.0 } }\n'
        f'[[upstreams]]\nname = "dead"\nbase_url = "http://127.0.0.1:{free_port()}/v1"\nmodels = ["dead"]\n'
    )
    arguments = ["sluicegate", "serve", "--port", str(port), "--config", str(file)]
    environment = {"SLUICEGATE_DATA_DIR": str(folder / "data")}
    with running(
        arguments,
        port,
        folder / "gateway.log",
        environment=environment,
        ready=lambda p: answers(p, "/readyz"),
    ) as found:
        yield found


def scrape(port: int, key: str | None = SECRET, patience: float = 20) -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=patience)
    connection.request("GET", "/metrics", headers={} if key is None else {"authorization": f"Bearer {key}"})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def figures(text: str) -> Figures:
    found: Figures = {}
    for family in parser.text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def total(found: Figures, name: str, **labels: str) -> float:
    wanted = set(labels.items())
    return sum(value for key, value in found.get(name, {}).items() if wanted <= set(key))


def ask(port: int, model: str = "demo-fast", *, stream: bool = False) -> tuple[int, int]:
    """The status, and the tokens of a plain answer; on a new connection, so that all workers are met."""
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    values = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "stream": stream}
    head = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(values), head)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    used = json.loads(body).get("usage", {}) if not stream else {}
    return answer.status, used.get("total_tokens", 0)


def workers_of(pid: int) -> list[int]:
    """Those that live: a killed one stays for a while as a zombie."""
    children = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return [child for child in children if state_of(child) not in ("Z", "X", "")]


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
    except FileNotFoundError:
        return ""


def until(port: int, name: str, wanted: float, seconds: float = 40) -> Figures:
    """Scraped again and again until a sum is as wanted."""
    deadline = time.monotonic() + seconds
    found: Figures = {}
    while True:
        # A connection that a killed worker had in its queue is reset, or waits for the next worker.
        with suppress(OSError, HTTPException):
            found = figures(scrape(port, patience=2)[1])
        if total(found, name) == wanted:
            return found
        assert time.monotonic() < deadline, (name, wanted, found.get(name))
        time.sleep(0.1)


def test_sums_are_what_clients_saw_whichever_worker_answers(demo: Server, tmp_path: Path) -> None:
    with gateway(demo, tmp_path) as server:
        seen: Counter[int] = Counter()
        tokens = 0
        for number in range(60):
            status, used = ask(server.port, stream=number % 3 == 0)
            seen[status] += 1
            tokens += used
        for _ in range(5):
            seen[ask(server.port, "dead")[0]] += 1
        assert seen == {200: 60, 502: 5}
        texts = [scrape(server.port) for _ in range(12)]
        assert {status for status, _ in texts} == {200}
        for _, text in texts:
            found = figures(text)
            assert total(found, "sluicegate_requests_total", status="2xx", workspace="default") == 60
            assert total(found, "sluicegate_requests_total", status="5xx", workspace="default") == 5
            assert total(found, "sluicegate_errors_total", code="upstream_connect_error") == 5
            assert total(found, "sluicegate_upstream_requests_total", upstream="demo") == 60
            assert total(found, "sluicegate_request_duration_seconds_count", stream="true") == 20
            assert total(found, "sluicegate_time_to_first_token_seconds_count", upstream="demo") == 20
            assert total(found, "sluicegate_workers") == WORKERS
            assert total(found, "sluicegate_database_up") == 1
            assert total(found, "sluicegate_limits_shared") == 1
        plain = found["sluicegate_model_tokens_total"]
        assert sum(value for key, value in plain.items() if dict(key)["type"] != "cached") >= tokens > 0
        # Every record was counted, and comes to the database.
        found = until(server.port, "sluicegate_usage_records_moved_total", 65)
        assert total(found, "sluicegate_usage_records_written_total") == 65
        assert total(found, "sluicegate_usage_last_move_timestamp_seconds") == pytest.approx(
            time.time(), abs=30
        )
        memory = found["sluicegate_worker_resident_memory_bytes"]
        assert len(memory) == WORKERS
        assert all(20e6 < value < 1e9 for value in memory.values())
        assert all(value > 5 for value in found["sluicegate_worker_open_fds"].values())
        folder = run_folder(server.process.pid)
        assert (folder / "metrics-1.map").stat().st_mode & 0o777 == 0o600
        assert folder.stat().st_mode & 0o777 == 0o700
    # Nothing is left of it.
    assert not folder.exists()


def test_a_killed_worker_takes_no_count_with_it(demo: Server, tmp_path: Path) -> None:
    with gateway(demo, tmp_path) as server:
        asked = 0
        for kill in range(3):
            for _ in range(12):
                assert ask(server.port)[0] == 200
                asked += 1
            os.kill(workers_of(server.process.pid)[0], signal.SIGKILL)
            until(server.port, "sluicegate_worker_starts_total", WORKERS + kill + 1)
            found = until(server.port, "sluicegate_workers", WORKERS)
            assert total(found, "sluicegate_requests_total", operation="chat") == asked
            assert len(found["sluicegate_worker_resident_memory_bytes"]) == WORKERS
            assert total(found, "sluicegate_open_requests") == 0


def test_what_a_killed_main_process_left_is_cleaned_up(demo: Server, tmp_path: Path) -> None:
    with gateway(demo, tmp_path) as server:
        left = run_folder(server.process.pid)
        assert left.exists()
        for pid in (server.process.pid, *workers_of(server.process.pid)):
            os.kill(pid, signal.SIGKILL)
        server.process.wait(20)
    assert left.exists()
    with gateway(demo, tmp_path):
        assert not left.exists()


def test_only_operators_see_the_metrics(demo: Server, tmp_path: Path) -> None:
    own = free_port()
    with gateway(demo, tmp_path, server=f'metrics_address = "127.0.0.1:{own}"') as server:
        assert ask(server.port)[0] == 200
        for key in (None, KEY, "wrong", "sk-sgadmin-wrong"):
            status, text = scrape(server.port, key)
            assert status == 401, key
            assert "sluicegate_requests_total" not in text
        # The other address needs no key, and has nothing else.
        for _ in range(6):
            status, text = scrape(own, None)
            assert status == 200
            assert total(figures(text), "sluicegate_requests_total", operation="chat") == 1
        assert not answers(own, "/healthz")
        text = scrape(own, None)[1]
        assert KEY not in text
        assert SECRET not in text


def test_a_platform_admin_sees_them_and_a_tenants_admin_does_not(demo: Server, tmp_path: Path) -> None:
    with gateway(demo, tmp_path) as server:
        token = re.findall(r'"token": "([^"]+)"', server.output())[0]
        body = json.dumps({"token": token})

        def call(path: str, body: str, key: str | None = None) -> dict[str, str]:
            connection = HTTPConnection("127.0.0.1", server.port, timeout=20)
            head = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
            connection.request("POST", f"/api/v1{path}", body, head)
            answer = connection.getresponse()
            found: dict[str, str] = json.loads(answer.read())
            assert answer.status in (200, 201), found
            connection.close()
            return found

        admin = call("/bootstrap", body)["secret"]
        assert scrape(server.port, admin)[0] == 200
        call("/workspaces", json.dumps({"id": "acme", "name": "Acme"}), admin)
        tenant = call(
            "/workspaces/acme/keys",
            json.dumps({"name": "t", "kind": "admin", "role": "workspace_admin"}),
            admin,
        )
        status, text = scrape(server.port, tenant["secret"])
        assert status == 403
        assert "sluicegate_requests_total" not in text


def metrics_in(expression: str) -> set[str]:
    """The metrics that a PromQL expression names: whatever is done with them."""
    return set(re.findall(r"\b(sluicegate_[a-z_]+)\b", expression))


def test_the_dashboard_and_the_guide_name_only_metrics_that_exist(demo: Server, tmp_path: Path) -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    expressions = [t["expr"] for panel in dashboard["panels"] for t in panel.get("targets", ())]
    expressions += [v["definition"] for v in dashboard["templating"]["list"] if "definition" in v]
    assert len(expressions) > 30
    with gateway(demo, tmp_path) as server:
        for stream in (False, True):
            assert ask(server.port, stream=stream)[0] == 200
        assert ask(server.port, "dead")[0] == 502
        text = scrape(server.port)[1]
    found = figures(text)
    families = {family.name: family for family in parser.text_string_to_metric_families(text)}
    kinds = {name: family.type for name, family in families.items()}
    # What only comes up in bad times has its line all the same.
    declared = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    for expression in expressions:
        assert "unknown" not in kinds.values()
        used = metrics_in(expression)
        assert used, expression
        for name in used:
            # A histogram has its buckets once something was measured.
            family = re.sub("_(?:bucket|sum|count)$", "", name)
            assert name in found or {name, family} & declared, f"{name} in {expression}"
            # Its labels are ones that the metric has.
            labels = {label for key in found.get(name, ()) for label, _ in key}
            selected = re.findall(rf"{name}\{{([^}}]*)\}}", expression)
            asked = {label for part in selected for label in re.findall(r"(\w+)\s*=~?", part)} - {
                "job",
                "instance",
            }
            grouped = {
                label.strip()
                for part in re.findall(r"by \(([^)]*)\)", expression)
                for label in part.split(",")
            } - {"instance"}
            if name in found:
                assert asked | grouped <= labels, f"{expression}: {name} has {labels}"
            if "rate(" in expression or "increase(" in expression:
                assert name.endswith(("_total", "_bucket", "_sum", "_count")), expression
    documented = set(re.findall(r"^\| `(sluicegate_[a-z_]+)`", GUIDE.read_text(), re.MULTILINE))
    suffixes = {"counter": "_total", "info": "_info"}
    assert documented == {name + suffixes.get(kind, "") for name, kind in kinds.items()}
    # Its alerts too.
    alerts = re.findall(r"^ +expr: (.*)", GUIDE.read_text(), re.MULTILINE)
    assert len(alerts) > 3
    for name in set().union(*map(metrics_in, alerts)):
        assert name in found or name in declared, name


def test_the_dashboard_is_what_its_script_writes() -> None:
    import subprocess
    import sys

    script = DASHBOARD.parents[2] / "scripts" / "dashboard"
    done = subprocess.run(
        [sys.executable, str(script), "--check"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("server", "message"),
    [
        ('metrics_address = "localhost:1"', "metrics_address"),
        ('metrics_address = "127.0.0.1"', "expected an address and a port"),
        ("metrics = false", "nothing to reach"),
    ],
)
def test_settings_that_cannot_work_stop_the_start(
    demo: Server, tmp_path: Path, server: str, message: str
) -> None:
    with pytest.raises(AssertionError, match=message), gateway(demo, tmp_path, server=server):
        pass


def test_an_address_that_is_taken_stops_the_start(demo: Server, tmp_path: Path) -> None:
    taken = demo.port
    with (
        pytest.raises(AssertionError, match="another program listens there"),
        gateway(demo, tmp_path, server=f'metrics_address = "127.0.0.1:{taken}"'),
    ):
        pass
