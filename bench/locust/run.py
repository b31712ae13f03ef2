"""Runs the locust scenarios, directly and through the gateway in turn, and gives the outcome."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench import children, host
from bench.outcome import Behind, Outcome, Run
from bench.peers import targets
from bench.progress import Progress

# Few: locust runs on one Python thread, and with many users its own queue would be measured, on both sides.
USERS = {"plain": 2, "stream": 4, "embeddings": 2}
DIRECT, GATEWAY = "direct", "sluicegate"
# Importing locust takes about a second; for the forecast only.
START_SECONDS = 1.5


@dataclass(frozen=True)
class Pace:
    """How long and how often."""

    rounds: int
    seconds: int


@dataclass(frozen=True)
class Side:
    """One of the two that are compared."""

    name: str
    port: int


FULL = Pace(rounds=3, seconds=4)
QUICK = Pace(rounds=1, seconds=3)


def measure(binary: Path, *, quick: bool) -> Outcome:
    """All scenarios; the order of the two sides turns with each round."""
    try:
        locust = version("locust")
    except PackageNotFoundError as missing:
        raise children.BenchError(
            "locust is not installed: pip install -r requirements/bench.txt"
        ) from missing
    pace = QUICK if quick else FULL
    count = len(USERS) * pace.rounds * 2
    progress = Progress("locust", count, count * (pace.seconds + START_SECONDS))
    runs: list[Run] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-locust-")))
        upstream = stack.enter_context(children.upstream(binary, folder))
        peer = targets.sluicegate(upstream.port, children.free_port())
        gateway = stack.enter_context(targets.started(peer, folder))
        sides = [Side(DIRECT, upstream.port), Side(GATEWAY, gateway.port)]
        for scenario in USERS:
            for number in range(pace.rounds):
                order = sides if number % 2 == 0 else sides[::-1]
                for side in order:
                    what = f"{scenario}, {side.name}, round {number + 1}"
                    progress.step(what, pace.seconds + START_SECONDS)
                    runs.append(one(scenario, side, number, pace, folder))
    return Outcome(
        suite="locust",
        quick=quick,
        rounds=pace.rounds,
        command="python -m bench.measure --only locust" + (" --quick" if quick else ""),
        host=host.facts() | {"locust": locust},
        targets={
            DIRECT: Behind(settings="the scripted upstream, called without anything between"),
            GATEWAY: Behind(version=peer.version, settings=peer.settings),
        },
        scenarios={
            name: f"locust, {users} users without pauses, {pace.seconds} s of which the first is not counted"
            for name, users in USERS.items()
        },
        skipped={},
        runs=tuple(runs),
    )


def one(scenario: str, side: Side, number: int, pace: Pace, folder: Path) -> Run:
    """One locust process, bounded by its run time and by a limit around it."""
    record = folder / "record.json"
    record.unlink(missing_ok=True)
    users = str(USERS[scenario])
    command = [sys.executable, "-m", "locust", "--headless", "--only-summary", "--loglevel", "ERROR"]
    command += ["--locustfile", f"bench/locust/{scenario}.py", "--host", f"http://127.0.0.1:{side.port}"]
    command += [
        "--users",
        users,
        "--spawn-rate",
        users,
        "--run-time",
        f"{pace.seconds}s",
        "--stop-timeout",
        "3",
    ]
    environment = children.environment_with({"BENCH_RECORD": str(record), "BENCH_KEY": targets.KEY})
    try:
        done = subprocess.run(
            command,
            cwd=children.ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=pace.seconds + 30,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Run(scenario, side.name, number, {}, {"locust did not end": 1})
    if not record.exists():
        raise children.BenchError(
            f"locust {scenario} wrote no record:\n{done.stdout[-500:]}{done.stderr[-1500:]}"
        )
    written = json.loads(record.read_text())
    return Run(scenario, side.name, number, written["figures"], written["errors"])
