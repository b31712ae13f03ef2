"""The bench judges and renders right: a broken limit gives a non-zero exit, an absent peer is named."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from bench.locust import run as locust  # noqa: E402
from bench.outcome import Behind, Outcome, Run, load, save  # noqa: E402
from bench.peers import run as peers  # noqa: E402
from bench.peers import scenarios  # noqa: E402
from bench.progress import Progress  # noqa: E402
from bench.report import COLUMNS, DASH, TIMES, render  # noqa: E402
from bench.verdict import Limit, ThresholdError, judge, read_limits, verdict_of  # noqa: E402

CPU = "cpu_us_per_request"
SIX_TIMES = Limit("peers", "plain", CPU, "CPU of a plain request", against="nginx", at_most=6.0, aim=4.0)


def outcome(**changes: object) -> Outcome:
    """nginx needs 20, 22 and 25 µs a request, the gateway five times as much, sglang-router is absent."""
    floor = (20.0, 22.0, 25.0)
    runs = [Run("plain", "nginx", number, {CPU: cost}) for number, cost in enumerate(floor)]
    runs += [Run("plain", "sluicegate", number, {CPU: 5 * cost}) for number, cost in enumerate(floor)]
    made = Outcome(
        suite="peers",
        quick=False,
        rounds=3,
        command="bench/run",
        host={"cpu": "Some CPU", "cores": "2", "kernel": "6.1"},
        targets={
            "nginx": Behind("1.22.1", "one worker"),
            "sluicegate": Behind("0.1.0", "key check on"),
            "sglang-router": Behind(absent="no wheel for this system"),
        },
        scenarios={"plain": "load --connections 16"},
        skipped={},
        runs=tuple(runs),
    )
    return replace(made, **changes)


def costing(factor: float) -> Outcome:
    """The gateway at this multiple of nginx in every round."""
    made = outcome()
    runs = [
        replace(run, figures={CPU: run.figures[CPU] / 5 * factor}) if run.target == "sluicegate" else run
        for run in made.runs
    ]
    return replace(made, runs=tuple(runs))


@pytest.mark.parametrize(
    ("limit", "state", "value"),
    [
        (SIX_TIMES, "held", 5.0),
        (replace(SIX_TIMES, at_most=5.0), "held", 5.0),
        (replace(SIX_TIMES, at_most=4.9), "broken", 5.0),
        (replace(SIX_TIMES, at_most=None, at_least=5.1), "broken", 5.0),
        (replace(SIX_TIMES, at_most=None, at_least=5.0), "held", 5.0),
        (replace(SIX_TIMES, compare="difference", at_most=88.0), "held", 88.0),
        (replace(SIX_TIMES, compare="difference", at_most=87.0), "broken", 88.0),
        (replace(SIX_TIMES, compare="value", against="", at_most=110.0), "held", 110.0),
        (replace(SIX_TIMES, compare="value", against="", at_most=109.0), "broken", 110.0),
    ],
)
def test_the_median_over_the_rounds_decides(limit: Limit, state: str, value: float) -> None:
    verdict = verdict_of(outcome(), limit)
    assert (verdict.state, verdict.value) == (state, pytest.approx(value))


def test_each_round_is_compared_with_itself() -> None:
    """One round on a machine that was ten times slower: for both, so the ratio stays."""
    slow = outcome()
    runs = tuple(replace(run, figures={CPU: run.figures[CPU] * 10 ** (run.round == 1)}) for run in slow.runs)
    assert verdict_of(replace(slow, runs=runs), SIX_TIMES).values == pytest.approx((5.0, 5.0, 5.0))


def test_an_absent_peer_is_named_and_breaks_nothing() -> None:
    limit = replace(SIX_TIMES, against="sglang-router")
    verdicts = judge(outcome(), [limit])
    assert [(verdict.state, verdict.why) for verdict in verdicts] == [
        ("not measured", "no wheel for this system"),
        ("held", ""),
    ]
    page = render([outcome()], verdicts)
    assert f"| sglang-router | {DASH} | **not measured**: no wheel for this system |" in page
    assert "not measured: no wheel for this system |" in page


def test_missing_figures_of_the_gateway_break() -> None:
    without = tuple(run for run in outcome().runs if run.target != "sluicegate")
    assert verdict_of(outcome(runs=without), SIX_TIMES).state == "broken"


def test_a_scenario_that_was_not_run_says_why() -> None:
    skipped = outcome(skipped={"plain": "ulimit -Hn is 1024"}, runs=())
    verdict = verdict_of(skipped, SIX_TIMES)
    assert (verdict.state, verdict.why) == ("not measured", "ulimit -Hn is 1024")
    assert "**Not run**: ulimit -Hn is 1024." in render([skipped], [verdict])


@pytest.mark.parametrize(("target", "state"), [("sluicegate", "broken"), ("nginx", "held")])
def test_failed_requests_break_only_if_they_are_the_gateways(target: str, state: str) -> None:
    failed = Run("plain", target, 3, {}, {"status 502": 2})
    verdicts = judge(outcome(runs=(*outcome().runs, failed)), [])
    assert [verdict.state for verdict in verdicts] == [state]


def test_the_page_shows_medians_ranges_ratios_and_the_host() -> None:
    page = render([outcome()], judge(outcome(), [SIX_TIMES]))
    assert f"| nginx | 22.0 (20.0{DASH}25.0) | 0 |" in page
    assert f"| sluicegate | 110.0 (100.0{DASH}125.0), 5.00 {TIMES} | 0 |" in page
    assert f"| ≤ 6.00 {TIMES} nginx, aim 4.00 | 5.00 (5.00{DASH}5.00) | held, aim missed |" in page
    for text in ("| cpu | Some CPU |", "| nginx | 1.22.1 | one worker |", "`load --connections 16`"):
        assert text in page


def test_a_floor_that_moves_is_called_noisy() -> None:
    steady, moving = outcome(), outcome(runs=(*outcome().runs, Run("plain", "nginx", 3, {CPU: 26.0})))
    assert "Noisy" not in render([steady], [])
    assert "Noisy: nginx's own figure varied by 30 % between rounds." in render([moving], [])


def test_an_outcome_survives_its_file(tmp_path: Path) -> None:
    save(outcome(), tmp_path / "peers.json")
    assert load(tmp_path / "peers.json") == outcome()


@pytest.mark.parametrize(("factor", "status"), [(5.9, 0), (6.1, 1), (None, 2)])
def test_one_broken_ratio_is_a_non_zero_exit(tmp_path: Path, factor: float | None, status: int) -> None:
    """With the real limits; everything but the plain request is left out, so that this one decides alone."""
    others = {limit.scenario: "left out" for limit in read_limits() if limit.scenario != "plain"}
    if factor is not None:
        save(replace(costing(factor), skipped=others), tmp_path / "peers.json")
    page = tmp_path / "page.md"
    command = [sys.executable, "-m", "bench.report", "--results", str(tmp_path), "--page", str(page)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    assert page.exists() == (factor is not None)
    assert (page.exists() and "**BROKEN**" in page.read_text()) == (status == 1)
    assert ("\nbroken" in done.stdout) == (status == 1)


def test_every_limit_names_something_that_is_measured() -> None:
    known = {
        "peers": {"startup", *(scenario.name for scenario in scenarios.FULL)},
        "locust": set(locust.USERS),
    }
    for limit in read_limits():
        assert limit.scenario in known[limit.suite], limit
        assert limit.figure in COLUMNS, limit


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "holds no limit"),
        ("[[limit]]\nsuite = 'peers'\n", "figure, goal, scenario is missing"),
        ("[[limit]]\nsuite = 'peers'\nat_moast = 1\n", "unknown key at_moast"),
        (
            "[[limit]]\nsuite='peers'\nscenario='plain'\nfigure='x'\ngoal='g'\nagainst='nginx'\n",
            "at_most or at_least",
        ),
        (
            "[[limit]]\nsuite='peers'\nscenario='plain'\nfigure='x'\ngoal='g'\nat_most=1\n",
            "`against` belongs to",
        ),
        ("[[limit]]\nsuite='other'\nscenario='plain'\nfigure='x'\ngoal='g'\nat_most=1\n", "suite must be"),
    ],
)
def test_a_limit_that_cannot_be_meant_is_an_error(tmp_path: Path, text: str, fault: str) -> None:
    file = tmp_path / "thresholds.toml"
    file.write_text(text)
    with pytest.raises(ThresholdError, match=fault):
        read_limits(file)


def test_the_load_generators_line_becomes_figures() -> None:
    spread = {"p50": 1.0, "p90": 2.0, "p99": 3.0, "max": 4.0, "count": 5}
    report = {
        "requests_per_s": 10.0,
        "chunks_per_s": 100.0,
        "latency_us": spread,
        "first_us": spread,
        "late_us": spread,
        "open_streams": 4990,
        "process": {
            "cpu_us_per_request": None,
            "cpu_us_per_chunk": 7.0,
            "rss_begin_kib": 1000,
            "rss_peak_kib": 101000,
        },
    }
    by_name = {scenario.name: scenario for scenario in scenarios.FULL}
    opened = scenarios.figures(by_name["open5000"], report)
    assert (opened["kib_per_stream"], opened["missing_streams"]) == (20.0, 10)
    streamed = scenarios.figures(by_name["stream200"], report)
    assert streamed["cpu_us_per_chunk"] == 7.0
    assert CPU not in streamed, "nothing finished: no cost, not a cost of 0"
    assert "late_p99_us" not in scenarios.figures(by_name["plain"], report)


def test_progress_counts_and_corrects_its_forecast() -> None:
    said: list[str] = []
    times = iter([0.0, 20.0, 30.0])
    progress = Progress("peers", 3, 30.0, write=said.append, now=lambda: next(times))
    for what in ("plain, nginx, round 1", "plain, sluicegate, round 1", "short, nginx, round 1"):
        progress.step(what, 10.0)
    assert said == [
        "peers 1 of 3: plain, nginx, round 1 (about 0:30 left)",
        # The first took twice as long as planned, so will the others.
        "peers 2 of 3: plain, sluicegate, round 1 (about 0:40 left)",
        "peers 3 of 3: short, nginx, round 1 (about 0:15 left)",
    ]


def test_a_full_pass_takes_at_most_eight_minutes() -> None:
    """As planned, with every peer there and some time to start; what else a machine does is not in it."""
    here = [
        peers.Target(name, "1", "", [], 1, "/")
        for name in ("nginx", "sluicegate", "sglang-router", "sglang-router-quiet")
    ]
    plan = peers.plan(list(scenarios.FULL), here, 3)
    each = locust.FULL.seconds + locust.START_SECONDS
    assert plan.seconds + each * len(locust.USERS) * locust.FULL.rounds * 2 <= 8 * 60
