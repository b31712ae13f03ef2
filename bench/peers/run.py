"""Measures the gateway beside nginx and other gateways, interleaved, and gives the outcome."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench import children, host
from bench.outcome import Behind, Outcome, Run
from bench.peers import scenarios, targets
from bench.peers.scenarios import Scenario
from bench.peers.targets import Absent, Target
from bench.progress import Progress, to_stderr

DIRECT = "direct"
# Between two runs: what one left behind (closed streams) is not counted in the next.
SETTLE_SECONDS = 0.5
# About what a start and a stop take; for the forecast only.
START_SECONDS = 1.0
WARM = next(scenario for scenario in scenarios.QUICK if not scenario.stream)


@dataclass(frozen=True)
class Bench:
    """What all runs share."""

    binary: Path
    folder: Path
    upstream: int
    rounds: int
    progress: Progress


def measure(binary: Path, *, quick: bool, rounds: int) -> Outcome:
    """All scenarios with all gateways that are there."""
    limit = children.raise_open_files()
    chosen = scenarios.QUICK if quick else scenarios.FULL
    skipped = {
        scenario.name: f"`ulimit -Hn` is {limit}, {scenario.open_files} open files are needed"
        for scenario in chosen
        if scenario.open_files > limit
    }
    facts = host.facts() | {"open files": str(limit)}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-peers-")))
        upstream = stack.enter_context(children.upstream(binary, folder))
        found = targets.find(upstream.port, folder)
        here = [target for target in found if isinstance(target, Target)]
        for absent in (target for target in found if isinstance(target, Absent)):
            to_stderr(f"Not measured: {absent.name}. {absent.reason}.")
        run = [scenario for scenario in chosen if scenario.name not in skipped]
        bench = Bench(binary, folder, upstream.port, rounds, plan(run, here, rounds))
        runs = list(startup(bench, here))
        for scenario in run:
            runs += fresh(bench, scenario, here) if scenario.fresh else shared(bench, scenario, here)
    names = {target.name: targets.behind(target) for target in found}
    direct = Behind(settings="the scripted upstream, called without anything between")
    what = {scenario.name: "load " + " ".join(scenario.arguments()) for scenario in chosen}
    return Outcome(
        suite="peers",
        quick=quick,
        rounds=rounds,
        command="python -m bench.measure --only peers"
        + (" --quick" if quick else "")
        + f" --rounds {rounds}",
        host=facts,
        targets={DIRECT: direct, **names},
        scenarios={"startup": "from before exec to the first 200 of the health endpoint", **what},
        skipped=skipped,
        runs=tuple(runs),
    )


def plan(chosen: list[Scenario], here: list[Target], rounds: int) -> Progress:
    """How many runs there will be, and how long they take if nothing else takes time."""
    lengths = [START_SECONDS] * ((rounds + 1) * len(here))
    for scenario in chosen:
        direct = 0 if scenario.fresh else 1
        loaded = direct + sum(scenario.includes(target.name) for target in here)
        lengths += [length(scenario)] * (loaded * min(rounds, scenario.at_most_rounds))
    return Progress("peers", len(lengths), sum(lengths))


def length(scenario: Scenario) -> float:
    """Seconds of one run."""
    warm = WARM.length + SETTLE_SECONDS + START_SECONDS if scenario.fresh else 0.0
    return warm + SETTLE_SECONDS + scenario.length


def startup(bench: Bench, here: list[Target]) -> Iterator[Run]:
    """Start times. The first start of each only fills caches of files and byte code."""
    for number in range(-1, bench.rounds):
        for target in here:
            bench.progress.step(f"startup, {target.name}", START_SECONDS)
            log = bench.folder / f"{target.name}.log"
            with children.running(
                target.command, target.port, target.ready, log, target.environment
            ) as server:
                figure = {"start_ms": round(server.start_ms, 1)}
            if number >= 0:
                yield Run("startup", target.name, number, figure)


def shared(bench: Bench, scenario: Scenario, here: list[Target]) -> Iterator[Run]:
    """All gateways run side by side, one at a time is loaded; who begins turns with each round."""
    with ExitStack() as stack:
        pids = {
            target.name: stack.enter_context(targets.started(target, bench.folder)).process.pid
            for target in here
            if scenario.includes(target.name)
        }
        for number in range(min(bench.rounds, scenario.at_most_rounds)):
            order: list[Target | None] = [None, *(t for t in here if scenario.includes(t.name))]
            turn = number % len(order)
            for target in order[turn:] + order[:turn]:
                name = target.name if target else DIRECT
                bench.progress.step(f"{scenario.name}, {name}, round {number + 1}", length(scenario))
                figures, errors = load(bench, scenario, target, pids.get(name))
                yield Run(scenario.name, name, number, figures, errors)


def fresh(bench: Bench, scenario: Scenario, here: list[Target]) -> Iterator[Run]:
    """A new process for each run, warmed by some plain requests: what those need is not the streams'."""
    for number in range(min(bench.rounds, scenario.at_most_rounds)):
        for target in (t for t in here if scenario.includes(t.name)):
            bench.progress.step(f"{scenario.name}, {target.name}, round {number + 1}", length(scenario))
            with targets.started(target, bench.folder) as server:
                load(bench, WARM, target, None)
                figures, errors = load(bench, scenario, target, server.process.pid)
                yield Run(scenario.name, target.name, number, figures, errors)


def load(
    bench: Bench, scenario: Scenario, target: Target | None, pid: int | None
) -> tuple[dict[str, float], Mapping[str, int]]:
    """One bounded run of the load generator; without a target, the upstream itself is loaded."""
    time.sleep(SETTLE_SECONDS)
    port = target.port if target else bench.upstream
    command = [str(bench.binary), "load", "--to", f"127.0.0.1:{port}", *scenario.arguments()]
    if target and target.key:
        command += ["--key", target.key]
    if pid:
        command += ["--watch", str(pid)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=scenario.length + 30, check=False
        )
    except subprocess.TimeoutExpired:
        return {}, {"the load generator did not end": 1}
    if done.returncode != 0:
        raise children.BenchError(f"{' '.join(command)}: {done.stderr.strip()}")
    report = json.loads(done.stdout)
    if target and report["errors"]:
        log = (bench.folder / f"{target.name}.log").read_text(errors="replace")
        print(f"{target.name}, {scenario.name}: {report['errors']}\n{log[-1000:]}", file=sys.stderr)
    return scenarios.figures(scenario, report), report["errors"]
